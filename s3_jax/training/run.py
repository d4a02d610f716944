"""What all phases of a run share."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from s3_jax.config import Config
from s3_jax.cost import Cost, cost
from s3_jax.data.dataset import ImageData
from s3_jax.paths import AnyPath
from s3_jax.space import Architecture, map_sizes
from s3_jax.standalone import Standalone
from s3_jax.training.clock import Clock
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import Metrics, write_json


@dataclass(frozen=True)
class Run:
    """Settings, folder, devices, data and the ways to report of one run."""

    config: Config
    workdir: AnyPath
    mesh: Mesh
    data: ImageData
    metrics: Metrics
    stop: StopRequest
    clock: Clock
    pretrained: Standalone | None = None  # the network of config.train.init_from

    @property
    def map_sizes(self) -> tuple[int, ...]:
        """Side of each stage's token map."""
        model = self.config.model
        return map_sizes(model.image_size, model.patch_size, len(self.config.space.depth))

    def key(self, phase: str) -> Array:
        """The random key of a phase: a function of the run's seed and the phase's name alone."""
        return jax.random.fold_in(jax.random.key(self.config.seed), zlib.crc32(phase.encode()))

    def rng(self, phase: str, step: int = 0) -> np.random.Generator:
        """The host's random generator of a phase and step."""
        return np.random.default_rng([self.config.seed, zlib.crc32(phase.encode()), step])

    def cost(self, architecture: Architecture) -> Cost:
        """Parameters and multiply-adds of an architecture on the run's images and classes."""
        model = self.config.model
        return cost(
            architecture,
            image_size=model.image_size,
            patch_size=model.patch_size,
            num_classes=self.data.num_classes,
        )

    def has(self, name: str) -> bool:
        """Whether the run's folder has a file, as the first process sees it: all must take the same way."""
        found = (self.workdir / name).exists()
        return found if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.array(found)))

    def write_json(self, name: str, record: Any) -> None:
        """Write a JSON file of the run's folder, whole or not at all, from the first process; the others wait."""
        if jax.process_index() == 0:
            write_json(self.workdir / name, record)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(name)
