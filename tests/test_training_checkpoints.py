"""Checkpoints: bit for bit, bound to their subject, counted only once complete, and clear about a disk that refuses."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from checkpoint_programs import SUBJECT as PROGRAM_SUBJECT
from checkpoint_programs import state_at as program_state_at

from s3_jax.errors import S3Error
from s3_jax.task import Variables
from s3_jax.training import checkpoints
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.devices import make_mesh, replicated, state_layout
from s3_jax.training.state import TrainState, init_state

PROGRAMS = Path(__file__).parent / "checkpoint_programs.py"
SUBJECT = {"stages": [{"depth": (1, 2), "mlp_ratio": [1.0, 2.5]}]}


def state_at(step: int, ema_decay: float = 0.5) -> TrainState:
    """A state of the kinds of arrays there are: nested weights, two moments, counts, averages; all random."""
    draw = np.random.default_rng(step).normal
    params = {"stages": {0: {"kernel": jnp.asarray(draw(size=(3, 4)), jnp.float32)}}, "bias": jnp.asarray(draw(size=2))}
    transformation = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))
    stats = {"mean": jnp.asarray(draw(size=3), jnp.float32)}
    state = init_state(Variables(params, stats), transformation=transformation, ema_decay=ema_decay)
    _, moments = transformation.update(jax.tree.map(jnp.cos, params), state.optimizer, params)
    return state._replace(step=jnp.asarray(step, jnp.int32), optimizer=moments)


def save(folder: Path, *steps: int, subject=SUBJECT, **settings) -> None:
    checkpoints = Checkpoints(folder, subject, **settings)
    for step in steps:
        checkpoints.save(state_at(step))
    checkpoints.close()


def restore(folder: Path, *, subject=SUBJECT, like=None) -> TrainState | None:
    checkpoints = Checkpoints(folder, subject)
    like = jax.eval_shape(lambda: state_at(0)) if like is None else like
    state = checkpoints.restore(like, state_layout(make_mesh(1), like, shard=False))
    checkpoints.close()
    return state


def assert_same(actual: TrainState, expected: TrainState) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for mine, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)


def test_the_newest_of_several_comes_back_bit_for_bit(tmp_path):
    save(tmp_path, 3, 10)
    assert_same(restore(tmp_path), state_at(10))


def test_a_state_without_averages_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path, SUBJECT)
    checkpoints.save(state_at(4, ema_decay=0.0))
    checkpoints.close()
    assert_same(restore(tmp_path, like=state_at(0, ema_decay=0.0)), state_at(4, ema_decay=0.0))


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_what_evaluation_uses_is_read_without_an_optimizer(tmp_path, ema_decay):
    state = state_at(4, ema_decay)._replace(params=jax.tree.map(jnp.sin, state_at(4).params))
    checkpoints = Checkpoints(tmp_path, SUBJECT)
    checkpoints.save(state)
    found = checkpoints.restore_variables(jax.eval_shape(lambda: state.eval_variables), replicated(make_mesh(1)))
    checkpoints.close()
    assert_same(found, state.eval_variables)
    shutil.rmtree(tmp_path / "step_4" / "rest")
    checkpoints = Checkpoints(tmp_path, SUBJECT)
    assert_same(checkpoints.restore_variables(found, replicated(make_mesh(1))), found)
    checkpoints.close()


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_weights_are_read_from_a_checkpoint_of_an_earlier_version(tmp_path, ema_decay):
    """Its state is one item, with the parameters in it; a dozen blocks, whose numbers sort otherwise as text."""
    blocks = {index: {"kernel": jnp.full(3, float(index))} for index in range(12)}
    averages = jax.tree.map(lambda leaf: leaf + 100, blocks) if ema_decay else None
    state = {"step": jnp.asarray(7), "params": blocks, "optimizer": {"count": jnp.asarray(7)}, "ema": averages}
    with ocp.CheckpointManager(tmp_path, options=ocp.CheckpointManagerOptions(step_prefix="step")) as manager:
        items = {"state": ocp.args.StandardSave(state), "subject": ocp.args.JsonSave(SUBJECT | {"crc32": 5})}
        manager.save(7, args=ocp.args.Composite(**items))
    checkpoints = Checkpoints(tmp_path, SUBJECT)
    found = checkpoints.restore_variables(Variables(jax.eval_shape(lambda: blocks), {}), replicated(make_mesh(1)))
    checkpoints.close()
    assert_same(found, Variables(averages or blocks, {}))


def test_nothing_is_restored_from_nothing(tmp_path):
    assert restore(tmp_path / "new") is None


def test_so_many_are_kept_as_wanted(tmp_path):
    save(tmp_path, 1, 2, 3, 4, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_2", "step_3", "step_4"]


def test_the_same_step_is_not_written_twice(tmp_path):
    save(tmp_path, 5)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    save(tmp_path, 5)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_checkpoint_of_another_subject_is_refused_by_folder(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(S3Error, match=rf"the checkpoint in {tmp_path} is of another space or architecture"):
        restore(tmp_path, subject={"stages": []})


def test_what_a_killed_save_left_does_not_count_and_does_not_stand_in_the_way(tmp_path):
    save(tmp_path, 2)
    left = tmp_path / "step_9.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "step_2", left)
    next(path for path in left.rglob("*") if path.is_file()).unlink()
    assert_same(restore(tmp_path), state_at(2))
    save(tmp_path, 9)
    assert_same(restore(tmp_path), state_at(9))


def run_program(name: str, folder: Path) -> str:
    """Its last lines; orbax waits up to 300 s for its threads where a save went wrong, a user should not."""
    done = subprocess.run(
        [sys.executable, str(PROGRAMS), name, str(folder)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.parametrize("name", ["full_disk", "full_disk_between_saves"])
def test_a_full_disk_is_told_and_the_checkpoint_before_is_whole(tmp_path, name):
    told = run_program(name, tmp_path)
    assert f"could not write a checkpoint to {tmp_path}: File too large; the checkpoints before it are whole" in told
    like = jax.eval_shape(lambda: program_state_at(0))
    assert_same(restore(tmp_path, subject=PROGRAM_SUBJECT, like=like), program_state_at(1))


def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path):
    told = run_program("no_folder", tmp_path / "checkpoints")
    assert f"could not write a checkpoint to {tmp_path / 'checkpoints'}: Not a directory" in told
    with pytest.raises(S3Error, match="could not write a checkpoint"):
        Checkpoints(tmp_path / "checkpoints" / "below", SUBJECT)


def test_waiting_in_vain_for_another_process_is_not_the_disks_fault(tmp_path):
    wait = pytest.raises(S3Error, match=r"barrier\. Another process has probably failed")
    with wait, checkpoints._disk_errors(tmp_path):
        raise TimeoutError("Timed out while waiting for a barrier.")
