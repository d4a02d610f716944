"""One iteration of Algorithm 1: measure a space, fit slopes to its choices (Eq. 7), and move the choices (Eq. 8).

`S_i' = { v - floor(w / tau) * gamma_i : v in S_i }` are the next choices of a dimension whose slope is w. A positive
slope says that larger choices err more, so they move down. Other arms than the paper's are in `arms`.
"""

from __future__ import annotations

import dataclasses
import decimal
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from s3_jax.arms import AFTER_MEASURED, ARMS, Context, MeasuredStep, Steps
from s3_jax.cost import Budget, Evaluated
from s3_jax.errors import S3Error
from s3_jax.et_error import DimensionMeasure, SpaceMeasure, measure_space, resample
from s3_jax.limits import (
    Count,
    Limit,
    NotNegative,
    Positive,
    SettingError,
    check_fields,
    number,
    one_of,
    require,
    whole,
)
from s3_jax.slopes import SLOPE_UNITS, Slope, fit_slopes, mean_measure
from s3_jax.space import HEAD_DIM, Choice, SearchSpace

ROUNDINGS = ("floor", "toward_zero")
NOISE_STANDARD_ERRORS = 2.0  # a slope no further from zero than this many standard errors is called noise

Step = Annotated[int, whole(1, 10_000)]  # of a dimension of whole numbers
_WHOLE_HEADS = Limit(
    f"a multiple of the head dimension {HEAD_DIM}, or Q-K-V widths would lose their whole heads",
    lambda step: step % HEAD_DIM == 0,
)

# Sums of floats leave dirt in the last digits. Errors are counts of images, so what is smaller than this is dirt;
# without rounding, a slope of -1e-17 instead of 0 would grow a space by a whole step.
_STEP_DECIMALS = 9


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
    # R supernets of every space, each from a seed of its own; E-T Errors and slopes are means over them. The paper
    # trains one. The first is the one that is searched; the others are trained for a share of its epochs.
    trainings: Annotated[int, whole(1, 1000)] = 1
    training_share: Annotated[float, number(0, 1, above=True)] = 1.0
    min_z: NotNegative = 0.0  # a dimension moves only where |w| is above so many standard errors; 0: always, as printed
    arm: Annotated[str, one_of(*ARMS)] = "measured"  # how choices move: by Eq. 8, or as one of the controls
    # The folder of the run of the same seed by the arm measured, which random and prune go by; "" for other arms.
    measured_run: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "evolution")
        if bool(self.measured_run) != (self.arm in AFTER_MEASURED):
            raise SettingError("evolution", f"measured_run = {self.measured_run!r}: {_measured_run(self.arm)}")
        judged = Limit("2 or more, as min_z compares slopes with their standard errors", lambda count: count > 1)
        if self.min_z:
            require("evolution", "num_bootstrap", self.num_bootstrap, judged)

    def step(self, dimension: str) -> Choice:
        """The step gamma of a dimension, in the dimension's own unit."""
        return getattr(self, f"step_{dimension}")


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
            "sampling_standard_error": self.slope and self.slope.sampling_standard_error,
            "training_standard_error": self.slope and self.slope.training_standard_error,
            "steps": self.steps,
            "next_choices": list(self.next_choices),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], *, top_k: int) -> DimensionEvolution:
        """What `to_json` wrote in a space of this top_k; it has no lines of single trainings.

        Raises S3Error where the record is not one.
        """
        measure = DimensionMeasure.from_json(record, top_k=top_k)
        try:
            whole, sampling, training = (
                record.get(f"{part}_standard_error") for part in ("slope", "sampling", "training")
            )
            slope = None
            if record["slope"] is not None:
                line = float(record["slope"]), float(record["intercept"])
                slope = Slope(*line, whole, sampling, training, trainings=())
            return cls(measure, slope, record["steps"], tuple(record["next_choices"]))
        except (KeyError, TypeError, ValueError) as error:
            raise S3Error(f"not a record of a dimension's evolution: {error!r}") from error

    @property
    def is_noise(self) -> bool:
        """Whether the slope lies within 2 standard errors of zero; a slope without standard error is not judged."""
        if self.slope is None or self.slope.standard_error is None:
            return False
        return abs(self.slope.slope) <= NOISE_STANDARD_ERRORS * self.slope.standard_error


@dataclasses.dataclass(frozen=True)
class Evolution:
    """The evolved space, and how it came about: the arm, the measured space, its dimensions, and a note on every edge.

    measure is the mean over the trainings, of which `trainings` has one each.
    """

    space: SearchSpace
    arm: str
    measure: SpaceMeasure
    trainings: tuple[SpaceMeasure, ...]
    dimensions: tuple[DimensionEvolution, ...]
    notes: tuple[str, ...]

    def within(self, space: SearchSpace, why: str) -> Evolution:
        """The same with a next space that lacks some of the choices, and a note on each of them that says why."""
        dimensions, notes = [], []
        for dimension in self.dimensions:
            stage, name = dimension.measure.stage, dimension.measure.dimension
            kept = space.stages[stage].choices(name)
            if lacking := [choice for choice in dimension.next_choices if choice not in kept]:
                notes.append(f"stage {stage + 1} {name}: {_listed(lacking)} left out of the next space: {why}")
            dimensions.append(dataclasses.replace(dimension, next_choices=kept))
        return dataclasses.replace(self, space=space, dimensions=tuple(dimensions), notes=(*self.notes, *notes))

    def to_json(self) -> dict[str, Any]:
        """The content of `et_error.json`."""
        return self.measure.to_json() | {
            "arm": self.arm,
            "dimensions": [dimension.to_json() for dimension in self.dimensions],
            "trainings": [self._training(number) for number in range(len(self.trainings))],
            "notes": list(self.notes),
        }

    def _training(self, number: int) -> dict[str, Any]:
        """One training's E-T Error, and its slope in every dimension; the samples of all are in this order."""
        lines = [dimension.slope and dimension.slope.trainings[number] for dimension in self.dimensions]
        return {
            "space": self.trainings[number].space.to_json(),
            "slopes": [line and line.slope for line in lines],
            "slope_standard_errors": [line and line.standard_error for line in lines],
        }


def evolve(
    space: SearchSpace,
    evaluated: Sequence[Evaluated],
    config: EvolutionConfig = EvolutionConfig(),
    *,
    map_sizes: Sequence[int],
    seed: int | Sequence[int],
    further: Sequence[Sequence[Evaluated]] = (),
    measured: MeasuredStep | None = None,
    rng: np.random.Generator | None = None,
    fits: Callable[[SearchSpace], bool] = lambda space: True,
    record_only: bool = False,
) -> Evolution:
    """One iteration of Algorithm 1: measure the space by its evaluated samples, fit the slopes, move the choices.

    map_sizes: side of each stage's token map. Windows of the space and of the samples that reach over it are merged.
    seed: of the bootstrap. further: the samples of every training after the first. measured, rng, fits: what arms go by
    that do not follow the slopes, see `arms.Context`; without rng, draws are of the seed. record_only: do not refuse a
    next space over max_space_size, as it will not be built.
    Raises S3Error as `measure_space` does, and for a next space over max_space_size.
    """
    if len(map_sizes) != len(space.stages):
        raise S3Error(f"{len(map_sizes)} map sizes for {len(space.stages)} stages; give the side of every stage's map")
    merged, merge_notes = merge_windows(space, map_sizes)
    trainings = [_clamped(samples, map_sizes) for samples in (evaluated, *further)]
    measures, slopes, slope_notes = _measure(merged, trainings, config, seed)
    mean = mean_measure(measures)
    steps, held_back = rule_steps(mean.dimensions, slopes, config)
    context = Context(steps, config.step, rng or np.random.default_rng(seed), measured, fits)
    moved = ARMS[config.arm](merged, context)
    evolved, evolved_notes = merge_windows(moved.space, map_sizes)
    notes = [*merge_notes, *mean.notes, *slope_notes, *held_back, *moved.notes, *evolved_notes]
    if record_only and evolved.size() > config.max_space_size:
        notes.append(_too_large(evolved, config.max_space_size))
    elif not record_only:
        check_size(evolved, config.max_space_size)
    dimensions = tuple(
        DimensionEvolution(dimension, slope, count, evolved.stages[dimension.stage].choices(dimension.dimension))
        for dimension, slope, count in zip(mean.dimensions, slopes, moved.steps, strict=True)
    )
    return Evolution(evolved, config.arm, mean, tuple(measures), dimensions, tuple(notes))


def rule_steps(
    dimensions: Sequence[DimensionMeasure], slopes: Sequence[Slope | None], config: EvolutionConfig
) -> tuple[Steps, list[str]]:
    """The steps of every dimension by Eq. 8 (None where it has no slope), and a note on those that min_z holds back."""
    steps: list[int | None] = []
    held_back = []
    for dimension, slope in zip(dimensions, slopes, strict=True):
        count = None if slope is None else whole_steps(slope.slope, config)
        if slope and count and config.min_z and not _stands_out(slope, config.min_z):
            held_back.append(f"{dimension.name} (slope {slope.slope:+.2f}, standard error {_in_words(slope)})")
            count = 0
        steps.append(count)
    if not held_back:
        return tuple(steps), []
    return tuple(steps), [
        f"within evolution.min_z = {config.min_z:g} standard errors of zero, so held back: {', '.join(held_back)}"
    ]


def whole_steps(slope: float, config: EvolutionConfig) -> int:
    """The number of steps gamma that choices move down (up, if negative): floor(w / tau) as printed in Eq. 8."""
    ratio = round(slope / config.tau, _STEP_DECIMALS)
    return math.floor(ratio) if config.rounding == "floor" else math.trunc(ratio)


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


def _measure(
    space: SearchSpace, trainings: Sequence[Sequence[Evaluated]], config: EvolutionConfig, seed: int | Sequence[int]
) -> tuple[list[SpaceMeasure], tuple[Slope | None, ...], tuple[str, ...]]:
    """The measure of every training, and the slopes over all of them with notes; each is resampled by its own seed."""
    limits: dict[str, Any] = {"top_k": config.top_k, "budget": config.budget}
    measures = [measure_space(space, samples, **limits) for samples in trainings]
    seeds = [seed, *([*np.atleast_1d(seed).tolist(), number] for number in range(1, len(trainings)))]
    resampled = [
        resample(space, samples, **limits, num_resamples=config.num_bootstrap, seed=each)
        for samples, each in zip(trainings, seeds, strict=True)
    ]
    slopes, notes = fit_slopes(measures, resampled, slope_unit=config.slope_unit, step_of=config.step)
    return measures, slopes, notes


def _measured_run(arm: str) -> str:
    if arm in AFTER_MEASURED:
        return f"arm = {arm!r} goes by a finished run of the same seed by the arm 'measured': expected its folder"
    return f"expected none, as arm = {arm!r} goes by no other run; {' and '.join(AFTER_MEASURED)} do"


def _clamped(samples: Sequence[Evaluated], map_sizes: Sequence[int]) -> list[Evaluated]:
    return [dataclasses.replace(one, architecture=one.architecture.clamped(map_sizes)) for one in samples]


def _stands_out(slope: Slope, min_z: float) -> bool:
    return slope.standard_error is not None and abs(slope.slope) > min_z * slope.standard_error


def _in_words(slope: Slope) -> str:
    return "unknown" if slope.standard_error is None else f"{slope.standard_error:.2f}"


def _too_large(space: SearchSpace, max_space_size: float) -> str:
    return (
        f"the space has {decimal.Decimal(space.size()):.3g} architectures, over evolution.max_space_size = "
        f"{max_space_size:.3g}; raise it, or raise evolution.tau so that choices move by fewer steps"
    )


def _listed(choices: Sequence[Choice]) -> str:
    return ", ".join(map(str, choices))
