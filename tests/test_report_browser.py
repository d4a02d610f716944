"""In a browser nothing of the page goes wrong or is wider than the screen, and every picture has a description."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from test_report_run import stop_in_space_c, write_json, write_run

from s3_jax.report import write_report

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """With every figure there is, of a stopped run, and of one that has nothing yet."""
    whole, stopped, empty = (tmp_path_factory.mktemp(name) for name in ("whole", "stopped", "empty"))
    result = write_run(whole)
    result["dataset"] |= {"name": "imagenet2012", "num_classes": 1000}
    write_json(whole / "result.json", result)
    write_run(stopped)
    stop_in_space_c(stopped)
    return {folder.name.rstrip("0123456789"): write_report(folder) for folder in (whole, stopped, empty)}


@pytest.mark.parametrize("width", [1280, 420, 320])
@pytest.mark.parametrize(("name", "pictures"), [("whole", 7), ("stopped", 6), ("empty", 0)])
def test_the_page_fits_the_screen_and_says_what_it_shows(
    browser: Browser, pages: dict[str, Path], name: str, pictures: int, width: int
) -> None:
    found = browser.look(pages[name], width)
    assert found["errors"] == []
    assert found["shown"] == width
    assert found["wide"] <= width
    assert found["beyond"] == []
    assert found["undescribed"] == []
    # Those for other screens are hidden; Fig. 2 is in two halves on a narrow one.
    assert found["pictures"] == pictures + (1 if pictures and width < 700 else 0)


def test_what_is_wrong_with_a_page_is_seen(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    wrong = "<script>undefined.function()</script><img src='gone.png'><div style='width: 900px'>wide</div>"
    page.write_text(f"<!DOCTYPE html><html><body>{wrong}</body></html>")
    found = browser.look(page, 420)
    assert len(found["errors"]) == 2
    assert found["wide"] > 420
    assert len(found["beyond"]) == len(found["undescribed"]) == 1
