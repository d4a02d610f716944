"""What all phases of a run share."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from s3_jax.config import Config
from s3_jax.paths import AnyPath
from s3_jax.space import map_sizes
from s3_jax.task import Task
from s3_jax.training.clock import Clock
from s3_jax.training.loop import StopRequest
from s3_jax.training.programs import Training
from s3_jax.training.records import Metrics, write_json


@dataclass(frozen=True)
class Run:
    """Settings, folder, devices, task and the ways to report of one run."""

    config: Config
    workdir: AnyPath
    mesh: Mesh
    task: Task
    metrics: Metrics
    stop: StopRequest
    clock: Clock
    # Programs that evaluate, by the definition of their network: a supernet's serves all of its subnets.
    evaluations: dict[nnx.GraphDef, Callable[..., dict[str, Array]]] = field(default_factory=dict)
    # The programs of the newest training, kept so that the same training with another seed compiles nothing.
    trainings: dict[Any, Training] = field(default_factory=dict)

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
