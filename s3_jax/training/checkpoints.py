"""Checkpoints of a training: asynchronous, atomic, and bound to the space or architecture they belong to (orbax)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from s3_jax.buckets import BucketPath, told
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath
from s3_jax.training.state import TrainState
from s3_jax.writing import SEAL, checksum_of


class Checkpoints:
    """The checkpoints in one folder. `subject` is the JSON record of the space or architecture that is trained."""

    def __init__(self, folder: AnyPath, subject: dict[str, Any], *, keep: int = 2) -> None:
        self.folder = folder
        self.subject = json.loads(json.dumps(subject))
        # A folder that cannot be made fails at once; in the background, orbax's threads would wait 300 s for it.
        in_background = ocp.options.AsyncOptions(create_directories_asynchronously=False)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, step_prefix="step", async_options=in_background)
        with _disk_errors(folder):
            self._manager = ocp.CheckpointManager(epath.Path(str(folder.absolute())), options=options)

    def latest_step(self) -> int | None:
        """Update count of the newest complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Start to write a checkpoint of the state; it counts only once it is complete.

        Raises S3Error where the disk refuses it, or has refused the one before.
        """
        step = int(state.step)
        if step == self.latest_step():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_as_dict(state)),
            subject=ocp.args.JsonSave(self.subject | {SEAL: _checksum(_as_dict(state))}),
        )
        with _disk_errors(self.folder):
            self._manager.save(step, args=items)

    def restore(self, like: TrainState, layout: TrainState) -> TrainState | None:
        """The newest state, whatever number of devices wrote it; None where there is none.

        like: a state of the same structure and shapes; layout: the sharding of every array of it. Raises S3Error where
        the checkpoint is of another subject.
        """
        step = self.latest_step()
        if step is None:
            return None
        with _damage(self.folder, step):
            checksum = self._check_subject(step)
        target = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            _as_dict(like),
            _as_dict(layout),
        )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        with _damage(self.folder, step):
            restored = self._manager.restore(step, args=args)["state"]
            if checksum is not None and _checksum(restored) not in (None, checksum):
                raise ValueError("its arrays are not those that were written, as their checksum tells")
        return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(_in_order(restored, like)))

    def close(self) -> None:
        """Wait until everything is written. Raises S3Error where the disk refused it."""
        with _disk_errors(self.folder):
            self._manager.wait_until_finished()
            self._manager.close()

    def _check_subject(self, step: int) -> int | None:
        """The checksum of the arrays, where they have one. Raises S3Error where they are of another subject."""
        found = self._manager.restore(step, args=ocp.args.Composite(subject=ocp.args.JsonRestore()))["subject"]
        checksum = found.pop(SEAL, None)
        if found != self.subject:
            raise S3Error(
                f"the checkpoint in {self.folder} is of another space or architecture: it has {json.dumps(found)}, "
                f"this run needs {json.dumps(self.subject)}; give another workdir, or remove that folder"
            )
        return checksum


def _checksum(tree: Any) -> int | None:
    """Of all bytes of all arrays; None where this process has not all of them."""
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
    if not all(leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in leaves.values()):
        return None
    # One at a time on the host, since none of them is kept.
    return checksum_of(
        (name, np.asarray(leaf if leaf.is_fully_addressable else leaf.addressable_data(0)))
        for name, leaf in sorted(leaves.items())
    )


def _as_dict(state: TrainState) -> dict[str, Any]:
    return dict(state._asdict())


def _in_order(restored: dict[str, Any], like: TrainState) -> TrainState:
    return TrainState(*(restored[name] for name in like._fields))


@contextmanager
def _damage(folder: AnyPath, step: int) -> Iterator[None]:
    """What reading a checkpoint raises where it is damaged or of another network, told as S3Error."""
    try:
        yield
    except (S3Error, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:  # orbax and tensorstore raise many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise S3Error(
            f"the checkpoint of update {step} in {folder} cannot be read: {reason[:300]}. Remove its folder, and the "
            "same command goes on from the checkpoint before it, or from the beginning where there is none"
        ) from error


@contextmanager
def _disk_errors(folder: AnyPath) -> Iterator[None]:
    """What the disk or the bucket refuses, told as S3Error."""
    try:
        with told(folder) if isinstance(folder, BucketPath) else nullcontext():
            yield
    except TimeoutError as error:  # an OSError as well, but not of the disk: processes wait for each other's parts
        raise S3Error(
            f"a checkpoint in {folder} was not completed: {error} Another process has probably failed (see its log); "
            "the checkpoints before it are whole: start all processes again with the same command"
        ) from error
    except (OSError, ValueError) as error:
        # The arrays are written by tensorstore, whose errors are ValueErrors with the system's code in the text.
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if not code and not isinstance(error, OSError):
            raise
        reason = os.strerror(int(code[1])) if code else getattr(error, "strerror", None) or error
        raise S3Error(
            f"could not write a checkpoint to {folder}: {reason}; the checkpoints before it are whole; "
            "make room or give the right to write there, and start the same command again"
        ) from error
