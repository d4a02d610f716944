"""Claims are judged by what was planted; differences are taken within a seed, at face value and at equal cost."""

from __future__ import annotations

import pytest
from study_folders import studied, study_of
from test_report_run import start_space

from s3_jax.equal_cost import Sampled
from s3_jax.space import SearchSpace, StageSpace
from s3_jax.study.claims import Claim, claims
from s3_jax.study.differences import EQUAL_COST, FACE, compare, differences
from s3_jax.study.records import HOLDOUT, JUDGE, Measure, Study
from s3_jax.study.statistics import CANNOT_TELL, CONTRADICTS, SUPPORTS


def claim(study: Study, text: str, quantity: str = "") -> Claim:
    return next(one for one in claims(study) if text in one.text and quantity in one.quantity)


def arms_of(last: dict[str, float], seeds: int = 3) -> Study:
    """Runs that begin at 20 % and end at an error of the arm, a little else for every seed."""
    return study_of(
        [studied(arm, seed, [20, 18, end + seed / 10]) for seed in range(seeds) for arm, end in last.items()]
    )


@pytest.mark.parametrize(
    ("measured", "random", "said"), [(15.0, 17.0, SUPPORTS), (17.0, 15.0, CONTRADICTS), (16.0, 16.0, CANNOT_TELL)]
)
def test_a_planted_difference_between_arms_is_found(measured: float, random: float, said: str) -> None:
    study = arms_of({"measured": measured, "random": random})
    for cost in (FACE, EQUAL_COST):
        found = claim(study, "more than a random move", cost)
        assert found.verdict == said
        assert found.interval is not None
        assert found.interval.mean == pytest.approx(measured - random)
    assert claim(study, "lowers the E-T Error", FACE).verdict == SUPPORTS


def test_two_seeds_cannot_tell_whatever_they_show() -> None:
    study = arms_of({"measured": 5.0, "random": 19.0}, seeds=2)
    assert {one.verdict for one in claims(study)} == {CANNOT_TELL}
    assert claim(study, "random move", FACE).values == pytest.approx({0: -14.0, 1: -14.0})


def test_signs_that_differ_from_seed_to_seed_cannot_tell() -> None:
    study = study_of([studied("measured", seed, [20, 20 + step]) for seed, step in enumerate((-2, 1, -1, 2))])
    assert claim(study, "lowers the E-T Error", FACE).verdict == CANNOT_TELL


def test_what_is_missing_is_told() -> None:
    study = arms_of({"measured": 15.0})
    assert claim(study, "random").missing == "no finished run of the arm random is there"
    assert claim(study, "growing").missing == "no finished run of the arm grow is there"
    assert "retrain.all_spaces" in claim(study, "rank").missing
    assert claim(study, "third stage").missing == "these spaces have too few stages"
    assert {one.verdict for one in claims(study_of([]))} == {CANNOT_TELL}


def test_a_larger_space_that_is_no_better_at_equal_cost_is_told_apart() -> None:
    """Errors fall by one point per unit of MACs in both spaces, of which the last has 20 more."""
    runs = []
    for seed in range(3):
        first, last = studied("measured", seed, [40, 20])
        macs = [range(10, 50), range(30, 70)]
        measures = [Measure(90 - sum(of) / 40, Sampled.of([90.0 - one for one in of], list(of))) for of in macs]
        pair = (first, last)
        runs.append(
            tuple(
                type(space)(**{**vars(space), "measures": {HOLDOUT: one}})
                for space, one in zip(pair, measures, strict=True)
            )
        )
    study = study_of(runs)
    assert claim(study, "lowers the E-T Error", FACE).values == dict.fromkeys(range(3), -20.0)
    matched = claim(study, "lowers the E-T Error", EQUAL_COST)
    assert matched.interval is not None
    assert abs(matched.interval.mean) < 0.5


def test_spaces_that_share_no_cost_have_no_difference_at_equal_cost() -> None:
    runs = [studied("measured", seed, [20, 15]) for seed in range(3)]
    far = Measure(15, Sampled.of([15.0] * 40, [1000 + one for one in range(40)]))
    runs = [(first, type(last)(**{**vars(last), "measures": {HOLDOUT: far}})) for first, last in runs]
    found = compare(study_of(runs), "measured", "", HOLDOUT, EQUAL_COST)
    assert (found.values, found.interval, found.seeds) == ({}, None, 3)
    assert "no seed has two spaces" in claim(study_of(runs), "lowers", EQUAL_COST).missing


def evolved(**choices: tuple) -> SearchSpace:
    """The first space with other choices in stages: names as "stage_dimension"."""
    space = start_space()
    for name, values in choices.items():
        _, stage, dimension = name.split("_", 2)
        space = space.replace(int(stage), dimension, values)
    return space


@pytest.mark.parametrize(
    ("text", "towards", "away"),
    [
        ("small windows", {"s_3_window": (14, 21)}, {"s_0_window": (14, 21)}),
        ("MLP ratio rises", {"s_3_mlp_ratio": (4.0, 5.0)}, {"s_0_mlp_ratio": (4.0, 5.0)}),
        ("Q-K-V is narrower", {"s_1_embed_dim": (96, 128)}, {"s_1_qkv_dim": (128, 160)}),
    ],
)
def test_planted_changes_of_choices_are_found(text: str, towards: dict, away: dict) -> None:
    for choices, said in ((towards, SUPPORTS), (away, CONTRADICTS), ({}, CANNOT_TELL)):
        spaces = [start_space(), evolved(**choices)]
        study = study_of([studied("measured", seed, [20, 19], spaces=spaces) for seed in range(3)])
        assert claim(study, text).verdict == said


@pytest.mark.parametrize(("slope", "said"), [(-0.4, SUPPORTS), (0.4, CONTRADICTS)])
def test_a_planted_slope_of_the_third_stages_depth_is_found(slope: float, said: str) -> None:
    slopes = {(2, "depth"): slope, (1, "depth"): -9 * slope}
    study = study_of([studied("measured", seed, [20, 19], slopes=slopes) for seed in range(3)])
    assert claim(study, "third stage").verdict == said
    assert claim(study, "third stage").values == dict.fromkeys(range(3), slope)


@pytest.mark.parametrize(("retrained", "said"), [([80, 90, 95], SUPPORTS), ([95, 90, 80], CONTRADICTS)])
def test_planted_ranks_of_retrained_networks_are_found(retrained: list, said: str) -> None:
    runs = [
        studied(arm, seed, [20.0], inherited=inherited, retrained=after)
        for seed in range(3)
        for arm, inherited, after in zip(("measured", "grow", "still"), (50, 55, 60), retrained, strict=True)
    ]
    assert claim(study_of(runs), "rank networks").verdict == said


def test_one_stage_is_too_few_for_claims_about_stages() -> None:
    one = SearchSpace((StageSpace((1, 2), (32,), (7,), (4.0,), (32,)),))
    study = study_of([studied("measured", seed, [20, 19], spaces=[one, one]) for seed in range(3)])
    assert claim(study, "small windows").missing == "these spaces have too few stages"
    assert claim(study, "MLP ratio").values == {}


def test_every_arm_is_compared_with_its_start_and_with_the_measured_one() -> None:
    study = arms_of({"measured": 15.0, "grow": 17.0})
    found = {(one.arm, one.less): one.interval for one in differences(study) if one.cost == FACE}
    assert {pair: round(of.mean, 6) for pair, of in found.items() if of} == {
        ("measured", ""): -4.9,
        ("grow", ""): -2.9,
        ("measured", "grow"): -2.0,
    }


def test_a_seed_that_lacks_an_arm_is_left_out() -> None:
    runs = [studied("measured", seed, [20, 15]) for seed in range(3)] + [studied("grow", 1, [20, 18])]
    assert compare(study_of(runs), "measured", "grow", HOLDOUT, FACE).values == {1: -3.0}


def test_claims_are_judged_on_images_that_chose_nothing_where_all_spaces_have_them() -> None:
    runs = [studied("measured", seed, [20, 15]) for seed in range(3)]

    def judged(space, error):
        measures = {**space.measures, JUDGE: Measure(error, space.measures[HOLDOUT].sampled)}
        return type(space)(**{**vars(space), "measures": measures})

    both = [(judged(first, 10.0), judged(last, 11.0)) for first, last in runs]
    found = claim(study_of(both), "lowers the E-T Error", FACE)
    assert "on judging images" in found.quantity
    assert found.verdict == CONTRADICTS
    assert claim(study_of([*both[:2], runs[2]]), "lowers the E-T Error", FACE).verdict == SUPPORTS
