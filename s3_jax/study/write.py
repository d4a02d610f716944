"""Writing what a study's runs say: `study.json`, and in `report/` CSV tables, figures and a page of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath
from s3_jax.report import theme
from s3_jax.report.names import names_of
from s3_jax.study.claims import claims
from s3_jax.study.differences import differences, judging_images
from s3_jax.study.figures import arms_figure, costs_figure
from s3_jax.study.page import page
from s3_jax.study.plan import Plan
from s3_jax.study.records import Study, read_study
from s3_jax.study.tables import csv_files, space_records
from s3_jax.training.records import read_record, write_json
from s3_jax.writing import write_whole

RECORD = "study.json"
_WIDTHS = {"wide": 7.4, "narrow": 4.5}  # inches

DESCRIPTIONS = {  # what a reader is told who does not see the figure
    "et_errors": "E-T Error of every arm in each space: a point for every seed, and a line through the means",
    "error_over_macs": "Error over multiply-adds of every architecture sampled from each arm's last space, with a "
    "running mean for each arm",
}


def write_study(plan: Plan, workdir: AnyPath, failed: Mapping[str, str]) -> AnyPath:
    """Write `study.json`, the tables and the page of a study's finished runs, and return the page's path.

    failed: why runs could not be done, by their titles. The record comes last, so where it is, all is there.
    """
    study = read_study(plan, workdir)
    compared, said = differences(study), claims(study)
    record = {
        "seeds": list(plan.seeds),
        "arms": list(plan.arms),
        "finished": [run.name for run in study.spaces],
        "failed": dict(failed),
        **study.of_data,
        "spaces": space_records(study),
        "differences": [each.to_json() for each in compared],
        "claims": [each.to_json() for each in said],
    }
    with theme.applied():
        figures = _figures(study)
        files: dict[str, bytes | str] = {f"{name}.png": theme.png(sizes["wide"]) for name, sizes in figures.items()}
        shown = {name: _markup(name, sizes) for name, sizes in figures.items()}
    files |= csv_files(study, compared, said)
    files["index.html"] = page(study, shown, list(files), compared, said, failed)
    folder = workdir / "report"
    for name, content in files.items():
        write_whole(folder / name, content)
    write_json(workdir / RECORD, record)
    return folder / "index.html"


def is_written(plan: Plan, workdir: AnyPath) -> bool:
    """Whether a study's record is there, of all runs of this plan."""
    if not (workdir / RECORD).exists() or not (workdir / "report" / "index.html").exists():
        return False
    try:
        finished = read_record(workdir / RECORD, lambda record: list(record["finished"]))
    except S3Error:  # it is written anew
        return False
    return finished == [run.name for run in plan.runs]


def _figures(study: Study) -> dict[str, dict[str, Figure]]:
    """Each on a wide and on a narrow screen; none where no run is finished."""
    if not (images := judging_images(study)):
        return {}
    drawn: dict[str, Any] = {
        "et_errors": partial(arms_figure, study, images),
        "error_over_macs": partial(costs_figure, study, images, names_of(study.of_data)),
    }
    return {name: {variant: draw(width=width) for variant, width in _WIDTHS.items()} for name, draw in drawn.items()}


def _markup(name: str, sizes: Mapping[str, Figure]) -> dict[str, list[Markup]]:
    return {
        variant: [Markup(theme.svg(figure, f"{name}-{variant}", DESCRIPTIONS[name]))]
        for variant, figure in sizes.items()
    }
