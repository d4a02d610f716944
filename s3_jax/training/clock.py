"""What a run says while it works: the phase it is in, what it compiles, and how long all of it still takes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from absl import logging
from rich.console import Console

from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath
from s3_jax.progress import Advance, progress_bar, say
from s3_jax.remaining import Phase, Spent, in_words
from s3_jax.training.records import read_record, write_json

SECONDS_BETWEEN_RECORDS = 30.0

# One line about a whole: of its plan, the place in it, the units done there, and what was measured (`in_words`).
InWords = Callable[[Sequence[Phase], int, int, Mapping[str, Spent]], str]


class Clock:
    """Measures a run's phases, keeps that in a file so that a run taken up again knows it, and tells the user.

    path: the file, None for none. Nothing that a run computes depends on it: where it is damaged, it is begun anew.
    """

    def __init__(
        self, console: Console, path: AnyPath | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.console = console
        self._path, self._now = path, now
        self._plan: tuple[Phase, ...] = ()
        self._spent = measured_times(path)
        self._in_words: InWords = in_words
        self._phase, self._done = "", 0
        self._since, self._recorded = now(), now()
        self._compiled: set[Any] = set()

    def follow(self, plan: Sequence[Phase], words: InWords = in_words) -> None:
        """The run's phases, in the order in which they come. words: makes the line about all of them."""
        self._plan, self._in_words = tuple(plan), words

    @contextmanager
    def phase(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        """A phase and its progress bar: yields a function to call with the units done and a short status text."""
        self._phase, self._done, self._since = name, done, self._now()
        self._plan = tuple(dataclasses.replace(each, units=total) if each.name == name else each for each in self._plan)
        try:
            with progress_bar(self.console, name, total, done, overall=self._overall) as show:
                yield lambda count, status: self._advance(show, count, status)
        finally:
            self._write()

    @contextmanager
    def compiling(self, program: Any, what: str) -> Iterator[None]:
        """Around every call of a jitted function: before the first, which compiles it, says so, and then how long."""
        if program in self._compiled:
            yield
            return
        self._compiled.add(program)
        say(self.console, f"compiling {what} ...")
        start = self._now()
        yield
        seconds = self._now() - start
        say(self.console, f"compiled {what}: {seconds:.1f} s")
        self._since += seconds  # not of the unit that is under way
        self._note(compiling=seconds)

    def _advance(self, show: Advance, count: int, status: str) -> None:
        now = self._now()
        self._note(units=max(0, count - self._done), seconds=now - self._since)
        self._done, self._since = max(count, self._done), now
        show(count, status)
        if now - self._recorded >= SECONDS_BETWEEN_RECORDS:
            self._write()

    def _note(self, **more: Any) -> None:
        self._spent[self._phase] = self._spent.get(self._phase, Spent()).plus(**more)

    def _overall(self) -> str:
        names = [phase.name for phase in self._plan]
        if self._phase not in names:
            return ""
        return self._in_words(self._plan, names.index(self._phase), self._done, self._spent)

    def _write(self) -> None:
        self._recorded = self._now()
        if self._path is not None:
            write_json(self._path, {name: dataclasses.asdict(spent) for name, spent in self._spent.items()})


def measured_times(path: AnyPath | None) -> dict[str, Spent]:
    """What a run's clock has kept, by the names of its phases; nothing where the file is missing or damaged."""
    if path is None or not path.exists():
        return {}
    try:
        return read_record(path, _parse)
    except S3Error as error:
        logging.warning("what was measured of the run's time is lost, and measured again: %s", error)
        return {}


def _parse(record: Any) -> dict[str, Spent]:
    return {
        str(name): Spent(int(each["units"]), _seconds(each["seconds"]), _seconds(each["compiling"]))
        for name, each in record.items()
    }


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds < 1e12:
        raise ValueError(f"{value!r} are no seconds")
    return seconds
