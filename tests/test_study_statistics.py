"""Intervals, verdicts and rank correlations, against numbers worked out by hand."""

import numpy as np
import pytest

from s3_jax.study.statistics import (
    CANNOT_TELL,
    CONTRADICTS,
    SUPPORTS,
    Estimate,
    Interval,
    bootstrap,
    difference_of_groups,
    interval,
    kendall,
    means_of_groups,
    spearman,
    verdict,
)


def test_the_interval_of_known_numbers() -> None:
    """1, 2, 3 have the variance 1, and their mean 1 / 3; Student's 97.5 % point of 2 degrees of freedom is 4.302653.

    0, 0, 0, 10 have the variance 25, and their mean 25 / 4; the point of 3 degrees is 3.182446.
    """
    half = 4.302653 / 3**0.5
    assert interval([1.0, 2.0, 3.0]) == Interval(2.0, pytest.approx(2 - half), pytest.approx(2 + half), 3)
    half = 3.182446 * 2.5
    assert interval([0.0, 0.0, 0.0, 10.0]) == Interval(2.5, pytest.approx(2.5 - half), pytest.approx(2.5 + half), 4)


def test_many_values_have_the_interval_of_their_standard_error() -> None:
    """The values -50 to 50 have the standard deviation 29.15, and their mean 29.15 / sqrt(101) = 2.90."""
    found = interval([float(value) for value in range(-50, 51)])
    assert found is not None
    assert (found.mean, found.num_seeds) == (0, 101)
    assert found.high == pytest.approx(1.96 * 2.90, abs=0.15)
    assert found.low == pytest.approx(-1.96 * 2.90, abs=0.15)


def test_the_interval_of_one_value_or_none() -> None:
    assert interval([4.0]) == Interval(4.0, 4.0, 4.0, 1)
    assert interval([]) is None


@pytest.mark.parametrize(
    ("low", "high", "seeds", "sign", "said"),
    [
        (-3.0, -1.0, 5, -1, SUPPORTS),
        (-3.0, -1.0, 5, +1, CONTRADICTS),
        (1.0, 3.0, 5, +1, SUPPORTS),
        (1.0, 3.0, 5, -1, CONTRADICTS),
        (-3.0, 1.0, 5, -1, CANNOT_TELL),
        (0.0, 3.0, 5, +1, CANNOT_TELL),
        (-3.0, 0.0, 5, -1, CANNOT_TELL),
        (-3.0, -1.0, 3, -1, SUPPORTS),
        (-3.0, -1.0, 2, -1, CANNOT_TELL),
    ],
)
def test_a_verdict_follows_from_where_the_interval_lies(
    low: float, high: float, seeds: int, sign: int, said: str
) -> None:
    assert verdict(Interval((low + high) / 2, low, high, seeds), sign) == said


def test_nothing_is_said_of_nothing() -> None:
    assert verdict(None, -1) == CANNOT_TELL


def test_rank_correlations() -> None:
    """Of 1 2 3 4 and 1 3 2 4 one of six pairs is the other way round: (5 - 1) / 6.

    Of 1 2 3 and 1 1 2 two pairs agree, one is tied: 2 / sqrt(3 * 2).
    """
    assert kendall([1, 2, 3], [10, 20, 21]) == 1
    assert kendall([1, 2, 3], [5, 4, 3]) == -1
    assert kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    assert kendall([1, 2, 3], [1, 1, 2]) == pytest.approx(2 / 6**0.5)
    assert kendall([1, 2, 3], [7, 7, 7]) is None
    assert kendall([1, 2], [1, 2]) is None


def test_rank_correlations_of_spearman() -> None:
    """Of 1 2 3 4 and 1 3 2 4 the squared differences of ranks add up to 2: 1 - 6 * 2 / (4 * 15)."""
    assert spearman([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(0.8)
    assert spearman([1, 2, 3], [7, 7, 7]) is None
    assert spearman([1, 2], [1, 2]) is None


def test_a_bootstrap_over_places() -> None:
    """The mean of -50 to 50 has the standard error 2.90, see above; resamples without a value are left out."""
    values = np.arange(-50.0, 51.0)
    found = bootstrap(lambda places: float(values[places].mean()), len(values), 4000)
    assert found is not None
    assert found.value == 0
    assert found.low == pytest.approx(-1.96 * 2.90, abs=0.3)
    assert found.high == pytest.approx(1.96 * 2.90, abs=0.3)
    assert bootstrap(lambda places: None, 5, 10) is None
    known = bootstrap(lambda places: 1.0 if 0 in places else None, 3, 100)
    assert known == Estimate(1.0, 1.0, 1.0)


def test_intervals_of_groups_share_one_deviation() -> None:
    """Groups 1 3 and 10 14 deviate by 2 and 8 in squares, over 2 degrees of freedom: variance 5.

    Student's 97.5 % point of 2 degrees is 4.303; the mean of two values has the variance 5 / 2, a difference 5.
    """
    groups = [[1.0, 3.0], [10.0, 14.0]]
    first, second = means_of_groups(groups)
    assert (first.value, second.value) == (2, 12)
    assert first.high == pytest.approx(2 + 4.302653 * 2.5**0.5, rel=1e-5)
    difference = difference_of_groups(groups, 1, 0)
    assert difference.value == 10
    assert difference.low == pytest.approx(10 - 4.302653 * 5**0.5, rel=1e-5)
    assert means_of_groups([[1.0], [2.0]])[0] == Estimate(1.0, None, None)
