"""Costs: golden values, an example worked out by hand, budgets, and sampling under a budget."""

import dataclasses
import functools
import itertools
import json

import numpy as np
import pytest

from s3_jax.cost import Budget, Cost, Evaluated, cheapest, check_budget, cost, sample_within
from s3_jax.errors import S3Error
from s3_jax.networks import zoo
from s3_jax.space import Architecture, Block, SearchSpace, Stage, StageSpace, largest, sample, smallest

COST_OF = functools.partial(cost, image_size=8, patch_size=1, num_classes=10)
SPACE = SearchSpace(
    (
        StageSpace((1, 2), (32, 64), (4, 7, 8), (1.0, 2.0), (32, 64)),
        StageSpace((1, 2), (32, 64), (3, 4), (1.0, 2.0), (32, 64)),
    )
)


@pytest.mark.parametrize(
    ("name", "params", "giga_macs"),
    [
        ("s3_t", 28_328_674, 4.62),
        ("s3_s", 49_737_298, 9.40),
        ("s3_b", 71_125_762, 13.66),
        ("swin_t", 28_288_354, None),  # timm's swin_*_patch4_window7_224
        ("swin_s", 49_606_258, None),
        ("swin_b", 87_768_224, None),
    ],
)
def test_golden_costs_of_the_published_models(name: str, params: int, giga_macs: float | None) -> None:
    counted = cost(zoo.architecture(name), image_size=224, patch_size=4, num_classes=1000)
    assert counted.params == params
    if giga_macs is not None:
        assert counted.macs == pytest.approx(giga_macs * 1e9, rel=0.005)


def test_a_window_of_14_on_a_map_of_7_means_7() -> None:
    """As stage 4 of one released file has it."""
    published = zoo.architecture("s3_b")
    as_released = Architecture((*published.stages[:3], Stage(768, (Block(14, 4.0, 768),) * 2)))
    costs = [cost(each, image_size=224, patch_size=4, num_classes=1000) for each in (published, as_released)]
    assert costs[0] == costs[1]


def test_the_papers_initial_space_ranges_from_4_6_to_18_8_giga_macs() -> None:
    stage = StageSpace((2, 3, 4), (224, 256, 288), (7, 14), (3.0, 3.5, 4.0), (224, 256, 288))
    macs = [
        cost(end(SearchSpace((stage,) * 4)), image_size=224, patch_size=4, num_classes=1000).macs
        for end in (smallest, largest)
    ]
    assert macs == pytest.approx([4.6e9, 18.8e9], rel=0.005)


def test_cost_worked_out_by_hand_with_a_padded_window_and_an_odd_map() -> None:
    # A 5 px image in patches of 1 px: maps of side 5 and (5 + 1) / 2 = 3.
    # Stage 1: windows of 2 pad the map to 6 x 6 = 36 tokens. Stage 2: the window of 7 acts as the map's 3.
    tiny = Architecture((Stage(8, (Block(2, 1.5, 32),)), Stage(16, (Block(7, 2.0, 64),))))
    params = (
        (3 * 8 + 8 + 16)  # patch embedding, its norm
        + (16 + 8 * 96 + 96 + 3 * 3 * 1 + 32 * 8 + 8)  # norm, qkv, bias table (2 * 2 - 1)^2 of 1 head, proj
        + (16 + 8 * 12 + 12 + 12 * 8 + 8)  # norm, MLP of 8 * 1.5 = 12 hidden units
        + (64 + 32 * 16)  # norm over 4 * 8, merging without bias
        + (32 + 16 * 192 + 192 + 5 * 5 * 2 + 64 * 16 + 16)  # norm, qkv, bias table (2 * 3 - 1)^2 of 2 heads, proj
        + (32 + 16 * 32 + 32 + 32 * 16 + 16)  # norm, MLP of 32 hidden units
        + (32 + 16 * 10 + 10)  # norm, head
    )
    macs = (
        25 * 3 * 8  # patch embedding
        + 25 * (8 * 96 + 32 * 8)  # qkv and proj on the map's own tokens
        + 2 * 36 * 4 * 32  # attention: each of 36 padded tokens meets the 4 of its window, twice, 32 channels
        + 25 * 2 * 8 * 12  # MLP on real tokens
        + 9 * 32 * 16  # merging: the map of 5 padded to 6 gives 3 x 3
        + 9 * (16 * 192 + 64 * 16)
        + 2 * 9 * 9 * 64
        + 9 * 2 * 16 * 32
        + 16 * 10  # head, on one pooled token
    )
    assert (params, macs) == (7_697, 101_432)
    assert cost(tiny, image_size=5, patch_size=1, num_classes=10) == Cost(params, macs)


def test_cost_of_other_channels_classes_and_patches_by_hand() -> None:
    tiny = Architecture((Stage(8, (Block(2, 1.5, 32),)),))
    base = cost(tiny, image_size=4, patch_size=1, num_classes=10, in_channels=1)
    # 2 x 2 patches of 8 px: 4 values instead of 1 go into each of the 16 tokens' 8 channels.
    patches = cost(tiny, image_size=8, patch_size=2, num_classes=10, in_channels=1)
    assert (patches.params - base.params, patches.macs - base.macs) == (3 * 8, 16 * 3 * 8)
    classes = cost(tiny, image_size=4, patch_size=1, num_classes=11, in_channels=1)
    assert (classes.params - base.params, classes.macs - base.macs) == (9, 8)


def test_a_larger_choice_never_has_fewer_parameters() -> None:
    for index, name in itertools.product(range(2), ("depth", "embed_dim", "window", "mlp_ratio", "qkv_dim")):
        choices = SPACE.stages[index].choices(name)
        params = [COST_OF(largest(SPACE.replace(index, name, (choice,)))).params for choice in choices]
        assert params == sorted(params)
        assert len(set(params)) == len(params)


def test_patches_that_do_not_tile_the_image_are_refused() -> None:
    with pytest.raises(S3Error, match="30 px cannot be cut into patches of 4 px"):
        cost(zoo.architecture("swin_t"), image_size=30, patch_size=4, num_classes=10)


def test_a_budget_admits_what_is_strictly_below_every_limit() -> None:
    assert Budget().admits(Cost(10**12, 10**15))
    assert Budget(max_params=100).admits(Cost(99, 10**15))
    assert not Budget(max_params=100).admits(Cost(100, 1))
    assert Budget(max_macs=100).admits(Cost(10**12, 99))
    assert not Budget(max_macs=100).admits(Cost(1, 100))
    both = Budget(max_params=10, max_macs=20)
    assert [both.admits(Cost(*c)) for c in ((9, 19), (10, 19), (9, 20))] == [True, False, False]


def test_a_budget_in_words() -> None:
    assert Budget(max_macs=4.5e9).describe() == "under 4.5 G MACs"
    assert Budget(28_328_674, 8_200).describe() == "under 28.33 M parameters and 8.2 k MACs"
    assert Budget(max_params=950).describe() == "under 950 parameters"
    assert Budget().describe() == "under any cost"


@pytest.mark.parametrize("limit", [-1.0, float("nan")])
def test_a_budget_that_is_no_limit_is_refused(limit: float) -> None:
    with pytest.raises(S3Error, match=r"budget\.max_macs = .*0 for none"):
        Budget(max_macs=limit)


def test_samples_are_within_the_budget_and_reproducible() -> None:
    limit = np.median([COST_OF(sample(SPACE, np.random.default_rng(seed))).macs for seed in range(100)])
    budget = Budget(max_macs=float(limit))
    draws = [
        [sample_within(SPACE, rng, budget, COST_OF, 1000) for _ in range(50)]
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    ]
    assert draws[0] == draws[1]
    assert all(SPACE.contains(one) and COST_OF(one).macs < limit for one in draws[0])
    assert len(set(draws[0])) > 40


def test_sampling_out_of_reach_is_bounded_and_names_budget_and_cheapest_network() -> None:
    drawn = []

    def cost_of(architecture: Architecture) -> Cost:
        drawn.append(architecture)
        return Cost(7, int(5.1e9))

    with pytest.raises(S3Error, match=r"^0 of 10,000 samples under 4\.5 G MACs; the smallest network has 5\.1 G MACs:"):
        sample_within(SPACE, np.random.default_rng(0), Budget(max_macs=4.5e9), cost_of, 10_000)
    assert len(drawn) < 10_000 + 20  # the draws, and the few that find the cheapest


def test_a_tight_budget_is_told_from_one_out_of_reach() -> None:
    lowest = cheapest(SPACE, COST_OF)
    tight = Budget(max_macs=lowest.macs + 1)
    check_budget(SPACE, tight, COST_OF)
    with pytest.raises(S3Error, match="tight but not out of reach: raise it, or max_attempts"):
        sample_within(SPACE, np.random.default_rng(0), tight, COST_OF, 3)
    with pytest.raises(S3Error, match=r"no network of the space is under .* MACs; the smallest network has .* MACs"):
        check_budget(SPACE, Budget(max_macs=lowest.macs), COST_OF)
    with pytest.raises(S3Error, match=r"the smallest network has .* parameters and .* MACs: raise the budget"):
        check_budget(SPACE, Budget(lowest.params, 1e12), COST_OF)


def test_the_cheapest_network_is_the_cheapest_of_all() -> None:
    # Windows of 7 on a map of 8, and of 3 on one of 4, pad it: the smallest window is not always the cheapest in MACs.
    space = SPACE.replace(0, "window", (7, 8)).replace(0, "depth", (1,)).replace(1, "depth", (1,))
    stages = [
        [
            Stage(width, (Block(*block),))
            for width in stage.embed_dim
            for block in itertools.product(stage.window, stage.mlp_ratio, stage.qkv_dim)
        ]
        for stage in space.stages
    ]
    costs = [COST_OF(Architecture(pair)) for pair in itertools.product(*stages)]
    assert cheapest(space, COST_OF) == Cost(min(c.params for c in costs), min(c.macs for c in costs))
    assert cheapest(space, COST_OF).macs < COST_OF(smallest(space)).macs


def test_evaluated_goes_through_json_unchanged() -> None:
    one = smallest(SPACE)
    evaluated = Evaluated(one, COST_OF(one), 12.5)
    record = json.loads(json.dumps(evaluated.to_json()))
    assert record == {"architecture": one.to_json(), **dataclasses.asdict(COST_OF(one)), "error": 12.5}
    assert Evaluated.from_json(record) == evaluated


@pytest.mark.parametrize("record", [{}, {"architecture": {}, "params": "x", "macs": 1, "error": 1}, None])
def test_a_record_of_nothing_evaluated_is_refused(record: dict) -> None:
    with pytest.raises(S3Error, match="not a record of an evaluated architecture"):
        Evaluated.from_json(record)


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_an_error_that_is_not_finite_is_refused(error: float) -> None:
    with pytest.raises(S3Error, match="expected a percentage"):
        Evaluated(smallest(SPACE), Cost(1, 1), error)
