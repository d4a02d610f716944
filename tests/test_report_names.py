"""The report says which test images the search has seen, and shows any name that a user's folder may have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from test_report_run import SPLITS, start_space, stop_in_space_c, write_json, write_run

from s3_jax.report import write_report

GREEN = os.fsdecode(b"gr\xfcn")  # a folder's name that is not UTF-8


def warned(tmp_path: Path, **dataset: Any) -> str:
    result = write_run(tmp_path, space=start_space(1), num_spaces=1)
    result["dataset"] |= dataset
    write_json(tmp_path / "result.json", result)
    lines = write_report(tmp_path).read_text(encoding="utf-8").splitlines()
    return "".join(line for line in lines if "E-T Error and search used" in line)


def test_the_test_images_that_the_search_has_seen_are_counted(tmp_path: Path) -> None:
    half = SPLITS | {"holdout": {"split": "test[:50%]", "images": 5000, "of": 5000}}
    assert "used 5,000 of the 10,000 test images" in warned(tmp_path, splits=half, overlap={"holdout_test": 5000})


def test_slices_that_share_no_image_are_no_warning(tmp_path: Path) -> None:
    assert warned(tmp_path, overlap={"holdout_test": 0}) == ""


@pytest.mark.parametrize(("split", "known"), [("test", True), ("train", False)])
def test_an_older_record_is_judged_by_the_names_of_its_splits(tmp_path: Path, split: str, known: bool) -> None:
    splits = SPLITS | {"holdout": {"split": split, "images": 5, "of": 10}}
    assert ("used the test images" in warned(tmp_path, splits=splits)) is known


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
