"""Damaged files of a run: refused in one paragraph, or the run ends as it does undisturbed.

`-s` shows a table. More of them: a larger ROUNDS. The run is the tiny one with random weights instead of trained ones:
nothing here depends on how good they are, and nothing but the programs that measure is compiled.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_config
from bad_inputs import (
    AS_MAIN,
    DAMAGES,
    OTHER,
    SAME,
    Tally,
    of_another_type,
    with_other_digit,
)
from rich.console import Console

from s3_jax import measuring, pipeline
from s3_jax.classification import task
from s3_jax.classification.dataset import open_data
from s3_jax.config import Config, config_of
from s3_jax.data.splits import Subset
from s3_jax.networks.extract import extract
from s3_jax.networks.standalone import Standalone
from s3_jax.pipeline import run_pipeline
from s3_jax.report.records import read_run
from s3_jax.report.tables import result_table
from s3_jax.space import Architecture
from s3_jax.training import start
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.evaluate import error_of_network
from s3_jax.training.fit import fit, initial_variables
from s3_jax.training.loop import StopRequest
from s3_jax.training.networks import Trained
from s3_jax.training.programs import Length, training_of
from s3_jax.training.records import environment
from s3_jax.training.run import Run

ROUNDS = 1  # how many inputs there are of each kind, as a multiple


def tiny() -> Config:
    config = tiny_config.get_config()
    for name, choices in config.space.items():
        config.space[name] = choices[:1]
    config.run.tensorboard = False
    return config_of(config.to_dict())


open_data_once, environment_once = cache(open_data), cache(environment)


def untrained(run: Run, phase: str, structure: Any, config: Any, subset: Any, initial: Any = None) -> Trained:
    """In the place of `fit`: the checkpoint that it leaves, of the weights with which it would begin."""
    num_steps = max(1, round(config.epochs * len(subset) / config.batch_size))
    folder = run.workdir / phase / "checkpoints"
    if not folder.exists():
        training = training_for(run, structure, config, num_steps)
        state = training.begin(initial() if initial else initial_variables(run, phase, structure))
        checkpoints = Checkpoints(folder, structure.to_json())
        for step in (num_steps - 1, num_steps):
            checkpoints.save(state._replace(step=jax.numpy.asarray(step, "int32")))
        checkpoints.close()
    return fit(run, phase, structure, config, subset, initial)


def training_for(run: Run, structure: Any, config: Any, num_steps: int) -> Any:
    return training_of(run.task, structure, config, Length(num_steps, steps_per_epoch=10), run.mesh)


class Finished:
    """A finished run, its networks by phase and structure, and what was measured of them: not done anew each time."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self.networks: dict[Any, Trained] = {}
        self.errors: dict[Any, float] = {}
        self.result = self.run(workdir)
        self.files = {path.relative_to(workdir): path.read_bytes() for path in workdir.rglob("*") if path.is_file()}

    def fit(self, run: Run, phase: str, structure: Any, *arguments: Any) -> Trained:
        if (phase, structure) not in self.networks:
            self.networks[phase, structure] = untrained(run, phase, structure, *arguments)
        return self.networks[phase, structure]

    def error(self, run: Run, network: Trained, subset: Subset, architecture: Architecture) -> float:
        asked = (network.structure, subset.split, tuple(subset.indices), architecture)
        if asked not in self.errors:
            self.errors[asked] = error_of_network(run, network, subset, architecture)
        return self.errors[asked]

    def run(self, workdir: Path) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            for module in (pipeline, measuring):
                patch.setattr(module, "fit", self.fit)
                patch.setattr(module, "error_of_subnets", lambda *arguments: partial(self.error, *arguments))
            patch.setattr(pipeline, "error_of_network", self.error)
            patch.setattr(task, "open_data", open_data_once)
            patch.setattr(start, "environment", environment_once)
            result = run_pipeline(tiny(), workdir, console=Console(quiet=True), stop=StopRequest())
        result_table(result)
        return result

    def copy(self, workdir: Path, without: tuple[str, ...] = ()) -> Path:
        """A copy, in the state in which a run is that was stopped before it wrote some of its files."""
        shutil.rmtree(workdir, ignore_errors=True)
        for name, data in self.files.items():
            if not str(name).startswith(without):
                (workdir / name).parent.mkdir(parents=True, exist_ok=True)
                if "checkpoints" in name.parts:
                    os.link(self.workdir / name, workdir / name)
                else:
                    (workdir / name).write_bytes(data)
        return workdir

    def lost(self, workdir: Path, damaged: str, without: tuple[str, ...]) -> list[str]:
        """What is not as it was in a copy, but for the damaged file and those that a start writes anew."""
        anew = ("environment.json", "config.json", "timings.json")
        kept = [n for n in self.files if not str(n).startswith((damaged, *anew, *without))]
        return [str(n) for n in kept if not (workdir / n).exists() or (workdir / n).read_bytes() != self.files[n]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    return Finished(tmp_path_factory.mktemp("runs") / "finished")


# What a stopped run has not written yet, and the records that it reads when it is taken up again.
STOPPED = {
    "at the end": (
        ("result.json",),
        (
            *("config.json", "environment.json", "space_0/space.json", "space_1/space.json", "space_0/et_error.json"),
            *("space_1/et_error.json", "space_0/search/best.json", "space_1/search/best.json"),
            *("space_0/search/state.json", "space_0/evaluated.jsonl"),
            *("retrain/best_B/result.json", "retrain/best_B/architecture.json"),
        ),
    ),
    "in a search": (
        ("result.json", "retrain/best_B/result.json", "space_1/search/best.json"),
        ("space_1/evaluated.jsonl", "space_1/search/state.json", "space_1/space.json", "space_1/et_error.json"),
    ),
    "while it measured": (
        ("result.json", "retrain", "space_1/search", "space_1/et_error.json"),
        ("space_1/evaluated.jsonl", "space_1/space.json"),
    ),
    "not at all": ((), ("result.json", "config.json")),
}


def damaged_records(data: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes | None]]:
    """Name and bytes (None: the file is gone) of what can become of a record."""
    for damage in (*DAMAGES, with_other_digit):
        yield damage.__name__, damage(data, rng)
    lines = data.splitlines(keepends=True)
    if data.startswith(b'{"') and len(lines) > 1:
        place = int(rng.integers(len(lines)))
        yield "a line gone", b"".join(lines[:place] + lines[place + 1 :])
        yield "a line twice", b"".join(lines + lines[place : place + 1])
        yield "a line of zeros", b"".join([*lines[:place], bytes(40), b"\n", *lines[place:]])
    else:
        what, changed = of_another_type(json.loads(data), rng)
        yield what, json.dumps(changed).encode()
    yield "gone", None


@pytest.mark.parametrize("stopped", STOPPED)
def test_a_run_with_a_damaged_record_is_refused_or_ends_as_undisturbed(stopped, finished, tmp_path) -> None:
    without, records = STOPPED[stopped]
    rng, tally = np.random.default_rng(len(stopped)), Tally(f"records of a run stopped {stopped}")
    for record in records * ROUNDS:
        whole = finished.files[Path(record)]
        for what, data in damaged_records(whole, rng):
            if record == "result.json" and " = " in what:
                continue  # its numbers are shown, and read by nothing
            workdir = finished.copy(tmp_path / "run", without)
            (workdir / record).unlink()
            if data is not None:
                (workdir / record).write_bytes(data)

            def compare(
                result: dict[str, Any], workdir: Path = workdir, data: bytes | None = data, record: str = record
            ) -> str:
                read = [n for n in WRITTEN if (workdir / n).exists() and (data is None or str(n) != record)]
                others = [
                    str(n) for n in read if json.loads((workdir / n).read_text()) != json.loads(finished.files[n])
                ]
                same = result == finished.result and not others
                return SAME if same else f"the result is another: {others}"

            tally.judge(f"{record}, {what}", lambda w=workdir: finished.run(w), compare, AS_MAIN)
            lost = finished.lost(workdir, record, without)
            tally.faults += [f"{record}, {what}: lost or changed: {lost}"] if lost else []
    tally.check()


# The results of all phases.
WRITTEN = tuple(
    Path(name)
    for name in (
        *("result.json", "space_0/space.json", "space_0/et_error.json", "space_0/search/best.json"),
        *("space_1/space.json", "space_1/et_error.json", "space_1/search/best.json", "retrain/best_B/result.json"),
    )
)


def damaged_checkpoints(folder: Path, rng: np.random.Generator) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """What can become of the files of a folder of checkpoints, each a name and a function of a copy of it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    # Not by name: that of files of arrays is drawn anew in every run.
    paths.sort(key=lambda path: (path.parent, path.stat().st_size))
    names = [str(path.relative_to(folder)) for path in paths]
    newest = max(folder.iterdir(), key=lambda path: int(path.name.split("_")[1])).name
    for name in [name for name in names if name.startswith(newest)]:
        data = (folder / name).read_bytes()
        for damage in DAMAGES:
            damaged = damage(data, rng) if data else b"x"
            yield f"{name} {damage.__name__}", lambda c, n=name, d=damaged: (c / n).write_bytes(d)
        yield f"{name} gone", lambda c, n=name: (c / n).unlink()
    yield "the newest gone", lambda c: shutil.rmtree(c / newest)
    yield "the newest empty", lambda c: (shutil.rmtree(c / newest), (c / newest).mkdir())
    yield "a file in its place", lambda c: (shutil.rmtree(c / newest), (c / newest).write_text("x"))


def test_damaged_checkpoints_are_refused_or_read_as_they_were(finished, tmp_path) -> None:
    folder, rng, tally = finished.workdir / "retrain/best_B/checkpoints", np.random.default_rng(6), Tally("checkpoints")
    structure = next(structure for phase, structure in finished.networks if phase == "retrain/best_B")
    config = tiny()
    run = start.start_run(config, task.open_task(config), tmp_path, Console(quiet=True), StopRequest())
    training = training_for(run, structure, tiny().retrain.train, 9)
    whole = restored(folder, structure, training)
    assert whole is not None
    compare = partial(compare_states, whole)
    harms = list(damaged_checkpoints(folder, rng))
    for name, harm in [harms[index] for index in sorted(rng.permutation(len(harms))[: 24 * ROUNDS])]:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "copy")
        harm(tmp_path / "copy")
        harmed = {path: path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()}
        tally.judge(name, lambda: restored(tmp_path / "copy", structure, training), compare, AS_MAIN)
        left = {path: path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()}
        tally.faults += [] if left == harmed else [f"{name}: files were changed or removed"]
    tally.check()


def restored(folder: Path, structure: Any, training: Any) -> Any:
    checkpoints = Checkpoints(folder, structure.to_json())
    try:
        return checkpoints.restore(training.shapes, training.layout)
    finally:
        checkpoints.close()


def compare_states(whole: Any, found: Any) -> str:
    """SAME also of an earlier checkpoint, or of none: the training goes on from there and ends alike."""
    if found is None:
        return SAME
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True))
    if all(np.array_equal(one, other) for one, other in pairs[1:]) and int(found.step) in (
        int(whole.step),
        int(whole.step) - 1,
    ):
        return SAME
    return "other arrays are read than were written"


def test_damaged_runs_are_reported_or_refused(finished, tmp_path) -> None:
    rng, tally = np.random.default_rng(7), Tally("damaged runs, report")
    expected = read_run(finished.workdir)
    for record in [str(name) for name in finished.files if "checkpoints" not in str(name)] * ROUNDS:
        whole = finished.files[Path(record)]
        for what, data in damaged_records(whole, rng) if whole else ():
            workdir = finished.copy(tmp_path / "run")
            (workdir / record).unlink()
            if data is not None:
                (workdir / record).write_bytes(data)

            def same(found: Any, what: str = what, record: str = record) -> str:
                """A record that is gone is shown as not there yet; no checksum tells that lines of a file are gone."""
                if found == expected:
                    return SAME
                if what == "gone" or (
                    record.endswith(".jsonl") and (found.notes or what in ("cut", "a line gone", "a line twice"))
                ):
                    return OTHER
                return "another run is shown"

            tally.judge(f"report, {record}, {what}", lambda w=workdir: read_run(w), same)
    tally.check()


def test_networks_are_extracted_from_damaged_runs_or_refused(finished, tmp_path) -> None:
    rng, tally = np.random.default_rng(8), Tally("damaged runs, extraction")
    expected = extract(finished.workdir, retrained=True).spec
    needed = ("config.json", "environment.json", "space_1/space.json", "space_1/search/best.json")
    for record in (*needed, "retrain/best_B/result.json") * ROUNDS:
        whole = finished.files[Path(record)]
        for what, data in damaged_records(whole, rng):
            workdir = finished.copy(tmp_path / "run")
            (workdir / record).unlink()
            if data is not None:
                (workdir / record).write_bytes(data)

            def compare(model: Standalone, data: bytes | None = data) -> str:
                unmeasured = dataclasses.replace(expected, about=dataclasses.replace(expected.about, accuracy=""))
                if model.spec == (unmeasured if data is None else expected):
                    return SAME
                return f"another network: {model.spec.about}"

            tally.judge(f"{record}, {what}", lambda w=workdir: extract(w, retrained=True), compare, AS_MAIN)
    tally.check()
