"""The tables of a run: the short one for the screen and the README, and the full ones as CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
from rich.table import Table
from rich.text import Text

from s3_jax.report import text
from s3_jax.report.names import names_of
from s3_jax.report.records import RunRecord, SpaceRecord
from s3_jax.report.rows import ResultRow, result_rows
from s3_jax.space import DIMENSIONS
from s3_jax.writing import as_csv

_HEADINGS = ("Space", "E-T Error (%)", "Architectures", "Best architecture", "Params", "MACs")
_SCREEN_HEADINGS = ("Space", "E-T\nError %", "Archi-\ntectures", "Best: depths\nand widths", "Params", "MACs")
_SCREEN_LEFT = ("Space", "Best: depths\nand widths")


def result_table(result: Mapping[str, Any]) -> Table:
    """The result on the screen, whole in 80 columns for the widths of the released models."""
    table = Table(
        box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption=_caption(result), caption_justify="left"
    )
    for heading in (*_SCREEN_HEADINGS, f"Test {names_of(result).short_score}\ninherited", "in %\nretrained"):
        is_best = heading.startswith("Best")  # the one column that gives way on a narrow screen
        table.add_column(Text(heading), justify="left" if heading in _SCREEN_LEFT else "right", no_wrap=not is_best)
    for row in result_rows(result):
        cells = list(map(Text, _short_cells(row)))
        cells[2] = Text(text.size(row.size).replace(" ", ""))
        if row.architecture is not None:
            cells[3] = Text(f"{text.depths(row.architecture)}\n{text.widths(row.architecture)}")
        table.add_row(*cells, style="bold" if row.is_winner else None)
    return table


def markdown_table(result: Mapping[str, Any]) -> str:
    """The result as a Markdown table, for the README."""
    score = names_of(result).short_score
    headings = (*_HEADINGS, f"Test {score} inherited (%)", f"Test {score} retrained (%)")
    alignments = [":--" if heading in ("Space", "Best architecture") else "--:" for heading in headings]
    rows = [headings, alignments, *map(_short_cells, result_rows(result))]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def csv_tables(run: RunRecord) -> dict[str, str]:
    """File name -> content of every CSV table that the run has something for; numbers are exact."""
    tables = {
        "spaces.csv": _spaces_csv(run),
        "architectures.csv": _architectures_csv(run),
        "choices.csv": _choices_csv(run.spaces),
        "slopes.csv": _slopes_csv(run.spaces),
        "sampled_errors.csv": _errors_csv(run.spaces),
    }
    return {name: as_csv(rows) for name, rows in tables.items() if len(rows) > 1}


def _short_cells(row: ResultRow) -> tuple[str, ...]:
    return (
        row.name,
        text.percent(row.et_error),
        text.size(row.size),
        row.architecture_text,
        text.quantity(row.params),
        text.quantity(row.macs),
        text.percent(row.test_accuracy_inherited),
        text.percent(row.test_accuracy),
    )


def _caption(result: Mapping[str, Any]) -> Text | None:
    winner = result.get("winner")
    if not winner:
        return None
    score = text.percent(winner.get("test_accuracy"))
    return Text(f"Winner: space {winner.get('space')}, {score} % test {names_of(result).score}")


def _spaces_csv(run: RunRecord) -> list[list[Any]]:
    fields = [field.name for field in dataclasses.fields(ResultRow) if field.name != "architecture"]
    return [fields, *([getattr(row, name) for name in fields] for row in run.rows)]


def _architectures_csv(run: RunRecord) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["space", "stage", "block", "embed_dim", "window", "mlp_ratio", "qkv_dim", "heads"],
    ]
    for row in run.rows:
        for i, stage in enumerate(row.architecture.stages if row.architecture else (), start=1):
            for j, block in enumerate(stage.blocks, start=1):
                values = [block.window, block.mlp_ratio, block.qkv_dim, block.heads]
                rows.append([row.name, i, j, stage.embed_dim, *values])
    return rows


def _choices_csv(spaces: Sequence[SpaceRecord]) -> list[list[Any]]:
    rows: list[list[Any]] = [["space", "stage", "dimension", "choice"]]
    for space in spaces:
        for i, stage in enumerate(space.space.stages, start=1):
            rows += [[space.name, i, name, choice] for name in DIMENSIONS for choice in stage.choices(name)]
    return rows


def _slopes_csv(spaces: Sequence[SpaceRecord]) -> list[list[Any]]:
    fitted = ["slope", "intercept", "slope_standard_error", "steps"]
    listed = ["choices", "et_errors", "num_samples", "next_choices"]
    rows: list[list[Any]] = [["space", "stage", "dimension", *fitted, "noise", *listed]]
    for space in spaces:
        for record in space.errors.dimensions if space.errors else ():
            written = record.to_json()
            lists = [" ".join(map(str, written[name])) for name in listed]
            noise = "" if record.slope is None else record.is_noise
            values = [written[name] for name in fitted]
            rows.append([space.name, record.measure.stage + 1, record.measure.dimension, *values, noise, *lists])
    return rows


def _errors_csv(spaces: Sequence[SpaceRecord]) -> list[list[Any]]:
    rows: list[list[Any]] = [["space", "error"]]
    for space in spaces:
        rows += [[space.name, error] for error in (space.errors.sampled_errors if space.errors else ())]
    return rows
