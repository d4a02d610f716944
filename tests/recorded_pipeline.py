"""A pipeline of which training and measuring are replaced by what notes its arguments.

"Trained" weights are random numbers of the phase, and errors are made up.
"""

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import tiny_config
from rich.console import Console

from s3_jax import measuring, pipeline
from s3_jax.classification import task
from s3_jax.classification.task import of_classes
from s3_jax.config import Config, config_of
from s3_jax.cost import Evaluated
from s3_jax.data.splits import Subset
from s3_jax.errors import Interrupted
from s3_jax.models.subnet import Params
from s3_jax.space import Architecture
from s3_jax.task import Variables
from s3_jax.training import programs
from s3_jax.training.loop import StopRequest
from s3_jax.training.networks import Trained
from s3_jax.training.records import read_json, read_json_lines
from s3_jax.training.run import Run

RETRAINED = "retrain/best_B"


class Fit(NamedTuple):
    """A training that was asked for, and the weights it was to begin with."""

    phase: str
    structure: Any
    config: Any
    subset: Subset
    begin: Params
    own_order: bool


class Measured(NamedTuple):
    """A measurement that was asked for: of the network that `phase` has trained, None as the architecture: of many."""

    phase: str
    subset: Subset
    architecture: Architecture | None


@cache
def shapes_of(structure: Any) -> Any:
    return programs.shapes_of(of_classes(tiny().model, "0123456789"), structure).params


def weights_of(phase: str, structure: Any) -> Params:
    """Random weights of a structure that are a phase's own."""
    rng = np.random.default_rng(zlib.crc32(phase.encode()))
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes_of(structure))


def error_of(architecture: Architecture) -> float:
    """A made-up error in percent, the same for every phase."""
    return 20 + zlib.crc32(repr(architecture).encode()) % 6000 / 100


def tiny(**changes: Any) -> Config:
    """The tiny configuration; changes: of fields by dotted names, dots written as two underscores."""
    config = tiny_config.get_config()
    config.evolution.num_samples = 30
    config.retrain.train.epochs = 0.7
    config.run.tensorboard = False
    for name, value in changes.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    return config_of(config.to_dict())


class Recorder:
    """Runs a pipeline and notes what its phases ask for; stops after so many evaluations where told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
        self.workdir = workdir
        self.fits: list[Fit] = []
        self.measured: list[Measured] = []
        self.left: int | None = None
        self.monkeypatch = monkeypatch

    def listen(self) -> None:
        """Take the place of training and measuring."""
        for name in ("fit", "error_of_subnets", "initial_variables"):
            for module in (pipeline, measuring):
                self.monkeypatch.setattr(module, name, getattr(self, name))
        self.monkeypatch.setattr(pipeline, "error_of_network", self.error_of_network)

    def initial_variables(self, run: Run, phase: str, structure: Any) -> Variables:
        """What the task makes of the phase's own random weights."""
        fresh = Variables(weights_of(f"fresh {phase}", structure), {})
        with self.monkeypatch.context() as patch:
            patch.setattr(task.Classification, "network", lambda *asked, **how: None)  # takes longer than all the rest
            patch.setattr(task, "variables_of", lambda network: fresh)
            return run.task.initial(structure, run.key(phase), lambda what: None)

    def fit(
        self, run: Run, phase: str, structure: Any, config: Any, subset: Subset, initial: Any = None, own_order=False
    ) -> Trained:
        begin = initial() if initial else self.initial_variables(run, phase, structure)
        self.fits.append(Fit(phase, structure, config, subset, jax.device_get(begin.params), own_order))
        return Trained(phase, Variables(weights_of(phase, structure), {}), structure)  # type: ignore[arg-type]

    def error_of_subnets(self, run: Run, network: Any, subset: Subset) -> Callable[[Architecture], float]:
        self.measured.append(Measured(network.definition, subset, None))

        def error(architecture: Architecture) -> float:
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise Interrupted("stopped by the test")
            return error_of(architecture)

        return error

    def error_of_network(self, run: Run, network: Any, subset: Subset, architecture: Architecture) -> float:
        self.measured.append(Measured(network.definition, subset, architecture))
        return error_of(architecture) / (2 if network.definition == RETRAINED else 1)

    def run(self, config: Config, stop_after: int | None = None) -> dict[str, Any]:
        """The run's result. Raises Interrupted after `stop_after` evaluations."""
        self.listen()
        self.left = stop_after
        return pipeline.run_pipeline(config, self.workdir, console=Console(quiet=True), stop=StopRequest())

    def begin_of(self, phase: str) -> Params:
        """The weights with which a phase was first asked to begin."""
        return next(fit.begin for fit in self.fits if fit.phase == phase)

    def read(self, name: str) -> Any:
        return read_json(self.workdir / name)

    def evaluated(self, index: int) -> list[Evaluated]:
        """The architectures that were evaluated in a space, in their order."""
        return read_json_lines(self.workdir / f"space_{index}" / "evaluated.jsonl", Evaluated.from_json)


def rows(subset: Subset) -> tuple[str, tuple[int, ...]]:
    """Which images these are."""
    return subset.split, tuple(map(int, subset.indices))
