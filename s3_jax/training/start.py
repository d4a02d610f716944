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
from s3_jax.config import Config, to_mapping
from s3_jax.data.dataset import open_data
from s3_jax.data.input import check_batch
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, printable
from s3_jax.standalone import Standalone
from s3_jax.training.clock import Clock
from s3_jax.training.devices import check_batch_size, make_mesh
from s3_jax.training.lock import only_run
from s3_jax.training.loop import StopRequest
from s3_jax.training.pretrained import checksum, open_pretrained, tell_differences
from s3_jax.training.records import Metrics, environment, read_json, read_record
from s3_jax.training.run import Run
from s3_jax.writing import as_json

# Settings that say how a run is executed, not what it computes: they may change when it is taken up again. What is done
# about a bad image is one of them: under "error" there was none so far.
CHANGEABLE = ("run.", "data.num_workers", "data.path", "data.on_bad_image")
# Of config.json. It is raised when the same settings compute something else than before: other initial weights, another
# holdout. A new field alone does not raise it, as its default is what was computed without it: records that lack it are
# read with that. Records without a version are of 0.1.0 and before.
VERSION = 1
_CHECKSUM = "init_from_sha256"  # in config.json, of the network of config.train.init_from, where that is given
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
    before.pop(_CHECKSUM, None)  # see `start_run`
    old, defaults, new = _flat(before), _flat(to_mapping(Config())), _flat(json.loads(as_json(to_mapping(config))))
    unknown = [name for name in old if name not in new]
    if unknown or version > VERSION:
        reason = f"its settings have {', '.join(f'config.{name}' for name in unknown)}, which this version has not"
        raise _of_another_version(workdir, reason if unknown else f"its config.json has version {version}")
    if version < VERSION and not (workdir / "result.json").exists():
        raise _of_another_version(workdir, "with the same settings it had other initial weights and held-out images")
    _check_same({name: old.get(name, defaults[name]) for name in new}, new, workdir)


def _check_same(old: Mapping[str, Any], new: Mapping[str, Any], workdir: AnyPath) -> None:
    changed = [name for name in sorted(new) if old[name] != new[name] and not name.startswith(CHANGEABLE)]
    if changed:
        rows = "\n".join(f"  config.{name}: {old[name]!r} there, {new[name]!r} now" for name in changed)
        raise S3Error(
            f"{workdir} holds a run that was started with other settings:\n{rows}\n"
            "Give those again to go on with it, or another --workdir to start a new run"
        )


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


def start_run(config: Config, workdir: AnyPath, console: Console, stop: StopRequest) -> Run:
    """Devices and data of a run in an opened folder, in which nothing is written yet: see `record_start`.

    Raises S3Error for settings that do not fit them, and for other data than the run began with.
    """
    mesh = make_mesh(config.run.num_devices)
    first = jax.process_index() == 0
    for field, settings in (("train", config.train), ("retrain.train", config.retrain.train)):
        check_batch_size(mesh, settings.batch_size, settings.accumulation_steps, f"config.{field}.batch_size")
        check_batch(config.augment, settings.batch_size, jax.process_count())
    check_batch_size(mesh, config.run.eval_batch_size, 1, "config.run.eval_batch_size")
    data = open_data(config.data, seed=config.seed)
    pretrained = open_pretrained(config)
    clock = Clock(console, workdir / "timings.json" if first else None)
    run = Run(config, workdir, mesh, data, Metrics(workdir, config.run, active=first), stop, clock, pretrained)
    if (workdir / "config.json").exists():
        _check_same_data(workdir, _about_data(run))
        _check_same_pretrained(workdir, pretrained)
    if pretrained is not None:
        tell_differences(console, pretrained.spec, config)
    return run


def _check_same_data(workdir: AnyPath, now: Mapping[str, Any]) -> None:
    """Images that are gone or new would be another order, another holdout: not the run that was begun."""
    before = _recorded_environment(workdir).get("dataset") or {}
    differing = []
    if before.get("class_names", now["class_names"]) != now["class_names"]:
        differing.append("its classes")
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


def _check_same_pretrained(workdir: AnyPath, pretrained: Standalone | None) -> None:
    """The supernets that are still to begin would begin with other weights than those before."""
    if recorded_settings(workdir).get(_CHECKSUM) != (pretrained and checksum(pretrained)):
        raise S3Error(
            f"the network of config.train.init_from has other weights, blocks or classes than when the run in "
            f"{workdir} was started: put that one back, or {_ANOTHER}"
        )


def _about_data(run: Run) -> dict[str, Any]:
    about = run.data.record() | {"class_names": list(run.data.class_names)}
    return json.loads(as_json(about))


def record_start(run: Run) -> None:
    """Write what the run is of, once all settings are found to fit: from then on the folder is bound to them."""
    run.write_json("environment.json", environment() | {"dataset": _about_data(run)})
    begun_with = {} if run.pretrained is None else {_CHECKSUM: checksum(run.pretrained)}
    run.write_json("config.json", {"version": VERSION} | begun_with | to_mapping(run.config))
