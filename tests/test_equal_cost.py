"""Differences between spaces at equal cost: by hand, of a space with itself, and where cost is all that differs."""

import numpy as np
import pytest

from s3_jax.equal_cost import Sampled, difference_at_equal_cost
from s3_jax.errors import S3Error
from s3_jax.et_error import et_error

QUICK = {"num_resamples": 200}


def space(seed: int, low: float, high: float, better: float = 0.0, tilt: tuple[float, float] = (1, 1)) -> Sampled:
    """Architectures of log MACs from low to high, whose error falls by 10 points a unit of them, and by `better`.

    tilt: of the beta distribution of log MACs; (1, 2) has more of the cheap, (2, 1) of the costly.
    """
    rng = np.random.default_rng(seed)
    logs = low + (high - low) * rng.beta(*tilt, 400)
    return Sampled.of(60 - 10 * (logs - 13) - better + rng.normal(0, 1, 400), np.exp(logs))


def test_a_difference_worked_out_by_hand() -> None:
    """Bands 10 to 20 and 20 to 40, cut at the median 20 of 10 10 20 20 20 40 40; 5 and 90 are MACs of one space alone.

    First band: 12 less 10, weight 1 / 2. Second: the first space has 20 and 40, mean 7; the other 20, 20, 40, mean 5,
    weight 2 * 3 / 5 = 1.2. In all (0.5 * 2 - 1.2 * 2) / 1.7.
    """
    first = Sampled.of([50.0, 10.0, 8.0, 6.0], [5, 10, 20, 40])
    second = Sampled.of([12.0, 4.0, 5.0, 6.0, 90.0], [10, 20, 20, 40, 90])
    found = difference_at_equal_cost(first, second, num_bands=2, num_resamples=0)
    assert found.difference == pytest.approx((0.5 * 2 - 1.2 * 2) / 1.7)
    assert (found.num_bands, found.share) == (2, 7 / 9)
    # With half as top tier the first band, of one sample each, has none. Of 8 6 it is 6; of 4 5 6 two, 4 and 5.
    # (7 + 6) / 2 = 6.5 and (5 + 4.5) / 2 = 4.75.
    tiers = difference_at_equal_cost(first, second, num_bands=2, num_resamples=0, top_share=0.5)
    assert tiers.difference == pytest.approx(-1.75)
    assert (tiers.num_bands, tiers.share) == (1, 5 / 9)


@pytest.mark.parametrize("top_share", [1.0, 0.1])
def test_a_space_does_not_differ_from_itself(top_share: float) -> None:
    same = difference_at_equal_cost(space(0, 13, 15), space(0, 13, 15), top_share=top_share, **QUICK)
    assert same.difference == 0
    assert same.low < 0 < same.high
    covered = [
        difference_at_equal_cost(space(seed, 13, 15), space(100 + seed, 13, 15), top_share=top_share, **QUICK)
        for seed in range(20)
    ]
    assert sum(each.low <= 0 <= each.high for each in covered) >= 17


def test_spaces_whose_errors_depend_on_cost_alone_do_not_differ_at_equal_cost() -> None:
    small, large = space(0, 13, 15, tilt=(1, 2)), space(1, 14, 16, tilt=(2, 1))
    raw = et_error(large.errors, 40).et_error - et_error(small.errors, 40).et_error
    matched = difference_at_equal_cost(small, large, top_share=0.1, **QUICK)
    assert raw < -8
    assert abs(matched.difference) < 0.05 * abs(raw)
    assert matched.low < 0 < matched.high
    assert 0.1 < matched.share < 0.3


def test_a_space_that_is_better_at_equal_cost_is_found_though_it_is_smaller() -> None:
    large, small = space(0, 14, 16), space(1, 13, 15, better=2.0)
    assert small.errors.mean() > large.errors.mean()
    found = difference_at_equal_cost(large, small, **QUICK)
    assert found.difference == pytest.approx(-2, abs=0.4)
    assert found.high < 0
    reverse = difference_at_equal_cost(small, large, **QUICK)
    assert reverse.difference == pytest.approx(-found.difference)


def test_the_interval_depends_on_the_seed_alone_and_grows_with_the_level() -> None:
    pair = space(0, 13, 15), space(1, 13, 15)
    one, again, other = (difference_at_equal_cost(*pair, seed=seed, **QUICK) for seed in (0, 0, [1, 2]))
    assert one == again != other
    wide = difference_at_equal_cost(*pair, level=0.99, **QUICK)
    assert wide.low < one.low < one.high < wide.high


def test_spaces_that_share_no_cost_cannot_be_compared() -> None:
    with pytest.raises(S3Error, match=r"no band has enough samples of both to compare them"):
        difference_at_equal_cost(space(0, 13, 14), space(1, 15, 16))


@pytest.mark.parametrize(("errors", "macs"), [([1.0], [1.0, 2.0]), ([], []), ([1.0, 2.0], [0.0, 5.0])])
def test_samples_that_do_not_pair_are_refused(errors: list, macs: list) -> None:
    with pytest.raises(S3Error, match="expected one of each for every sample, and MACs above 0"):
        Sampled.of(errors, macs)


def test_spaces_of_one_cost_are_compared_in_one_band() -> None:
    found = difference_at_equal_cost(Sampled.of([10.0, 12.0], [7, 7]), Sampled.of([9.0], [7]), **QUICK)
    assert found.difference == -2.0
    assert found.num_bands == 1
