"""A task that the package does not know goes through the whole method, is killed, and comes to the same result."""

import os
import subprocess
import time
from pathlib import Path

import kill_and_compare

from s3_jax.training.records import read_json, read_json_lines

ROOT = Path(__file__).parent.parent
SETTINGS = [
    f"--config={ROOT / 'tests' / 'toy_config.py'}",
    *("--config.train.epochs=10.0", "--config.train.batch_size=16", "--config.run.checkpoint_every=25"),
    *("--config.run.evaluate_every=30", "--config.evolution.num_spaces=1"),
    *("--config.retrain.train.epochs=10.0", "--config.retrain.train.batch_size=16"),
]


def start(workdir: Path) -> subprocess.Popen:
    command = kill_and_compare.command(SETTINGS, workdir)
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT / "tests")}, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_a_task_of_ones_own_is_searched_killed_and_taken_up_again(tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    first = start(alone)
    told, _ = first.communicate(timeout=600)
    assert first.returncode == 0
    assert "Report:" in told
    evaluated = [line for line in read_json_lines(alone / "metrics.jsonl") if "holdout_largest_wrong" in line]
    assert [(line["phase"], line["step"]) for line in evaluated] == [("space_0", 30), ("space_0", 60)]
    assert evaluated[1]["holdout_largest_wrong"] < evaluated[0]["holdout_largest_wrong"]
    assert "retrain/best_A is not evaluated on the way" in told
    result = read_json(alone / "result.json")
    assert (result["score_name"], result["error_name"]) == ("score", "error")
    assert f"Winner: space A, {result['winner']['test_accuracy']:.2f} % test score" in told
    assert "with inherited weights (%)" in (page := (alone / "report" / "index.html").read_text())
    assert not [word for word in ("accurac", "acc.", "op-1") if word in page.replace("test_accuracy", "")]
    assert result["winner"]["test_accuracy"] > 80  # a mean error of colours below 0.2; of a constant it is 0.25
    process = start(killed)
    while not (killed / "space_0" / "evaluated.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    again = start(killed)
    assert again.communicate(timeout=600)
    assert again.returncode == 0
    assert kill_and_compare.differences(killed, alone) == []
