"""The look shared by page and figures: colours, line styles, and figures as PNG bytes or themable SVG text."""

from __future__ import annotations

import contextlib
import html
import io
import re
from collections.abc import Iterator
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Role -> (on light, on dark). No two roles share a light colour: SVGs are themed by replacing light colours by roles.
# Spaces: the colour-blind-safe hues of Okabe and Ito (2008), moved to a contrast of 3:1 or more on either ground.
COLOURS = {
    "ground": ("#ffffff", "#12161b"),
    "surface": ("#f5f7f9", "#1a2027"),
    "ink": ("#1c2127", "#e4e8ec"),
    "muted": ("#5a6570", "#9ba6b1"),
    "rule": ("#d5dbe1", "#323a43"),
    "accent": ("#0b5c99", "#6cb6ee"),
    "space-0": ("#0072b2", "#4aa9e3"),
    "space-1": ("#d55e00", "#f2903f"),
    "space-2": ("#00875f", "#3cc79c"),
    "space-3": ("#b0508c", "#e092c4"),
    "space-4": ("#a87400", "#ecb93f"),
    "space-5": ("#3a8fc4", "#8fd1f6"),
}
NUM_SPACE_COLOURS = 6
LINE_STYLES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (2, 0.8)), (0, (5, 1.2, 1.2, 1.2)))

_FIGURE_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so figures are alike on every machine
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": COLOURS["muted"][0],
    "axes.labelcolor": COLOURS["ink"][0],
    "axes.titlecolor": COLOURS["ink"][0],
    "axes.facecolor": "none",
    "figure.facecolor": COLOURS["ground"][0],
    "grid.color": COLOURS["rule"][0],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": COLOURS["ink"][0],
    "text.color": COLOURS["ink"][0],
    "text.parse_math": False,  # names are text, whatever signs they hold
    "xtick.color": COLOURS["muted"][0],
    "ytick.color": COLOURS["muted"][0],
    "xtick.labelcolor": COLOURS["ink"][0],
    "ytick.labelcolor": COLOURS["ink"][0],
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's own font
    "svg.hashsalt": "s3_jax",  # the same figure gives the same file
}


@contextlib.contextmanager
def applied() -> Iterator[None]:
    """Inside, figures are made and saved in this look; a user's own matplotlib settings have no part in it."""
    style: dict[Any, Any] = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    with matplotlib.rc_context(style | _FIGURE_STYLE):
        yield


def light(role: str) -> str:
    """A role's colour on light ground, as figures are drawn."""
    return COLOURS[role][0]


def space_colour(index: int) -> str:
    """The colour of space `index` in every figure."""
    return light(f"space-{index % NUM_SPACE_COLOURS}")


def space_line(index: int) -> Any:
    """The line style of space `index`, so that colour is never the only difference between two spaces."""
    return LINE_STYLES[index % len(LINE_STYLES)]


def space_style(index: int) -> dict[str, Any]:
    """Both, as keywords of a line."""
    return {"color": space_colour(index), "linestyle": space_line(index), "lw": 1.8}


def png(figure: Figure) -> bytes:
    """The figure on light ground, at 200 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an inline SVG element whose colours follow the page's custom properties.

    name: prefix of the element's ids, unlike any other figure's on the page.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    for role, (colour, _) in COLOURS.items():
        text = re.sub(rf"(: ?){colour}\b", rf"\1var(--{role})", text)
    width, height = (72 * side for side in figure.get_size_inches())
    opening = (
        f'<svg role="img" aria-label="{html.escape(description)}" viewBox="0 0 {width:g} {height:g}" '
        f'style="max-width: {width * 1.42:.0f}px">'
    )
    return opening + text[text.index(">") + 1 :].strip()
