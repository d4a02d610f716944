"""What subprocesses of test_training_checkpoints.py run: `python tests/checkpoint_programs.py NAME FOLDER`."""

import resource
import shutil
import signal
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax

from s3_jax.errors import S3Error
from s3_jax.task import Variables
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.state import TrainState, init_state

SUBJECT = {"stages": [1]}
LIMIT = 30_000  # bytes: room for the small files of a checkpoint, not for its 80,000 bytes of weights


def state_at(step: int) -> TrainState:
    params = {"kernel": jnp.asarray(np.random.default_rng(step).normal(size=20_000), jnp.float32)}
    return init_state(Variables(params, {}), transformation=optax.sgd(0.1), ema_decay=0.0)._replace(
        step=jnp.asarray(step, jnp.int32)
    )


def full_disk(folder: Path) -> None:
    """The second checkpoint does not fit; that is met in a thread of the writer, after `save` has returned."""
    checkpoints = Checkpoints(folder, SUBJECT)
    checkpoints.save(state_at(1))
    checkpoints._manager.wait_until_finished()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    checkpoints.save(state_at(2))
    checkpoints.close()


def full_disk_between_saves(folder: Path) -> None:
    """As `full_disk`, but it is the next save that hears of it."""
    checkpoints = Checkpoints(folder, SUBJECT)
    checkpoints.save(state_at(1))
    checkpoints._manager.wait_until_finished()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    for step in (2, 3):
        checkpoints.save(state_at(step))


def no_folder(folder: Path) -> None:
    """The folder of the checkpoints is gone and cannot be made."""
    checkpoints = Checkpoints(folder, SUBJECT)
    shutil.rmtree(folder)
    folder.write_text("")
    checkpoints.save(state_at(1))
    checkpoints.close()


if __name__ == "__main__":
    try:
        {"full_disk": full_disk, "full_disk_between_saves": full_disk_between_saves, "no_folder": no_folder}[
            sys.argv[1]
        ](Path(sys.argv[2]))
    except S3Error as error:
        print(error)
