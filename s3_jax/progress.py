"""Progress on the screen: a bar with the time left in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 15.0

Advance = Callable[[int, str], None]


@contextmanager
def progress_bar(console: Console, title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Yields a function to call with the units done so far and a short status text; `done` were done before."""
    if not console.is_terminal:
        yield _lines(console, title, total, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"{title:<28}", total=total, completed=done, status="compiling" if total else "")
        yield lambda count, status: progress.update(task, completed=count, status=status)


def _lines(console: Console, title: str, total: int, done: int) -> Advance:
    console.print(f"{title}: {done} of {total}", highlight=False)
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
        console.print(f"{title}: {count} of {total}, {left} s left, {status}", highlight=False)

    return advance
