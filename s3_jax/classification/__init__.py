"""Classification: the task on which spaces are searched, measured and evolved in the paper.

Light to import: its settings are asked for before the libraries that it works with are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from s3_jax.classification.config import ClassificationConfig

if TYPE_CHECKING:
    from s3_jax.classification.task import Classification
    from s3_jax.networks.classifier import ClassifierSpec

__all__ = ["Config", "open_task", "recorded_task", "spec_class", "without_images"]

Config = ClassificationConfig


def open_task(config: ClassificationConfig) -> Classification:
    """Classification of a configuration's images. Raises S3Error where they, or what to begin with, do not fit."""
    from s3_jax.classification import task

    return task.open_task(config)


def recorded_task(settings: Mapping[str, Any], dataset: Mapping[str, Any]) -> Classification:
    """Classification of a run's records, without images; see the function of this name in `classification.task`."""
    from s3_jax.classification import task

    return task.recorded_task(settings, dataset)


def without_images(config: ClassificationConfig, class_names: Sequence[str]) -> Classification:
    """Classification of these classes with a configuration's settings, without images, for programs compiled ahead."""
    from s3_jax.classification import task

    return task.of_classes(config.model, class_names, config.data)


def spec_class() -> type[ClassifierSpec]:
    """What describes this task's networks by themselves."""
    from s3_jax.networks.classifier import ClassifierSpec

    return ClassifierSpec
