"""How long a run still takes, judged by what its own work has taken so far: pure functions of counts and seconds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a run: so many units of one kind of work, such as the updates of a supernet.

    name: its place in the run, as "space_0/search". title: what users read. like: another kind of work of which a unit
    of this one holds so many; it tells the time as long as no unit of this kind was done.
    """

    name: str
    title: str
    kind: str
    units: int
    like: tuple[str, float] | None = None


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a phase has taken: the units done while a clock ran, their seconds, and those of compiling besides."""

    units: int = 0
    seconds: float = 0.0
    compiling: float = 0.0

    def plus(self, units: int = 0, seconds: float = 0.0, compiling: float = 0.0) -> Spent:
        """With more of it."""
        return Spent(self.units + units, self.seconds + seconds, self.compiling + compiling)


class Left(NamedTuple):
    """Seconds that a run still takes, and the kinds of work that are left out of them, since none was measured."""

    seconds: float
    unknown: tuple[str, ...]


def time_left(plan: Sequence[Phase], current: int, done: int, spent: Mapping[str, Spent]) -> Left:
    """What is left of a run that is at phase `current` of its plan, in which `done` units are done.

    spent: what was measured, by the phases' names. A phase goes on at its own pace where it has one, else at that of
    all phases of its kind; one of which nothing was measured also compiles, as long as those of its kind on average.
    """
    seconds, unknown = 0.0, []
    for index, phase in enumerate(plan[current:], current):
        units = max(0, phase.units - done) if index == current else phase.units
        pace = _pace(plan, phase, spent)
        if pace is None and units:
            unknown.append(phase.kind)
        seconds += units * (pace or 0.0) + (0.0 if phase.name in spent else _compiling(plan, phase.kind, spent))
    return Left(seconds, tuple(dict.fromkeys(unknown)))


def _pace(plan: Sequence[Phase], phase: Phase, spent: Mapping[str, Spent]) -> float | None:
    """Seconds per unit of a phase; None where nothing tells it."""
    own = spent.get(phase.name, Spent())
    if own.units:
        return own.seconds / own.units
    pace = _pace_of_kind(plan, phase.kind, spent)
    if pace is None and phase.like is not None:
        kind, count = phase.like
        pace = _pace_of_kind(plan, kind, spent)
        return None if pace is None else pace * count
    return pace


def _pace_of_kind(plan: Sequence[Phase], kind: str, spent: Mapping[str, Spent]) -> float | None:
    measured = [spent[phase.name] for phase in plan if phase.kind == kind and phase.name in spent]
    units = sum(each.units for each in measured)
    return sum(each.seconds for each in measured) / units if units else None


def _compiling(plan: Sequence[Phase], kind: str, spent: Mapping[str, Spent]) -> float:
    measured = [spent[phase.name].compiling for phase in plan if phase.kind == kind and phase.name in spent]
    return sum(measured) / len(measured) if measured else 0.0


def in_words(plan: Sequence[Phase], current: int, done: int, spent: Mapping[str, Spent]) -> str:
    """One line about a whole run: "space 2 of 3, search; about 1 h 10 min of 3 h 20 min left in all"."""
    seconds, unknown = time_left(plan, current, done, spent)
    before = sum(each.seconds + each.compiling for each in spent.values())
    title = plan[current].title
    if not seconds and unknown:
        return f"{title}; the time left in all is not measured yet"
    if not unknown:
        return f"{title}; about {duration(seconds)} of {duration(before + seconds)} left in all"
    return f"{title}; about {duration(seconds)} left, besides {', '.join(unknown)} (not measured yet)"


def duration(seconds: float) -> str:
    """A time as people say it, to two units at most: "40 s", "12 min", "3 h 20 min", "2 d 5 h"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = math.floor(seconds / 60 + 0.5)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
