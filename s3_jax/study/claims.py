"""The claims of the paper as numbers of every seed, and whether a study's runs support or contradict them.

A claim is a quantity that it expects on one side of zero. What the first space was given by its user is no finding, so
claims about choices are judged by how evolution has changed them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from s3_jax.evolution import space_name
from s3_jax.study.differences import COSTS, compare, judging_images
from s3_jax.study.plan import MEASURED
from s3_jax.study.records import StudiedSpace, Study
from s3_jax.study.statistics import Interval, interval, kendall, verdict

BELOW, ABOVE = -1, +1
_THIRD = 2  # counted from 0


@dataclasses.dataclass(frozen=True)
class Claim:
    """What the paper says, the quantity by which it is judged, and that quantity's value for every seed that has it.

    sign: the side of zero that the claim expects. missing: why no seed has a value.
    """

    text: str
    quantity: str
    sign: int
    values: Mapping[int, float]
    missing: str = ""

    @property
    def interval(self) -> Interval | None:
        """The mean over seeds with its interval."""
        return interval(list(self.values.values()))

    @property
    def verdict(self) -> str:
        """By the rule of `statistics.verdict`."""
        return verdict(self.interval, self.sign)

    def to_json(self) -> dict[str, Any]:
        """An entry of `claims` in `study.json`."""
        record = {
            "claim": self.text,
            "quantity": self.quantity,
            "expected": "below zero" if self.sign == BELOW else "above zero",
            "values": {str(seed): value for seed, value in self.values.items()},
        }
        found = self.interval
        return record | {"interval": found and found.to_json(), "verdict": self.verdict, "missing": self.missing}


def claims(study: Study) -> tuple[Claim, ...]:
    """Every claim of the paper that a study can be asked about, in the paper's order."""
    return (*_comparisons(study), *_choices(study), _ranking(study))


def _comparisons(study: Study) -> list[Claim]:
    images = judging_images(study)
    first, last = space_name(0), space_name(study.plan.config.evolution.num_spaces - 1)
    compared = [
        ("Evolution lowers the E-T Error", "", f"space {last} less space {first}, arm {MEASURED}"),
        ("Evolution by slopes does more than a random move", "random", f"space {last}, arm {MEASURED} less arm random"),
        ("Evolution by slopes does more than growing the space", "grow", f"space {last}, arm {MEASURED} less arm grow"),
    ]
    made = []
    for text, less, what in compared:
        missing = _missing_arm(study, less)
        for cost in COSTS:
            values = {} if missing else compare(study, MEASURED, less, images, cost).values
            why = missing or ("" if values else "no seed has two spaces that can be compared so")
            quantity = f"E-T Error on {images} images, {what}, at {cost}"
            made.append(Claim(text, quantity, BELOW, values, why))
    return made


def _choices(study: Study) -> list[Claim]:
    asked: list[tuple[str, str, int, Callable[[Sequence[StudiedSpace]], float | None]]] = [
        (
            "The third stage wants depth",
            "slope of the E-T Error over the choices of the third stage's depth, mean over the spaces",
            BELOW,
            third_depth_slope,
        ),
        (
            "Shallow layers want small windows",
            "mean window of the first stage less that of the later ones, as evolution has changed it",
            BELOW,
            lambda spaces: _changed(spaces, _first_window),
        ),
        (
            "The MLP ratio rises with depth",
            "rise of the mean MLP ratio from a stage to the next, as evolution has changed it",
            ABOVE,
            lambda spaces: _changed(spaces, _rise_of_mlp_ratio),
        ),
        (
            "Q-K-V is narrower than the embedding",
            "mean Q-K-V width over mean embedding width, mean over the stages, as evolution has changed it",
            BELOW,
            lambda spaces: _changed(spaces, _qkv_by_embedding),
        ),
    ]
    why = _missing_arm(study, "")
    made = []
    for text, quantity, sign, value in asked:
        values = study.per_seed(value)
        made.append(Claim(text, quantity, sign, values, "" if values else why or "these spaces have too few stages"))
    return made


def _ranking(study: Study) -> Claim:
    """Networks of different supernets: a run retrains the best of its last space, or of each (retrain.all_spaces)."""
    values = {}
    for seed in study.plan.seeds:
        every = [space for spaces in study.spaces.values() for space in spaces if space.run.seed == seed]
        pairs = [(s.inherited, s.retrained) for s in every if s.inherited is not None and s.retrained is not None]
        tau = kendall(*zip(*pairs, strict=True)) if pairs else None
        if tau is not None:
            values[seed] = tau
    return Claim(
        "Inherited weights rank networks as retrained ones do",
        "Kendall's tau between the test scores with inherited and with retrained weights, over the retrained bests of "
        "a seed's runs",
        ABOVE,
        values,
        "" if values else "no seed has 3 retrained networks that differ; see config.retrain.all_spaces",
    )


def _missing_arm(study: Study, other: str) -> str:
    arms = [arm for arm in (MEASURED, other) if arm and not study.of_arm(arm)]
    return f"no finished run of the arm {' or '.join(arms)} is there" if arms else ""


def third_depth_slope(spaces: Sequence[StudiedSpace]) -> float | None:
    """In percentage points per choice; None where no space has a slope of it."""
    slopes = [space.slopes[_THIRD, "depth"] for space in spaces if (_THIRD, "depth") in space.slopes]
    return float(np.mean(slopes)) if slopes else None


def _changed(spaces: Sequence[StudiedSpace], value: Callable[[StudiedSpace], float | None]) -> float | None:
    """A value of the last space less that of the first."""
    first, last = value(spaces[0]), value(spaces[-1])
    return None if first is None or last is None else round(last - first, 9)  # without dirt of sums of floats


def _first_window(space: StudiedSpace) -> float | None:
    means = _means(space, "window")
    return means[0] - float(np.mean(means[1:])) if len(means) > 1 else None


def _rise_of_mlp_ratio(space: StudiedSpace) -> float | None:
    means = _means(space, "mlp_ratio")
    return float(np.polyfit(np.arange(len(means)), means, 1)[0]) if len(means) > 1 else None


def _qkv_by_embedding(space: StudiedSpace) -> float:
    return float(np.mean(np.array(_means(space, "qkv_dim")) / _means(space, "embed_dim")))


def _means(space: StudiedSpace, dimension: str) -> list[float]:
    """Of every stage's choices."""
    return [float(np.mean(stage.choices(dimension))) for stage in space.space.stages]
