"""The page of a study, of the templates in `templates/` and of those that it shares with a run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from s3_jax.report import text, theme
from s3_jax.report.names import names_of
from s3_jax.report.page import templates
from s3_jax.study import statistics
from s3_jax.study.claims import Claim
from s3_jax.study.differences import Compared, judging_images
from s3_jax.study.plan import Plan, PlannedRun
from s3_jax.study.records import Study
from s3_jax.study.statistics import Interval
from s3_jax.study.tables import arm_rows

Figures = Mapping[str, Mapping[str, Sequence[Markup]]]

_SECTIONS = {  # each made by the template of its name
    "claims": "What the paper says, and these runs",
    "arms": "E-T Error of every arm",
    "differences": "Differences between spaces",
    "costs": "Error and cost",
    "runs": "Every run",
    "plan": "Settings",
}


def page(
    study: Study,
    figures: Figures,
    files: Sequence[str],
    differences: Sequence[Compared],
    claims: Sequence[Claim],
    failed: Mapping[str, str],
) -> str:
    """The whole page as one self-contained HTML text.

    figures: name -> "wide" and "narrow" -> SVG elements for such screens. files: names of those beside the page.
    failed: why runs could not be done, by their titles.
    """
    made = templates("s3_jax.study")
    made.filters |= {function.__name__: function for function in (between, signed)}
    view = _view(study, figures) | {"differences": differences, "claims": claims, "failed": failed}
    contents = {name: Markup(made.get_template(f"{name}.html").render(view).strip()) for name in _SECTIONS}
    sections = [(name, title, contents[name]) for name, title in _SECTIONS.items() if contents[name]]
    return made.get_template("page.html").render(view, sections=sections, files=files)


def between(found: Interval | None, decimals: int = 2) -> str:
    """The ends of an interval, and nothing where there is none or it is of one seed."""
    if found is None or found.num_seeds < 2:
        return text.ABSENT
    return f"{signed(found.low, decimals)} to {signed(found.high, decimals)}"


def signed(value: float | None, decimals: int = 2) -> str:
    """A number with its sign: +1.25."""
    return text.ABSENT if value is None else f"{value:+.{decimals}f}".replace("-", text.MINUS)


def _view(study: Study, figures: Figures) -> dict[str, Any]:
    """What the templates know."""
    dataset = study.of_data.get("dataset") or {}
    plan = study.plan
    return {
        "study": study,
        "title": f"A study on {dataset.get('name') or dataset.get('source') or plan.config.task}",
        "names": names_of(study.of_data),
        "rows": arm_rows(study),
        "runs": _runs(plan, study),
        "images": judging_images(study),
        "figures": figures,
        "settings": plan.to_json()["settings"],
        "rule": statistics,
        "colours": theme.COLOURS,
        "num_colours": theme.NUM_SPACE_COLOURS,
    }


def _runs(plan: Plan, study: Study) -> list[tuple[PlannedRun, bool]]:
    """Every run, and whether it is finished."""
    return [(run, run in study.spaces) for run in plan.runs]
