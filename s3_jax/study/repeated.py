"""Do the slopes of a space repeat from training to training? From what `et_error.json` has of each training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.table import Table

from s3_jax.evolution import NOISE_STANDARD_ERRORS, space_name
from s3_jax.paths import AnyPath
from s3_jax.slopes import agreement_of, halves
from s3_jax.training.records import read_record

MIN_TRAININGS = 4  # with fewer a half has no deviation of its own


def repeated(workdir: AnyPath, name: str = "A") -> dict[str, float]:
    """How far slopes repeat from training to training, as numbers by their descriptions.

    Empty where the space has fewer than 4 trainings, or its slopes no standard errors. Raises S3Error where the space's
    file is damaged.
    """
    index = next((number for number in range(1000) if space_name(number) == name), 0)
    slopes, errors = read_record(workdir / f"space_{index}" / "et_error.json", _lines)
    enough = len(slopes) >= MIN_TRAININGS and np.isfinite(errors).all()
    return repetition(slopes, errors) if enough else {}


def repetition(slopes: np.ndarray, errors: np.ndarray) -> dict[str, float]:
    """Of slopes (R, D), in one unit, and their bootstrap standard errors (R, D), of R trainings.

    The whole error of one training's slope is its deviation from training to training, the same for all dimensions.
    """
    count, dimensions = slopes.shape
    variance, within = slopes.var(axis=0, ddof=1).mean(), (errors**2).mean()
    deviation, half, split = np.sqrt(variance), count // 2, halves(count)
    singles = list(itertools.combinations(slopes, 2))
    means = [(slopes[one].mean(axis=0), slopes[other].mean(axis=0)) for one, other in split]
    gaps = np.array([first - second for first, second in means])
    own = np.array([_variance(slopes[one]) + _variance(slopes[other]) for one, other in split])[:, None]
    by_samples = np.array([((errors[[*one, *other]] / half) ** 2).sum(axis=0) for one, other in split])
    correlation, same = agreement_of(means)
    found = {
        "standard error of a slope by the bootstrap": np.sqrt(within),
        "deviation of a slope from training to training": deviation,
        "of this what the bootstrap does not see": np.sqrt(max(0.0, variance - within)),
        "correlation of one training and another": agreement_of(singles)[0],
        f"correlation of {half} trainings and {half} others": correlation,
        f"same sign in both halves, of {dimensions}": same,
        "differences of halves over their whole errors": np.sqrt((gaps**2 / own).mean()),
        "differences of halves over the bootstrap's errors": np.sqrt((gaps**2 / by_samples).mean()),
        "beyond 2 bootstrap errors, one training": _beyond(slopes, errors).mean(),
        "beyond 2 whole errors, one training": _beyond(slopes, deviation).mean(),
        "beyond 2 whole errors, mean of all trainings": _beyond(slopes.mean(axis=0), deviation / np.sqrt(count)),
    }
    return {what: float(value) for what, value in found.items()}


def repeated_table(found: Mapping[str, float], name: str) -> Table:
    """What was found, for the screen."""
    table = Table(title=f"How far slopes of space {name} repeat", caption="errors and deviations are root mean squares")
    table.add_column("Of the slopes")
    table.add_column("Value", justify="right")
    for what, value in found.items():
        table.add_row(what, f"{value:.2f}")
    return table


def _lines(record: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and standard errors (R, D) of the dimensions that have a slope."""
    keys = ("slopes", "slope_standard_errors")
    slopes, errors = (np.array([one[key] for one in record.get("trainings", ())], np.float64) for key in keys)
    known = np.isfinite(slopes).all(axis=0)
    return slopes[:, known], errors[:, known]


def _variance(slopes: np.ndarray) -> float:
    """Of the mean of a half's slopes (R, D), by how they differ, the same for all dimensions."""
    return float(slopes.var(axis=0, ddof=1).mean()) / len(slopes)


def _beyond(slopes: np.ndarray, errors: np.ndarray | float) -> np.ndarray:
    return (np.abs(slopes) > NOISE_STANDARD_ERRORS * errors).sum(axis=-1)
