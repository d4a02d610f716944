"""Which images with objects serve as train, holdout and test."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from absl import logging

from s3_jax.data.digit_scenes import MOST_DIGITS
from s3_jax.data.splits import Splits, Subset, check_all_apart, hold_out, names_of_splits, whole
from s3_jax.detection.canvas import overflow
from s3_jax.detection.coco import CocoImages, open_coco
from s3_jax.detection.config import DetectionDataConfig
from s3_jax.detection.objects import Categories, OpenedObjects
from s3_jax.detection.scenes import open_scenes
from s3_jax.errors import S3Error
from s3_jax.paths import expanded


@dataclasses.dataclass(frozen=True, eq=False)
class ObjectData:
    """A data set of images with objects, and what its images are used for."""

    source: str
    name: str
    categories: Categories
    splits: Splits

    def record(self) -> dict[str, Any]:
        """What the run's result says of its data: see `Splits.record`."""
        about = {"source": self.source, "name": self.name, "num_classes": len(self.categories.names)}
        return about | self.splits.record()


def open_data(config: DetectionDataConfig, seed: int) -> ObjectData:
    """The data set of a configuration, with a holdout drawn from `seed`, or `holdout_split`.

    Images without objects are in no training, and in every evaluation: what is found there is wrong. Raises S3Error for
    a data set that is missing or unfit, and where a split that measures shares images with train or has no objects. Of
    a drawn holdout that is for whoever measures on it to ask: see `check_counted`.
    """
    names = names_of_splits(config)
    opened = _open_source(config, names)
    subsets = {name: whole(opened.splits[name], name) for name in names}
    check_all_apart(subsets, config)
    train = subsets[config.train_split]
    if config.holdout_split:
        kept, holdout = train, subsets[config.holdout_split]
    else:
        kept, holdout = hold_out(train, config.holdout_fraction, seed)
    splits = Splits(with_objects(kept), with_objects(train), holdout, subsets[config.test_split])
    for name in filter(None, (config.test_split, config.holdout_split)):
        check_counted(subsets[name])
    _tell(config, train, splits)
    _tell_doubts(subsets.values())
    return ObjectData(config.source, opened.name, opened.categories, splits)


def open_split(config: DetectionDataConfig, split: str) -> ObjectData:
    """One split of a configuration's data set, as its test split; there is nothing to train on."""
    opened = _open_source(config, (split,))
    subset = whole(opened.splits[split], split)
    _tell_doubts([subset])
    none = dataclasses.replace(subset, indices=np.arange(0))
    return ObjectData(config.source, opened.name, opened.categories, Splits(none, none, none, subset))


def with_objects(subset: Subset) -> Subset:
    """The images that something can be learnt from. Raises S3Error where there are none."""
    kept = subset.indices[subset.source.has_objects[subset.indices]]
    if not len(kept):
        raise S3Error(
            f"none of the {len(subset):,} training images of split {subset.split!r} has an object that can be trained "
            f"on: {_likely_reason(subset, 'give another split, or annotations')}"
        )
    return dataclasses.replace(subset, indices=kept)


def check_counted(subset: Subset, what_to_do: str = "give another split, or annotations") -> None:
    """Raises S3Error for images to measure on that have no object but crowds: any network's precision would be 0."""
    if not subset.source.has_counted[subset.indices].any():
        raise S3Error(
            f"the {len(subset):,} images of split {subset.split!r} that are measured on have no object that counts, so "
            f"there is no AP: {_likely_reason(subset, what_to_do)}"
        )


def _likely_reason(subset: Subset, otherwise: str) -> str:
    return "; ".join(subset.source.doubts) or otherwise


def _open_source(config: DetectionDataConfig, names: tuple[str, ...]) -> OpenedObjects:
    if config.cache_in_memory:
        raise S3Error("data.cache_in_memory: images with objects are read anew each time; leave it off")
    if config.source == "scenes":
        return _opened_scenes(config, names)
    settings = {"annotations_file": config.annotations_file, "images_folder": config.images_folder}
    return open_coco(expanded(config.path), names, **settings)


def _opened_scenes(config: DetectionDataConfig, names: tuple[str, ...]) -> OpenedObjects:
    if config.max_objects < MOST_DIGITS:
        raise S3Error(f"data.max_objects = {config.max_objects}: digit scenes have up to {MOST_DIGITS}; give as many")
    opened = open_scenes(names, size=config.scene_size, train_count=config.scene_count)
    trained = config.train_split
    if config.shuffled_classes and trained in opened.splits:
        shuffled = dataclasses.replace(opened.splits[trained], shuffled_classes=True)  # type: ignore[type-var]
        opened = dataclasses.replace(opened, splits={**opened.splits, trained: shuffled})
    return opened


def _tell_doubts(subsets: Iterable[Subset]) -> None:
    for subset in subsets:
        for doubt in subset.source.doubts:
            logging.warning("annotations of split %s: %s", subset.split, doubt)


def _tell(config: DetectionDataConfig, train: Subset, splits: Splits) -> None:
    """What of the train split is not trained on."""
    if without_any := len(train) - len(splits.train_and_holdout):
        told = f"{without_any:,} of {len(train):,} images"
        logging.warning("%s of split %s have no objects and are left out of training", told, train.split)
    if isinstance(train.source, CocoImages) and (told := overflow(train.source.object_counts, config.max_objects)):
        logging.warning("%s: %s", train.split, told)
