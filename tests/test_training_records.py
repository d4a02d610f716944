"""What a run writes down of itself survives a kill, is written whole or not at all, and says where it came from."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from s3_jax.config import RunConfig
from s3_jax.errors import S3Error
from s3_jax.training.records import (
    Metrics,
    append_json_line,
    environment,
    read_json,
    read_json_lines,
    write_json,
)

QUIET = RunConfig(tensorboard=False)


def test_json_lines_are_read_as_written(tmp_path):
    path = tmp_path / "made" / "lines.jsonl"
    assert read_json_lines(path) == []
    for index in range(3):
        append_json_line(path, {"index": index})
    assert read_json_lines(path) == [{"index": 0}, {"index": 1}, {"index": 2}]


@pytest.mark.parametrize("left", ['{"index"', '{"index": 2}', "{"])
def test_a_line_cut_short_is_ignored_and_repaired(tmp_path, left):
    """Even where it happens to be valid JSON: a line counts once its end is written."""
    path = tmp_path / "lines.jsonl"
    for before in ('{"index": 0}\n{"index": 1}\n', ""):
        path.write_text(before + left)
        known = [json.loads(line) for line in before.splitlines()]
        assert read_json_lines(path) == known
        append_json_line(path, {"index": 9})
        assert read_json_lines(path) == [*known, {"index": 9}]
        assert path.read_text().startswith(before + '{"index": 9, "crc32": ')
        assert path.read_text().count("\n") == len(known) + 1


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"value": 1})
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})
    assert read_json(path) == {"value": 1}


def test_a_file_is_replaced_and_never_written_over(tmp_path):
    """Another name of the old file keeps its content: whoever reads while it is written sees the old or the new."""
    path = tmp_path / "record.json"
    write_json(path, {"value": 1})
    (tmp_path / "old.json").hardlink_to(path)
    write_json(path, {"value": 2})
    assert (read_json(path), read_json(tmp_path / "old.json")) == ({"value": 2}, {"value": 1})


def test_a_write_that_dies_half_way_leaves_the_old_file(tmp_path):
    """A file size limit ends the process's write in the middle, as a full disk does."""
    path = tmp_path / "record.json"
    path.write_text("old")
    program = (
        "import resource, signal, sys; from pathlib import Path; from s3_jax.writing import write_whole;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "write_whole(Path(sys.argv[1]), 'x' * 5000)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]
    assert path.read_text() == "old"


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "broken.json").write_text('{"a": ')
    with pytest.raises(S3Error, match=r"broken.json is not a JSON file"):
        read_json(tmp_path / "broken.json")


def test_metrics_after_the_point_of_return_are_forgotten(tmp_path):
    metrics = Metrics(tmp_path, QUIET, active=True)
    for phase in ("space_0", "space_1"):
        for step in (2, 4, 6):
            metrics.write(phase, step, {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "space_1", "st')
    metrics.forget_after("space_1", 4)
    kept = [(record["phase"], record["step"]) for record in read_json_lines(tmp_path / "metrics.jsonl")]
    assert kept == [("space_0", 2), ("space_0", 4), ("space_0", 6), ("space_1", 2), ("space_1", 4)]
    metrics.write("space_1", 6, {"loss": 0.5})
    assert read_json_lines(tmp_path / "metrics.jsonl")[-1] == {"phase": "space_1", "step": 6, "loss": 0.5}


def test_metrics_of_other_processes_are_not_written(tmp_path):
    metrics = Metrics(tmp_path, RunConfig(), active=False)
    metrics.write("space_0", 1, {"loss": 1.0})
    metrics.forget_after("space_0", 0)
    metrics.close()
    assert not list(tmp_path.iterdir())


def test_tensorboard_files_are_written_without_tensorflow(tmp_path):
    program = (
        "import sys; from pathlib import Path; from s3_jax.config import RunConfig;"
        "from s3_jax.training.records import Metrics;"
        "metrics = Metrics(Path(sys.argv[1]), RunConfig(), active=True);"
        "metrics.write('space_0', 1, {'some_loss': 1.0}); metrics.close();"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    (events,) = tmp_path.glob("events.*")
    assert b"space_0/some_loss" in events.read_bytes()


def test_wandb_where_it_is_missing_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(S3Error, match=r"pip install s3_jax\[wandb\]"):
        Metrics(tmp_path, RunConfig(tensorboard=False, wandb_project="project"), active=True)


def test_wandb_gets_every_metric_under_its_phase(tmp_path, monkeypatch):
    """A stand-in for the package, which needs an account: what it is told is what matters."""
    told = []

    class StandIn:
        def init(self, **settings):
            told.append(settings)
            return self

        def log(self, values):
            told.append(values)

        def finish(self):
            told.append("finished")

    monkeypatch.setitem(sys.modules, "wandb", StandIn())
    metrics = Metrics(tmp_path / "run_7", RunConfig(tensorboard=False, wandb_project="project"), active=True)
    metrics.write("space_0", 3, {"loss": 1.5})
    metrics.close()
    assert (told[0]["project"], told[0]["id"], told[0]["resume"]) == ("project", "run_7", "allow")
    assert told[1:] == [{"space_0/loss": 1.5, "space_0/step": 3}, "finished"]


def test_the_environment_has_versions_devices_and_revision():
    record = json.loads(json.dumps(environment()))
    assert record["packages"]["jax"] == jax.__version__
    assert {"s3_jax", "flax", "optax", "orbax-checkpoint", "numpy"} <= set(record["packages"])
    assert record["devices"] == {"platform": "cpu", "kind": "cpu", "count": len(jax.devices())}
    assert record["processes"] == 1
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert record["git_revision"] == (head.stdout.strip() if head.returncode == 0 else None)


def test_a_record_of_which_one_digit_is_another_is_refused(tmp_path) -> None:
    path = tmp_path / "best.json"
    write_json(path, {"error": 12.5})
    path.write_text(path.read_text().replace("12.5", "13.5"))
    with pytest.raises(S3Error, match=r"best\.json is damaged: its content is not what was written"):
        read_json(path)
    content = json.loads(path.read_text())
    del content["crc32"]
    path.write_text(json.dumps(content))
    assert read_json(path) == {"error": 13.5}


def test_a_line_of_which_one_digit_is_another_is_left_out(tmp_path) -> None:
    path = tmp_path / "evaluated.jsonl"
    for error in (1.5, 2.5, 3.5):
        append_json_line(path, {"error": error})
    path.write_text(path.read_text().replace("2.5", "2.4"))
    assert read_json_lines(path) == [{"error": 1.5}, {"error": 3.5}]
