"""What the figures draw are the numbers of the files, legible and themable."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from test_report_run import start_space, write_run

from s3_jax.report import text, theme
from s3_jax.report.figures import (
    choices_figure,
    error_distribution_figure,
    fitting_panel_width,
    loss_figure,
    loss_panels,
    search_figure,
)
from s3_jax.report.names import Names
from s3_jax.report.records import RunRecord, read_run
from s3_jax.space import SearchSpace, StageSpace

ROWS = tuple(text.DIMENSION_LABELS)
ONE_CHOICE = SearchSpace((StageSpace((2,), (32,), (7,), (4.0,), (32,)),))
EXTREME = SearchSpace(
    (
        StageSpace((1,), (8,), (1,), (0.125,), (32,)),
        StageSpace((1, 90), (16, 99999), (2, 60), (0.5, 9999.75), (32, 3200)),
    )
)


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    write_run(tmp_path)
    return read_run(tmp_path)


def draw_choices(run: RunRecord, stages: tuple[int, ...] = (0, 1, 2, 3), *, least: float = 2.2) -> Figure:
    with theme.applied():
        return choices_figure(run.spaces, stages, panel_width=fitting_panel_width(least, len(run.spaces)))


def dots(axes: Axes) -> set[tuple[float, float]]:
    return {(x, y) for line in axes.lines if line.get_marker() == "o" for x, y in np.array(line.get_data()).T.tolist()}


def bands(axes: Axes) -> list[Line2D]:
    return [line for line in axes.lines if line.get_marker() != "o"]


def drawn_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """The texts that can be seen and their boxes; labels of ticks outside an axis are there, but not drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    hidden = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        hidden |= {label for tick in ticks if not low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)}
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]
    return [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes share more than a hair's breadth."""
    boxes = [(words, box.padded(-0.5)) for words, box in drawn_texts(figure)]
    return [(a, b) for (a, first), (b, second) in itertools.combinations(boxes, 2) if first.overlaps(second)]


def cut(figure: Figure) -> list[str]:
    """Texts that reach over the figure's edge."""
    width, height = figure.get_size_inches() * figure.dpi
    return [
        words
        for words, b in drawn_texts(figure)
        if b.x0 < -0.5 or b.y0 < -0.5 or b.x1 > width + 0.5 or b.y1 > height + 0.5
    ]


def test_every_choice_of_every_space_is_a_dot_in_its_panel(run: RunRecord) -> None:
    panels = draw_choices(run).axes
    assert len(panels) == 5 * 4
    for number, axes in enumerate(panels):
        dimension, stage = ROWS[number // 4], number % 4
        expected = {(s.index, float(c)) for s in run.spaces for c in s.space.stages[stage].choices(dimension)}
        assert dots(axes) == expected
        assert axes.get_ylim() == panels[number // 4 * 4].get_ylim()
        everywhere = {float(c) for s in run.spaces for stage in s.space.stages for c in stage.choices(dimension)}
        assert set(axes.get_yticks().tolist()) <= everywhere
        assert len(axes.get_yticks()) >= 3 or len(everywhere) < 4
    assert [axes.get_title() for axes in panels[:4]] == ["Stage 1", "Stage 2", "Stage 3", "Stage 4"]
    assert [label.get_text() for label in panels[-1].get_xticklabels()] == ["A", "B", "C"]


def test_axes_do_not_depend_on_the_stages_that_are_drawn(run: RunRecord) -> None:
    whole, part = draw_choices(run).axes, draw_choices(run, (1, 2)).axes
    assert [axes.get_ylim() for axes in whole[::4]] == [axes.get_ylim() for axes in part[::2]]
    assert dots(part[0]) == dots(whole[1])


def test_slopes_stand_between_spaces_and_noise_is_marked(run: RunRecord) -> None:
    seen = set()
    for number, axes in enumerate(draw_choices(run).axes):
        for k in range(2):
            record = run.spaces[k].dimension(number % 4, ROWS[number // 4])
            assert record is not None
            words = [t for t in axes.texts if t.get_position()[0] == k + 0.5]
            lines = [line for line in bands(axes) if list(line.get_xdata()) == [k, k + 1]]
            if record.slope is None:
                assert words == []
                continue
            slope, spread = text.slope(record.slope.slope, record.slope.standard_error)
            assert [t.get_text() for t in words] == [f"{slope}\n{spread}"]
            assert words[0].get_fontweight() == ("normal" if record.is_noise else "bold")
            assert {line.get_linestyle() for line in lines} == {"--" if record.is_noise else "-"}
            seen.add(record.is_noise)
        assert len(axes.texts) <= 2
    assert seen == {True, False}


def test_the_range_between_two_spaces_joins_their_ends(run: RunRecord) -> None:
    axes = draw_choices(run).axes[2]
    depths = [space.space.stages[2].depth for space in run.spaces]
    ends = {tuple(line.get_ydata()) for line in bands(axes)}
    assert ends == {(depths[k][end], depths[k + 1][end]) for k in range(2) for end in (0, -1)}


def test_error_distributions_are_those_of_the_sampled_errors(run: RunRecord) -> None:
    with theme.applied():
        figure = error_distribution_figure(run.spaces, Names())
    assert len(figure.axes[0].lines) == 3
    for line, space in zip(figure.axes[0].lines, run.spaces, strict=True):
        errors, shares = (np.asarray(values) for values in line.get_data())
        assert space.errors is not None
        sampled = np.array(space.errors.sampled_errors)
        for error, share in zip(errors[1:], shares[1:], strict=True):
            assert share == pytest.approx(100 * np.mean(sampled <= error))
        assert line.get_drawstyle() == "steps-post"
        summary = space.errors.summary
        assert line.get_label() == (
            f"Space {space.name}: E-T Error {summary['et_error']:.2f} % "
            f"(expected {summary['expected']:.2f}, top tier {summary['top_tier']:.2f})"
        )
    assert len({str(line.get_color()) for line in figure.axes[0].lines}) == 3
    assert len({str(theme.space_line(k)) for k in range(3)}) == 3


def test_a_search_is_drawn_with_every_error_in_its_order_and_the_best_so_far(run: RunRecord) -> None:
    with theme.applied():
        axes = search_figure(run.spaces, Names()).axes[0]
    assert len(axes.lines) == 2 * len(run.spaces)
    for space, dots_of, best in zip(run.spaces, axes.lines[::2], axes.lines[1::2], strict=True):
        errors = list(space.searched_errors)
        assert len(errors) == 60
        assert list(dots_of.get_ydata()) == errors
        assert list(best.get_ydata()) == [min(errors[:count]) for count in range(1, 61)]
        assert list(best.get_xdata()) == list(dots_of.get_xdata()) == list(range(1, 61))
        assert best.get_label() == f"Space {space.name}: best so far, {min(errors):.2f} % in the end"
        assert same_color(best.get_color(), theme.space_colour(space.index))


def test_losses_are_grouped_by_phase_and_the_last_of_a_step_counts() -> None:
    lines = [
        {"phase": "space_0", "step": 2, "loss": 9.0},
        {"phase": "space_0", "step": 1, "loss": 3.0},
        {"phase": "space_0", "step": 2, "loss": 2.0},
        {"phase": "space_0", "step": 3, "loss": float("nan")},
        {"phase": "space_0", "step": 4, "accuracy": 1.0},
        {"phase": "retrain/best_A", "step": 1, "loss": 1.0},
    ]
    panels = loss_panels(lines)
    steps, losses = panels["Loss of supernets"]["space_0"]
    assert (steps.tolist(), losses.tolist()) == ([1, 2], [3.0, 2.0])
    assert list(panels["Loss of single networks"]) == ["retrain/best_A"]


def test_loss_curves_have_their_spaces_colours_and_keep_their_mean_when_thinned(run: RunRecord) -> None:
    steps = np.arange(1, 100_001)
    losses = 2.0 + np.sin(steps / 5000)
    panels = {"Loss of supernets": {"space_1": (steps, losses)}, "Other": {"x/y": (steps[:1], losses[:1])}}
    with theme.applied():
        figure = loss_figure(panels, run.spaces, columns=2)
    line = figure.axes[0].lines[0]
    assert line.get_label() == "Space B"
    assert same_color(line.get_color(), theme.space_colour(1))
    drawn = np.asarray(line.get_ydata())
    assert 100 < len(drawn) <= 600
    assert drawn.mean() == pytest.approx(losses.mean(), rel=1e-3)
    assert figure.axes[1].lines[0].get_label() == "x/y"


def test_further_trainings_of_a_space_have_its_colour_and_no_line_in_the_legend(run: RunRecord) -> None:
    curve = np.array([1, 2]), np.array([2.0, 1.0])
    phases = {"space_1": curve} | {f"space_1/training_{number}": curve for number in range(1, 12)}
    with theme.applied():
        axes = loss_figure({"Loss of supernets": phases}, run.spaces, columns=1).axes[0]
    assert axes.get_legend_handles_labels()[1] == ["Space B"]
    assert len(axes.lines) == 12
    assert all(same_color(line.get_color(), theme.space_colour(1)) for line in axes.lines)


@pytest.mark.parametrize(
    ("space", "num_spaces", "num_samples"),
    [(None, 3, 60), (None, 7, 60), (start_space(1), 2, 60), (ONE_CHOICE, 1, 1), (EXTREME, 3, 60)],
    ids=["usual", "seven spaces", "one stage", "one choice", "extreme"],
)
def test_no_labels_overlap_or_are_cut(
    tmp_path: Path, space: SearchSpace | None, num_spaces: int, num_samples: int
) -> None:
    write_run(tmp_path, space=space, num_spaces=num_spaces, num_samples=num_samples)
    run = read_run(tmp_path)
    stages, names = tuple(range(len(run.spaces[0].space.stages))), Names()
    with theme.applied():
        figures = [
            draw_choices(run, stages),
            draw_choices(run, stages[:2], least=1.75),
            *(error_distribution_figure(run.spaces, names, width=width) for width in (7.0, 4.5)),
            *(search_figure(run.spaces, names, width=width) for width in (7.0, 4.5)),
            loss_figure(loss_panels(run.metrics), run.spaces, columns=2),
        ]
        for figure in figures:
            assert overlaps(figure) == []
            assert cut(figure) == []


def test_pngs_are_pictures_on_white_and_alike_every_time(run: RunRecord) -> None:
    first, second = (theme.png(draw_choices(run)) for _ in range(2))
    assert first == second
    image = Image.open(io.BytesIO(first)).convert("RGB")
    assert image.width > 1500
    colours = image.getcolors(maxcolors=1 << 24)
    assert colours is not None
    shares = {colour: count / (image.width * image.height) for count, colour in colours}
    assert shares[255, 255, 255] > 0.5
    for role in ("space-0", "space-1", "space-2"):
        red, green, blue = bytes.fromhex(theme.light(role)[1:])
        assert shares[red, green, blue] > 1e-4


def test_svgs_follow_the_page_in_colour_and_font_and_keep_to_themselves(run: RunRecord) -> None:
    with theme.applied():
        drawn = theme.svg(draw_choices(run), "first", 'a "figure" & more')
    assert drawn.startswith("<svg ")
    assert 'aria-label="a &quot;figure&quot; &amp; more"' in drawn
    assert set(re.findall(r": ?(#[0-9a-f]{3,6})\b", drawn)) == set()
    assert {"var(--ink)", "var(--space-0)", "var(--space-2)"} <= set(re.findall(r"var\(--[a-z0-9-]+\)", drawn))
    assert "DejaVu" not in drawn
    assert "http" not in drawn
    assert "<style" not in drawn
    assert all(name.startswith("first-") for name in re.findall(r'\bid="([^"]*)"', drawn))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', drawn)) <= set(re.findall(r'\bid="([^"]*)"', drawn))


def test_the_users_own_settings_of_matplotlib_have_no_part(run: RunRecord) -> None:
    usual = theme.png(draw_choices(run))
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.grid": True, "font.size": 30, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        with theme.applied():
            assert theme.png(draw_choices(run)) == usual
        assert dict(matplotlib.rcParams) == before


def test_spaces_are_told_apart_on_light_and_on_dark_ground() -> None:
    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(first: str, second: str) -> float:
        low, high = sorted((luminance(first), luminance(second)))
        return (high + 0.05) / (low + 0.05)

    for ground in (0, 1):
        behind = theme.COLOURS["ground"][ground]
        for role, colours in theme.COLOURS.items():
            least = {"ink": 12.0, "muted": 4.5, "accent": 4.5}.get(role, 3.0 if role.startswith("space") else 1.0)
            assert contrast(colours[ground], behind) >= least, role
    assert len({colours[0] for colours in theme.COLOURS.values()}) == len(theme.COLOURS)
