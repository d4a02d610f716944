"""The page shows the numbers of the files, stands by itself, and lets nothing of them through as HTML."""

# ruff: noqa: RUF001 - typographic signs on purpose

from __future__ import annotations

import html.parser
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_report_run import read_json, start_space, stop_in_space_c, write_json, write_run

from s3_jax.errors import S3Error
from s3_jax.report import text, write_report
from s3_jax.space import SearchSpace, StageSpace

VOID = {"meta", "br"}
HOSTILE = "<script>alert('&\"')</script>"


class Page(html.parser.HTMLParser):
    """Tables as rows of cell texts, all other text, tags, attributes; fails where tags do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.tables: list[list[list[str]]] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: Counter[str] = Counter()
        self.text, self._open = "", []
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag in ("br", "b", "span", "dd", "p", "li", "div"):
            self._add(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag in ("b", "span"):
            self._add(" ")

    def handle_data(self, data: str) -> None:
        self._add("" if self._open and self._open[-1] == "style" else data)

    def _add(self, words: str) -> None:
        self.text += words
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += words

    def table(self, heading: str) -> list[list[str]]:
        """The rows, without the headings, of the first table that has this heading."""
        tables = [rows for rows in self.tables if heading in [" ".join(cell.split()) for cell in rows[0]]]
        return [[" ".join(cell.split()) for cell in row] for row in tables[0][1:]]


def notes_of(workdir: Path, k: int) -> list[str]:
    """What was noted of space k when it was measured; the next space's record repeats it."""
    folder = workdir / f"space_{k}"
    own = [note for note in read_json(folder / "space.json")["notes"] if k == 0]
    return own + read_json(folder / "et_error.json")["notes"]


def report(workdir: Path) -> Page:
    return Page(write_report(workdir))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Page]:
    workdir = tmp_path_factory.mktemp("run")
    result = write_run(workdir)
    return workdir, result, report(workdir)


Finished = tuple[Path, dict[str, Any], Page]


def test_the_result_table_shows_the_result(finished: Finished) -> None:
    _, result, page = finished
    rows = page.table("Test acc. % inherited")
    for row, space in zip(rows, result["spaces"], strict=True):
        best, measured = space["best"], space["et_error"]
        assert row[:5] == [
            space["name"],
            *(f"{measured[key]:.2f}" for key in ("et_error", "expected", "top_tier")),
            text.size(space["size"]),
        ]
        stages = best["architecture"]["stages"]
        depths, widths = (
            " ".join(map(str, v)) for v in zip(*((len(s["blocks"]), s["embed_dim"]) for s in stages), strict=True)
        )
        assert row[5] == f"depth {depths} width {widths}"
        assert row[6:8] == [text.quantity(best["params"]), text.quantity(best["macs"])]
        assert row[8:10] == [f"{best['error']:.2f}", f"{best['test_accuracy_inherited']:.2f}"]
        assert row[10] == ("–" if best["test_accuracy"] is None else f"{best['test_accuracy']:.2f}")


def test_the_winner_is_written_out_block_by_block(finished: Finished) -> None:
    _, result, page = finished
    stages = result["winner"]["architecture"]["stages"]
    tables = [rows for rows in page.tables if rows[0] == ["Block", "Window", "MLP", "Q-K-V", "Heads"]]
    assert len(tables) == 3 * len(stages)
    for rows, stage in zip(tables, stages, strict=False):
        blocks = []
        for block, window, mlp_ratio, qkv_dim, heads in rows[1:]:
            first, last = (block.split("–") * 2)[:2]
            assert int(first) == len(blocks) + 1
            assert int(qkv_dim) == 32 * int(heads)
            values = {"window": int(window), "mlp_ratio": float(mlp_ratio), "qkv_dim": int(qkv_dim)}
            blocks += [values] * (int(last) - int(first) + 1)
        assert blocks == stage["blocks"]


def test_the_slopes_of_every_space_are_there(finished: Finished) -> None:
    workdir, _, page = finished
    tables = [rows for rows in page.tables if "Slope ± s.e." in rows[0]]
    assert len(tables) == 3
    labels = list(text.DIMENSION_LABELS)
    for k, rows in enumerate(tables):
        records = read_json(workdir / f"space_{k}" / "et_error.json")["dimensions"]
        records.sort(key=lambda record: (record["stage"], labels.index(record["dimension"])))
        for row, record in zip(rows[1:], records, strict=True):
            cells = [" ".join(cell.split()) for cell in row]
            pairs = zip(record["choices"], record["et_errors"], strict=True)
            assert cells[0] == (str(record["stage"] + 1) if record["dimension"] == "depth" else "")
            assert cells[1] == text.dimension(record["dimension"])
            assert cells[2] == " ".join(f"{choice:g} {error:.2f}" for choice, error in pairs)
            assert cells[6] == ", ".join(f"{choice:g}" for choice in record["next_choices"])
            if record["slope"] is None:
                assert cells[3:6] == ["–", "one choice", "–"]
                continue
            noise = abs(record["slope"]) <= 2 * record["slope_standard_error"]
            assert cells[3] == f"{record['slope']:+.2f} ± {record['slope_standard_error']:.2f}".replace("-", "−")
            assert cells[4] == ("noise" if noise else "")
            assert int(cells[5].replace("−", "-")) == record["steps"]


def test_the_header_says_what_the_images_served_for(finished: Finished) -> None:
    _, result, page = finished
    words = " ".join(page.text.split())
    assert "cifar10, seed 0" in words
    assert "cifar10 (source: tfds), 10 classes" in words
    assert "45,000 of the 50,000 in train: supernets and retraining" in words
    assert "5,000 of the 50,000 in train: E-T Error and search; then part of the retraining" in words
    assert "10,000 in test: test accuracy, once for each network tested, at the end" in words
    assert "supernets 37 min 30 s, retraining 12 min 30 s" in words  # 3 and 1 times 3000 updates of 0.25 s
    assert "python 3.11.9, s3_jax 0.1.0, jax 0.10.2, flax 0.12.8" in words
    assert "not finished" not in words
    assert f"{result['winner']['test_accuracy']:.2f} %" in words


@pytest.mark.usefixtures("sketched")
def test_a_search_on_the_test_images_is_pointed_out(tmp_path: Path) -> None:
    result = write_run(tmp_path, space=start_space(1), num_spaces=1)
    assert "never seen" not in report(tmp_path).text
    result["dataset"]["splits"]["holdout"] = {"split": "test", "images": 10_000, "of": 10_000}
    write_json(tmp_path / "result.json", result)
    words = report(tmp_path).text
    assert "not those of images that the search has never seen" in words
    assert "then part of the retraining" not in words


@pytest.mark.usefixtures("sketched")
def test_notes_of_spaces_files_and_images_are_there(tmp_path: Path) -> None:
    write_run(tmp_path, num_samples=40)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "space_2", "step": 3050, "loss": 1.0, "bad_images": 7}\n{"phase"')
    page = report(tmp_path)
    written = [note for k in range(3) for note in notes_of(tmp_path, k)]
    assert len(written) > 3
    for note in written:
        assert 1 <= page.text.count(note) <= len([k for k in range(3) if note in notes_of(tmp_path, k)])
    assert "metrics.jsonl: 1 unreadable line left out" in page.text
    assert "space_2: 7 unreadable images left out" in page.text


def test_the_page_stands_by_itself(finished: Finished) -> None:
    workdir, _, page = finished
    assert "://" not in page.source
    assert re.findall(r"url\((?!#)", page.source) == []
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert "default-src 'none'" in page.source
    for name, value in page.attributes:
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#") or (workdir / "report" / value).is_file()


def test_ids_are_unique_and_references_meet_them(finished: Finished) -> None:
    _, _, page = finished
    ids = Counter(value for name, value in page.attributes if name == "id")
    assert {name: count for name, count in ids.items() if count > 1} == {}
    used = {value[1:] for name, value in page.attributes if name == "href" and value.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]*)\)", page.source))
    assert used <= set(ids)
    assert {"result", "spaces", "quality", "search", "slopes", "training"} <= used


def test_figures_are_on_the_page_and_beside_it(finished: Finished) -> None:
    workdir, _, page = finished
    labels = [value for name, value in page.attributes if name == "aria-label" and value != "Sections"]
    assert len(labels) == page.tags["svg"] == 1 + 2 + 5 * 2  # Fig. 2 is in two halves on a narrow screen
    for name in ("space_choices", "error_distribution", "depths", "error_over_macs", "search", "training_loss"):
        with Image.open(workdir / "report" / f"{name}.png") as image:
            assert min(image.size) > 500
            colours = image.convert("RGB").getcolors(maxcolors=1 << 24)
            assert colours is not None
            assert len(colours) > 100
    assert "Space C: E-T Error" in page.source


def test_every_colour_of_the_figures_is_defined_for_light_and_dark(finished: Finished) -> None:
    _, _, page = finished
    light, dark = re.findall(r":root\{(--[^}]*)\}", page.source)[:2]
    for role in set(re.findall(r"var\(--([a-z0-9-]+)\)", page.source)):
        assert f"--{role}:" in light
        assert f"--{role}:" in dark


def test_nothing_of_a_file_becomes_html(tmp_path: Path) -> None:
    result = write_run(tmp_path, num_spaces=2)
    result["dataset"] |= {
        "name": HOSTILE,
        "source": HOSTILE,
        "splits": {HOSTILE: {"split": HOSTILE, "images": 3, HOSTILE: HOSTILE}},
    }
    result["winner"]["space"] = HOSTILE
    for k in range(2):
        result["spaces"][k]["name"] = HOSTILE
        space = read_json(tmp_path / f"space_{k}" / "space.json")
        write_json(tmp_path / f"space_{k}" / "space.json", space | {"name": HOSTILE, "notes": [HOSTILE]})
        errors = read_json(tmp_path / f"space_{k}" / "et_error.json")
        errors["dimensions"].append(errors["dimensions"][0] | {"dimension": HOSTILE})
        write_json(tmp_path / f"space_{k}" / "et_error.json", errors | {"notes": [HOSTILE]})
    write_json(tmp_path / "result.json", result)
    write_json(
        tmp_path / "environment.json", {HOSTILE: [HOSTILE], "packages": {HOSTILE: HOSTILE}, "devices": {HOSTILE: 1}}
    )
    config = read_json(tmp_path / "config.json")
    config["evolution"]["tau"] = HOSTILE
    write_json(tmp_path / "config.json", config | {HOSTILE: HOSTILE})
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps({"phase": HOSTILE, "step": 1, "loss": 1.0, "bad_images": 1}) + "\n"
    )
    page = report(tmp_path)
    assert "<script" not in page.source
    assert page.tags["script"] == 0
    assert page.text.count(HOSTILE) > 15


@pytest.mark.usefixtures("sketched")
def test_a_stopped_run_is_shown_as_far_as_it_has_come(tmp_path: Path) -> None:
    result = write_run(tmp_path)
    stop_in_space_c(tmp_path)
    page = report(tmp_path)
    assert "not finished: 2 of 3 spaces measured, 2 of 3 searched" in page.text
    rows = page.table("Test acc. % inherited")
    assert [row[1] for row in rows] == [*(f"{s['et_error']['et_error']:.2f}" for s in result["spaces"][:2]), "–"]
    assert rows[2][4:] == [text.size(result["spaces"][2]["size"]), *"–––––", "–"]
    assert len([rows for rows in page.tables if "Slope ± s.e." in rows[0]]) == 2


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("kept", [0, 1, 2, 3, 4])
def test_a_run_can_be_reported_from_its_first_moment(tmp_path: Path, kept: int) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    write_run(whole, space=start_space(2), num_spaces=1)
    workdir = tmp_path / "run"
    workdir.mkdir()
    steps = ("config.json", "environment.json", "space_0/space.json", "space_0/et_error.json")
    for name in steps[:kept]:
        (workdir / name).parent.mkdir(exist_ok=True)
        shutil.copy(whole / name, workdir / name)
    page = report(workdir)
    assert ("nothing to show yet" in page.text) == (kept < 3)
    assert ("Evolution of the space" in page.text) == (kept >= 3)
    assert ("Quality of the spaces" in page.text) == (kept >= 4)
    assert (workdir / "report" / "space_choices.png").exists() == (kept >= 3)


@pytest.mark.parametrize("num_spaces", [1, 3])
@pytest.mark.parametrize("num_stages", [1, 7])
def test_any_number_of_stages_and_spaces_can_be_shown(tmp_path: Path, num_stages: int, num_spaces: int) -> None:
    write_run(tmp_path, space=start_space(num_stages), num_spaces=num_spaces)
    page = report(tmp_path)
    assert len(page.table("Test acc. % inherited")) == num_spaces
    assert page.text.count(f"Stage {num_stages}") >= 3


def test_one_choice_and_one_sample_are_enough(tmp_path: Path) -> None:
    space = SearchSpace((StageSpace((2,), (32,), (7,), (4.0,), (32,)),))
    write_run(tmp_path, space=space, num_spaces=1, num_samples=1)
    page = report(tmp_path)
    rows = next(rows for rows in page.tables if "Slope ± s.e." in rows[0])[1:]
    assert [" ".join(row[4].split()) for row in rows] == ["one choice"] * 5
    assert "0 slopes, 0 of them" in page.text


def test_the_same_files_give_the_same_report(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name, space=start_space(2))
        write_report(tmp_path / name)
    first, second = (tmp_path / name / "report" for name in ("first", "second"))
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert len(names) == 12
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


@pytest.mark.usefixtures("sketched")
def test_a_stop_while_writing_leaves_the_old_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, space=start_space(1), num_spaces=2)
    path = write_report(tmp_path)
    before = path.read_bytes()
    write_run(tmp_path, space=start_space(1), num_spaces=2, seed=1)

    replace = Path.replace

    def full(source: Path, target: Path) -> None:
        if target.name == "index.html":
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(S3Error, match="No space left on device"):
            write_report(tmp_path)
    assert path.read_bytes() == before
    assert not [entry for entry in path.parent.iterdir() if entry.name.startswith(".")]
    assert write_report(tmp_path).read_bytes() != before


@pytest.mark.usefixtures("sketched")
def test_a_report_that_has_no_place_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path, space=start_space(1), num_spaces=1)
    (tmp_path / "report").write_text("in the way")
    with pytest.raises(S3Error, match=r"cannot write .*report"):
        write_report(tmp_path)
