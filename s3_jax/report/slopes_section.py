"""Section of the page: the E-T Error of every choice, the slopes over them, and where they take each dimension."""

from __future__ import annotations

from s3_jax.report import text
from s3_jax.report.markup import Markup, element, join, table
from s3_jax.report.records import DimensionRecord, RunRecord, SpaceRecord

_HEADINGS = (
    "Stage",
    "Dimension",
    "E-T Error (%) by choice",
    "Slope ± s.e.",
    "",
    "Steps",
    "Next choices",
)


def slopes_section(run: RunRecord) -> Markup:
    """One table for each measured space; those of spaces that moved nothing any more say so."""
    measured = [space for space in run.spaces if space.errors and space.errors.dimensions]
    if not measured:
        return Markup("")
    tables = [_space_table(space, is_last=_is_last(run, space)) for space in measured]
    return join([element("p", _explanation(run)), *tables], "\n")


def _is_last(run: RunRecord, space: SpaceRecord) -> bool:
    planned = run.config.get("evolution", {}).get("num_spaces")
    return space.index + 1 == planned if planned else run.finished and space is run.spaces[-1]


def _explanation(run: RunRecord) -> str:
    evolution = run.config.get("evolution", {})
    settings = [f"{name} = {evolution[key]}" for name, key in _SETTINGS if key in evolution]
    return (
        "Every choice has the E-T Error of the sampled architectures that have it. The slope w of a line through these "
        "moves the choices down by w / tau steps, in whole steps (Eq. 7 and 8). Its standard error comes from "
        "resampling the architectures; the rule does not use it, but a slope within 2 standard errors of zero cannot "
        f"be told from noise.{' Settings: ' + ', '.join(settings) + '.' if settings else ''}"
    )


_SETTINGS = (("tau", "tau"), ("unit of x", "slope_unit"), ("rounding", "rounding"))


_ORDER = {name: place for place, name in enumerate(text.DIMENSION_LABELS)}  # that of Fig. 2's rows


def _space_table(space: SpaceRecord, *, is_last: bool) -> Markup:
    assert space.errors is not None
    records = sorted(space.errors.dimensions, key=lambda record: (record.stage, _ORDER.get(record.dimension, 99)))
    starts = [i > 0 and record.stage != records[i - 1].stage for i, record in enumerate(records)]
    content = table(
        _HEADINGS,
        [
            _cells(record, with_stage=start or i == 0)
            for i, (record, start) in enumerate(zip(records, starts, strict=True))
        ],
        numbers=(3, 5),
        row_classes=["group" if start else "" for start in starts],
    )
    summary = join([f"Space {space.name} ", element("span", _summary(records, is_last=is_last))])
    return element("details", join([element("summary", summary), content]), open="open")


def _summary(records: list[DimensionRecord], *, is_last: bool) -> str:
    fitted = [record for record in records if record.slope is not None]
    noise = sum(record.is_noise for record in fitted)
    ending = "; the last space: next choices are what the rule would do" if is_last else ""
    return f"{len(fitted)} slopes, {noise} of them within 2 standard errors of zero{ending}"


def _cells(record: DimensionRecord, *, with_stage: bool) -> list[object]:
    fitted = record.slope is not None
    return [
        record.stage + 1 if with_stage else "",
        text.dimension(record.dimension),
        _pairs(record),
        " ".join(text.slope(record.slope, record.slope_standard_error)).strip(),
        element("span", "noise", class_="tag") if record.is_noise else "" if fitted else _SINGLE,
        text.ABSENT if record.steps is None else f"{record.steps:+d}".replace("-", text.MINUS).replace("+0", "0"),
        text.choices(record.next_choices),
    ]


_SINGLE = element("span", "one choice", class_="tag")


def _pairs(record: DimensionRecord) -> Markup:
    """Each choice above its E-T Error; the number of samples shows on hovering and is in slopes.csv."""
    pairs = []
    for i, (choice, error) in enumerate(zip(record.choices, record.et_errors, strict=False)):
        samples = f"{record.num_samples[i]} samples" if i < len(record.num_samples) else ""
        pairs.append(element("span", join([element("b", text.choice(choice)), text.percent(error)]), title=samples))
    return element("span", join(pairs), class_="pairs")
