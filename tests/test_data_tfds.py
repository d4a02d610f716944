"""Sets of TensorFlow Datasets: which records a split has, their labels, and what is said when there is none."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from absl import logging
from tiny_tfds import write_tfds

from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.classification.dataset import open_data
from s3_jax.data.sources import decode
from s3_jax.data.tfds_source import open_tfds
from s3_jax.errors import S3Error

LABELS = [0, 1, 2, 0, 1, 2, 0, 0, 0, 1, 0, 0]


@pytest.fixture
def prepared(tmp_path: Path) -> str:
    return write_tfds(tmp_path, {"train": LABELS, "test": [0, 1, 2, 2]})


def test_slices_are_numbered_by_their_records_in_the_whole_set(prepared: str) -> None:
    splits = ("train[25%:75%]", "train[-4:]", "test", "test[:1]+train[:2]")
    opened = open_tfds(prepared, "", splits).splits
    assert [split.identities.tolist() for split in opened.values()] == [
        list(range(3, 9)),
        [8, 9, 10, 11],
        [12, 13, 14, 15],
        [12, 0, 1],
    ]
    for split in opened.values():  # a record's number is that of its image
        colors = [decode(split[i][0]).getpixel((0, 0)) for i in range(len(split))]
        assert [12 * is_test + i for i, is_test, _ in colors] == split.identities.tolist()


def test_labels_are_those_that_come_with_the_images(prepared: str) -> None:
    for split in open_tfds(prepared, "", ("train", "train[2:9]", "test")).splits.values():
        assert split.labels.tolist() == [split[i][1] for i in range(len(split))]
    assert open_tfds(prepared, "", ("train",)).splits["train"].labels.tolist() == LABELS


def test_labels_that_are_no_class_are_refused(tmp_path: Path) -> None:
    path = write_tfds(tmp_path, {"train": [0, 1, 0, 7], "test": [-1, -1]})
    with pytest.raises(S3Error, match=r"image 0 of tiny/1.0.0/test has the label -1, and classes go from 0 to 2"):
        open_tfds(path, "", ("test",))
    train = open_tfds(path, "", ("train",)).splits["train"]
    with pytest.raises(S3Error, match=r"image 3 of tiny/1.0.0/train has the label 7"):
        train[3]
    with pytest.raises(S3Error, match=r"image 3 of tiny/1.0.0/train has the label 7"):
        _ = train.labels


@pytest.mark.parametrize("split", ["val", "train[:0%]", "train[200%:]", "train[:70000]", "train[", "test[3:1]"])
def test_a_split_that_is_none_is_told(prepared: str, split: str) -> None:
    with pytest.raises(S3Error, match=r"tiny/1.0.0 has no split .*; its splits are 'train', 'test', and slices"):
        open_tfds(prepared, "", (split,))


@pytest.mark.parametrize("name", ["", "cifar10"])
def test_a_path_that_is_not_there_is_refused_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("s3_jax.data.tfds_source._prepare", lambda *_: pytest.fail("a download has begun"))
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "none/cifar10/3.0.2", tmp_path / "file"):
        with pytest.raises(
            S3Error, match=r"no folder data.path = .*/(none|file).*; set it to <data_dir>/<set>/<version>"
        ):
            open_tfds(str(path), name, ("train",))
    assert not (tmp_path / "none").exists()


def test_a_download_is_told_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: events.append(message % values))
    monkeypatch.setattr("s3_jax.data.tfds_source._prepare", lambda path, name: events.append(f"{name} to {path}"))
    with pytest.raises(S3Error):
        open_tfds(str(tmp_path), "cifar10", ("train",))
    said, done = events[:2]
    assert "cifar10 is not prepared yet: downloading and preparing it in" in said
    assert str(tmp_path) in said
    assert done == f"cifar10 to {tmp_path}"


def test_a_home_directory_is_expanded(prepared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(prepared).parent))
    config = ClassificationDataConfig(source="tfds", path="~/1.0.0", holdout_fraction=0.3)
    data = open_data(config, seed=0)
    assert np.bincount(data.splits.holdout.source.labels[data.splits.holdout.indices]).tolist() == [2, 1, 1]
    assert len(open_data(dataclasses.replace(config, cache_in_memory=True), seed=0).splits.holdout) == 4
