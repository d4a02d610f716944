"""A study for tests: spaces made in memory, and folders of finished runs with made-up errors that differ as planted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiny_config
from test_report_run import read_json, start_space, write_json, write_run

from s3_jax.config import Config, config_of
from s3_jax.equal_cost import Sampled
from s3_jax.space import SearchSpace
from s3_jax.study.plan import Plan, PlannedRun
from s3_jax.study.records import HOLDOUT, Measure, StudiedSpace, Study

# What every arm's last space errs more than it would by itself, in percentage points.
SHIFTS = {"measured": -8.0, "random": -4.0, "grow": 0.0, "prune": 2.0, "still": 3.0}


def config(**changes: Any) -> Config:
    """The tiny configuration; changes: of fields by dotted names, dots written as two underscores."""
    made = tiny_config.get_config()
    for name, value in changes.items():
        made.update_from_flattened_dict({name.replace("__", "."): value})
    return config_of(made.to_dict())


def studied(
    arm: str,
    seed: int,
    errors: Sequence[float],
    *,
    spaces: Sequence[SearchSpace] = (),
    slopes: Mapping[tuple[int, str], float] = {},
    **fields: Any,
) -> tuple[StudiedSpace, ...]:
    """The spaces of one run, with these E-T Errors; every sampled architecture errs as much, at MACs from 10 to 49."""
    spaces = spaces or [start_space()] * len(errors)
    return tuple(
        StudiedSpace(
            run=PlannedRun(seed, arm),
            index=index,
            name="ABCDEFGH"[index],
            space=space,
            mean_params=1e3,
            mean_macs=1e6,
            measures={HOLDOUT: Measure(error, Sampled.of([error] * 40, list(range(10, 50))))},
            slopes=slopes,
            **{"inherited": None, "retrained": None} | fields,
        )
        for index, (error, space) in enumerate(zip(errors, spaces, strict=True))
    )


def study_of(runs: Sequence[tuple[StudiedSpace, ...]]) -> Study:
    """A study of these runs."""
    spaces = {run[0].run: run for run in runs}
    seeds, arms = (tuple(dict.fromkeys(getattr(run, name) for run in spaces)) for name in ("seed", "arm"))
    return Study(Plan(config(), seeds, arms), spaces, 0.1, {})


def write_folders(workdir: Path, plan: Plan, *, judged: bool = True) -> None:
    """A finished run in the folder of every run of a plan."""
    for run in plan.runs:
        write_run(run.folder(workdir), seed=run.seed, num_samples=40)
        for index in range(3):
            _plant(run.folder(workdir) / f"space_{index}" / "et_error.json", index * SHIFTS[run.arm] / 2, judged)


def _plant(path: Path, shift: float, judged: bool) -> None:
    """Make all errors of a space larger by `shift`, and those on judging images by one point more."""
    record = read_json(path)
    errors = (np.array(record["sampled_errors"]) + shift).tolist()
    moved = {name: record["space"][name] + shift for name in ("expected", "top_tier", "et_error")}
    record |= {"space": record["space"] | moved, "sampled_errors": errors}
    on_judge = {name: value + 1 for name, value in moved.items()}
    theirs = record["space"] | on_judge | {"sampled_errors": [error + 1 for error in errors]}
    write_json(path, record | {"judged": theirs if judged else None})
