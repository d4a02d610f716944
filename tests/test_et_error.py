"""E-T Error of a space and of its choices, against numbers worked out by hand, and its bootstrap."""

from collections.abc import Callable

import numpy as np
import pytest

from s3_jax.cost import Budget, Cost, Evaluated
from s3_jax.errors import S3Error
from s3_jax.et_error import (
    DimensionMeasure,
    ETError,
    SpaceMeasure,
    check_sampled,
    et_error,
    measurable,
    measure_space,
    resample,
)
from s3_jax.space import Architecture, Block, SearchSpace, Stage, StageSpace, sample

SPACE = SearchSpace((StageSpace((1, 2), (32, 64), (2, 4), (1.0,), (32,)),))


def evaluated(embed_dim: int, windows: tuple[int, ...], error: float, params: int = 1) -> Evaluated:
    blocks = tuple(Block(window, 1.0, 32) for window in windows)
    return Evaluated(Architecture((Stage(embed_dim, blocks),)), Cost(params, 1), error)


SIX = [
    evaluated(32, (2,), 30.0, params=1),
    evaluated(64, (4,), 20.0, params=2),
    evaluated(32, (2, 2), 10.0, params=3),
    evaluated(32, (2, 4), 14.0, params=4),
    evaluated(64, (4, 2), 26.0, params=5),
    evaluated(64, (4, 4), 8.0, params=6),
]


def test_choices_of_which_there_are_no_samples_are_left_out_of_the_space() -> None:
    """Those of SIX have every choice; the first two have depth 1 alone, and both windows in the same block."""
    sampled = [one.architecture for one in SIX]
    assert measurable(SPACE, sampled) == SPACE
    assert measurable(SPACE, sampled[:2]) == SPACE.replace(0, "depth", (1,))
    only = measurable(SPACE, sampled[:1])
    assert only == SPACE.replace(0, "depth", (1,)).replace(0, "embed_dim", (32,)).replace(0, "window", (2,))
    check_sampled(only, sampled[:1])
    with pytest.raises(S3Error, match="stage 1 depth: none of the 2 sampled architectures has depth = 2"):
        check_sampled(SPACE, sampled[:2])


def of(measured: SpaceMeasure, dimension: str, stage: int = 0) -> dict:
    return next(d.to_json() for d in measured.dimensions if (d.stage, d.dimension) == (stage, dimension))


def test_et_error_worked_out_by_hand() -> None:
    # Q_e = (5 + 1 + 3 + 7) / 4 = 4; Q_t of the 2 lowest = (1 + 3) / 2 = 2; Q = (4 + 2) / 2 = 3.
    found = et_error([5.0, 1.0, 3.0, 7.0], top_k=2)
    assert (found.expected, found.top_tier, found.et_error, found.num_samples, found.top_k) == (4.0, 2.0, 3.0, 4, 2)


def test_top_k_is_clipped_to_the_number_of_samples() -> None:
    found = et_error([5.0, 1.0], top_k=50)
    assert (found.expected, found.top_tier, found.top_k) == (3.0, 3.0, 2)


def test_the_space_and_every_choice_worked_out_by_hand() -> None:
    measured = measure_space(SPACE, SIX, top_k=1)
    # Whole space: Q_e = (30 + 20 + 10 + 14 + 26 + 8) / 6 = 108 / 6 = 18; Q_t = 8; Q = 13.
    assert measured.space.to_json() == {
        "expected": 18.0,
        "top_tier": 8.0,
        "et_error": 13.0,
        "num_samples": 6,
        "top_k": 1,
    }
    assert measured.sampled_errors == (30.0, 20.0, 10.0, 14.0, 26.0, 8.0)
    # Depth 1: 30, 20 -> Q_e 25, Q_t 20, Q 22.5.  Depth 2: 10, 14, 26, 8 -> Q_e 14.5, Q_t 8, Q 11.25.
    assert of(measured, "depth") == {
        "stage": 0,
        "dimension": "depth",
        "choices": [1, 2],
        "expected": [25.0, 14.5],
        "top_tier": [20.0, 8.0],
        "et_errors": [22.5, 11.25],
        "num_samples": [2, 4],
    }
    # Width 32: 30, 10, 14 -> Q_e 18, Q_t 10, Q 14.  Width 64: 20, 26, 8 -> Q_e 18, Q_t 8, Q 13.
    assert of(measured, "embed_dim")["et_errors"] == [14.0, 13.0]
    # Window 2: block 1 in 30, 10, 14 -> Q_e 18, Q_t 10; block 2 in 10, 26 -> Q_e 18, Q_t 10: Q 14 and 14, mean 14.
    # Window 4: block 1 in 20, 26, 8 -> Q_e 18, Q_t 8, Q 13; block 2 in 14, 8 -> Q_e 11, Q_t 8, Q 9.5: mean 11.25.
    window = of(measured, "window")
    assert window["et_errors"] == [14.0, 11.25]
    assert window["expected"] == [18.0, (18 + 11) / 2]
    assert window["num_samples"] == [2, 2]  # of the smaller set, block 2
    # One choice: block 1 in all six -> Q 13; block 2 in 10, 14, 26, 8 -> Q_e 14.5, Q_t 8, Q 11.25: mean 12.125.
    assert of(measured, "mlp_ratio")["et_errors"] == [12.125]
    assert measured.notes == ()


def test_every_dimension_of_every_stage_is_measured_in_order() -> None:
    space = SearchSpace(SPACE.stages * 2)
    rng = np.random.default_rng(0)
    samples = [Evaluated(sample(space, rng), Cost(1, 1), float(rng.uniform(0, 100))) for _ in range(200)]
    names = [(d.stage, d.dimension) for d in measure_space(space, samples, top_k=5).dimensions]
    dimensions = ["depth", "embed_dim", "window", "mlp_ratio", "qkv_dim"]
    assert names == [(stage, name) for stage in (0, 1) for name in dimensions]


def test_the_order_of_the_samples_does_not_matter() -> None:
    forward, backward = (measure_space(SPACE, samples, top_k=2) for samples in (SIX, SIX[::-1]))
    assert (forward.space, forward.dimensions) == (backward.space, backward.dimensions)


def test_a_repeated_sample_counts_twice() -> None:
    assert measure_space(SPACE, [*SIX, SIX[0]], top_k=1).space.expected == pytest.approx((108 + 30) / 7)


def test_fewer_samples_than_top_k_are_noted_where_it_happens() -> None:
    measured = measure_space(SPACE, SIX, top_k=3)
    # Sets: space 6; depth 2 and 4; width 3 and 3; window 3 and 2 a block; the single choices 6 and 4.
    assert of(measured, "depth")["top_tier"] == [25.0, pytest.approx((8 + 10 + 14) / 3)]
    assert [note.split(",")[0] for note in measured.notes] == [
        "stage 1 depth: only 2 samples for top_k = 3",
        "stage 1 window: only 2 samples for top_k = 3",
    ]
    assert measure_space(SPACE, SIX, top_k=50).notes[0].startswith("the space: only 6 samples for top_k = 50, clipped")


def test_the_budget_keeps_only_samples_strictly_below_it() -> None:
    measured = measure_space(SPACE, SIX, top_k=1, budget=Budget(max_params=6))
    # The sixth, of 6 parameters, is left out: Q_e = 100 / 5 = 20, Q_t = 10.
    assert (measured.space.expected, measured.space.top_tier, measured.space.num_samples) == (20.0, 10.0, 5)
    assert measured.sampled_errors == (30.0, 20.0, 10.0, 14.0, 26.0)
    assert measured.notes == ("1 of 6 samples are not under 6 parameters and left out",)
    with pytest.raises(S3Error, match="0 of 6 samples under 1 parameters; raise the budget, or sample within it"):
        measure_space(SPACE, SIX, top_k=1, budget=Budget(max_params=1))


@pytest.mark.parametrize("call", [measure_space, lambda *args, **kw: resample(*args, **kw, num_resamples=2, seed=0)])
def test_a_choice_that_no_sample_has_is_an_error(call: Callable) -> None:
    space = SPACE.replace(0, "embed_dim", (32, 64, 96))
    message = "stage 1 embed_dim: none of the 6 sampled architectures has embed_dim = 96"
    with pytest.raises(S3Error, match=message + ".*take more samples"):
        call(space, SIX, top_k=1)
    with pytest.raises(S3Error, match=r"stage 1 window: none of the 6 .* has window = 8"):
        call(SPACE.replace(0, "window", (2, 4, 8)), SIX, top_k=1)


def test_a_block_at_which_a_choice_is_missing_is_left_out_for_all_choices() -> None:
    # Without the two samples that have window 2 in block 2, only block 1 can compare the windows:
    # 2 in 30, 14 -> Q_e 22, Q_t 14, Q 18; 4 in 20, 8 -> Q_e 14, Q_t 8, Q 11.
    measured = measure_space(SPACE, [SIX[0], SIX[1], SIX[3], SIX[5]], top_k=1)
    assert of(measured, "window")["et_errors"] == [18.0, 11.0]
    assert measured.notes == ("stage 1 window: block 2 left out of the mean, as not every choice is sampled there",)


def test_windows_that_no_block_can_compare_are_an_error() -> None:
    samples = [evaluated(32, (2,), 30.0), evaluated(64, (2, 4), 20.0)]
    with pytest.raises(S3Error, match=r"stage 1 window: none of the 2 .* every choice in one and the same block"):
        measure_space(SPACE, samples, top_k=1)


def test_samples_of_another_space_are_refused() -> None:
    with pytest.raises(S3Error, match="not of this space"):
        measure_space(SPACE, [*SIX, evaluated(96, (2,), 1.0)], top_k=1)


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(S3Error, match="no architectures at all"):
        measure_space(SPACE, [], top_k=1)
    with pytest.raises(S3Error, match="top_k = 0"):
        et_error([1.0], 0)


def test_a_resample_equals_the_measure_of_the_repeated_samples() -> None:
    rng = np.random.default_rng(0)
    samples = [Evaluated(sample(SPACE, rng), Cost(1, 1), float(rng.uniform(0, 100))) for _ in range(60)]
    resampled = resample(SPACE, samples, top_k=7, num_resamples=5, seed=11)
    # The same draw the slow way: copies of the samples (in ascending order of error), measured one list at a time.
    ascending = sorted(samples, key=lambda one: one.error)
    for row, counts in enumerate(np.random.default_rng(11).multinomial(60, [1 / 60] * 60, 5)):
        copies = [one for one, count in zip(ascending, counts, strict=True) for _ in range(count)]
        for dimension in measure_space(SPACE, copies, top_k=7).dimensions:
            found = resampled[dimension.stage, dimension.dimension][row]
            assert found == pytest.approx(dimension.et_errors, rel=1e-12)


def test_resamples_depend_on_the_seed_alone() -> None:
    first, again, other = (resample(SPACE, SIX, top_k=2, num_resamples=20, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[key], again[key], equal_nan=True) for key in first)
    assert not np.array_equal(first[0, "depth"], other[0, "depth"], equal_nan=True)


def test_a_resample_without_a_choice_is_nan_there() -> None:
    resampled = resample(SPACE, SIX, top_k=1, num_resamples=500, seed=0)[0, "depth"]
    # A resample misses both samples of depth 1 with probability (4 / 6)^6 = 0.0878: 44 of 500, +- 4 deviations.
    missing = np.isnan(resampled[:, 0]).sum()
    assert missing == pytest.approx(500 * 0.0878, abs=4 * np.sqrt(500 * 0.0878 * 0.9122))
    assert np.isnan(resampled[:, 1]).sum() < missing


def test_measures_are_read_as_they_were_written_and_nothing_else_is() -> None:
    measured = measure_space(SPACE, SIX, top_k=3)
    assert ETError.from_json(measured.space.to_json()) == measured.space
    top_k = measured.space.top_k
    for dimension in measured.dimensions:
        assert DimensionMeasure.from_json(dimension.to_json(), top_k=top_k) == dimension
    for damage in ({"expected": [1.0]}, {"choices": 3}, {"num_samples": ["many"]}, {"stage": None}):
        with pytest.raises(S3Error, match="not a record of a dimension"):
            DimensionMeasure.from_json(measured.dimensions[0].to_json() | damage, top_k=top_k)
    with pytest.raises(S3Error, match="not a record of an E-T Error"):
        ETError.from_json({"expected": 1.0})
