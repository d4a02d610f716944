"""The files of a study's runs as values: what every space of every seed and arm was measured to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from s3_jax.equal_cost import Sampled
from s3_jax.errors import S3Error
from s3_jax.et_error import ETError
from s3_jax.paths import AnyPath
from s3_jax.report.records import RunRecord, SpaceRecord, read_run
from s3_jax.report.rows import ResultRow
from s3_jax.space import SearchSpace
from s3_jax.study.plan import MEASURED, Plan, PlannedRun
from s3_jax.training.records import read_record

HOLDOUT, JUDGE = "holdout", "judging"


@dataclasses.dataclass(frozen=True)
class Measure:
    """A space's E-T Error (%) on some images, and the errors and costs of the sampled architectures behind it."""

    et_error: float
    sampled: Sampled


@dataclasses.dataclass(frozen=True)
class StudiedSpace:
    """One space of one run. measures: by the images they are of; slopes: in % per choice, by stage and dimension.

    inherited, retrained: test scores (%) of its best architecture, None where it was not retrained.
    """

    run: PlannedRun
    index: int
    name: str
    space: SearchSpace
    mean_params: float
    mean_macs: float
    measures: Mapping[str, Measure]
    slopes: Mapping[tuple[int, str], float]
    inherited: float | None
    retrained: float | None


@dataclasses.dataclass(frozen=True)
class Study:
    """All spaces of the runs that are finished, each run's in their order, and what a reader is told of them.

    top_share: the share of a space's samples that is its top tier. of_data: `dataset` and names of score and error.
    """

    plan: Plan
    spaces: Mapping[PlannedRun, tuple[StudiedSpace, ...]]
    top_share: float
    of_data: Mapping[str, Any]

    @property
    def images(self) -> tuple[str, ...]:
        """The images that every space has an E-T Error on; those that chose nothing come last."""
        every = [space.measures for spaces in self.spaces.values() for space in spaces]
        return tuple(kind for kind in (HOLDOUT, JUDGE) if every and all(kind in measures for measures in every))

    @property
    def space_names(self) -> tuple[str, ...]:
        """A, B, C ..., as the runs have them."""
        return tuple(space.name for space in next(iter(self.spaces.values()), ()))

    def of_arm(self, arm: str) -> dict[int, tuple[StudiedSpace, ...]]:
        """The spaces of every finished run of an arm, by seeds."""
        return {run.seed: spaces for run, spaces in self.spaces.items() if run.arm == arm}

    def per_seed(
        self, value: Callable[[Sequence[StudiedSpace]], float | None], arm: str = MEASURED
    ) -> dict[int, float]:
        """A value of every seed's run of an arm, as far as there is one."""
        found = {seed: value(spaces) for seed, spaces in self.of_arm(arm).items()}
        return {seed: value for seed, value in found.items() if value is not None}


def read_study(plan: Plan, workdir: AnyPath) -> Study:
    """What the finished runs of a study have written. Raises S3Error, naming the file, where one is damaged."""
    spaces, of_data = {}, {}
    for run in plan.runs:
        folder = run.folder(workdir)
        if is_finished(folder):
            record = read_run(folder)
            of_data = {key: record.result.get(key) for key in ("dataset", "score_name", "error_name")}
            spaces[run] = _spaces(run, folder, record)
    evolution = plan.config.evolution
    return Study(plan, spaces, min(1.0, evolution.top_k / evolution.num_samples), of_data)


def is_finished(folder: AnyPath) -> bool:
    """Whether a run of a study has come to its end."""
    return (folder / "result.json").exists()


def _spaces(run: PlannedRun, folder: AnyPath, record: RunRecord) -> tuple[StudiedSpace, ...]:
    if len(record.rows) != len(record.spaces):
        raise S3Error(f"{folder}: its result has {len(record.rows)} spaces, and {len(record.spaces)} are there")
    return tuple(_space(run, folder, *pair) for pair in zip(record.spaces, record.rows, strict=True))


def _space(run: PlannedRun, folder: AnyPath, space: SpaceRecord, row: ResultRow) -> StudiedSpace:
    errors, path = space.errors, folder / f"space_{space.index}" / "et_error.json"
    if errors is None or not errors.sampled_costs:
        raise S3Error(f"{path} does not have the costs of the sampled architectures, which a study needs")
    params, macs = ([getattr(cost, name) for cost in errors.sampled_costs] for name in ("params", "macs"))
    measures = {HOLDOUT: Measure(errors.space.et_error, Sampled.of(errors.sampled_errors, macs))}
    judged = read_record(path, lambda written: _judged(written.get("judged"), macs))
    return StudiedSpace(
        run=run,
        index=space.index,
        name=space.name,
        space=space.space,
        mean_params=float(np.mean(params)),
        mean_macs=float(np.mean(macs)),
        measures=measures | ({JUDGE: judged} if judged else {}),
        slopes={
            (each.measure.stage, each.measure.dimension): each.slope.slope for each in errors.dimensions if each.slope
        },
        inherited=row.test_accuracy_inherited,
        retrained=row.test_accuracy,
    )


def _judged(record: Mapping[str, Any] | None, macs: Sequence[int]) -> Measure | None:
    """On images that chose nothing; they judge the first training's samples, which come first."""
    if record is None:
        return None
    errors = record["sampled_errors"]
    return Measure(ETError.from_json(record).et_error, Sampled.of(errors, macs[: len(errors)]))
