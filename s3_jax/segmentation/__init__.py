"""Segmentation: the class of each pixel, by UperNet on the backbone (the paper's Table 3).

Light to import: its settings are asked for before the libraries that it works with are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from s3_jax.segmentation.config import SegmentationConfig

if TYPE_CHECKING:
    from s3_jax.segmentation.standalone import SegmentationSpec
    from s3_jax.segmentation.task import Segmentation

__all__ = ["Config", "open_task", "recorded_task", "spec_class", "without_images"]

Config = SegmentationConfig


def open_task(config: SegmentationConfig) -> Segmentation:
    """Segmentation of a configuration's images. Raises S3Error where they, or what to begin with, do not fit."""
    from s3_jax.segmentation import task

    return task.open_task(config)


def recorded_task(settings: Mapping[str, Any], dataset: Mapping[str, Any]) -> Segmentation:
    """Segmentation of a run's records, without images; see the function of this name in `segmentation.task`."""
    from s3_jax.segmentation import task

    return task.recorded_task(settings, dataset)


def without_images(config: SegmentationConfig, class_names: Sequence[str]) -> Segmentation:
    """Segmentation of these classes with a configuration's settings, without images, for programs compiled ahead."""
    from s3_jax.segmentation import task

    return task.of_classes(config, class_names)


def spec_class() -> type[SegmentationSpec]:
    """What describes this task's networks by themselves."""
    from s3_jax.segmentation.standalone import SegmentationSpec

    return SegmentationSpec
