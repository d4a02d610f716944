"""What several seeds tell: the mean of a quantity with its bootstrap interval, and whether that decides a claim."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

LEVEL = 0.95
NUM_RESAMPLES = 20_000
MIN_SEEDS = 3  # with fewer nothing is decided

# What runs do with a claim.
SUPPORTS, CONTRADICTS, CANNOT_TELL = "support it", "contradict it", "cannot tell"


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over seeds and its bootstrap interval, in the unit of the values."""

    mean: float
    low: float
    high: float
    num_seeds: int

    def to_json(self) -> dict[str, Any]:
        """Part of `study.json`."""
        return dataclasses.asdict(self)


def interval(values: Sequence[float]) -> Interval | None:
    """The percentile bootstrap over values, one for each seed; None where there are none.

    The ends are the smallest means that at least 2.5 % and 97.5 % of the resamples' means do not exceed.
    """
    if not values:
        return None
    of = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(0).integers(len(of), size=(NUM_RESAMPLES, len(of)))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(of[drawn].mean(axis=1), [tail, 100 - tail], method="inverted_cdf")
    return Interval(float(of.mean()), float(low), float(high), len(of))


def verdict(found: Interval | None, sign: int) -> str:
    """Whether an interval lies on the side of zero that a claim expects (sign: -1 below, +1 above), or on the other.

    An interval that holds zero, or is of fewer than `MIN_SEEDS` seeds, cannot tell.
    """
    if found is None or found.num_seeds < MIN_SEEDS or found.low <= 0 <= found.high:
        return CANNOT_TELL
    return SUPPORTS if (found.low > 0) == (sign > 0) else CONTRADICTS


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's rank correlation tau-b of paired values; None where one side is all alike or has fewer than 3 values.

    Source: M. G. Kendall, The treatment of ties in ranking problems, Biometrika 33 (1945).
    """
    if len(first) < 3:
        return None
    rows, columns = np.triu_indices(len(first), 1)
    a, b = (np.sign(np.asarray(each)[rows] - np.asarray(each)[columns]) for each in (first, second))
    untied = np.abs(a).sum() * np.abs(b).sum()
    return float((a * b).sum() / np.sqrt(untied)) if untied else None
