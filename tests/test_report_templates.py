"""The templates of the page escape what they are given, and know every name that they use."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
from test_report_page import report
from test_report_run import read_json, start_space, write_json, write_run

from s3_jax.report import page, write_report


@pytest.mark.usefixtures("sketched")
def test_a_class_that_is_called_as_a_tag_is_text(tmp_path: Path) -> None:
    write_run(tmp_path, space=start_space(1), num_spaces=1)
    before = report(tmp_path).tags["b"]
    environment = read_json(tmp_path / "environment.json") | {"dataset": {"class_names": ["<b>", "cat & dog"]}}
    write_json(tmp_path / "environment.json", environment)
    shown = report(tmp_path)
    assert "&lt;b&gt;, cat &amp; dog" in shown.source
    assert shown.tags["b"] == before


@pytest.mark.usefixtures("sketched")
def test_attributes_are_escaped_where_they_enter(tmp_path: Path) -> None:
    result = write_run(tmp_path, space=start_space(1), num_spaces=1)
    write_json(tmp_path / "result.json", result | {"score_name": '" onclick="x'})
    assert ("data-label", 'Test " onclick="x % inherited') in report(tmp_path).attributes


@pytest.mark.usefixtures("sketched")
def test_a_name_that_a_template_does_not_know_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, space=start_space(1), num_spaces=1)
    monkeypatch.setattr(page, "_view", lambda run, figures: {"run": run, "names": {}, "figures": figures})
    with pytest.raises(jinja2.UndefinedError):
        write_report(tmp_path)
