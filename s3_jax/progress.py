"""Progress on the screen: a bar with the time left in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from s3_jax.paths import printable

SECONDS_BETWEEN_LINES = 15.0

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
    if not console.is_terminal:
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
    with Live(_Both(progress, overall), console=console):
        yield lambda count, status: progress.update(task, completed=count, status=status)


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
