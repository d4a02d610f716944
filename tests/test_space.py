"""Spaces and architectures: counting, sampling, moves between architectures, records, and what is refused."""

import itertools
import json

import numpy as np
import pytest

from s3_jax.errors import S3Error
from s3_jax.space import (
    BLOCK_DIMENSIONS,
    Architecture,
    Block,
    SearchSpace,
    Stage,
    StageSpace,
    cross,
    largest,
    map_sizes,
    mutate,
    sample,
    smallest,
)

STAGE = StageSpace(
    depth=(1, 2, 4), embed_dim=(32, 64, 96), window=(2, 4), mlp_ratio=(1.0, 1.5, 2.0), qkv_dim=(32, 64, 96)
)
SPACE = SearchSpace((STAGE, StageSpace((2, 3), (64, 96), (2, 7), (3.0, 3.5), (64,))))


def samples(space: SearchSpace, count: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [sample(space, rng) for _ in range(count)]


def every_architecture(stage: StageSpace) -> set[Architecture]:
    blocks = [Block(*values) for values in itertools.product(stage.window, stage.mlp_ratio, stage.qkv_dim)]
    return {
        Architecture((Stage(embed_dim, chosen),))
        for embed_dim in stage.embed_dim
        for depth in stage.depth
        for chosen in itertools.product(blocks, repeat=depth)
    }


def test_size_worked_out_by_hand() -> None:
    # Stage 1: a block has 2 * 3 * 3 = 18 forms; 3 widths * (18 + 18^2 + 18^4) = 3 * 105,318 = 315,954.
    # Stage 2: a block has 2 * 2 * 1 = 4 forms;  2 widths * (4^2 + 4^3) = 2 * 80 = 160.
    assert SPACE.size() == 315_954 * 160


def test_size_is_the_number_of_distinct_architectures() -> None:
    stage = StageSpace((1, 3), (32, 64), (2, 4), (1.0,), (32, 64))
    assert SearchSpace((stage,)).size() == len(every_architecture(stage))


def test_every_architecture_of_a_small_space_is_sampled_and_contained() -> None:
    stage = StageSpace((1, 2), (32, 64), (2, 4), (1.0,), (32,))
    space = SearchSpace((stage,))
    assert set(samples(space, 500)) == every_architecture(stage)
    assert all(space.contains(architecture) for architecture in every_architecture(stage))


def assert_uniform(values: list, choices: tuple) -> None:
    """Each choice's count is within 4 standard deviations of the binomial's mean."""
    share = 1 / len(choices)
    allowed = 4 * np.sqrt(len(values) * share * (1 - share))
    for choice in choices:
        assert abs(values.count(choice) - len(values) * share) <= allowed, choice
    assert set(values) == set(choices)


def test_sampling_is_uniform_over_the_choices_of_every_stage_and_block() -> None:
    drawn = samples(SPACE, 6000)
    for index, stage in enumerate(SPACE.stages):
        stages = [architecture.stages[index] for architecture in drawn]
        assert_uniform([stage.depth for stage in stages], stage.depth)
        assert_uniform([stage.embed_dim for stage in stages], stage.embed_dim)
        for name, block in itertools.product(BLOCK_DIMENSIONS, range(max(stage.depth))):
            values = [getattr(stage.blocks[block], name) for stage in stages if stage.depth > block]
            assert_uniform(values, stage.choices(name))


def test_blocks_of_a_stage_are_drawn_independently() -> None:
    blocks = [architecture.stages[1].blocks for architecture in samples(SPACE, 4000)]
    assert_uniform([(first.window, second.window) for first, second, *_ in blocks], ((2, 2), (2, 7), (7, 2), (7, 7)))


def test_sampling_is_reproducible_from_the_seed() -> None:
    assert samples(SPACE, 20, seed=3) == samples(SPACE, 20, seed=3)
    assert samples(SPACE, 20, seed=3) != samples(SPACE, 20, seed=4)


def test_largest_and_smallest_worked_out_by_hand() -> None:
    first, second = Stage(96, (Block(4, 2.0, 96),) * 4), Stage(96, (Block(7, 3.5, 64),) * 3)
    assert largest(SPACE) == Architecture((first, second))
    first, second = Stage(32, (Block(2, 1.0, 32),)), Stage(64, (Block(2, 3.0, 64),) * 2)
    assert smallest(SPACE) == Architecture((first, second))
    assert largest(SPACE).stages[0].blocks[0].heads == 3


def test_contains_refuses_each_foreign_choice() -> None:
    block = Block(2, 1.0, 32)
    good = smallest(SPACE).stages[1]
    for stage in (
        Stage(48, (block,)),
        Stage(32, (block,) * 3),
        Stage(32, (Block(3, 1.0, 32),)),
        Stage(32, (block, Block(2, 1.25, 32))),
        Stage(32, (Block(2, 1.0, 128),)),
    ):
        assert not SPACE.contains(Architecture((stage, good)))
    assert SPACE.contains(Architecture((Stage(32, (block,)), good)))
    assert not SPACE.contains(Architecture((Stage(32, (block,)),)))


def test_moves_stay_inside_the_space() -> None:
    rng = np.random.default_rng(1)
    parents = samples(SPACE, 200)
    for first, second in itertools.pairwise(parents):
        assert SPACE.contains(cross(first, second, rng))
        assert SPACE.contains(mutate(SPACE, first, rng, probability=0.5, stage_probability=0.5))


def test_mutation_without_probability_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    for parent in samples(SPACE, 20):
        assert mutate(SPACE, parent, rng, probability=0.0, stage_probability=0.0) == parent


def test_mutation_of_blocks_alone_keeps_depth_and_width_and_redraws_at_its_rate() -> None:
    rng = np.random.default_rng(0)
    parent = largest(SPACE)
    children = [mutate(SPACE, parent, rng, probability=0.2, stage_probability=0.0) for _ in range(2000)]
    assert all([s.depth for s in c.stages] == [4, 3] and [s.embed_dim for s in c.stages] == [96, 96] for c in children)
    # A redraw hits the old value in 1 of 3 choices: 0.2 * 2 / 3 of the ratios change. 8,000 of them: +- 4 deviations.
    changed = np.mean([block.mlp_ratio != 2.0 for child in children for block in child.stages[0].blocks])
    assert changed == pytest.approx(0.2 * 2 / 3, abs=4 * np.sqrt(0.1333 * 0.8667 / 8000))


def test_mutation_of_stages_alone_keeps_the_leading_blocks() -> None:
    rng = np.random.default_rng(0)
    depths = set()
    for parent in samples(SPACE, 100):
        child = mutate(SPACE, parent, rng, probability=0.0, stage_probability=1.0)
        for before, after in zip(parent.stages, child.stages, strict=True):
            shared = min(before.depth, after.depth)
            assert after.blocks[:shared] == before.blocks[:shared]
            depths.add((before.depth, after.depth))
    assert {(1, 4), (4, 1), (2, 3), (3, 2)} <= depths


def test_crossover_takes_every_choice_from_a_parent_at_the_same_place() -> None:
    rng = np.random.default_rng(0)
    parents = samples(SPACE, 100)
    for first, second in itertools.pairwise(parents):
        child = cross(first, second, rng)
        for stage, *pair in zip(child.stages, first.stages, second.stages, strict=True):
            assert stage.depth in {parent.depth for parent in pair}
            assert stage.embed_dim in {parent.embed_dim for parent in pair}
            for place, block in enumerate(stage.blocks):
                deep = [parent.blocks[place] for parent in pair if parent.depth > place]
                assert all(getattr(block, name) in {getattr(b, name) for b in deep} for name in BLOCK_DIMENSIONS)


def test_crossover_of_unequal_depths_keeps_the_blocks_of_the_deeper_parent() -> None:
    shallow = Architecture((Stage(32, (Block(2, 1.0, 32),)),))
    deep = Architecture((Stage(64, (Block(4, 2.0, 96), Block(4, 1.5, 64), Block(2, 2.0, 96), Block(4, 2.0, 32))),))
    rng = np.random.default_rng(0)
    children = [cross(*pair, rng).stages[0] for pair in ((shallow, deep), (deep, shallow)) for _ in range(200)]
    assert_uniform([child.depth for child in children], (1, 4))
    assert all(child.blocks[1:] == deep.stages[0].blocks[1:] for child in children if child.depth == 4)
    assert {child.blocks[0] for child in children} > {shallow.stages[0].blocks[0], deep.stages[0].blocks[0]}


def test_records_go_through_json_unchanged() -> None:
    for architecture in samples(SPACE, 20):
        assert Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
        assert architecture.to_json() == json.loads(json.dumps(architecture.to_json()))
    assert SearchSpace.from_json(json.loads(json.dumps(SPACE.to_json()))) == SPACE
    assert SPACE.to_json() == json.loads(json.dumps(SPACE.to_json()))


def test_a_space_of_lists_is_the_same_hashable_value() -> None:
    stage = StageSpace([1, 2, 4], [32, 64, 96], [2, 4], [1, 1.5, 2], [32, 64, 96])  # type: ignore[arg-type]
    assert SearchSpace([stage]) == SearchSpace((STAGE,))  # type: ignore[arg-type]
    assert hash(SearchSpace([stage])) == hash(SearchSpace((STAGE,)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dimension", "choices", "message"),
    [
        ("depth", (), "stage 2 depth: the list of choices is empty"),
        ("depth", (0, 1), "stage 2 depth: the choice 0 cannot be built; choices are whole numbers above 0"),
        ("depth", (1.0,), "stage 2 depth: the choice 1.0 cannot be built"),
        ("window", (True,), "stage 2 window: the choice True cannot be built"),
        ("window", (-7, 7), "stage 2 window: the choice -7 cannot be built"),
        ("mlp_ratio", (float("nan"),), "the choice nan cannot be built; choices are numbers above 0"),
        ("mlp_ratio", (1.0, float("inf")), "stage 2 mlp_ratio: the choice inf cannot be built"),
        ("mlp_ratio", (0.01,), "stage 2: an mlp_ratio of 0.01 on an embed_dim of 64 leaves the MLP no hidden unit"),
        ("qkv_dim", (32, 72), "72 is not a multiple of the head dimension 32.*nearest that works is 64"),
        ("qkv_dim", (8,), "nearest that works is 32"),
        ("embed_dim", (64, 32), r"strictly increasing, got \(64, 32\); try \(32, 64\)"),
        ("embed_dim", (32, 32), r"strictly increasing, got \(32, 32\); try \(32,\)"),
        ("embed_dim", 32, r"embed_dim = 32: expected a tuple of choices; for a single one write \(32,\)"),
    ],
)
def test_a_space_that_cannot_be_built_is_refused(dimension: str, choices: tuple, message: str) -> None:
    with pytest.raises(S3Error, match=message):
        SPACE.replace(1, dimension, choices)


def test_a_space_without_stages_is_refused() -> None:
    with pytest.raises(S3Error, match="at least one stage"):
        SearchSpace(())


BLOCK = {"window": 2, "mlp_ratio": 1.0, "qkv_dim": 32}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "not an architecture record: KeyError"),
        ([], "not an architecture record: TypeError"),
        ({"stages": [{"embed_dim": 32}]}, "expected stages of embed_dim and blocks"),
        ({"stages": []}, "at least one stage"),
        ({"stages": [{"embed_dim": 32, "blocks": []}]}, "stage 1 depth: the choice 0 cannot be built"),
        ({"stages": [{"embed_dim": "32", "blocks": [BLOCK]}]}, "stage 1 embed_dim: the choice '32' cannot be built"),
        ({"stages": [{"embed_dim": 32, "blocks": [BLOCK | {"window": 7.5}]}]}, "stage 1 window: the choice 7.5"),
        ({"stages": [{"embed_dim": 32, "blocks": [BLOCK | {"qkv_dim": 40}]}]}, "nearest that works is 32"),
        ({"stages": [{"embed_dim": 32, "blocks": [BLOCK | {"mlp_ratio": "x"}]}]}, "not an architecture record"),
        ({"stages": [{"embed_dim": 32, "blocks": [BLOCK | {"mlp_ratio": 0.01}]}]}, "leaves the MLP no hidden unit"),
    ],
)
def test_a_record_of_no_architecture_is_refused(record: dict, message: str) -> None:
    with pytest.raises(S3Error, match=message):
        Architecture.from_json(record)


@pytest.mark.parametrize("record", [{}, [], {"stages": [{"depth": [1]}]}, {"stages": 3}, {"stages": [[1]]}])
def test_a_record_of_no_space_is_refused(record: dict) -> None:
    with pytest.raises(S3Error, match="not a search-space record"):
        SearchSpace.from_json(record)


def test_windows_over_the_map_act_as_the_map_and_are_merged() -> None:
    space = SPACE.replace(0, "window", (2, 4, 7, 14))
    clamped = space.clamped((7, 4))
    assert [stage.window for stage in clamped.stages] == [(2, 4, 7), (2, 4)]
    for architecture in samples(space, 50):
        assert clamped.contains(architecture.clamped((7, 4)))
    assert clamped.clamped((7, 4)) == clamped


def test_map_sizes_halve_rounding_up() -> None:
    assert map_sizes(224, 4, 4) == (56, 28, 14, 7)
    assert map_sizes(8, 1, 4) == (8, 4, 2, 1)
    assert map_sizes(20, 4, 4) == (5, 3, 2, 1)


@pytest.mark.parametrize(("image", "patch"), [(30, 4), (2, 4), (8, 0)])
def test_an_image_that_patches_do_not_tile_is_refused(image: int, patch: int) -> None:
    with pytest.raises(S3Error, match=f"image of {image} px cannot be cut into patches of {patch} px"):
        map_sizes(image, patch, 4)
