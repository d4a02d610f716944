"""Of whom a generation is bred: the best of all that is evaluated, by error first, however old they are."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest

from s3_jax.cost import Evaluated, cost
from s3_jax.search import SearchConfig, SearchState, ask, init, tell
from s3_jax.space import Architecture, SearchSpace, StageSpace, sample

COST_OF = functools.partial(cost, image_size=8, patch_size=1, num_classes=10)
SPACE = SearchSpace((StageSpace((1, 2, 3), (32, 64, 96), (2, 4), (1.0, 1.5, 2.0), (32, 64, 96)),) * 2)
# Depth and width stay as the parents have them, so that these can be told.
CONFIG = SearchConfig(
    population=10, generations=9, top=4, mutations=5, crossovers=5, stage_mutation_probability=0.0, max_attempts=200
)


def of_shape(depth: int, width: int, count: int) -> list[Architecture]:
    """Architectures of one depth and width in both stages."""
    rng, space = np.random.default_rng(depth * width), SPACE
    for stage in range(2):
        space = space.replace(stage, "depth", (depth,)).replace(stage, "embed_dim", (width,))
    return list(dict.fromkeys(sample(space, rng) for _ in range(10 * count)))[:count]


def told(*generations: list[tuple[Architecture, float]]) -> SearchState:
    state = init(SPACE, CONFIG, seed=0)
    for generation in generations:
        state = tell(state, [Evaluated(one, COST_OF(one), error) for one, error in generation])
    return state


def shapes(architectures: tuple[Architecture, ...]) -> set[tuple[int, int]]:
    return {(stage.depth, stage.embed_dim) for one in architectures for stage in one.stages}


GOOD, BAD = of_shape(1, 32, 4), of_shape(3, 96, 10)


@pytest.mark.parametrize("late", [False, True])
def test_parents_are_the_best_of_all_generations(late: bool) -> None:
    """Whether the best came first or last, and though a later generation is larger."""
    good, bad = [(one, 20.0) for one in GOOD], [(one, 80.0) for one in BAD]
    state = told(*([bad, good] if late else [good, bad, [(one, 90.0) for one in of_shape(2, 64, 6)]]))
    bred = ask(state, COST_OF)
    assert len(bred) == 10
    assert shapes(bred) == {(1, 32)}


def test_only_so_many_are_parents_as_are_wanted() -> None:
    ranked = [(one, float(place)) for place, one in enumerate([*of_shape(1, 32, 3), *of_shape(2, 64, 1), *BAD])]
    state = told(ranked[::-1])  # the order in which they were told does not matter
    draws = [ask(dataclasses.replace(state, seed=seed), COST_OF) for seed in range(20)]
    mutants = {shape for bred in draws for shape in shapes(bred[:5])}
    assert mutants == {(1, 32), (2, 64)}  # all four, and not a fifth
    children = {shape for bred in draws for shape in shapes(bred[5:])}
    assert (1, 64) in children  # of two parents
    assert {width for _, width in children} == {32, 64}


def test_every_parent_is_bred_of_equally_often() -> None:
    state = told([(one, 10.0) for shape in ((1, 32), (2, 64), (3, 96), (1, 96)) for one in of_shape(*shape, 1)])
    mutants = [one for seed in range(200) for one in ask(dataclasses.replace(state, seed=seed), COST_OF)[:5]]
    counts = [sum(shapes((one,)) == {shape} for one in mutants) for shape in ((1, 32), (2, 64), (3, 96), (1, 96))]
    assert sum(counts) == 1000
    # Shallow mutants are more often known already, so less often new.
    assert min(counts) > 150


def test_the_rest_of_a_generation_is_random() -> None:
    state = told([(one, 10.0) for one in GOOD])
    wider = dataclasses.replace(state, config=dataclasses.replace(CONFIG, population=60))
    bred = ask(wider, COST_OF)
    assert shapes(bred[:10]) == {(1, 32)}
    assert len(shapes(bred[10:])) == 9  # every depth with every width


WIDE = SearchSpace((StageSpace((1,), (32, 64, 96, 128, 160), (2, 4), (1.0, 1.5, 2.0), (32, 64, 96)),) * 2)


def bred(config: SearchConfig, seeds: int) -> list[list[tuple[int, ...]]]:
    """Widths of what is bred of four parents, each of a width of its own in both stages, for so many seeds."""
    rng = np.random.default_rng(0)
    parents = []
    for width in (32, 64, 96, 128):
        space = WIDE.replace(0, "embed_dim", (width,)).replace(1, "embed_dim", (width,))
        parents.append(Evaluated(one := sample(space, rng), COST_OF(one), 10.0))
    state = tell(init(WIDE, config, seed=0), parents)
    asked = [ask(dataclasses.replace(state, seed=seed), COST_OF) for seed in range(seeds)]
    return [[tuple(stage.embed_dim for stage in one.stages) for one in generation] for generation in asked]


def test_every_pair_of_parents_has_children_equally_often() -> None:
    children = [widths for generation in bred(CONFIG, 300) for widths in generation[5:]]
    mixed = [tuple(sorted(widths)) for widths in children if widths[0] != widths[1]]
    counts = [mixed.count(pair) for pair in itertools.combinations((32, 64, 96, 128), 2)]
    assert sum(counts) == len(mixed)  # each of two parents
    assert len(mixed) == pytest.approx(len(children) / 2, abs=4 * np.sqrt(len(children) / 4))
    assert max(abs(count - len(mixed) / 6) for count in counts) < 4 * np.sqrt(len(mixed) * 5 / 36)


def test_a_generation_has_as_many_mutants_and_children_as_wanted() -> None:
    config = dataclasses.replace(CONFIG, population=12, mutations=2, crossovers=7)
    generations = bred(config, 60)
    assert all(len(generation) == 12 for generation in generations)
    for place in range(12):
        mixed = any(generation[place][0] != generation[place][1] for generation in generations)
        new = any(160 in generation[place] for generation in generations)
        assert (mixed, new) == (place >= 2, place >= 9), place
