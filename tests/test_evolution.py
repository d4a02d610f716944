"""The evolution rule against numbers worked out by hand, its edge cases, and the slopes' standard errors."""

import json
import time

import numpy as np
import pytest

from s3_jax.cost import Budget, Cost, Evaluated
from s3_jax.errors import S3Error
from s3_jax.evolution import DimensionEvolution, EvolutionConfig, check_size, evolve, merge_windows, whole_steps
from s3_jax.slopes import abscissa, fit_line
from s3_jax.space import DIMENSIONS, Architecture, Block, SearchSpace, Stage, StageSpace, sample

SPACE = SearchSpace((StageSpace((1, 2), (32, 64), (2, 4), (1.0,), (32,)),))
CONFIG = EvolutionConfig(top_k=1, tau=5.0)


def evaluated(embed_dim: int, windows: tuple[int, ...], error: float) -> Evaluated:
    blocks = tuple(Block(window, 1.0, 32) for window in windows)
    return Evaluated(Architecture((Stage(embed_dim, blocks),)), Cost(1, 1), error)


# E-T Errors with top_k = 1, worked out in test_et_error: depth 22.5, 11.25; width 14, 13; window 14, 11.25.
SIX = [
    evaluated(32, (2,), 30.0),
    evaluated(64, (4,), 20.0),
    evaluated(32, (2, 2), 10.0),
    evaluated(32, (2, 4), 14.0),
    evaluated(64, (4, 2), 26.0),
    evaluated(64, (4, 4), 8.0),
]


def grid(space: SearchSpace, depth_slope: float, width_slope: float) -> list[Evaluated]:
    """One-stage space of one kind of block, every architecture once, with an error linear in the choices' places."""
    (stage,) = space.stages
    block = Block(stage.window[0], stage.mlp_ratio[0], stage.qkv_dim[0])
    return [
        Evaluated(
            Architecture((Stage(width, (block,) * depth),)), Cost(1, 1), 50 + depth_slope * row + width_slope * column
        )
        for row, depth in enumerate(stage.depth)
        for column, width in enumerate(stage.embed_dim)
    ]


def test_line_worked_out_by_hand() -> None:
    # x = 0, 1, 2 and y = 3, 1, 2: means 1 and 2; slope = ((-1)(1) + 0 + (1)(0)) / 2 = -0.5; intercept 2 + 0.5 = 2.5.
    slope, intercept = fit_line(np.arange(3.0), np.array([3.0, 1.0, 2.0]))
    assert (slope, intercept) == (-0.5, 2.5)
    # x = 2, 4, 9 and y = 1, 2, 6: means 5 and 3; slope = (6 + 1 + 12) / (9 + 1 + 16) = 19 / 26.
    slope, intercept = fit_line(np.array([2.0, 4.0, 9.0]), np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]]))
    assert slope == pytest.approx([19 / 26, 0])
    assert intercept == pytest.approx([3 - 5 * 19 / 26, 0])


def test_units_of_the_slope() -> None:
    choices = (224, 256, 320)
    assert abscissa(choices, "index", 64).tolist() == [0, 1, 2]
    assert abscissa(choices, "step", 64).tolist() == [3.5, 4, 5]
    assert abscissa(choices, "raw", 64).tolist() == [224, 256, 320]


@pytest.mark.parametrize(
    ("slope", "floor", "toward_zero"),
    [
        (0.0, 0, 0),
        (0.39, 0, 0),
        (0.4, 1, 1),
        (1.2, 3, 3),  # 1.2 / 0.4 is 2.9999999999999996 in floats
        (-0.01, -1, 0),  # as printed, any negative slope is a step
        (-0.4, -1, -1),
        (-0.41, -2, -1),
        (-1e-15, 0, 0),  # the dirt of a slope that is 0
        (1e-15, 0, 0),
    ],
)
def test_whole_steps(slope: float, floor: int, toward_zero: int) -> None:
    assert whole_steps(slope, EvolutionConfig(rounding="floor")) == floor
    assert whole_steps(slope, EvolutionConfig(rounding="toward_zero")) == toward_zero


def by_dimension(space: SearchSpace, config: EvolutionConfig, samples: list[Evaluated], side: int) -> dict:
    evolution = evolve(space, samples, config, map_sizes=(side,), seed=0)
    return {record["dimension"]: record for record in evolution.to_json()["dimensions"]}


def test_evolution_by_index_and_floor_worked_out_by_hand() -> None:
    found = by_dimension(SPACE, CONFIG, SIX, side=10)
    # depth: w = 11.25 - 22.5 = -11.25, floor(-11.25 / 5) = floor(-2.25) = -3: {1, 2} + 3.
    assert [found["depth"][key] for key in ("slope", "intercept", "steps")] == [-11.25, 22.5, -3]
    assert found["depth"]["next_choices"] == [4, 5]
    # width: w = -1, floor(-0.2) = -1: {32, 64} + 64.
    assert [found["embed_dim"][key] for key in ("slope", "intercept", "steps")] == [-1.0, 14.0, -1]
    assert found["embed_dim"]["next_choices"] == [96, 128]
    # window: w = -2.75, floor(-0.55) = -1: {2, 4} + 7 = {9, 11}, on a map of side 10 {9, 10}.
    assert [found["window"][key] for key in ("slope", "intercept", "steps")] == [-2.75, 14.0, -1]
    assert found["window"]["next_choices"] == [9, 10]
    for name in ("mlp_ratio", "qkv_dim"):
        single = [found[name][key] for key in ("slope", "intercept", "slope_standard_error", "steps")]
        assert single == [None] * 4
        assert found[name]["next_choices"] == found[name]["choices"]


def test_evolution_toward_zero_worked_out_by_hand() -> None:
    config = EvolutionConfig(top_k=1, tau=5.0, rounding="toward_zero")
    found = by_dimension(SPACE, config, SIX, side=10)
    # -2.25, -0.2 and -0.55 become -2, 0 and 0.
    assert [found[name]["next_choices"] for name in ("depth", "embed_dim", "window")] == [[3, 4], [32, 64], [2, 4]]


def test_evolution_by_step_and_raw_worked_out_by_hand() -> None:
    found = by_dimension(SPACE, EvolutionConfig(top_k=1, tau=5.0, slope_unit="step"), SIX, side=100)
    # window: x = 2/7, 4/7: w = -2.75 / (2/7) = -9.625, floor(-1.925) = -2: {2, 4} + 14.
    assert found["window"]["slope"] == pytest.approx(-9.625)
    assert found["window"]["next_choices"] == [16, 18]
    # width: x = 0.5, 1: w = -2, floor(-0.4) = -1. In raw units w = -1 / 32, with tau = 0.02 floor(-1.5625) = -2.
    assert found["embed_dim"]["slope"] == pytest.approx(-2)
    raw = by_dimension(SPACE, EvolutionConfig(top_k=1, tau=0.02, slope_unit="raw"), SIX, side=100)
    assert raw["embed_dim"]["slope"] == pytest.approx(-1 / 32)
    assert raw["embed_dim"]["next_choices"] == [160, 192]


def test_two_evolutions_worked_out_by_hand() -> None:
    start = SearchSpace((StageSpace((2, 3, 4), (224, 256, 288), (7,), (3.0,), (224,)),))
    config = EvolutionConfig(top_k=100)
    # All samples are the top tier, so Q is their mean. depth: w = -0.8, floor(-2) = -2: + 2.
    # width: w = 0.5, floor(1.25) = 1: - 64.
    first = evolve(start, grid(start, -0.8, 0.5), config, map_sizes=(7,), seed=0).space
    assert first == start.replace(0, "depth", (4, 5, 6)).replace(0, "embed_dim", (160, 192, 224))
    # depth: w = 0.3, floor(0.75) = 0: stays. width: w = 1.3, floor(3.25) = 3: - 192 leaves 224 - 192 = 32.
    second = evolve(first, grid(first, 0.3, 1.3), config, map_sizes=(7,), seed=0)
    assert second.space == first.replace(0, "embed_dim", (32,))
    assert "stage 1 embed_dim: -32, 0 dropped, not above 0" in second.notes


def test_equal_errors_do_not_move_a_space() -> None:
    start = SearchSpace((StageSpace((2, 3, 4), (224, 256, 288), (7,), (3.0,), (224,)),))
    flat = [Evaluated(one.architecture, one.cost, 100 / 3) for one in grid(start, 0, 0)]
    assert evolve(start, flat, EvolutionConfig(), map_sizes=(7,), seed=0).space == start


def test_every_edge_is_in_the_notes() -> None:
    start = SearchSpace((StageSpace((2, 3, 4), (224, 256, 288), (7, 14), (3.0,), (224,)),))
    samples = grid(start, 4.0, -0.1)
    samples += [Evaluated(_with_window(one.architecture, 14), one.cost, one.error) for one in samples]
    evolution = evolve(start, samples, EvolutionConfig(top_k=7), map_sizes=(7,), seed=0)
    # Each depth and width has 6 samples, and so has block 4, which only depth 4 has.
    # depth: w = 4, 10 steps down: all dropped. width: floor(-0.25) = -1 step up. Windows 7 and 14 act alike on side 7.
    assert evolution.space.stages[0] == StageSpace((1,), (288, 320, 352), (7,), (3.0,), (224,))
    assert evolution.notes == (
        "stage 1 window: 14 over the map of side 7 act as 7, merged to 7",
        "stage 1 depth: only 6 samples for top_k = 7, clipped: there Q_t is the mean of them all",
        "stage 1 embed_dim: only 6 samples for top_k = 7, clipped: there Q_t is the mean of them all",
        "stage 1 window: only 6 samples for top_k = 7, clipped: there Q_t is the mean of them all",
        "stage 1 mlp_ratio: only 6 samples for top_k = 7, clipped: there Q_t is the mean of them all",
        "stage 1 qkv_dim: only 6 samples for top_k = 7, clipped: there Q_t is the mean of them all",
        "stage 1 window: 7 is the only choice, so there is no slope; it stays",
        "stage 1 mlp_ratio: 3.0 is the only choice, so there is no slope; it stays",
        "stage 1 qkv_dim: 224 is the only choice, so there is no slope; it stays",
        "the slopes are those of one training: how much they differ from training to training is not in their standard "
        "errors (evolution.trainings)",
        "stage 1 depth: all of -8, -7, -6 would be dropped; the smallest valid value 1 stays",
    )
    assert tuple(evolution.to_json()["notes"]) == evolution.notes


def _with_window(architecture: Architecture, window: int) -> Architecture:
    (stage,) = architecture.stages
    blocks = tuple(Block(window, block.mlp_ratio, block.qkv_dim) for block in stage.blocks)
    return Architecture((Stage(stage.embed_dim, blocks),))


def test_windows_that_grow_over_the_map_are_merged_and_noted() -> None:
    evolution = evolve(SPACE, SIX, CONFIG, map_sizes=(9,), seed=0)
    assert evolution.space.stages[0].window == (9,)
    assert evolution.notes[-1] == "stage 1 window: 11 over the map of side 9 act as 9, merged to 9"
    assert merge_windows(evolution.space, (9,)) == (evolution.space, [])


def test_a_space_over_the_largest_size_is_refused_or_only_recorded() -> None:
    # Evolved: 2 widths * (2^4 + 2^5) blocks of windows 9, 10 = 96 architectures.
    config = EvolutionConfig(top_k=1, tau=5.0, max_space_size=95)
    with pytest.raises(S3Error, match=r"space has 96 architectures, over evolution.max_space_size = 95; raise it, or"):
        evolve(SPACE, SIX, config, map_sizes=(10,), seed=0)
    recorded = evolve(SPACE, SIX, config, map_sizes=(10,), seed=0, record_only=True)
    assert recorded.space.size() == 96
    assert "96 architectures" in recorded.notes[-1]
    check_size(recorded.space, 96)


def test_a_space_too_large_for_a_float_is_refused_too() -> None:
    huge = SearchSpace((StageSpace((2000,), (32,), (2, 4), (1.0,), (32,)),))
    with pytest.raises(S3Error, match=r"1\.15e\+602 architectures"):  # 2^2000 = 10^602.06
        check_size(huge, 1e60)


def test_the_budget_decides_which_samples_count() -> None:
    costly = [Evaluated(one.architecture, Cost(9, 9), 99.0) for one in SIX]
    config = EvolutionConfig(top_k=1, tau=5.0, budget=Budget(max_macs=9))
    found = evolve(SPACE, [*SIX, *costly], config, map_sizes=(10,), seed=0)
    plain = evolve(SPACE, SIX, CONFIG, map_sizes=(10,), seed=0)
    assert found.space == plain.space
    assert found.measure.space == plain.measure.space
    assert found.dimensions == plain.dimensions
    assert found.notes[0] == "6 of 12 samples are not under 9 MACs and left out"


def test_the_standard_error_is_that_of_a_difference_of_means() -> None:
    # Two depths, every sample in the top tier: the slope is a difference of two means, of variance s^2/n + t^2/m.
    space = SearchSpace((StageSpace((1, 2), (32,), (2,), (1.0,), (32,)),))
    rng = np.random.default_rng(0)
    groups = rng.normal(40, 3, 300), rng.normal(41, 6, 700)
    samples = [evaluated(32, (2,) * (1 + depth), error) for depth, group in enumerate(groups) for error in group]
    config = EvolutionConfig(top_k=10_000, num_bootstrap=4000)
    record = evolve(space, samples, config, map_sizes=(8,), seed=0).dimensions[0]
    expected = np.sqrt(sum(np.var(group) / len(group) for group in groups))
    assert record.slope is not None
    assert record.slope.slope == pytest.approx(groups[1].mean() - groups[0].mean())
    assert record.slope.standard_error == pytest.approx(expected, rel=0.05)  # 4000 resamples: 1.1 % at one deviation


def test_the_seed_moves_the_standard_error_and_nothing_else() -> None:
    first, again, other = (evolve(SPACE, SIX, CONFIG, map_sizes=(10,), seed=seed) for seed in (1, 1, [2, 3]))
    assert first == again
    assert (first.space, first.measure) == (other.space, other.measure)
    for one, two in zip(first.dimensions, other.dimensions, strict=True):
        assert (one.slope and one.slope.slope) == (two.slope and two.slope.slope)
        assert one.slope is None or two.slope is None or one.slope.standard_error != two.slope.standard_error


def test_resamples_without_a_choice_are_left_out_and_counted() -> None:
    evolution = evolve(SPACE, SIX, CONFIG, map_sizes=(10,), seed=0)
    counted = [note for note in evolution.notes if "resamples lack a choice" in note]
    assert [note.split(":")[0] for note in counted] == ["stage 1 depth", "stage 1 embed_dim", "stage 1 window"]
    assert all(0 < int(note.split(": ")[1].split(" of 200")[0]) < 200 for note in counted)
    assert all(d.slope.standard_error > 0 for d in evolution.dimensions if d.slope)


def test_without_resamples_there_is_no_standard_error() -> None:
    config = EvolutionConfig(top_k=1, tau=5.0, num_bootstrap=0)
    evolution = evolve(SPACE, SIX, config, map_sizes=(10,), seed=0)
    assert [d.slope.standard_error for d in evolution.dimensions if d.slope] == [None] * 3


def test_the_record_is_plain_json_with_the_agreed_fields() -> None:
    record = evolve(SPACE, SIX, CONFIG, map_sizes=(10,), seed=0).to_json()
    assert json.loads(json.dumps(record)) == record
    sampled = ["sampled_errors", "sampled_params", "sampled_macs"]
    assert list(record) == ["space", *sampled, "arm", "dimensions", "trainings", "notes"]
    assert set(record["dimensions"][0]) == {
        *("stage", "dimension", "choices", "expected", "top_tier", "et_errors", "num_samples"),
        *("slope", "intercept", "slope_standard_error", "sampling_standard_error", "training_standard_error"),
        *("steps", "next_choices"),
    }
    assert [d["dimension"] for d in record["dimensions"]] == list(DIMENSIONS)


def test_the_papers_space_with_a_thousand_samples_takes_seconds() -> None:
    stage = StageSpace((2, 3, 4), (224, 256, 288), (7, 14), (3.0, 3.5, 4.0), (224, 256, 288))
    space = SearchSpace((stage,) * 4)
    rng = np.random.default_rng(0)
    samples = [Evaluated(sample(space, rng), Cost(1, 1), float(rng.normal(30, 2))) for _ in range(1000)]
    start = time.process_time()
    evolution = evolve(space, samples, EvolutionConfig(), map_sizes=(56, 28, 14, 7), seed=0)
    assert time.process_time() - start < 20
    slopes = [d.slope for d in evolution.dimensions if d.slope]
    assert len(slopes) == 4 * 5 - 1  # stage 4's windows act alike
    # The errors are noise: over 19 slopes, hardly any lies beyond 4 of its standard errors.
    assert all(abs(slope.slope) < 4 * slope.standard_error for slope in slopes)


def test_map_sizes_of_other_stages_are_refused() -> None:
    with pytest.raises(S3Error, match="2 map sizes for 1 stages"):
        evolve(SPACE, SIX, CONFIG, map_sizes=(10, 5), seed=0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("slope_unit", "indices", r"slope_unit = 'indices': expected one of index, step, raw"),
        ("rounding", "up", "rounding = 'up': expected one of floor, toward_zero"),
        ("tau", 0.0, "tau = 0.0: expected a number above 0"),
        ("tau", float("nan"), "tau = nan: expected a number above 0"),
        ("step_mlp_ratio", -0.5, "step_mlp_ratio = -0.5: expected a number above 0"),
        ("step_depth", 0, "step_depth = 0: expected a whole number from 1 to 10,000"),
        ("step_embed_dim", 1.5, "step_embed_dim = 1.5: expected a whole number from 1 to 10,000"),
        ("step_qkv_dim", 48, "step_qkv_dim = 48: expected a multiple of the head dimension 32"),
        ("top_k", 0, "top_k = 0"),
        ("num_samples", 0, "num_samples = 0"),
        ("num_bootstrap", -1, "num_bootstrap = -1"),
        ("max_space_size", 0.0, "max_space_size = 0.0"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_the_door(field: str, value: object, message: str) -> None:
    with pytest.raises(S3Error, match=f"evolution.{message}"):
        EvolutionConfig(**{field: value})  # type: ignore[arg-type]


def test_dimensions_are_read_as_they_were_written_and_nothing_else_is() -> None:
    evolution = evolve(SPACE, SIX, CONFIG, map_sizes=(7,), seed=0)
    top_k = evolution.measure.space.top_k
    for dimension in evolution.dimensions:
        record = dimension.to_json()
        assert DimensionEvolution.from_json(record, top_k=top_k).to_json() == record
    older = {
        key: value for key, value in record.items() if key not in ("sampling_standard_error", "training_standard_error")
    }
    assert DimensionEvolution.from_json(older, top_k=top_k).next_choices == tuple(record["next_choices"])
    for damage in ({"slope": "steep"}, {"next_choices": 3}, {"expected": []}):
        with pytest.raises(S3Error, match="not a record of a dimension"):
            DimensionEvolution.from_json(record | damage, top_k=top_k)
