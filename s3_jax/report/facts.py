"""What a reader asks first: which images served for what, how long the run took, and in which surroundings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from s3_jax.report import text
from s3_jax.report.names import Names, names_of
from s3_jax.report.records import RunRecord

_HELD_OUT = "E-T Error and search; then part of the retraining"
_SERVED_FOR = {
    "train": ("Training images", "supernets and retraining"),
    "holdout": ("Hold-out images", "E-T Error and search"),
    "judge": ("Judging images", "E-T Errors by which nothing is chosen"),
    "test": ("Test images", "test {score}, once for each network tested, at the end"),
}


def facts(run: RunRecord) -> list[tuple[str, str]]:
    """Data, splits, training time, devices and versions as far as the files tell: names and values."""
    dataset = run.result.get("dataset") or {}
    splits, names = dataset.get("splits") or {}, names_of(run.result)
    rows = [("Data", _dataset(dataset)), *(_split(role, splits, names) for role in splits)]
    rows += [("Training time", _times(run)), *_surroundings(run.environment)]
    return [(name, value) for name, value in rows if value]


def seen_of_test(run: RunRecord) -> str:
    """How many of the test images the search has seen, in words; "" for none. Older records have but splits' names."""
    dataset = run.result.get("dataset") or {}
    holdout, test = ((dataset.get("splits") or {}).get(role) or {} for role in ("holdout", "test"))
    shared = (dataset.get("overlap") or {}).get("holdout_test")
    if shared is None:
        return "the" if holdout.get("split") is not None and holdout.get("split") == test.get("split") else ""
    of = test.get("images")
    return "" if not shared else f"{shared:,} of the {of:,}" if isinstance(of, int) else f"{shared:,} of the"


def flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted key, value) of everything in nested mappings; a list becomes one text."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else value


def training_seconds(run: RunRecord) -> dict[str, float]:
    """Phase -> seconds of its updates, from the lines of metrics.jsonl that give seconds_per_step."""
    seconds: dict[str, float] = {}
    before: dict[str, int] = {}
    for line in run.metrics:
        phase, step, pace = line.get("phase"), line.get("step"), line.get("seconds_per_step")
        if isinstance(phase, str) and isinstance(step, int) and isinstance(pace, (int, float)):
            seconds[phase] = seconds.get(phase, 0.0) + max(0, step - before.get(phase, 0)) * pace
            before[phase] = step
    return seconds


def _dataset(dataset: Mapping[str, Any]) -> str:
    name, source, classes = (dataset.get(key) for key in ("name", "source", "num_classes"))
    called = f"{name} (source: {source})" if name and source and name != source else name or source or ""
    return f"{called}, {classes} classes" if classes else str(called)


def _split(role: str, splits: Mapping[str, Any], names: Names) -> tuple[str, str]:
    """A split's label, and how many images of which split served for what; whatever else is known of it follows."""
    record = splits[role]
    label, purpose = _SERVED_FOR.get(role, (role.replace("_", " "), ""))
    purpose = purpose.format(score=names.score)
    if role == "holdout" and record.get("split") == (splits.get("train") or {}).get("split"):
        purpose = _HELD_OUT
    images, whole = record.get("images"), record.get("of")
    count = text.ABSENT if images is None else f"{images:,}"
    of = f" of the {whole:,}" if whole and whole != images else ""
    rest = [f"{key}: {value}" for key, value in flat(record) if key not in ("split", "images", "of")]
    uses = "; ".join(part for part in (purpose, *rest) if part)
    return label, f"{count}{of} in {record.get('split', text.ABSENT)}{': ' if uses else ''}{uses}"


def _times(run: RunRecord) -> str:
    seconds = training_seconds(run)
    supernets = sum(value for phase, value in seconds.items() if phase.startswith("space_"))
    parts = [("supernets", supernets), ("retraining", sum(seconds.values()) - supernets)]
    return ", ".join(f"{name} {text.duration(value)}" for name, value in parts if value > 0)


def _surroundings(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    versions = {"python": environment["python"]} if "python" in environment else {}
    versions |= environment.get("packages") or {}
    revision = str(environment.get("git_revision") or "")[:12]
    changed = ", with uncommitted changes" if revision and environment.get("git_changes") else ""
    return [
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("Devices", _devices(environment.get("devices") or {})),
        ("Code", f"{revision}{changed}"),
    ]


def _devices(devices: Mapping[str, Any]) -> str:
    if {"count", "kind"} <= devices.keys():
        return f"{devices['count']} × {devices['kind']}"  # noqa: RUF001
    return ", ".join(f"{name} {value}" for name, value in flat(devices))
