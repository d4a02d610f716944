"""The report's page: sections over a run, each empty where the run has nothing for it yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from s3_jax.report import text
from s3_jax.report.facts import environment_section, facts
from s3_jax.report.markup import Markup, bullets, element, join, safe
from s3_jax.report.names import names_of
from s3_jax.report.records import RunRecord
from s3_jax.report.result_section import result_section
from s3_jax.report.slopes_section import slopes_section
from s3_jax.report.stylesheet import stylesheet
from s3_jax.report.tables import result_rows

_UNFOLDED_NOTES = 8  # of one space; more are folded
# Nothing is fetched when the page is opened, wherever it lies and whatever it shows.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(run: RunRecord, figures: Mapping[str, Markup], files: Sequence[str]) -> str:
    """The whole page as one self-contained HTML text.

    figures: name -> SVG elements, for wide and for narrow screens; files: names of the files that lie beside the page.
    """
    sections = _sections(run, figures)
    names = join((element("a", title, href=f"#{key}") for key, title, _ in sections), "\n")
    body = [
        _header(run),
        element("nav", names, aria_label="Sections") if sections else "",
        *(element("section", join([element("h2", title), content]), id=key) for key, title, content in sections),
        _footer(files),
    ]
    head = [
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        element("title", _title(run)),
        element("style", Markup(stylesheet())),
    ]
    document = [element("head", join(head, "\n")), element("body", element("main", join(body, "\n")))]
    return f'<!DOCTYPE html>\n<html lang="en">\n{join(document, chr(10))}\n</html>\n'


def _sections(run: RunRecord, figures: Mapping[str, Markup]) -> list[tuple[str, str, Markup]]:
    """(id, title, content) of every section that has something to show."""
    sections = [
        ("result", "Result", result_section(run)),
        ("spaces", "Evolution of the space", _figure(figures, "space_choices", _choices_caption(run))),
        ("quality", "Quality of the spaces", _figure(figures, "error_distribution", _distribution_caption(run))),
        ("search", "Search", _figure(figures, "search", _SEARCH_CAPTION)),
        ("training", "Training", _figure(figures, "training_loss", _LOSS_CAPTION)),
        ("notes", "Notes", _notes(run)),
        ("slopes", "Slopes", slopes_section(run)),
        ("environment", "Settings and environment", environment_section(run)),
    ]
    return [section for section in sections if section[2]]


def _header(run: RunRecord) -> Markup:
    pieces: list[object] = [
        element("p", "Searching the Search Space of Vision Transformer", class_="eyebrow"),
        element("h1", _title(run)),
    ]
    if not run.finished:
        pieces.append(element("p", _progress(run), class_="status"))
    headline = _headline(run)
    if headline:
        pieces.append(element("dl", join(headline), class_="facts"))
    pieces.append(facts(run))
    return element("header", join(pieces, "\n"))


def _title(run: RunRecord) -> str:
    dataset, seed = run.result.get("dataset") or {}, run.result.get("seed")
    name = dataset.get("name") or dataset.get("source") or "A run without settings"
    return str(name) if seed is None else f"{name}, seed {seed}"


def _progress(run: RunRecord) -> str:
    if not run.spaces:
        return "This run has not come to its first space; there is nothing to show yet."
    planned = run.config.get("evolution", {}).get("num_spaces")
    measured = sum(space.errors is not None for space in run.spaces)
    searched = sum(space.best is not None for space in run.spaces)
    of = f" of {planned}" if planned else ""
    return (
        f"This run is not finished: {measured}{of} spaces measured, {searched}{of} searched. "
        "What is there is shown; the rest follows when the run goes on."
    )


def _headline(run: RunRecord) -> list[Markup]:
    winner = run.result.get("winner") or {}
    rows = [row for row in result_rows(run.result) if row.et_error is not None]
    headline = []
    if winner:
        score = f"{text.percent(winner.get('test_accuracy'))} %"
        headline.append(_fact(f"Test {names_of(run.result).score} of the winner", score, ""))
        headline.append(_fact("Winner's parameters", text.quantity(winner.get("params")), ""))
        headline.append(_fact("Winner's multiply-adds", text.quantity(winner.get("macs")), "per image"))
    if rows:
        errors = " → ".join(dict.fromkeys([text.percent(rows[0].et_error), text.percent(rows[-1].et_error)]))
        names = " → ".join(dict.fromkeys([rows[0].name, rows[-1].name]))
        headline.append(_fact(f"E-T Error, space {names}", f"{errors} %", ""))
    return headline


def _fact(name: str, value: str, remark: str) -> Markup:
    value_and_remark = join([value, Markup(" "), element("small", remark)]) if remark else safe(value)
    return element("div", join([element("dt", name), element("dd", value_and_remark)]))


def _figure(figures: Mapping[str, Markup], name: str, caption: object) -> Markup:
    if name not in figures:
        return Markup("")
    return element("figure", join([figures[name], element("figcaption", caption)], "\n"))


def _choices_caption(run: RunRecord) -> str:
    caption = (
        "Choices of each stage (columns) and dimension (rows), space by space: one dot is one choice, the band between "
        "two spaces joins their ranges"
    )
    if len(run.spaces) < 2:
        return f"{caption}. Counterpart of the paper's Fig.\u00a02."
    return (
        f"{caption}. The numbers between two spaces are the slope that moved the dimension and its standard error, in "
        "percentage points of E-T Error; a negative slope says that larger is better. Bold slopes are further than 2 "
        "standard errors from zero; grey ones over dashed lines are not, and moves by them may rest on noise. Where no "
        "slope stands, the dimension had one choice. Counterpart of the paper's Fig.\u00a02."
    )


def _distribution_caption(run: RunRecord) -> str:
    return (
        f"Share of the sampled architectures of each space whose {names_of(run.result).error}, measured with the "
        "weights inherited from the space's supernet, is at most the value on the x axis; further left is better. The "
        "E-T Error is the mean of the expected error (all samples) and the top-tier error (the best of them). "
        "Counterpart of the paper's Fig.\u00a06."
    )


_SEARCH_CAPTION = (
    "Error of every architecture that the search of a space has evaluated, in its order, and the best of them so far. "
    "The first ones are drawn at random; then mutations and crossovers of the best join them."
)

_LOSS_CAPTION = (
    "Training loss over updates. A supernet's loss is the mean over the subnets of an update, so it does not compare "
    "with that of a single network."
)


def _notes(run: RunRecord) -> Markup:
    pieces = []
    before: tuple[str, ...] = ()
    for space in run.spaces:
        measured = space.errors.notes if space.errors else ()
        # A space's record repeats what was noted when it evolved from the space before it.
        notes = dict.fromkeys([*(note for note in space.notes if note not in before), *measured])
        if notes:
            pieces.append(_note_list(f"Space {space.name}", list(notes)))
        before = measured
    if run.notes:
        pieces.append(_note_list("Files", run.notes))
    skipped = _skipped_images(run)
    if skipped:
        pieces.append(_note_list("Images", skipped))
    return join(pieces, "\n")


def _note_list(title: str, notes: Sequence[str]) -> Markup:
    """The notes under their title, folded where they are many."""
    summary = join([f"{title} ", element("span", f"{len(notes)} note{'s' * (len(notes) != 1)}")])
    content = join([element("summary", summary), bullets(notes)])
    return element("details", content, open="" if len(notes) > _UNFOLDED_NOTES else "open")


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


def _footer(files: Sequence[str]) -> Markup:
    if not files:
        return Markup("")
    links = join((element("a", name, href=name) for name in files), ", ")
    return element("footer", join(["Beside this page: ", links, "."]))
