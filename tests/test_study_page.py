"""Records, tables and the page of a study, from folders of made-up runs."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from study_folders import SHIFTS, config, write_folders
from test_report_page import HOSTILE, Page
from test_report_run import read_json, write_json

from s3_jax.errors import S3Error
from s3_jax.study.plan import Plan, plan_of
from s3_jax.study.records import HOLDOUT, JUDGE, read_study
from s3_jax.study.statistics import SUPPORTS
from s3_jax.study.write import is_written, write_study

ARMS = "measured,random,grow,prune,still"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(config(evolution__num_spaces=3, evolution__num_samples=40, evolution__top_k=4), "3", ARMS)


@pytest.fixture(scope="module")
def folder(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose runs are there, and what was made of them."""
    workdir = tmp_path_factory.mktemp("study")
    write_folders(workdir, plan)
    assert not is_written(plan, workdir)
    assert write_study(plan, workdir, {}) == workdir / "report" / "index.html"
    return workdir


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder / "report" / "index.html")


def rows_of(folder: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "report" / name).open()))


def test_spaces_are_read_as_the_runs_have_written_them(folder: Path, plan: Plan) -> None:
    study = read_study(plan, folder)
    assert (study.images, study.space_names, study.top_share) == ((HOLDOUT, JUDGE), ("A", "B", "C"), 0.1)
    assert list(study.spaces) == list(plan.runs)
    for run, spaces in study.spaces.items():
        for space in spaces:
            record = read_json(run.folder(folder) / f"space_{space.index}" / "et_error.json")
            assert space.measures[HOLDOUT].et_error == record["space"]["et_error"]
            assert space.measures[JUDGE].et_error == pytest.approx(record["space"]["et_error"] + 1)
            assert space.measures[HOLDOUT].sampled.errors.tolist() == record["sampled_errors"]
            assert space.measures[JUDGE].sampled.macs.tolist() == record["sampled_macs"]
            assert space.mean_macs == np.mean(record["sampled_macs"])
            fitted = [one for one in record["dimensions"] if one["slope"] is not None]
            assert space.slopes == {(one["stage"], one["dimension"]): one["slope"] for one in fitted}


def test_differences_are_those_that_were_planted(folder: Path) -> None:
    """All arms of a seed are the same run, but for the errors that were planted."""
    found = rows_of(folder, "differences_by_seed.csv")
    assert len([row for row in found if row["cost"] == "face value"]) == (5 + 4) * 2 * 3
    for row in found:
        if row["less"] != "first space" and row["cost"] == "face value":
            assert float(row["difference"]) == pytest.approx(SHIFTS["measured"] - SHIFTS[row["less"]])
        if row["less"] != "first space" and row["cost"] == "equal cost":
            assert float(row["difference"]) == pytest.approx(SHIFTS["measured"] - SHIFTS[row["less"]])
    intervals = rows_of(folder, "differences.csv")
    random = next(row for row in intervals if (row["less"], row["images"]) == ("random", JUDGE))
    assert (random["seeds"], float(random["mean"]), float(random["high"])) == (
        "3",
        pytest.approx(-4),
        pytest.approx(-4),
    )


def test_the_record_and_the_tables_tell_every_space_of_every_run(folder: Path, plan: Plan) -> None:
    record = read_json(folder / "study.json")
    assert record["finished"] == [run.name for run in plan.runs]
    assert len(record["spaces"]) == len(rows_of(folder, "spaces.csv")) == 3 * 5 * 3
    for written, row in zip(record["spaces"], rows_of(folder, "spaces.csv"), strict=True):
        assert (str(written["seed"]), written["arm"], written["space"]) == (row["seed"], row["arm"], row["space"])
        assert written["et_error"] == {kind: float(row[f"et_error_{kind}"]) for kind in (HOLDOUT, JUDGE)}
    verdicts = {row["claim"]: row["verdict"] for row in rows_of(folder, "claims.csv")}
    assert verdicts["Evolution by slopes does more than a random move"] == SUPPORTS
    assert is_written(plan, folder)


def test_the_page_shows_what_the_tables_have(folder: Path, page: Page) -> None:
    for shown, row in zip(page.table("Claim of the paper"), rows_of(folder, "claims.csv"), strict=True):
        assert shown[0] == row["claim"]
        assert shown[-1].startswith(row["verdict"])
    rows = page.table("Last space of")
    assert len(rows) == len(rows_of(folder, "differences.csv"))
    assert rows[-1][:2] == ["measured", "the last space of still"]
    assert rows[-1][4] == "−11.00"  # noqa: RUF001
    assert len(page.table("Mean params")) == 5 * 3
    assert "the 95 % interval of this mean (Student's, which with few seeds is wide)" in " ".join(page.text.split())


def test_the_page_stands_by_itself_and_has_no_number_that_is_none(page: Page) -> None:
    assert not re.search(r"\b(nan|inf|none|null)\b", page.text, re.IGNORECASE)
    assert page.tags["svg"] == 4
    assert len([value for name, value in page.attributes if name == "aria-label" and value != "Sections"]) == 4
    assert page.tags["script"] == page.tags["link"] == page.tags["img"] == 0
    hrefs = [value for name, value in page.attributes if name == "href" and not value.startswith("#")]
    assert next(href for href in hrefs if "seed_" in href) == "../seed_0/measured/report/index.html"


@pytest.mark.parametrize("judged", [False, True])
def test_names_and_settings_are_escaped(tmp_path: Path, judged: bool) -> None:
    plan = plan_of(config(evolution__num_spaces=3, data__path=HOSTILE), "1", "measured")
    write_folders(tmp_path, plan, judged=judged)
    path = tmp_path / "seed_0/measured/result.json"
    result = read_json(path)
    result["dataset"]["name"] = HOSTILE
    write_json(path, result)
    page = Page(write_study(plan, tmp_path, {"seed 0, arm still": HOSTILE}))
    assert page.tags["script"] == 0
    assert page.text.count("<script>alert") == 3  # title, heading and setting
    assert {row[-1].split(" no ")[0].strip() for row in page.table("Claim of the paper")} == {"cannot tell"}


def test_an_unfinished_study_is_shown_as_far_as_it_has_come(folder: Path, plan: Plan, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy/seed_1/grow/result.json").unlink()
    page = Page(write_study(plan, tmp_path / "copy", {"seed 1, arm grow": "too large"}))
    assert not is_written(plan, tmp_path / "copy")
    text = " ".join(page.text.split())
    assert "14 of 15 runs are finished" in text
    assert "seed 1, arm grow: could not be done: too large" in text
    nothing = Page(write_study(plan, tmp_path / "empty", {}))
    assert "0 of 15 runs are finished" in " ".join(nothing.text.split())


@pytest.mark.parametrize(
    ("name", "content"),
    [("space_1/et_error.json", "{"), ("space_0/space.json", "[]"), ("result.json", '{"spaces": 7}')],
)
def test_a_damaged_file_of_a_run_is_named(folder: Path, plan: Plan, tmp_path: Path, name: str, content: str) -> None:
    shutil.copytree(folder / "seed_0", tmp_path / "seed_0")
    (tmp_path / "seed_0/grow" / name).write_text(content)
    with pytest.raises(S3Error, match=f"seed_0/grow/{name}"):
        read_study(plan, tmp_path)


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine")
def test_the_page_fits_every_screen(folder: Path, tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    for width in (1280, 420, 320):
        found = browser.look(folder / "report" / "index.html", width)
        assert (found["errors"], found["beyond"], found["undescribed"]) == ([], [], [])
        assert (found["shown"], found["pictures"]) == (width, 2)
        assert found["wide"] <= width
    browser.close()
