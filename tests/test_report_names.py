"""The report says which test images the search has seen, shows any name that a user's folder may have, and calls the
score and the error what the run's files call them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_report_run import SPLITS, read_json, start_space, stop_in_space_c, write_json, write_run

from s3_jax.report import markdown_table, result_table, write_report
from s3_jax.report.names import Names, names_of

GREEN = os.fsdecode(b"gr\xfcn")  # a folder's name that is not UTF-8


def warned(tmp_path: Path, **dataset: Any) -> str:
    result = write_run(tmp_path, space=start_space(1), num_spaces=1)
    result["dataset"] |= dataset
    write_json(tmp_path / "result.json", result)
    lines = write_report(tmp_path).read_text(encoding="utf-8").splitlines()
    return "".join(line for line in lines if "E-T Error and search used" in line)


@pytest.mark.usefixtures("sketched")
def test_the_test_images_that_the_search_has_seen_are_counted(tmp_path: Path) -> None:
    half = SPLITS | {"holdout": {"split": "test[:50%]", "images": 5000, "of": 5000}}
    assert "used 5,000 of the 10,000 test images" in warned(tmp_path, splits=half, overlap={"holdout_test": 5000})


@pytest.mark.usefixtures("sketched")
def test_slices_that_share_no_image_are_no_warning(tmp_path: Path) -> None:
    assert warned(tmp_path, overlap={"holdout_test": 0}) == ""


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize(("split", "known"), [("test", True), ("train", False)])
def test_an_older_record_is_judged_by_the_names_of_its_splits(tmp_path: Path, split: str, known: bool) -> None:
    splits = SPLITS | {"holdout": {"split": split, "images": 5, "of": 10}}
    assert ("used the test images" in warned(tmp_path, splits=splits)) is known


@pytest.mark.usefixtures("sketched")
def test_a_stopped_run_warns_too(tmp_path: Path) -> None:
    write_run(tmp_path)
    stop_in_space_c(tmp_path)
    dataset = {"name": "mine", "splits": SPLITS, "overlap": {"holdout_test": 7}}
    write_json(tmp_path / "environment.json", {"dataset": dataset})
    assert "used 7 of the 10,000 test images" in write_report(tmp_path).read_text(encoding="utf-8")


def test_a_name_that_is_not_utf8_is_escaped_in_every_file(tmp_path: Path) -> None:
    result = write_run(tmp_path, space=start_space(1), num_spaces=1)
    result["dataset"]["name"] = GREEN
    result["spaces"][0]["name"] = GREEN
    write_json(tmp_path / "result.json", result)
    page = write_report(tmp_path)
    assert "gr\\xfcn, seed 0" in page.read_text(encoding="utf-8")
    assert "gr\\xfcn" in (page.parent / "spaces.csv").read_text(encoding="utf-8")


# What a run's files say, and the words of the report: the score in headings and in sentences, errors on an axis.
WORDS = [
    ({}, "acc.", "accuracy", "accuracies", "top-1 error", "Top-1 error"),
    (
        {"score_name": "accuracy", "error_name": "top-1 error"},
        "acc.",
        "accuracy",
        "accuracies",
        "top-1 error",
        "Top-1 error",
    ),
    ({"score_name": "mIoU", "error_name": "100 - mIoU"}, "mIoU", "mIoU", "mIoU values", "100 - mIoU", "100 - mIoU"),
    ({"score_name": "score", "error_name": "error"}, "score", "score", "scores", "error", "Error"),
]


def on_screen(result: dict[str, Any]) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(result_table(result))
    return captured.get()


def words_of(page: Path) -> str:
    return " ".join(page.read_text(encoding="utf-8").split())


@pytest.mark.parametrize(("said", "short", "score", "scores", "error", "axis"), WORDS)
def test_score_and_error_are_called_as_the_result_says(
    tmp_path: Path, said: dict[str, str], short: str, score: str, scores: str, error: str, axis: str
) -> None:
    result = write_run(tmp_path, space=start_space(1), num_spaces=1) | said
    result["dataset"] |= {"overlap": {"holdout_test": 7}}
    write_json(tmp_path / "result.json", result)
    page = words_of(write_report(tmp_path))
    for words in (
        *(f"Test {short} % inherited", f"Test {short} % retrained", f"Test {score} of the winner"),
        *(f"first test {score} are those", f"test {score}, once for each network", f"so the test {scores} are not"),
        f"whose {error}, measured",
    ):
        assert words in page
    assert page.count(f">{axis} with inherited weights (%)<") == 4  # two figures, for wide and for narrow screens
    headings = markdown_table(result).splitlines()[0]
    assert headings.endswith(f"| MACs | Test {short} inherited (%) | Test {short} retrained (%) |")
    shown = on_screen(result)
    assert f"Test {short}" in shown
    assert f" % test {score}" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.usefixtures("sketched")
def test_a_stopped_run_is_named_by_its_environment(tmp_path: Path) -> None:
    write_run(tmp_path)
    stop_in_space_c(tmp_path)
    record = read_json(tmp_path / "environment.json")
    write_json(tmp_path / "environment.json", record | {"score_name": "mIoU", "error_name": "100 - mIoU"})
    page = words_of(write_report(tmp_path))
    assert "Test mIoU % inherited" in page
    assert "whose 100 - mIoU, measured" in page


def test_names_are_text_wherever_they_stand(tmp_path: Path) -> None:
    result = write_run(tmp_path, space=start_space(1), num_spaces=1)
    result |= {"score_name": "[red]<i>$x$", "error_name": "<script>"}
    write_json(tmp_path / "result.json", result)
    page = words_of(write_report(tmp_path))
    assert "<script" not in page
    assert "Test [red]&lt;i&gt;$x$ of the winner" in page
    assert "Test [red]<i>$x$" in on_screen(result)
    assert "% test [red]<i>$x$" in on_screen(result)
    assert names_of({"score_name": None, "error_name": 7}) == Names("accuracy", "7")
