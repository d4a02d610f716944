"""Classification: the task on which spaces are searched, measured and evolved in the paper.

Light to import: its settings are asked for before the libraries that it works with are loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s3_jax.classification.config import ClassificationConfig

if TYPE_CHECKING:
    from s3_jax.classification.task import Classification
    from s3_jax.networks.classifier import ClassifierSpec

__all__ = ["Config", "open_task", "spec_class"]

Config = ClassificationConfig


def open_task(config: ClassificationConfig) -> Classification:
    """Classification of a configuration's images. Raises S3Error where they, or what to begin with, do not fit."""
    from s3_jax.classification import task

    return task.open_task(config)


def spec_class() -> type[ClassifierSpec]:
    """What describes this task's networks by themselves."""
    from s3_jax.networks.classifier import ClassifierSpec

    return ClassifierSpec
