"""Visual question answering: the answer to a question about an image, by BERT on the backbone (the paper's Table 4).

Light to import: its settings are asked for before the libraries that it works with are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from s3_jax.vqa.config import VqaConfig

if TYPE_CHECKING:
    from s3_jax.vqa.standalone import VqaSpec
    from s3_jax.vqa.task import QuestionAnswering

__all__ = ["Config", "open_task", "recorded_task", "spec_class", "without_images"]

Config = VqaConfig


def open_task(config: VqaConfig) -> QuestionAnswering:
    """The task of a configuration's questions. Raises S3Error where they, or what to begin with, do not fit."""
    from s3_jax.vqa import task

    return task.open_task(config)


def recorded_task(settings: Mapping[str, Any], dataset: Mapping[str, Any]) -> QuestionAnswering:
    """The task of a run's records, without images; see the function of this name in `vqa.task`."""
    from s3_jax.vqa import task

    return task.recorded_task(settings, dataset)


def without_images(config: VqaConfig, class_names: Sequence[str]) -> QuestionAnswering:
    """The task of these answers with a configuration's settings, without images, for programs compiled ahead."""
    from s3_jax.vqa import task

    return task.without_images(config, class_names)


def spec_class() -> type[VqaSpec]:
    """What describes this task's networks by themselves."""
    from s3_jax.vqa.standalone import VqaSpec

    return VqaSpec
