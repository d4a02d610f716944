"""The settings that detection has of its own: images with objects, their augmentation, canvases, and the heads.

`main` asks for them before anything else is loaded, so nothing here may import JAX or what takes seconds.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from s3_jax.config import Config, DataConfig
from s3_jax.limits import (
    SIDE,
    Canvases,
    Count,
    Limit,
    Positive,
    Probability,
    Scale,
    SettingError,
    Side,
    check_fields,
    increasing,
    number,
    one_of,
    whole,
)

SOURCES = ("scenes", "coco")

_CHOICES = Limit(
    "at least one whole number, each from 1 to 16,384", lambda sides: bool(sides) and all(map(SIDE.holds, sides))
)
Sides = Annotated[tuple[int, ...], _CHOICES]


@dataclasses.dataclass(frozen=True)
class DetectionDataConfig(DataConfig):
    """Where the images and their objects are, and the sizes at which a network sees them.

    scenes: drawn as they are needed, see `scenes`; splits are "train", "holdout" and "test". coco: files as COCO has
    them; in both patterns `{split}` stands for the name of a split.
    """

    source: Annotated[str, one_of(*SOURCES)] = "scenes"
    annotations_file: str = "annotations/instances_{split}.json"  # below path
    images_folder: str = "{split}"  # below path; the file names of the annotations begin there
    test_scale: Scale = (1333, 800)  # what images are resized to fit into
    canvases: Canvases = ((800, 1344), (1344, 800))  # an image lies at the top left of the smallest that holds it
    max_objects: Annotated[int, whole(1, 10_000)] = 100  # of an image in training; of more, the largest are kept
    scene_size: Annotated[int, whole(16, 4096)] = 64  # pixels, both sides
    scene_count: Count = 3000  # of the training split
    shuffled_classes: bool = False  # a control: the classes of training scenes' digits are drawn at random


Deviation = Annotated[float, number(0, 1)]


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """The heads of Cascade Mask R-CNN; the defaults are mmdetection's, with which Swin and S3 are measured.

    A level is a map of the feature pyramid; candidates of a level are its boxes of highest objectness, from which
    non-maximum suppression leaves the proposals of an image.
    """

    channels: Count = 256  # of the feature pyramid and of every head's convolutions
    fc_channels: Count = 1024  # of the box heads' fully connected layer
    anchor_scale: Positive = 8.0  # side of a square anchor, in strides of its level
    train_candidates: Count = 2000  # of each level
    train_proposals: Count = 2000  # of an image
    test_candidates: Count = 1000
    test_proposals: Count = 1000
    rpn_samples: Annotated[int, whole(2, 1_000_000)] = 256  # anchors of an image that are trained on
    box_samples: Annotated[int, whole(4, 1_000_000)] = 512  # boxes of an image that each stage is trained on
    score_threshold: Probability = 0.05  # a detection has more
    test_nms: Probability = 0.5  # of detections of a class that overlap more, the better one stays
    class_candidates: Count = 2000  # boxes of all classes, the best of an image, that suppression looks at
    detections: Count = 100  # of an image
    # Deviations of initial weights; 0: 1 / sqrt(fan-in). Narrow networks that begin at random learn faster with 0.
    classifier_std: Deviation = 0.01  # of the box heads' classes
    regressor_std: Deviation = 0.001  # of the box heads' deltas
    rpn_std: Deviation = 0.01  # of all layers that propose

    def __post_init__(self) -> None:
        check_fields(self, "head")


@dataclasses.dataclass(frozen=True)
class DetectionAugmentConfig:
    """Training augmentation; the defaults are DETR's for COCO, with which Swin and S3 train Cascade Mask R-CNN."""

    short_sides: Sides = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)  # one is drawn for each image
    long_side: Side = 1333  # most pixels of the longer side, which goes before the shorter one
    horizontal_flip: Probability = 0.5
    crop_probability: Probability = 0.5  # of the second branch: resize, crop, resize
    crop_short_sides: Sides = (400, 500, 600)  # before the crop
    crop_sides: Annotated[tuple[int, int], increasing(SIDE)] = (384, 600)  # least and most pixels, drawn for each side

    def __post_init__(self) -> None:
        check_fields(self, "augment")
        if self.long_side < max(self.short_sides + self.crop_short_sides):
            raise SettingError("augment", f"long_side = {self.long_side}: expected no less than the shorter sides")


@dataclasses.dataclass(frozen=True)
class DetectionConfig(Config):
    """All settings of a run of detection."""

    task: str = "s3_jax.detection"
    data: DetectionDataConfig = DetectionDataConfig()
    augment: DetectionAugmentConfig = DetectionAugmentConfig()
    head: HeadConfig = HeadConfig()
