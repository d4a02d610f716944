"""Subsets: what is held out, what is tested on, and what the record says of it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.config import DataConfig
from s3_jax.data import open_data
from s3_jax.errors import S3Error

DIGITS = DataConfig(holdout_fraction=0.25)


def test_holdout_is_disjoint_from_train_and_both_make_up_the_split() -> None:
    data = open_data(DIGITS, seed=0)
    assert (len(data.train), len(data.holdout), len(data.test)) == (1078, 360, 359)
    assert not set(data.train.indices) & set(data.holdout.indices)
    together = np.sort(np.concatenate([data.train.indices, data.holdout.indices]))
    assert (together == data.train_and_holdout.indices).all()
    assert (together == np.arange(1438)).all()
    assert (np.diff(data.holdout.indices) > 0).all()
    assert data.train.source is data.holdout.source
    assert data.test.source is not data.train.source


def test_holdout_derives_from_the_seed() -> None:
    first, again, other = (open_data(DIGITS, seed=seed).holdout.indices for seed in (3, 3, 4))
    assert (first == again).all()
    assert len(np.intersect1d(first, other)) < 0.5 * len(first)
    # Drawn from everywhere, not cut off at one end.
    assert abs(first.mean() - 1438 / 2) < 60


def test_a_holdout_split_leaves_train_whole() -> None:
    data = open_data(dataclasses.replace(DIGITS, holdout_split="test"), seed=0)
    assert len(data.train) == len(data.train_and_holdout) == 1438
    assert data.holdout.split == "test"
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
    }


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.0001, -0.5, 1.5])
def test_a_holdout_without_images_is_refused(fraction: float) -> None:
    with pytest.raises(S3Error, match=r"data.holdout_fraction"):
        open_data(dataclasses.replace(DIGITS, holdout_fraction=fraction), seed=0)


def test_every_use_needs_a_split() -> None:
    with pytest.raises(S3Error, match="must both name a split"):
        open_data(dataclasses.replace(DIGITS, test_split=""), seed=0)
    with pytest.raises(S3Error, match="no split 'extra'"):
        open_data(dataclasses.replace(DIGITS, holdout_split="extra"), seed=0)


def test_a_folder_with_one_split_can_be_opened(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("L", (4, 4)).save(tmp_path / "all" / name / f"{index}.png")
    config = DataConfig(
        source="image_folder", path=str(tmp_path), train_split="all", test_split="all", holdout_fraction=0.5
    )
    data = open_data(config, seed=0)
    assert (len(data.train), len(data.holdout), len(data.test)) == (3, 3, 6)
    assert data.class_names == ("ant", "bee")
