"""What a run writes down of itself: metrics as JSON lines, TensorBoard events and W&B, and its environment."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
from absl import logging

from s3_jax.buckets import BucketPath
from s3_jax.config import RunConfig
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath
from s3_jax.writing import as_json, sealed, unsealed, write_whole

T = TypeVar("T")

_AGAIN = "remove it, and its phase is done again"

# Of an object that holds JSON lines; each time all of its lines are sent.
SECONDS_BETWEEN_WRITES = 10.0

PACKAGES = ("s3_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tensorflow-datasets")


def write_json(path: AnyPath, record: Mapping[str, Any]) -> None:
    """Write a JSON file, with a checksum of what is in it, whole or not at all."""
    write_whole(path, as_json(_sealed(record), indent=1) + "\n")


def read_json(path: AnyPath, advice: str = _AGAIN) -> Any:
    """The content of a JSON file. Raises S3Error where it is none, or was altered, with what to do about it."""
    try:
        return unsealed(json.loads(path.read_text(encoding="utf-8")))
    except S3Error as error:
        raise S3Error(f"{path} is damaged: {error}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise S3Error(f"{path} is not a JSON file: {error}; {advice}") from error
    except OSError as error:
        raise S3Error(f"{path} cannot be read: {error.strerror or error}") from error


def read_record(path: AnyPath, parse: Callable[[Any], T], advice: str = _AGAIN) -> T:
    """What `parse` makes of a JSON file of a run. Raises S3Error, naming the file, where that is not such a record."""
    record = read_json(path, advice)
    try:
        return parse(record)
    except _NO_RECORD as error:
        raise S3Error(f"{path} is damaged: {_reason(error)}; {advice}") from error


def read_json_lines(path: AnyPath, parse: Callable[[Any], Any] = lambda record: record) -> list[Any]:
    """What `parse` makes of every line of a file of JSON lines.

    A last line cut short by a killed process does not count. A line that is damaged, as by zeros after a power cut, is
    left out with a warning: such files note what can be done again.
    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_bytes().rpartition(b"\n")[0].split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            records.append(parse(unsealed(json.loads(line))))
        except (*_NO_RECORD, RecursionError) as error:
            logging.warning("line %d of %s is damaged and left out: %s", number, path, _reason(error))
    return records


def _sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """With the checksum of what is written, where names that are not UTF-8 are escaped."""
    return sealed(json.loads(as_json(record)))


def whole_lines(path: AnyPath) -> int:
    """How many lines of a file have their end, be they damaged or not."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def json_lines(records: Iterable[Mapping[str, Any]]) -> str:
    """The content of a file of these JSON lines, each with a checksum of its record."""
    return "".join(as_json(_sealed(record)) + "\n" for record in records)


# What reading a record raises where it is no such record, or no JSON at all.
_NO_RECORD = (S3Error, KeyError, TypeError, ValueError, AttributeError, IndexError)


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def append_json_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record; what a killed process left of a line before it is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json_lines([record]).encode())


class JsonLines:
    """A file of JSON lines that grows. On a disk each line is appended at once.

    In a bucket nothing can be appended: lines wait in memory, and the object is written anew with all of them every
    `SECONDS_BETWEEN_WRITES`, and on `flush`. A killed process loses those that wait, so `flush` comes before anything
    is written that rests on them.
    """

    def __init__(self, path: AnyPath) -> None:
        self._path = path
        self._content: bytearray | None = None  # of the object; None where it is to be read
        self._waits, self._written = False, -float("inf")

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line. Raises S3Error where a bucket refuses it."""
        if not isinstance(self._path, BucketPath):
            append_json_line(self._path, record)
            return
        if self._content is None:
            self._content = bytearray(self._path.read_bytes() if self._path.exists() else b"")
        self._content += json_lines([record]).encode()
        self._waits = True
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait. Raises S3Error where the bucket refuses it."""
        if self._waits and self._content is not None:
            write_whole(self._path, bytes(self._content))
            self._waits, self._written = False, time.monotonic()

    def replace(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the file anew with these records alone."""
        write_whole(self._path, json_lines(records))
        self._content, self._waits = None, False


class Metrics:
    """Writes scalar metrics to `metrics.jsonl`, TensorBoard and W&B; does nothing where `active` is off."""

    def __init__(self, workdir: AnyPath, config: RunConfig, *, active: bool) -> None:
        self._path = workdir / "metrics.jsonl"
        self._lines = JsonLines(self._path)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._board: Any = None
        self._wandb: Any = None
        self._active, self._config = active, config
        if active and config.wandb_project:
            _import_wandb()

    def forget_after(self, phase: str, step: int) -> None:
        """Drop what a stopped process wrote of `phase` after the update from which it is taken up again."""
        if not self._active or not self._path.exists():
            return
        self._lines.flush()
        lines = read_json_lines(self._path, _metrics_line)
        self._lines.replace(r for r in lines if r["phase"] != phase or r["step"] <= step)

    def write(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """One line for `phase`, e.g. "space_0" or "retrain/best_C", at update `step`."""
        if not self._active:
            return
        self._lines.append({"phase": phase, "step": step, **values})
        if self._config.tensorboard:
            self._add_to_board(phase, step, values)
        if self._config.wandb_project:
            self._add_to_wandb(phase, step, values)

    def _add_to_board(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Begins its file only now: a run that ends before it starts leaves none."""
        from tensorboardX import SummaryWriter

        self._board = self._board or SummaryWriter(str(self._local_folder()))
        for name, value in values.items():
            self._board.add_scalar(f"{phase}/{name}", value, step)

    def _add_to_wandb(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Begins its run only now, as above."""
        name, folder = self._path.parent.name, str(self._local_folder())
        settings = {"project": self._config.wandb_project, "dir": folder, "id": name, "resume": "allow"}
        self._wandb = self._wandb or _import_wandb().init(**settings)
        self._wandb.log({f"{phase}/{name}": value for name, value in values.items()} | {f"{phase}/step": step})

    def _local_folder(self) -> Path:
        """Where TensorBoard and W&B can append to their files: of a bucket's run, a temporary folder."""
        folder = self._path.parent
        if not isinstance(folder, BucketPath):
            return folder
        self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="s3_jax_")
        return Path(self._temporary.name)

    def flush(self) -> None:
        """Bring into a bucket what waits: lines, and the events of TensorBoard; on a disk nothing does."""
        self._lines.flush()
        if self._temporary is not None and self._board is not None:
            self._board.flush()
            for events in Path(self._temporary.name).glob("events.*"):
                write_whole(self._path.parent / events.name, events.read_bytes())

    def close(self) -> None:
        """Flush and close the writers."""
        self.flush()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
        if self._temporary is not None:
            self._temporary.cleanup()


def _metrics_line(record: Any) -> Mapping[str, Any]:
    if not isinstance(record["phase"], str) or not isinstance(record["step"], int):
        raise ValueError("phase and step are no name and number")
    return record


def environment() -> dict[str, Any]:
    """Versions, devices and the git revision of the code, as far as they can be told."""
    devices = jax.devices()
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": dict(_versions(PACKAGES)),
        "devices": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
        "processes": jax.process_count(),
        "git_revision": _git("rev-parse", "HEAD"),
        "git_changes": bool(_git("status", "--porcelain")),
        "command": sys.argv,
    }


def _versions(packages: Iterable[str]) -> Iterable[tuple[str, str]]:
    for package in packages:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise S3Error("config.run.wandb_project needs wandb; install it with: pip install s3_jax[wandb]") from error
    return wandb
