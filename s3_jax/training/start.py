"""The beginning of a run: its folder, which belongs to its settings, its devices and its data."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
from rich.console import Console

from s3_jax.buckets import BucketPath
from s3_jax.config import Config
from s3_jax.errors import S3Error
from s3_jax.mapping import to_mapping
from s3_jax.paths import AnyPath, printable
from s3_jax.task import Task
from s3_jax.training.clock import Clock
from s3_jax.training.devices import check_batch_size, make_mesh
from s3_jax.training.lock import only_run
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import Metrics, environment, read_json, read_record
from s3_jax.training.run import Run
from s3_jax.writing import as_json

# Settings that say how a run is executed, not what it computes: they may change when it is taken up again. What is done
# about a bad image is one of them: under "error" there was none so far. So is where a measured run lies: what it did is
# checked anew.
CHANGEABLE = ("run.", "data.num_workers.", "data.path.", "data.on_bad_image.", "evolution.measured_run.")
# Of config.json. It is raised when the same settings compute something else than before (other initial weights, another
# holdout), or when checkpoints are laid out otherwise. A new field alone does not raise it, as its default is what was
# computed without it: records that lack it are read with that. Records without a version are of 0.1.0 and before.
VERSION = 2
# Why an unfinished run of each version before is not gone on with.
_BEFORE = (
    "with the same settings it had other initial weights and held-out images",
    "its checkpoints are laid out otherwise",
)
# Of config.json, beside the settings: what `Task.start` tells.
START = ("init_from_sha256",)
_ANOTHER = "give another --workdir to start a new run"
BACK_OR_ANOTHER = f"put it back from a copy, or {_ANOTHER}"


@contextmanager
def opened_workdir(workdir: AnyPath, config: Config) -> Iterator[None]:
    """A run's folder, made where it is missing, held for this run alone, and checked to be of these settings.

    Raises S3Error where it is another run's, with the fields that differ; where another process is at work in it; or
    where it cannot be written to.
    """
    if printable(workdir.absolute()) != str(workdir.absolute()):  # tensorstore, which writes checkpoints, takes no such
        raise S3Error(f"--workdir={printable(workdir)}: the folder's name is not UTF-8; choose another")
    _check_writable(workdir)
    with only_run(workdir):
        _check_settings(workdir, config)
        yield


def _check_writable(workdir: AnyPath) -> None:
    """Write and remove a file: a run replaces what it has written. Raises S3Error where that is refused."""
    if isinstance(workdir, BucketPath):
        probe = workdir / f".writable_{jax.process_index()}"
        probe.write_bytes(b"may be removed")
        probe.unlink(missing_ok=True)
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workdir).close()
    except OSError as error:
        raise S3Error(
            f"cannot write to the workdir {workdir}: {error.strerror or error}; choose a folder with room that you may "
            "write to, with --workdir"
        ) from error


def recorded_settings(workdir: AnyPath) -> dict[str, Any]:
    """The settings that a run was started with, as its config.json has them, and their `version`.

    Raises S3Error where the file is damaged.
    """
    path = workdir / "config.json"
    return read_record(path, lambda record: record | {"version": int(record.get("version", 0))}, BACK_OR_ANOTHER)


def _check_settings(workdir: AnyPath, config: Config) -> None:
    if not (workdir / "config.json").exists():
        if any(workdir.glob("*/checkpoints")):
            raise S3Error(
                f"{workdir} holds a run, but its config.json is gone, which says what it was started with: "
                f"{BACK_OR_ANOTHER}"
            )
        return
    before = recorded_settings(workdir)
    version = before.pop("version")
    for key in START:
        before.pop(key, None)
    # First the task: another one's settings are no fault of another version.
    _check_same({"task": before.get("task", Config.task)}, {"task": config.task}, workdir)
    defaults = to_mapping(type(config)(task=config.task))
    old, defaults, new = map(_flat, (before, defaults, json.loads(as_json(to_mapping(config)))))
    unknown = [name for name in old if name not in new]
    if unknown or version > VERSION:
        reason = f"its settings have {', '.join(f'config.{name}' for name in unknown)}, which this version has not"
        raise _of_another_version(workdir, reason if unknown else f"its config.json has version {version}")
    if version < VERSION and not (workdir / "result.json").exists():
        raise _of_another_version(workdir, _BEFORE[version])
    _check_same({name: old.get(name, defaults[name]) for name in new}, new, workdir)


def check_started_alike(workdir: AnyPath, config: Config, free: tuple[str, ...]) -> None:
    """Raises S3Error where the run in a folder has other settings than these.

    free: what the names of those begin with that may differ, besides `CHANGEABLE` ones.
    """
    before = recorded_settings(workdir)
    defaults, new = (_flat(json.loads(as_json(to_mapping(each)))) for each in (type(config)(task=config.task), config))
    old = {name: _flat(before).get(name, defaults[name]) for name in new}
    _check_same(old, new, workdir, free, f"Give those; only {', '.join(f'config.{name}*' for name in free)} may differ")


def _check_same(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    workdir: AnyPath,
    free: tuple[str, ...] = (),
    advice: str = "Give those again to go on with it, or another --workdir to start a new run",
) -> None:
    may_differ = (*CHANGEABLE, *free)
    changed = [name for name in sorted(new) if old[name] != new[name] and not f"{name}.".startswith(may_differ)]
    if changed:
        rows = "\n".join(f"  config.{name}: {old[name]!r} there, {new[name]!r} now" for name in changed)
        raise S3Error(f"{workdir} holds a run that was started with other settings:\n{rows}\n{advice}")


def _of_another_version(workdir: AnyPath, reason: str) -> S3Error:
    about = _recorded_environment(workdir)
    packages, revision = about.get("packages") or {}, str(about.get("git_revision") or "")[:12]
    code = ", ".join(filter(None, [packages.get("s3_jax"), revision and f"revision {revision}"])) or "unknown"
    return S3Error(
        f"the run in {workdir} was started by another version of s3_jax ({code}): {reason}. That version goes on with "
        f"it, and this one takes its networks out (scripts/extract_subnet.py); {_ANOTHER}"
    )


def _recorded_environment(workdir: AnyPath) -> dict[str, Any]:
    """What environment.json has, or nothing where it is missing or damaged: it is written anew at every start."""
    try:
        record = read_json(workdir / "environment.json")
    except S3Error:
        return {}
    return record if isinstance(record, dict) else {}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value})
    return flat


def finished(workdir: AnyPath, result: Mapping[str, Any]) -> str:
    """What is said where a run is finished; it names the data, as data.path may be another now."""
    data = (result.get("dataset") or {}).get("name", "that it began with")
    file = workdir / "result.json"
    return f"This run is finished: there is nothing to do. Its result, on the data set {data}, is in {file}"


def start_run(
    config: Config, task: Task, workdir: AnyPath, console: Console, stop: StopRequest, *, retrains: bool = True
) -> Run:
    """Devices and task of a run in an opened folder, in which nothing is written yet: see `record_start`.

    retrains: whether networks are trained by config.retrain too, as after a search; else its batches may have any size.
    Raises S3Error for settings that do not fit devices and task, and for other data than the run began with.
    """
    if config.data.judge_fraction and task.splits.judge is None:
        raise S3Error(
            f"config.data.judge_fraction = {config.data.judge_fraction}: the task {config.task} has no judging images; "
            "leave it at 0"
        )
    mesh = make_mesh(config.run.num_devices)
    first, examples = jax.process_index() == 0, task.examples(task.splits.train, training=True)
    trainings = {"train": config.train} | ({"retrain.train": config.retrain.train} if retrains else {})
    for field, settings in trainings.items():
        check_batch_size(mesh, settings.batch_size, settings.accumulation_steps, f"config.{field}.batch_size")
        examples.check_batch(settings.batch_size, jax.process_count())
    check_batch_size(mesh, config.run.eval_batch_size, 1, "config.run.eval_batch_size")
    clock = Clock(console, workdir / "timings.json" if first else None)
    run = Run(config, workdir, mesh, task, Metrics(workdir, config.run, active=first), stop, clock)
    if (workdir / "config.json").exists():
        check_same_data(workdir, task)
        _check_same_start(workdir, task.start())
    return run


def check_same_data(workdir: AnyPath, task: Task) -> None:
    """Raises S3Error where a task has other data than the run in a folder began with.

    Images that are gone or new would be another order, another holdout: not the run that was begun.
    """
    now = _about(task)
    before = _recorded_environment(workdir).get("dataset") or {}
    others = [key for key in now if key not in ("splits", "overlap", "name", "source")]
    differing = [f"its {key}" for key in others if before.get(key, now[key]) != now[key]]
    for use, split in now["splits"].items():
        old = (before.get("splits") or {}).get(use) or {}
        differing += [
            f"{key} of {use}: {old[key]} there, {split[key]} now"
            for key in ("images", "of")
            if old.get(key, split[key]) != split[key]
        ]
    if differing:
        raise S3Error(
            f"the data are not those that the run in {workdir} began with: {'; '.join(differing)}. Give those again "
            "(data.path may be another), or another --workdir to start a new run"
        )


def _check_same_start(workdir: AnyPath, now: Mapping[str, Any]) -> None:
    """The trainings that are still to begin would begin with other weights than those before."""
    if {key: value for key, value in recorded_settings(workdir).items() if key in START} != now:
        raise S3Error(
            f"the network of config.train.init_from has other weights, or another structure, than when the run in "
            f"{workdir} was started: put that one back, or {_ANOTHER}"
        )


def _about(task: Task) -> dict[str, Any]:
    return json.loads(as_json(task.record() | task.bound()))


def record_start(run: Run) -> None:
    """Write what the run is of, once all settings are found to fit: from then on the folder is bound to them."""
    run.write_json("environment.json", environment() | {"dataset": _about(run.task)} | run.task.names())
    run.write_json("config.json", {"version": VERSION, **run.task.start(), **to_mapping(run.config)})
