"""The phases of a run: supernet, E-T Error, evolution and search in every space, then retraining of the best.

Every phase reads files and writes files. A phase whose result is there is not done again; one that was cut short goes
on from its last checkpoint or record. So the same command always completes the run, whatever stopped it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
from rich.console import Console

from s3_jax import search
from s3_jax.config import Config
from s3_jax.cost import Evaluated, check_budget
from s3_jax.errors import S3Error
from s3_jax.evolution import check_size, space_name
from s3_jax.measured_run import measured_steps
from s3_jax.measuring import draw_samples, load_space, measure, plan_of_space, supernet
from s3_jax.paths import AnyPath
from s3_jax.progress import say
from s3_jax.remaining import Phase, in_words
from s3_jax.space import Architecture, SearchSpace, map_sizes
from s3_jax.task import Variables, open_task
from s3_jax.training.clock import InWords
from s3_jax.training.devices import replicated
from s3_jax.training.evaluate import EvaluationRecord, error_of_network, error_of_subnets
from s3_jax.training.fit import fit, initial_variables, num_updates
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import read_record
from s3_jax.training.run import Run
from s3_jax.training.start import finished, opened_workdir, record_start, start_run

# The phase that comes last.
TEST = "test of inherited weights"
# What its line of progress calls a score, where that is not the score's name.
_ON_THE_LINE = {"accuracy": "right"}


def run_pipeline(
    config: Config, workdir: AnyPath, *, console: Console, stop: StopRequest, words: InWords = in_words
) -> dict[str, Any]:
    """Do all phases of a run that are not done yet in `workdir`, and return its result (also in `result.json`).

    words: makes the line about all that is to be done, of which the run may be a part.
    Raises S3Error for a mistake in the settings, the data or the folder; Interrupted once it has saved on request.
    """
    with opened_workdir(workdir, config):
        if (workdir / "result.json").exists():
            result = read_record(workdir / "result.json", _checked_result)
            say(console, finished(workdir, result))
            return result
        return _run(_start(config, workdir, console, stop, words))


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


def _start(config: Config, workdir: AnyPath, console: Console, stop: StopRequest, words: InWords) -> Run:
    task = open_task(config)
    run = start_run(config, task, workdir, console, stop)
    space = config.space.build()
    model = config.model
    clamped = space.clamped(map_sizes(model.image_size, model.patch_size, len(space.stages)))
    for budget in (config.evolution.budget, config.search.budget):
        check_budget(clamped, budget, task.cost)
    check_size(clamped, config.evolution.max_space_size)
    draw_samples(run, 0, clamped)
    measured_steps(config)
    record_start(run)
    run.clock.follow(_plan(run), words)
    return run


def _plan(run: Run) -> list[Phase]:
    """The phases of a run in the order in which they come, and how much work each is."""
    config, task, plan = run.config, run.task, []
    spaces, search_config = config.evolution.num_spaces, config.search
    for index in range(spaces):
        title, evaluations = f"space {index + 1} of {spaces}, search", ("evaluation", float(search_config.population))
        search_phase = Phase(f"space_{index}/search", title, "search", search_config.generations, like=evaluations)
        plan += [*plan_of_space(run, index), search_phase]
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
    space = load_space(run, index)
    last = index + 1 == run.config.evolution.num_spaces
    measured = run.has(f"space_{index}/et_error.json") and (last or run.has(f"space_{index + 1}/space.json"))
    if measured and run.has(f"space_{index}/search/best.json"):
        return space
    samples = () if measured else draw_samples(run, index, space)
    network = supernet(run, index, space)
    record = EvaluationRecord(
        run, folder / "evaluated.jsonl", lambda: error_of_subnets(run, network, run.task.splits.holdout)
    )
    if not measured:
        measure(run, index, space, samples, network, record)
    _search(run, index, space, record)
    return space


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
        begun = supernet(run, index, space).variables if trained else initial_variables(run, phase, space)
        cut = partial(run.task.sliced, space=space, architecture=best.architecture)
        return begun._replace(params=jax.jit(cut, out_shardings=replicated(run.mesh))(begun.params))

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
                run, supernet(run, index, space), run.task.splits.test, best.architecture
            )
            measured = read_record(run.workdir / f"space_{index}" / "et_error.json", _measured)
            scores = {"test_accuracy_inherited": inherited, "test_accuracy": trained.get(index)}
            best_row = best.to_json() | scores
            rows.append({"name": space_name(index), "size": space.size(), **measured, "best": best_row})
            advance(index + 1, f"{inherited:.2f} % {_ON_THE_LINE.get(score_name, score_name)}")
    last = rows[-1]
    kept = ("architecture", "params", "macs", "test_accuracy")
    winner = {"space": last["name"]} | {name: last["best"][name] for name in kept}
    result = {"seed": run.config.seed, "dataset": run.task.record(), "spaces": rows, "winner": winner}
    return json.loads(json.dumps(result | run.task.names()))


def _measured(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a space's row has of its `et_error.json`; the errors by sample stay there."""
    judged = record.get("judged")  # runs begun by a version before have none
    judged = judged and {name: value for name, value in judged.items() if name != "sampled_errors"}
    return {"et_error": record["space"], "judged": judged}
