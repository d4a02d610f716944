"""Figures of the sampled architectures: Fig. 3 of the paper, and their errors over multiply-adds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from s3_jax.report import text, theme
from s3_jax.report.figures import distribution, figure_of_panels, figure_of_spaces
from s3_jax.report.names import Names
from s3_jax.report.records import SpaceRecord

# No colour is that of one of the first three spaces. Depths: from light to dark.
_DEPTH_COLOURS = ("space-5", "accent", "ink")
_STAGE_COLOURS = ("space-3", "space-4", "space-5", "ink")
_STAGE_MARKERS = "os^Dvp*X"
_NEIGHBOURS = 0.1  # of all samples, that a running mean is over
_LEAST_NEIGHBOURS = 5


def deepest_choice(spaces: Sequence[SpaceRecord]) -> SpaceRecord | None:
    """Of the spaces whose sampled architectures are known the one with most choices of depth, the last of equals."""
    known = [space for space in spaces if space.sampled]
    return max(
        known, key=lambda space: (sum(len(stage.depth) for stage in space.space.stages), space.index), default=None
    )


def depth_figure(space: SpaceRecord, names: Names, *, columns: int) -> Figure:
    """Fig. 3: for each stage the distribution of errors by its depth; then the top-tier error of every depth.

    columns: panels side by side. Of a space whose sampled architectures are known.
    """
    assert space.errors is not None
    figure, panels = figure_of_panels(len(space.space.stages) + 1, columns, width=2.55, height=2.7)
    low, high = min(space.errors.sampled_errors), max(space.errors.sampled_errors)
    margin = 0.03 * (high - low) or 1.0
    for stage, axes in enumerate(panels[:-1]):
        _draw_depths(axes, space, stage)
        share = "Architectures (%)" if stage % columns == 0 else ""
        axes.set(xlabel=names.error_label, ylabel=share, xlim=(low - margin, high + margin), ylim=(0, 102))
    _draw_top_tiers(panels[-1], space)
    return figure


def cost_figure(spaces: Sequence[SpaceRecord], names: Names, *, width: float = 7.0) -> Figure:
    """The error of every sampled architecture over its multiply-adds, and for each space a running mean."""
    figure, axes = figure_of_spaces(spaces, _draw_costs, "Multiply-adds per image", names.error_label, width=width)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.quantity(value)))
    return figure


def running_mean(x: np.ndarray, y: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of every `count` neighbours in the order of x: of x and of y, each (N - count + 1,)."""
    order, weights = np.argsort(x, kind="stable"), np.full(count, 1 / count)
    return np.convolve(x[order], weights, "valid"), np.convolve(y[order], weights, "valid")


def _draw_depths(axes: Axes, space: SpaceRecord, stage: int) -> None:
    assert space.errors is not None
    depths = np.array([architecture.stages[stage].depth for architecture in space.sampled])
    errors = np.array(space.errors.sampled_errors)
    for i, depth in enumerate(space.space.stages[stage].depth):
        colour, label = theme.light(_DEPTH_COLOURS[i % len(_DEPTH_COLOURS)]), f"{depth} block{'s' * (depth != 1)}"
        drawn = distribution(errors[depths == depth])
        axes.step(*drawn, where="post", color=colour, linestyle=theme.space_line(i), lw=1.5, label=label)
    axes.set_title(f"Stage {stage + 1}")
    axes.grid(True)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.legend(loc="lower right", fontsize=7.5, handlelength=2.2)


def _draw_top_tiers(axes: Axes, space: SpaceRecord) -> None:
    for stage, marker in zip(range(len(space.space.stages)), itertools.cycle(_STAGE_MARKERS), strict=False):
        record = space.dimension(stage, "depth")
        if record is not None:
            colour, line = theme.light(_STAGE_COLOURS[stage % len(_STAGE_COLOURS)]), theme.space_line(stage)
            errors = [measure.top_tier for measure in record.measure.measures]
            style = {"marker": marker, "color": colour, "linestyle": line, "ms": 4.5, "lw": 1.3}
            axes.plot(record.measure.choices, errors, label=str(stage + 1), **style)
    axes.set(xlabel="Blocks of the stage", ylabel="Top-tier error (%)")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(True)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), title="Stage", ncols=4, columnspacing=0.9, handlelength=1.8)


def _draw_costs(axes: Axes, space: SpaceRecord) -> None:
    assert space.errors is not None
    macs = np.array([cost.macs for cost in space.errors.sampled_costs], dtype=np.float64)
    errors = np.array(space.errors.sampled_errors)
    axes.plot(macs, errors, "o", ms=2.6, mew=0, color=theme.space_colour(space.index), alpha=0.4)
    count = min(len(errors), max(_LEAST_NEIGHBOURS, round(_NEIGHBOURS * len(errors))))
    label = f"Space {space.name}: mean of {count} next to each other"
    axes.plot(*running_mean(macs, errors, count), label=label, **theme.space_style(space.index))
