"""Box plots of the distances of attention, as in the paper's Fig. 4 (f) and (g), drawn inside `theme.applied()`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from s3_jax.analysis.distances import TOPS, UNITS, Box
from s3_jax.report import theme


def distances_figure(boxes: Sequence[Box], num_images: int) -> Figure:
    """Fig. 4 (f) and (g): box plots of the mean distance to a token's top keys, by block, in tokens and in pixels."""
    names = list(dict.fromkeys(box.block for box in boxes))
    width = max(2.9, 0.21 * len(names))
    figure = Figure(figsize=(0.8 + width * len(TOPS), 5.8), layout="constrained")
    grid = figure.subplots(len(UNITS), len(TOPS), sharex=True, sharey="row", squeeze=False)
    for unit, row in zip(UNITS, grid, strict=True):
        row[0].set_ylabel(f"Mean distance ({unit}{' of the input' if unit == 'pixels' else ''})")
        for top, axes in zip(TOPS, row, strict=True):
            _draw_boxes(axes, [box for box in boxes if (box.top, box.unit) == (top, unit)])
    for top, axes in zip(TOPS, grid[0], strict=True):
        axes.set_title(f"Top-{top} keys")
    for axes in grid[-1]:
        axes.set_xlabel("Stage.block")
        axes.tick_params(axis="x", rotation=90 if len(names) > 8 else 0)
    images = "1 image" if num_images == 1 else f"{num_images:,} images"
    figure.suptitle(f"All tokens and heads of {images}", x=0.01, ha="left", fontsize=9.5)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=5, handlelength=1.6, columnspacing=1.4)
    return figure


def _draw_boxes(axes: Axes, boxes: Sequence[Box]) -> None:
    stages = [int(box.block.partition(".")[0]) for box in boxes]
    places = [index + 0.8 * (stage - stages[0]) for index, stage in enumerate(stages)]
    axes.bxp(
        [_statistics(box) for box in boxes],
        positions=places,
        widths=0.62,
        showmeans=True,
        showfliers=False,
        patch_artist=True,
        boxprops={"fc": theme.light("surface"), "ec": theme.light("muted"), "lw": 0.9},
        whiskerprops={"color": theme.light("muted"), "lw": 0.9},
        capprops={"color": theme.light("muted"), "lw": 0.9},
        medianprops={"color": theme.light("space-1"), "lw": 1.8},
        meanprops={"marker": "^", "ms": 4.5, "mfc": theme.light("space-2"), "mec": theme.light("space-2")},
    )
    for place, box in zip(places, boxes, strict=True):
        axes.plot([place - 0.42, place + 0.42], [box.all_keys] * 2, **_ALL_KEYS_STYLE)
    axes.set_xticks(places, [box.block for box in boxes])
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(bottom=0)
    axes.grid(True, axis="y")


def _statistics(box: Box) -> dict[str, Any]:
    """A box as matplotlib's `bxp` has it."""
    ends = {"whislo": box.percentile_5, "whishi": box.percentile_95, "fliers": []}
    return ends | {"med": box.median, "mean": box.mean, "q1": box.lower_quartile, "q3": box.upper_quartile}


_ALL_KEYS_STYLE: dict[str, Any] = {"color": theme.light("ink"), "lw": 1.2, "ls": (0, (1.5, 1.2))}


def _legend() -> list[Any]:
    muted, mean = theme.light("muted"), theme.light("space-2")
    return [
        Patch(fc=theme.light("surface"), ec=muted, label="quartiles"),
        Line2D([], [], color=muted, lw=0.9, label="5 to 95 %"),
        Line2D([], [], color=theme.light("space-1"), lw=1.8, label="median"),
        Line2D([], [], marker="^", ms=4.5, ls="", mfc=mean, mec=mean, label="mean"),
        Line2D([], [], **_ALL_KEYS_STYLE, label="mean, all keys alike"),
    ]
