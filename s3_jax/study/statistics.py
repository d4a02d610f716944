"""What several seeds tell: the mean of a quantity with its interval, and whether that decides a claim."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
MIN_SEEDS = 3  # with fewer nothing is decided

# What runs do with a claim.
SUPPORTS, CONTRADICTS, CANNOT_TELL = "support it", "contradict it", "cannot tell"


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over seeds and its interval, in the unit of the values; of one seed both ends are its value."""

    mean: float
    low: float
    high: float
    num_seeds: int

    def to_json(self) -> dict[str, Any]:
        """Part of `study.json`."""
        return dataclasses.asdict(self)


def interval(values: Sequence[float]) -> Interval | None:
    """The mean of values, one for each seed, with Student's interval; None where there are none.

    Student's, and not a bootstrap over the seeds: of five values that lie on one side of zero by chance alone, which
    happens in one study of 16, a bootstrap's interval always leaves zero out.
    """
    if not values:
        return None
    (estimate,) = means_of_groups([values])
    mean, low, high = estimate.value, estimate.low, estimate.high
    return Interval(mean, mean if low is None else low, mean if high is None else high, len(values))


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
    return _correlation(stats.kendalltau, first, second)


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation rho, with mean ranks of ties; None as for `kendall`."""
    return _correlation(stats.spearmanr, first, second)


def _correlation(of: Any, first: Sequence[float], second: Sequence[float]) -> float | None:
    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return float(of(first, second).statistic)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A quantity and its interval, whose ends are None where nothing tells them."""

    value: float
    low: float | None
    high: float | None


def bootstrap(value: Callable[[np.ndarray], float | None], count: int, num_resamples: int) -> Estimate | None:
    """A function of the places 0 ... count - 1, with the percentile bootstrap over them; None where it has no value.

    value: takes places (count,), some of them several times; resamples for which it gives None are left out.
    """
    found = value(np.arange(count))
    rng = np.random.default_rng(0)
    drawn = [value(rng.integers(count, size=count)) for _ in range(num_resamples)]
    known = [each for each in drawn if each is not None]
    if found is None or not known:
        return None
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(known, [tail, 100 - tail])
    return Estimate(found, float(low), float(high))


def means_of_groups(groups: Sequence[Sequence[float]]) -> list[Estimate]:
    """The mean of every group of values, with Student's interval from the deviation that all groups share.

    Groups of few values each tell little of their own deviation; that of all of them together is steadier.
    """
    return [Estimate(float(np.mean(group)), *_ends(float(np.mean(group)), groups, 1 / len(group))) for group in groups]


def difference_of_groups(groups: Sequence[Sequence[float]], first: int, second: int) -> Estimate:
    """The mean of one group less that of another, with an interval made as `means_of_groups` makes them."""
    difference = float(np.mean(groups[first]) - np.mean(groups[second]))
    share = 1 / len(groups[first]) + 1 / len(groups[second])
    return Estimate(difference, *_ends(difference, groups, share))


def _ends(mean: float, groups: Sequence[Sequence[float]], share: float) -> tuple[float | None, float | None]:
    """share: the variance of what is estimated, as a share of that of a single value."""
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return None, None
    variance = sum(float(np.var(group)) * len(group) for group in groups) / freedom
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(variance * share)
    return mean - half, mean + half
