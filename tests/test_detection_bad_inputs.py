"""What is wrong with data or settings of detection is told in one paragraph, or left out and counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from coco_sets import annotation, content_of, images_of, rectangle, write_set
from PIL import Image

from s3_jax.config import Config, config_of, default_config
from s3_jax.data.stream import eval_batches, train_batches
from s3_jax.detection.task import open_task
from s3_jax.errors import S3Error

ROOT = Path(__file__).parent.parent
SIDE = 32
BOX = (4, 6, 16, 12)


def content(*more, images=4, categories=None):
    """Four images with an object each, and further annotations."""
    objects = [annotation(number, 100 + number, 18, BOX) for number in range(images)]
    made = content_of(images_of(*[(SIDE, SIDE)] * images), [*objects, *more])
    return made | ({"categories": categories} if categories else {})


def config(path, **data) -> Config:
    settings = default_config("s3_jax.detection")
    settings.model.update(image_size=SIDE, patch_size=4)
    stages = {"depth": (1,) * 4, "embed_dim": (8,) * 4, "window": (2,) * 4, "mlp_ratio": (1.0,) * 4}
    settings.backbone.update(**stages, qkv_dim=(32,) * 4)
    settings.data.update({"source": "coco", "path": str(path), "holdout_fraction": 0.25, "test_scale": (SIDE, SIDE)})
    settings.data.update({"canvases": ((SIDE, SIDE),), "max_objects": 2} | data)
    settings.augment.update(short_sides=(SIDE,), long_side=SIDE, crop_probability=0.0, crop_short_sides=(SIDE,))
    settings.train.update(batch_size=2)
    return config_of(settings.to_dict())


def opened(folder, train, test=None, **data):
    write_set(folder, {"train": train, "test": test or content()})
    return open_task(config(folder, **data))


CATEGORIES = content()["categories"]
REFUSED = {
    "no json": ("{", "instances_train.json is no JSON file"),
    "a list": (json.dumps([1]), "instances_train.json holds no annotations: expected an object with the lists"),
    "no images": ({k: v for k, v in content().items() if k != "images"}, "the list 'images' of COCO's form is missing"),
    "an image without height": (
        content() | {"images": [{"id": 1, "file_name": "a.png", "width": 3}]},
        "image 1 has no 'height'; expected a whole number",
    ),
    "an unknown image": (content(annotation(9, 7, 18, BOX)), "1 of 5 annotations are of images that it does not list"),
    "an unknown category": (content(annotation(9, 100, 5, BOX)), "annotations are of categories that it does not list"),
    "other categories": (
        content(categories=[CATEGORIES[0] | {"name": "wolf"}, *CATEGORIES[1:]]),
        "the categories of 'train' and 'test' differ, so their labels would not agree; only in train: 18 wolf",
    ),
    "a box of three numbers": (content(annotation(9, 100, 18, BOX) | {"bbox": [1, 2, 3]}), r"has the bbox \[1, 2, 3\]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_annotations_that_are_none_are_refused(tmp_path, name):
    train, message = REFUSED[name]
    whole = content()
    write_set(tmp_path, {"train": whole, "test": whole})
    write_set(tmp_path, {"train": train}, with_images=False)
    with pytest.raises(S3Error, match=message) as refused:
        open_task(config(tmp_path))
    assert "\n" not in str(refused.value)


def test_what_of_annotations_cannot_be_used_is_counted(tmp_path, caplog):
    bad = [
        annotation(11, 100, 18, (4, 4, 0, 8)),
        annotation(12, 100, 18, (9, 4, -3, 8)),
        annotation(13, 101, 18, (40, 4, 5, 5)),
        annotation(14, 101, 18, BOX, segmentation=[[1, 1, 8, 8]]),
        annotation(15, 102, 18, BOX, segmentation=[[1, 1, 8, 8], rectangle(*BOX)]),
        annotation(16, 103, 18, BOX, iscrowd=1),
    ]
    task = opened(tmp_path, content(*bad))
    for words in (
        "left out 2 boxes without area",
        "left out 1 boxes outside of their image",
        "left out 2 polygons without three points within reach of their image",
        "left out 1 objects without a mask",
    ):
        assert words in caplog.text
    whole = task.splits.train_and_holdout.source
    assert whole.object_counts.tolist() == [1, 1, 2, 1]
    assert [len(whole.truth(index)) for index in range(4)] == [1, 1, 2, 2]  # with the crowd, which is not trained on


def test_more_objects_than_there_is_room_for_are_counted_and_the_largest_kept(tmp_path, caplog):
    crowd = [annotation(20 + side, 100, 3, (1, 1, side, side)) for side in (3, 30, 5, 20)]
    task = opened(tmp_path, content(*crowd))
    assert (
        "1 images have more than data.max_objects = 2 objects, up to 5: the largest are kept, and 3 are" in caplog.text
    )
    examples = task.examples(task.splits.train_and_holdout, training=True)
    boxes = examples.example(0, np.random.default_rng(0))["boxes"]
    assert sorted((boxes[:, 2] - boxes[:, 0]).tolist()) == [20.0, 30.0]


@pytest.mark.parametrize("damage", ["missing", "cut", "another size"])
def test_a_bad_image_is_named_or_skipped(tmp_path, damage):
    task = opened(tmp_path, content())
    path = tmp_path / "test" / "1.png"
    if damage == "missing":
        path.unlink()
        task = open_task(config(tmp_path))
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:40])
    else:
        Image.new("RGB", (SIDE, SIDE + 1)).save(path)
    examples = task.examples(task.splits.test, training=False)
    with pytest.raises(S3Error, match=r"1\.png: .*; replace it, or leave out such images with data.on_bad_image"):
        list(eval_batches(examples, batch_size=4))
    (batch,) = eval_batches(examples, batch_size=4, skip_bad=True)
    assert batch["weight"].tolist() == [1.0, 0.0, 1.0, 1.0]


def begin(path, data):
    """As far as a run goes before it trains."""
    settings = config(path, **data)
    open_task(settings).spec(settings.backbone.architecture(), None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"canvases": ((32, 48),), "test_scale": (32, 32)},
            "48 pixels do not fit a network whose coarsest map has a st",
        ),
        ({"canvases": ((32, 16),)}, "no canvas holds an image of 32 x 32 pixels"),
        ({"canvases": ()}, "config.data.canvases"),
        ({"max_objects": 0}, "config.data.max_objects = 0: expected a whole number from 1 to 10,000"),
        ({"images_folder": "nowhere"}, "no folder .*nowhere"),
        ({"annotations_file": "{split}.json"}, "no file .*train.json"),
        ({"source": "cocoa"}, "config.data.source = 'cocoa': expected one of scenes, coco"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, data, message):
    write_set(tmp_path, {"train": content(), "test": content()})
    with pytest.raises(S3Error, match=message) as refused:
        begin(tmp_path, data)
    assert "\n" not in str(refused.value)


def test_the_command_ends_with_2_and_one_paragraph(tmp_path):
    flags = [f"--config={ROOT}/configs/detection_folder.py", f"--config.data.path={tmp_path / 'nowhere'}"]
    flags += [f"--workdir={tmp_path / 'run'}", "--config.backbone.from_scratch=True"]
    program = [sys.executable, "-m", "s3_jax.main", *flags]
    done = subprocess.run(program, cwd=ROOT, env={**os.environ}, capture_output=True, text=True)
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("s3_jax:")]
    assert len(told) == 1
    assert "instances_train.json': prepare the data as <path>/annotations/instances_<split>.json" in told[0]
    assert "Traceback" not in done.stderr
    program[3] = f"--config={ROOT}/configs/coco_cascade_s3_s.py:5x"
    done = subprocess.run(program, cwd=ROOT, env={**os.environ}, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "there is no such schedule; take one of 1x, 3x" in done.stderr


def test_a_batch_of_training_has_no_bad_image_unseen(tmp_path):
    task = opened(tmp_path, content())
    for path in (tmp_path / "train").iterdir():
        path.write_bytes(b"")
    batches = train_batches(task.examples(task.splits.train, training=True), batch_size=2, seed=0, skip_bad=True)
    batch = next(batches)
    batches.close()
    assert batch["weight"].tolist() == [0.0, 0.0]
    assert (batch["labels"] == 0).all()  # of no weight, whatever they say
