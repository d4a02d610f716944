"""Slopes over several trainings, and the two parts of their standard error, worked out by hand."""

import math

import numpy as np
import pytest

from s3_jax.cost import Cost, Evaluated
from s3_jax.et_error import DimensionMeasure, ETError, SpaceMeasure
from s3_jax.slopes import Agreement, Line, Slope, agreement, fit_slopes, halves, mean_measure, variance_between
from s3_jax.space import Architecture, Block, Stage

SAMPLE = Evaluated(Architecture((Stage(32, (Block(2, 1.0, 32),)),)), Cost(5, 7), 20.0)


def flat(error: float, num_samples: int = 4) -> ETError:
    return ETError(error, error, num_samples, num_samples)


def training(*errors: tuple[float, ...]) -> SpaceMeasure:
    """A training of depth and width of stage 1, with E-T Errors of two choices each."""
    names = {"depth": (1, 2), "embed_dim": (32, 64)}
    dimensions = tuple(
        DimensionMeasure(0, name, choices, tuple(map(flat, both)))
        for (name, choices), both in zip(names.items(), errors, strict=False)
    )
    return SpaceMeasure(flat(sum(errors[0]) / 2), dimensions, (SAMPLE,), ("a note",))


def resamples(*deviations: float) -> dict[tuple[int, str], np.ndarray]:
    """Two resamples, whose slopes have these standard deviations: of -a and a it is a times the root of 2."""
    halves = [deviation / math.sqrt(2) for deviation in deviations]
    arrays = [np.array([[0.0, -half], [0.0, half]]) for half in halves]
    return {(0, name): array for name, array in zip(("depth", "embed_dim"), arrays, strict=False)}


def fitted(trainings: list, drawn: list, slope_unit: str = "index") -> tuple[tuple[Slope | None, ...], tuple[str, ...]]:
    return fit_slopes(trainings, drawn, slope_unit=slope_unit, step_of={"depth": 1, "embed_dim": 32}.__getitem__)


def test_standard_errors_of_two_trainings_worked_out_by_hand() -> None:
    """Depth: slopes 1 and 3 with standard errors 0.6 and 0.8; width: 0 and 1, with 1 and 1.

    Sample variances of the slopes are 2 and 0.5, means of s^2 0.5 and 1: sigma^2 = ((2 - 0.5) + (0.5 - 1)) / 2 = 0.5.
    Depth: SE^2 = (0.5 + 0.5) / 2 = 0.5; width: SE^2 = (0.5 + 1) / 2 = 0.75.
    """
    trainings = [training((10.0, 11.0), (10.0, 10.0)), training((10.0, 13.0), (10.0, 11.0))]
    (depth, width), notes = fitted(trainings, [resamples(0.6, 1.0), resamples(0.8, 1.0)])
    assert depth is not None
    assert width is not None
    assert (depth.slope, depth.intercept, width.slope, width.intercept) == (2.0, 10.0, 0.5, 10.0)
    assert depth.standard_error == pytest.approx(math.sqrt(0.5))
    assert depth.sampling_standard_error == pytest.approx(math.sqrt(0.5 / 2))
    assert depth.training_standard_error == pytest.approx(math.sqrt(0.5 / 2))
    assert width.standard_error == pytest.approx(math.sqrt(0.75))
    assert width.sampling_standard_error == pytest.approx(math.sqrt(1 / 2))
    assert width.training_standard_error == pytest.approx(math.sqrt(0.5 / 2))
    assert [line.slope for line in depth.trainings] == [1.0, 3.0]
    assert [line.standard_error for line in depth.trainings] == pytest.approx([0.6, 0.8])
    assert notes == ()


def test_one_training_has_the_sampling_part_alone_and_says_so() -> None:
    (depth, _), notes = fitted([training((10.0, 11.0), (10.0, 10.0))], [resamples(0.6, 1.0)])
    assert depth is not None
    assert depth.training_standard_error is None
    assert depth.standard_error == depth.sampling_standard_error == pytest.approx(0.6)
    (note,) = notes
    assert "those of one training" in note
    assert "evolution.trainings" in note


def test_trainings_that_differ_less_than_their_samples_add_nothing() -> None:
    trainings = [training((10.0, 11.0)), training((10.0, 11.5))]
    (depth,), _ = fitted(trainings, [resamples(1.0), resamples(1.0)])
    assert depth is not None
    assert depth.training_standard_error == 0.0
    assert depth.standard_error == pytest.approx(math.sqrt(1 / 2))


def test_raw_slopes_are_pooled_per_step_and_given_in_their_own_unit() -> None:
    """Of a width, in choices 32 and 64 and steps of 32: x is 32 times as far, so all of it is 32 times smaller."""
    trainings = [training((10.0, 11.0), (10.0, 10.0)), training((10.0, 13.0), (10.0, 11.0))]
    drawn = [resamples(0.6, 1.0), resamples(0.8, 1.0)]
    (depth, width), (raw_depth, raw_width) = fitted(trainings, drawn)[0], fitted(trainings, drawn, "raw")[0]
    for name in ("slope", "standard_error", "sampling_standard_error", "training_standard_error"):
        assert getattr(raw_depth, name) == pytest.approx(getattr(depth, name))
        assert getattr(raw_width, name) == pytest.approx(getattr(width, name) / 32)


def test_a_dimension_without_standard_errors_is_left_out_of_the_variance() -> None:
    known, unknown = [Line(1.0, 0.5), Line(3.0, 0.5)], [Line(0.0, None), Line(50.0, 0.5)]
    assert variance_between([known, unknown]) == variance_between([known]) == 2 - 0.25
    assert variance_between([unknown]) is None
    assert variance_between([]) is None
    assert variance_between([[Line(1.0, 0.5)]]) is None
    (depth,), _ = fitted([training((1.0, 2.0))] * 2, [{(0, "depth"): np.zeros((0, 2))}] * 2)
    assert depth is not None
    assert depth.standard_error is None


def test_the_random_effects_are_found_in_slopes_that_have_them() -> None:
    """Twenty dimensions, thirty trainings, sigma 0.7 and s 0.5: z of the mean slopes has a deviation of 1."""
    rng = np.random.default_rng(0)
    slopes = rng.normal(0, math.hypot(0.7, 0.5), (20, 30))
    between = variance_between([[Line(slope, 0.5) for slope in row] for row in slopes])
    assert between == pytest.approx(0.49, rel=0.2)


def test_the_mean_of_trainings_worked_out_by_hand() -> None:
    first, second = training((10.0, 12.0)), training((20.0, 26.0))
    mean = mean_measure([first, second])
    assert (mean.space.et_error, mean.space.num_samples, mean.space.top_k) == (17.0, 8, 4)  # of 11 and 23
    assert mean.dimensions[0].et_errors == (15.0, 19.0)
    assert mean.samples == first.samples + second.samples
    assert mean.notes == ("training 1: a note", "training 2: a note")
    assert mean_measure([first]) is first
    assert mean.to_json()["space"]["mean_macs"] == 7.0
    assert mean.to_json()["sampled_params"] == [5, 5]


def test_agreement_of_halves_by_hand() -> None:
    """Of four trainings every one has the slopes 1 2 3, or two of them -1 -2 -3.

    Those two are one half in two of the six ways to halve them: then the correlation is -1 and no sign is the same; in
    the other four both halves have slopes of 0 everywhere, which correlate with nothing.
    """
    same = [[Line(slope, 0.1)] * 4 for slope in (1.0, 2.0, 3.0)]
    assert agreement(same) == Agreement(2, pytest.approx(1.0), 3.0, 3)
    opposite = [[Line(sign * slope, 0.1) for sign in (1, 1, -1, -1)] for slope in (1.0, 2.0, 3.0)]
    assert agreement(opposite) is None
    mixed = [[Line(slope * place, 0.1) for place in (3, 1, -2, -2)] for slope in (1.0, -2.0, 3.0)]
    found = agreement(mixed)  # halves' factors: 2 and -2 (twice), 0.5 and -0.5 (four times)
    assert found == Agreement(2, pytest.approx(-1.0), 0.0, 3)
    assert "slopes of 2 trainings and of 2 others correlate by -1.00" in found.in_words()
    assert "0.0 of 3 dimensions" in found.in_words()


def test_of_many_trainings_any_two_are_in_one_half_as_often_as_chance_has_it_and_any_may_be_left_out() -> None:
    ways = halves(5)
    assert len(ways) == 10
    left = [({*range(5)} - {*one} - {*other}).pop() for one, other in ways]
    assert all(len(one) == len(other) == 2 for one, other in ways)
    assert sorted(left.count(each) for each in range(5)) == [1, 2, 2, 2, 3]
    of_many = halves(16)  # of 12,870
    assert len(of_many) == 1000
    together = sum((0 in one) == (1 in one) for one, _ in of_many) / 1000
    assert together == pytest.approx(7 / 15, abs=0.05)


def test_few_trainings_or_dimensions_have_no_agreement() -> None:
    assert agreement([[Line(slope, 0.1)] * 3 for slope in (1.0, 2.0, 3.0)]) is None
    assert agreement([[Line(slope, 0.1)] * 4 for slope in (1.0, 2.0)]) is None
    assert agreement([]) is None
