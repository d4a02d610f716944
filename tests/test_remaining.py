"""How long a run still takes: by hand, on a run of two spaces and one retraining."""

import pytest

from s3_jax.remaining import Phase, Spent, duration, in_words, time_left

SEARCH = ("evaluation", 20.0)
PLAN = (
    Phase("space_0", "space 1 of 2, supernet", "update", 100),
    Phase("space_0/samples", "space 1 of 2, E-T Error", "evaluation", 50),
    Phase("space_0/search", "space 1 of 2, search", "search", 5, like=SEARCH),
    Phase("space_1", "space 2 of 2, supernet", "update", 100),
    Phase("space_1/samples", "space 2 of 2, E-T Error", "evaluation", 50),
    Phase("space_1/search", "space 2 of 2, search", "search", 5, like=SEARCH),
    Phase("retrain/best_B", "retraining of B's best", "retraining", 200),
)


def test_nothing_is_known_before_anything_is_measured() -> None:
    assert time_left(PLAN, 0, 0, {}) == (0.0, ("update", "evaluation", "search", "retraining"))
    assert in_words(PLAN, 0, 0, {}) == "space 1 of 2, supernet; the time left in all is not measured yet"


def test_updates_tell_of_those_to_come_and_what_is_unknown_is_named() -> None:
    """10 updates in 20 s after 40 s of compiling: 90 and 100 more of 2 s, and another 40 s of compiling."""
    spent = {"space_0": Spent(10, 20.0, 40.0)}
    assert time_left(PLAN, 0, 10, spent) == (90 * 2 + 40 + 100 * 2, ("evaluation", "search", "retraining"))
    line = "space 1 of 2, supernet; about 7 min left, besides evaluation, search, retraining (not measured yet)"
    assert in_words(PLAN, 0, 10, spent) == line


def test_a_generation_is_as_long_as_its_evaluations_until_one_was_measured() -> None:
    spent = {"space_0": Spent(100, 100.0), "space_0/samples": Spent(50, 25.0)}
    one, ten = 1.0, 20 * 0.5
    expected = 5 * ten + 100 * one + 50 * 0.5 + 5 * ten
    assert time_left(PLAN, 2, 0, spent) == (expected, ("retraining",))
    assert time_left(PLAN, 2, 2, spent | {"space_0/search": Spent(2, 6.0)}).seconds == 3 * 3 + 125 + 5 * 3


def test_a_phase_goes_on_at_its_own_pace_and_another_at_the_mean_of_its_kind() -> None:
    spent = {"space_0": Spent(100, 100.0, 30.0), "space_1": Spent(50, 150.0, 50.0)}
    assert time_left(PLAN[:4], 3, 50, spent) == (50 * 3, ())
    assert time_left(PLAN[:4], 3, 0, {"space_0": spent["space_0"]}) == (100 + 30, ())  # it is to compile
    third = (*PLAN[:4], Phase("space_2", "", "update", 3))
    assert time_left(third, 3, 50, spent) == (50 * 3 + 40 + 5, ())


def test_a_run_taken_up_again_counts_what_remains_and_what_was_spent_before() -> None:
    """Units that were done without a clock, as before a record was lost, count as done and not as measured."""
    plan = PLAN[3:4]
    spent = {"space_0": Spent(100, 3600.0), "space_1": Spent(10, 3600.0)}
    assert time_left(plan, 0, 90, spent) == (10 * 360, ())
    assert in_words(plan, 0, 90, spent) == "space 2 of 2, supernet; about 1 h of 3 h left in all"
    assert time_left(plan, 0, 101, spent).seconds == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (90, "2 min"),
        (59 * 60 + 29, "59 min"),
        (59 * 60 + 31, "1 h"),
        (12_000, "3 h 20 min"),
        (86_399, "1 d"),
        (2 * 86_400 + 5 * 3600 + 60, "2 d 5 h"),
    ],
)
def test_times_are_told_in_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text
