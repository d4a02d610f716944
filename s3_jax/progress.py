"""Progress on the screen: a bar with the time left in a terminal or a notebook, a line now and then elsewhere."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from s3_jax.paths import printable

SECONDS_BETWEEN_LINES = 15.0
# In a notebook every drawing is a message to the browser.
SECONDS_BETWEEN_DRAWINGS = 0.5
_CELL_WIDTH = 110  # characters
_CELL_HTML = '<pre style="margin: 0; line-height: 1.3; font-family: monospace">{code}</pre>'

Advance = Callable[[int, str], None]


def say(console: Console, what: RenderableType) -> None:
    """Print text as it is, whatever rich makes of brackets and colons in it; and lines whole, so that paths stay so."""
    plain = printable(what) if isinstance(what, str) else what
    console.print(plain, markup=False, highlight=False, emoji=False, soft_wrap=isinstance(what, str))


@contextmanager
def progress_bar(
    console: Console, title: str, total: int, done: int = 0, overall: Callable[[], str] = str
) -> Iterator[Advance]:
    """Yields a function to call with the units done so far and a short status text; `done` were done before.

    overall: makes a line about all that this is a part of; an empty one is not shown.
    """
    if not (console.is_terminal or console.is_jupyter):
        yield _lines(console, title, total, done, overall)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
    )
    progress = Progress(*columns, console=console)
    task = progress.add_task(f"{title:<28}", total=total, completed=done, status="")
    both = _Both(progress, overall)
    with _drawn_in_a_cell(both) if console.is_jupyter else _drawn_in_a_terminal(both, console) as draw:

        def advance(count: int, status: str) -> None:
            """Note the units done."""
            progress.update(task, completed=count, status=status)
            draw()

        yield advance


@contextmanager
def _drawn_in_a_terminal(renderable: RenderableType, console: Console) -> Iterator[Callable[[], None]]:
    with Live(renderable, console=console):  # a thread of rich's draws it
        yield lambda: None


@contextmanager
def _drawn_in_a_cell(renderable: RenderableType) -> Iterator[Callable[[], None]]:
    """Yields a function to draw again, in place, in one output of a notebook's cell, if that was not just done.

    Rich itself prints a new output at every drawing, but where ipywidgets are there, and its thread catches others'.
    """
    from IPython.display import display  # which the console has found to be there

    output = display(_as_bundle(renderable), raw=True, display_id=True)
    last = time.monotonic()

    def draw() -> None:
        """Draw, if the last drawing is some time ago."""
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_DRAWINGS:
            last = time.monotonic()
            output.update(_as_bundle(renderable), raw=True)

    try:
        yield draw
    finally:
        output.update(_as_bundle(renderable), raw=True)


def _as_bundle(renderable: RenderableType) -> dict[str, str]:
    """Both forms that a frontend may show, by their MIME types."""
    page = Console(
        file=io.StringIO(),
        record=True,
        width=_CELL_WIDTH,
        force_terminal=True,
        force_jupyter=False,
        legacy_windows=False,
    )
    page.print(renderable)
    return {
        "text/plain": page.export_text(clear=False).strip(),
        "text/html": page.export_html(inline_styles=True, code_format=_CELL_HTML),
    }


class _Both:
    """A bar, and below it the line about the whole."""

    def __init__(self, progress: Progress, overall: Callable[[], str]) -> None:
        self._progress, self._overall = progress, overall

    def __rich__(self) -> Group:
        line = self._overall()
        return Group(self._progress, *[Text(printable(line))] if line else [])


def _lines(console: Console, title: str, total: int, done: int, overall: Callable[[], str]) -> Advance:
    say(console, _with(overall, f"{title}: {done} of {total}"))
    first: tuple[float, int] | None = None
    last = 0.0

    def advance(count: int, status: str) -> None:
        """A line, if the last one is some time ago or all is done."""
        nonlocal first, last
        now = time.monotonic()
        first = first or (now, count)  # the first unit compiles, and tells nothing of those that follow
        if count < total and now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        left = f"{(now - first[0]) / (count - first[1]) * (total - count):.0f}" if count > first[1] else "?"
        say(console, _with(overall, f"{title}: {count} of {total}, {left} s left, {status}"))

    return advance


def _with(overall: Callable[[], str], text: str) -> str:
    line = overall()
    return f"{text} | {line}" if line else text
