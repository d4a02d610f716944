"""HTML of known-safe pieces: whatever is no `Markup` is escaped where it enters the page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """Text that is HTML already."""


def safe(value: object) -> Markup:
    """The value as HTML: `Markup` as it is, everything else escaped."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def join(pieces: Iterable[object], separator: str = "") -> Markup:
    """The pieces as one, each made safe; the separator is HTML."""
    return Markup(separator.join(safe(piece) for piece in pieces))


def element(tag: str, content: object = "", **attributes: object) -> Markup:
    """`<tag attribute="...">content</tag>`; `class_` stands for `class`, and an empty attribute is left out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value not in ("", None)
    )
    return Markup(f"<{tag}{written}>{safe(content)}</{tag}>")


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numbers: Iterable[int] = (),
    row_classes: Sequence[str] = (),
    class_: str = "",
) -> Markup:
    """A table in a frame that scrolls sideways, whose cells know their heading.

    headings: text, a line break where it may break. numbers: columns set flush right. row_classes: per row, or "".
    """
    classes = dict.fromkeys(numbers, "number")
    labels = [heading.replace("\n", " ") for heading in headings]
    head = join(element("th", text, scope="col", class_=classes.get(i, "")) for i, text in enumerate(headings))
    body = [
        element(
            "tr",
            join(element("td", cell, class_=classes.get(i, ""), data_label=labels[i]) for i, cell in enumerate(row)),
            class_=row_classes[number] if row_classes else "",
        )
        for number, row in enumerate(rows)
    ]
    content = join([element("thead", element("tr", head)), element("tbody", join(body, "\n"))])
    return element("div", element("table", content, class_=class_), class_="scroll")


def bullets(items: Iterable[object]) -> Markup:
    """An unordered list."""
    return element("ul", join(element("li", item) for item in items))
