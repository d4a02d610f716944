"""The same run on one device, on several and in two processes; each case in processes of its own."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from s3_jax.errors import S3Error
from s3_jax.training.devices import check_batch_size, make_mesh, start_processes

ROOT = Path(__file__).parent.parent
NUM_STEPS, SAVE_AT = 5, 2
TIMEOUT = 1200  # seconds


def environment(num_devices: int, **more: str) -> dict[str, str]:
    flags = f"--xla_force_host_platform_device_count={num_devices} {os.environ.get('XLA_FLAGS', '')}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **more}


def train(num_devices: int, folder: Path, save_at: int = SAVE_AT, shard: bool = False) -> dict[str, Any]:
    """What device_programs.py shows on so many of 8 devices; losses are (updates, subnets)."""
    program = [sys.executable, str(ROOT / "tests" / "device_programs.py")]
    arguments = [str(num_devices), str(folder), str(NUM_STEPS), str(save_at), str(int(shard))]
    done = subprocess.run(program + arguments, env=environment(8), capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    return shown | {"losses": np.array(shown["losses"])}


@pytest.fixture(scope="module")
def one_device(tmp_path_factory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("one")
    shown = train(1, folder)
    assert shown["sent"] == {}
    return folder, shown["losses"]


def test_one_device_and_eight_have_the_same_losses(one_device, tmp_path):
    """The eight send each other one gradient an update, and no images or maps: four networks are summed at once."""
    shown = train(8, tmp_path)
    losses = shown["losses"]
    assert losses.shape == (NUM_STEPS, 4)
    assert len(np.unique(losses)) == losses.size
    np.testing.assert_allclose(losses, one_device[1], rtol=1e-5)
    assert shown["sent"].keys() == {"all-reduce"}
    few = 256  # bytes of losses, and of the counts that they are divided by
    assert 4 * shown["gradient"] <= shown["sent"]["all-reduce"] <= 4 * shown["gradient"] + few


def test_a_checkpoint_of_one_device_goes_on_on_four_that_share_the_parameters(one_device):
    """Parameters are gathered once an update, and each device gets the sum of its own part of the gradient."""
    folder, losses = one_device
    shown = train(4, folder, save_at=0, shard=True)
    np.testing.assert_allclose(shown["losses"], losses[SAVE_AT:], rtol=1e-5)
    assert shown["sent"].keys() == {"all-gather", "all-reduce", "reduce-scatter"}
    assert shown["sent"]["all-gather"] <= 4 * shown["gradient"]
    assert shown["sent"]["reduce-scatter"] <= shown["gradient"] < shown["sent"]["all-gather"]
    assert shown["sent"]["all-reduce"] < 0.1 * 4 * shown["gradient"]  # of arrays that four devices cannot divide


STATISTICS = """
import json, sys
import jax, jax.numpy as jnp, numpy as np, optax
from s3_jax.task import Variables
from s3_jax.training.devices import make_mesh, put_batch, state_layout
from s3_jax.training.state import init_state
from s3_jax.training.steps import train_step

def terms(variables, batch, subnet, key):
    x = variables.params["scale"] * batch["x"]
    return {"square": (x**2 @ batch["weight"], batch["weight"].sum())}, {"mean": x.mean()}

mesh, sgd = make_mesh(int(sys.argv[1])), optax.sgd(0.1)
state = init_state(Variables({"scale": jnp.ones(())}, {"mean": jnp.zeros(())}), transformation=sgd, ema_decay=0.0)
settings = {"transformation": sgd, "schedule": lambda step: 0.1, "accumulation_steps": 1, "ema_decay": 0.0}
settings |= {"terms": terms, "layout": state_layout(mesh, state, shard=False)}
step = jax.jit(lambda state, batch: train_step(state, batch, None, jax.random.key(0), **settings))
batch = put_batch(mesh, {"x": np.arange(8.0, dtype=np.float32), "weight": np.float32([1, 1, 1, 0, 0, 0, 0, 1])})
state, metrics = step(state, batch)
print(json.dumps([float(metrics["loss"]), float(state.params["scale"]), float(state.stats["mean"])]))
"""


def test_statistics_are_averaged_and_terms_divided_over_all_devices():
    """Of four devices, which share eight examples, two have none that counts. By hand: (0 + 1 + 4 + 49) / 4 = 13.5."""
    program = [sys.executable, "-c", STATISTICS]
    for count in (1, 4):
        done = subprocess.run(
            [*program, str(count)], env=environment(4), capture_output=True, text=True, timeout=TIMEOUT
        )
        assert done.returncode == 0, done.stderr
        np.testing.assert_allclose(json.loads(done.stdout), [13.5, 1 - 0.1 * 27, 3.5], rtol=1e-6)


def test_more_devices_than_there_are_is_refused():
    there = len(jax.devices())
    with pytest.raises(S3Error, match=rf"config.run.num_devices = {there + 1}, but there are {there} cpu devices"):
        make_mesh(there + 1)
    assert make_mesh().size == there
    assert make_mesh(1).size == 1


@pytest.mark.parametrize("given", [{}, {"JAX_PROCESS_ID": "first"}])
def test_processes_that_are_described_by_halves_are_refused(monkeypatch, given):
    monkeypatch.delenv("JAX_PROCESS_ID", raising=False)
    for name, value in {"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "2", **given}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(S3Error, match="JAX_NUM_PROCESSES and JAX_PROCESS_ID must be whole numbers"):
        start_processes()


@pytest.mark.parametrize(("batch_size", "nearest"), [(0, 3), (1, 3), (7, 6), (8, 9), (-3, 3)])
def test_a_batch_that_cannot_be_divided_is_told_with_the_nearest_that_can(batch_size, nearest):
    mesh = make_mesh(1)
    message = (
        f"train.batch_size = {batch_size} cannot be divided over 1 devices x accumulation_steps = 3; .* is {nearest}$"
    )
    with pytest.raises(S3Error, match=message):
        check_batch_size(mesh, batch_size, 3, "train.batch_size")
    check_batch_size(mesh, nearest, 3, "train.batch_size")


def start(workdir: Path, variables: dict[str, str], *flags: str) -> subprocess.Popen:
    program = [sys.executable, "-m", "s3_jax.main", f"--config={ROOT / 'tests' / 'tiny_config.py'}"]
    # One space, of depths and widths only: each process compiles it for itself.
    space = ["--config.space.mlp_ratio=((1.0,), (1.0,))", "--config.space.qkv_dim=((32,), (32,))"]
    command = [*program, f"--workdir={workdir}", "--config.evolution.num_spaces=1", *space, *flags]
    return subprocess.Popen(command, env=variables, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(processes: list[subprocess.Popen]) -> list[str]:
    """What they print, once all have ended well; where one fails the others would wait for it, and are killed."""
    end = time.monotonic() + TIMEOUT
    try:
        while any(process.poll() is None for process in processes) and time.monotonic() < end:
            if any(process.poll() for process in processes):
                break
            time.sleep(0.2)
    finally:
        for process in processes:
            process.kill()
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return [output for output, _ in outputs]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def losses(workdir: Path) -> list[tuple[str, int, float]]:
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [(record["phase"], record["step"], record["loss"]) for record in records]


def start_pair(workdir: Path) -> list[subprocess.Popen]:
    together = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    variables = [environment(2, **together, JAX_PROCESS_ID=str(index)) for index in range(2)]
    return [start(workdir, each, "--config.run.shard_parameters=True") for each in variables]


def lose_one_process(workdir: Path) -> None:
    """Kill one of two processes once they have trained a little: the other ends within a minute, and says why."""
    first, second = start_pair(workdir)
    end = time.monotonic() + TIMEOUT
    try:
        while not (workdir / "metrics.jsonl").exists() and time.monotonic() < end:
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)
        second.kill()
        _, message = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode != 0
    assert not (workdir / "result.json").exists()
    assert "lost touch with the other processes" in message or "another task died" in message, message


def test_two_processes_do_the_run_of_one(tmp_path):
    """Two processes of two devices each, and one process of four: the method in one space, with equal results.

    The two split the parameters among their devices. They have to be started twice: one of them is killed. Then one
    process of one device restores what the two have trained, and comes to the same result once more.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    finish([start(one, environment(4))])
    lose_one_process(two)
    outputs = finish(start_pair(two))
    assert "Report:" in outputs[0]
    assert "space_0" in outputs[0]
    assert "space_0" not in outputs[1]
    record = json.loads((two / "environment.json").read_text())
    assert (record["processes"], record["devices"]["count"]) == (2, 4)
    for path in one.glob("**/evaluated.jsonl"):
        assert (two / path.relative_to(one)).read_text() == path.read_text()
    result = (two / "result.json").read_text()
    assert result == (one / "result.json").read_text()
    ours, theirs = losses(two), losses(one)
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    np.testing.assert_allclose([row[2] for row in ours], [row[2] for row in theirs], rtol=1e-5)

    for path in (two / "result.json", two / "retrain" / "best_A" / "result.json"):
        path.unlink()
    finish([start(two, environment(1))])
    assert (two / "result.json").read_text() == result
    assert losses(two) == ours  # nothing was trained again
