"""Whether a space is better than another at equal cost, or only larger: E-T Errors compared where both cost as much.

Without a limit c on the cost (Eq. 5) a space may win by growing. Here architectures are compared with those that have
as many multiply-adds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from s3_jax.errors import S3Error


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Errors in percent (N,) and multiply-adds (N,) of architectures sampled from a space."""

    errors: np.ndarray
    macs: np.ndarray

    @classmethod
    def of(cls, errors: Sequence[float], macs: Sequence[float]) -> Sampled:
        """Those of an `et_error.json`: its sampled_errors and sampled_macs. Raises S3Error where they do not pair."""
        made = cls(np.asarray(errors, dtype=np.float64), np.asarray(macs, dtype=np.float64))
        if not len(made.errors) or made.errors.shape != made.macs.shape or not (made.macs > 0).all():
            raise S3Error(
                f"{len(errors)} errors and {len(macs)} MACs: expected one of each for every sample, and MACs above 0"
            )
        return made

    def __getitem__(self, rows: Any) -> Sampled:
        return Sampled(self.errors[rows], self.macs[rows])


@dataclasses.dataclass(frozen=True)
class Difference:
    """The second space's error less the first one's, in percentage points, with a bootstrap interval.

    num_bands: bands of MACs in which both have samples enough. share: of all samples, those that lie in them.
    """

    difference: float
    low: float
    high: float
    num_bands: int
    share: float


def difference_at_equal_cost(
    first: Sampled,
    second: Sampled,
    *,
    top_share: float = 1.0,
    num_bands: int = 10,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int | Sequence[int] = 0,
) -> Difference:
    """How much more the second space errs than the first at equal cost: matched by bands of MACs, not regressed.

    The range of MACs that both spaces have is cut into bands by the quantiles of all samples in it. In every band the
    difference is taken; the result is their mean with weights m n / (m + n) of m and n samples, the precision of a
    difference of means. What costs differ within a band remains, so narrow bands matter.
    top_share: the difference is that of E-T Errors (Eq. 5) with so large a share of a band as its top tier, such as
    top_k / num_samples; 1 gives that of mean errors. A band counts where this is a sample of either space at least. The
    interval is the percentile bootstrap over samples in fixed bands: it knows nothing of how trainings differ.
    Raises S3Error where no band counts.
    """
    edges = _edges(first, second, num_bands)
    rng = np.random.default_rng(seed)
    found = _matched(first, second, edges, top_share)
    if found is None:
        raise S3Error(
            f"MACs from {first.macs.min():.3g} to {first.macs.max():.3g} and from {second.macs.min():.3g} to "
            f"{second.macs.max():.3g}: no band has enough samples of both to compare them at equal cost; take more "
            "samples, or fewer bands"
        )
    difference, bands, inside = found
    drawn = [_matched(_resampled(first, rng), _resampled(second, rng), edges, top_share) for _ in range(num_resamples)]
    tail = 100 * (1 - level) / 2
    low, high = np.percentile([one[0] for one in drawn if one] or [difference], [tail, 100 - tail])
    return Difference(difference, float(low), float(high), bands, inside / (len(first.macs) + len(second.macs)))


def _edges(first: Sampled, second: Sampled, num_bands: int) -> np.ndarray:
    """The edges (bands + 1,) of bands of MACs, each with as many samples of both spaces together."""
    low, high = max(first.macs.min(), second.macs.min()), min(first.macs.max(), second.macs.max())
    pooled = np.concatenate([first.macs, second.macs])
    shared = pooled[(pooled >= low) & (pooled <= high)]
    if not len(shared):
        return np.array([low, low])
    return np.quantile(shared, np.linspace(0, 1, num_bands + 1), method="nearest")


def _matched(first: Sampled, second: Sampled, edges: np.ndarray, top_share: float) -> tuple[float, int, int] | None:
    """The weighted mean difference, the number of bands and of samples behind it; None where no band counts."""
    ours, theirs = (_by_band(each, edges) for each in (first, second))
    both = [(a, b) for a, b in zip(ours, theirs, strict=True) if round(top_share * min(len(a), len(b)))]
    if not both:
        return None
    weights = np.array([len(a) * len(b) / (len(a) + len(b)) for a, b in both])
    differences = np.array([_et_error(b, top_share) - _et_error(a, top_share) for a, b in both])
    return float(np.average(differences, weights=weights)), len(both), sum(len(a) + len(b) for a, b in both)


def _by_band(sampled: Sampled, edges: np.ndarray) -> list[np.ndarray]:
    """The errors of the samples in every band; the upper edge of the last belongs to it."""
    inner = np.searchsorted(edges[1:-1], sampled.macs, side="right")
    inside = (sampled.macs >= edges[0]) & (sampled.macs <= edges[-1])
    return [sampled.errors[inside & (inner == band)] for band in range(len(edges) - 1)]


def _et_error(errors: np.ndarray, top_share: float) -> float:
    top = round(top_share * len(errors))
    return float((errors.mean() + np.partition(errors, top - 1)[:top].mean()) / 2)


def _resampled(sampled: Sampled, rng: np.random.Generator) -> Sampled:
    return sampled[rng.integers(len(sampled.errors), size=len(sampled.errors))]
