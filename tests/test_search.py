"""Evolutionary search: what it may propose, that it goes on after a stop, ends gracefully, and beats random search."""

import dataclasses
import functools
import json
from collections.abc import Sequence

import numpy as np
import pytest

from s3_jax.cost import Budget, Cost, Evaluated, cheapest, cost
from s3_jax.errors import S3Error
from s3_jax.search import SearchConfig, SearchState, ask, best, init, tell
from s3_jax.space import Architecture, SearchSpace, StageSpace, largest, sample, smallest

COST_OF = functools.partial(cost, image_size=16, patch_size=1, num_classes=10)
SPACE = SearchSpace((StageSpace((1, 2, 3), (32, 64, 96), (2, 4), (1.0, 1.5, 2.0), (32, 64, 96)),) * 2)
TINY = SearchSpace((StageSpace((1,), (32, 64), (2, 4), (1.0, 2.0, 3.0), (32,)),))  # 12 architectures
SMALL = SearchConfig(population=12, generations=5, top=4, mutations=5, crossovers=5, max_attempts=500)


def synthetic_error(architecture: Architecture) -> float:
    """Lowest, 5 %, where every choice is the middle or the first one; each block and stage counts."""
    error = 5.0
    for stage in architecture.stages:
        error += 3 * abs(stage.depth - 2) + abs(stage.embed_dim - 64) / 32
        blocks = [2 * abs(b.mlp_ratio - 1.5) + abs(b.qkv_dim - 64) / 32 + (b.window == 4) for b in stage.blocks]
        error += sum(blocks) / len(blocks)
    return error


def evaluate(architectures: Sequence[Architecture]) -> list[Evaluated]:
    return [Evaluated(one, COST_OF(one), synthetic_error(one)) for one in architectures]


def run(space: SearchSpace, config: SearchConfig, seed: int) -> SearchState:
    state = init(space, config, seed=seed)
    while not state.finished:
        state = tell(state, evaluate(ask(state, COST_OF)))
    return state


def test_every_generation_is_full_new_inside_the_space_and_the_budget() -> None:
    macs = [COST_OF(sample(SPACE, np.random.default_rng(seed))).macs for seed in range(200)]
    config = dataclasses.replace(SMALL, budget=Budget(max_macs=float(np.quantile(macs, 0.3))))
    state = run(SPACE, config, seed=0)
    assert len(state.evaluated) == 5 * 12
    assert len({one.architecture for one in state.evaluated}) == 5 * 12
    assert all(SPACE.contains(one.architecture) for one in state.evaluated)
    assert all(COST_OF(one.architecture).macs < config.budget.max_macs for one in state.evaluated)
    assert state.notes == ()


def test_the_same_state_asks_for_the_same_and_another_seed_for_others() -> None:
    state = tell(init(SPACE, SMALL, seed=1), evaluate(ask(init(SPACE, SMALL, seed=1), COST_OF)))
    assert ask(state, COST_OF) == ask(state, COST_OF)
    assert ask(init(SPACE, SMALL, seed=1), COST_OF) != ask(init(SPACE, SMALL, seed=2), COST_OF)
    assert ask(state, COST_OF) != ask(dataclasses.replace(state, seed=2), COST_OF)
    assert ask(state, COST_OF) != ask(dataclasses.replace(state, generation=2), COST_OF)


def test_a_restored_search_goes_on_as_if_uninterrupted() -> None:
    config = dataclasses.replace(SMALL, budget=Budget(max_params=1e5))
    whole = run(SPACE, config, seed=3)
    state = init(SPACE, config, seed=3)
    while not state.finished:
        state = SearchState.from_json(json.loads(json.dumps(state.to_json())))
        proposals = ask(state, COST_OF)
        state = SearchState.from_json(json.loads(json.dumps(state.to_json())))  # stopped while evaluating
        assert ask(state, COST_OF) == proposals
        state = tell(state, evaluate(proposals))
    assert state == whole
    assert json.dumps(state.to_json()) == json.dumps(whole.to_json())


def test_a_generation_is_mutants_then_children_of_the_best_then_random_ones() -> None:
    state = tell(init(SPACE, SMALL, seed=0), evaluate(ask(init(SPACE, SMALL, seed=0), COST_OF)))
    top = [one.architecture for one in sorted(state.evaluated, key=lambda one: one.error)[:4]]
    still = dataclasses.replace(SMALL, stage_mutation_probability=0.0)
    proposals = ask(dataclasses.replace(state, config=still), COST_OF)
    shapes = [[(stage.depth, stage.embed_dim) for stage in one.stages] for one in top]
    mutants, children = proposals[:5], proposals[5:10]
    assert len(proposals) == 12
    assert all([(s.depth, s.embed_dim) for s in one.stages] in shapes for one in mutants)
    for child in children:
        for index, stage in enumerate(child.stages):
            parents = [one.stages[index] for one in top]
            assert stage.embed_dim in {parent.embed_dim for parent in parents}
            for place, block in enumerate(stage.blocks):
                at_place = [parent.blocks[place] for parent in parents if parent.depth > place]
                assert block.qkv_dim in {one.qkv_dim for one in at_place}
                assert block.mlp_ratio in {one.mlp_ratio for one in at_place}


def test_search_beats_random_search_of_as_many_evaluations() -> None:
    config = SearchConfig(population=20, generations=10, top=5, mutations=10, crossovers=10)
    found, random = [], []
    for seed in range(5):
        found.append(best(run(SPACE, config, seed)).error)
        rng = np.random.default_rng(seed)
        random.append(min(synthetic_error(sample(SPACE, rng)) for _ in range(200)))
    assert all(searched < drawn for searched, drawn in zip(found, random, strict=True)), (found, random)
    assert np.mean(random) - np.mean(found) > 1  # percentage points


def test_a_small_space_is_searched_whole_and_ends_with_a_note() -> None:
    state = run(TINY, dataclasses.replace(SMALL, population=10), seed=0)
    assert state.exhausted
    assert state.generation == 2
    assert len(state.evaluated) == TINY.size() == 12
    assert state.notes == ("generation 2: 2 of 10 new architectures; all 12 architectures of the space are evaluated",)
    assert best(state).error == min(synthetic_error(sample(TINY, np.random.default_rng(s))) for s in range(200))
    assert ask(state, COST_OF) == ()


def test_a_population_that_is_the_whole_space_ends_after_one_generation() -> None:
    state = run(TINY, SMALL, seed=0)
    assert (state.generation, state.exhausted, state.notes) == (1, True, ())


def test_a_single_architecture_can_be_searched() -> None:
    space = SearchSpace((StageSpace((2,), (32,), (2,), (1.0,), (32,)),))
    state = run(space, SMALL, seed=0)
    assert best(state).architecture == largest(space)
    assert state.exhausted


def test_a_budget_that_leaves_few_ends_early_with_a_note() -> None:
    within = sorted(COST_OF(sample(TINY, np.random.default_rng(seed))).macs for seed in range(300))
    limit = sorted(set(within))[4]
    config = dataclasses.replace(SMALL, budget=Budget(max_macs=limit))
    state = run(TINY, config, seed=0)
    assert state.exhausted
    assert state.generation < 5
    assert {one.architecture for one in state.evaluated} == {
        one for one in (sample(TINY, np.random.default_rng(seed)) for seed in range(300)) if COST_OF(one).macs < limit
    }
    assert state.notes[-1].startswith("generation 2: 0 of 12 new architectures; 500 draws found no other under ")


def test_a_budget_below_the_smallest_network_is_refused() -> None:
    lowest = cheapest(SPACE, COST_OF)
    state = init(SPACE, dataclasses.replace(SMALL, budget=Budget(max_params=lowest.params)), seed=0)
    with pytest.raises(S3Error, match=r"0 of 500 samples under .* parameters; the smallest network has .* parameters"):
        ask(state, COST_OF)


def told(*results: tuple[Architecture, int, int, float]) -> SearchState:
    state = init(SPACE, SMALL, seed=0)
    return tell(state, [Evaluated(one, Cost(params, macs), error) for one, params, macs, error in results])


def test_best_is_the_lowest_error_then_the_fewest_parameters_then_macs_then_the_first() -> None:
    rng = np.random.default_rng(0)
    a, b, c, d = (sample(SPACE, rng) for _ in range(4))
    assert best(told((a, 1, 1, 9.0), (b, 5, 5, 8.0))).architecture == b
    assert best(told((a, 5, 1, 8.0), (b, 4, 9, 8.0))).architecture == b
    assert best(told((a, 4, 9, 8.0), (b, 4, 8, 8.0))).architecture == b
    assert best(told((a, 4, 9, 8.0), (b, 4, 8, 8.0), (c, 4, 8, 8.0), (d, 4, 8, 9.0))).architecture == b
    with pytest.raises(S3Error, match="evaluated nothing yet"):
        best(init(SPACE, SMALL, seed=0))


def test_best_is_of_all_generations() -> None:
    state = told((largest(SPACE), 1, 1, 1.0))
    later = tell(state, evaluate(ask(state, COST_OF)))
    assert best(later).architecture == largest(SPACE)


def test_what_ask_cannot_have_proposed_is_refused() -> None:
    state = init(SPACE, dataclasses.replace(SMALL, budget=Budget(max_params=100)), seed=0)
    one = Evaluated(smallest(SPACE), Cost(99, 1), 1.0)
    with pytest.raises(S3Error, match="is evaluated already"):
        tell(state, [one, one])
    with pytest.raises(S3Error, match="is evaluated already"):
        tell(tell(state, [one]), [one])
    with pytest.raises(S3Error, match="not of the space"):
        tell(state, [dataclasses.replace(one, architecture=smallest(TINY))])
    with pytest.raises(S3Error, match="is not under 100 parameters"):
        tell(state, [dataclasses.replace(one, cost=Cost(100, 1))])


def test_a_finished_search_takes_nothing_more() -> None:
    state = run(SPACE, SMALL, seed=0)
    with pytest.raises(S3Error, match="finished after 5 generations"):
        tell(state, [])
    assert ask(state, COST_OF) == ()


@pytest.mark.parametrize("record", [{}, None, {"space": TINY.to_json(), "config": {"populace": 3, "budget": {}}}])
def test_a_record_of_no_search_is_refused(record: dict) -> None:
    with pytest.raises(S3Error, match="not a record of a search"):
        SearchState.from_json(record)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 0, "mutations": 0, "crossovers": 0}, "population = 0: expected a whole number from 1 on"),
        ({"population": 10}, r"population = 10: expected mutations \+ crossovers = 50 or more"),
        ({"generations": 0}, "generations = 0"),
        ({"top": 0}, "top = 0"),
        ({"mutations": -1}, "mutations = -1: expected a whole number from 0 on"),
        ({"mutation_probability": 1.5}, "mutation_probability = 1.5: expected a number from 0 to 1"),
        ({"stage_mutation_probability": float("nan")}, "stage_mutation_probability = nan"),
        ({"max_attempts": 0}, "max_attempts = 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_the_door(settings: dict, message: str) -> None:
    with pytest.raises(S3Error, match=f"search.{message}"):
        SearchConfig(**settings)
