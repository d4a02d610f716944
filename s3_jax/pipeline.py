"""The phases of a run: supernet, E-T Error, evolution and search in every space, then retraining of the best.

Every phase reads files and writes files. A phase whose result is there is not done again; one that was cut short goes
on from its last checkpoint or record. So the same command always completes the run, whatever stopped it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
from rich.console import Console

from s3_jax import search
from s3_jax.config import Config
from s3_jax.cost import Evaluated, check_budget, sample_within
from s3_jax.errors import S3Error
from s3_jax.et_error import check_sampled
from s3_jax.evolution import check_size, evolve, merge_windows, space_name
from s3_jax.models.subnet import copy_overlap
from s3_jax.paths import AnyPath
from s3_jax.progress import say
from s3_jax.remaining import Phase
from s3_jax.space import Architecture, SearchSpace, map_sizes
from s3_jax.task import Variables, open_task
from s3_jax.training.devices import replicated
from s3_jax.training.evaluate import EvaluationRecord, error_of_network, error_of_subnets
from s3_jax.training.fit import fit, initial_variables, num_updates
from s3_jax.training.loop import StopRequest
from s3_jax.training.networks import Trained
from s3_jax.training.records import read_record
from s3_jax.training.run import Run
from s3_jax.training.start import opened_workdir, record_start, start_run

# The phase that comes last.
TEST = "test of inherited weights"
# What its line of progress calls a score, where that is not the score's name.
_ON_THE_LINE = {"accuracy": "right"}


def run_pipeline(config: Config, workdir: AnyPath, *, console: Console, stop: StopRequest) -> dict[str, Any]:
    """Do all phases of a run that are not done yet in `workdir`, and return its result (also in `result.json`).

    Raises S3Error for a mistake in the settings, the data or the folder; Interrupted once it has saved on request.
    """
    with opened_workdir(workdir, config):
        if (workdir / "result.json").exists():
            say(console, f"This run is finished: there is nothing to do. Its result is in {workdir / 'result.json'}")
            return read_record(workdir / "result.json", _checked_result)
        return _run(_start(config, workdir, console, stop))


def _checked_result(result: Any) -> dict[str, Any]:
    for row in result["spaces"]:
        Evaluated.from_json(row["best"])
    Architecture.from_json(result["winner"]["architecture"])
    return result


def _run(run: Run) -> dict[str, Any]:
    try:
        spaces = [_search_space(run, index) for index in range(run.config.evolution.num_spaces)]
        trained = {index: _retrain(run, index, spaces[index]) for index in _retrained(run.config)}
        result = _result(run, spaces, trained)
    finally:
        run.metrics.close()
    run.write_json("result.json", result)
    return result


def _start(config: Config, workdir: AnyPath, console: Console, stop: StopRequest) -> Run:
    task = open_task(config)
    run = start_run(config, task, workdir, console, stop)
    space = config.space.build()
    model = config.model
    clamped = space.clamped(map_sizes(model.image_size, model.patch_size, len(space.stages)))
    for budget in (config.evolution.budget, config.search.budget):
        check_budget(clamped, budget, task.cost)
    check_size(clamped, config.evolution.max_space_size)
    _samples(run, 0, clamped)
    record_start(run)
    run.clock.follow(_plan(run))
    return run


def _plan(run: Run) -> list[Phase]:
    """The phases of a run in the order in which they come, and how much work each is."""
    config, task, plan = run.config, run.task, []
    spaces, search_config = config.evolution.num_spaces, config.search
    for index in range(spaces):
        name, title = f"space_{index}", f"space {index + 1} of {spaces}"
        updates, evaluations = (
            num_updates(config.train, task.splits.train),
            ("evaluation", float(search_config.population)),
        )
        plan += [
            Phase(name, f"{title}, supernet", "the supernet's training", updates),
            Phase(f"{name}/samples", f"{title}, E-T Error", "evaluation", config.evolution.num_samples),
            Phase(f"{name}/search", f"{title}, search", "search", search_config.generations, like=evaluations),
        ]
    updates = num_updates(config.retrain.train, task.splits.train_and_holdout)
    for index in _retrained(config):
        name = space_name(index)
        plan.append(Phase(f"retrain/best_{name}", f"retraining of {name}'s best", "retraining", updates))
    return [*plan, Phase(TEST, TEST, "test", spaces)]


def _retrained(config: Config) -> Sequence[int]:
    """The spaces whose best is retrained."""
    spaces = config.evolution.num_spaces
    return range(spaces) if config.retrain.all_spaces else [spaces - 1]


def _search_space(run: Run, index: int) -> SearchSpace:
    """Everything that is done in one space: supernet, E-T Error, the next space, search. Returns the space."""
    folder = run.workdir / f"space_{index}"
    space = _load_space(run, index)
    last = index + 1 == run.config.evolution.num_spaces
    measured = run.has(f"space_{index}/et_error.json") and (last or run.has(f"space_{index + 1}/space.json"))
    if measured and run.has(f"space_{index}/search/best.json"):
        return space
    samples = () if measured else _samples(run, index, space)
    network = _supernet(run, index, space)
    record = EvaluationRecord(
        run, folder / "evaluated.jsonl", lambda: error_of_subnets(run, network, run.task.splits.holdout)
    )
    if not measured:
        _measure(run, index, space, samples, record)
    _search(run, index, space, record)
    return space


def _load_space(run: Run, index: int) -> SearchSpace:
    name = f"space_{index}/space.json"
    if not run.has(name):  # only of the first: `_search_space` has just measured the space before any other
        space, notes = merge_windows(run.config.space.build(), run.map_sizes)
        _write_space(run, index, space, notes)
        return space
    return read_record(run.workdir / name, lambda record: SearchSpace.from_json(record["space"]))


def _samples(run: Run, index: int, space: SearchSpace) -> tuple[Architecture, ...]:
    """The architectures that measure a space: they do not depend on weights, so they are checked before any training.

    Raises S3Error where the budget admits none, or where some choice of the space is in none of them.
    """
    settings, rng = run.config.evolution, run.rng(f"space_{index}/samples")
    attempts = run.config.search.max_attempts
    with _advice_for_a_bound_folder(run, bound=index > 0):
        draw = partial(sample_within, space, rng, settings.budget, run.task.cost, attempts)
        samples = [draw() for _ in range(settings.num_samples)]
        check_sampled(space, samples)
    return tuple(samples)


@contextmanager
def _advice_for_a_bound_folder(run: Run, *, bound: bool = True) -> Iterator[None]:
    """Advice to change settings, where the folder keeps those that it has."""
    try:
        yield
    except S3Error as error:
        if not bound:
            raise
        raise S3Error(
            f"{error}. This was found by the space that has evolved. {run.workdir} keeps the settings that it was "
            "started with: give others with another --workdir"
        ) from error


def _write_space(run: Run, index: int, space: SearchSpace, notes: list[str]) -> None:
    record = {"iteration": index, "name": space_name(index), "space": space.to_json(), "size": space.size()}
    run.write_json(f"space_{index}/space.json", record | {"notes": notes})


def _supernet(run: Run, index: int, space: SearchSpace) -> Trained:
    phase = f"space_{index}"

    def initial() -> Variables:
        """What the task begins with, over it the weights of the space before, as set."""
        fresh = initial_variables(run, phase, space)
        if not run.config.evolution.init_from_previous or index == 0:
            return fresh
        before = _supernet(run, index - 1, _load_space(run, index - 1))
        return fresh._replace(params=copy_overlap(before.params, fresh.params))

    return fit(run, phase, space, run.config.train, run.task.splits.train, initial)


def _measure(
    run: Run, index: int, space: SearchSpace, samples: Sequence[Architecture], record: EvaluationRecord
) -> None:
    """Evaluate the sampled architectures and write what follows from them: the E-T Error and the next space."""
    settings, phase = run.config.evolution, f"space_{index}"
    evaluated = _evaluate(run, f"{phase}/samples", samples, record)
    last = index + 1 == settings.num_spaces
    with _advice_for_a_bound_folder(run):
        evolution = evolve(space, evaluated, settings, map_sizes=run.map_sizes, seed=run.config.seed, record_only=last)
        for budget in () if last else (settings.budget, run.config.search.budget):
            check_budget(evolution.space, budget, run.task.cost)
    if not last:
        _write_space(run, index + 1, evolution.space, list(evolution.notes))
    run.write_json(f"{phase}/et_error.json", evolution.to_json())


def _search(run: Run, index: int, space: SearchSpace, record: EvaluationRecord) -> None:
    folder = f"space_{index}/search"
    config = run.config.search
    state = search.init(space, config, seed=run.config.seed)
    if run.has(f"{folder}/state.json"):
        begun = state
        state = read_record(run.workdir / folder / "state.json", lambda record: _search_of(begun, record))
    with run.clock.phase(f"space_{index}/search", config.generations, state.generation) as advance:
        while not state.finished:
            evaluated = [record(architecture) for architecture in search.ask(state, run.task.cost)]
            state = search.tell(state, evaluated)
            record.flush()
            run.write_json(f"{folder}/state.json", state.to_json())
            advance(state.generation, f"best error {search.best(state).error:.2f} %")
    run.write_json(f"{folder}/best.json", search.best(state).to_json())


def _search_of(begun: search.SearchState, record: Any) -> search.SearchState:
    """The state of a record. Raises S3Error where it is of another search than the one begun."""
    state = search.SearchState.from_json(record)
    if (state.space, state.config, state.seed) != (begun.space, begun.config, begun.seed):
        raise S3Error("it is of a search in another space, or with other settings")
    return state


def _evaluate(run: Run, title: str, architectures: Sequence[Architecture], record: EvaluationRecord) -> list[Evaluated]:
    evaluated, distinct = [], set(architectures)
    count = sum(map(record.has, distinct))  # those that are known take no time
    with run.clock.phase(title, len(distinct), count) as advance:
        for architecture in architectures:
            count += not record.has(architecture)
            evaluated.append(record(architecture))
            advance(count, f"error {evaluated[-1].error:.2f} %")
    record.flush()
    return evaluated


def _best(run: Run, index: int) -> Evaluated:
    return read_record(run.workdir / f"space_{index}" / "search" / "best.json", Evaluated.from_json)


def _retrain(run: Run, index: int, space: SearchSpace) -> float:
    """Train the best architecture of a space on all of train. Returns its score in percent on the test split."""
    phase = f"retrain/best_{space_name(index)}"
    if run.has(f"{phase}/result.json"):
        return read_record(run.workdir / phase / "result.json", lambda record: float(record["test_accuracy"]))
    best, settings = _best(run, index), run.config.retrain
    run.write_json(f"{phase}/architecture.json", best.architecture.to_json())

    def inherited() -> Variables:
        """What the trained supernet has for it, or one that has just begun with the weights of init_from."""
        trained = settings.from_supernet
        supernet = _supernet(run, index, space).variables if trained else initial_variables(run, phase, space)
        cut = partial(run.task.sliced, space=space, architecture=best.architecture)
        return supernet._replace(params=jax.jit(cut, out_shardings=replicated(run.mesh))(supernet.params))

    initial = inherited if settings.from_supernet or run.config.train.init_from else None
    network = fit(run, phase, best.architecture, settings.train, run.task.splits.train_and_holdout, initial)
    score = 100.0 - error_of_network(run, network, run.task.splits.test, best.architecture)
    run.write_json(f"{phase}/result.json", best.to_json() | {"test_accuracy": score, "split": "test"})
    return score


def _result(run: Run, spaces: list[SearchSpace], trained: Mapping[int, float]) -> dict[str, Any]:
    """The run's result; the test split is used here and after retraining, and nowhere else."""
    rows, score_name = [], run.task.score_name
    with run.clock.phase(TEST, len(spaces)) as advance:
        for index, space in enumerate(spaces):
            best = _best(run, index)
            inherited = 100.0 - error_of_network(
                run, _supernet(run, index, space), run.task.splits.test, best.architecture
            )
            measured = read_record(run.workdir / f"space_{index}" / "et_error.json", lambda record: record["space"])
            scores = {"test_accuracy_inherited": inherited, "test_accuracy": trained.get(index)}
            best_row = best.to_json() | scores
            rows.append({"name": space_name(index), "size": space.size(), "et_error": measured, "best": best_row})
            advance(index + 1, f"{inherited:.2f} % {_ON_THE_LINE.get(score_name, score_name)}")
    last = rows[-1]
    kept = ("architecture", "params", "macs", "test_accuracy")
    winner = {"space": last["name"]} | {name: last["best"][name] for name in kept}
    result = {"seed": run.config.seed, "dataset": run.task.record(), "spaces": rows, "winner": winner}
    return json.loads(json.dumps(result | run.task.names()))
