"""Images with objects as examples on canvases, and what images serve as: training, holdout, test."""

import dataclasses
import json

import numpy as np
import pytest
from coco_sets import annotation, content_of, images_of, rectangle, write_set

from s3_jax.data.rescaling import rescaled_size
from s3_jax.data.splits import Subset
from s3_jax.data.stream import eval_batches, eval_plan, train_batches
from s3_jax.detection.augment import drawn_view, fitted
from s3_jax.detection.coco import open_coco
from s3_jax.detection.config import DetectionAugmentConfig, DetectionConfig, DetectionDataConfig
from s3_jax.detection.dataset import open_data, open_split
from s3_jax.detection.examples import ObjectsOnCanvases, largest_scale
from s3_jax.detection.task import open_task
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


def write_two(folder, train, test):
    """Eight images to train on and two to test on, with these boxes in each; masks are `segmentation` or the boxes."""
    contents = {}
    for split, first, count, found in (("train", 100, 8, train), ("test", 500, 2, test)):
        images = [image | {"id": first + number} for number, image in enumerate(images_of(*[(60, 90)] * count))]
        objects = [annotation(0, image["id"], 18, *each[:1], **each[1]) for image in images for each in found]
        contents[split] = content_of(images, objects)
    return write_set(folder, contents)


FINE = [((10, 12, 30, 20), {})]
FINE_MASK = [rectangle(10, 12, 30, 20)]
CROWDED = [((10, 12, 30, 20), {"iscrowd": 1})]


@pytest.mark.parametrize(("test", "why"), [([], "give another split"), (CROWDED, "all objects are crowds")])
def test_a_test_split_in_which_nothing_counts_is_refused_before_training(tmp_path, test, why):
    path = write_two(tmp_path, FINE, test)
    expected = f"the 2 images of split 'test' that are measured on have no object that counts, so there is no AP: {why}"
    with pytest.raises(S3Error, match=expected):
        open_data(settings(path), seed=0)
    more = [image | {"id": 900} for image in images_of((60, 90))]
    write_set(tmp_path, {"more": content_of(more, [annotation(0, 900, 18, (10, 12, 30, 20))])})
    with pytest.raises(S3Error, match=expected):
        open_data(settings(path, test_split="more", holdout_split="test"), seed=0)


def test_objects_of_missing_images_count_nowhere(tmp_path):
    path = write_two(tmp_path, FINE, FINE)
    assert open_data(settings(path), seed=0).splits.test.source.has_counted.tolist() == [True, True]
    content = json.loads((tmp_path / "annotations/instances_test.json").read_text())
    content["annotations"] = content["annotations"][:1]
    (tmp_path / "annotations/instances_test.json").write_text(json.dumps(content))
    (tmp_path / "test/0.png").unlink()
    with pytest.raises(S3Error, match="have no object that counts"):
        open_data(settings(path, on_bad_image="skip"), seed=0)


@pytest.mark.parametrize(("search", "every"), [(True, 0), (False, 5), (False, 0)])
def test_a_drawn_holdout_without_objects_is_refused_where_it_is_measured_on(tmp_path, search, every):
    path = written(tmp_path, without=set(range(12)) - {2})  # which is not held out
    run = dataclasses.replace(DetectionConfig().run, evaluate_every=every)
    backbone = dataclasses.replace(DetectionConfig().backbone, model="" if search else "s3_t")
    augment = dataclasses.replace(AUGMENT, crop_probability=0.0)
    config = DetectionConfig(data=settings(path), augment=augment, run=run, backbone=backbone)
    if not search and not every:
        assert len(open_task(config).splits.train_and_holdout) == 1
        return
    with pytest.raises(S3Error, match=r"images of split 'train' that are measured on .* data\.holdout_fraction"):
        open_task(config)


def corners(box):
    return (box, {"bbox": [box[0], box[1], box[0] + box[2], box[1] + box[3]]})


def middle(box):
    return (box, {"bbox": [box[0] + box[2] / 2, box[1] + box[3] / 2, box[2], box[3]]})


LOOSE = ((20, 20, 20, 20), {"bbox": [18, 18.5, 23, 23]})
RUN_LENGTHS = ((50, 5, 20, 20), {"segmentation": {"size": [60, 90], "counts": [0, 10, 5390]}})


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([corners((20, 20, 30, 20)), corners((40, 10, 20, 30)), *FINE], "16 of 24 boxes do not fit their masks"),
        ([middle((20, 20, 30, 20))], "8 of 8 boxes do not fit their masks: is bbox x, y, width, height"),
        ([corners((20, 20, 30, 20)), RUN_LENGTHS], "8 of 8 boxes do not fit"),  # run lengths are not looked into
        ([corners((20, 20, 30, 20)), *FINE], ""),
        ([LOOSE, *FINE], ""),
        ([RUN_LENGTHS], ""),
    ],
)
def test_boxes_that_do_not_fit_their_masks_are_told_once_for_each_file(tmp_path, caplog, found, told):
    path = write_two(tmp_path, found, FINE)
    open_data(settings(path), seed=0)
    assert caplog.text.count("do not fit their masks") == bool(told)
    assert (f"annotations of split train: {told}" in caplog.text) == bool(told)
    open_split(settings(path), "train")
    assert caplog.text.count("do not fit their masks") == 2 * bool(told)


def test_boxes_as_shares_of_their_image_are_told(tmp_path, caplog):
    shares = [((0.25, 0.5, 0.5, 0.5), {}), ((0.1, 0.1, 0.2, 0.4), {"segmentation": FINE_MASK})]
    path = write_two(tmp_path, shares, shares)
    message = "an object that can be trained on: all boxes lie within 1 x 1 pixel: are they normalised to 0..1"
    with pytest.raises(S3Error, match=message):
        open_data(settings(path), seed=0)
    assert "normalised" not in caplog.text  # it is told once
    open_split(settings(path), "test")
    assert "annotations of split test: all boxes lie within 1 x 1 pixel" in caplog.text


def test_boxes_of_another_image_size_are_told(tmp_path):
    found = [((200, 120, 300, 200), {}), ((100, 10, 300, 20), {}), ((1, 1, 0.5, 20), {})]
    message = "an object that can be trained on: most boxes lie outside of their images: are the annotations of another"
    with pytest.raises(S3Error, match=message):
        open_data(settings(write_two(tmp_path, found, FINE)), seed=0)


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
