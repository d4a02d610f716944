"""E-T Error of evaluated architectures: of the whole space and of every choice of every stage and dimension (Eq. 5).

The E-T Error of a set of architectures is Q = (Q_e + Q_t) / 2: Q_e is the mean of their top-1 errors in percent, Q_t
the mean of the `top_k` lowest. For `depth` and `embed_dim` the set of a choice is all sampled architectures that have
it. `window`, `mlp_ratio` and `qkv_dim` are chosen block by block, so each block of the stage gives a set of its own,
{a : block j exists and has the choice}, and the E-T Error of the choice is the mean over the blocks.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from s3_jax.cost import Budget, Evaluated
from s3_jax.errors import S3Error
from s3_jax.space import DIMENSIONS, STAGE_DIMENSIONS, Architecture, Choice, SearchSpace


@dataclasses.dataclass(frozen=True)
class ETError:
    """Q_e and Q_t in percent, the number of architectures behind them, and the top_k that was used."""

    expected: float
    top_tier: float
    num_samples: int
    top_k: int

    @property
    def et_error(self) -> float:
        """Q = (Q_e + Q_t) / 2 in percent."""
        return (self.expected + self.top_tier) / 2

    def to_json(self) -> dict[str, Any]:
        """The `space` entry of `et_error.json`."""
        return {
            "expected": self.expected,
            "top_tier": self.top_tier,
            "et_error": self.et_error,
            "num_samples": self.num_samples,
            "top_k": self.top_k,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ETError:
        """The E-T Error of a record that `to_json` made. Raises S3Error where the record is not one."""
        try:
            counts = int(record["num_samples"]), int(record["top_k"])
            return cls(float(record["expected"]), float(record["top_tier"]), *counts)
        except (KeyError, TypeError, ValueError) as error:
            raise S3Error(f"not a record of an E-T Error: {error!r}") from error


@dataclasses.dataclass(frozen=True)
class DimensionMeasure:
    """E-T Error of every choice of one dimension of one stage (counted from 0).

    Where it is a mean over blocks, its num_samples and top_k are those of the smallest set in the mean.
    """

    stage: int
    dimension: str
    choices: tuple[Choice, ...]
    measures: tuple[ETError, ...]

    @property
    def name(self) -> str:
        """Where this is, in words; stages are counted from 1 as in the paper."""
        return _name(self.stage, self.dimension)

    @property
    def et_errors(self) -> tuple[float, ...]:
        """Q of every choice in percent, the y of Eq. 7."""
        return tuple(measure.et_error for measure in self.measures)

    def to_json(self) -> dict[str, Any]:
        """An entry of `dimensions` in `et_error.json`, as far as it is measured."""
        return {
            "stage": self.stage,
            "dimension": self.dimension,
            "choices": list(self.choices),
            "expected": [measure.expected for measure in self.measures],
            "top_tier": [measure.top_tier for measure in self.measures],
            "et_errors": list(self.et_errors),
            "num_samples": [measure.num_samples for measure in self.measures],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], *, top_k: int) -> DimensionMeasure:
        """The measure of a record that `to_json` made, in a space of this top_k. Raises S3Error where it is not one."""
        try:
            columns = [record[name] for name in ("expected", "top_tier", "num_samples", "choices")]
            measures = [ETError(float(e), float(t), n, min(n, top_k)) for e, t, n, _ in zip(*columns, strict=True)]
            return cls(int(record["stage"]), str(record["dimension"]), tuple(record["choices"]), tuple(measures))
        except (KeyError, TypeError, ValueError) as error:
            raise S3Error(f"not a record of a dimension's E-T Errors: {error!r}") from error


@dataclasses.dataclass(frozen=True)
class SpaceMeasure:
    """E-T Error of a space and of its choices, the samples that count, and notes on edge cases."""

    space: ETError
    dimensions: tuple[DimensionMeasure, ...]
    samples: tuple[Evaluated, ...]
    notes: tuple[str, ...]

    @property
    def sampled_errors(self) -> tuple[float, ...]:
        """The samples' errors in percent."""
        return tuple(sample.error for sample in self.samples)

    def to_json(self) -> dict[str, Any]:
        """What `et_error.json` has of the whole space: E-T Error, mean cost, and error and cost of every sample."""
        params, macs = ([getattr(one.cost, name) for one in self.samples] for name in ("params", "macs"))
        means = {"mean_params": float(np.mean(params)), "mean_macs": float(np.mean(macs))}
        return {
            "space": self.space.to_json() | means,
            "sampled_errors": list(self.sampled_errors),
            "sampled_params": params,
            "sampled_macs": macs,
        }


def et_error(errors: Iterable[float], top_k: int) -> ETError:
    """E-T Error of top-1 errors in percent; top_k is clipped to their number. Raises S3Error where there are none."""
    ascending = np.sort(np.asarray(list(errors), dtype=np.float64))
    _check(ascending, top_k)
    expected, top_tier = _weighted(ascending, np.ones((1, len(ascending))), top_k)
    return ETError(float(expected[0]), float(top_tier[0]), len(ascending), min(top_k, len(ascending)))


def measure_space(
    space: SearchSpace, evaluated: Sequence[Evaluated], *, top_k: int, budget: Budget = Budget()
) -> SpaceMeasure:
    """E-T Error of a space from architectures sampled uniformly from it, of which those under the budget count.

    Raises S3Error if none is left, if one is not of this space, or if no sample has one of the choices.
    """
    admitted = _admitted(space, evaluated, budget)
    whole = et_error((sample.error for sample in admitted), top_k)
    samples = _Samples.of(admitted)
    notes = [*_note_budget(len(evaluated), len(admitted), budget), *_note_top_k("the space", [whole], top_k)]
    dimensions = []
    for stage, dimension in itertools.product(range(len(space.stages)), DIMENSIONS):
        sets, omitted = _sets(space, samples.architectures, stage, dimension)
        measures = tuple(_mean_over_blocks(samples.errors, blocks, top_k) for blocks in sets)
        dimensions.append(DimensionMeasure(stage, dimension, space.stages[stage].choices(dimension), measures))
        notes += [*omitted, *_note_top_k(_name(stage, dimension), measures, top_k)]
    return SpaceMeasure(whole, tuple(dimensions), tuple(admitted), tuple(notes))


def resample(
    space: SearchSpace,
    evaluated: Sequence[Evaluated],
    *,
    top_k: int,
    budget: Budget = Budget(),
    num_resamples: int,
    seed: int | Sequence[int],
) -> dict[tuple[int, str], np.ndarray]:
    """Bootstrap of `measure_space`: E-T Errors of the choices when the samples are drawn anew with replacement.

    Returns for every (stage, dimension) an array (num_resamples, choices) in percent, NaN where a resample has no
    architecture of one of the sets behind a choice. Raises S3Error as `measure_space` does.
    """
    samples = _Samples.of(_admitted(space, evaluated, budget))
    size = len(samples.errors)
    _check(samples.errors, top_k)
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), num_resamples).astype(np.float64)
    resampled = {}
    for stage, dimension in itertools.product(range(len(space.stages)), DIMENSIONS):
        sets, _ = _sets(space, samples.architectures, stage, dimension)
        resampled[stage, dimension] = np.stack(
            [_resampled_choice(samples.errors, counts, blocks, top_k) for blocks in sets], axis=1
        )
    return resampled


def check_sampled(space: SearchSpace, architectures: Sequence[Architecture]) -> None:
    """Raises S3Error where these samples leave a choice without any, so that `measure_space` would refuse them.

    It needs no errors, so it can be asked before anything is trained.
    """
    for stage, dimension in itertools.product(range(len(space.stages)), DIMENSIONS):
        _sets(space, architectures, stage, dimension)


def measurable(space: SearchSpace, architectures: Sequence[Architecture]) -> SearchSpace:
    """The space without the choices for which these samples would be refused; see `check_sampled`."""
    for stage, dimension in itertools.product(range(len(space.stages)), DIMENSIONS):
        choices = space.stages[stage].choices(dimension)
        masks = _masks(choices, architectures, stage, dimension)
        if not masks.any(axis=1).all(axis=0).any():  # every network has a first block, and so one of its choices
            sampled = [choice for choice, mask in zip(choices, masks, strict=True) if mask[:, 0].any()]
            space = space.replace(stage, dimension, sampled)
    return space


@dataclasses.dataclass(frozen=True)
class _Samples:
    """The samples in ascending order of error (N,), so that the lowest of any subset come first."""

    errors: np.ndarray
    architectures: tuple[Architecture, ...]

    @classmethod
    def of(cls, admitted: Sequence[Evaluated]) -> _Samples:
        """The samples in the order of their errors."""
        ordered = sorted(admitted, key=lambda sample: sample.error)
        return cls(np.array([sample.error for sample in ordered]), tuple(sample.architecture for sample in ordered))


def _weighted(errors: np.ndarray, counts: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """Q_e and Q_t (R,) of samples (N,) in ascending order of error, of which row r holds `counts[r]` (R, N) copies.

    NaN for a row without any copy.
    """
    before = np.cumsum(counts, axis=1) - counts
    lowest = np.clip(top_k - before, 0.0, counts)
    with np.errstate(invalid="ignore"):
        expected = (counts * errors).sum(axis=1) / counts.sum(axis=1)
        top_tier = (lowest * errors).sum(axis=1) / lowest.sum(axis=1)
    return expected, top_tier


def _mean_over_blocks(errors: np.ndarray, blocks: Sequence[np.ndarray], top_k: int) -> ETError:
    """Mean of the E-T Errors of one choice's sets, one boolean mask (N,) per block."""
    measures = [et_error(errors[mask], top_k) for mask in blocks]
    return ETError(
        float(np.mean([measure.expected for measure in measures])),
        float(np.mean([measure.top_tier for measure in measures])),
        min(measure.num_samples for measure in measures),
        min(measure.top_k for measure in measures),
    )


def _resampled_choice(errors: np.ndarray, counts: np.ndarray, blocks: Sequence[np.ndarray], top_k: int) -> np.ndarray:
    """E-T Error (R,) of one choice in every resample `counts` (R, N), a mean over its sets as in the original."""
    return np.mean([np.mean(_weighted(errors[mask], counts[:, mask], top_k), axis=0) for mask in blocks], axis=0)


def _sets(
    space: SearchSpace, architectures: Sequence[Architecture], stage: int, dimension: str
) -> tuple[list[list[np.ndarray]], list[str]]:
    """For every choice its sets, one boolean mask (N,) per block (or a single one), and notes.

    A block at which a choice has no sample is left out for all choices alike: a mean over other blocks for one choice
    than for another would compare deep networks with shallow ones. Raises S3Error where that leaves no block.
    """
    choices = space.stages[stage].choices(dimension)
    masks = _masks(choices, architectures, stage, dimension)
    for choice, mask in zip(choices, masks, strict=True):
        if not mask.any():
            raise S3Error(_missing(stage, dimension, f"{dimension} = {choice}", len(architectures)))
    complete = masks.any(axis=1).all(axis=0)
    if not complete.any():
        raise S3Error(_missing(stage, dimension, "every choice in one and the same block", len(architectures)))
    notes = [
        f"{_name(stage, dimension)}: block {block + 1} left out of the mean, as not every choice is sampled there"
        for block in np.flatnonzero(~complete)
    ]
    return [[mask[:, block] for block in np.flatnonzero(complete)] for mask in masks], notes


def _masks(choices: Sequence[Choice], architectures: Sequence[Architecture], stage: int, dimension: str) -> np.ndarray:
    """Which architectures have a choice in a block, (choices, N, blocks)."""
    chosen = _chosen(architectures, stage, dimension)
    return np.stack([chosen == choice for choice in choices])


def _chosen(architectures: Sequence[Architecture], stage: int, dimension: str) -> np.ndarray:
    """The values (N, blocks) that a dimension has in each architecture, NaN where there is no such block.

    A dimension that is chosen once for the stage has one column.
    """
    stages = [architecture.stages[stage] for architecture in architectures]
    if dimension in STAGE_DIMENSIONS:
        return np.array([[getattr(stage, dimension)] for stage in stages], dtype=np.float64)
    chosen = np.full((len(stages), max(stage.depth for stage in stages)), np.nan)
    for row, blocks in enumerate(stage.blocks for stage in stages):
        chosen[row, : len(blocks)] = [getattr(block, dimension) for block in blocks]
    return chosen


def _admitted(space: SearchSpace, evaluated: Sequence[Evaluated], budget: Budget) -> list[Evaluated]:
    for sample in evaluated:
        if not space.contains(sample.architecture):
            raise S3Error(
                f"an evaluated architecture is not of this space: {sample.architecture}; measure a space with samples "
                "of its own, and clamp both to the map sizes or neither"
            )
    admitted = [sample for sample in evaluated if budget.admits(sample.cost)]
    if evaluated and not admitted:
        raise S3Error(f"0 of {len(evaluated):,} samples {budget.describe()}; raise the budget, or sample within it")
    return admitted


def _check(errors: np.ndarray, top_k: int) -> None:
    if not len(errors):
        raise S3Error("the E-T Error of no architectures at all is undefined; evaluate some first")
    if top_k < 1:
        raise S3Error(f"top_k = {top_k}: the top tier is at least 1 architecture")


def _name(stage: int, dimension: str) -> str:
    return f"stage {stage + 1} {dimension}"


def _missing(stage: int, dimension: str, what: str, num_samples: int) -> str:
    return (
        f"{_name(stage, dimension)}: none of the {num_samples:,} sampled architectures has {what}, so it has no E-T "
        "Error; take more samples (evolution.num_samples), or fewer choices"
    )


def _note_budget(num_evaluated: int, num_admitted: int, budget: Budget) -> list[str]:
    left_out = num_evaluated - num_admitted
    return [f"{left_out:,} of {num_evaluated:,} samples are not {budget.describe()} and left out"] if left_out else []


def _note_top_k(where: str, measures: Sequence[ETError], top_k: int) -> list[str]:
    smallest = min(measure.num_samples for measure in measures)
    if smallest >= top_k:
        return []
    return [f"{where}: only {smallest:,} samples for top_k = {top_k}, clipped: there Q_t is the mean of them all"]
