"""Which images serve as train, holdout, judge and test."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.data.image_folder import open_image_folder
from s3_jax.data.randomness import HOLDOUT, JUDGE, generator
from s3_jax.data.sources import CachedImages, OpenedSource, open_digits
from s3_jax.data.splits import Splits, Subset, check_all_apart, names_of_splits, without
from s3_jax.data.tfds_source import open_tfds
from s3_jax.errors import S3Error, listed
from s3_jax.paths import expanded


@dataclasses.dataclass(frozen=True, eq=False)
class OneSplit:
    """A split of a data set by itself, to measure a network on."""

    name: str  # of the data set
    class_names: tuple[str, ...]
    images: Subset

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """A data set of classes, and what its images are used for."""

    source: str
    name: str
    class_names: tuple[str, ...]
    splits: Splits

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def record(self) -> dict[str, Any]:
        """What the run's result says of its data: see `Splits.record`."""
        about = {"source": self.source, "name": self.name, "num_classes": self.num_classes}
        return about | self.splits.record()


def open_data(config: ClassificationDataConfig, *, seed: int) -> ImageData:
    """The data set of a configuration, with a holdout drawn from `seed` (or `holdout_split`, and all of train trained).

    Judging images are drawn from what the holdout leaves of train, so the holdout does not depend on them.
    Raises S3Error for settings that are none, a data set that is missing or unfit, an empty split, a test or holdout
    split that shares images with train, and a single class.
    """
    names = names_of_splits(config)
    opened = _open_source(config, names)
    if len(opened.class_names) < 2:
        raise S3Error(
            f"{opened.name} has the one class {', '.join(opened.class_names)}: there is nothing to tell apart"
        )
    subsets = {split: _whole(opened, split, config.cache_in_memory) for split in names}
    whole = subsets[config.train_split]
    check_all_apart(subsets, config)
    if config.holdout_split:
        train, holdout = whole, subsets[config.holdout_split]
    else:
        train, holdout = _hold_out(whole, config.holdout_fraction, seed, opened.class_names)
        train = without(train, holdout)
    splits = Splits(train, whole, holdout, test=subsets[config.test_split])
    if config.judge_fraction:
        splits = _with_judge(splits, config.judge_fraction, seed, opened.class_names)
    return ImageData(config.source, opened.name, opened.class_names, splits)


def open_split(config: ClassificationDataConfig, split: str) -> OneSplit:
    """One split of a configuration's data set, whatever its other splits are. Raises S3Error as `open_data` does."""
    opened = _open_source(config, (split,))
    return OneSplit(opened.name, opened.class_names, _whole(opened, split, config.cache_in_memory))


def _open_source(config: ClassificationDataConfig, splits: tuple[str, ...]) -> OpenedSource:
    path = expanded(config.path)
    if config.source == "digits":
        return open_digits(splits)
    if config.source == "tfds":
        return open_tfds(path, config.name, splits)
    return open_image_folder(path, splits, skip_dead_links=config.on_bad_image == "skip")


def _whole(opened: OpenedSource, split: str, cache: bool) -> Subset:
    source = opened.splits[split]
    if not len(source):
        raise S3Error(f"the split {split!r} of {opened.name} has no images")
    return Subset(CachedImages(source) if cache else source, np.arange(len(source)), split)


def _hold_out(whole: Subset, fraction: float, seed: int, class_names: tuple[str, ...]) -> tuple[Subset, Subset]:
    """The split without a random `fraction` of each class, and that fraction."""
    count = round(fraction * len(whole)) if 0 < fraction < 1 else 0
    if not 0 < count < len(whole):
        raise S3Error(
            f"data.holdout_fraction = {fraction} of {len(whole):,} training images holds out {count:,}; E-T Error and "
            "search need some and so does training: choose a fraction between 0 and 1, or set data.holdout_split"
        )
    labels = np.asarray(whole.source.labels)[whole.indices]
    sizes = np.bincount(labels, minlength=len(class_names))
    held = held_of_classes(sizes, fraction)
    if np.count_nonzero(held) < 2:
        raise S3Error(
            f"{len(whole):,} training images give a holdout of {np.count_nonzero(held)} classes, and errors need two: "
            "each needs two images at least; add some, or set data.holdout_split"
        )
    _tell_small_classes(class_names, sizes)
    return _drawn(whole, held, generator(seed, HOLDOUT))


def _with_judge(splits: Splits, fraction: float, seed: int, class_names: tuple[str, ...]) -> Splits:
    """The splits with `fraction` of the train split, of each class, taken out of all training as judging images.

    Raises S3Error where a class that is trained would have no image left to train or to judge on.
    """
    train, whole = splits.train, splits.train_and_holdout
    share = fraction * len(whole) / len(train)
    sizes = np.bincount(np.asarray(train.source.labels)[train.indices], minlength=len(class_names))
    held = held_of_classes(sizes, min(share, 1.0))
    lacking = [class_names[label] for label in np.flatnonzero((sizes > 0) & ((held == 0) | (held == sizes)))]
    if share >= 1 or not round(share * len(train)) or lacking:
        raise S3Error(_bad_judge_fraction(fraction, whole, train, lacking))
    kept, judge = _drawn(train, held, generator(seed, JUDGE))
    others = dataclasses.replace(whole, indices=np.setdiff1d(whole.indices, judge.indices))
    return dataclasses.replace(
        splits, train=without(kept, judge), train_and_holdout=without(others, judge), judge=judge
    )


def _bad_judge_fraction(fraction: float, whole: Subset, train: Subset, lacking: Sequence[str]) -> str:
    wanted = f"data.judge_fraction = {fraction} of {len(whole):,} training images, {len(train):,} besides the holdout"
    if lacking:
        count, named = f"{len(lacking):,}", listed(lacking)
        return f"{wanted}: {count} classes have too few to train and judge on: {named}; add some, or set it to 0"
    return f"{wanted}: it must leave some to train on and some to judge on; choose another, or 0 for none"


def _drawn(whole: Subset, held: np.ndarray, rng: np.random.Generator) -> tuple[Subset, Subset]:
    """The subset without `held` (C,) images drawn from each class, and those."""
    labels = np.asarray(whole.source.labels)[whole.indices]
    sizes = np.bincount(labels, minlength=len(held))
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # of an image among those of its class
    chosen = place < np.repeat(held, sizes)
    kept_rows, held_rows = (np.sort(whole.indices[by_class[rows]]) for rows in (~chosen, chosen))
    return dataclasses.replace(whole, indices=kept_rows), dataclasses.replace(whole, indices=held_rows)


def held_of_classes(sizes: np.ndarray, fraction: float) -> np.ndarray:
    """How many images of classes of these sizes (C,) are held out: `fraction` of each, rounded so that the sum fits.

    Whole numbers first, the rest by largest remainder; then a class of two images or more gives one at least and keeps
    one at least, for which the sum may be missed, and a class of one keeps it.
    """
    wanted = fraction * sizes
    held = np.floor(wanted).astype(np.int64)
    missing = round(fraction * sizes.sum()) - held.sum()
    held[np.argsort(held - wanted, kind="stable")[:missing]] += 1
    most = np.maximum(sizes - 1, 0)
    return np.clip(held, np.minimum(1, most), most)


def _tell_small_classes(class_names: tuple[str, ...], sizes: np.ndarray) -> None:
    small = [name for name, size in zip(class_names, sizes, strict=True) if size < 2]
    if small:
        logging.warning(
            "%s classes have fewer than two training images, so E-T Error and search do not see them: %s",
            f"{len(small):,}",
            listed(small),
        )
