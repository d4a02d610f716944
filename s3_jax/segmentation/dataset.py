"""Which images with masks serve as train, holdout and test."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from s3_jax.data.splits import Splits, check_all_apart, hold_out, names_of_splits, whole
from s3_jax.errors import S3Error
from s3_jax.paths import expanded
from s3_jax.segmentation.class_table import ClassTable, OpenedMasks, read_class_table
from s3_jax.segmentation.config import SegmentationDataConfig
from s3_jax.segmentation.folders import open_mask_folder
from s3_jax.segmentation.scenes import open_scenes


@dataclasses.dataclass(frozen=True, eq=False)
class MaskData:
    """A data set of images with masks, and what its images are used for."""

    source: str
    name: str
    table: ClassTable
    splits: Splits

    def record(self) -> dict[str, Any]:
        """What the run's result says of its data: see `Splits.record`."""
        about = {"source": self.source, "name": self.name, "num_classes": len(self.table.names)}
        return about | self.splits.record()


def open_data(config: SegmentationDataConfig, seed: int) -> MaskData:
    """The data set of a configuration, with a holdout drawn from `seed`, or `holdout_split`.

    Raises S3Error for a data set that is missing or unfit, and where a split that measures shares images with train.
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
    return MaskData(config.source, opened.name, opened.table, Splits(kept, train, holdout, subsets[config.test_split]))


def open_split(config: SegmentationDataConfig, split: str) -> MaskData:
    """One split of a configuration's data set, as its test split; there is nothing to train on."""
    opened = _open_source(config, (split,))
    subset = whole(opened.splits[split], split)
    none = dataclasses.replace(subset, indices=np.arange(0))
    return MaskData(config.source, opened.name, opened.table, Splits(none, none, none, subset))


def _open_source(config: SegmentationDataConfig, names: tuple[str, ...]) -> OpenedMasks:
    if config.cache_in_memory:
        raise S3Error("data.cache_in_memory: images with masks are read anew each time; leave it off")
    if config.source == "scenes":
        opened = open_scenes(names, size=config.scene_size, train_count=config.scene_count)
        trained = config.train_split
        if config.shuffled_classes and trained in opened.splits:
            shuffled = dataclasses.replace(opened.splits[trained], shuffled_classes=True)
            opened = dataclasses.replace(opened, splits={**opened.splits, trained: shuffled})
        return opened
    path = expanded(config.path)
    table = read_class_table(config.classes or f"{path}/classes.txt")
    return open_mask_folder(
        path,
        names,
        images=config.images_folder,
        masks=config.masks_folder,
        table=table,
        zero_is_ignored=config.zero_is_ignored,
        ignored_value=config.ignored_value,
    )
