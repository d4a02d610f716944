"""The arms of the evolution: what each does to a space, and that only the measured one finds what is there to find."""

from typing import Any

import numpy as np
import pytest

from s3_jax.arms import AFTER_MEASURED, ARMS, Context, MeasuredStep, NextSpace, move, places
from s3_jax.cost import Cost, Evaluated
from s3_jax.errors import S3Error
from s3_jax.evolution import Evolution, EvolutionConfig, evolve
from s3_jax.space import SearchSpace, StageSpace, sample

SPACE = SearchSpace((StageSpace((2, 3, 4), (128, 160, 192), (4,), (2.0, 2.5), (96, 128)),) * 2)
STEPS = {"step_embed_dim": 32, "step_window": 2, "step_qkv_dim": 32}
SIDES = (16, 8)
MOVED = (1, -2, None, 0, 0, 0, 3, None, -1, 0)  # as the steps of a measured arm


def act(arm: str, seed: int = 0, measured: MeasuredStep | None = None, space: SearchSpace = SPACE) -> NextSpace:
    steps = tuple(None if len(space.stages[stage].choices(name)) == 1 else 0 for stage, name in places(space))
    context = Context(steps, EvolutionConfig(**STEPS).step, np.random.default_rng(seed), measured)
    return ARMS[arm](space, context)


def measured_step(space: SearchSpace = SPACE, steps: tuple[int | None, ...] = MOVED) -> MeasuredStep:
    return MeasuredStep(steps, space)


def errors_of(seed: int, benefit: float, deviation: float) -> list[list[Evaluated]]:
    """Samples of three trainings. Only the depth of stage 1 has a benefit; every training has slopes of its own."""
    rng, trainings = np.random.default_rng(seed), []
    for _ in range(3):
        own, samples = rng.normal(0, deviation, (2, 2)), [sample(SPACE, rng) for _ in range(100)]
        errors = [
            50
            - benefit * one.stages[0].depth
            + sum(own[k] @ (stage.depth, stage.embed_dim / 32) for k, stage in enumerate(one.stages))
            + rng.normal(0, 0.5)
            for one in samples
        ]
        trainings.append([Evaluated(one, Cost(1, 1), error) for one, error in zip(samples, errors, strict=True)])
    return trainings


def evolved(trainings: list[list[Evaluated]], seed: int = 0, measured: Any = None, **settings: Any) -> Evolution:
    config = EvolutionConfig(
        trainings=3, num_samples=100, top_k=10, num_bootstrap=20, tau=1.0, rounding="toward_zero", **STEPS, **settings
    )
    first, *further = trainings
    rng = np.random.default_rng([seed, 1])
    return evolve(SPACE, first, config, map_sizes=SIDES, seed=seed, further=further, measured=measured, rng=rng)


def test_a_planted_benefit_is_found_by_the_slopes_of_three_trainings_and_not_by_chance() -> None:
    found = {"measured": 0, "random": 0}
    for seed in range(12):
        trainings = errors_of(seed, benefit=4.0, deviation=0.5)
        measured = evolved(trainings, seed, min_z=3.0)
        step = MeasuredStep.from_json(measured.to_json())
        control = evolved(trainings, seed, step, arm="random", measured_run="there")
        assert sum(map(bool, step.steps)) <= 3, "noise of trainings is taken for signal"
        for name, evolution in (("measured", measured), ("random", control)):
            found[name] += min(evolution.space.stages[0].depth) > 2
    assert found["measured"] == 12
    assert found["random"] <= 4


def test_noise_of_trainings_moves_what_one_training_says_and_not_what_three_say() -> None:
    """Without a benefit: the bootstrap of one training takes its own slopes for signal."""
    alone = together = 0
    for seed in range(6):
        trainings = errors_of(seed, benefit=0.0, deviation=2.0)
        alone += sum(map(bool, (d.steps for d in evolved(trainings[:1], seed, min_z=3.0).dimensions)))
        together += sum(map(bool, (d.steps for d in evolved(trainings, seed, min_z=3.0).dimensions)))
    assert alone > 8
    assert together < alone / 2


def test_what_min_z_holds_back_is_named_and_stays() -> None:
    trainings = errors_of(0, benefit=4.0, deviation=1.0)
    free, held = evolved(trainings), evolved(trainings, min_z=50.0)
    assert held.space == SPACE != free.space
    moved = [d.measure.name for d in free.dimensions if d.steps]
    (note,) = [note for note in held.notes if "held back" in note]
    assert note.startswith("within evolution.min_z = 50 standard errors of zero, so held back: ")
    assert [part.split(" (")[0] for part in note.split(": ", 1)[1].split("), ")] == moved
    assert not [note for note in free.notes if "held back" in note]


def test_still_and_measured_by_an_endless_tau_give_the_same_space() -> None:
    trainings = errors_of(0, benefit=4.0, deviation=1.0)
    still = evolved(trainings, arm="still")
    config = EvolutionConfig(num_samples=100, top_k=10, num_bootstrap=20, tau=1e12, **STEPS)  # rounding as printed
    measured = evolve(SPACE, trainings[0], config, map_sizes=SIDES, seed=0, further=trainings[1:])
    assert still.space == measured.space == SPACE
    assert [d.steps for d in still.dimensions] == [d.steps for d in measured.dimensions]
    assert still.measure == measured.measure


def test_random_moves_as_many_dimensions_by_as_many_steps_as_the_measured_arm() -> None:
    drawn = [act("random", seed, measured_step()).steps for seed in range(200)]
    for steps in drawn:
        assert sorted(abs(count) for count in steps if count) == [1, 1, 2, 3]
        assert [count is None for count in steps] == [count is None for count in MOVED]
    assert act("random", 5, measured_step()) == act("random", 5, measured_step())
    counts = np.array([[count or 0 for count in steps] for steps in drawn])
    movable = [place for place, count in enumerate(MOVED) if count is not None]
    assert (np.abs(counts[:, movable]) > 0).mean(axis=0) == pytest.approx(4 / 8, abs=0.15)  # each as often
    assert (counts > 0).sum() == pytest.approx((counts < 0).sum(), rel=0.2)  # up as often as down


def test_random_moves_what_it_can_where_fewer_dimensions_have_a_choice() -> None:
    single = SearchSpace(
        (StageSpace((2, 3), (128,), (4,), (2.0,), (96,)), StageSpace((2,), (128,), (4,), (2.0,), (96,)))
    )
    moved = act("random", 0, measured_step(), single)
    assert sum(map(bool, moved.steps)) == 1
    assert moved.notes[0] == "the measured arm moved 4 dimensions, and here only 1 have more than one choice"


def test_grow_moves_every_dimension_with_a_choice_one_step_up() -> None:
    up = StageSpace((3, 4, 5), (160, 192, 224), (4,), (2.5, 3.0), (128, 160))
    assert act("grow").space == SearchSpace((up, up))
    assert act("grow").steps == (-1, -1, None, -1, -1) * 2


def test_grow_leaves_as_they_are_the_dimensions_whose_larger_choices_would_not_fit() -> None:
    """A limit on the sum of widths, which two stages share: whichever comes first in the drawn order grows."""
    grown = set()
    for seed in range(8):
        context = Context(
            (0, 0, None, 0, 0) * 2, EvolutionConfig(**STEPS).step, np.random.default_rng(seed), None, fits
        )
        moved = ARMS["grow"](SPACE, context)
        assert fits(moved.space)
        wider = [stage.embed_dim == (160, 192, 224) for stage in moved.space.stages]
        assert sorted(wider) == [False, True]
        assert moved.steps == tuple(
            (-1, -1 if wide else 0, None, -1, -1)[place] for wide in wider for place in range(5)
        )
        assert moved.notes == [
            f"cannot grow under evolution.budget, so that they stay: stage {1 + wider.index(False)} embed_dim"
        ]
        grown.add(wider.index(True))
    assert grown == {0, 1}


def fits(space: SearchSpace) -> bool:
    return sum(max(stage.embed_dim) for stage in space.stages) <= 192 + 224


def test_prune_drops_choices_until_the_space_is_as_small() -> None:
    small = SPACE.replace(0, "depth", (2,)).replace(1, "embed_dim", (128,))
    for seed in range(20):
        pruned = act("prune", seed, measured_step(small))
        assert pruned.space.size() <= small.size()
        assert pruned.steps == act("still").steps
        for stage, name in places(SPACE):
            kept = pruned.space.stages[stage].choices(name)
            assert kept
            assert set(kept) <= set(SPACE.stages[stage].choices(name))
        before_last = len([note for note in pruned.notes if "dropped at random" in note])
        total = sum(len(SPACE.stages[s].choices(n)) - len(pruned.space.stages[s].choices(n)) for s, n in places(SPACE))
        assert before_last == total
    assert len({act("prune", seed, measured_step(small)).space for seed in range(20)}) > 10
    assert act("prune", 0, measured_step(SPACE)).space == SPACE


def test_a_step_is_read_from_the_record_of_a_measured_space() -> None:
    evolution = evolved(errors_of(0, benefit=4.0, deviation=1.0))
    step = MeasuredStep.from_json(evolution.to_json())
    assert step == MeasuredStep(tuple(d.steps for d in evolution.dimensions), evolution.space)


@pytest.mark.parametrize(
    ("choices", "steps", "step", "kept", "dropped"),
    [
        ((2, 3, 4), 0, 1, (2, 3, 4), ()),
        ((2, 3, 4), 1, 1, (1, 2, 3), ()),
        ((2, 3, 4), -2, 1, (4, 5, 6), ()),
        ((2, 3, 4), 2, 1, (1, 2), (0,)),
        ((2, 3, 4), 4, 1, (1,), (-2, -1, 0)),  # the smallest depth
        ((224, 256, 288), 4, 64, (32,), (-32, 0)),
        ((224, 256, 288), 9, 64, (32,), (-352, -320, -288)),  # 224 = 3 * 64 + 32 comes down to 32
        ((64, 128), 2, 64, (64,), (-64, 0)),  # whole steps reach 64, then 0
        ((3.0, 3.5, 4.0), 7, 0.5, (0.5,), (-0.5, 0.0)),
        ((3.0, 3.5, 4.0), 20, 0.5, (0.5,), (-7.0, -6.5, -6.0)),
        ((0.7, 0.8), 8, 0.1, (0.1,), (-0.1, 0.0)),
        ((7, 14), 1, 7, (7,), (0,)),
    ],
)
def test_move_worked_out_by_hand(choices: tuple, steps: int, step: float, kept: tuple, dropped: tuple) -> None:
    assert move(choices, steps, step) == (kept, dropped)


def test_whole_numbers_stay_whole_and_ratios_stay_clean() -> None:
    assert all(isinstance(choice, int) for choice in move((224, 256), -3, 64)[0])
    choices: tuple = (3.0, 3.1, 3.5)
    for _ in range(30):
        choices, _ = move(choices, -1, 0.1)
    assert choices == (6.0, 6.1, 6.5)


def test_a_steeper_slope_never_leaves_larger_choices() -> None:
    for choices, step in (((2, 3, 4), 1), ((224, 256, 288), 64), ((3.0, 3.5, 4.0), 0.5), ((7, 14), 7)):
        lowest = [move(choices, steps, step)[0][0] for steps in range(12)]
        highest = [move(choices, steps, step)[0][-1] for steps in range(12)]
        assert highest == sorted(highest, reverse=True)
        assert all(low > 0 for low in lowest)


@pytest.mark.parametrize("arm", AFTER_MEASURED)
def test_an_arm_without_the_run_that_it_goes_by_is_refused(arm: str) -> None:
    with pytest.raises(S3Error, match=f"the arm {arm} goes by what the arm measured did, which is not given"):
        act(arm)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainings": 0}, "trainings = 0: expected a whole number from 1 to 1,000"),
        ({"training_share": 0.0}, "training_share = 0.0: expected a number above 0 and up to 1"),
        ({"training_share": 1.5}, "training_share = 1.5"),
        ({"min_z": -1.0}, "min_z = -1.0"),
        ({"min_z": 1.0, "num_bootstrap": 0}, "num_bootstrap = 0: expected 2 or more, as min_z compares slopes"),
        ({"arm": "best"}, "arm = 'best': expected one of measured, random, grow, still, prune"),
        ({"arm": "random"}, "measured_run = '': arm = 'random' goes by a finished run .*: expected its folder"),
        ({"measured_run": "x"}, "measured_run = 'x': expected none, as arm = 'measured' goes by no other run"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_the_door(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(S3Error, match=f"evolution.{message}"):
        EvolutionConfig(**settings)
