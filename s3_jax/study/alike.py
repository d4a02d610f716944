"""Networks of a finished search trained alike: one recipe, several seeds, in one folder that can be taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax
from rich.console import Console

from s3_jax.config import Config, TrainConfig
from s3_jax.data.splits import Subset
from s3_jax.errors import S3Error
from s3_jax.evolution import space_name
from s3_jax.networks.extract import restored
from s3_jax.paths import AnyPath
from s3_jax.space import Architecture, SearchSpace
from s3_jax.task import Variables, open_task
from s3_jax.training.evaluate import error_of_network
from s3_jax.training.fit import fit
from s3_jax.training.loop import StopRequest
from s3_jax.training.networks import Trained, define
from s3_jax.training.records import read_record
from s3_jax.training.run import Run
from s3_jax.training.start import check_same_data, check_started_alike, opened_workdir, record_start, start_run

# What a comparison may set otherwise than the search that its networks are of: how they are retrained.
FREE = ("retrain.",)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, on what, and on what its error is measured."""

    settings: TrainConfig
    trained_on: Subset
    measured_on: Subset


@dataclass(frozen=True)
class SearchedSpace:
    """A space of a finished search."""

    workdir: AnyPath
    index: int
    space: SearchSpace

    @property
    def name(self) -> str:
        """A, B, C ..."""
        return space_name(self.index)

    @property
    def folder(self) -> AnyPath:
        """Where its files are."""
        return self.workdir / f"space_{self.index}"

    def supernet(self, run: Run) -> Trained:
        """Its trained supernet, on all devices. Raises S3Error where its checkpoints are gone."""
        variables = restored(self.workdir, f"space_{self.index}", run.task, self.space, run.mesh)
        return Trained(define(run.task, self.space), variables, self.space)


@contextmanager
def opened_beside(
    config: Config, search: AnyPath, workdir: AnyPath, *, console: Console, stop: StopRequest
) -> Iterator[Run]:
    """A run in `workdir` for networks of the finished search in the folder `search`, which is only read.

    Raises S3Error where that is no finished search, or one with other settings (`FREE` ones aside) or other data.
    """
    if not (search / "result.json").exists() or not (search / "space_0" / "space.json").exists():
        raise S3Error(f"--run={search}: expected the folder of a finished search; it has no result.json and space_0")
    if search.absolute() == workdir.absolute():
        raise S3Error(f"--workdir={workdir} is the folder of the search itself; give another one")
    check_started_alike(search, config, FREE)
    with opened_workdir(workdir, config):
        run = start_run(config, open_task(config), workdir, console, stop)
        check_same_data(search, run.task)
        record_start(run)
        try:
            yield run
        finally:
            run.metrics.close()


def searched_spaces(search: AnyPath) -> list[SearchedSpace]:
    """The spaces of a finished search, from A on. Raises S3Error for a damaged file."""
    count = len(read_record(search / "result.json", lambda result: list(result["spaces"])))
    return [
        SearchedSpace(search, index, _read_space(search / f"space_{index}" / "space.json")) for index in range(count)
    ]


def errors_of_seeds(
    run: Run,
    name: str,
    architecture: Architecture,
    seeds: int,
    recipe: Recipe,
    initial: Callable[[], Variables] | None = None,
) -> list[float]:
    """The errors (%) of an architecture trained with so many seeds, each in its own phase `name`_0, `name`_1, ...

    A seed gives the weights to begin with, unless `initial` makes them, and the order of the images. What is done
    already is only read.
    """
    return [_error(run, f"{name}_{seed}", architecture, recipe, initial) for seed in range(seeds)]


def forget_programs(run: Run) -> None:
    """Let go of compiled programs, so that memory does not grow with the number of networks that are done with."""
    run.evaluations.clear()
    run.trainings.clear()
    jax.clear_caches()


def _read_space(path: AnyPath) -> SearchSpace:
    return read_record(path, lambda record: SearchSpace.from_json(record["space"]))


def _error(
    run: Run, phase: str, architecture: Architecture, recipe: Recipe, initial: Callable[[], Variables] | None
) -> float:
    if run.has(f"{phase}/result.json"):
        return read_record(run.workdir / phase / "result.json", lambda record: _checked(record, architecture))
    network = fit(run, phase, architecture, recipe.settings, recipe.trained_on, initial, own_order=True)
    error = error_of_network(run, network, recipe.measured_on, architecture)
    record = {"architecture": architecture.to_json(), "error": error, "split": recipe.measured_on.split}
    run.write_json(f"{phase}/result.json", record)
    return error


def _checked(record: dict, architecture: Architecture) -> float:
    if Architecture.from_json(record["architecture"]) != architecture:
        raise S3Error("it is of another architecture")
    return float(record["error"])
