"""The report's page, of the templates in `templates/`: sections over a run, each empty where it has nothing for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from s3_jax.evolution import DimensionEvolution
from s3_jax.report import text, theme
from s3_jax.report.facts import facts, flat, seen_of_test
from s3_jax.report.names import names_of
from s3_jax.report.records import RunRecord
from s3_jax.report.sample_figures import deepest_choice
from s3_jax.space import Block

Figures = Mapping[str, Mapping[str, Sequence[Markup]]]

_SECTIONS = {  # each made by the template of its name
    "result": "Result",
    "spaces": "Evolution of the space",
    "quality": "Quality of the spaces",
    "search": "Search",
    "training": "Training",
    "notes": "Notes",
    "slopes": "Slopes",
    "environment": "Settings and environment",
}
_ROWS = {name: place for place, name in enumerate(text.DIMENSION_LABELS)}  # those of Fig. 2


def page(run: RunRecord, figures: Figures, files: Sequence[str]) -> str:
    """The whole page as one self-contained HTML text.

    figures: name -> "wide" and "narrow" -> SVG elements for such screens. files: names of those beside the page.
    """
    made, view = templates(), _view(run, figures)
    contents = {name: Markup(made.get_template(f"{name}.html").render(view).strip()) for name in _SECTIONS}
    sections = [(name, title, contents[name]) for name, title in _SECTIONS.items() if contents[name]]
    return made.get_template("page.html").render(view, sections=sections, files=files)


def alike(blocks: Sequence[Block]) -> Iterator[tuple[str, Block]]:
    """Every run of like blocks as one: its numbers, counted from 1, as "2" or "3–5", and the block."""  # noqa: RUF002
    first = 1
    for block, group in itertools.groupby(blocks):
        last = first + len(list(group)) - 1
        yield (str(first) if first == last else f"{first}{text.TO}{last}"), block
        first = last + 1


def templates(*packages: str) -> jinja2.Environment:
    """The templates of packages that come before those of this one, for pages that share its macros and its style.

    What is no `Markup` is escaped where it enters a template, and a name that is not there is an error.
    """
    loaders = [jinja2.PackageLoader(package) for package in (*packages, "s3_jax.report")]
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    written = (text.percent, text.quantity, text.size, text.choice, text.choices, text.dimension, text.steps)
    shown = (*written, text.depths, text.widths, alike, flat)
    made.filters |= {function.__name__: function for function in shown}
    made.filters["slope"] = lambda slope: text.slope(slope and slope.slope, slope and slope.standard_error)
    made.filters["pairs"] = lambda measure: zip(measure.choices, measure.measures, strict=True)
    made.filters["in_rows"] = _in_rows
    return made


def _view(run: RunRecord, figures: Figures) -> dict[str, Any]:
    """What the templates know."""
    return {
        "run": run,
        "title": _title(run),
        "names": names_of(run.result),
        "planned": run.config.get("evolution", {}).get("num_spaces"),
        "facts": facts(run),
        "seen_of_test": seen_of_test(run),
        "figures": figures,
        "notes": _notes(run),
        "by_depth": deepest_choice(run.spaces),
        "colours": theme.COLOURS,
        "num_colours": theme.NUM_SPACE_COLOURS,
    }


def _title(run: RunRecord) -> str:
    dataset, seed = run.result.get("dataset") or {}, run.result.get("seed")
    name = dataset.get("name") or dataset.get("source") or "A run without settings"
    return str(name) if seed is None else f"{name}, seed {seed}"


def _in_rows(dimensions: Sequence[DimensionEvolution]) -> list[DimensionEvolution]:
    """Stage by stage, and in the order of Fig. 2's rows."""
    return sorted(dimensions, key=lambda record: (record.measure.stage, _ROWS.get(record.measure.dimension, 99)))


def _notes(run: RunRecord) -> list[tuple[str, list[str]]]:
    """What the notes are about, and the notes."""
    about: dict[str, list[str]] = {}
    before: tuple[str, ...] = ()
    for space in run.spaces:
        measured = space.errors.notes if space.errors else ()
        # A space's record repeats what was noted when it evolved from the space before it.
        notes = dict.fromkeys([*(note for note in space.notes if note not in before), *measured])
        about[f"Space {space.name}"] = about.get(f"Space {space.name}", []) + list(notes)
        before = measured
    about |= {"Files": list(run.notes), "Images": _skipped_images(run)}
    return [(name, notes) for name, notes in about.items() if notes]


def _skipped_images(run: RunRecord) -> list[str]:
    counts: dict[str, int] = {}
    for line in run.metrics:
        if isinstance(line.get("bad_images"), int):
            counts[str(line.get("phase"))] = counts.get(str(line.get("phase")), 0) + line["bad_images"]
    return [
        f"{phase}: {count:,} unreadable images left out of its updates, each counted as often as it was drawn"
        for phase, count in counts.items()
        if count
    ]
