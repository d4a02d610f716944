"""Do inherited weights rank networks as training them does? The paper's Fig. 5, with seeds, intervals and controls.

Architectures sampled from a searched space are measured thrice on the images held out: with the weights that they
inherit from the supernet, fine-tuned from these, and trained from scratch. Training from scratch with another seed does
not give the same ranks either: how well two seeds agree is the most that inherited weights can be asked for.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from rich.console import Console

from s3_jax.config import Config
from s3_jax.cost import Evaluated, sample_within
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath
from s3_jax.remaining import Phase
from s3_jax.space import Architecture
from s3_jax.study.alike import Recipe, SearchedSpace, errors_of_seeds, forget_programs, opened_beside, searched_spaces
from s3_jax.study.statistics import Estimate, bootstrap, kendall, spearman
from s3_jax.task import Variables
from s3_jax.training.devices import replicated
from s3_jax.training.evaluate import EvaluationRecord, error_of_subnets
from s3_jax.training.fit import num_updates
from s3_jax.training.loop import StopRequest
from s3_jax.training.networks import Trained
from s3_jax.training.run import Run

# Fine-tuning is retraining cut short, and gentler; the paper does not say how its networks are fine-tuned.
FINETUNE_EPOCHS = 0.2  # of those of retraining; the same share of its warm-up
FINETUNE_LEARNING_RATE = 0.1  # of that of retraining

MIN_ARCHITECTURES, MIN_SEEDS = 3, 2  # with fewer there are no ranks, or no second seed to compare with
NUM_RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Ranked:
    """One architecture: errors (%) on the images held out, those of trainings with one of each seed."""

    inherited: Evaluated
    finetuned: tuple[float, ...]
    scratch: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """An entry of `networks` in `ranking.json`; its `error` is that with inherited weights."""
        return self.inherited.to_json() | {"finetuned": list(self.finetuned), "scratch": list(self.scratch)}


@dataclasses.dataclass(frozen=True)
class Correlation:
    """How far two ways to rank the same networks agree, over bootstrap resamples of the networks."""

    what: str
    tau: Estimate | None
    rho: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """An entry of `correlations` in `ranking.json`."""
        tau, rho = (each and dataclasses.asdict(each) for each in (self.tau, self.rho))
        return {"what": self.what, "kendall_tau": tau, "spearman_rho": rho}


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What is ranked, and how far the ways to rank agree. error_name: what the task calls its error."""

    space: str
    error_name: str
    networks: tuple[Ranked, ...]
    correlations: tuple[Correlation, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of `ranking.json`."""
        return {
            "space": self.space,
            "error_name": self.error_name,
            "networks": [network.to_json() for network in self.networks],
            "correlations": [correlation.to_json() for correlation in self.correlations],
        }


def rank(
    config: Config,
    search: AnyPath,
    workdir: AnyPath,
    *,
    space: str,
    architectures: int,
    seeds: int,
    console: Console,
    stop: StopRequest,
) -> Ranking:
    """Do in `workdir` what is left of it, and return the ranking, also in `ranking.json`.

    search: the folder of a finished search. space: A, B, C ..., "" for the last. architectures, seeds: how many.
    Raises S3Error for what cannot be asked, and as `opened_beside` does; Interrupted once it has saved on request.
    """
    with opened_beside(config, search, workdir, console=console, stop=stop) as run:
        chosen = _chosen(searched_spaces(search), space)
        if seeds < MIN_SEEDS:
            raise S3Error(f"--seeds={seeds}: expected {MIN_SEEDS} or more, as seeds are compared with each other")
        drawn = _drawn(run, chosen, architectures)
        run.clock.follow(_plan(run, chosen, len(drawn), seeds))
        networks = _networks(run, chosen, drawn, seeds)
        ranking = Ranking(chosen.name, run.task.error_name, networks, correlations(networks))
        run.write_json("ranking.json", ranking.to_json())
    return ranking


def correlations(networks: Sequence[Ranked]) -> tuple[Correlation, ...]:
    """How inherited and fine-tuned weights rank beside training from scratch, the ceiling, and cost as a control."""
    inherited, params, macs = (
        np.array([of(one.inherited) for one in networks])
        for of in (lambda one: one.error, lambda one: -one.cost.params, lambda one: -one.cost.macs)
    )
    finetuned = np.array([network.finetuned for network in networks]).mean(axis=1)
    scratch = np.array([network.scratch for network in networks])
    mean, single = scratch.mean(axis=1), list(scratch.T)
    asked = {
        "inherited, and the mean from scratch": [(inherited, mean)],
        "fine-tuned, and the mean from scratch": [(finetuned, mean)],
        "inherited, and one seed from scratch": [(inherited, each) for each in single],
        "two seeds from scratch (the ceiling)": list(itertools.combinations(single, 2)),
        "parameters, and the mean from scratch": [(params, mean)],
        "multiply-adds, and the mean from scratch": [(macs, mean)],
    }
    return tuple(_correlation(what, pairs) for what, pairs in asked.items())


def _correlation(what: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Correlation:
    def mean(of: Any, places: np.ndarray) -> float | None:
        """The mean over the pairs; None where one of them has no correlation."""
        found = [of(first[places], second[places]) for first, second in pairs]
        return None if None in found else float(np.mean(found))

    count = len(pairs[0][0])
    tau, rho = (bootstrap(partial(mean, of), count, NUM_RESAMPLES) for of in (kendall, spearman))
    return Correlation(what, tau, rho)


def _chosen(spaces: Sequence[SearchedSpace], name: str) -> SearchedSpace:
    found = [space for space in spaces if space.name == (name or spaces[-1].name)]
    if not found:
        raise S3Error(f"--space={name}: the spaces of this search are {', '.join(space.name for space in spaces)}")
    return found[0]


def _drawn(run: Run, chosen: SearchedSpace, count: int) -> list[Architecture]:
    """Different architectures of a space under its samples' limit; a larger count begins with those of a smaller."""
    size, settings = chosen.space.size(), run.config.evolution
    if not MIN_ARCHITECTURES <= count <= size:
        raise S3Error(
            f"--architectures={count}: expected {MIN_ARCHITECTURES} to {size:,}, as many as space {chosen.name} has"
        )
    rng, drawn = run.rng(f"space_{chosen.index}/ranked"), dict[Architecture, None]()
    for _ in range(run.config.search.max_attempts):
        drawn[sample_within(chosen.space, rng, settings.budget, run.task.cost, run.config.search.max_attempts)] = None
        if len(drawn) == count:
            return list(drawn)
    raise S3Error(
        f"--architectures={count}: {run.config.search.max_attempts:,} draws {settings.budget.describe()} from space "
        f"{chosen.name} gave {len(drawn)} different ones; ask for at most so many"
    )


def _recipes(run: Run) -> dict[str, Recipe]:
    """By the names of the phases; errors are of the images held out, so none of them is trained on."""
    splits, scratch = run.task.splits, run.config.retrain.train
    finetune = dataclasses.replace(
        scratch,
        epochs=FINETUNE_EPOCHS * scratch.epochs,
        warmup_epochs=FINETUNE_EPOCHS * scratch.warmup_epochs,
        learning_rate=FINETUNE_LEARNING_RATE * scratch.learning_rate,
    )
    return {
        "finetuned": Recipe(finetune, splits.train, splits.holdout),
        "scratch": Recipe(scratch, splits.train, splits.holdout),
    }


def _plan(run: Run, chosen: SearchedSpace, count: int, seeds: int) -> list[Phase]:
    plan = [Phase(_inherited(chosen), "errors with inherited weights", "evaluation", count)]
    for number in range(count):
        for kind, recipe in _recipes(run).items():
            title, updates = f"network {number + 1} of {count}, {kind}", num_updates(recipe.settings, recipe.trained_on)
            name = f"{_network(chosen, number)}/{kind}"
            plan += [Phase(f"{name}_{seed}", f"{title}, seed {seed}", "an update", updates) for seed in range(seeds)]
    return plan


def _networks(run: Run, chosen: SearchedSpace, drawn: Sequence[Architecture], seeds: int) -> tuple[Ranked, ...]:
    supernet = chosen.supernet(run)
    evaluated = _evaluated(run, chosen, supernet, drawn)
    ranked = []
    for number, one in enumerate(evaluated):

        def inherited(architecture: Architecture = one.architecture) -> Variables:
            """What the supernet has for it."""
            cut = partial(run.task.sliced, space=chosen.space, architecture=architecture)
            return supernet.variables._replace(params=jax.jit(cut, out_shardings=replicated(run.mesh))(supernet.params))

        begin = {"finetuned": inherited, "scratch": None}
        errors = {
            kind: errors_of_seeds(
                run, f"{_network(chosen, number)}/{kind}", one.architecture, seeds, recipe, begin[kind]
            )
            for kind, recipe in _recipes(run).items()
        }
        ranked.append(Ranked(one, tuple(errors["finetuned"]), tuple(errors["scratch"])))
        forget_programs(run)
    return tuple(ranked)


def _evaluated(run: Run, chosen: SearchedSpace, supernet: Trained, drawn: Sequence[Architecture]) -> list[Evaluated]:
    path = run.workdir / f"space_{chosen.index}" / "inherited.jsonl"
    record = EvaluationRecord(run, path, lambda: error_of_subnets(run, supernet, run.task.splits.holdout))
    evaluated = []
    with run.clock.phase(_inherited(chosen), len(drawn)) as advance:
        for architecture in drawn:
            evaluated.append(record(architecture))
            advance(len(evaluated), f"error {evaluated[-1].error:.2f} %")
    record.flush()
    return evaluated


def _inherited(chosen: SearchedSpace) -> str:
    return f"space_{chosen.index}/inherited"


def _network(chosen: SearchedSpace, number: int) -> str:
    return f"space_{chosen.index}/network_{number}"
