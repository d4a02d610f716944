"""What the rule of Eq. 8 would have done under other settings, and how far one training's decisions are another's.

A run's sampled architectures are measured anew with another tau, rounding, top_k or number of samples. With several
trainings of a space (`evolution.trainings`) each of them decides by itself, and halves of them by their mean slopes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from rich.table import Table

from s3_jax.config import ModelConfig
from s3_jax.cost import Evaluated
from s3_jax.errors import S3Error
from s3_jax.et_error import DimensionMeasure, measure_space
from s3_jax.evolution import ROUNDINGS, EvolutionConfig, whole_steps
from s3_jax.mapping import from_record
from s3_jax.paths import AnyPath
from s3_jax.report import text
from s3_jax.report.records import RunRecord, SpaceRecord, read_run
from s3_jax.slopes import abscissa, fit_line, groups
from s3_jax.space import map_sizes
from s3_jax.writing import as_csv

_TAUS = (0.5, 1.0, 2.0, 4.0)  # times the run's own
_SAMPLES = (0.25, 0.5, 1.0)  # of the run's own
_TOP_SHARES = (0.02, 0.1, 0.3, 1.0)  # of the samples; 1: the mean of all


@dataclasses.dataclass(frozen=True)
class Decisions:
    """What groups of trainings decide under one setting, as means over the groups, or over pairs without a common one.

    moved: dimensions. steps: sum over dimensions, up or down. agreed: of the dimensions that either of a pair moves the
    share that both move the same way; None where there is no pair, or none moves any. chance: the same where the
    decisions of one of the pair are shuffled over the dimensions.
    """

    moved: float
    steps: float
    agreed: float | None
    chance: float | None


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting: what single trainings decide, and halves of all; None where there are fewer than 4 trainings."""

    setting: str
    single: Decisions
    halves: Decisions | None


def sensitivity(workdir: AnyPath, name: str = "A") -> list[Row]:
    """A row for the run's own settings, and one for each other, of one of its spaces (A, B, C ...).

    Raises S3Error where there is no such space, or its sampled architectures are not known.
    """
    run = read_run(workdir)
    space = _space(run, name)
    own = from_record(EvolutionConfig, dict(run.config.get("evolution", {})), "config.evolution")
    model = from_record(ModelConfig, dict(run.config.get("model", {})), "config.model", "image_size", "patch_size")
    sides = map_sizes(model.image_size, model.patch_size, len(space.space.stages))
    rows = []
    for setting, config, share in _settings(own):
        slopes = _slopes(space, config, sides, max(1, round(share * _count(space))))
        if slopes is None:
            continue  # some choice is in no sample of so few
        halves = decisions(slopes, len(slopes) // 2, config) if len(slopes) > 3 else None
        rows.append(Row(setting, decisions(slopes, 1, config), halves))
    return rows


def decisions(slopes: np.ndarray, size: int, config: EvolutionConfig) -> Decisions:
    """Of slopes (R, D), one row for each training, what groups of `size` trainings decide by their means."""
    chosen = groups(len(slopes), size)
    steps = [_steps(slopes[list(group)].mean(axis=0), config) for group in chosen]
    rests = [sorted({*range(len(slopes))} - {*group}) for group in chosen]
    pairs = [
        (own, _steps(slopes[list(other)].mean(axis=0), config))
        for own, rest in zip(steps, rests, strict=True)
        for other in itertools.islice(itertools.combinations(rest, size), len(slopes))
    ]
    rng = np.random.default_rng(0)
    return Decisions(
        float(np.mean([np.count_nonzero(each) for each in steps])),
        float(np.mean([np.abs(each).sum() for each in steps])),
        _mean([_agreed(one, other) for one, other in pairs]),
        _mean([_agreed(one, rng.permutation(other)) for one, other in pairs]),
    )


def sensitivity_table(rows: Sequence[Row], name: str) -> Table:
    """The rows for the screen."""
    caption = (
        "agreed: of the dimensions that one of two trainings (or halves) moves the share that both move the same way; "
        "chance: with the dimensions of one shuffled"
    )
    table = Table(title=f"What the rule does in space {name}", caption=caption)
    table.add_column("Setting")
    for heading in ("moved", "agreed", "chance", "halves: moved", "agreed", "chance"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.setting, *_cells(row.single), *_cells(row.halves))
    return table


def sensitivity_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV."""
    names = [field.name for field in dataclasses.fields(Decisions)]
    headings = ["setting", *names, *(f"{name}_halves" for name in names)]
    none = (None,) * len(names)
    values = [
        [row.setting, *dataclasses.astuple(row.single), *(dataclasses.astuple(row.halves) if row.halves else none)]
        for row in rows
    ]
    return as_csv([headings, *values])


def _settings(own: EvolutionConfig) -> list[tuple[str, EvolutionConfig, float]]:
    """The run's own first; each other differs from it in one setting. With each the share of its samples."""
    found = [(f"own: tau {own.tau:g}, {own.rounding}, N {own.num_samples}, top {own.top_k}", own, 1.0)]
    found += [(f"tau {times * own.tau:g}", dataclasses.replace(own, tau=times * own.tau), 1.0) for times in _TAUS]
    found += [(f"rounding {name}", dataclasses.replace(own, rounding=name), 1.0) for name in ROUNDINGS]
    for share in _SAMPLES:
        top_k = max(1, round(share * own.top_k))
        found.append((f"N {round(share * own.num_samples)}, top {top_k}", dataclasses.replace(own, top_k=top_k), share))
    tops = sorted({max(1, round(share * own.num_samples)) for share in _TOP_SHARES})
    found += [(f"top {top_k}", dataclasses.replace(own, top_k=top_k), 1.0) for top_k in tops]
    different: dict[tuple[EvolutionConfig, float], str] = {}
    for title, config, share in found:
        different.setdefault((config, share), title)
    return [(title, config, share) for (config, share), title in different.items()]


def _space(run: RunRecord, name: str) -> SpaceRecord:
    known = {space.name: space for space in run.spaces if space.errors}
    if name not in known:
        raise S3Error(f"--space={name}: the spaces that this run has measured are {', '.join(known) or 'none'}")
    if not known[name].sampled:
        raise S3Error(f"space {name}: its evaluated.jsonl does not have every sampled architecture")
    return known[name]


def _count(space: SpaceRecord) -> int:
    """The samples of one training."""
    assert space.errors is not None
    return len(space.sampled) // space.errors.num_trainings


def _slopes(space: SpaceRecord, config: EvolutionConfig, sides: Sequence[int], first: int) -> np.ndarray | None:
    """The slopes (R, D) of the first samples of every training; None where a choice is in none of them."""
    assert space.errors is not None
    merged, count = space.space.clamped(sides), _count(space)
    samples = [
        Evaluated(architecture.clamped(sides), cost, error)
        for architecture, cost, error in zip(
            space.sampled, space.errors.sampled_costs, space.errors.sampled_errors, strict=True
        )
    ]
    try:
        measures = [
            measure_space(merged, samples[start : start + first], top_k=config.top_k)
            for start in range(0, len(samples), count)
        ]
    except S3Error:
        return None
    return np.array([[_slope(one, config) for one in each.dimensions if len(one.choices) > 1] for each in measures])


def _slope(dimension: DimensionMeasure, config: EvolutionConfig) -> float:
    x = abscissa(dimension.choices, config.slope_unit, config.step(dimension.dimension))
    return float(fit_line(x, np.array(dimension.et_errors))[0])


def _steps(slopes: np.ndarray, config: EvolutionConfig) -> np.ndarray:
    return np.array([whole_steps(float(slope), config) for slope in slopes])


def _agreed(one: np.ndarray, other: np.ndarray) -> float | None:
    moved = int(((one != 0) | (other != 0)).sum())
    return float((one * other > 0).sum() / moved) if moved else None


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else None


def _cells(decided: Decisions | None) -> tuple[str, str, str]:
    if decided is None:
        return (text.ABSENT,) * 3
    return f"{decided.moved:.1f}", text.percent(decided.agreed), text.percent(decided.chance)
