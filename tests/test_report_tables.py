"""The numbers of the tables equal those of the files, however they are written."""

# ruff: noqa: RUF001 - typographic signs on purpose

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_report_run import read_json, start_space, stop_in_space_c, write_run

from s3_jax.report import markdown_table, result_rows, result_table, text
from s3_jax.report.page import alike
from s3_jax.report.records import read_run
from s3_jax.report.tables import csv_tables
from s3_jax.space import Block

BLOCK = {"window": 7, "mlp_ratio": 4.0, "qkv_dim": 96}
S3_TINY = {"stages": [{"embed_dim": w, "blocks": [BLOCK] * d} for w, d in ((96, 2), (192, 2), (384, 6), (768, 2))]}


def row_of(name: str, *, retrained: float | None) -> dict[str, Any]:
    accuracies = {"test_accuracy_inherited": 65.5, "test_accuracy": retrained}
    best = {"architecture": S3_TINY, "params": 28_328_674, "macs": 4_620_000_000, "error": 33.25}
    measured = {"expected": 40.125, "top_tier": 30.0, "et_error": 35.0625, "num_samples": 1000, "top_k": 50}
    return {"name": name, "size": 2 * 10**33, "et_error": measured, "best": best | accuracies}


RESULT = {
    "spaces": [row_of("A", retrained=None), row_of("C", retrained=82.1)],
    "winner": {"space": "C", "test_accuracy": 82.1},
}


def on_screen(result: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(result_table(result))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows_of(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table)))


def test_result_rows_are_the_numbers_of_the_result() -> None:
    a, c = result_rows(RESULT)
    assert (a.name, a.size, a.expected, a.top_tier, a.et_error, a.num_samples) == (
        *("A", 2 * 10**33, 40.125, 30.0, 35.0625, 1000),
    )
    assert (a.params, a.macs, a.holdout_error) == (28_328_674, 4_620_000_000, 33.25)
    assert (a.test_accuracy_inherited, a.test_accuracy, a.is_winner) == (65.5, None, False)
    assert (c.test_accuracy, c.is_winner) == (82.1, True)
    assert a.architecture_text == "depth 2 2 6 2, width 96 192 384 768"


def test_the_screen_shows_every_number_whole_in_80_columns() -> None:
    shown = on_screen(RESULT)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    lines = [line.split() for line in shown.splitlines()]
    assert ["A", "35.06", "2.0×10³³", "2", "2", "6", "2", "28.3", "M", "4.62", "G", "65.50", "–"] in lines
    assert ["C", "35.06", "2.0×10³³", "2", "2", "6", "2", "28.3", "M", "4.62", "G", "65.50", "82.10"] in lines
    assert lines.count(["96", "192", "384", "768"]) == 2
    assert "Winner: space C, 82.10 % test accuracy" in shown


def test_the_screen_takes_names_as_they_are_and_shows_an_unfinished_run() -> None:
    assert "[red]" in on_screen({"spaces": [row_of("[red]", retrained=None)], "winner": None})
    assert "Winner" not in on_screen({"spaces": [{"name": "A", "size": 12}]})
    assert "A" in on_screen({"spaces": [{"name": "A", "size": 12, "et_error": None, "best": None}]})


def test_markdown_has_a_line_for_each_space_and_no_stray_bars() -> None:
    lines = markdown_table({"spaces": [row_of("A|B", retrained=1.0)]}).splitlines()
    assert len(lines) == 3
    assert lines[2] == (
        "| A\\|B | 35.06 | 2.0 × 10³³ | depth 2 2 6 2, width 96 192 384 768 | 28.3 M | 4.62 G | 65.50 | 1.00 |"
    )
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_csv_tables_hold_the_exact_numbers_of_the_files(tmp_path: Path) -> None:
    result = write_run(tmp_path)
    tables = csv_tables(read_run(tmp_path))
    for row, space in zip(rows_of(tables["spaces.csv"]), result["spaces"], strict=True):
        assert (row["name"], int(row["size"])) == (space["name"], space["size"])
        assert float(row["et_error"]) == space["et_error"]["et_error"]
        assert (int(row["params"]), int(row["macs"])) == (space["best"]["params"], space["best"]["macs"])
        assert float(row["test_accuracy_inherited"]) == space["best"]["test_accuracy_inherited"]
    errors = rows_of(tables["sampled_errors.csv"])
    for k, name in enumerate("ABC"):
        written = read_json(tmp_path / f"space_{k}" / "et_error.json")["sampled_errors"]
        assert [float(row["error"]) for row in errors if row["space"] == name] == written


def test_slopes_csv_holds_every_dimension_of_every_space(tmp_path: Path) -> None:
    write_run(tmp_path)
    rows = {(r["space"], r["stage"], r["dimension"]): r for r in rows_of(csv_tables(read_run(tmp_path))["slopes.csv"])}
    assert len(rows) == 3 * 4 * 5
    for k, name in enumerate("ABC"):
        for record in read_json(tmp_path / f"space_{k}" / "et_error.json")["dimensions"]:
            row = rows[name, str(record["stage"] + 1), record["dimension"]]
            for key in ("slope", "intercept", "slope_standard_error", "steps"):
                assert row[key] == ("" if record[key] is None else str(record[key]))
            assert row["et_errors"] == " ".join(map(str, record["et_errors"]))
            assert row["next_choices"] == " ".join(map(str, record["next_choices"]))


def test_choices_and_architectures_csv_hold_spaces_and_blocks(tmp_path: Path) -> None:
    result = write_run(tmp_path)
    tables = csv_tables(read_run(tmp_path))
    first = [r["choice"] for r in rows_of(tables["choices.csv"]) if (r["space"], r["stage"]) == ("A", "1")]
    stage = start_space().stages[0]
    expected = [*stage.depth, *stage.embed_dim, *stage.window, *stage.mlp_ratio, *stage.qkv_dim]
    assert first == [str(choice) for choice in expected]
    blocks = [r for r in rows_of(tables["architectures.csv"]) if (r["space"], r["stage"]) == ("C", "3")]
    stage_c3 = result["spaces"][2]["best"]["architecture"]["stages"][2]
    assert [(int(b["window"]), float(b["mlp_ratio"]), int(b["qkv_dim"])) for b in blocks] == [
        (b["window"], b["mlp_ratio"], b["qkv_dim"]) for b in stage_c3["blocks"]
    ]
    assert {(int(b["embed_dim"]), int(b["qkv_dim"]) // int(b["heads"])) for b in blocks} == {
        (stage_c3["embed_dim"], 32)
    }


def test_tables_of_a_stopped_run_hold_what_there_is(tmp_path: Path) -> None:
    write_run(tmp_path)
    stop_in_space_c(tmp_path)
    tables = csv_tables(read_run(tmp_path))
    assert {row["space"] for row in rows_of(tables["sampled_errors.csv"])} == {"A", "B"}
    assert [row["et_error"] != "" for row in rows_of(tables["spaces.csv"])] == [True, True, False]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert csv_tables(read_run(empty)) == {}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        *[(None, "–"), (7, "7"), (999, "999"), (1000, "1.00 k"), (99_960, "100 k"), (999_600, "1.00 M")],
        *[(28_328_674, "28.3 M"), (4_620_000_000, "4.62 G"), (3.5e15, "3,500 T")],
    ],
)
def test_quantities_have_three_digits(value: float | None, written: str) -> None:
    assert text.quantity(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "–"), (1, "1"), (999_999, "999,999"), (1_000_000, "1.0 × 10⁶"), (10**400, "1.0 × 10⁴⁰⁰")],
)
def test_sizes_of_any_length_can_be_written(value: int | None, written: str) -> None:
    assert text.size(value) == written


@pytest.mark.parametrize(
    ("value", "standard_error", "written"),
    [
        (0.3549, 0.0871, ("+0.35", "± 0.09")),
        (-0.0011, 0.25, ("−0.00", "± 0.25")),
        (-0.00112, 0.0004, ("−0.0011", "± 0.0004")),
        (-0.0021, None, ("−0.002", "")),
        (0.0, 0.0, ("+0.00", "± 0.00")),
        (-123.456, 10.2, ("−123", "± 10")),
        (None, None, ("–", "")),
        (float("nan"), 1.0, ("–", "")),
    ],
)
def test_slopes_have_the_decimals_that_their_error_supports(
    value: float | None, standard_error: float | None, written: tuple[str, str]
) -> None:
    assert text.slope(value, standard_error) == written


def test_choices_and_durations_are_written_short_and_exact() -> None:
    assert text.choices([3.0, 3.5, 123456.75]) == "3, 3.5, 123456.75"
    assert [text.duration(seconds) for seconds in (12.4, 429, 7500)] == ["12 s", "7 min 09 s", "2 h 05 min"]
    assert (text.percent(98.125), text.percent(None), text.percent(float("inf"))) == ("98.12", "–", "–")


def test_like_blocks_in_a_row_share_a_line_that_numbers_them() -> None:
    first, second = Block(7, 4.0, 96), Block(7, 3.5, 96)
    assert list(alike([first] * 2 + [second] * 3 + [first])) == [("1–2", first), ("3–5", second), ("6", first)]
    assert list(alike([])) == []
