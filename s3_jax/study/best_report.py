"""What networks trained alike have come to: a table for the screen, a CSV file and a figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from rich.table import Table

from s3_jax.paths import AnyPath
from s3_jax.report import text, theme
from s3_jax.study.best import Outcome, deviation_between_seeds
from s3_jax.study.statistics import Estimate
from s3_jax.writing import as_csv, write_whole


def write_bests(outcomes: Sequence[Outcome], score_name: str, workdir: AnyPath) -> AnyPath:
    """Write the CSV file and the figure into `report/`, and return that folder."""
    folder = workdir / "report"
    with theme.applied():
        figure = theme.png(scores_figure(outcomes, score_name))
    write_whole(folder / "scores.png", figure)
    write_whole(folder / "networks.csv", _csv(outcomes))
    return folder


def bests_table(outcomes: Sequence[Outcome], score_name: str) -> Table:
    """Every network with its cost, its test score and how far that is from the last space's best's."""
    seeds = len(outcomes[0].scores)
    caption = "one seed: how far another one would be from it is not known"
    if seeds > 1:
        deviation = deviation_between_seeds(outcomes)
        caption = f"means of {seeds} seeds, which differ by {deviation:.2f} points; 95 % intervals, Student's"
    table = Table(title="Networks trained from scratch alike", caption=caption)
    headings = ("Network", "Params", "MACs", f"Test {score_name} (%)", "Difference")
    for place, name in enumerate(headings):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for one in outcomes:
        cost = text.quantity(one.contestant.cost.params), text.quantity(one.contestant.cost.macs)
        table.add_row(one.contestant.title, *cost, _in_words(one.mean, ".2f"), _in_words(one.difference, "+.2f"))
    return table


def scores_figure(outcomes: Sequence[Outcome], score_name: str) -> Figure:
    """A row for every network: a point for each seed, the mean and its interval."""
    figure = Figure(figsize=(7.4, 1.2 + 0.42 * len(outcomes)), layout="constrained")
    axes = figure.subplots()
    axes.grid(True, axis="x")
    for place, one in enumerate(outcomes):
        colour, mean = theme.space_colour(place), one.mean
        axes.plot(one.scores, [place] * len(one.scores), "o", ms=4, mew=0, alpha=0.55, color=colour)
        if mean.low is not None and mean.high is not None:
            axes.plot([mean.low, mean.high], [place, place], lw=1.8, color=colour)
        axes.plot([mean.value], [place], "D", ms=6.5, color=colour)
    axes.set_yticks(range(len(outcomes)), [_label(one) for one in outcomes])
    axes.set_ylim(len(outcomes) - 0.4, -0.6)
    axes.set(xlabel=f"Test {score_name} (%): every seed, mean and 95 % interval")
    return figure


def _label(one: Outcome) -> str:
    cost = one.contestant.cost
    return f"{one.contestant.title}\n{text.quantity(cost.params)} params, {text.quantity(cost.macs)} MACs"


def _in_words(found: Estimate | None, form: str) -> str:
    """97.22 ± 0.41, with half the length of the interval; without it where there is none."""
    if found is None:
        return text.ABSENT
    value = f"{found.value:{form}}"
    return value if found.high is None else f"{value} ± {found.high - found.value:.2f}"


def _csv(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for one in outcomes:
        known, mean, gap = one.contestant, one.mean, one.difference
        gaps = (gap.value, gap.low, gap.high) if gap else (None, None, None)
        costs = known.cost.params, known.cost.macs
        rows.append([known.name, *costs, known.inherited, mean.value, mean.low, mean.high, *gaps, *one.scores])
    ends = ["mean", "low", "high", "difference", "difference_low", "difference_high"]
    seeds = [f"seed_{seed}" for seed in range(len(outcomes[0].scores))]
    return as_csv([["network", "params", "macs", "error_inherited", *ends, *seeds], *rows])
