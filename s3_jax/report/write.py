"""Writing a report: figures as PNG and in the page, tables as CSV, all from the files of one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

from markupsafe import Markup
from matplotlib.figure import Figure

from s3_jax.paths import AnyPath
from s3_jax.report import theme
from s3_jax.report.figures import (
    choices_figure,
    error_distribution_figure,
    fitting_panel_width,
    loss_figure,
    loss_panels,
    search_figure,
)
from s3_jax.report.names import names_of
from s3_jax.report.page import page
from s3_jax.report.published_figure import is_imagenet, published_figure
from s3_jax.report.records import RunRecord, SpaceRecord, read_run
from s3_jax.report.sample_figures import cost_figure, deepest_choice, depth_figure
from s3_jax.report.tables import csv_tables
from s3_jax.writing import write_whole

# Of Fig. 2 on a wide and on a narrow screen, in inches: a panel, and all panels side by side.
_WIDE_PANEL, _WIDE_PANELS = 2.2, 11.0
_NARROW_PANEL, _NARROW_PANELS = 1.75, 3.5
_WIDTHS = (7.0, 4.5)  # inches of a figure of one panel
_WIDE_COLUMNS = 5  # panels side by side

DESCRIPTIONS = {  # what a reader is told who does not see the figure
    "space_choices": "Choices of every stage and dimension in each space, with the slopes that moved them",
    "error_distribution": "Distribution of the errors of each space's sampled architectures",
    "depths": "Distribution of errors by the depth of each stage, and the top-tier error of each depth",
    "error_over_macs": "Error of every sampled architecture over its multiply-adds, with a running mean for each space",
    "search": "Errors of the architectures of each search",
    "training_loss": "Training loss over updates",
    "published": "Accuracy over parameters and over multiply-adds, of this run's networks and of published ones",
}


@dataclasses.dataclass(frozen=True)
class _Drawing:
    """A figure as it is kept beside the page, and as the page shows it on a wide and on a narrow screen."""

    name: str
    picture: Figure
    wide: Sequence[Figure]
    narrow: Sequence[Figure]

    def markup(self) -> dict[str, list[Markup]]:
        """Both sets as SVG elements."""
        return {
            variant: [
                Markup(theme.svg(one, f"{self.name}-{variant}-{i}", DESCRIPTIONS[self.name]))
                for i, one in enumerate(of)
            ]
            for variant, of in (("wide", self.wide), ("narrow", self.narrow))
        }


def write_report(workdir: AnyPath) -> AnyPath:
    """Write report/ in `workdir` and return its index.html; the same files of a run give the same report.

    A run that is not finished is shown as far as it has come. Each file is replaced in one step, the page last.
    Raises S3Error where the run cannot be read or the report cannot be written.
    """
    run = read_run(workdir)
    with theme.applied():
        drawings = _drawings(run)
        files: dict[str, bytes | str] = {f"{drawing.name}.png": theme.png(drawing.picture) for drawing in drawings}
        figures = {drawing.name: drawing.markup() for drawing in drawings}
    files |= csv_tables(run)
    files["index.html"] = page(run, figures, list(files))
    folder = workdir / "report"
    for name, content in files.items():
        write_whole(folder / name, content)
    return folder / "index.html"


def _drawings(run: RunRecord) -> list[_Drawing]:
    """Every figure that the run has something for."""
    names, by_depth, panels = names_of(run.result), deepest_choice(run.spaces), loss_panels(run.metrics)
    measured = [space for space in run.spaces if space.errors and space.errors.sampled_errors]
    costed = [space for space in measured if space.errors and space.errors.sampled_costs]
    searched = [space for space in run.spaces if space.searched_errors]
    drawings = [_choices_drawing(run.spaces)] if run.spaces else []
    if measured:
        drawings.append(
            _drawing("error_distribution", partial(error_distribution_figure, measured, names), width=_WIDTHS)
        )
    if by_depth:
        columns = (min(len(by_depth.space.stages) + 1, _WIDE_COLUMNS), 1)
        drawings.append(_drawing("depths", partial(depth_figure, by_depth, names), columns=columns))
    if costed:
        drawings.append(_drawing("error_over_macs", partial(cost_figure, costed, names), width=_WIDTHS))
    if searched:
        drawings.append(_drawing("search", partial(search_figure, searched, names), width=_WIDTHS))
    if panels:
        draw = partial(loss_figure, panels, run.spaces)
        drawings.append(_drawing("training_loss", draw, columns=(len(panels), 1)))
    if is_imagenet(run.result) and run.rows:
        drawings.append(_drawing("published", partial(published_figure, run.rows), columns=(2, 1)))
    return drawings


def _drawing(name: str, draw: Callable[..., Figure], **sizes: tuple[float, float]) -> _Drawing:
    """A figure drawn with the one keyword of `sizes`, for wide screens and for narrow ones."""
    wide, narrow = (draw(**{keyword: size[i] for keyword, size in sizes.items()}) for i in (0, 1))
    return _Drawing(name, wide, [wide], [narrow])


def _choices_drawing(spaces: Sequence[SpaceRecord]) -> _Drawing:
    stages = range(len(spaces[0].space.stages))
    wide, narrow = (fitting_panel_width(least, len(spaces)) for least in (_WIDE_PANEL, _NARROW_PANEL))
    whole = choices_figure(spaces, stages, panel_width=wide)
    parts = _parts(stages, _WIDE_PANELS / wide)
    return _Drawing(
        "space_choices",
        whole,
        [whole] if len(parts) == 1 else [choices_figure(spaces, part, panel_width=wide) for part in parts],
        [choices_figure(spaces, part, panel_width=narrow) for part in _parts(stages, _NARROW_PANELS / narrow)],
    )


def _parts(stages: range, fit: float) -> list[range]:
    columns = max(1, int(fit))
    return [stages[start : start + columns] for start in range(0, len(stages), columns)]
