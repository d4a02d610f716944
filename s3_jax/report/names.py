"""What the score and the error of a run are called, as its task has it; the run's files tell it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

_SHORT = {"accuracy": "acc."}  # in headings of narrow columns
_PLURAL = {"accuracy": "accuracies", "score": "scores"}


@dataclasses.dataclass(frozen=True)
class Names:
    """The defaults are those of a run that does not say: of a version that had classification alone."""

    score: str = "accuracy"  # 100 - error
    error: str = "top-1 error"

    @property
    def short_score(self) -> str:
        """The score in a heading."""
        return _SHORT.get(self.score, self.score)

    @property
    def scores(self) -> str:
        """More than one."""
        return _PLURAL.get(self.score, f"{self.score} values")

    @property
    def error_axis(self) -> str:
        """The label of an axis of errors, as the search and the E-T Error measure them."""
        return f"{self.error[:1].upper()}{self.error[1:]} with inherited weights (%)"

    @property
    def error_label(self) -> str:
        """The same where there is less room."""
        return f"{self.error[:1].upper()}{self.error[1:]} (%)"


def names_of(result: Mapping[str, Any]) -> Names:
    """The names in a result.json, or in an environment.json while there is no result."""
    given = {field.name: result.get(f"{field.name}_name") for field in dataclasses.fields(Names)}
    return Names(**{name: str(value) for name, value in given.items() if value})
