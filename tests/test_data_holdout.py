"""The holdout is drawn by class."""

from pathlib import Path

import numpy as np
import pytest
from absl import logging
from PIL import Image
from tiny_tfds import write_tfds

from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.classification.dataset import held_of_classes, open_data
from s3_jax.errors import S3Error


def write_classes(root: Path, *sizes: int) -> ClassificationDataConfig:
    for split, counts in (("train", sizes), ("test", (1,) * len(sizes))):
        for label, count in enumerate(counts):
            (root / split / f"class {label}").mkdir(parents=True)
            for index in range(count):
                Image.new("L", (2, 2)).save(root / split / f"class {label}" / f"{index}.png")
    return ClassificationDataConfig(source="image_folder", path=str(root), holdout_fraction=0.2)


def test_a_rare_class_is_trained_and_measured_with_every_seed(tmp_path: Path) -> None:
    config = write_classes(tmp_path, 60, 60, 2)
    drawn = set()
    for seed in range(40):
        data = open_data(config, seed=seed)
        labels = data.splits.train.source.labels
        assert np.bincount(labels[data.splits.holdout.indices]).tolist() == [12, 12, 1]
        assert np.bincount(labels[data.splits.train.indices]).tolist() == [48, 48, 1]
        drawn.add(tuple(data.splits.holdout.indices))
    assert len(drawn) == 40
    assert {indices[-1] for indices in drawn} == {120, 121}


@pytest.mark.parametrize(
    ("sizes", "fraction", "held"),
    [
        ([60, 60, 2], 0.2, [12, 12, 1]),  # wanted: 12, 12, 0.4, in all 24
        ([10, 10, 10, 10], 0.15, [2, 2, 1, 1]),  # 6 in all
        ([5, 5, 5], 0.9, [4, 4, 4]),  # each keeps one
        ([2, 3, 1, 0, 100], 0.01, [1, 1, 0, 0, 1]),
        ([1281] * 1000, 0.0078, [10] * 992 + [9] * 8),  # 9.99 of each, 9,992 in all
    ],
)
def test_held_images_of_each_class(sizes: list[int], fraction: float, held: list[int]) -> None:
    assert held_of_classes(np.array(sizes), fraction).tolist() == held


def test_a_class_too_small_for_a_holdout_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: said.append(message % values))
    data = open_data(write_classes(tmp_path, 20, 20, 1), seed=0)
    assert np.bincount(data.splits.train.source.labels[data.splits.holdout.indices], minlength=3).tolist() == [4, 4, 0]
    assert 40 in data.splits.train.indices
    (message,) = said
    assert "1 classes have fewer than two training images" in message
    assert message.endswith(": class 2")


def test_a_holdout_of_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(S3Error, match=r"holdout of 1 classes, and errors need two"):
        open_data(write_classes(tmp_path, 20, 1), seed=0)
    path = write_tfds(tmp_path, {"train": [1] * 10, "test": [0, 1]})
    with pytest.raises(S3Error, match=r"holdout of 1 classes, and errors need two"):
        open_data(ClassificationDataConfig(source="tfds", path=path), seed=0)


@pytest.mark.parametrize("seed", range(3))
def test_the_digits_are_held_out_by_class(seed: int) -> None:
    data = open_data(ClassificationDataConfig(holdout_fraction=0.2), seed=seed)
    labels = data.splits.train.source.labels
    shares = np.bincount(labels[data.splits.holdout.indices]) / np.bincount(labels)
    assert np.abs(shares - 0.2).max() < 0.005


def test_an_image_under_two_names_is_not_both_held_out_and_trained_on(tmp_path: Path) -> None:
    """As where a class is oversampled by links to its files."""
    config = write_classes(tmp_path, 12, 12)
    for path in sorted((tmp_path / "train").rglob("*.png")):
        path.with_stem(f"{path.stem}_again").symlink_to(path)
    for seed in range(5):
        data = open_data(config, seed=seed)
        assert data.splits.train.shared_with(data.splits.holdout) == 0
        assert len(data.splits.train) >= 12
        assert len(data.splits.train_and_holdout) == 48
