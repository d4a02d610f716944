"""A run from the command line: complete, resumable at any instant, and clear about what it refuses."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import bucket_server
import kill_and_compare
import pytest
import tiny_config
from rich.console import Console

from s3_jax import classification
from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.classification.dataset import open_data
from s3_jax.classification.inference import accuracy
from s3_jax.classification.task import Classification
from s3_jax.config import config_of
from s3_jax.cost import Evaluated
from s3_jax.errors import S3Error
from s3_jax.networks import zoo
from s3_jax.networks.extract import extract
from s3_jax.space import SearchSpace
from s3_jax.study.alike import opened_beside, searched_spaces
from s3_jax.task import Task
from s3_jax.training.evaluate import error_of_subnets
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import read_json, read_json_lines, write_json

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "tests" / "tiny_config.py"


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {**os.environ, "JAX_PLATFORMS": "cpu"}


def run(workdir: Path, environment: dict[str, str], *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        kill_and_compare.command([f"--config={CONFIG}", *flags], workdir),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, environment) -> Path:
    """A finished run; the names of its programs are in `programs.txt` beside it."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    program = [sys.executable, ROOT / "tests" / "counted_run.py", workdir.parent / "programs.txt"]
    done = subprocess.run(
        [*program, f"--config={CONFIG}", f"--workdir={workdir}"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "Report:" in done.stdout
    assert "best" in done.stdout.lower()
    assert re.search(r"test of inherited weights: 2 of 2.* \d\d?\.\d\d % right", done.stdout)
    return workdir


def test_every_space_takes_four_programs(finished):
    """However many subnets it trains and evaluates: state, key, update, evaluation. Weights are drawn by few others."""
    names = (finished.parent / "programs.txt").read_text().split()
    space = ["jit(init_state)", "jit(<lambda>)", "jit(train_step)", "jit(predict)"]
    assert [name for name in names if name in space] == space * 3  # with the retrained network
    assert 0 < names.count("jit(_draws)") <= 4


def test_a_run_leaves_the_files_of_every_phase(finished):
    result = read_json(finished / "result.json")
    assert [space["name"] for space in result["spaces"]] == ["A", "B"]
    for index, row in enumerate(result["spaces"]):
        record = json.loads((finished / f"space_{index}" / "space.json").read_text())
        assert SearchSpace.from_json(record["space"]).size() == record["size"] == row["size"]
        assert 0 <= row["best"]["test_accuracy_inherited"] <= 100
        measured = json.loads((finished / f"space_{index}" / "et_error.json").read_text())
        assert measured["space"] == row["et_error"]
        assert len(measured["sampled_errors"]) == measured["space"]["num_samples"]
    assert result["spaces"][0]["best"]["test_accuracy"] is None
    assert result["winner"]["test_accuracy"] == result["spaces"][-1]["best"]["test_accuracy"]
    splits = result["dataset"]["splits"]
    assert splits["train"]["images"] + splits["holdout"]["images"] == splits["train"]["of"]
    assert (splits["train"]["split"], splits["holdout"]["split"], splits["test"]["split"]) == ("train", "train", "test")
    phases = {json.loads(line)["phase"] for line in (finished / "metrics.jsonl").read_text().splitlines()}
    assert phases == {"space_0", "space_1", "retrain/best_B"}
    environment = json.loads((finished / "environment.json").read_text())
    assert "jax" in environment["packages"]
    for record in (environment, result):
        assert (record["score_name"], record["error_name"]) == ("accuracy", "top-1 error")
    assert list(finished.glob("events.*"))
    assert (finished / "report" / "index.html").stat().st_size > 10_000


def test_a_finished_run_does_nothing(finished, environment):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("space_*/**/*") if path.is_file()}
    result = (finished / "result.json").stat().st_mtime_ns
    again = run(finished, environment)
    assert again.returncode == 0
    assert "finished" in again.stdout
    assert (finished / "result.json").stat().st_mtime_ns == result
    assert before == {path: path.stat().st_mtime_ns for path in finished.glob("space_*/**/*") if path.is_file()}


def test_networks_can_be_taken_out_of_a_run_of_another_version(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    settings = read_json(copy / "config.json")
    del settings["version"], settings["model"]["every_width"], settings["search"]
    settings["model"]["sliced_largest"] = True
    write_json(copy / "config.json", settings)
    for retrained in (False, True):
        assert extract(copy, retrained=retrained).spec == extract(finished, retrained=retrained).spec


class Nameless(Classification):
    """A task without networks by themselves."""

    spec = Task.spec


def test_networks_of_a_task_of_ones_own_are_taken_out_with_its_data(finished, tmp_path, monkeypatch):
    """A package without `recorded_task`; one whose networks have no specification is told."""
    room, copy = types.ModuleType("room_of_ones_own"), tmp_path / "copy"
    room.Config, room.open_task = classification.Config, classification.open_task
    monkeypatch.setitem(sys.modules, "room_of_ones_own", room)
    shutil.copytree(finished, copy)
    write_json(copy / "config.json", read_json(copy / "config.json") | {"task": "room_of_ones_own"})
    for retrained in (False, True):
        assert extract(copy, retrained=retrained).spec == extract(finished, retrained=retrained).spec
    monkeypatch.setattr(room, "open_task", lambda config: Nameless(**fields_of(classification.open_task(config))))
    with pytest.raises(S3Error, match="Nameless has no networks by themselves: it needs the function spec"):
        extract(copy)


def fields_of(task: Classification) -> dict[str, object]:
    return {field.name: getattr(task, field.name) for field in dataclasses.fields(task) if field.init}


def test_changed_settings_are_refused_by_name(finished, environment):
    refused = run(finished, environment, "--config.train.learning_rate=0.5", "--config.seed=7")
    assert refused.returncode == 2
    assert "config.train.learning_rate: 0.002 there, 0.5 now" in refused.stderr
    assert "config.seed: 0 there, 7 now" in refused.stderr
    assert "Traceback" not in refused.stderr
    allowed = run(finished, environment, "--config.run.log_every=7")
    assert allowed.returncode == 0


def test_killed_at_random_instants_a_run_ends_as_if_it_had_not_been(finished, environment, tmp_path):
    script = [sys.executable, ROOT / "scripts" / "kill_and_compare.py", f"--config={CONFIG}", "--kills=4"]
    folders = [f"--expected={finished}", f"--folder={tmp_path / 'runs'}"]
    done = subprocess.run([*script, *folders], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed after") == 4
    assert "all results and weights equal" in done.stdout


def stop_in_its_first_training(workdir: str, environment: dict[str, str], has_begun: Callable[[], bool]) -> None:
    """Start a run and send it SIGTERM: it says that it has saved, and ends with the signal's exit code."""
    started = kill_and_compare.command([f"--config={CONFIG}"], workdir)
    process = subprocess.Popen(
        started, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    while not has_begun():
        assert process.poll() is None, "the run ended before its first metrics"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "the same command goes on" in output


def test_in_a_bucket_stopped_and_killed_it_is_the_same_run(finished, environment, tmp_path):
    script = [sys.executable, ROOT / "scripts" / "kill_and_compare.py", f"--config={CONFIG}", "--kills=1"]
    folders = [f"--expected={finished}", f"--folder={tmp_path / 'runs'}", "--workdirs=gs://bucket/runs"]
    with bucket_server.serving() as server:
        there, objects = environment | server.environment, server.storage.objects
        first = "runs/killed_0"
        stop_in_its_first_training(
            f"gs://bucket/{first}", there, lambda: f"{first}/metrics.jsonl" in objects.get("bucket", ())
        )
        done = subprocess.run([*script, *folders], env=there, cwd=ROOT, capture_output=True, text=True)
        stored = objects["bucket"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed after") == 1
    assert "all results and weights equal" in done.stdout
    report = {name.rpartition("/")[2] for name in stored if "/report/" in name}
    assert report == {path.name for path in (finished / "report").iterdir()}
    assert not [name for name in stored if name.endswith((".lock", ".writable_0"))]


def test_its_networks_can_be_taken_out(finished):
    """They answer on the test images as the run has measured it, once sliced and once retrained."""
    result = read_json(finished / "result.json")
    best = result["spaces"][-1]["best"]
    settings = {"mean": (0.3, 0.3, 0.3), "std": (0.38, 0.38, 0.38)}
    test = open_data(ClassificationDataConfig(source="digits"), seed=0).splits.test
    for retrained, measured in ((False, best["test_accuracy_inherited"]), (True, best["test_accuracy"])):
        model = extract(finished, retrained=retrained)
        assert model.spec.cost.params == best["params"]
        assert (model.spec.mean, model.spec.std) == tuple(settings.values())
        data = ClassificationDataConfig(source="digits", **settings)
        found = accuracy(model, test, data, class_names=model.spec.class_names, batch_size=359)
        assert found.top1 == pytest.approx(measured, abs=0.3)  # one image of 359 may lie on the edge
    assert f"{best['test_accuracy']:.2f} % on split test" in model.spec.about.accuracy


def test_errors_are_of_images_that_the_supernet_was_not_trained_on(finished):
    """Recorded errors are those of the subnets, taken out and measured on the holdout; on other images they differ."""
    config = ClassificationDataConfig(
        source="digits", holdout_fraction=0.2, mean=(0.3,) * 3, std=(0.38,) * 3, eval_crop=1.0
    )
    data = open_data(config, seed=0)
    recorded = read_json_lines(finished / "space_1" / "evaluated.jsonl", Evaluated.from_json)
    recorded = [recorded[0], recorded[-1]]
    models = [extract(finished, each.architecture) for each in recorded]
    expected = [100 - each.error for each in recorded]
    on = {
        split: [
            accuracy(model, getattr(data.splits, split), config, class_names=data.class_names, batch_size=359).top1
            for model in models
        ]
        for split in ("holdout", "train", "test")
    }
    assert on["holdout"] == pytest.approx(expected, abs=0.4)  # one image of 288 may lie on the edge
    assert on["train"] != pytest.approx(expected, abs=0.4)
    assert on["test"] != pytest.approx(expected, abs=0.4)


def test_a_network_that_is_not_in_the_run_is_refused(finished, tmp_path):
    with pytest.raises(S3Error, match="is not in the space"):
        extract(finished, zoo.architecture("s3_t"))
    with pytest.raises(S3Error, match="only the best architecture of a space is retrained"):
        extract(finished, zoo.architecture("s3_t"), retrained=True)
    (tmp_path / "config.json").write_text((finished / "config.json").read_text())
    (tmp_path / "environment.json").write_text((finished / "environment.json").read_text())
    for name in ("space_0_old", "space_0_1"):  # folders of the user's own
        (tmp_path / name / "search").mkdir(parents=True)
        (tmp_path / name / "search" / "best.json").write_text("{}")
    with pytest.raises(S3Error, match="no search of this run is done"):
        extract(tmp_path)


def test_a_difference_between_runs_is_found(finished, tmp_path):
    """The comparison itself: a changed weight, and a changed line of a record."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    assert kill_and_compare.differences(copy, finished) == []
    record = copy / "space_0" / "evaluated.jsonl"
    record.write_text(record.read_text().replace('"error": ', '"error": 1', 1))
    shutil.rmtree(copy / "retrain/best_B/checkpoints")
    shutil.copytree(finished / "space_1/checkpoints", copy / "retrain/best_B/checkpoints")
    found = kill_and_compare.differences(copy, finished)
    assert found[0] == "space_0/evaluated.jsonl"
    assert any(name.startswith("retrain/best_B/checkpoints") for name in found)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.search.budget.max_params=10"], "the smallest network has"),
        (
            ["--config.data.source=nowhere"],
            "config.data.source = 'nowhere': expected one of digits, tfds, image_folder",
        ),
        (["--config.train.batch_size=0"], "config.train.batch_size = 0: expected a whole number from 1 on"),
        (["--config.space.qkv_dim=((32, 48), (32, 48))"], "not a multiple of the head dimension 32"),
        (["--config.model.patch_size=3"], "cannot be cut into patches"),
        (["--config.train.learning_rat=1"], "config.train has no field 'learning_rat'"),
        (["--config.train.learning_rate=1e30"], "not finite at update"),
        (["--config.run.num_devices=99"], "num_devices"),
        (["--config.run.checkpoint_every=0"], "config.run.checkpoint_every = 0: expected a whole number from 1 on"),
        (["--config.evolution.max_space_size=5.0"], "max_space_size"),
    ],
)
def test_mistakes_get_a_message_and_no_traceback(environment, tmp_path, flags, message):
    done = run(tmp_path / "run", environment, *flags)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    trained = "not finite" in message
    assert trained or not list((tmp_path / "run").glob("*")), "the corrected command could not use the folder"


def test_a_workdir_that_cannot_be_written_is_told(environment, tmp_path):
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "run", environment)
    assert done.returncode == 2
    assert "cannot write to the workdir" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_supernets_of_a_finished_run_are_read_as_they_were(finished, tmp_path):
    """What is compared beside a search goes by the errors that the search has recorded."""
    config = config_of(tiny_config.get_config().to_dict())
    with opened_beside(config, finished, tmp_path / "beside", console=Console(quiet=True), stop=StopRequest()) as run_:
        space = searched_spaces(finished)[1]
        recorded = read_json_lines(space.folder / "evaluated.jsonl", Evaluated.from_json)[:3]
        error = error_of_subnets(run_, space.supernet(run_), run_.task.splits.holdout)
        assert [error(one.architecture) for one in recorded] == [one.error for one in recorded]
