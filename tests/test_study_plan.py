"""The runs of a study: which, in which order, where and with which settings; and plans that cannot be."""

from pathlib import Path

import pytest
from study_folders import config

from s3_jax.errors import S3Error
from s3_jax.study.plan import PlannedRun, plan_of


def test_every_arm_is_run_for_every_seed_and_the_measured_one_comes_first() -> None:
    plan = plan_of(config(seed=3), "2", "still,prune, measured")
    assert [run.name for run in plan.runs] == [
        *("seed_3/measured", "seed_3/still", "seed_3/prune"),
        *("seed_4/measured", "seed_4/still", "seed_4/prune"),
    ]
    assert PlannedRun(3, "still").folder(Path("studies")) == Path("studies/seed_3/still")


def test_a_runs_settings_differ_by_seed_arm_and_the_run_it_goes_by_alone(tmp_path: Path) -> None:
    plan = plan_of(config(), "2", "measured,random,grow")
    settings = {run: plan.settings(run, tmp_path) for run in plan.runs}
    assert [(one.seed, one.evolution.arm) for one in settings.values()] == [(run.seed, run.arm) for run in plan.runs]
    for run, one in settings.items():
        assert one.evolution.measured_run == (
            str(tmp_path / f"seed_{run.seed}/measured") if run.arm == "random" else ""
        )
        assert (one.train, one.space, one.evolution.tau) == (config().train, config().space, 3.0)


def test_another_working_folder_is_no_other_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(config(), "1", "measured,random")
    monkeypatch.chdir(tmp_path)
    relative = plan.settings(plan.runs[1], Path("study"))
    assert relative == plan.settings(plan.runs[1], tmp_path / "study")


@pytest.mark.parametrize(
    ("seeds", "arms", "message"),
    [
        ("0", "measured", "--seeds=0: expected how many seeds, a whole number from 1 to 1000"),
        ("-2", "measured", "--seeds=-2: expected how many seeds"),
        ("two", "measured", "--seeds=two: expected how many seeds"),
        ("1", "measured,growth", "no arm 'growth'; the arms are measured, random, grow, still, prune"),
        ("1", "", "no arm ''; the arms are measured, random, grow, still, prune"),
        ("1", "still,still", "an arm is named twice"),
        ("1", "still,random,prune", "random and prune go by what the arm measured did; add measured"),
    ],
)
def test_plans_that_cannot_be_are_refused(seeds: str, arms: str, message: str) -> None:
    with pytest.raises(S3Error, match=message.replace("(", "\\(")):
        plan_of(config(), seeds, arms)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evolution__arm": "grow"}, "evolution.arm and measured_run are given by the study"),
        ({"backbone__model": "s3_t"}, "no search space to study"),
        ({"seed": 2**32 - 1}, "a seed is at most 4294967295"),
    ],
)
def test_settings_that_leave_nothing_to_study_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(S3Error, match=message):
        plan_of(config(**changes), "2", "measured")
