"""What the values of settings may be: said once, beside the field, and checked wherever a value comes in.

@dataclasses.dataclass(frozen=True)
class RunConfig:
    log_every: Count = 50

    def __post_init__(self) -> None:
        check_fields(self, "run")
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

from s3_jax.errors import S3Error


class SettingError(S3Error):
    """A setting that cannot be; `problem` begins with the field's name, before which its place is put."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}.{problem}")
        self.problem = problem


@dataclasses.dataclass(frozen=True)
class Limit:
    """A condition on a value, and in words what is expected of it."""

    expected: str
    holds: Callable[[Any], bool]


def whole(least: int, most: int | None = None) -> Limit:
    """A whole number within these bounds."""
    expected = f"a whole number from {least} " + ("on" if most is None else f"to {most:,}")
    return Limit(expected, lambda x: _is_whole(x) and least <= x and (most is None or x <= most))


def number(least: float, most: float = math.inf, *, above: bool = False, below: bool = False) -> Limit:
    """A finite number within these bounds; above, below: without the bound itself."""
    low = f"above {least:g}" if above else f"from {least:g}"
    upper = f" and below {most:g}" if below else f" and up to {most:g}" if above else f" to {most:g}"
    endless = "" if above else " on"
    return Limit(
        f"a number {low}{endless if most == math.inf else upper}", lambda x: _is_between(x, least, most, above, below)
    )


def one_of(*words: str) -> Limit:
    """One of these words."""
    return Limit(f"one of {', '.join(words)}", lambda x: x in words)


def each(limit: Limit) -> Limit:
    """A tuple of which every value is within a limit."""
    return Limit(f"for each value {limit.expected}", lambda values: all(map(limit.holds, values)))


def increasing(limit: Limit) -> Limit:
    """Two values within a limit, the second not below the first."""
    expected = f"two values in increasing order, each {limit.expected}"
    return Limit(expected, lambda pair: all(map(limit.holds, pair)) and pair[0] <= pair[1])


# Counts of updates and images are kept in int32 on devices.
INT32 = Limit("at most 2,147,483,647", lambda x: x < 2**31)
Count = Annotated[int, whole(1), INT32]
CountOrNone = Annotated[int, whole(0), INT32]  # 0 switches something off
Positive = Annotated[float, number(0, above=True)]
NotNegative = Annotated[float, number(0)]
Probability = Annotated[float, number(0, 1)]
BelowOne = Annotated[float, number(0, 1, below=True)]

SIDE = whole(1, 16384)  # pixels
Side = Annotated[int, SIDE]
Scale = Annotated[tuple[int, int], each(SIDE)]  # most pixels of the longer and of the shorter side


def _are_pairs_of_sides(pairs: Any) -> bool:
    return bool(pairs) and all(len(pair) == 2 and all(map(SIDE.holds, pair)) for pair in pairs)


Canvases = Annotated[  # height and width of each, in pixels
    tuple[tuple[int, int], ...], Limit("at least one pair of whole numbers, each from 1 to 16,384", _are_pairs_of_sides)
]


def check_fields(settings: Any, where: str) -> None:
    """Raises SettingError for the first field of a dataclass that is not within the limits of its type."""
    kind: Any = type(settings)
    for name, limits in _limits(kind).items():
        for limit in limits:
            require(where, name, getattr(settings, name), limit)


def require(where: str, name: str, value: object, limit: Limit) -> None:
    """Raises SettingError where a value is not within a limit."""
    try:
        valid = limit.holds(value)
    except (TypeError, OverflowError):  # of another type, where a dataclass is made by hand; beyond any float
        valid = False
    if not valid:
        raise SettingError(where, f"{name} = {value!r}: expected {limit.expected}")


@cache
def _limits(kind: Any) -> dict[str, list[Limit]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    noted = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: [note for note in notes if isinstance(note, Limit)] for name, notes in noted.items()}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_between(value: object, least: float, most: float, above: bool, below: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return False
    return (least < value if above else least <= value) and (value < most if below else value <= most)
