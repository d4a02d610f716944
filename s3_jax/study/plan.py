"""What a study consists of: which runs, in which order, in which folders, with which settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from s3_jax.arms import AFTER_MEASURED, ARMS
from s3_jax.config import Config
from s3_jax.errors import S3Error
from s3_jax.mapping import to_mapping
from s3_jax.paths import AnyPath
from s3_jax.writing import as_json

MEASURED = "measured"
MAX_SEEDS = 1000


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a study: the whole method with one seed by one arm."""

    seed: int
    arm: str

    @property
    def name(self) -> str:
        """Its folder below the study's."""
        return f"seed_{self.seed}/{self.arm}"

    @property
    def title(self) -> str:
        """What readers are told."""
        return f"seed {self.seed}, arm {self.arm}"

    def folder(self, workdir: AnyPath) -> AnyPath:
        """Where it is, in a study's folder."""
        return workdir / f"seed_{self.seed}" / self.arm


@dataclasses.dataclass(frozen=True)
class Plan:
    """The runs of a study: every arm for every seed, with settings that are otherwise alike."""

    config: Config
    seeds: tuple[int, ...]
    arms: tuple[str, ...]

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """In the order in which they are done: seed by seed, the measured arm first, as other arms go by it."""
        return tuple(PlannedRun(seed, arm) for seed in self.seeds for arm in self.arms)

    def settings(self, run: PlannedRun, workdir: AnyPath) -> Config:
        """Those of one run. Raises S3Error for a seed that cannot be one."""
        guide = ""
        if run.arm in AFTER_MEASURED:  # absolute, as the study may go on from another working folder
            guide = str(PlannedRun(run.seed, MEASURED).folder(workdir).absolute())
        evolution = dataclasses.replace(self.config.evolution, arm=run.arm, measured_run=guide)
        return dataclasses.replace(self.config, seed=run.seed, evolution=evolution)

    def to_json(self) -> dict[str, Any]:
        """The content of `plan.json`."""
        settings = json.loads(as_json(to_mapping(self.config)))
        return {"seeds": list(self.seeds), "arms": list(self.arms), "settings": settings}


def plan_of(config: Config, seeds: str, arms: str) -> Plan:
    """The plan of a command's flags: so many seeds, from the configuration's on, and arms by name.

    Raises S3Error for a number that is none, arms that are not there, and arms that lack the one they go by.
    """
    counted = seeds_of(config, seeds)
    if config.backbone.is_given:
        raise S3Error("config.backbone names one network, so there is no search space to study; leave it out")
    if config.evolution.measured_run or config.evolution.arm != MEASURED:
        raise S3Error("config.evolution.arm and measured_run are given by the study to each run; leave them out")
    return Plan(config, counted, _arms(arms.split(",")))


def seeds_of(config: Config, text: str) -> tuple[int, ...]:
    """The seeds of the flag --seeds, from the configuration's on. Raises S3Error for a number that is none."""
    try:
        count = int(text)
    except ValueError:
        count = 0
    if not 1 <= count <= MAX_SEEDS:
        raise S3Error(f"--seeds={text}: expected how many seeds, a whole number from 1 to {MAX_SEEDS}")
    if config.seed + count > 2**32:
        raise S3Error(f"--seeds={count} from config.seed = {config.seed} on: a seed is at most {2**32 - 1}")
    return tuple(range(config.seed, config.seed + count))


def _arms(names: Sequence[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in names)
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        wrong = ", ".join(map(repr, unknown))
        raise S3Error(f"--arms: there is no arm {wrong}; the arms are {', '.join(ARMS)}")
    if len(set(names)) < len(names):
        raise S3Error(f"--arms={','.join(names)}: an arm is named twice")
    guided = [name for name in names if name in AFTER_MEASURED]
    if guided and MEASURED not in names:
        raise S3Error(f"--arms: {' and '.join(guided)} go by what the arm {MEASURED} did; add {MEASURED}")
    return tuple(sorted(names, key=lambda name: name != MEASURED))
