"""The settings that segmentation has of its own: images with masks, their augmentation, and the heads.

`main` asks for them before anything else is loaded, so nothing here may import JAX or what takes seconds.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from s3_jax.config import Config, DataConfig
from s3_jax.limits import (
    BelowOne,
    Count,
    NotNegative,
    Probability,
    Scale,
    Side,
    check_fields,
    increasing,
    number,
    one_of,
    whole,
)

SOURCES = ("scenes", "mask_folder")

Factors = Annotated[tuple[float, float], increasing(number(0, 100))]


@dataclasses.dataclass(frozen=True)
class SegmentationDataConfig(DataConfig):
    """Where the images and their masks are, what masks mean, and at which size images are tested.

    scenes: drawn as they are needed, see `scenes`; splits are "train", "holdout" and "test". mask_folder: images in
    path/images_folder/split, masks in path/masks_folder/split.
    """

    source: Annotated[str, one_of(*SOURCES)] = "scenes"
    images_folder: str = "images"
    masks_folder: str = "annotations"
    classes: str = ""  # file with a class in each line; "": path/classes.txt
    zero_is_ignored: bool = False  # 0 in a mask does not count and 1 is the first class (reduce_zero_label)
    ignored_value: Annotated[int, whole(0, 65535)] = 255
    test_scale: Scale = (2048, 512)  # what images are resized to fit into
    # Both sides are brought up to multiples of this: sizes are compiled for, and there are hundreds in ADE20K. 1 is the
    # published protocol.
    test_multiple: Annotated[int, whole(1, 512)] = 1
    scene_size: Annotated[int, whole(16, 4096)] = 48  # pixels, both sides
    scene_count: Count = 3000  # of the training split
    shuffled_classes: bool = False  # a control: the classes of training scenes' digits are drawn at random


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """UperNet's heads; the defaults are mmsegmentation's, with which Swin and S3 are measured."""

    channels: Count = 512
    auxiliary_channels: Count = 256
    auxiliary_weight: NotNegative = 0.4  # of the auxiliary head's loss
    dropout: BelowOne = 0.1  # of channels, before the classifiers
    # Deviation of the classifiers' initial weights; 0: 1 / sqrt(fan-in). With as little as the default a narrow network
    # that begins at random finds objects and, for hundreds of updates, does not learn to tell their classes apart.
    classifier_std: Annotated[float, number(0, 1)] = 0.01

    def __post_init__(self) -> None:
        check_fields(self, "head")


@dataclasses.dataclass(frozen=True)
class SegmentationAugmentConfig:
    """Training augmentation; the defaults are mmsegmentation's for ADE20K, with which Swin and S3 train UperNet."""

    # The longer and the shorter side that an image is resized to fit into, times a factor drawn from `ratio`.
    scale: Scale = (2048, 512)
    ratio: Annotated[tuple[float, float], increasing(number(0, 100, above=True))] = (0.5, 2.0)
    crop: Side = 512  # side of the random crop; a smaller image is padded
    # Largest share of a crop's counted pixels that one class may cover: up to ten crops are drawn to find one below it,
    # then another is taken as it is. 1 is off.
    largest_class: Annotated[float, number(0, 1, above=True)] = 0.75
    horizontal_flip: Probability = 0.5
    photometric: bool = True  # distortion of brightness, contrast, saturation and hue, each with probability 0.5
    brightness: Annotated[float, number(0, 255)] = 32.0  # most levels of 255 that are added or taken away
    contrast: Factors = (0.5, 1.5)
    saturation: Factors = (0.5, 1.5)
    hue: Annotated[int, whole(0, 90)] = 18  # most steps of two degrees

    def __post_init__(self) -> None:
        check_fields(self, "augment")


@dataclasses.dataclass(frozen=True)
class SegmentationConfig(Config):
    """All settings of a run of segmentation."""

    task: str = "s3_jax.segmentation"
    data: SegmentationDataConfig = SegmentationDataConfig()
    augment: SegmentationAugmentConfig = SegmentationAugmentConfig()
    head: HeadConfig = HeadConfig()
