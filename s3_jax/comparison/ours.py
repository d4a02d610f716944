"""Our models in a comparison: the published ones by name, and networks by their folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from flax import nnx
from rich.console import Console

from s3_jax.classification import inference
from s3_jax.classification.config import ClassificationConfig
from s3_jax.classification.inference import Accuracy
from s3_jax.classification.pretrained import checksum
from s3_jax.classification.task import of_classes
from s3_jax.comparison.model import Opened, Preprocessing
from s3_jax.config import BackboneConfig
from s3_jax.cost import Cost
from s3_jax.data.splits import Subset
from s3_jax.errors import S3Error
from s3_jax.finetune import Start, finetune, start_without_weights, target_architecture
from s3_jax.networks import zoo
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.standalone import About, Standalone
from s3_jax.paths import AnyPath
from s3_jax.progress import Advance
from s3_jax.training.loop import StopRequest


@dataclasses.dataclass(frozen=True)
class Ours:
    """A published model, or the network of a folder, of which a training takes the architecture alone."""

    name: str

    @cached_property
    def _start(self) -> Start:
        start = start_without_weights(BackboneConfig(model=self.name))
        if start.network is None or not isinstance(start.network.spec, ClassifierSpec):
            raise S3Error(f"{self.name} is no classifier; a comparison is of classifiers")
        # Of a folder's network nothing but the specification is kept.
        return start._replace(network=Standalone(None, start.network.spec))

    def settings(self, config: ClassificationConfig) -> ClassificationConfig:
        """The recipe with the model's own patches: those of S3 have 4 pixels, those of DeiT 16."""
        assert self._start.network is not None
        patch_size = self._start.network.spec.patch_size
        return dataclasses.replace(config, model=dataclasses.replace(config.model, patch_size=patch_size))

    def start(self) -> dict[str, Any]:
        """The specification, of whose weights nothing is taken."""
        return self._start.record()

    def cost(self, config: ClassificationConfig, class_names: Sequence[str]) -> Cost:
        """Parameters and multiply-adds under these settings. Raises S3Error where its patches do not tile the image."""
        task, settings = of_classes(self.settings(config).model, class_names, config.data), self.settings(config)
        architecture = target_architecture(self._start, settings)
        nnx.eval_shape(lambda: task.network(architecture, nnx.Rngs(0)))  # refuses what cannot be built
        return task.spec(architecture, About()).cost

    def train(
        self, config: ClassificationConfig, workdir: AnyPath, *, console: Console, stop: StopRequest
    ) -> dict[str, Any]:
        """Train its architecture from random weights, as `scripts/finetune.py --from_scratch` does."""
        return finetune(self._start, config, workdir, console=console, stop=stop)

    def open(self, weights: str) -> Opened:
        """The model with weights of a file or the hub, or a folder's network with its own ("")."""
        model = zoo.open_model(self.name, weights)
        if not isinstance(model.spec, ClassifierSpec):
            raise S3Error(f"{self.name} is no classifier; a comparison is of classifiers")
        spec = model.spec
        preprocessing = Preprocessing(spec.image_size, spec.mean, spec.std, spec.eval_crop)

        def accuracy(
            subset: Subset, config: ClassificationConfig, class_names: Sequence[str], progress: Advance
        ) -> Accuracy:
            """Of the network as it is on a subset of the configuration's data."""
            return inference.accuracy(
                model,
                subset,
                preprocessing.data(config),
                class_names=class_names,
                batch_size=config.run.eval_batch_size,
                progress=progress,
            )

        return Opened(checksum(model), spec.cost, preprocessing, spec.class_names, accuracy)
