"""Best against best: networks that different ways of designing have come to, all trained from scratch alike.

The best of every space of a finished search (the paper's Table 5), the best of as many architectures drawn at random
from the first space as its search has evaluated, and a Swin-like network of the cost of the last space's best.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from s3_jax.config import Config
from s3_jax.cost import Cost, Evaluated, sample_within
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath
from s3_jax.remaining import Phase
from s3_jax.search import SearchState
from s3_jax.space import Architecture
from s3_jax.study.alike import Recipe, SearchedSpace, errors_of_seeds, forget_programs, opened_beside, searched_spaces
from s3_jax.study.statistics import Estimate, difference_of_groups, means_of_groups
from s3_jax.study.uniform import swin_like
from s3_jax.training.evaluate import EvaluationRecord, error_of_subnets
from s3_jax.training.fit import num_updates
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import read_record
from s3_jax.training.run import Run

_RANDOM = "random_search"


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A network, how it was come to, and its error (%) with inherited weights where it has been chosen by that."""

    name: str  # its folder
    title: str
    architecture: Architecture
    cost: Cost
    inherited: float | None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A network's test scores (%), one of each seed, their mean, and what that is less the last space's best's."""

    contestant: Contestant
    scores: tuple[float, ...]
    mean: Estimate
    difference: Estimate | None  # None for that one itself

    def to_json(self) -> dict[str, Any]:
        """An entry of `networks` in `best.json`."""
        one = self.contestant
        return {
            "name": one.name,
            "title": one.title,
            "architecture": one.architecture.to_json(),
            "params": one.cost.params,
            "macs": one.cost.macs,
            "error_inherited": one.inherited,
            "test_scores": list(self.scores),
            "mean": dataclasses.asdict(self.mean),
            "difference": self.difference and dataclasses.asdict(self.difference),
        }


def compare_bests(
    config: Config, search: AnyPath, workdir: AnyPath, *, seeds: int, console: Console, stop: StopRequest
) -> list[Outcome]:
    """Do in `workdir` what is left of it. Returns the outcomes, also in `best.json`.

    search: the folder of a finished search. Raises S3Error for what cannot be asked, and as `opened_beside` does;
    Interrupted once it has saved on request.
    """
    if seeds < 1:
        raise S3Error(f"--seeds={seeds}: expected 1 or more")
    with opened_beside(config, search, workdir, console=console, stop=stop) as run:
        spaces, splits = searched_spaces(search), run.task.splits
        recipe = Recipe(config.retrain.train, splits.train_and_holdout, splits.test)
        run.clock.follow(_plan(run, recipe, [*(f"best_{space.name}" for space in spaces), _RANDOM, "swin_like"], seeds))
        contestants = _contestants(run, spaces)
        scores = [_scores(run, one, seeds, recipe) for one in contestants]
        outcomes = outcomes_of(contestants, scores, best=len(spaces) - 1)
        run.write_json("best.json", {"networks": [one.to_json() for one in outcomes], **run.task.names()})
    return outcomes


def outcomes_of(contestants: Sequence[Contestant], scores: Sequence[Sequence[float]], best: int) -> list[Outcome]:
    """Scores (contestants, seeds) with means and differences. best: the place of the one that others are compared to.

    Intervals are Student's, of the deviation over seeds that all networks share.
    """
    means = means_of_groups(scores)
    differences = [
        None if place == best else difference_of_groups(scores, place, best) for place in range(len(contestants))
    ]
    return [
        Outcome(one, tuple(own), mean, difference)
        for one, own, mean, difference in zip(contestants, scores, means, differences, strict=True)
    ]


def _scores(run: Run, contestant: Contestant, seeds: int, recipe: Recipe) -> list[float]:
    errors = errors_of_seeds(run, f"{contestant.name}/seed", contestant.architecture, seeds, recipe)
    forget_programs(run)
    return [100.0 - error for error in errors]


def _contestants(run: Run, spaces: Sequence[SearchedSpace]) -> list[Contestant]:
    found = [_best_of(space) for space in spaces]
    drawn = _random_search(run, spaces[0])
    by_hand = swin_like(found[-1].cost, run.task.cost, run.map_sizes)
    title = f"Swin-like, at {spaces[-1].name}'s cost"
    hand = Contestant("swin_like", title, by_hand, run.task.cost(by_hand), None)
    return [*found, drawn, hand]


def _best_of(space: SearchedSpace) -> Contestant:
    best = read_record(space.folder / "search" / "best.json", Evaluated.from_json)
    return Contestant(f"best_{space.name}", f"{space.name}'s best", best.architecture, best.cost, best.error)


def _random_search(run: Run, first: SearchedSpace) -> Contestant:
    """The best of as many architectures, drawn at random under the search's budget, as its search has evaluated."""
    state = read_record(first.folder / "search" / "state.json", SearchState.from_json)
    settings, rng = run.config.search, run.rng(f"{_RANDOM}/draws")
    path = run.workdir / _RANDOM / "evaluated.jsonl"
    record = EvaluationRecord(run, path, lambda: error_of_subnets(run, first.supernet(run), run.task.splits.holdout))
    evaluated = []
    with run.clock.phase(f"{_RANDOM}/evaluations", len(state.evaluated)) as advance:
        for number in range(len(state.evaluated)):
            drawn = sample_within(first.space, rng, settings.budget, run.task.cost, settings.max_attempts)
            evaluated.append(record(drawn))
            advance(number + 1, f"error {evaluated[-1].error:.2f} %")
    record.flush()
    best = min(evaluated, key=lambda one: one.error)
    title = f"random search in {first.name}"
    return Contestant(_RANDOM, title, best.architecture, best.cost, best.error)


def _plan(run: Run, recipe: Recipe, names: Sequence[str], seeds: int) -> list[Phase]:
    updates, evaluations = num_updates(recipe.settings, recipe.trained_on), run.config.search.population
    plan = [Phase(f"{_RANDOM}/evaluations", "random search", "evaluation", evaluations)]
    for number, name in enumerate(names, 1):
        title = f"network {number} of {len(names)}"
        plan += [Phase(f"{name}/seed_{seed}", f"{title}, seed {seed}", "an update", updates) for seed in range(seeds)]
    return plan


def deviation_between_seeds(outcomes: Sequence[Outcome]) -> float:
    """The standard deviation (%) of one network's score from seed to seed, over all networks; 0 of one seed."""
    return (
        float(np.sqrt(np.mean([np.var(one.scores, ddof=1) for one in outcomes])))
        if len(outcomes[0].scores) > 1
        else 0.0
    )
