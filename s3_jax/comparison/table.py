"""The table of a comparison: on the screen, as CSV and as JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.box
from rich.table import Table
from rich.text import Text

from s3_jax.comparison.published import published_top1
from s3_jax.cost import Cost
from s3_jax.paths import printable
from s3_jax.report.text import ABSENT, percent, quantity

MEANINGFUL_CLASSES = 6  # with fewer, five guesses hold every class


@dataclasses.dataclass(frozen=True)
class Row:
    """A model of the table. top1, top5: accuracies in percent, of each seed, or one of weights that were given."""

    model: str
    cost: Cost
    image_size: int  # pixels
    made: str  # how its weights were made, in words
    seeds: tuple[int, ...]  # none where weights were given
    top1: tuple[float, ...]
    top5: tuple[float, ...]  # none where it says nothing

    @property
    def published(self) -> float | None:
        """Top-1 accuracy in percent on ImageNet, as the paper's Table 1 has it."""
        return published_top1(self.model)

    def to_json(self) -> dict[str, Any]:
        """An entry of `models` in `compare.json`."""
        return {
            "model": self.model,
            "params": self.cost.params,
            "macs": self.cost.macs,
            "image_size": self.image_size,
            "top1": _mean(self.top1),
            "top1_of_seeds": list(self.top1),
            "top5": _mean(self.top5),
            "top5_of_seeds": list(self.top5),
            "seeds": list(self.seeds),
            "made": self.made,
            "paper_imagenet_top1": self.published,
        }


def trained_row(name: str, image_size: int, results: Mapping[int, Mapping[str, Any]], num_classes: int) -> Row:
    """The row of a model from the results of its trainings by seed, of which there is at least one."""
    one, metrics = next(iter(results.values())), [result["metrics"] for result in results.values()]
    return Row(
        model=name,
        cost=Cost(one["params"], one["macs"]),
        image_size=image_size,
        made="trained from scratch under this recipe",
        seeds=tuple(results),
        top1=tuple(each["top1"] for each in metrics),
        top5=tuple(each["top5"] for each in metrics) if num_classes >= MEANINGFUL_CLASSES else (),
    )


def given_row(name: str, record: Mapping[str, Any], num_classes: int) -> Row:
    """The row of weights that were measured as they are, from their record."""
    return Row(
        model=name,
        cost=Cost(record["params"], record["macs"]),
        image_size=record["image_size"],
        made=f"evaluated with {record['weights']}",
        seeds=(),
        top1=(record["top1"],),
        top5=(record["top5"],) if num_classes >= MEANINGFUL_CLASSES else (),
    )


def screen_table(rows: Sequence[Row], data: str) -> Table:
    """All rows for a terminal; data: what the accuracies are of."""
    title = f"Accuracy on {printable(data)}. In the last column: the paper's Table 1, on ImageNet, by other recipes."
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption=title, caption_justify="left")
    for heading in ("Model", "Params", "MACs", "Top-1\n%", "of each\nseed", "Top-5\n%", "Weights", "Paper\nImageNet"):
        left = heading in ("Model", "Weights")
        table.add_column(Text(heading), justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, map(printable, _cells(row))))
    return table


def _cells(row: Row) -> list[str]:
    return [
        row.model,
        quantity(row.cost.params),
        quantity(row.cost.macs),
        percent(_mean(row.top1)),
        "\n".join(map(percent, row.top1)) if row.seeds else ABSENT,
        percent(_mean(row.top5)),
        row.made,
        ABSENT if row.published is None else f"{row.published:.1f}",
    ]


def csv_table(rows: Sequence[Row]) -> str:
    """All rows; numbers are exact, and those of seeds stand in one cell, with blanks between."""
    out = io.StringIO()
    records = [row.to_json() for row in rows]
    writer = csv.DictWriter(out, list(records[0]) if records else ["model"], lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: _cell(value) for key, value in record.items()})
    return out.getvalue()


def _cell(value: Any) -> Any:
    return " ".join(map(repr, value)) if isinstance(value, list) else "" if value is None else value


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
