"""Mutation and crossover as distributions: every choice is drawn by itself, and what grows is drawn anew."""

from collections import Counter

import numpy as np
import pytest

from s3_jax.space import Architecture, Block, SearchSpace, Stage, StageSpace, cross, mutate

SPACE = SearchSpace((StageSpace((1, 4), (32, 64), (2, 4), (1.0, 2.0), (32, 64)),) * 2)
FIRST, LAST = Block(2, 1.0, 32), Block(4, 2.0, 64)
SHALLOW = Architecture((Stage(32, (FIRST,)),) * 2)
DEEP = Architecture((Stage(64, (LAST,) * 4),) * 2)
DRAWS = 2000


def assert_uniform(drawn: list, of: int) -> None:
    """Each of `of` values is drawn equally often, within four standard deviations."""
    counts, share = Counter(drawn), 1 / of
    assert len(counts) == of, counts
    allowed = 4 * np.sqrt(len(drawn) * share * (1 - share))
    assert all(abs(count - share * len(drawn)) < allowed for count in counts.values()), counts


@pytest.mark.parametrize("pair", [(SHALLOW, DEEP), (DEEP, SHALLOW)])
def test_a_child_takes_depth_and_width_of_every_stage_by_themselves(pair) -> None:
    rng = np.random.default_rng(0)
    children = [cross(*pair, rng).stages for _ in range(DRAWS)]
    assert_uniform([tuple((stage.depth, stage.embed_dim) for stage in stages) for stages in children], 16)


def test_a_child_takes_every_choice_of_every_block_by_itself() -> None:
    rng = np.random.default_rng(0)
    pair = Architecture((Stage(32, (FIRST,) * 2),)), Architecture((Stage(32, (LAST,) * 2),))
    assert_uniform([cross(*pair, rng).stages[0].blocks for _ in range(4 * DRAWS)], 64)


def test_the_blocks_of_a_stage_that_grew_are_drawn_anew_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    children = [mutate(SPACE, SHALLOW, rng, probability=0.0, stage_probability=1.0).stages[0] for _ in range(DRAWS)]
    grown = [child.blocks for child in children if child.depth == 4]
    assert all(blocks[0] == FIRST for blocks in grown)
    for place in (1, 2, 3):
        assert_uniform([blocks[place] for blocks in grown], 8)
    assert_uniform([(blocks[2].window, blocks[3].window) for blocks in grown], 4)
    assert_uniform([blocks[1:] for blocks in (child.blocks[:2] for child in children) if len(blocks) > 1], 8)


def test_a_mutation_draws_depth_and_width_of_every_stage_by_themselves() -> None:
    rng = np.random.default_rng(0)
    children = [mutate(SPACE, DEEP, rng, probability=0.0, stage_probability=0.5).stages for _ in range(4 * DRAWS)]
    # Redrawn in half of the cases, and then half of the draws are the parent's: a quarter of each choice is another.
    for changed in (
        [stage.depth != 4 for stages in children for stage in stages],
        [stage.embed_dim != 64 for stages in children for stage in stages],
    ):
        assert np.mean(changed) == pytest.approx(1 / 4, abs=4 * np.sqrt(3 / 16 / len(changed)))
    both = [all((stage.depth, stage.embed_dim) == (1, 32) for stage in stages) for stages in children]
    assert np.mean(both) == pytest.approx(1 / 256, abs=4 * np.sqrt(1 / 256 / len(both)))


def test_a_mutation_redraws_every_choice_of_a_block_by_itself() -> None:
    rng = np.random.default_rng(0)
    children = [mutate(SPACE, SHALLOW, rng, probability=1.0, stage_probability=0.0).stages for _ in range(DRAWS)]
    assert_uniform([stages[0].blocks for stages in children], 8)
    assert_uniform([stages[0].blocks[0].window == stages[1].blocks[0].window for stages in children], 2)


def test_a_mutation_decides_for_every_choice_of_a_block_by_itself() -> None:
    rng = np.random.default_rng(0)
    parent = Architecture((Stage(32, (FIRST,)),) * 2)
    children = [mutate(SPACE, parent, rng, probability=0.5, stage_probability=0.0).stages for _ in range(4 * DRAWS)]
    blocks = [stages[0].blocks[0] for stages in children]
    changed = np.array([(block.window != 2, block.mlp_ratio != 1.0, block.qkv_dim != 32) for block in blocks])
    # Redrawn in half of the cases, and then half of the draws are the parent's.
    spread = 4 * np.sqrt(3 / 16 / len(blocks))
    assert changed.mean(axis=0) == pytest.approx([1 / 4] * 3, abs=spread)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.mean(changed[:, one] & changed[:, other]) == pytest.approx(1 / 16, abs=spread)
