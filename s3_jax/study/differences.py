"""How much one space errs more than another, for every seed: at face value, and at equal cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from s3_jax.equal_cost import difference_at_equal_cost
from s3_jax.errors import S3Error
from s3_jax.study.plan import MEASURED
from s3_jax.study.records import JUDGE, StudiedSpace, Study
from s3_jax.study.statistics import Interval, interval

FACE, EQUAL_COST = "face value", "equal cost"
COSTS = (FACE, EQUAL_COST)
MAX_BANDS = 10  # of multiply-adds

# The two spaces of a comparison in one seed.
Pair = tuple[StudiedSpace, StudiedSpace]


@dataclasses.dataclass(frozen=True)
class Compared:
    """The E-T Error of one space less that of another, in percentage points, of every seed that has both.

    arm, less: of the last spaces, or where less is "" of an arm's last space and its first. seeds: those that have both
    spaces; at equal cost a value is missing where the two share no range of multiply-adds.
    """

    arm: str
    less: str
    images: str
    cost: str
    seeds: int
    values: Mapping[int, float]

    @property
    def interval(self) -> Interval | None:
        """The mean over seeds with its interval."""
        return interval(list(self.values.values()))

    def to_json(self) -> dict[str, Any]:
        """An entry of `differences` in `study.json`."""
        values = {str(seed): value for seed, value in self.values.items()}
        found = self.interval
        return dataclasses.asdict(self) | {"values": values, "interval": found and found.to_json()}


def differences(study: Study) -> tuple[Compared, ...]:
    """Of every arm the last space less the first; of the measured arm's last space less every other arm's."""
    others = [arm for arm in study.plan.arms if arm != MEASURED and MEASURED in study.plan.arms]
    return tuple(
        compared
        for arm, less in [*((arm, "") for arm in study.plan.arms), *((MEASURED, other) for other in others)]
        for images in study.images
        for compared in (compare(study, arm, less, images, cost) for cost in COSTS)
    )


def compare(study: Study, arm: str, less: str, images: str, cost: str) -> Compared:
    """One difference; less: another arm, or "" for the first space of the same runs."""
    difference = _at_face_value if cost == FACE else _at_equal_cost
    pairs = _pairs(study, arm, less)
    values = {seed: difference(*pair, images, study.top_share) for seed, pair in pairs.items()}
    known = {seed: value for seed, value in values.items() if value is not None}
    return Compared(arm, less, images, cost, len(pairs), known)


def judging_images(study: Study) -> str:
    """The images that claims are judged on: those that chose nothing where there are some."""
    return JUDGE if JUDGE in study.images else next(iter(study.images), "")


def _pairs(study: Study, arm: str, less: str) -> dict[int, Pair]:
    """The two spaces of every seed that has both."""
    ours, theirs = study.of_arm(arm), study.of_arm(less or arm)
    place = -1 if less else 0
    return {seed: (spaces[-1], theirs[seed][place]) for seed, spaces in ours.items() if seed in theirs}


def _at_face_value(space: StudiedSpace, other: StudiedSpace, images: str, top_share: float) -> float:
    del top_share
    return space.measures[images].et_error - other.measures[images].et_error


def _at_equal_cost(space: StudiedSpace, other: StudiedSpace, images: str, top_share: float) -> float | None:
    """None where the two share no range of multiply-adds with samples enough.

    There are as many bands as the top tier has samples, so that an average band has one of it, `MAX_BANDS` at most.
    """
    first, second = other.measures[images].sampled, space.measures[images].sampled
    bands = min(max(round(top_share * min(len(first.errors), len(second.errors))), 1), MAX_BANDS)
    try:
        return difference_at_equal_cost(first, second, top_share=top_share, num_bands=bands, num_resamples=0).difference
    except S3Error:
        return None
