"""Detection: boxes, classes and masks of objects, by Cascade Mask R-CNN on the backbone (the paper's Table 2).

Light to import: its settings are asked for before the libraries that it works with are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from s3_jax.detection.config import DetectionConfig

if TYPE_CHECKING:
    from s3_jax.detection.standalone import DetectionSpec
    from s3_jax.detection.task import Detection

__all__ = ["Config", "open_task", "recorded_task", "spec_class", "without_images"]

Config = DetectionConfig


def open_task(config: DetectionConfig) -> Detection:
    """Detection in a configuration's images. Raises S3Error where they, or what to begin with, do not fit."""
    from s3_jax.detection import task

    return task.open_task(config)


def recorded_task(settings: Mapping[str, Any], dataset: Mapping[str, Any]) -> Detection:
    """Detection of a run's records, without images; see the function of this name in `detection.task`."""
    from s3_jax.detection import task

    return task.recorded_task(settings, dataset)


def without_images(config: DetectionConfig, class_names: Sequence[str]) -> Detection:
    """Detection of these classes with a configuration's settings, without images, for programs compiled ahead."""
    from s3_jax.detection import task
    from s3_jax.detection.objects import numbered

    return task.of_categories(config, numbered(class_names))


def spec_class() -> type[DetectionSpec]:
    """What describes this task's networks by themselves."""
    from s3_jax.detection.standalone import DetectionSpec

    return DetectionSpec
