"""A run's files as values: what is there is read, what is not there yet is empty."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath
from s3_jax.space import Choice, SearchSpace
from s3_jax.writing import unsealed

NOISE_STANDARD_ERRORS = 2.0  # a slope no further from zero than this many standard errors is called noise


@dataclasses.dataclass(frozen=True)
class DimensionRecord:
    """What one dimension of one stage (counted from 0) measured, and where the rule of Eq. 7 and 8 takes it.

    E-T Errors are in percent; slope, intercept and standard error are None where there is one choice.
    """

    stage: int
    dimension: str
    choices: tuple[Choice, ...]
    et_errors: tuple[float | None, ...]
    num_samples: tuple[int, ...]
    slope: float | None
    intercept: float | None
    slope_standard_error: float | None
    steps: int | None
    next_choices: tuple[Choice, ...]

    @property
    def is_noise(self) -> bool:
        """Whether the slope lies within 2 standard errors of zero; a slope without standard error is not judged."""
        if self.slope is None or self.slope_standard_error is None:
            return False
        return abs(self.slope) <= NOISE_STANDARD_ERRORS * self.slope_standard_error


@dataclasses.dataclass(frozen=True)
class ErrorRecord:
    """`space_<k>/et_error.json`: the E-T Error of a space, the errors (%) it rests on, and its dimensions."""

    summary: Mapping[str, Any]
    sampled_errors: tuple[float, ...]
    dimensions: tuple[DimensionRecord, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SpaceRecord:
    """One space of a run: `space_<k>/` as far as it is there."""

    index: int
    name: str
    space: SearchSpace
    size: int
    notes: tuple[str, ...]
    errors: ErrorRecord | None
    best: Mapping[str, Any] | None
    searched_errors: tuple[float, ...]  # of the architectures that the search has proposed, in its order, in percent

    def dimension(self, stage: int, dimension: str) -> DimensionRecord | None:
        """The record of one dimension of stage `stage` (counted from 0), None while it is not measured."""
        records = self.errors.dimensions if self.errors else ()
        return next((r for r in records if (r.stage, r.dimension) == (stage, dimension)), None)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """All that the report shows of a run; `notes` names what could not be read."""

    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    result: Mapping[str, Any]
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
    config = _read_json(workdir / "config.json") or {}
    environment = _read_json(workdir / "environment.json") or {}
    result = _read_json(workdir / "result.json")
    return RunRecord(
        config=config,
        environment=environment,
        result=result if result is not None else _unfinished_result(workdir, config, environment, spaces),
        finished=result is not None,
        spaces=spaces,
        metrics=metrics,
        notes=notes,
    )


def _read_spaces(workdir: AnyPath) -> tuple[SpaceRecord, ...]:
    spaces: list[SpaceRecord] = []
    while (workdir / f"space_{len(spaces)}" / "space.json").exists():
        spaces.append(_read_space(workdir / f"space_{len(spaces)}", len(spaces)))
    return tuple(spaces)


def _read_space(folder: AnyPath, index: int) -> SpaceRecord:
    record = _read_json(folder / "space.json") or {}
    try:
        space = SearchSpace.from_json(record["space"])
        return SpaceRecord(
            index=index,
            name=str(record["name"]),
            space=space,
            size=int(record.get("size", space.size())),
            notes=tuple(map(str, record.get("notes", ()))),
            errors=_read_errors(folder / "et_error.json"),
            best=_read_json(folder / "search" / "best.json"),
            searched_errors=_read_searched(folder / "search" / "state.json"),
        )
    except (KeyError, TypeError, ValueError, S3Error) as error:
        raise _damaged(folder / "space.json", error) from error


def _read_errors(path: AnyPath) -> ErrorRecord | None:
    record = _read_json(path)
    if record is None:
        return None
    try:
        return ErrorRecord(
            summary=dict(record["space"]),
            sampled_errors=tuple(map(float, record["sampled_errors"])),
            dimensions=tuple(map(_dimension, record["dimensions"])),
            notes=tuple(map(str, record.get("notes", ()))),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_searched(path: AnyPath) -> tuple[float, ...]:
    record = _read_json(path)
    if record is None:
        return ()
    try:
        return tuple(float(evaluated["error"]) for evaluated in record["evaluated"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _dimension(record: Mapping[str, Any]) -> DimensionRecord:
    return DimensionRecord(
        stage=int(record["stage"]),
        dimension=str(record["dimension"]),
        choices=tuple(record["choices"]),
        et_errors=tuple(record["et_errors"]),
        num_samples=tuple(record["num_samples"]),
        slope=record["slope"],
        intercept=record["intercept"],
        slope_standard_error=record["slope_standard_error"],
        steps=record["steps"],
        next_choices=tuple(record["next_choices"]),
    )


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
                "et_error": space.errors.summary if space.errors else None,
                "best": space.best and {**space.best, **_retrained(workdir, space.name)},
            }
            for space in spaces
        ],
        "winner": None,
        **{key: environment[key] for key in ("score_name", "error_name") if key in environment},
    }


def _retrained(workdir: AnyPath, name: str) -> dict[str, Any]:
    record = _read_json(workdir / "retrain" / f"best_{name}" / "result.json") or {}
    return {key: record[key] for key in ("test_accuracy",) if key in record}


def _read_json(path: AnyPath) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        record = unsealed(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, S3Error) as error:
        raise _damaged(path, error) from error
    if not isinstance(record, dict):
        raise _damaged(path, TypeError(f"expected an object, got {type(record).__name__}"))
    return record


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


def _damaged(path: AnyPath, error: Exception) -> S3Error:
    # A UnicodeDecodeError shows the whole file; another S3Error says all that there is to say.
    reason = (
        error.reason if isinstance(error, UnicodeDecodeError) else error if isinstance(error, S3Error) else repr(error)
    )
    return S3Error(f"{path} cannot be read for the report: {reason}; run its phase again or remove the file")
