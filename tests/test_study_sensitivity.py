"""What the rule would have done under other settings: counted by hand, and against what a run itself did."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from recorded_pipeline import Recorder, tiny

from s3_jax.errors import S3Error
from s3_jax.evolution import EvolutionConfig
from s3_jax.study.sensitivity import Decisions, decisions, sensitivity, sensitivity_csv

ROOT = Path(__file__).parent.parent
CONFIG = EvolutionConfig(tau=1.0, rounding="toward_zero")


def test_decisions_of_two_trainings_by_hand() -> None:
    """The first moves 2 of 4 dimensions by 1 and 2 steps, the second 3 by one each; of 3 moved by either 1 is alike."""
    slopes = np.array([[1.2, -2.5, 0.3, 0.0], [1.1, 1.9, -1.0, 0.9]])
    found = decisions(slopes, 1, CONFIG)
    assert found == Decisions(moved=2.5, steps=3.0, agreed=pytest.approx(1 / 3), chance=found.chance)
    assert found.chance is not None


def test_halves_decide_by_their_mean_slopes() -> None:
    """Trainings that differ by noise which cancels in every half agree in halves, and not one by one."""
    slopes = np.array([[2.0, 1.5, 0.0], [0.5, -1.5, 0.0], [2.0, 1.5, 0.0], [0.5, -1.5, 0.0]])
    single, halves = decisions(slopes, 1, CONFIG), decisions(slopes, 2, CONFIG)
    assert single.agreed == pytest.approx((2 * 1 + 4 * 0) / 6)
    # Of the six halves two are of like trainings, and disagree; four are mixed: 1.25 and 0 on both sides.
    assert halves.agreed == pytest.approx(4 / 6)


def test_what_nothing_moves_has_no_agreement() -> None:
    assert decisions(np.zeros((4, 3)), 1, CONFIG) == Decisions(0.0, 0.0, None, None)
    assert decisions(np.ones((1, 3)), 1, CONFIG).agreed is None


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose spaces have four trainings each; errors are made up."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        Recorder(patch, folder).run(tiny(evolution__trainings=4))
    return folder


def test_the_own_settings_give_the_steps_of_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorder = Recorder(monkeypatch, tmp_path)
    recorder.run(tiny())
    steps = [one["steps"] for one in recorder.read("space_0/et_error.json")["dimensions"] if one["steps"] is not None]
    own = sensitivity(tmp_path)[0]
    assert own.single.moved == np.count_nonzero(steps)
    assert own.single.steps == np.abs(steps).sum() > 0
    assert own.halves is None


def test_every_setting_is_told_once_and_few_samples_are_left_out(workdir: Path) -> None:
    rows = sensitivity(workdir, "B")
    settings = [row.setting for row in rows]
    assert settings[0] == "own: tau 3, toward_zero, N 30, top 3"
    assert len(set(settings)) == len(settings)
    assert {"tau 1.5", "tau 6", "tau 12", "rounding floor", "top 1", "top 9", "top 30"} <= set(settings)
    steps = {row.setting: row.single.steps for row in rows}
    assert steps["tau 1.5"] >= steps[settings[0]] >= steps["tau 6"] >= steps["tau 12"]
    assert all(row.halves is not None for row in rows)
    assert len(sensitivity_csv(rows).splitlines()) == 1 + len(rows)


def test_what_is_not_there_is_refused(workdir: Path, tmp_path: Path) -> None:
    with pytest.raises(S3Error, match="--space=D: the spaces that this run has measured are A, B"):
        sensitivity(workdir, "D")
    with pytest.raises(S3Error, match="is not a folder"):
        sensitivity(tmp_path / "nothing")
    command = [sys.executable, str(ROOT / "scripts" / "sensitivity.py"), f"--workdir={tmp_path / 'nothing'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert done.stderr.startswith("sensitivity: ")
