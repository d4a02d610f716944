"""How a space's choices move: the rule of the paper (Eq. 8), and the controls that a study compares it with.

An arm is a function from a space and its context to the next space. `measured` follows the slopes; the others do not:
`random` moves as many dimensions as far, `grow` moves every dimension up as far as the budget lets, `still` keeps the
space, and `prune` drops choices until the space is as small. What evolution by slopes is worth is what it gains over
these.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from s3_jax.errors import S3Error
from s3_jax.space import DIMENSIONS, Choice, SearchSpace, StageSpace

_CHOICE_DECIMALS = 6  # choices have a few decimals; sums of floats leave dirt in the last digits

Steps = tuple[int | None, ...]  # of every stage and dimension in order, those that move choices down; None: one choice


class NextSpace(NamedTuple):
    """What an arm makes of a space: the next one, the steps by which each dimension moved, and notes."""

    space: SearchSpace
    steps: Steps
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class MeasuredStep:
    """What the arm `measured` did at one iteration: its steps, and the space they led to."""

    steps: Steps
    space: SearchSpace

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> MeasuredStep:
        """That of an `et_error.json`. Raises S3Error where the record is none."""
        dimensions = sorted(record["dimensions"], key=_place)
        stages = [list(group) for _, group in itertools.groupby(dimensions, lambda one: one["stage"])]
        space = {"stages": [{one["dimension"]: one["next_choices"] for one in stage} for stage in stages]}
        return cls(tuple(one["steps"] for one in dimensions), SearchSpace.from_json(space))


@dataclasses.dataclass(frozen=True)
class Context:
    """What an arm may go by.

    steps: those of Eq. 8. step_of: the step gamma of a dimension. rng: of the run's seed and the iteration. measured:
    what the arm `measured` did in another run of the same seed at the same iteration; None where there is no such run.
    fits: whether every choice of a space can be measured by architectures under the budget.
    """

    steps: Steps
    step_of: Callable[[str], Choice]
    rng: np.random.Generator
    measured: MeasuredStep | None = None
    fits: Callable[[SearchSpace], bool] = lambda space: True


Arm = Callable[[SearchSpace, Context], NextSpace]


def move(choices: Sequence[Choice], steps: int, step: Choice) -> tuple[tuple[Choice, ...], tuple[Choice, ...]]:
    """The choices v - steps * gamma that are above 0, and those that are not and are dropped (Eq. 8).

    If all would be dropped, the smallest valid value is returned: the smallest value above 0 that whole steps reach
    from the choices. It is where the last choice would be if it had moved down only as far as it can, so a steeper
    slope never leaves larger choices than a gentler one.
    """
    moved = [round(choice - steps * step, _CHOICE_DECIMALS) for choice in choices]
    kept = tuple(choice for choice in moved if choice > 0)
    dropped = tuple(choice for choice in moved if choice <= 0)
    return kept or (_smallest_valid(choices, step),), dropped


def move_space(space: SearchSpace, steps: Steps, step_of: Callable[[str], Choice]) -> NextSpace:
    """The space with the choices of every dimension moved down by its steps, and notes on those that are dropped."""
    stages: list[dict[str, Any]] = [{} for _ in space.stages]
    notes = []
    for (stage, dimension), count in zip(places(space), steps, strict=True):
        before = choices = space.stages[stage].choices(dimension)
        if count is not None:
            choices, dropped = move(before, count, step_of(dimension))
            notes += _note_dropped(f"stage {stage + 1} {dimension}", len(before), choices, dropped)
        stages[stage][dimension] = choices
    return NextSpace(SearchSpace(tuple(StageSpace(**stage) for stage in stages)), steps, notes)


def places(space: SearchSpace) -> list[tuple[int, str]]:
    """Every (stage, dimension) of a space, in the order of `Steps`."""
    return list(itertools.product(range(len(space.stages)), DIMENSIONS))


def _measured(space: SearchSpace, context: Context) -> NextSpace:
    """As the slopes say (Eq. 8)."""
    return move_space(space, context.steps, context.step_of)


def _random(space: SearchSpace, context: Context) -> NextSpace:
    """As many dimensions as the measured arm moved, by the same numbers of steps; which and whereto is drawn.

    Dimensions with one choice stay, as they do under Eq. 8.
    """
    sizes = [abs(count) for count in _known(context, "random").steps if count]
    movable = [place for place, count in enumerate(context.steps) if count is not None]
    chosen = context.rng.permutation(movable)[: len(sizes)].tolist()
    signs = context.rng.choice((-1, 1), len(chosen)).tolist()
    drawn = dict(zip(chosen, (sign * size for sign, size in zip(signs, sizes, strict=False)), strict=True))
    steps = tuple(None if count is None else drawn.get(place, 0) for place, count in enumerate(context.steps))
    moved = move_space(space, steps, context.step_of)
    if len(chosen) == len(sizes):
        return moved
    short = f"the measured arm moved {len(sizes)} dimensions, and here only {len(chosen)} have more than one choice"
    return moved._replace(notes=[short, *moved.notes])


def _grow(space: SearchSpace, context: Context) -> NextSpace:
    """Every dimension with more than one choice one step up, in a drawn order, unless the space would not fit then."""
    steps, staying = [None if count is None else 0 for count in context.steps], []
    for place in context.rng.permutation([place for place, count in enumerate(steps) if count is not None]).tolist():
        tried = [*steps[:place], -1, *steps[place + 1 :]]
        if context.fits(move_space(space, tuple(tried), context.step_of).space):
            steps = tried
        else:
            staying.append(place)
    names = [f"stage {stage + 1} {name}" for stage, name in (places(space)[place] for place in sorted(staying))]
    notes = [f"cannot grow under evolution.budget, so that they stay: {', '.join(names)}"] if names else []
    grown = move_space(space, tuple(steps), context.step_of)
    return grown._replace(notes=[*notes, *grown.notes])


def _still(space: SearchSpace, context: Context) -> NextSpace:
    """The same space."""
    return NextSpace(space, tuple(None if count is None else 0 for count in context.steps), [])


def _prune(space: SearchSpace, context: Context) -> NextSpace:
    """Choices dropped at random, never the last of a dimension, until |A| is at most that of the measured arm."""
    wanted, kept, notes = _known(context, "prune").space.size(), space, []
    while kept.size() > wanted:
        several = [(stage, name) for stage, name in places(kept) if len(kept.stages[stage].choices(name)) > 1]
        every = [(stage, name, choice) for stage, name in several for choice in kept.stages[stage].choices(name)]
        if not every:
            notes.append(f"one architecture is left, and the measured arm's space has {wanted:,}")
            break
        stage, name, choice = every[int(context.rng.integers(len(every)))]
        kept = kept.replace(stage, name, [one for one in kept.stages[stage].choices(name) if one != choice])
        notes.append(f"stage {stage + 1} {name}: {choice} dropped at random")
    return NextSpace(kept, _still(space, context).steps, notes)


# The arms by the names that `evolution.arm` gives them.
ARMS: dict[str, Arm] = {"measured": _measured, "random": _random, "grow": _grow, "still": _still, "prune": _prune}
# Those that go by what the measured arm of the same seed did.
AFTER_MEASURED = ("random", "prune")


def _known(context: Context, arm: str) -> MeasuredStep:
    if context.measured is None:
        raise S3Error(
            f"the arm {arm} goes by what the arm measured did, which is not given; see evolution.measured_run"
        )
    return context.measured


def _place(record: Mapping[str, Any]) -> tuple[int, int]:
    return record["stage"], DIMENSIONS.index(record["dimension"])


def _smallest_valid(choices: Sequence[Choice], step: Choice) -> Choice:
    return min(round(choice % step, _CHOICE_DECIMALS) or step for choice in choices)


def _note_dropped(name: str, count: int, choices: Sequence[Choice], dropped: Sequence[Choice]) -> list[str]:
    if not dropped:
        return []
    listed = ", ".join(map(str, dropped))
    if len(dropped) == count:
        return [f"{name}: all of {listed} would be dropped; the smallest valid value {choices[0]} stays"]
    return [f"{name}: {listed} dropped, not above 0"]
