"""Images with objects as examples on canvases, and what images serve as: training, holdout, test."""

import numpy as np
import pytest
from coco_sets import annotation, content_of, images_of, write_set

from s3_jax.data.rescaling import rescaled_size
from s3_jax.data.splits import Subset
from s3_jax.data.stream import eval_batches, eval_plan, train_batches
from s3_jax.detection.augment import drawn_view, fitted
from s3_jax.detection.coco import open_coco
from s3_jax.detection.config import DetectionAugmentConfig, DetectionConfig, DetectionDataConfig
from s3_jax.detection.dataset import open_data, open_split
from s3_jax.detection.examples import ObjectsOnCanvases, largest_scale
from s3_jax.errors import S3Error

LYING, UPRIGHT = (64, 96), (96, 64)
SIZES = {"test_scale": (96, 64), "canvases": (LYING, UPRIGHT)}
AUGMENT = DetectionAugmentConfig((48, 64), 96, 0.5, 0.5, (40, 50), (30, 50))


def written(folder, count=12, without=(2, 5)):
    """Images 60 x 90 and 90 x 60 by turns, each with two objects but for some without any."""
    sizes = [(60, 90), (90, 60)]
    images = images_of(*(sizes[number % 2] for number in range(count)))
    objects = [
        annotation(2 * number + half, 100 + number, (18, 3)[half], (10 + 20 * half, 12, 15, 20 + 5 * half))
        for number in range(count)
        for half in (0, 1)
        if number not in without
    ]
    others = [image | {"id": 500 + number} for number, image in enumerate(images_of((60, 90), (90, 60)))]
    found = [annotation(900, 500, 90, (5, 5, 20, 20))]
    return write_set(folder, {"train": content_of(images, objects), "test": content_of(others, found)})


def settings(path, **data):
    return DetectionDataConfig(**{"source": "coco", "path": str(path), "holdout_fraction": 0.25} | SIZES | data)


def examples_of(path, training, **data):
    config = settings(path, **data)
    images = open_coco(str(path), ("train",)).splits["train"]
    subset = Subset(images, np.flatnonzero(images.has_objects), "train")
    return ObjectsOnCanvases(subset, config, augment=AUGMENT if training else None)


def test_images_without_objects_are_measured_on_and_not_trained_on(tmp_path, caplog):
    data = open_data(settings(written(tmp_path)), seed=0)
    splits = data.splits
    bare = {2, 5}
    assert not bare & set(splits.train.indices.tolist())
    assert not bare & set(splits.train_and_holdout.indices.tolist())
    assert len(splits.train_and_holdout) == 10
    assert len(splits.holdout) == 3
    assert set(splits.train.indices.tolist()) | set(splits.holdout.indices.tolist()) | bare == set(range(12))
    assert len(splits.test) == 2  # one of which has no object
    record = data.record()
    assert (record["source"], record["num_classes"]) == ("coco", 3)
    assert record["splits"]["train"]["of"] == 12
    assert "2 of 12 images of split train have no objects and are left out of training" in caplog.text
    assert len(open_split(settings(tmp_path), "train").splits.test) == 12


def test_the_holdout_is_drawn_from_the_seed(tmp_path):
    path = written(tmp_path)
    held = [open_data(settings(path), seed=seed).splits.holdout.indices.tolist() for seed in (0, 0, 1, 2)]
    assert held[0] == held[1]
    assert len({tuple(each) for each in held}) > 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"test_split": "train"}, "data.test_split = 'train' and data.train_split = 'train' share 12 images"),
        ({"holdout_fraction": 0.01}, "data.holdout_fraction = 0.01 of 12 training images holds out 0"),
        ({"test_split": "tset"}, "instances_tset.json"),
        ({"cache_in_memory": True}, "data.cache_in_memory: images with objects are read anew each time"),
        ({"test_split": ""}, "data.train_split and data.test_split must both name a split"),
        ({"source": "scenes", "max_objects": 3}, "data.max_objects = 3: digit scenes have up to 4"),
    ],
)
def test_data_that_do_not_fit_are_refused(tmp_path, data, message):
    with pytest.raises(S3Error, match=message):
        open_data(settings(written(tmp_path), **data), seed=0)


def test_a_split_without_any_object_is_not_trained_on(tmp_path):
    path = written(tmp_path, without=range(12))
    with pytest.raises(S3Error, match="none of the 9 training images of split 'train' has an object"):
        open_data(settings(path), seed=0)


def test_more_objects_than_there_is_room_for_are_told(tmp_path, caplog):
    path = written(tmp_path)
    open_data(settings(path, max_objects=1), seed=0)
    assert "10 images have more than data.max_objects = 1 objects, up to 2: the largest are kept" in caplog.text
    example = examples_of(path, training=True, max_objects=1).example(0, np.random.default_rng(0))
    assert example["boxes"].shape == (1, 4)


def test_training_batches_are_of_one_canvas_and_upright_cuts_of_lying_images_fit(tmp_path):
    examples = examples_of(written(tmp_path), training=True)
    batches = train_batches(examples, batch_size=2, seed=0)
    shapes = set()
    for _ in range(20):
        batch = next(batches)
        shapes.add(batch["image"].shape[1:3])
        assert batch["boxes"].dtype == np.float32
        real = batch["labels"] >= 0
        sizes = np.tile(batch["size"][:, None, ::-1], 2)
        boxes = np.where(real[..., None], batch["boxes"], 0)
        assert (boxes >= -1e-3).all()
        assert (boxes <= sizes + 1e-3).all()
        for image, (height, width) in zip(batch["image"], batch["size"], strict=True):
            assert not image[height:].any()
            assert not image[:, width:].any()
            assert image[:height, :width].all()  # grey 99 is not the mean of any channel
    batches.close()
    assert shapes == {LYING, UPRIGHT}


def test_a_view_that_goes_beyond_its_canvas_is_shown_within_the_recipes_sizes():
    """Of the published recipe: an image of 480 x 640 lies on 800 x 1344, where upright cuts of it do not all fit."""
    config = DetectionConfig()
    shrunk = 0
    for seed in range(400):
        view = drawn_view(480, 640, np.random.default_rng(seed), config.augment)
        found = fitted(view, (800, 1344))
        assert found.size[0] <= 800
        assert found.size[1] <= 1344
        if found != view:
            shrunk += 1
            assert min(found.size) >= min(config.augment.short_sides)
            assert found.size[0] / found.size[1] == pytest.approx(view.size[0] / view.size[1], rel=0.01)
    assert 0 < shrunk < 0.2 * 400
    assert rescaled_size(480, 640, largest_scale(config.augment)) == (800, 1067)


def test_evaluation_sees_every_image_once_whole_on_its_canvas(tmp_path):
    examples = examples_of(written(tmp_path), training=False)
    plan = eval_plan(examples, 4)
    assert sorted(row for batch in plan for row in batch.rows) == list(range(10))
    for batch, planned in zip(eval_batches(examples, batch_size=4), plan, strict=True):
        assert batch.keys() == {"image", "size", "weight"}
        assert batch["image"].shape == (4, *planned.group, 3)
        expected = (64, 96) if planned.group == LYING else (96, 64)
        assert all(tuple(size) == expected for size in batch["size"][: len(planned.rows)])


def test_pixels_are_normalised_and_objects_are_where_they_are_seen(tmp_path):
    example = examples_of(written(tmp_path), training=False).example(0, None)
    data = settings(tmp_path)
    expected = (np.float32(99 / 255) - np.array(data.mean)) / np.array(data.std)
    np.testing.assert_allclose(example["image"][30, 30], expected, atol=1e-5)
    plain = DetectionAugmentConfig((64,), 96, 0.0, 0.0, (64,), (64, 64))
    images = open_coco(str(tmp_path), ("train",)).splits["train"]
    examples = ObjectsOnCanvases(Subset(images, np.arange(1), "train"), data, augment=plain)
    example = examples.example(0, np.random.default_rng(0))
    assert example["size"].tolist() == [64, 96]
    np.testing.assert_allclose(example["boxes"][0], np.array([10, 12, 25, 32]) * 64 / 60, rtol=1e-5)
    assert example["labels"][:3].tolist() == [1, 0, -1]  # dog 18 and car 3, by their ids
