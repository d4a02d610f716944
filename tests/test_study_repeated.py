"""How far slopes repeat, worked out by hand and on slopes that were made with a known noise."""

from pathlib import Path

import numpy as np
import pytest

from s3_jax.study.repeated import repeated, repetition
from s3_jax.training.records import write_json


def test_four_trainings_by_hand() -> None:
    """Slopes 2 and 0, 0 and -2, 1 and -1, 1 and -1: each dimension has the variance 2 / 3 and the mean 1 or -1.

    Halves: of the six, two have the means 1 and -1 on both sides, two 1.5 and -0.5 beside 0.5 and -1.5, and two these
    the other way round; so both signs are alike in all. Bootstrap errors of 0.5: a half's mean has 0.5 / sqrt(2).
    """
    slopes = np.array([[2.0, 0.0], [0.0, -2.0], [1.0, -1.0], [1.0, -1.0]])
    found = repetition(slopes, np.full((4, 2), 0.5))
    assert found["deviation of a slope from training to training"] == pytest.approx((2 / 3) ** 0.5)
    assert found["of this what the bootstrap does not see"] == pytest.approx((2 / 3 - 1 / 4) ** 0.5)
    assert found["same sign in both halves, of 2"] == 2
    # Two dimensions: a correlation is 1 or -1, and here the first slope is always the larger one.
    assert found["correlation of 2 trainings and 2 others"] == pytest.approx(1)
    assert found["correlation of one training and another"] == pytest.approx(1)
    # Gaps are 0 in two of six and 1 in four; the bootstrap's variance of a gap is 2 * 0.25 / 2.
    assert found["differences of halves over the bootstrap's errors"] == pytest.approx((4 / 6 / 0.25) ** 0.5)
    assert found["beyond 2 bootstrap errors, one training"] == pytest.approx(0.5)  # 2 and -2 alone, of four trainings


def test_noise_of_trainings_that_is_known_is_found() -> None:
    """Slopes without any signal: nothing correlates, the whole error is right, the bootstrap's a third of it."""
    slopes = np.random.default_rng(0).normal(size=(12, 400))
    found = repetition(slopes, np.full(slopes.shape, 1 / 3))
    assert found["deviation of a slope from training to training"] == pytest.approx(1, abs=0.05)
    assert found["correlation of one training and another"] == pytest.approx(0, abs=0.05)
    assert found["correlation of 6 trainings and 6 others"] == pytest.approx(0, abs=0.1)
    assert found["differences of halves over their whole errors"] == pytest.approx(1, abs=0.05)
    assert found["differences of halves over the bootstrap's errors"] == pytest.approx(3, abs=0.2)


def test_few_trainings_and_slopes_without_errors_tell_nothing(tmp_path: Path) -> None:
    line = {"slopes": [1.0, None, 2.0], "slope_standard_errors": [0.1, None, 0.2]}
    path = tmp_path / "space_0" / "et_error.json"
    write_json(path, {"trainings": [line] * 3})
    assert repeated(tmp_path) == {}
    write_json(path, {"trainings": [line | {"slopes": [float(n), None, 2.0 * n + n * n]} for n in range(1, 5)]})
    assert "same sign in both halves, of 2" in repeated(tmp_path)
    write_json(path, {"trainings": [line | {"slope_standard_errors": [None] * 3}] * 4})
    assert repeated(tmp_path) == {}
