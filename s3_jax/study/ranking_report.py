"""What a ranking says: a table for the screen, a CSV file, a scatter plot, and the paper's Fig. 5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from s3_jax.paths import AnyPath
from s3_jax.report import text, theme
from s3_jax.report.names import Names
from s3_jax.study.ranking import Ranked, Ranking
from s3_jax.study.statistics import Estimate
from s3_jax.writing import as_csv, write_whole

_WIDTH = 7.4  # inches
_BAR = 0.27  # of the distance from a network to the next


def write_ranking(ranking: Ranking, workdir: AnyPath) -> AnyPath:
    """Write the CSV file and the figures of a ranking into `report/`, and return that folder."""
    folder = workdir / "report"
    with theme.applied():
        figures = {
            "ranks.png": theme.png(scatter_figure(ranking)),
            "networks.png": theme.png(bars_figure(ranking)),
        }
    for name, content in (figures | {"networks.csv": _csv(ranking.networks)}).items():
        write_whole(folder / name, content)
    return folder


def correlations_table(ranking: Ranking) -> Table:
    """Kendall's tau and Spearman's rho of every pair of ways to rank, with intervals."""
    title = f"Ranks of {len(ranking.networks)} networks of space {ranking.space}"
    table = Table(title=title, caption="with 95 % bootstrap intervals over the networks")
    for name in ("Ranked by", "Kendall's tau", "Spearman's rho"):
        table.add_column(name, justify="left" if name == "Ranked by" else "right")
    for each in ranking.correlations:
        table.add_row(each.what, in_words(each.tau), in_words(each.rho))
    return table


def in_words(found: Estimate | None) -> str:
    """0.61 (0.32 to 0.83)."""
    return text.ABSENT if found is None else f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def scatter_figure(ranking: Ranking) -> Figure:
    """Errors after training from scratch over those with inherited weights: a bar from one seed to another."""
    figure, axes = _panel(4.4)
    inherited = np.array([network.inherited.error for network in ranking.networks])
    scratch = np.array([network.scratch for network in ranking.networks])
    mean = scratch.mean(axis=1)
    spread = np.abs(np.stack([scratch.min(axis=1), scratch.max(axis=1)]) - mean)
    axes.errorbar(inherited, mean, yerr=spread, fmt="o", ms=5, lw=1, color=theme.space_colour(0))
    label = Names(error=ranking.error_name).error_label
    axes.set(xlabel=f"{label}, inherited weights", ylabel=f"{label}, trained from scratch")
    return figure


def bars_figure(ranking: Ranking) -> Figure:
    """The paper's Fig. 5: every network with inherited weights, fine-tuned, and trained from scratch.

    They stand in the order of their errors from scratch; bars are means over seeds, and lines go from seed to seed.
    """
    figure, axes = _panel(3.8)
    ordered = sorted(ranking.networks, key=lambda network: float(np.mean(network.scratch)))
    errors = {
        "inherited": [(network.inherited.error,) for network in ordered],
        "fine-tuned": [network.finetuned for network in ordered],
        "from scratch": [network.scratch for network in ordered],
    }
    for place, (name, values) in enumerate(errors.items()):
        _draw_bars(axes, name, (place - 1) * _BAR, np.array(values), theme.space_colour(place))
    axes.set_xticks(range(len(ordered)), [str(number) for number in range(1, len(ordered) + 1)])
    axes.set(xlabel="Network, the best from scratch first", ylabel=Names(error=ranking.error_name).error_label)
    figure.legend(loc="outside upper left", ncols=3, borderaxespad=0.2)
    return figure


def _draw_bars(axes: Axes, name: str, shift: float, errors: np.ndarray, colour: str) -> None:
    """errors: (networks, seeds)."""
    x = np.arange(len(errors)) + shift
    axes.bar(x, errors.mean(axis=1), _BAR, color=colour, label=name)
    if errors.shape[1] > 1:
        axes.vlines(x, errors.min(axis=1), errors.max(axis=1), color=theme.light("ink"), lw=1)


def _panel(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(True, axis="y")
    return figure, axes


def _csv(networks: Sequence[Ranked]) -> str:
    seeds = range(len(networks[0].scratch))
    kinds = [f"{kind}_{seed}" for kind in ("finetuned", "scratch") for seed in seeds]
    rows = [[str(n.inherited.architecture), *_costs(n), n.inherited.error, *n.finetuned, *n.scratch] for n in networks]
    return as_csv([["architecture", "params", "macs", "inherited", *kinds], *rows])


def _costs(network: Ranked) -> tuple[int, int]:
    return network.inherited.cost.params, network.inherited.cost.macs
