"""Judging images: a part of train that nothing is trained on, measured by, searched with or tested on."""

from pathlib import Path

import numpy as np
import pytest
from test_data_holdout import write_classes
from tiny_tfds import write_tfds

from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.classification.dataset import open_data
from s3_jax.data.splits import Splits, Subset
from s3_jax.errors import S3Error


def digits(tmp_path: Path) -> dict:
    return {"source": "digits"}


def folder(tmp_path: Path) -> dict:
    return {"source": "image_folder", "path": write_classes(tmp_path, 60, 40, 10).path}


def tfds(tmp_path: Path) -> dict:
    labels = [0] * 40 + [1] * 30
    return {"source": "tfds", "path": write_tfds(tmp_path, {"train": labels, "test": [0, 1] * 5})}


def with_links(tmp_path: Path) -> dict:
    """Every training image under two names."""
    config = write_classes(tmp_path, 30, 30)
    for path in sorted((tmp_path / "train").rglob("*.png")):
        path.with_stem(f"{path.stem}_again").symlink_to(path)
    return {"source": "image_folder", "path": config.path}


SOURCES = (digits, folder, tfds, with_links)


def assert_judge_is_apart(splits: Splits) -> None:
    assert splits.judge is not None
    judged = set(splits.judge.source.identities[splits.judge.indices].tolist())
    assert judged
    for use in ("train", "holdout", "test", "train_and_holdout"):
        subset: Subset = getattr(splits, use)
        assert not judged & set(subset.source.identities[subset.indices].tolist()), use
        if subset.split == splits.judge.split:
            assert not set(splits.judge.indices.tolist()) & set(subset.indices.tolist()), use


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("cached", [False, True])
def test_judging_images_serve_for_nothing_else(source, cached: bool, tmp_path: Path) -> None:
    settings = source(tmp_path) | {"cache_in_memory": cached, "holdout_fraction": 0.2, "judge_fraction": 0.25}
    drawn = set()
    for seed in range(4):
        splits = open_data(ClassificationDataConfig(**settings), seed=seed).splits
        assert_judge_is_apart(splits)
        assert splits.train.shared_with(splits.holdout) == 0
        assert splits.record()["splits"]["judge"] == {
            "split": "train",
            "images": len(splits.judge),
            "of": len(splits.train.source),
        }
        drawn.add(tuple(splits.judge.indices))
    assert len(drawn) == 4


@pytest.mark.parametrize("source", SOURCES)
def test_the_holdout_does_not_depend_on_them(source, tmp_path: Path) -> None:
    settings = source(tmp_path) | {"holdout_fraction": 0.2}
    without = open_data(ClassificationDataConfig(**settings), seed=1).splits
    with_judge = open_data(ClassificationDataConfig(**settings, judge_fraction=0.2), seed=1).splits
    assert without.judge is None
    assert "judge" not in without.record()["splits"]
    assert np.array_equal(without.holdout.indices, with_judge.holdout.indices)
    assert set(with_judge.train.indices) < set(without.train.indices)
    assert set(with_judge.train_and_holdout.indices) < set(without.train_and_holdout.indices)


def test_they_are_that_share_of_every_class_of_train(tmp_path: Path) -> None:
    config = ClassificationDataConfig(**folder(tmp_path), holdout_fraction=0.2, judge_fraction=0.3)
    splits = open_data(config, seed=0).splits
    labels = splits.train.source.labels
    assert splits.judge is not None
    assert np.bincount(labels[splits.judge.indices]).tolist() == [18, 12, 3]
    assert np.bincount(labels[splits.holdout.indices]).tolist() == [12, 8, 2]
    assert np.bincount(labels[splits.train.indices]).tolist() == [30, 20, 5]
    assert np.bincount(labels[splits.train_and_holdout.indices]).tolist() == [42, 28, 7]


def test_they_are_kept_beside_a_holdout_split_of_its_own() -> None:
    splits = open_data(ClassificationDataConfig(holdout_split="test", judge_fraction=0.2), seed=0).splits
    assert splits.judge is not None
    assert splits.holdout.split == "test"
    assert not set(splits.judge.indices) & set(splits.train.indices)
    assert np.array_equal(splits.train.indices, splits.train_and_holdout.indices)
    assert len(splits.train) + len(splits.judge) == len(splits.train.source)


@pytest.mark.parametrize(
    ("sizes", "fraction", "message"),
    [
        ((60, 60, 2), 0.2, "1 classes have too few to train and judge on: class 2"),
        ((60, 60), 0.8, "it must leave some to train on and some to judge on"),
        ((60, 60), 0.001, "it must leave some to train on and some to judge on"),
    ],
)
def test_a_fraction_that_leaves_a_class_or_training_without_images_is_refused(
    sizes: tuple[int, ...], fraction: float, message: str, tmp_path: Path
) -> None:
    path = write_classes(tmp_path, *sizes).path
    config = ClassificationDataConfig(source="image_folder", path=path, holdout_fraction=0.2, judge_fraction=fraction)
    with pytest.raises(S3Error, match=rf"^data.judge_fraction = {fraction} of .*: {message}"):
        open_data(config, seed=0)
