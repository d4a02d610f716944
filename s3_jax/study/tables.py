"""The tables of a study: of every arm's spaces over seeds, and the CSV files with every number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from s3_jax.study.claims import Claim
from s3_jax.study.differences import Compared
from s3_jax.study.records import HOLDOUT, JUDGE, StudiedSpace, Study
from s3_jax.study.statistics import Interval, interval
from s3_jax.writing import as_csv


@dataclasses.dataclass(frozen=True)
class ArmRow:
    """One space of an arm: means over its seeds; E-T Errors with their intervals, by images."""

    arm: str
    name: str
    first: bool
    seeds: int
    et_errors: dict[str, Interval | None]
    mean_params: float
    mean_macs: float
    sizes: tuple[int, int]  # the smallest and the largest number of architectures


def arm_rows(study: Study) -> list[ArmRow]:
    """A row for every arm that has a finished run, and every space."""
    rows = []
    for arm in study.plan.arms:
        for index, same in enumerate(zip(*study.of_arm(arm).values(), strict=True)):
            rows.append(_arm_row(study, arm, index, same))
    return rows


def csv_files(study: Study, differences: Sequence[Compared], claims: Sequence[Claim]) -> dict[str, str]:
    """File name -> content; numbers are exact, and what is not there is empty."""
    return {
        "spaces.csv": as_csv(_space_rows(study)),
        "differences.csv": as_csv(_difference_rows(differences)),
        "differences_by_seed.csv": as_csv(_seed_rows(differences)),
        "claims.csv": as_csv(_claim_rows(claims)),
    }


def _arm_row(study: Study, arm: str, index: int, same: Sequence[StudiedSpace]) -> ArmRow:
    sizes = [space.space.size() for space in same]
    return ArmRow(
        arm=arm,
        name=same[0].name,
        first=index == 0,
        seeds=len(same),
        et_errors={images: interval([space.measures[images].et_error for space in same]) for images in study.images},
        mean_params=float(np.mean([space.mean_params for space in same])),
        mean_macs=float(np.mean([space.mean_macs for space in same])),
        sizes=(min(sizes), max(sizes)),
    )


def space_records(study: Study) -> list[dict[str, Any]]:
    """Every space of every run, as `study.json` has it."""
    return [
        {
            "seed": space.run.seed,
            "arm": space.run.arm,
            "space": space.name,
            "et_error": {images: measure.et_error for images, measure in space.measures.items()},
            "mean_params": space.mean_params,
            "mean_macs": space.mean_macs,
            "size": space.space.size(),
            "test_inherited": space.inherited,
            "test_retrained": space.retrained,
        }
        for spaces in study.spaces.values()
        for space in spaces
    ]


def _space_rows(study: Study) -> list[list[Any]]:
    kinds = (HOLDOUT, JUDGE)
    kept = ["mean_params", "mean_macs", "size", "test_inherited", "test_retrained"]
    rows: list[list[Any]] = [["seed", "arm", "space", *(f"et_error_{kind}" for kind in kinds), *kept]]
    for record in space_records(study):
        errors = [record["et_error"].get(kind) for kind in kinds]
        rows.append([record["seed"], record["arm"], record["space"], *errors, *(record[name] for name in kept)])
    return rows


def _difference_rows(differences: Sequence[Compared]) -> list[list[Any]]:
    rows: list[list[Any]] = [["arm", "less", "images", "cost", "seeds", "mean", "low", "high"]]
    return rows + [[*_compared(each), len(each.values), *_ends(each.interval)] for each in differences]


def _seed_rows(differences: Sequence[Compared]) -> list[list[Any]]:
    rows: list[list[Any]] = [["arm", "less", "images", "cost", "seed", "difference"]]
    return rows + [[*_compared(each), *pair] for each in differences for pair in each.values.items()]


def _claim_rows(claims: Sequence[Claim]) -> list[list[Any]]:
    rows: list[list[Any]] = [["claim", "quantity", "seeds", "mean", "low", "high", "verdict"]]
    return rows + [[each.text, each.quantity, len(each.values), *_ends(each.interval), each.verdict] for each in claims]


def _compared(each: Compared) -> list[str]:
    return [each.arm, each.less or "first space", each.images, each.cost]


def _ends(found: Interval | None) -> list[float | None]:
    return [found.mean, found.low, found.high] if found else [None] * 3
