"""Digit scenes as objects: boxes, classes and masks are those of the digits that segmentation is shown too."""

import dataclasses
import json

import numpy as np

from s3_jax.data.sources import open_digits
from s3_jax.detection.masks import bitmap
from s3_jax.detection.scenes import CATEGORIES, DigitScenes, open_scenes


def scenes(split: str = "train", **settings: int) -> DigitScenes:
    opened = open_scenes((split,), **settings).splits[split]
    assert isinstance(opened, DigitScenes)
    return opened


def test_objects_are_the_digits_with_tight_boxes() -> None:
    opened = open_scenes(("train", "test"), size=64, train_count=40)
    assert opened.categories == CATEGORIES
    assert CATEGORIES.names[3] == "3"
    assert CATEGORIES.ids == tuple(range(1, 11))
    train = opened.splits["train"]
    assert isinstance(train, DigitScenes)
    assert len(train) == 40
    counts = []
    for index in range(40):
        image, objects = train[index]
        assert image.size == (64, 64)
        counts.append(len(objects))
        instances = train.instances(index)
        assert [number - 1 for number, _ in instances] == objects.labels.tolist()
        assert all((bitmap(a) == b).all() for a, (_, b) in zip(objects.masks, instances, strict=True))
        for box, mask in zip(objects.boxes, objects.masks, strict=True):
            left, top, right, bottom = box.astype(int)
            pixels = bitmap(mask)
            inside = pixels[top:bottom, left:right]
            assert inside.sum() == pixels.sum() > 0
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
    assert min(counts) >= 1
    assert train.has_objects.all()
    assert max(counts) == 4


def test_the_truth_of_a_scene_is_cocos() -> None:
    train = scenes()
    truth = [each for index in range(5) for each in train.truth(index)]
    assert json.loads(json.dumps(truth)) == truth
    assert len({each["id"] for each in truth}) == len(truth)
    assert min(each["id"] for each in truth) == 1
    _, objects = train[2]
    there = train.truth(2)
    assert [each["category_id"] - 1 for each in there] == objects.labels.tolist()
    assert [each["image_id"] for each in there] == [train.image_record(2)["id"]] * len(objects)
    assert [each["bbox"][2:] for each in there] == (objects.boxes[:, 2:] - objects.boxes[:, :2]).tolist()
    assert [each["area"] for each in there] == [bitmap(mask).sum() for mask in objects.masks]


def test_test_scenes_show_test_digits_alone() -> None:
    source = open_digits(("test",)).splits["test"]
    digits = {np.asarray(source[row][0])[..., 0].tobytes() for row in range(len(source))}
    assert set(map(bytes, scenes("test").digits)) == digits


def test_controls_keep_boxes_and_change_classes_or_pictures() -> None:
    true = scenes(train_count=30)
    classes = dataclasses.replace(true, shuffled_classes=True)
    pictures = dataclasses.replace(true, shuffled_pictures=True)
    same = []
    for index in range(30):
        (image, objects), (_, renamed), (moved, kept) = true[index], classes[index], pictures[index]
        assert (objects.boxes == renamed.boxes).all()
        assert (objects.boxes == kept.boxes).all()
        assert objects.labels.tolist() == kept.labels.tolist()
        assert image.tobytes() != moved.tobytes()
        same += (objects.labels == renamed.labels).tolist()
    assert np.mean(same) < 0.3
