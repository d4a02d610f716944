"""The slope of the E-T Error over a dimension's choices (Eq. 7), and its standard error over samples and trainings.

A line y = w x + b is fitted to the E-T Errors y of the choices. The error of w has two parts, which a random-effects
model tells apart. Training r gives the slope w_r, of which the bootstrap over its sampled architectures tells the
variance s_r^2. Slopes of several trainings differ by more than that: by a variance sigma^2 between trainings, taken to
be the same in all dimensions of a space. The mean of R slopes has the variance (sigma^2 + mean of s_r^2) / R.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from s3_jax.et_error import DimensionMeasure, ETError, SpaceMeasure
from s3_jax.space import Choice

SLOPE_UNITS = ("index", "step", "raw")
_MAX_GROUPS = 1000  # of trainings that are looked at

# E-T Errors (B, V) of the V choices of every (stage, dimension), as `et_error.resample` gives them.
Resampled = Mapping[tuple[int, str], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Line:
    """The slope that one training gives, and its bootstrap standard error (None if not estimated)."""

    slope: float
    standard_error: float | None


@dataclasses.dataclass(frozen=True)
class Slope:
    """The line y = slope * x + intercept (Eq. 7), a mean over trainings, with its standard error in two parts.

    Slope and standard errors are in percentage points of error per unit of x, the intercept in percent. What is not
    estimated is None. Of one training there is no training part, and the sampling part is the whole.
    """

    slope: float
    intercept: float
    standard_error: float | None
    sampling_standard_error: float | None
    training_standard_error: float | None
    trainings: tuple[Line, ...]


def fit_slopes(
    measures: Sequence[SpaceMeasure],
    resampled: Sequence[Resampled],
    *,
    slope_unit: str,
    step_of: Callable[[str], Choice],
) -> tuple[tuple[Slope | None, ...], tuple[str, ...]]:
    """The slope of every dimension of one space (None where it has one choice) over its trainings, and notes.

    measures, resampled: one of each training. A training's standard error is the standard deviation of its slope over
    the resamples; those in which a choice is missing are left out. step_of: the step gamma of a dimension.
    """
    each_dimension = list(zip(*(measure.dimensions for measure in measures), strict=True))
    fits = [_fit(dimensions, resampled, slope_unit, step_of) for dimensions in each_dimension]
    between = variance_between([fit.alike for fit in fits if fit])
    notes = [_note_only_choice(dimensions[0]) for dimensions, fit in zip(each_dimension, fits, strict=True) if not fit]
    slopes = tuple(None if fit is None else _slope(fit, between) for fit in fits)
    found = agreement([fit.alike for fit in fits if fit])
    return slopes, (*notes, *_notes_on_errors(fits, len(measures)), *([found.in_words()] if found else []))


def mean_measure(measures: Sequence[SpaceMeasure]) -> SpaceMeasure:
    """The mean over several trainings of one space: of its E-T Error and of every choice's; samples and notes of all.

    The numbers of samples are summed up, and top_k is the smallest.
    """
    if len(measures) == 1:
        return measures[0]
    dimensions = tuple(
        dataclasses.replace(
            same[0], measures=tuple(map(_mean_over_trainings, zip(*(d.measures for d in same), strict=True)))
        )
        for same in zip(*(measure.dimensions for measure in measures), strict=True)
    )
    samples = tuple(itertools.chain.from_iterable(measure.samples for measure in measures))
    notes = [f"training {number}: {note}" for number, measure in enumerate(measures, 1) for note in measure.notes]
    return SpaceMeasure(_mean_over_trainings([one.space for one in measures]), dimensions, samples, tuple(notes))


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


def variance_between(lines: Sequence[Sequence[Line]]) -> float | None:
    """The variance between trainings sigma^2 from the lines (D, R) of D dimensions in one unit; None where R < 2.

    The mean over dimensions of [sample variance over r of w_r - mean over r of s_r^2], or 0 where that is negative.
    Dimensions without standard errors are left out; None where that leaves none.
    """
    known = [line for line in lines if all(one.standard_error is not None for one in line)]
    if not known or len(known[0]) < 2:
        return None
    slopes = np.array([[one.slope for one in line] for line in known])
    errors = np.array([[one.standard_error for one in line] for line in known], dtype=np.float64)
    return max(0.0, float((slopes.var(axis=1, ddof=1) - (errors**2).mean(axis=1)).mean()))


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far the slopes of two halves of a space's trainings agree, a mean over ways to halve them.

    same_sign: in how many dimensions the halves have slopes of the same sign.
    """

    trainings_of_half: int
    correlation: float
    same_sign: float
    num_dimensions: int

    def in_words(self) -> str:
        """A note for the reader."""
        half = self.trainings_of_half
        return (
            f"slopes of {half} trainings and of {half} others correlate by {self.correlation:.2f}, and have the same "
            f"sign in {self.same_sign:.1f} of {self.num_dimensions} dimensions (mean over ways to halve the trainings)"
        )


def agreement(lines: Sequence[Sequence[Line]]) -> Agreement | None:
    """Of lines (D, R) in one unit; None for fewer than 4 trainings or 3 dimensions, or where slopes are all alike."""
    slopes = np.array([[one.slope for one in line] for line in lines])
    if len(slopes) < 3 or slopes.shape[1] < 4:
        return None
    pairs = [(slopes[:, one].mean(axis=1), slopes[:, other].mean(axis=1)) for one, other in halves(slopes.shape[1])]
    if any(side.std() == 0 for pair in pairs for side in pair):
        return None
    return Agreement(slopes.shape[1] // 2, *agreement_of(pairs), len(slopes))


def halves(count: int) -> list[tuple[list[int], list[int]]]:
    """Ways to halve so many trainings; of an odd number another one is left out from way to way."""
    half = count // 2
    ways = []
    for number, one in enumerate(groups(count, half)):
        rest = [each for each in range(count) if each not in one]
        if len(rest) > half:
            rest.pop(number % len(rest))
        ways.append((list(one), rest))
    return ways


def groups(count: int, size: int) -> list[tuple[int, ...]]:
    """Groups of so many of the numbers below `count`: all that there are, or `_MAX_GROUPS` drawn at random of more."""
    if math.comb(count, size) <= _MAX_GROUPS:
        return list(itertools.combinations(range(count), size))
    rng = np.random.default_rng(0)
    return [tuple(rng.permutation(count)[:size].tolist()) for _ in range(_MAX_GROUPS)]


def agreement_of(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Of pairs of slopes (D,): their mean correlation, and the mean number of dimensions with the same sign."""
    correlation = float(np.mean([np.corrcoef(first, second)[0, 1] for first, second in pairs]))
    return correlation, float(np.mean([(np.sign(first) == np.sign(second)).sum() for first, second in pairs]))


@dataclasses.dataclass(frozen=True)
class _Fit:
    """What is fitted to one dimension: the line of the mean over trainings, and one of each training."""

    measure: DimensionMeasure  # of the first training
    slope: float
    intercept: float
    lines: tuple[Line, ...]
    left_out: int  # resamples that lack a choice
    num_resamples: int
    unit: float  # slopes times this are alike in all dimensions

    @property
    def alike(self) -> list[Line]:
        """The lines with slopes and standard errors in a unit that all dimensions share."""
        unit = self.unit
        return [
            Line(unit * line.slope, None if line.standard_error is None else unit * line.standard_error)
            for line in self.lines
        ]


def _fit(
    dimensions: Sequence[DimensionMeasure],
    resampled: Sequence[Resampled],
    slope_unit: str,
    step_of: Callable[[str], Choice],
) -> _Fit | None:
    first = dimensions[0]
    if len(first.choices) == 1:
        return None
    step = step_of(first.dimension)
    x = abscissa(first.choices, slope_unit, step)
    errors = np.array([dimension.et_errors for dimension in dimensions])
    drawn = [each[first.stage, first.dimension] for each in resampled]
    complete = [each[np.isfinite(each).all(axis=1)] for each in drawn]
    lines = tuple(_line(x, y, kept) for y, kept in zip(errors, complete, strict=True))
    slope, intercept = fit_line(x, errors.mean(axis=0))
    num_resamples = sum(map(len, drawn))
    left_out = num_resamples - sum(map(len, complete))
    # A raw slope of a width and one of a depth differ by orders of magnitude; per step gamma they are alike.
    unit = float(step) if slope_unit == "raw" else 1.0
    return _Fit(first, float(slope), float(intercept), lines, left_out, num_resamples, unit)


def _line(x: np.ndarray, errors: np.ndarray, resampled: np.ndarray) -> Line:
    """The slope of E-T Errors (V,), and its standard deviation over those of resamples (B, V) that are complete."""
    standard_error = float(fit_line(x, resampled)[0].std(ddof=1)) if len(resampled) > 1 else None
    return Line(float(fit_line(x, errors)[0]), standard_error)


def _slope(fit: _Fit, between: float | None) -> Slope:
    count = len(fit.lines)
    known = [line.standard_error for line in fit.lines if line.standard_error is not None]
    sampling = training = whole = None
    if len(known) == count:
        sampling = known[0] if count == 1 else math.sqrt(sum(error**2 for error in known)) / count
    if between is not None:
        training = math.sqrt(between / count) / fit.unit
    if sampling is not None:
        whole = sampling if training is None else math.hypot(sampling, training)
    return Slope(fit.slope, fit.intercept, whole, sampling, training, fit.lines)


def _mean_over_trainings(measures: Sequence[ETError]) -> ETError:
    return ETError(
        float(np.mean([measure.expected for measure in measures])),
        float(np.mean([measure.top_tier for measure in measures])),
        sum(measure.num_samples for measure in measures),
        min(measure.top_k for measure in measures),
    )


def _note_only_choice(dimension: DimensionMeasure) -> str:
    return f"{dimension.name}: {dimension.choices[0]} is the only choice, so there is no slope; it stays"


def _notes_on_errors(fits: Sequence[_Fit | None], num_trainings: int) -> list[str]:
    known = [fit for fit in fits if fit]
    notes = [
        f"{fit.measure.name}: {fit.left_out} of {fit.num_resamples} resamples lack a choice and are left out"
        for fit in known
        if fit.left_out
    ]
    if known and num_trainings == 1:
        notes.append(
            "the slopes are those of one training: how much they differ from training to training is not in their "
            "standard errors (evolution.trainings)"
        )
    return notes
