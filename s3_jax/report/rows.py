"""The rows of a run's result: one for each space (the paper's Table 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from s3_jax.report import text
from s3_jax.space import Architecture


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """One space of the result: None stands for what the run has not come to. Errors and scores in %."""

    name: str
    size: int | None
    expected: float | None
    top_tier: float | None
    et_error: float | None
    num_samples: int | None
    architecture: Architecture | None
    params: int | None
    macs: int | None
    holdout_error: float | None
    test_accuracy_inherited: float | None
    test_accuracy: float | None
    is_winner: bool

    @property
    def architecture_text(self) -> str:
        """Depth and width of each stage of the best architecture."""
        if self.architecture is None:
            return text.ABSENT
        return f"depth {text.depths(self.architecture)}, width {text.widths(self.architecture)}"


def result_rows(result: Mapping[str, Any]) -> list[ResultRow]:
    """A row for each space of a run's result.json, in the order of the spaces.

    Raises S3Error where an architecture is none.
    """
    winner = (result.get("winner") or {}).get("space")
    return [_result_row(space, winner) for space in result.get("spaces") or ()]


def _result_row(space: Mapping[str, Any], winner: str | None) -> ResultRow:
    errors, best = space.get("et_error") or {}, space.get("best") or {}
    return ResultRow(
        name=str(space.get("name", text.ABSENT)),
        size=space.get("size"),
        **{name: errors.get(name) for name in ("expected", "top_tier", "et_error", "num_samples")},
        architecture=Architecture.from_json(best["architecture"]) if best.get("architecture") else None,
        holdout_error=best.get("error"),
        **{name: best.get(name) for name in ("params", "macs", "test_accuracy_inherited", "test_accuracy")},
        is_winner=winner is not None and space.get("name") == winner,
    )
