"""A study is done run by run, taken up where it stopped, and refused where it is another; once with real trainings."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kill_and_compare
import pytest
from recorded_pipeline import Recorder, tiny
from rich.console import Console

from s3_jax.errors import Interrupted, S3Error
from s3_jax.remaining import Phase, Spent
from s3_jax.study import running
from s3_jax.study.plan import Plan, plan_of
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import read_json, write_json

ROOT = Path(__file__).parent.parent
ARMS = "measured,random"


class Studied:
    """Studies whose trainings and errors are made up; `said` is what the screen has shown."""

    def __init__(self, recorder: Recorder, workdir: Path) -> None:
        self.recorder, self.workdir, self.said = recorder, workdir, ""
        recorder.listen()
        recorder.monkeypatch.setattr(running, "write_report", self._report)

    def _report(self, folder: Path) -> None:
        (folder / "report").mkdir(exist_ok=True)
        (folder / "report" / "index.html").write_text("")

    def run(self, plan: Plan, stop_after: int | None = None) -> None:
        self.recorder.left = stop_after
        screen = io.StringIO()
        try:
            running.run_study(plan, self.workdir, console=Console(file=screen, width=200), stop=StopRequest())
        finally:
            self.said = screen.getvalue()

    def files(self) -> dict[str, bytes]:
        """What depends on the settings alone: not times and versions."""
        names = ["study.json", "seed_*/*/result.json", "seed_*/*/space_*/*.json*", "report/*"]
        found = [path for name in names for path in self.workdir.glob(name)]
        return {str(path.relative_to(self.workdir)): path.read_bytes() for path in found}


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    return lambda name: Studied(Recorder(monkeypatch, tmp_path / name), tmp_path / name)


def plan(seeds: str = "1", arms: str = ARMS, **changes: Any) -> Plan:
    return plan_of(tiny(**changes), seeds, arms)


def test_a_study_that_is_stopped_again_and_again_ends_as_one_that_is_not(make: Any) -> None:
    whole, stopped = make("whole"), make("stopped")
    whole.run(plan())
    assert "run 2 of 2: seed 0, arm random" in whole.said
    stops = 0
    while True:
        try:
            stopped.run(plan(), stop_after=17)
            break
        except Interrupted:
            stops += 1
            assert not (stopped.workdir / "study.json").exists()
    assert stops > 3
    assert stopped.files() == whole.files()
    assert len([name for name in whole.files() if name.startswith("report/")]) == 7
    times = {path: path.stat().st_mtime_ns for path in whole.workdir.glob("**/*") if path.is_file()}
    whole.run(plan())
    assert "This study is finished: there is nothing to do" in whole.said
    assert times == {path: path.stat().st_mtime_ns for path in whole.workdir.glob("**/*") if path.is_file()}


def test_another_study_is_refused_with_what_differs_and_more_seeds_are_added(make: Any) -> None:
    study = make("study")
    study.run(plan(arms="measured"))
    before = study.files()
    for seeds, arms, changes, told in (
        ("1", "measured,still", {}, "--arms: 'measured' there, 'measured,still' now"),
        ("1", "measured", {"train__epochs": 3.0}, "config.train.epochs: 0.4 there, 3.0 now"),
        ("1", "measured", {"seed": 5}, "config.seed: 0 there, 5 now"),
    ):
        with pytest.raises(S3Error, match=f"started otherwise:\n.*{told}"):
            study.run(plan(seeds, arms, **changes))
    assert study.files() == before
    study.run(plan("2", "measured", run__log_every=9))
    assert read_json(study.workdir / "study.json")["seeds"] == [0, 1]
    assert {name: study.files()[name] for name in before if name.startswith("seed_0")} == {
        name: content for name, content in before.items() if name.startswith("seed_0")
    }
    with pytest.raises(S3Error, match="--seeds: 2 there, 1 now"):
        study.run(plan("1", "measured"))


def test_a_study_of_a_version_with_fewer_settings_is_taken_up(make: Any) -> None:
    study = make("study")
    study.run(plan(arms="measured"))
    record = read_json(study.workdir / "plan.json")
    del record["settings"]["train"]["drop_epochs"]
    write_json(study.workdir / "plan.json", record)
    study.run(plan("2", "measured"))
    assert read_json(study.workdir / "study.json")["seeds"] == [0, 1]


def test_the_folder_of_a_run_is_no_folder_for_a_study(make: Any) -> None:
    study = make("study")
    write_json(study.workdir / "config.json", {"seed": 0})
    with pytest.raises(S3Error, match="holds a run, not a study"):
        study.run(plan())
    (study.workdir / "config.json").rename(study.workdir / "seed_0_measured.json")
    write_json(study.workdir / "seed_0/measured/config.json", {"seed": 0})
    with pytest.raises(S3Error, match=r"its plan\.json is gone"):
        study.run(plan())


def test_settings_that_fit_no_run_bind_nothing(make: Any) -> None:
    study = make("study")
    with pytest.raises(S3Error, match="the smallest network has"):
        study.run(plan(search__budget__max_params=10.0))
    study.run(plan(arms="measured"))
    assert read_json(study.workdir / "study.json")["finished"] == ["seed_0/measured"]


def test_a_run_that_cannot_be_done_keeps_no_other_from_it_and_is_told(make: Any) -> None:
    """The space that grows has more architectures than are allowed, for every seed."""
    study = make("study")
    smaller = {"evolution__max_space_size": 1e5, "evolution__tau": 1e6}
    too_large = plan("2", "measured,grow", **smaller, space__embed_dim=((8, 16, 24, 32), (8,)), search__max_attempts=1)
    with pytest.MonkeyPatch.context() as patch:
        real = running.run_pipeline

        def refuse(config: Any, folder: Path, **how: Any) -> Any:
            if config.evolution.arm == "grow" and config.seed == 0:
                raise S3Error("the space is too large")
            return real(config, folder, **how)

        patch.setattr(running, "run_pipeline", refuse)
        with pytest.raises(S3Error, match="1 of 4 runs could not be done, the others are shown: seed 0, arm grow: the"):
            study.run(too_large)
    record = read_json(study.workdir / "study.json")
    assert record["finished"] == ["seed_0/measured", "seed_1/measured", "seed_1/grow"]
    assert record["failed"] == {"seed 0, arm grow": "the space is too large"}
    study.run(too_large)
    assert read_json(study.workdir / "study.json")["failed"] == {}


def test_arms_of_a_seed_without_a_measured_one_are_told_as_left_out(make: Any, monkeypatch: Any) -> None:
    study, tried = make("study"), []

    def refuse(config: Any, folder: Path, **how: Any) -> Any:
        tried.append(folder.name)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        raise S3Error("no space")

    monkeypatch.setattr(running, "run_pipeline", refuse)
    monkeypatch.setattr(running, "write_study", lambda plan, workdir, failed: failed)
    with pytest.raises(
        S3Error, match=r"2 of 2 runs could not be done.*arm grow: left out, as the arm measured of this"
    ):
        study.run(plan("1", "measured,grow"))
    assert tried == ["measured"]


def test_the_time_left_is_that_of_all_runs(tmp_path: Path) -> None:
    """Two runs of 10 units: the first took 5 s each, of the second one is done, so 9 are left."""
    whole = plan()
    write_json(
        tmp_path / "seed_0/measured/timings.json", {"space_0": {"units": 10, "seconds": 50.0, "compiling": 20.0}}
    )
    words = running._Words(whole, tmp_path, 1)
    line = words([Phase("space_0", "space 1 of 1", "update", 10)], 0, 1, {"space_0": Spent(1, 5.0, 0.0)})
    assert line == "run 2 of 2 (seed 0, arm random), space 1 of 1; about 45 s of 2 min left in all"
    first = running._Words(whole, tmp_path / "new", 0)
    line = first([Phase("space_0", "space 1 of 1", "update", 10)], 0, 1, {"space_0": Spent(1, 5.0, 20.0)})
    assert line == "run 1 of 2 (seed 0, arm measured), space 1 of 1; about 2 min of 2 min left in all"


def command(workdir: Path, *flags: str) -> list[str]:
    settings = [f"--config={ROOT / 'tests' / 'tiny_config.py'}", "--config.run.tensorboard=False"]
    return [sys.executable, str(ROOT / "scripts" / "study.py"), *settings, f"--workdir={workdir}", *flags]


# One space, so that few programs are compiled and all arms are the same: what a resumed study does with more is above.
SMALL = ("--seeds=1", "--arms=measured,random", "--config.evolution.num_spaces=1")


def test_killed_in_the_middle_a_study_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """kill -9 while the second run trains; the command line, with real trainings. The first run was left alone."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    killed = tmp_path / "killed"
    process = subprocess.Popen(command(killed, *SMALL), env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    while not (killed / "seed_0/random/metrics.jsonl").exists():
        assert process.poll() is None, "the study ended before its second run"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "study.json").exists()
    again = command(killed, *SMALL)
    done = subprocess.run(again, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Report: {killed / 'report' / 'index.html'}" in done.stdout
    alone, resumed = (killed / "seed_0" / arm for arm in ("measured", "random"))
    assert kill_and_compare.differences(resumed, alone) == ["space_0/et_error.json"]  # it has the arm's next space
    errors = [read_json(run / "space_0" / "et_error.json")["sampled_errors"] for run in (alone, resumed)]
    assert errors[0] == errors[1]
    for run in (alone, resumed):
        assert (run / "report" / "index.html").exists()
    assert {path.name for path in (killed / "report").iterdir()} >= {"spaces.csv", "claims.csv", "index.html"}
    assert len(json.loads((killed / "study.json").read_text())["spaces"]) == 2


def test_a_mistake_gets_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """Every other one is in test_study_plan.py."""
    study = command(tmp_path / "study", "--seeds=0")
    done = subprocess.run(study, env={**os.environ, "JAX_PLATFORMS": "cpu"}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "s3_jax: --seeds=0: expected how many seeds, a whole number from 1 to 1000\n"
    assert not (tmp_path / "study").exists()
