"""Which images serve as train, holdout and test."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from s3_jax.config import DataConfig
from s3_jax.data.image_folder import open_image_folder
from s3_jax.data.randomness import HOLDOUT, generator
from s3_jax.data.sources import CachedImages, ImageSource, OpenedSource, open_digits
from s3_jax.data.tfds_source import open_tfds
from s3_jax.errors import S3Error

SOURCES = ("digits", "tfds", "image_folder")
ON_BAD_IMAGE = ("error", "skip")


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Some images of one split."""

    source: ImageSource
    indices: np.ndarray  # (N,) int64, sorted numbers of images in the source
    split: str

    def __len__(self) -> int:
        return len(self.indices)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """A data set and what its images are used for; train and holdout are disjoint."""

    source: str
    name: str
    class_names: tuple[str, ...]
    train: Subset
    train_and_holdout: Subset  # the whole train split, for the final training
    holdout: Subset  # for E-T Error and search
    test: Subset

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def record(self) -> dict[str, Any]:
        """What the run's result says of its data: for each use the split, the images used and how many it has."""
        uses = {"train": self.train, "holdout": self.holdout, "test": self.test}
        splits = {
            use: {"split": subset.split, "images": len(subset), "of": len(subset.source)}
            for use, subset in uses.items()
        }
        return {"source": self.source, "name": self.name, "num_classes": self.num_classes, "splits": splits}


def open_data(config: DataConfig, *, seed: int) -> ImageData:
    """The data set of a configuration, with a holdout drawn from `seed` (or `holdout_split`, and all of train trained).

    Raises S3Error for settings that are none, a data set that is missing or unfit, and an empty split.
    """
    if config.on_bad_image not in ON_BAD_IMAGE:
        raise S3Error(f"data.on_bad_image = {config.on_bad_image!r}; choose one of {', '.join(ON_BAD_IMAGE)}")
    names = dict.fromkeys(filter(None, (config.train_split, config.test_split, config.holdout_split)))
    opened = _open_source(config, tuple(names))
    subsets = {split: _whole(opened, split, config.cache_in_memory) for split in names}
    whole = subsets[config.train_split]
    if config.holdout_split:
        train, holdout = whole, subsets[config.holdout_split]
    else:
        train, holdout = _hold_out(whole, config.holdout_fraction, seed)
    return ImageData(
        source=config.source,
        name=opened.name,
        class_names=opened.class_names,
        train=train,
        train_and_holdout=whole,
        holdout=holdout,
        test=subsets[config.test_split],
    )


def _open_source(config: DataConfig, splits: tuple[str, ...]) -> OpenedSource:
    if not config.train_split or not config.test_split:
        raise S3Error("data.train_split and data.test_split must both name a split")
    if config.source == "digits":
        return open_digits(splits)
    if config.source == "tfds":
        return open_tfds(config.path, config.name, splits)
    if config.source == "image_folder":
        return open_image_folder(config.path, splits)
    raise S3Error(f"data.source = {config.source!r}; choose one of {', '.join(SOURCES)}")


def _whole(opened: OpenedSource, split: str, cache: bool) -> Subset:
    source = opened.splits[split]
    if not len(source):
        raise S3Error(f"the split {split!r} of {opened.name} has no images")
    return Subset(CachedImages(source) if cache else source, np.arange(len(source)), split)


def _hold_out(whole: Subset, fraction: float, seed: int) -> tuple[Subset, Subset]:
    """The split without a random `fraction` of it, and that fraction."""
    count = round(fraction * len(whole))
    if not 0 < count < len(whole):
        raise S3Error(
            f"data.holdout_fraction = {fraction} of {len(whole):,} training images holds out {count:,}; E-T Error and "
            "search need some and so does training: choose a fraction between 0 and 1, or set data.holdout_split"
        )
    order = generator(seed, HOLDOUT).permutation(whole.indices)
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    return dataclasses.replace(whole, indices=kept), dataclasses.replace(whole, indices=held)
