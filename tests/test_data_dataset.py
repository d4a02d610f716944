"""Subsets: what is held out, what is tested on, and what the record says of it."""

import contextlib
import dataclasses
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from labelled_batches import eval_batches, train_batches
from PIL import Image
from tiny_tfds import write_tfds

from s3_jax.classification.config import AugmentConfig, ClassificationDataConfig
from s3_jax.classification.dataset import open_data, open_split
from s3_jax.data.sources import decode
from s3_jax.data.splits import Subset
from s3_jax.data.tfds_source import TfdsImages
from s3_jax.errors import S3Error

OFF = AugmentConfig(
    random_resized_crop=False, horizontal_flip=0.0, rand_augment_layers=0, random_erasing=0.0, mixup=0.0, cutmix=0.0
)

DIGITS = ClassificationDataConfig(holdout_fraction=0.25)


def test_holdout_is_disjoint_from_train_and_both_make_up_the_split() -> None:
    data = open_data(DIGITS, seed=0)
    assert (len(data.splits.train), len(data.splits.holdout), len(data.splits.test)) == (1078, 360, 359)
    assert not set(data.splits.train.indices) & set(data.splits.holdout.indices)
    together = np.sort(np.concatenate([data.splits.train.indices, data.splits.holdout.indices]))
    assert (together == data.splits.train_and_holdout.indices).all()
    assert (together == np.arange(1438)).all()
    assert (np.diff(data.splits.holdout.indices) > 0).all()
    assert data.splits.train.source is data.splits.holdout.source
    assert data.splits.test.source is not data.splits.train.source


def test_holdout_derives_from_the_seed() -> None:
    first, again, other = (open_data(DIGITS, seed=seed).splits.holdout.indices for seed in (3, 3, 4))
    assert (first == again).all()
    assert len(np.intersect1d(first, other)) < 0.5 * len(first)
    # Drawn from everywhere, not cut off at one end.
    assert abs(first.mean() - 1438 / 2) < 60


def test_a_holdout_split_leaves_train_whole() -> None:
    data = open_data(dataclasses.replace(DIGITS, holdout_split="test"), seed=0)
    assert len(data.splits.train) == len(data.splits.train_and_holdout) == 1438
    assert data.splits.holdout.split == "test"
    assert data.record()["splits"]["holdout"] == {"split": "test", "images": 359, "of": 359}


def test_record_says_which_images_serve_what() -> None:
    assert open_data(DIGITS, seed=0).record() == {
        "source": "digits",
        "name": "digits",
        "num_classes": 10,
        "splits": {
            "train": {"split": "train", "images": 1078, "of": 1438},
            "holdout": {"split": "train", "images": 360, "of": 1438},
            "test": {"split": "test", "images": 359, "of": 359},
        },
        "overlap": {"holdout_test": 0},
    }


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.0001, -0.5, 1.5, float("nan"), float("inf")])
def test_a_holdout_of_classes_is_refused(fraction: float) -> None:
    with pytest.raises(S3Error, match=r"data.holdout_fraction"):
        open_data(dataclasses.replace(DIGITS, holdout_fraction=fraction), seed=0)


def test_every_use_needs_a_split() -> None:
    with pytest.raises(S3Error, match="must both name a split"):
        open_data(dataclasses.replace(DIGITS, test_split=""), seed=0)
    with pytest.raises(S3Error, match="no split 'extra'"):
        open_data(dataclasses.replace(DIGITS, holdout_split="extra"), seed=0)


def write_images(root: Path, split: str, classes: dict[str, int]) -> None:
    for name, count in classes.items():
        (root / split / name).mkdir(parents=True)
        for index in range(count):
            Image.new("L", (4, 4), index).save(root / split / name / f"{index}.png")


def test_one_split_can_be_opened_by_itself(tmp_path: Path) -> None:
    write_images(tmp_path, "all", {"ant": 3, "bee": 3})
    split = open_split(ClassificationDataConfig(source="image_folder", path=str(tmp_path)), "all")
    assert (split.name, split.class_names, split.num_classes) == (tmp_path.name, ("ant", "bee"), 2)
    assert (len(split.images), split.images.split) == (6, "all")


SOURCES = ("digits", "tfds", "image_folder")


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> ClassificationDataConfig:
    """A data set of every kind."""
    config = ClassificationDataConfig(source=request.param, holdout_fraction=0.25)
    if request.param == "tfds":
        labels = [i % 3 for i in range(60)]
        return dataclasses.replace(config, path=write_tfds(tmp_path, {"train": labels, "test": labels[:20]}))
    if request.param == "image_folder":
        write_images(tmp_path, "train", {"ant": 30, "bee": 30})
        write_images(tmp_path, "test", {"ant": 5, "bee": 5})
        return dataclasses.replace(config, path=str(tmp_path))
    return config


def places(subset: Subset) -> set[str]:
    """Where the images of a subset lie, found without what the code under test says of it."""
    source = subset.source
    if isinstance(source, TfdsImages):
        number = source.set_name.endswith("test")
        return {f"{number}-{decode(source[i][0]).getpixel((0, 0))[0]}" for i in subset.indices}
    return {os.path.realpath(source.name(int(i))) for i in subset.indices}


@pytest.mark.parametrize("cache", [False, True])
def test_no_image_that_measures_is_trained_on(source: ClassificationDataConfig, cache: bool) -> None:
    data = open_data(dataclasses.replace(source, cache_in_memory=cache), seed=1)
    train, holdout, test = data.splits.train, data.splits.holdout, data.splits.test
    assert min(len(train), len(holdout), len(test)) > 0
    assert not set(train.indices) & set(holdout.indices)
    assert sorted({*train.indices, *holdout.indices}) == list(range(len(data.splits.train_and_holdout)))
    for first, second in ((train, holdout), (train, test), (holdout, test)):
        assert first.shared_with(second) == 0
        if not cache:
            assert not places(first) & places(second)
    assert data.splits.train.shared_with(data.splits.train_and_holdout) == len(data.splits.train)


def test_training_never_sees_the_pixels_of_held_out_images(tmp_path: Path) -> None:
    write_images(tmp_path, "train", {"ant": 30, "bee": 30})  # of levels 0 to 29 in both
    write_images(tmp_path, "test", {"ant": 1, "bee": 1})
    plain = ClassificationDataConfig(
        source="image_folder", path=str(tmp_path), mean=(0.0,) * 3, std=(1 / 255,) * 3, eval_crop=1.0
    )
    data = open_data(dataclasses.replace(plain, holdout_fraction=0.3), seed=0)
    held = {
        (round(float(image[0, 0, 0])), int(label))
        for batch in eval_batches(data.splits.holdout, data=plain, image_size=4, batch_size=len(data.splits.holdout))
        for image, label in zip(batch["image"], batch["label"], strict=True)
    }
    batches = train_batches(
        data.splits.train,
        data=plain,
        augment=OFF,
        image_size=4,
        num_classes=2,
        batch_size=len(data.splits.train),
        seed=0,
    )
    with contextlib.closing(batches):
        trained = {
            (round(float(image[0, 0, 0])), int(target.argmax()))
            for batch in itertools.islice(batches, 3)
            for image, target in zip(batch["image"], batch["target"], strict=True)
        }
    assert len(held) == 18
    assert len(trained) == 42
    assert not held & trained


@pytest.mark.parametrize("field", ["test_split", "holdout_split"])
def test_a_split_that_shares_images_with_train_is_refused(source: ClassificationDataConfig, field: str) -> None:
    with pytest.raises(S3Error, match=rf"data\.{field} = 'train' and data.train_split = 'train' share [\d,]+ images"):
        open_data(dataclasses.replace(source, **{field: "train"}), seed=0)


@pytest.mark.parametrize("field", ["test_split", "holdout_split"])
@pytest.mark.parametrize(
    ("train", "other", "shared"),
    [
        ("train[:60%]", "train[50%:]", 6),
        ("train", "train[-1:]", 1),
        ("train+test", "test[:50%]", 10),
        ("train[:60%]", "train[60%:]", 0),
        ("train[:50]", "train[50:]+test", 0),
    ],
)
def test_slices_of_a_split_must_be_apart(tmp_path: Path, field: str, train: str, other: str, shared: int) -> None:
    labels = [i % 3 for i in range(60)]
    path = write_tfds(tmp_path, {"train": labels, "test": labels[:20], "rest": labels[:2]})
    splits = {"train_split": train, "test_split": "rest", field: other}
    config = ClassificationDataConfig(source="tfds", path=path, holdout_fraction=0.25, **splits)
    if not shared:
        assert len(open_data(config, seed=0).splits.train) > 0
        return
    with pytest.raises(S3Error, match=rf"data\.{field} = .* share {shared} images"):
        open_data(config, seed=0)


def test_folders_are_compared_by_where_they_are(tmp_path: Path) -> None:
    write_images(tmp_path, "train", {"ant": 4, "bee": 4})
    write_images(tmp_path, "test", {"ant": 2, "bee": 2})
    (tmp_path / "linked").symlink_to("train")
    (tmp_path / "half/ant").mkdir(parents=True)
    (tmp_path / "half/bee").symlink_to(tmp_path / "train/bee")
    (tmp_path / "half/ant/other.png").symlink_to(tmp_path / "train/ant/2.png")
    config = ClassificationDataConfig(source="image_folder", path=str(tmp_path), holdout_fraction=0.25)
    for split, shared in (("./train", 8), ("linked", 8), ("test/../train", 8), ("half", 5)):
        with pytest.raises(S3Error, match=f"share {shared} images"):
            open_data(dataclasses.replace(config, test_split=split), seed=0)
    assert len(open_data(config, seed=0).splits.test) == 4


@pytest.mark.parametrize(("holdout", "shared"), [("test", 20), ("test[:50%]", 10), ("test[95%:]", 1), ("", 0)])
def test_the_record_tells_how_much_of_test_the_search_sees(tmp_path: Path, holdout: str, shared: int) -> None:
    labels = [i % 3 for i in range(20)]
    path = write_tfds(tmp_path, {"train": labels, "test": labels})
    config = ClassificationDataConfig(source="tfds", path=path, holdout_split=holdout, holdout_fraction=0.25)
    assert open_data(config, seed=0).record()["overlap"] == {"holdout_test": shared}
