"""The figures of a run: Fig. 2 and Fig. 6 of the paper, and the losses. All are drawn inside `theme.applied()`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from s3_jax.evolution import DimensionEvolution
from s3_jax.report import text, theme
from s3_jax.report.names import Names
from s3_jax.report.records import SpaceRecord

Curve = tuple[np.ndarray, np.ndarray]  # updates (N,), losses (N,)

_SLOPE_INCHES = 0.4  # from one space to the next, that a slope's text needs
_LEGEND_INCHES = 5.0  # that the legend of Fig. 2 needs in one line
_MAX_LOSS_POINTS = 600  # of one curve; more are averaged in groups
_LOG_RATIO = 20.0  # largest over smallest loss from which a logarithmic axis is easier to read
_NOISE_STYLE: Any = (0, (2, 2))


def choices_figure(spaces: Sequence[SpaceRecord], stages: Sequence[int], *, panel_width: float) -> Figure:
    """Fig. 2: the choices of each stage (columns) and dimension (rows) over the spaces.

    stages: which to draw, counted from 0; axes are shared within a row and do not depend on this selection.
    panel_width: inches, as `fitting_panel_width` gives.
    """
    dimensions = tuple(text.DIMENSION_LABELS)
    size = (0.75 + panel_width * len(stages), 0.75 + 1.22 * len(dimensions))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.035, wspace=0.02, hspace=0.0))
    grid = figure.subplots(len(dimensions), len(stages), sharex=True, sharey="row", squeeze=False)
    for row, dimension in zip(grid, dimensions, strict=True):
        _set_choice_axis(row[0], spaces, dimension)
        for axes, stage in zip(row, stages, strict=True):
            _draw_choices(axes, spaces, stage, dimension)
    for axes, stage in zip(grid[0], stages, strict=True):
        axes.set_title(f"Stage {stage + 1}")
    for axes in grid[-1]:
        axes.set_xticks(range(len(spaces)), [space.name for space in spaces])
        axes.set_xlim(-0.4, len(spaces) - 0.6)
        axes.set_xlabel("Space")
    figure.align_ylabels(grid[:, 0])
    _choices_legend(figure, spaces, columns=3 if size[0] > _LEGEND_INCHES else 1)
    return figure


def fitting_panel_width(at_least: float, num_spaces: int) -> float:
    """Inches that a panel of Fig. 2 needs for the slopes between its spaces."""
    return max(at_least, _SLOPE_INCHES * num_spaces)


def error_distribution_figure(spaces: Sequence[SpaceRecord], names: Names, *, width: float = 7.0) -> Figure:
    """Fig. 6: for each measured space the share of sampled architectures with at most that error. width: inches."""
    share = "Architectures with at most this error (%)"
    figure, axes = figure_of_spaces(spaces, _draw_distribution, names.error_axis, share, width=width)
    axes.set_ylim(0, 102)
    return figure


def search_figure(spaces: Sequence[SpaceRecord], names: Names, *, width: float = 7.0) -> Figure:
    """For each searched space the error of every architecture in the order of the search, and the best so far."""
    order = "Architectures that the search has evaluated"
    figure, axes = figure_of_spaces(spaces, _draw_search, order, names.error_axis, width=width)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def figure_of_spaces(
    spaces: Sequence[SpaceRecord], draw: Callable[[Axes, SpaceRecord], None], x: str, y: str, *, width: float
) -> tuple[Figure, Axes]:
    """A figure of one panel, in which each space draws what its line of the legend says. x, y: labels of the axes."""
    figure = Figure(figsize=(width, 3.3 + 0.19 * len(spaces)), layout="constrained")
    axes = figure.subplots()
    for space in spaces:
        draw(axes, space)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(True)
    figure.legend(loc="outside upper left", handlelength=2.6, borderaxespad=0.2)
    return figure, axes


def loss_figure(panels: Mapping[str, Mapping[str, Curve]], spaces: Sequence[SpaceRecord], *, columns: int) -> Figure:
    """Training losses over updates, one panel for each entry of `panels`: title -> phase -> (steps, losses)."""
    figure, grid = figure_of_panels(len(panels), columns, width=3.6, height=3.3)
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        _draw_losses(axes, title, curves, spaces)
    return figure


def figure_of_panels(count: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, row by row, and the panels. width, height: inches of each."""
    rows = -(-count // columns)
    figure = Figure(figsize=(0.3 + width * columns, height * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def distribution(errors: Sequence[float] | np.ndarray) -> Curve:
    """Errors (N + 1,) and the percentage (N + 1,) of all that are at most so large, to be drawn as steps."""
    ascending = np.sort(errors)
    return np.concatenate([ascending[:1], ascending]), 100 * np.arange(len(ascending) + 1) / len(ascending)


def loss_panels(metrics: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """Title -> phase -> (steps, losses) of every line with a finite loss; of a step that was redone the last counts."""
    points: dict[str, dict[int, float]] = {}
    for line in metrics:
        phase, step, loss = line.get("phase"), line.get("step"), line.get("loss")
        if isinstance(step, int) and isinstance(loss, (int, float)) and np.isfinite(loss):
            points.setdefault(str(phase), {})[step] = float(loss)
    panels: dict[str, dict[str, Curve]] = {}
    for phase, losses in points.items():
        steps = np.array(sorted(losses))
        title = "Loss of supernets" if phase.startswith("space_") else "Loss of single networks"
        panels.setdefault(title, {})[phase] = (steps, np.array([losses[step] for step in steps.tolist()]))
    return panels


def _set_choice_axis(axes: Axes, spaces: Sequence[SpaceRecord], dimension: str) -> None:
    label, unit = text.DIMENSION_LABELS[dimension]
    values = sorted({v for space in spaces for stage in space.space.stages for v in stage.choices(dimension)})
    low, high = values[0], values[-1]
    span = high - low or max(abs(high), 1) * 0.5
    axes.set_ylabel(f"{label}\n({unit})" if unit else label)
    axes.set_ylim(low - 0.14 * span, high + 0.56 * span)  # the upper third is kept free for the slopes
    ticks = _spaced(values, 0.2 * span)
    axes.set_yticks(ticks, [text.choice(tick) for tick in ticks])


def _spaced(values: Sequence[float], gap: float) -> list[float]:
    """The first of the ascending values and every next one that is at least `gap` above the last one taken."""
    taken = [values[0]]
    for value in values[1:]:
        if value - taken[-1] >= gap:
            taken.append(value)
    return taken


def _draw_choices(axes: Axes, spaces: Sequence[SpaceRecord], stage: int, dimension: str) -> None:
    axes.grid(True, axis="y")
    axes.tick_params(length=0)
    choices = [space.space.stages[stage].choices(dimension) for space in spaces]
    for k in range(len(spaces) - 1):
        record = spaces[k].dimension(stage, dimension)
        _draw_tendency(axes, k, choices[k], choices[k + 1], record)
        if record is not None and record.slope is not None:
            _draw_slope(axes, k, record)
    for space, values in zip(spaces, choices, strict=True):
        axes.plot([space.index] * len(values), values, "o", ms=4.6, color=theme.space_colour(space.index), zorder=3)


def _draw_tendency(
    axes: Axes, k: int, before: Sequence[float], after: Sequence[float], record: DimensionEvolution | None
) -> None:
    colour, style = theme.light("muted"), _NOISE_STYLE if record is not None and record.is_noise else "solid"
    axes.fill_between([k, k + 1], [before[0], after[0]], [before[-1], after[-1]], color=colour, alpha=0.09, lw=0)
    for end in {0, -1} if len(before) > 1 or len(after) > 1 else {0}:
        axes.plot([k, k + 1], [before[end], after[end]], color=colour, alpha=0.75, lw=0.9, linestyle=style, zorder=2)


def _draw_slope(axes: Axes, k: int, record: DimensionEvolution) -> None:
    assert record.slope is not None
    axes.text(
        k + 0.5,
        0.97,
        "\n".join(text.slope(record.slope.slope, record.slope.standard_error)).strip(),
        transform=axes.get_xaxis_transform(),
        ha="center",
        va="top",
        fontsize=7,
        linespacing=1.15,
        color=theme.light("muted" if record.is_noise else "ink"),
        fontweight="normal" if record.is_noise else "bold",
    )


def _choices_legend(figure: Figure, spaces: Sequence[SpaceRecord], *, columns: int) -> None:
    muted = theme.light("muted")
    handles = [Line2D([], [], marker="o", ms=4.6, ls="", color=muted, label="choice")]
    if len(spaces) > 1:
        handles.append(Line2D([], [], color=muted, lw=0.9, label="range of choices"))
        handles.append(Line2D([], [], color=muted, lw=0.9, ls=_NOISE_STYLE, label="slope is noise: |w| ≤ 2 s.e."))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, handlelength=2.2)


def _draw_distribution(axes: Axes, space: SpaceRecord) -> None:
    assert space.errors is not None
    whole = space.errors.space
    parts = f"expected {text.percent(whole.expected)}, top tier {text.percent(whole.top_tier)}"
    label = f"Space {space.name}: E-T Error {text.percent(whole.et_error)} % ({parts})"
    drawn = distribution(space.errors.sampled_errors)
    axes.step(*drawn, where="post", label=label, **theme.space_style(space.index))


def _draw_search(axes: Axes, space: SpaceRecord) -> None:
    errors = np.array(space.searched_errors)
    best, order = np.minimum.accumulate(errors), np.arange(1, len(errors) + 1)
    axes.plot(order, errors, "o", ms=2.6, mew=0, color=theme.space_colour(space.index), alpha=0.4)
    label = f"Space {space.name}: best so far, {text.percent(float(best[-1]))} % in the end"
    axes.step(order, best, where="post", label=label, **theme.space_style(space.index))


def _draw_losses(axes: Axes, title: str, curves: Mapping[str, Curve], spaces: Sequence[SpaceRecord]) -> None:
    names = {f"space_{space.index}": (space.index, f"Space {space.name}") for space in spaces}
    names |= {f"retrain/best_{space.name}": (space.index, f"Best of space {space.name}") for space in spaces}
    for count, (phase, (steps, losses)) in enumerate(curves.items()):
        first, further, _ = phase.removesuffix("/train").partition("/training_")
        index, label = names.get(first, (count, phase))
        style: dict[str, Any] = theme.space_style(index) | {"lw": 1.5, "marker": "o" if len(steps) == 1 else None}
        if further:  # of a space that has a curve already: no line of its own in the legend
            label, style = "_nolegend_", style | {"lw": 0.8, "alpha": 0.5}
        axes.plot(*_thinned(steps, losses), ms=4, label=label, **style)
    everything = np.concatenate([losses for _, losses in curves.values()])
    if everything.min() > 0 and everything.max() > _LOG_RATIO * everything.min():
        axes.set_yscale("log")
    axes.set(xlabel="Updates", ylabel=title)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(True)
    longest = max((len(label) for label in axes.get_legend_handles_labels()[1]), default=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3 if longest <= 8 else 2 if longest <= 16 else 1)


def _thinned(steps: np.ndarray, losses: np.ndarray) -> Curve:
    group = -(-len(steps) // _MAX_LOSS_POINTS)
    starts = np.arange(0, len(steps), group)
    counts = np.diff(np.append(starts, len(steps)))
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(losses, starts) / counts
