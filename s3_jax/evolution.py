"""The rule that evolves a search space: the slope of the E-T Error over a dimension's choices moves them (Eq. 7, 8).

A line y = w x + b is fitted to the E-T Errors y of the choices; `S_i' = { v - floor(w / tau) * gamma_i : v in S_i }`
are the next choices. A positive slope w says that larger choices err more, so they move down.
"""

from __future__ import annotations

import dataclasses
import decimal
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from s3_jax.cost import Budget, Evaluated
from s3_jax.errors import S3Error
from s3_jax.et_error import DimensionMeasure, SpaceMeasure, measure_space, resample
from s3_jax.limits import Count, Limit, Positive, check_fields, number, one_of, whole
from s3_jax.space import HEAD_DIM, Choice, SearchSpace, StageSpace

SLOPE_UNITS = ("index", "step", "raw")
ROUNDINGS = ("floor", "toward_zero")

Step = Annotated[int, whole(1, 10_000)]  # of a dimension of whole numbers
_WHOLE_HEADS = Limit(
    f"a multiple of the head dimension {HEAD_DIM}, or Q-K-V widths would lose their whole heads",
    lambda step: step % HEAD_DIM == 0,
)

# Sums of floats leave dirt in the last digits. Errors are counts of images and choices have a few decimals, so what is
# smaller than this is dirt; without rounding, a slope of -1e-17 instead of 0 would grow a space by a whole step.
_STEP_DECIMALS = 9
_CHOICE_DECIMALS = 6


@dataclasses.dataclass(frozen=True)
class EvolutionConfig:
    """How spaces are measured and evolved (Eq. 5, 7, 8; Algorithm 1). Raises S3Error for a setting that cannot be."""

    num_spaces: Annotated[int, whole(1, 1000)] = 3  # spaces A, B, C: num_spaces - 1 evolutions
    num_samples: Count = 1000  # N sampled architectures
    top_k: Count = 50  # architectures in the top-tier error Q_t
    budget: Budget = Budget()  # g(a) < c in Eq. 5; the paper gives no value
    num_bootstrap: Annotated[int, whole(0, 100_000)] = 200  # resamplings for a slope's standard error; 0: none
    slope_unit: Annotated[str, one_of(*SLOPE_UNITS)] = "index"  # x in Eq. 7; the paper does not say
    rounding: Annotated[str, one_of(*ROUNDINGS)] = "floor"  # in Eq. 8: floor is as printed
    tau: Positive = 0.4  # error percentage points per unit of x
    step_depth: Step = 1  # gamma
    step_embed_dim: Step = 64
    step_window: Step = 7
    step_mlp_ratio: Annotated[float, number(0, 1000, above=True)] = 0.5
    step_qkv_dim: Annotated[Step, _WHOLE_HEADS] = 64
    max_space_size: Positive = 1e60  # M in Eq. 2, architectures; the paper does not say
    init_from_previous: bool = False  # start a space's supernet from the overlapping weights of the one before

    def __post_init__(self) -> None:
        check_fields(self, "evolution")

    def step(self, dimension: str) -> Choice:
        """The step gamma of a dimension, in the dimension's own unit."""
        return getattr(self, f"step_{dimension}")


@dataclasses.dataclass(frozen=True)
class Slope:
    """The line y = slope * x + intercept (Eq. 7), and the slope's bootstrap standard error (None if not estimated).

    Slope and standard error are in percentage points of error per unit of x, the intercept in percent.
    """

    slope: float
    intercept: float
    standard_error: float | None


@dataclasses.dataclass(frozen=True)
class DimensionEvolution:
    """What became of one dimension of one stage; slope and steps are None where it has one choice."""

    measure: DimensionMeasure
    slope: Slope | None
    steps: int | None
    next_choices: tuple[Choice, ...]

    def to_json(self) -> dict[str, Any]:
        """An entry of `dimensions` in `et_error.json`."""
        return self.measure.to_json() | {
            "slope": self.slope and self.slope.slope,
            "intercept": self.slope and self.slope.intercept,
            "slope_standard_error": self.slope and self.slope.standard_error,
            "steps": self.steps,
            "next_choices": list(self.next_choices),
        }


@dataclasses.dataclass(frozen=True)
class Evolution:
    """The evolved space, and how it came about: the measured space, every dimension, a note on every edge case."""

    space: SearchSpace
    measure: SpaceMeasure
    dimensions: tuple[DimensionEvolution, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of `et_error.json`."""
        return {
            "space": self.measure.space.to_json(),
            "sampled_errors": list(self.measure.sampled_errors),
            "dimensions": [dimension.to_json() for dimension in self.dimensions],
            "notes": list(self.notes),
        }


def evolve(
    space: SearchSpace,
    evaluated: Sequence[Evaluated],
    config: EvolutionConfig = EvolutionConfig(),
    *,
    map_sizes: Sequence[int],
    seed: int | Sequence[int],
    record_only: bool = False,
) -> Evolution:
    """One iteration of Algorithm 1: measure the space by its evaluated samples, fit the slopes, move the choices.

    map_sizes: side of each stage's token map. Windows of the space and of the samples that reach over it are merged.
    seed: of the bootstrap. record_only: do not refuse a next space over max_space_size, as it will not be built.
    Raises S3Error as `measure_space` does, and for a next space over max_space_size.
    """
    if len(map_sizes) != len(space.stages):
        raise S3Error(f"{len(map_sizes)} map sizes for {len(space.stages)} stages; give the side of every stage's map")
    merged, merge_notes = merge_windows(space, map_sizes)
    samples = [dataclasses.replace(e, architecture=e.architecture.clamped(map_sizes)) for e in evaluated]
    measured = measure_space(merged, samples, top_k=config.top_k, budget=config.budget)
    resampled = resample(
        merged, samples, top_k=config.top_k, budget=config.budget, num_resamples=config.num_bootstrap, seed=seed
    )
    slopes, slope_notes = fit_slopes(measured, resampled, config)
    steps = [None if slope is None else whole_steps(slope.slope, config) for slope in slopes]
    moved, move_notes = _move_space(measured, steps, config)
    evolved, evolved_notes = merge_windows(moved, map_sizes)
    notes = [*merge_notes, *measured.notes, *slope_notes, *move_notes, *evolved_notes]
    if record_only and evolved.size() > config.max_space_size:
        notes.append(_too_large(evolved, config.max_space_size))
    elif not record_only:
        check_size(evolved, config.max_space_size)
    dimensions = tuple(
        DimensionEvolution(dimension, slope, count, evolved.stages[dimension.stage].choices(dimension.dimension))
        for dimension, slope, count in zip(measured.dimensions, slopes, steps, strict=True)
    )
    return Evolution(evolved, measured, dimensions, tuple(notes))


def fit_slopes(
    measured: SpaceMeasure, resampled: Mapping[tuple[int, str], np.ndarray], config: EvolutionConfig
) -> tuple[tuple[Slope | None, ...], tuple[str, ...]]:
    """The slope of every dimension in `measured` (None where it has one choice), and notes.

    resampled: E-T Errors (R, V) of every (stage, dimension) as `resample` gives. The standard error is the standard
    deviation of the slope over the R resamples; those in which a choice is missing are left out.
    """
    slopes: list[Slope | None] = []
    notes = []
    for dimension in measured.dimensions:
        if len(dimension.choices) == 1:
            slopes.append(None)
            notes.append(f"{dimension.name}: {dimension.choices[0]} is the only choice, so there is no slope; it stays")
            continue
        x = abscissa(dimension.choices, config.slope_unit, config.step(dimension.dimension))
        slope, intercept = fit_line(x, np.array(dimension.et_errors))
        standard_error, left_out = _standard_error(x, resampled[dimension.stage, dimension.dimension])
        slopes.append(Slope(float(slope), float(intercept), standard_error))
        if left_out:
            notes.append(
                f"{dimension.name}: {left_out} of {config.num_bootstrap} resamples lack a choice and are left out"
            )
    return tuple(slopes), tuple(notes)


def abscissa(choices: Sequence[Choice], slope_unit: str, step: Choice) -> np.ndarray:
    """The x of Eq. 7 (V,): the choices' places 0, 1, 2, ... ("index"), v / gamma ("step"), or v itself ("raw")."""
    if slope_unit == "index":
        return np.arange(len(choices), dtype=np.float64)
    values = np.array(choices, dtype=np.float64)
    return values / step if slope_unit == "step" else values


def fit_line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares slope (...,) and intercept (...,) of y (..., V) over x (V,), V > 1 (Eq. 7)."""
    centred = x - x.mean()
    slope = (y * centred).sum(axis=-1) / (centred**2).sum()
    return slope, y.mean(axis=-1) - slope * x.mean()


def whole_steps(slope: float, config: EvolutionConfig) -> int:
    """The number of steps gamma that choices move down (up, if negative): floor(w / tau) as printed in Eq. 8."""
    ratio = round(slope / config.tau, _STEP_DECIMALS)
    return math.floor(ratio) if config.rounding == "floor" else math.trunc(ratio)


def move(choices: Sequence[Choice], steps: int, step: Choice) -> tuple[tuple[Choice, ...], tuple[Choice, ...]]:
    """The choices v - steps * gamma that are above 0, and those that are not and are dropped (Eq. 8).

    If all would be dropped, the smallest valid value is returned: the smallest value above 0 that whole steps reach
    from the choices. It is where the last choice would be if it had moved down only as far as it can, so a steeper
    slope never leaves larger choices than a gentler one.
    """
    moved = [round(choice - steps * step, _CHOICE_DECIMALS) for choice in choices]
    kept = tuple(choice for choice in moved if choice > 0)
    dropped = tuple(choice for choice in moved if choice <= 0)
    return kept or (_smallest_valid(choices, step),), dropped


def merge_windows(space: SearchSpace, map_sizes: Sequence[int]) -> tuple[SearchSpace, list[str]]:
    """The space with windows no larger than their stage's map, and a note on each stage in which that changed one."""
    merged = space.clamped(map_sizes)
    notes = []
    for index, (before, after, side) in enumerate(zip(space.stages, merged.stages, map_sizes, strict=True)):
        over = [window for window in before.window if window > side]
        if over:
            notes.append(
                f"stage {index + 1} window: {_listed(over)} over the map of side {side} act as {side}, "
                f"merged to {_listed(after.window)}"
            )
    return merged, notes


def space_name(index: int) -> str:
    """What the space of this number is called: A, B, C, ... as in the paper."""
    return chr(ord("A") + index) if index < 26 else str(index)


def check_size(space: SearchSpace, max_space_size: float) -> None:
    """Raises S3Error if the space has more than `max_space_size` architectures (|A| <= M, Eq. 2)."""
    if space.size() > max_space_size:
        raise S3Error(_too_large(space, max_space_size))


def _smallest_valid(choices: Sequence[Choice], step: Choice) -> Choice:
    return min(round(choice % step, _CHOICE_DECIMALS) or step for choice in choices)


def _move_space(
    measured: SpaceMeasure, steps: Sequence[int | None], config: EvolutionConfig
) -> tuple[SearchSpace, list[str]]:
    stages: list[dict[str, Any]] = [{} for _ in range(1 + max(d.stage for d in measured.dimensions))]
    notes = []
    for dimension, count in zip(measured.dimensions, steps, strict=True):
        choices = dimension.choices
        if count is not None:
            choices, dropped = move(choices, count, config.step(dimension.dimension))
            notes += _note_dropped(dimension, choices, dropped)
        stages[dimension.stage][dimension.dimension] = choices
    return SearchSpace(tuple(StageSpace(**stage) for stage in stages)), notes


def _standard_error(x: np.ndarray, resampled: np.ndarray) -> tuple[float | None, int]:
    """Standard error of the slope from E-T Errors (R, V), and how many of the R were left out for a missing choice."""
    complete = resampled[np.isfinite(resampled).all(axis=1)]
    left_out = len(resampled) - len(complete)
    if len(complete) < 2:
        return None, left_out
    return float(fit_line(x, complete)[0].std(ddof=1)), left_out


def _note_dropped(dimension: DimensionMeasure, choices: Sequence[Choice], dropped: Sequence[Choice]) -> list[str]:
    if not dropped:
        return []
    if len(dropped) == len(dimension.choices):
        return [
            f"{dimension.name}: all of {_listed(dropped)} would be dropped; the smallest valid value {choices[0]} stays"
        ]
    return [f"{dimension.name}: {_listed(dropped)} dropped, not above 0"]


def _too_large(space: SearchSpace, max_space_size: float) -> str:
    return (
        f"the space has {decimal.Decimal(space.size()):.3g} architectures, over evolution.max_space_size = "
        f"{max_space_size:.3g}; raise it, or raise evolution.tau so that choices move by fewer steps"
    )


def _listed(choices: Sequence[Choice]) -> str:
    return ", ".join(map(str, choices))
