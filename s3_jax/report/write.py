"""Writing a report: figures as PNG and in the page, tables as CSV, all from the files of one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

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
from s3_jax.report.records import RunRecord, SpaceRecord, read_run
from s3_jax.report.tables import csv_tables
from s3_jax.writing import write_whole

# Of Fig. 2 on a wide and on a narrow screen, in inches: a panel, and all panels side by side.
_WIDE_PANEL, _WIDE_PANELS = 2.2, 11.0
_NARROW_PANEL, _NARROW_PANELS = 1.75, 3.5


@dataclasses.dataclass(frozen=True)
class _Drawing:
    """A figure as it is kept beside the page, and as the page shows it on a wide and on a narrow screen."""

    name: str
    description: str
    picture: Figure
    wide: Sequence[Figure]
    narrow: Sequence[Figure]

    def markup(self) -> dict[str, list[Markup]]:
        """Both sets as SVG elements."""
        return {
            variant: [
                Markup(theme.svg(one, f"{self.name}-{variant}-{i}", self.description)) for i, one in enumerate(of)
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
    drawings, names = [], names_of(run.result)
    if run.spaces:
        drawings.append(_choices_drawing(run.spaces))
    measured = [space for space in run.spaces if space.errors and space.errors.sampled_errors]
    if measured:
        wide, narrow = (error_distribution_figure(measured, names, width=width) for width in (7.0, 4.5))
        description = "Distribution of the errors of each space's sampled architectures"
        drawings.append(_Drawing("error_distribution", description, wide, [wide], [narrow]))
    searched = [space for space in run.spaces if space.searched_errors]
    if searched:
        wide, narrow = (search_figure(searched, names, width=width) for width in (7.0, 4.5))
        drawings.append(_Drawing("search", "Errors of the architectures of each search", wide, [wide], [narrow]))
    panels = loss_panels(run.metrics)
    if panels:
        wide, narrow = (loss_figure(panels, run.spaces, columns=columns) for columns in (len(panels), 1))
        drawings.append(_Drawing("training_loss", "Training loss over updates", wide, [wide], [narrow]))
    return drawings


def _choices_drawing(spaces: Sequence[SpaceRecord]) -> _Drawing:
    stages = range(len(spaces[0].space.stages))
    wide, narrow = (fitting_panel_width(least, len(spaces)) for least in (_WIDE_PANEL, _NARROW_PANEL))
    whole = choices_figure(spaces, stages, panel_width=wide)
    parts = _parts(stages, _WIDE_PANELS / wide)
    return _Drawing(
        "space_choices",
        "Choices of every stage and dimension in each space, with the slopes that moved them",
        whole,
        [whole] if len(parts) == 1 else [choices_figure(spaces, part, panel_width=wide) for part in parts],
        [choices_figure(spaces, part, panel_width=narrow) for part in _parts(stages, _NARROW_PANELS / narrow)],
    )


def _parts(stages: range, fit: float) -> list[range]:
    columns = max(1, int(fit))
    return [stages[start : start + columns] for start in range(0, len(stages), columns)]
