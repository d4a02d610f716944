"""The beginning of a run: its folder, which belongs to its settings, its devices and its data."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from s3_jax.config import Config, to_mapping
from s3_jax.data.dataset import open_data
from s3_jax.errors import S3Error
from s3_jax.training.devices import check_batch_size, make_mesh
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import Metrics, environment, read_json
from s3_jax.training.run import Run

# Settings that say how a run is executed, not what it computes: they may change when it is taken up again.
CHANGEABLE = ("run.", "data.num_workers", "data.path")


def open_workdir(workdir: Path, config: Config) -> None:
    """Make a run's folder, or check that it was started with these settings.

    Raises S3Error where it was not, with the fields that differ, or where it cannot be written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workdir).close()
        path = workdir / "config.json"
        if path.exists():
            _check_same(read_json(path), to_mapping(config), workdir)
    except OSError as error:
        raise S3Error(
            f"cannot write to the workdir {workdir}: {error.strerror or error}; choose a folder with room that you may "
            "write to, with --workdir"
        ) from error


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], workdir: Path) -> None:
    old, new = _flat(before), _flat(now)
    changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    refused = [name for name in changed if not name.startswith(CHANGEABLE)]
    if refused:
        rows = "\n".join(f"  config.{name}: {old.get(name)!r} there, {new.get(name)!r} now" for name in refused)
        raise S3Error(
            f"{workdir} holds a run that was started with other settings:\n{rows}\n"
            "Give those again to go on with it, or another --workdir to start a new run"
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value})
    return flat


def start_run(config: Config, workdir: Path, console: Console, stop: StopRequest) -> Run:
    """Devices and data of a run in an opened folder, in which nothing is written yet: see `record_start`.

    Raises S3Error for settings that do not fit them.
    """
    mesh = make_mesh(config.run.num_devices)
    first = jax.process_index() == 0
    for field, settings in (("train", config.train), ("retrain.train", config.retrain.train)):
        check_batch_size(mesh, settings.batch_size, settings.accumulation_steps, f"config.{field}.batch_size")
    check_batch_size(mesh, config.run.eval_batch_size, 1, "config.run.eval_batch_size")
    data = open_data(config.data, seed=config.seed)
    return Run(config, workdir, mesh, data, Metrics(workdir, config.run, active=first), stop, console)


def record_start(run: Run) -> None:
    """Write what the run is of, once all settings are found to fit: from then on the folder is bound to them."""
    about = run.data.record() | {"class_names": list(run.data.class_names)}
    run.write_json("environment.json", environment() | {"dataset": about})
    run.write_json("config.json", to_mapping(run.config))
