"""A run's files as values: what is there is read, what is not there yet is empty."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from s3_jax.cost import Cost, Evaluated
from s3_jax.errors import S3Error
from s3_jax.et_error import ETError
from s3_jax.evolution import DimensionEvolution
from s3_jax.paths import AnyPath
from s3_jax.report.rows import ResultRow, result_rows
from s3_jax.space import Architecture, SearchSpace
from s3_jax.writing import unsealed

_UNTOLD = "evaluated.jsonl does not have every sampled architecture, so no figure shows them by their depth"

T = TypeVar("T")


class Damaged(S3Error):
    """A file that is no record of a run; the message names it."""


@dataclasses.dataclass(frozen=True)
class ErrorRecord:
    """`space_<k>/et_error.json`: the E-T Error of a space, the errors (%) it rests on, and its dimensions."""

    space: ETError
    summary: Mapping[str, Any]  # of the space, as it is written: more than its E-T Error
    sampled_errors: tuple[float, ...]
    sampled_costs: tuple[Cost, ...]  # beside them; of an older version's record none
    dimensions: tuple[DimensionEvolution, ...]
    notes: tuple[str, ...]
    num_trainings: int = 1  # each has as many of the sampled errors, one after the other


@dataclasses.dataclass(frozen=True)
class SpaceRecord:
    """One space of a run: `space_<k>/` as far as it is there."""

    index: int
    name: str
    space: SearchSpace
    size: int
    notes: tuple[str, ...]
    errors: ErrorRecord | None
    best: Evaluated | None
    sampled: tuple[Architecture, ...]  # beside the sampled errors; none where the files do not tell
    searched_errors: tuple[float, ...]  # of the architectures that the search has proposed, in its order, in percent

    def dimension(self, stage: int, dimension: str) -> DimensionEvolution | None:
        """The record of one dimension of stage `stage` (counted from 0), None while it is not measured."""
        records = self.errors.dimensions if self.errors else ()
        return next((r for r in records if (r.measure.stage, r.measure.dimension) == (stage, dimension)), None)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """All that the report shows of a run; `notes` names what could not be read."""

    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    result: Mapping[str, Any]
    rows: tuple[ResultRow, ...]  # of the result
    finished: bool  # whether result.json is there
    spaces: tuple[SpaceRecord, ...]
    metrics: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


def read_run(workdir: AnyPath) -> RunRecord:
    """The run in `workdir`. Raises S3Error where the folder is missing or one of its JSON files is damaged."""
    if not workdir.is_dir():
        raise S3Error(f"no run to report on: {workdir} is not a folder; give the workdir of a started run")
    spaces = _read_spaces(workdir)
    metrics, notes = _read_lines(workdir / "metrics.jsonl")
    notes += tuple(f"space_{space.index}: {_UNTOLD}" for space in spaces if space.errors and not space.sampled)
    config = _read(workdir / "config.json", dict) or {}
    environment = _read(workdir / "environment.json", dict) or {}
    result = _read(workdir / "result.json", dict)
    finished = result is not None
    result = result if result is not None else _unfinished_result(workdir, config, environment, spaces)
    rows = _parsed(workdir / "result.json", result_rows, result)
    return RunRecord(config, environment, result, tuple(rows), finished, spaces, metrics, notes)


def _read_spaces(workdir: AnyPath) -> tuple[SpaceRecord, ...]:
    spaces: list[SpaceRecord] = []
    while (workdir / f"space_{len(spaces)}" / "space.json").exists():
        spaces.append(_read_space(workdir / f"space_{len(spaces)}", len(spaces)))
    return tuple(spaces)


def _read_space(folder: AnyPath, index: int) -> SpaceRecord:
    def of(record: dict[str, Any]) -> SpaceRecord:
        """The space of its file, with what the files beside it tell."""
        space = SearchSpace.from_json(record["space"])
        errors = _read(folder / "et_error.json", _errors)
        return SpaceRecord(
            index=index,
            name=str(record["name"]),
            space=space,
            size=int(record.get("size", space.size())),
            notes=tuple(map(str, record.get("notes", ()))),
            errors=errors,
            best=_read(folder / "search" / "best.json", Evaluated.from_json),
            sampled=_sampled(folder, errors) if errors else (),
            searched_errors=_read(folder / "search" / "state.json", _searched) or (),
        )

    space = _read(folder / "space.json", of)
    assert space is not None
    return space


def _errors(record: dict[str, Any]) -> ErrorRecord:
    space = ETError.from_json(record["space"])
    return ErrorRecord(
        space=space,
        summary=record["space"],
        sampled_errors=tuple(map(float, record["sampled_errors"])),
        sampled_costs=tuple(map(Cost, record.get("sampled_params", ()), record.get("sampled_macs", ()))),
        dimensions=tuple(DimensionEvolution.from_json(one, top_k=space.top_k) for one in record["dimensions"]),
        notes=tuple(map(str, record.get("notes", ()))),
        num_trainings=max(1, len(record.get("trainings", ()))),
    )


def _sampled(folder: AnyPath, errors: ErrorRecord) -> tuple[Architecture, ...]:
    """The architectures of the sampled errors, in their order; () where one is not among those evaluated."""
    count = len(errors.sampled_errors) // errors.num_trainings
    found: list[Architecture] = []
    for number in range(errors.num_trainings):
        of_this = slice(number * count, (number + 1) * count)
        path = (folder / f"training_{number}" if number else folder) / "evaluated.jsonl"
        found += _of_training(path, errors.sampled_errors[of_this], errors.sampled_costs[of_this])
    return tuple(found) if len(found) == len(errors.sampled_errors) else ()


def _of_training(path: AnyPath, errors: Sequence[float], costs: Sequence[Cost]) -> Sequence[Architecture]:
    try:
        evaluated = [Evaluated.from_json(line) for line in _read_lines(path)[0]]
    except S3Error:
        return ()
    if costs:
        known = {(one.cost, one.error): one.architecture for one in evaluated}
        return [known[key] for key in zip(costs, errors, strict=True) if key in known]
    first = evaluated[: len(errors)]  # samples are evaluated first, each once
    told = [one.error for one in first] == list(errors)
    return [one.architecture for one in first] if told else ()


def _searched(record: dict[str, Any]) -> tuple[float, ...]:
    return tuple(Evaluated.from_json(evaluated).error for evaluated in record["evaluated"])


def _unfinished_result(
    workdir: AnyPath, config: Mapping[str, Any], environment: Mapping[str, Any], spaces: tuple[SpaceRecord, ...]
) -> dict[str, Any]:
    """What result.json would hold, as far as the run's other files tell."""
    dataset = environment.get("dataset")
    return {
        "seed": config.get("seed"),
        "dataset": dataset or {key: config.get("data", {}).get(key) for key in ("source", "name")},
        "spaces": [
            {
                "name": space.name,
                "size": space.size,
                "et_error": space.errors and space.errors.summary,
                "best": space.best and space.best.to_json() | _retrained(workdir, space.name),
            }
            for space in spaces
        ],
        "winner": None,
        **{key: environment[key] for key in ("score_name", "error_name") if key in environment},
    }


def _retrained(workdir: AnyPath, name: str) -> dict[str, Any]:
    record = _read(workdir / "retrain" / f"best_{name}" / "result.json", dict) or {}
    return {key: record[key] for key in ("test_accuracy",) if key in record}


def _read(path: AnyPath, parse: Callable[[dict[str, Any]], T]) -> T | None:
    """What `parse` makes of a JSON file, None where there is none yet. Raises Damaged where it cannot be read."""
    if not path.exists():
        return None
    try:
        record = unsealed(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, S3Error) as error:
        raise _damaged(path, error) from error
    return _parsed(path, parse, record)


def _parsed(path: AnyPath, parse: Callable[[dict[str, Any]], T], record: Any) -> T:
    try:
        if not isinstance(record, dict):
            raise TypeError(f"expected an object, got {type(record).__name__}")
        return parse(record)
    except Damaged:  # of another file
        raise
    except (AttributeError, KeyError, TypeError, ValueError, S3Error) as error:
        raise _damaged(path, error) from error


def _read_lines(path: AnyPath) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """The objects of a JSONL file; lines that a stop has torn are left out and counted in a note."""
    if not path.exists():
        return (), ()
    records, torn = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = unsealed(json.loads(line))
        except (ValueError, S3Error):
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif line.strip():
            torn += 1
    notes = (f"{path.name}: {torn} unreadable line{'s' if torn > 1 else ''} left out",) if torn else ()
    return tuple(records), notes


def _damaged(path: AnyPath, error: Exception) -> Damaged:
    # A UnicodeDecodeError shows the whole file; another S3Error says all that there is to say.
    reason = (
        error.reason if isinstance(error, UnicodeDecodeError) else error if isinstance(error, S3Error) else repr(error)
    )
    return Damaged(f"{path} cannot be read for the report: {reason}; run its phase again or remove the file")
