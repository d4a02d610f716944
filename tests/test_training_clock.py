"""What a run says while it works: with a clock of the test's own, in a terminal and in a log, and taken up again."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from s3_jax.remaining import Phase
from s3_jax.training.clock import Clock
from s3_jax.training.records import read_json

PLAN = [Phase("first", "part 1 of 2", "update", 4), Phase("second", "part 2 of 2", "update", 10)]


class Watch:
    """Time that passes only when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def clock_of(folder: Path, *, terminal: bool = False) -> tuple[Clock, Watch, io.StringIO]:
    screen, watch = io.StringIO(), Watch()
    console = Console(file=screen, force_terminal=terminal, width=200, color_system=None)
    clock = Clock(console, folder / "timings.json", watch)
    clock.follow(PLAN)
    return clock, watch, screen


def work(clock: Clock, watch: Watch, name: str, total: int, done: int, until: int, seconds: float) -> None:
    """Units of `seconds` each, of which the first compiles for 100 s more."""
    with clock.phase(name, total, done) as advance:
        for count in range(done, until):
            with clock.compiling(name, f"the update of {name}"):
                watch.now += 0.0 if count > done else 100.0
            watch.now += seconds
            advance(count + 1, f"loss {count}")


@pytest.mark.parametrize("terminal", [False, True])
def test_compiling_is_told_before_and_after_once_for_each_program(tmp_path, terminal) -> None:
    clock, watch, screen = clock_of(tmp_path, terminal=terminal)
    with clock.phase("first", 4):
        with clock.compiling(len, "the update"):
            watch.now += 41.25
            assert "compiling the update ..." in screen.getvalue()
            assert "41.2" not in screen.getvalue()
        with clock.compiling(len, "the update"):
            watch.now += 1
    assert screen.getvalue().count("compiling the update ...") == 1
    assert screen.getvalue().count("compiled the update: 41.2 s") == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_the_time_left_in_all_follows_from_what_was_measured(tmp_path, terminal) -> None:
    """4 updates of 60 s and 100 s of compiling are done: 10 updates are left, and as much compiling."""
    clock, watch, screen = clock_of(tmp_path, terminal=terminal)
    work(clock, watch, "first", 4, 0, 4, 60.0)
    assert "part 1 of 2; the time left in all is not measured yet" in screen.getvalue()
    assert screen.getvalue().rindex("about 12 min of 17 min left in all") > screen.getvalue().rindex("not measured")


def test_what_was_measured_is_kept_for_a_run_taken_up_again(tmp_path) -> None:
    clock, watch, _ = clock_of(tmp_path)
    work(clock, watch, "first", 4, 0, 2, 60.0)
    assert read_json(tmp_path / "timings.json") == {"first": {"units": 2, "seconds": 120.0, "compiling": 100.0}}
    again, _, screen = clock_of(tmp_path)
    with again.phase("first", 4, 2):
        pass
    assert screen.getvalue() == "first: 2 of 4 | part 1 of 2; about 14 min of 17 min left in all\n"


def test_a_long_phase_is_recorded_before_its_end(tmp_path) -> None:
    clock, watch, _ = clock_of(tmp_path)
    with clock.phase("first", 4) as advance:
        watch.now += 29
        advance(1, "")
        assert not (tmp_path / "timings.json").exists()
        watch.now += 2
        advance(2, "")
        assert read_json(tmp_path / "timings.json")["first"]["seconds"] == 31


@pytest.mark.parametrize(
    "damage", ["", "[]", "\0\0", '{"first": 1}', '{"first": {"units": 1, "seconds": NaN, "compiling": 0}}']
)
def test_a_damaged_record_is_begun_anew_and_stops_nothing(tmp_path, damage) -> None:
    (tmp_path / "timings.json").write_text(damage)
    clock, watch, screen = clock_of(tmp_path)
    work(clock, watch, "first", 4, 0, 4, 60.0)
    assert "about 12 min of 17 min left in all" in screen.getvalue()
    assert read_json(tmp_path / "timings.json")["first"]["units"] == 4


def test_a_phase_that_no_plan_has_is_told_without_the_whole(tmp_path) -> None:
    clock, watch, screen = clock_of(tmp_path)
    work(clock, watch, "other", 2, 0, 2, 1.0)
    assert "left in all" not in screen.getvalue()
    assert "other: 2 of 2, 0 s left, loss 1\n" in screen.getvalue()
