"""Section of the page: the result table (the paper's Table 5) and the architectures in full."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from s3_jax.report import text
from s3_jax.report.markup import Markup, element, join, safe, table
from s3_jax.report.names import Names, names_of
from s3_jax.report.records import RunRecord
from s3_jax.report.tables import ResultRow, result_rows
from s3_jax.report.theme import NUM_SPACE_COLOURS
from s3_jax.space import HEAD_DIM

_HEADINGS = (
    "Space",
    "E-T\nError %",
    "Expected\nerror %",
    "Top-tier\nerror %",
    "Architectures",
    "Best architecture",
    "Params",
    "MACs",
    "Hold-out\nerror %",
)
_BLOCK_HEADINGS = ("Block", "Window", "MLP", "Q-K-V", "Heads")


def result_section(run: RunRecord) -> Markup:
    """The table of spaces, then the winner's blocks, then those of every other space's best, folded."""
    rows = result_rows(run.result)
    if not rows:
        return Markup("")
    pieces = [_spaces_table(rows, names_of(run.result)), element("p", _legend(run, rows), class_="muted")]
    winner = run.result.get("winner") or {}
    if winner.get("architecture"):
        pieces.append(element("h3", f"The winner, from space {winner.get('space')}"))
        pieces.append(architecture_tables(winner["architecture"]))
    pieces += [_folded(row) for row in rows if row.architecture and not (row.is_winner and winner.get("architecture"))]
    return join(pieces, "\n")


def architecture_tables(architecture: Mapping[str, Any]) -> Markup:
    """A small table for each stage; blocks in a row that are alike share a line."""
    stages = enumerate(architecture["stages"], start=1)
    return element("div", join((_stage_table(number, stage) for number, stage in stages), "\n"), class_="stages")


def _stage_table(number: int, stage: Mapping[str, Any]) -> Markup:
    count = len(stage["blocks"])
    title = join([f"Stage {number} ", element("span", f"{count} block{'s' * (count > 1)}, width {stage['embed_dim']}")])
    rows = [
        [
            str(first) if first == last else f"{first}{text.TO}{last}",
            block["window"],
            text.choice(block["mlp_ratio"]),
            block["qkv_dim"],
            block["qkv_dim"] // HEAD_DIM,
        ]
        for first, last, block in _runs(stage["blocks"])
    ]
    return element("div", join([element("h4", title), table(_BLOCK_HEADINGS, rows, numbers=range(5))]))


def space_name(index: int, name: str) -> Markup:
    """A space's name behind a dot of its colour."""
    dot = element("span", class_="dot", style=f"background: var(--space-{index % NUM_SPACE_COLOURS})")
    return join([dot, safe(name)])


def _spaces_table(rows: list[ResultRow], names: Names) -> Markup:
    headings = (*_HEADINGS, f"Test {names.short_score} %\ninherited", f"Test {names.short_score} %\nretrained")
    cells = [_cells(index, row) for index, row in enumerate(rows)]
    classes = ["strong" if row.is_winner else "" for row in rows]
    numbers = [column for column in range(1, len(headings)) if column != 5]
    return table(headings, cells, numbers=numbers, row_classes=classes, class_="cards")


def _cells(index: int, row: ResultRow) -> list[object]:
    return [
        element("span", space_name(index, row.name), style="white-space: nowrap"),
        text.percent(row.et_error),
        text.percent(row.expected),
        text.percent(row.top_tier),
        text.size(row.size),
        _shape(row),
        text.quantity(row.params),
        text.quantity(row.macs),
        text.percent(row.holdout_error),
        text.percent(row.test_accuracy_inherited),
        text.percent(row.test_accuracy),
    ]


def _shape(row: ResultRow) -> object:
    if row.architecture is None:
        return text.ABSENT
    lines = (f"depth {text.depths(row.architecture)}", f"width {text.widths(row.architecture)}")
    return element("span", join((element("span", line, style="white-space: nowrap") for line in lines), "<br>"))


def _legend(run: RunRecord, rows: list[ResultRow]) -> str:
    counts = {row.num_samples for row in rows if row.num_samples}
    samples = f"{counts.pop():,} sampled architectures" if len(counts) == 1 else "sampled architectures"
    limits = run.config.get("search", {}).get("budget", {})
    below = [
        f"{text.quantity(limits[key])} {what}"
        for key, what in (("max_params", "parameters"), ("max_macs", "MACs"))
        if limits.get(key)
    ]
    budget = f" with fewer than {' and '.join(below)}" if below else ""
    return (
        f"E-T Error over {samples} per space. Best architecture: found by the search{budget}; its hold-out error and "
        f"first test {names_of(run.result).score} are those with the supernet's weights. {text.ABSENT}: not retrained, "
        "or not there yet. Counterpart of the paper's Table\u00a05."
    )


def _folded(row: ResultRow) -> Markup:
    assert row.architecture is not None
    figures = f"{text.quantity(row.params)} parameters, {text.quantity(row.macs)} MACs"
    summary = join([f"Best of space {row.name} ", element("span", figures)])
    return element("details", join([element("summary", summary), architecture_tables(row.architecture)]))


def _runs(blocks: list[Mapping[str, Any]]) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """(first, last, block) of every run of like blocks, counted from 1."""
    start = 1
    for _, group in itertools.groupby(
        blocks, key=lambda block: (block["window"], block["mlp_ratio"], block["qkv_dim"])
    ):
        alike = list(group)
        yield start, start + len(alike) - 1, alike[0]
        start += len(alike)
