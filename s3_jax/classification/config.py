"""The settings that classification has of its own: the source of its images, and how they are augmented.

`main` asks for them before anything else is loaded, so nothing here may import JAX or what takes seconds.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from s3_jax.config import Config, DataConfig
from s3_jax.limits import Count, NotNegative, Probability, check_fields, increasing, number, one_of, whole

SOURCES = ("digits", "tfds", "image_folder")


@dataclasses.dataclass(frozen=True)
class ClassificationDataConfig(DataConfig):
    """Where the images and their classes are. `holdout_fraction` is held out of each class.

    `path` is, for image_folder, the folder; for tfds, a prepared folder, or data_dir for a set given by name.
    """

    source: Annotated[str, one_of(*SOURCES)] = "digits"
    name: str = ""  # tfds: the data set's name, if path is not itself a prepared folder
    # Share of the resized image's side that evaluation's centre crop keeps (timm's rule); 1: all of it.
    eval_crop: Annotated[float, number(0.1, 1)] = 0.9


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Training augmentation; the defaults are DeiT's, which the paper follows (Sec. 4.1, "Supernet training").

    But for one: DeiT repeats every image 3 times, and `repeats` is off here, since the paper does not say.
    """

    random_resized_crop: bool = True
    crop_scale: Annotated[tuple[float, float], increasing(number(0, 1, above=True))] = (0.08, 1.0)  # of the area
    # Width over height.
    crop_ratio: Annotated[tuple[float, float], increasing(number(0, 100, above=True))] = (3 / 4, 4 / 3)
    pad_crop: Annotated[int, whole(0, 1024)] = 0  # pixels of zero padding before a random crop, for small images
    horizontal_flip: Probability = 0.5
    color_jitter: Annotated[float, number(0, 10)] = 0.0  # strength; timm switches it off where RandAugment is on
    rand_augment_layers: Annotated[int, whole(0, 100)] = 2  # operations per image (m9-mstd0.5-inc1); 0 is off
    rand_augment_magnitude: Annotated[float, number(0, 10)] = 9.0
    rand_augment_magnitude_std: NotNegative = 0.5
    random_erasing: Probability = 0.25
    mixup: NotNegative = 0.8  # alpha of the Beta distribution; 0 is off
    cutmix: NotNegative = 1.0  # alpha of the Beta distribution; 0 is off
    mix_switch: Probability = 0.5  # of cutmix where both are on
    label_smoothing: Probability = 0.1
    # How often an epoch shows each image that it shows, augmented anew every time; it shows 1 / repeats of the images,
    # others in each epoch: repeated augmentation (Hoffer et al., 2020; DeiT's RASampler has 3). 1 is off; the paper
    # does not say.
    repeats: Count = 1

    def __post_init__(self) -> None:
        check_fields(self, "augment")


@dataclasses.dataclass(frozen=True)
class ClassificationConfig(Config):
    """All settings of a run of classification."""

    data: ClassificationDataConfig = ClassificationDataConfig()
    augment: AugmentConfig = AugmentConfig()
