"""Evolutionary search of the best architecture of a space under a budget, as ask and tell (settings: SPOS, AutoFormer).

A generation is `population` architectures that no generation had before: mutations of the best so far, crossovers of
the best so far, and random ones to fill it up; the first generation is random throughout. The search knows no network:

    state = init(space, config, seed=0)
    while not state.finished:
        state = tell(state, evaluate(ask(state, cost_of)))
    winner = best(state)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from s3_jax.cost import Budget, CostOf, Evaluated, sample_within
from s3_jax.errors import S3Error
from s3_jax.limits import Count, CountOrNone, Limit, Probability, check_fields, require
from s3_jax.space import Architecture, SearchSpace, cross, mutate, sample

# Where the best are alike, their offspring is mostly known already. When this many draws per wanted mutant or child
# (AutoFormer's number), all in a row, give none that is new, random architectures take the remaining places.
_BREEDING_DRAWS = 10


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Evolutionary search in a space (SPOS and AutoFormer settings). Raises S3Error for a setting that cannot be."""

    population: Count = 50
    generations: Count = 20
    top: Count = 10  # parents
    mutations: CountOrNone = 25
    crossovers: CountOrNone = 25
    mutation_probability: Probability = 0.2
    stage_mutation_probability: Probability = 0.4  # of depth and embed_dim
    max_attempts: Count = 10_000  # draws before a budget is declared unreachable
    budget: Budget = Budget()

    def __post_init__(self) -> None:
        check_fields(self, "search")
        bred = self.mutations + self.crossovers
        enough = Limit(f"mutations + crossovers = {bred} or more", lambda population: population >= bred)
        require("search", "population", self.population, enough)


@dataclasses.dataclass(frozen=True)
class SearchState:
    """All that a search needs to go on after a stop: what it searches, how, and what it has seen."""

    space: SearchSpace
    config: SearchConfig
    seed: int
    generation: int = 0  # generations told
    exhausted: bool = False  # no architecture is left that is new and under the budget
    evaluated: tuple[Evaluated, ...] = ()  # in the order in which they were told
    notes: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the generations are all told, or the space is exhausted."""
        return self.exhausted or self.generation >= self.config.generations

    def to_json(self) -> dict[str, Any]:
        """The state as plain lists and numbers."""
        return {
            "space": self.space.to_json(),
            "config": dataclasses.asdict(self.config),
            "seed": self.seed,
            "generation": self.generation,
            "exhausted": self.exhausted,
            "evaluated": [evaluated.to_json() for evaluated in self.evaluated],
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> SearchState:
        """The state of a record that `to_json` made. Raises S3Error where the record is not one."""
        try:
            return cls(
                space=SearchSpace.from_json(record["space"]),
                config=SearchConfig(**{**record["config"], "budget": Budget(**record["config"]["budget"])}),
                seed=record["seed"],
                generation=record["generation"],
                exhausted=record["exhausted"],
                evaluated=tuple(Evaluated.from_json(evaluated) for evaluated in record["evaluated"]),
                notes=tuple(record["notes"]),
            )
        except (KeyError, TypeError) as error:
            fields = ", ".join(field.name for field in dataclasses.fields(cls))
            raise S3Error(f"not a record of a search: {error!r}; expected {fields}") from error


def init(space: SearchSpace, config: SearchConfig = SearchConfig(), *, seed: int) -> SearchState:
    """A search that has not seen anything yet; the seed and the generation's number give all its randomness."""
    return SearchState(space, config, seed)


def ask(state: SearchState, cost_of: CostOf) -> tuple[Architecture, ...]:
    """The next generation to evaluate: architectures of the space, under the budget, none proposed before.

    The same state always gives the same proposals. There are fewer than `population`, or none, where `max_attempts`
    draws find nothing new. Raises S3Error, naming the budget and the cheapest network, where the first generation finds
    nothing at all.
    """
    if state.finished:
        return ()
    space, config = state.space, state.config
    rng = np.random.default_rng([state.seed, state.generation])
    seen = {evaluated.architecture for evaluated in state.evaluated}
    parents = [evaluated.architecture for evaluated in sorted(state.evaluated, key=_rank)[: config.top]]

    def new(draw: Callable[[], Architecture], count: int, patience: int) -> list[Architecture]:
        """Architectures that are within the budget and were not seen."""
        return _draw_new(draw, count, seen, lambda one: config.budget.admits(cost_of(one)), patience)

    if parents:
        mutant = functools.partial(_mutant, space, parents, rng, config)
        proposals = new(mutant, config.mutations, _BREEDING_DRAWS * config.mutations)
    else:  # says what is wrong where the budget is out of reach
        proposals = new(lambda: sample_within(space, rng, config.budget, cost_of, config.max_attempts), 1, 1)
    if len(parents) > 1:
        child = functools.partial(_child, parents, rng)
        proposals += new(child, config.crossovers, _BREEDING_DRAWS * config.crossovers)
    return (*proposals, *new(lambda: sample(space, rng), config.population - len(proposals), config.max_attempts))


def tell(state: SearchState, evaluated: Sequence[Evaluated]) -> SearchState:
    """The state after a generation: the proposals of `ask` with their errors; none at all says that none was left.

    Raises S3Error for an architecture that the search cannot have proposed, and for a search that is finished.
    """
    if state.finished:
        raise S3Error(f"the search is finished after {state.generation} generations; start another with init")
    _check_told(state, evaluated)
    total = len(state.evaluated) + len(evaluated)
    return dataclasses.replace(
        state,
        generation=state.generation + 1,
        exhausted=not evaluated or total == state.space.size(),
        evaluated=(*state.evaluated, *evaluated),
        notes=(*state.notes, *_note_shortage(state, len(evaluated), total)),
    )


def best(state: SearchState) -> Evaluated:
    """The lowest error of all evaluated; of equal errors the fewest parameters, then the fewest MACs, then the first.

    Raises S3Error where nothing is evaluated yet.
    """
    if not state.evaluated:
        raise S3Error(
            "the search has evaluated nothing yet, so it has no best architecture; tell it a generation first"
        )
    return min(state.evaluated, key=_rank)


def _rank(evaluated: Evaluated) -> tuple[float, int, int]:
    return evaluated.error, evaluated.cost.params, evaluated.cost.macs


def _draw_new(
    draw: Callable[[], Architecture],
    count: int,
    seen: set[Architecture],
    fits: Callable[[Architecture], bool],
    patience: int,
) -> list[Architecture]:
    """Up to `count` drawn architectures that are not in `seen`, which they join, and that fit.

    Ends early when `patience` draws in a row give none.
    """
    found: list[Architecture] = []
    while len(found) < count:
        drawn = (draw() for _ in range(patience))
        new = next((one for one in drawn if one not in seen and fits(one)), None)
        if new is None:
            break
        found.append(new)
        seen.add(new)
    return found


def _mutant(
    space: SearchSpace, parents: Sequence[Architecture], rng: np.random.Generator, config: SearchConfig
) -> Architecture:
    return mutate(
        space,
        parents[int(rng.integers(len(parents)))],
        rng,
        probability=config.mutation_probability,
        stage_probability=config.stage_mutation_probability,
    )


def _child(parents: Sequence[Architecture], rng: np.random.Generator) -> Architecture:
    first, second = rng.choice(len(parents), size=2, replace=False)
    return cross(parents[int(first)], parents[int(second)], rng)


def _check_told(state: SearchState, evaluated: Sequence[Evaluated]) -> None:
    seen = {one.architecture for one in state.evaluated}
    for one in evaluated:
        if one.architecture in seen:
            raise S3Error(f"this architecture is evaluated already: {one.architecture}; tell each proposal of ask once")
        if not state.space.contains(one.architecture):
            raise S3Error(f"this architecture is not of the space that is searched: {one.architecture}")
        if not state.config.budget.admits(one.cost):
            raise S3Error(f"{one.cost} is not {state.config.budget.describe()}; tell only what ask proposed")
        seen.add(one.architecture)


def _note_shortage(state: SearchState, told: int, total: int) -> list[str]:
    wanted = state.config.population
    if told >= wanted:
        return []
    if total == state.space.size():
        reason = f"all {total:,} architectures of the space are evaluated"
    else:
        reason = f"{state.config.max_attempts:,} draws found no other {state.config.budget.describe()}"
    return [f"generation {state.generation + 1}: {told} of {wanted} new architectures; {reason}"]
