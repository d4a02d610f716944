"""Fig. 7 of the paper: accuracy on ImageNet over parameters and multiply-adds, a run's beside the published ones."""

from __future__ import annotations

import csv
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s3_jax.report import theme
from s3_jax.report.figures import figure_of_panels
from s3_jax.report.rows import ResultRow

_MARKERS = "o^vs<>PXdph"  # of the families in the order in which they come
_STYLES: dict[str, dict[str, Any]] = {
    "inherited": {"marker": "o", "ms": 7, "mfc": "none"},
    "retrained": {"marker": "*", "ms": 11},
}
_COSTS = {"params": (1e6, "Parameters (M)"), "macs": (1e9, "Multiply-adds (G)")}


def is_imagenet(result: Mapping[str, Any]) -> bool:
    """Whether a run's accuracies may stand beside those published for ImageNet-1k."""
    dataset = result.get("dataset") or {}
    named = any("imagenet" in str(dataset.get(key)).lower() for key in ("name", "source"))
    return named and dataset.get("num_classes") == 1000 and result.get("score_name", "accuracy") == "accuracy"


def published() -> list[dict[str, str]]:
    """The paper's Table 1: model, family, accuracy (top-1, %), params (M), macs (G) and resolution (px) of each row."""
    content = importlib.resources.files("s3_jax.report").joinpath("published.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in content.splitlines() if not line.startswith("#")))


def published_figure(rows: Sequence[ResultRow], *, columns: int) -> Figure:
    """Accuracy over parameters and over multiply-adds; columns: panels side by side, 1 or 2."""
    figure, panels = figure_of_panels(2, columns, width=3.6, height=3.4)
    for axes, (cost, (unit, label)) in zip(panels, _COSTS.items(), strict=True):
        _draw_published(axes, cost)
        for index, row in enumerate(rows):
            accuracies = {"inherited": row.test_accuracy_inherited, "retrained": row.test_accuracy}
            for what, accuracy in accuracies.items():
                if accuracy is not None and (amount := getattr(row, cost)) is not None:
                    style = _STYLES[what] | {"color": theme.space_colour(index), "ls": ""}
                    axes.plot([amount / unit], [accuracy], label=f"Space {row.name}, {what}", **style)
        axes.set(xlabel=label, ylabel="Top-1 accuracy (%)")
        axes.grid(True)
    legend = panels[0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside upper left", ncols=4 if columns > 1 else 2, fontsize=8)
    return figure


def _draw_published(axes: Axes, cost: str) -> None:
    families: dict[str, list[tuple[float, float]]] = {}
    for model in published():
        families.setdefault(model["family"], []).append((float(model[cost]), float(model["accuracy"])))
    for (family, points), marker in zip(families.items(), _MARKERS, strict=True):
        colour = theme.light("ink" if family.startswith("S3") else "muted")
        axes.plot(*zip(*sorted(points), strict=True), marker=marker, ms=4.5, lw=0.9, color=colour, label=family)
