"""What a comparison asks of a model, be it one of ours or one of timm's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from rich.console import Console

from s3_jax.classification.config import ClassificationConfig, ClassificationDataConfig
from s3_jax.classification.inference import Accuracy
from s3_jax.cost import Cost
from s3_jax.data.splits import Subset
from s3_jax.paths import AnyPath
from s3_jax.progress import Advance
from s3_jax.training.loop import StopRequest


class Preprocessing(NamedTuple):
    """How the network of given weights sees images; the filter is bicubic for all."""

    image_size: int  # pixels
    mean: tuple[float, float, float]  # of RGB in [0, 1]
    std: tuple[float, float, float]
    eval_crop: float  # share of the resized image's side that the centre crop keeps

    def data(self, config: ClassificationConfig) -> ClassificationDataConfig:
        """The data set of a configuration, seen so."""
        return dataclasses.replace(config.data, mean=self.mean, std=self.std, eval_crop=self.eval_crop)


class Opened(NamedTuple):
    """A network with the weights that it was given."""

    checksum: str  # of structure and weights
    cost: Cost
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    accuracy: Callable[[Subset, ClassificationConfig, Sequence[str], Advance], Accuracy]  # the names are the data's


class Model(Protocol):
    """A model by the name that the user gave it."""

    @property
    def name(self) -> str:
        """As --models and --evaluate have it."""

    def settings(self, config: ClassificationConfig) -> ClassificationConfig:
        """The recipe with what of it is the model's own."""

    def start(self) -> dict[str, Any]:
        """What its training begins with, as JSON."""

    def cost(self, config: ClassificationConfig, class_names: Sequence[str]) -> Cost:
        """Of its network under these settings. Raises S3Error where there can be none."""

    def train(
        self, config: ClassificationConfig, workdir: AnyPath, *, console: Console, stop: StopRequest
    ) -> dict[str, Any]:
        """Train it from scratch, or go on with that; returns the result. Raises S3Error, Interrupted as `finetune`."""

    def open(self, weights: str) -> Opened:
        """The model with the weights of a file or the hub; "" for its own. Raises S3Error where they are none of it."""
