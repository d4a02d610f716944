"""Figures of sampled architectures are of those that were sampled; published numbers stand beside ImageNet's alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_report_figures import cut, overlaps
from test_report_page import report
from test_report_run import read_json, start_space, write_json, write_run

from s3_jax.report import theme
from s3_jax.report.names import Names
from s3_jax.report.published_figure import is_imagenet, published, published_figure
from s3_jax.report.records import RunRecord, read_run
from s3_jax.report.sample_figures import cost_figure, deepest_choice, depth_figure, running_mean
from s3_jax.space import SearchSpace, StageSpace


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    write_run(tmp_path)
    return read_run(tmp_path)


def lines_of(workdir: Path, k: int = 0) -> list[str]:
    return (workdir / f"space_{k}" / "evaluated.jsonl").read_text().splitlines(keepends=True)


def make_older(workdir: Path) -> None:
    """As of a version that did not write the samples' costs."""
    path = workdir / "space_0" / "et_error.json"
    record = read_json(path)
    write_json(path, {key: value for key, value in record.items() if key not in ("sampled_params", "sampled_macs")})


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("older", [False, True])
def test_the_sampled_architectures_are_found_among_the_evaluated(tmp_path: Path, older: bool) -> None:
    write_run(tmp_path, num_spaces=1)
    path, lines = tmp_path / "space_0" / "evaluated.jsonl", lines_of(tmp_path)
    if older:
        make_older(tmp_path)
    path.write_text("".join(lines) + lines[3].replace('"error": ', '"error": 1') + '{"architec')  # of the search; torn
    (space,) = read_run(tmp_path).spaces
    assert [one.to_json() for one in space.sampled] == [json.loads(line)["architecture"] for line in lines]
    assert bool(space.errors and space.errors.sampled_costs) is not older
    assert "not have every sampled" not in report(tmp_path).text


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("older", [False, True])
def test_where_one_is_not_there_the_page_says_so(tmp_path: Path, older: bool) -> None:
    write_run(tmp_path, num_spaces=1)
    lines = lines_of(tmp_path)
    if older:
        make_older(tmp_path)
    (tmp_path / "space_0" / "evaluated.jsonl").write_text("".join(lines[:7] + lines[8:]))
    assert read_run(tmp_path).spaces[0].sampled == ()
    page = report(tmp_path)
    assert "space_0: evaluated.jsonl does not have every sampled architecture" in page.text
    assert not (tmp_path / "report" / "depths.png").exists()
    assert (tmp_path / "report" / "error_over_macs.png").exists() is not older


def test_a_sample_that_was_drawn_twice_is_evaluated_once(tmp_path: Path) -> None:
    write_run(tmp_path, space=SearchSpace((StageSpace((2,), (32,), (7,), (4.0,), (32,)),)), num_spaces=1)
    (line, *_), path = lines_of(tmp_path), tmp_path / "space_0" / "et_error.json"
    (tmp_path / "space_0" / "evaluated.jsonl").write_text(line)
    write_json(path, read_json(path) | {"sampled_errors": [json.loads(line)["error"]] * 60})
    assert len(read_run(tmp_path).spaces[0].sampled) == 60


def test_distributions_by_depth_are_those_of_the_samples_of_that_depth(run: RunRecord) -> None:
    space = deepest_choice(run.spaces)
    assert space is not None
    assert space.errors is not None
    with theme.applied():
        panels = depth_figure(space, Names(), columns=5).axes
    assert len(panels) == 5
    for stage, axes in enumerate(panels[:-1]):
        choices = space.space.stages[stage].depth
        assert [line.get_label() for line in axes.lines] == [f"{d} block{'s' * (d > 1)}" for d in choices]
        for depth, line in zip(choices, axes.lines, strict=True):
            sampled = zip(space.sampled, space.errors.sampled_errors, strict=True)
            errors = sorted(error for one, error in sampled if one.stages[stage].depth == depth)
            assert list(line.get_xdata())[1:] == errors
            assert np.asarray(line.get_ydata())[-1] == 100
    for stage, line in enumerate(panels[-1].lines):
        record = space.dimension(stage, "depth")
        assert record is not None
        assert tuple(line.get_xdata()) == record.measure.choices
        assert list(line.get_ydata()) == [measure.top_tier for measure in record.measure.measures]


def test_the_space_with_most_choices_of_depth_is_shown_and_the_last_of_equals(tmp_path: Path, run: RunRecord) -> None:
    counts = [sum(len(stage.depth) for stage in space.space.stages) for space in run.spaces]
    shown = deepest_choice(run.spaces)
    assert shown is not None
    assert shown.index == max(range(3), key=lambda k: (counts[k], k))
    assert deepest_choice([]) is None


def test_every_sample_is_a_dot_over_its_cost_and_means_are_of_neighbours(run: RunRecord) -> None:
    with theme.applied():
        lines = cost_figure(run.spaces, Names()).axes[0].lines
    for space, dots, mean in zip(run.spaces, lines[::2], lines[1::2], strict=True):
        assert space.errors is not None
        assert list(dots.get_xdata()) == [cost.macs for cost in space.errors.sampled_costs]
        assert list(dots.get_ydata()) == list(space.errors.sampled_errors)
        assert mean.get_label() == f"Space {space.name}: mean of 6 next to each other"
        assert len(mean.get_xdata()) == 60 - 6 + 1
    x, y = running_mean(np.array([3.0, 1.0, 2.0]), np.array([30.0, 10.0, 26.0]), 2)
    assert (x.tolist(), y.tolist()) == ([1.5, 2.5], [18.0, 28.0])


@pytest.mark.usefixtures("sketched")
def test_published_numbers_are_shown_beside_those_of_imagenet_alone(tmp_path: Path) -> None:
    result = write_run(tmp_path, space=start_space(1), num_spaces=2)
    report(tmp_path)
    assert not (tmp_path / "report" / "published.png").exists()
    result["dataset"] |= {"name": "imagenet2012", "num_classes": 1000}
    write_json(tmp_path / "result.json", result)
    assert "those of the paper's" in report(tmp_path).text
    assert (tmp_path / "report" / "published.png").exists()
    assert is_imagenet(result)
    assert not is_imagenet(result | {"score_name": "mIoU"})
    assert not is_imagenet({"dataset": {"name": "imagenet100", "num_classes": 100}})


def test_published_numbers_are_those_of_table_1() -> None:
    rows = {row["model"]: row for row in published()}
    assert len(rows) == 22
    for model, accuracy, params, macs in (
        ("S3-T", 82.1, 28.1, 4.7),
        ("Swin-B", 83.3, 88, 15.4),
        ("ViT-B/16", 79.7, 86, 18),
    ):
        assert (float(rows[model]["accuracy"]), float(rows[model]["params"])) == (accuracy, params)
        assert float(rows[model]["macs"]) == macs


def test_no_labels_overlap_or_are_cut(run: RunRecord) -> None:
    with theme.applied():
        figures = [
            *(depth_figure(run.spaces[-1], Names(), columns=columns) for columns in (5, 1)),
            *(cost_figure(run.spaces, Names(), width=width) for width in (7.0, 4.5)),
            *(published_figure(run.rows, columns=columns) for columns in (2, 1)),
        ]
        for figure in figures:
            assert overlaps(figure) == []
            assert cut(figure) == []


def test_samples_of_further_trainings_are_found_in_their_folders(tmp_path: Path) -> None:
    """Both trainings have the first architecture, each with an error of its own."""
    write_run(tmp_path, num_spaces=1)
    folder, lines = tmp_path / "space_0", lines_of(tmp_path)
    again = json.loads(lines[0]) | {"error": 33.25}
    record = read_json(folder / "et_error.json")
    for name in ("sampled_params", "sampled_macs"):
        record[name][30] = record[name][0]
    record["sampled_errors"][30] = 33.25
    write_json(folder / "et_error.json", record | {"trainings": [{}, {}]})
    (folder / "evaluated.jsonl").write_text("".join(lines[:30]))
    (folder / "training_1").mkdir()
    (folder / "training_1" / "evaluated.jsonl").write_text("".join([json.dumps(again) + "\n", *lines[31:]]))
    told = [json.loads(line)["architecture"] for line in [*lines[:30], lines[0], *lines[31:]]]
    assert [one.to_json() for one in read_run(tmp_path).spaces[0].sampled] == told
