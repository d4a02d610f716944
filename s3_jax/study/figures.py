"""The figures of a study: E-T Errors of every arm over the spaces, and errors over multiply-adds in the last space."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from s3_jax.report import text, theme
from s3_jax.report.names import Names
from s3_jax.report.sample_figures import running_mean
from s3_jax.study.records import Study

_MARKERS = "os^Dv"
_SPREAD = 0.5  # of the distance from a space to the next, over which the arms stand side by side
_MARKS = 8  # of an arm on its running mean
_NEIGHBOURS = 0.1  # of all architectures, that a running mean is over


def arms_figure(study: Study, images: str, *, width: float) -> Figure:
    """E-T Errors over the spaces: a point for every seed of an arm, and a line through the arm's means.

    images: those that the errors are of. width: inches.
    """
    figure, axes = _panel(width)
    names = study.space_names
    arms = [arm for arm in study.plan.arms if study.of_arm(arm)]
    for place, arm in enumerate(arms):
        shift = _SPREAD * ((place + 0.5) / len(arms) - 0.5)
        errors = np.array(
            [[space.measures[images].et_error for space in spaces] for spaces in study.of_arm(arm).values()]
        )
        x, style = np.arange(len(names)) + shift, _style(study, arm)
        marker = style.pop("marker")
        axes.plot(np.tile(x, len(errors)), errors.ravel(), marker, ms=4, mew=0, color=style["color"], alpha=0.55)
        axes.plot(x, errors.mean(axis=0), marker=marker, ms=6.5, label=f"{arm}: mean of {_seeds(len(errors))}", **style)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set(xlabel="Space", ylabel=f"E-T Error on {images} images (%)")
    return _with_legend(figure, axes)


def costs_figure(study: Study, images: str, names: Names, *, width: float) -> Figure:
    """The error of every architecture sampled from an arm's last space over its multiply-adds, and a running mean."""
    figure, axes = _panel(width)
    for arm in study.plan.arms:
        sampled = [spaces[-1].measures[images].sampled for spaces in study.of_arm(arm).values()]
        if sampled:
            macs, errors = (np.concatenate(each) for each in zip(*((s.macs, s.errors) for s in sampled), strict=True))
            style = _style(study, arm) | {"ms": 4.5, "markevery": max(1, len(errors) // _MARKS)}
            axes.plot(macs, errors, style["marker"], ms=2.2, mew=0, color=style["color"], alpha=0.25)
            count = max(1, round(_NEIGHBOURS * len(errors)))
            label = f"{arm}: mean of {count} next to each other"
            axes.plot(*running_mean(macs, errors, count), label=label, zorder=3, **style)
    axes.set(xlabel="Multiply-adds per image", ylabel=names.error_label)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.quantity(value)))
    return _with_legend(figure, axes)


def _panel(width: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.grid(True)
    return figure, axes


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper left", handlelength=2.6, borderaxespad=0.2)
    return figure


def _style(study: Study, arm: str) -> dict:
    """The line and marker of an arm, the same in every figure."""
    place = study.plan.arms.index(arm)
    return theme.space_style(place) | {"marker": _MARKERS[place % len(_MARKERS)]}


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"
