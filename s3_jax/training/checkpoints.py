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

from s3_jax.buckets import BucketPath, refusals_as_s3_errors
from s3_jax.errors import S3Error, first_line
from s3_jax.paths import AnyPath
from s3_jax.task import Variables
from s3_jax.training.state import TrainState
from s3_jax.writing import SEAL, checksum_of

# The items of a checkpoint: see `_items`.
PARAMS, STATS, EMA, REST = "params", "stats", "ema", "rest"
_BEFORE = "state"  # the one item of earlier versions


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
        items = _items(state)
        arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        seals = {name: _checksum(item) for name, item in items.items()}
        arguments["subject"] = ocp.args.JsonSave(self.subject | {SEAL: seals})
        with _disk_errors(self.folder):
            self._manager.save(step, args=ocp.args.Composite(**arguments))

    def restore(self, like: TrainState, layout: TrainState) -> TrainState | None:
        """The newest state, whatever number of devices wrote it; None where there is none.

        like: a state of the same structure and shapes; layout: the sharding of every array of it. Raises S3Error where
        the checkpoint is of another subject.
        """
        step = self.latest_step()
        if step is None:
            return None
        found = self._read(step, _items(like), _items(layout))
        return like._replace(**found.pop(REST), **found)

    def restore_variables(self, like: Variables, sharding: jax.sharding.Sharding) -> Variables | None:
        """What evaluation uses of the newest state, without its optimizer; None where there is none.

        like: variables of the same structure and shapes. Raises S3Error as `restore` does.
        """
        step = self.latest_step()
        if step is None:
            return None
        self._manager.wait_until_finished()  # what is being written now has no folder yet
        if (self.folder / f"step_{step}" / _BEFORE).exists():
            return self._restore_before(step, like)
        averaged = (self.folder / f"step_{step}" / EMA).exists()
        wanted = {EMA if averaged else PARAMS: like.params, STATS: like.stats}
        found = self._read(step, wanted, jax.tree.map(lambda _: sharding, wanted))
        return Variables(found[EMA if averaged else PARAMS], found.get(STATS, {}))

    def _restore_before(self, step: int, like: Variables) -> Variables:
        """The same of a checkpoint of s3_jax before version 2 of config.json, whose state is one item."""
        with _damage(self.folder, step):
            self._check_subject(step)
            arguments = ocp.args.Composite(**{_BEFORE: ocp.args.StandardRestore()})
            state = self._manager.restore(step, args=arguments)[_BEFORE]
            found = {_keys(path): leaf for path, leaf in jax.tree.leaves_with_path(state["ema"] or state["params"])}
            wanted = jax.tree.leaves_with_path(like.params)
            leaves = [jax.numpy.asarray(found[_keys(path)]) for path, _ in wanted]
        return Variables(jax.tree.unflatten(jax.tree.structure(like.params), leaves), {})

    def _read(self, step: int, like: dict[str, Any], layout: dict[str, Any]) -> dict[str, Any]:
        """Items of a checkpoint, in the structure of `like`; those without any array are not written, nor read."""
        with _damage(self.folder, step):
            seals = self._check_subject(step)
        targets = jax.tree.map(lambda x, own: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=own), like, layout)
        targets = {name: item for name, item in targets.items() if jax.tree.leaves(item)}
        arguments = {name: ocp.args.StandardRestore(item) for name, item in targets.items()}
        with _damage(self.folder, step):
            found = self._manager.restore(step, args=ocp.args.Composite(**arguments))
            for name in targets:
                if seals.get(name) is not None and _checksum(found[name]) not in (None, seals[name]):
                    raise ValueError(f"its {name} are not those that were written, as their checksum tells")
        # Into the structure that was asked for: orbax gives named tuples back as dicts.
        return {
            name: jax.tree.unflatten(jax.tree.structure(item), jax.tree.leaves(found[name]))
            for name, item in targets.items()
        }

    def close(self) -> None:
        """Wait until everything is written. Raises S3Error where the disk refused it."""
        with _disk_errors(self.folder):
            self._manager.wait_until_finished()
            self._manager.close()

    def _check_subject(self, step: int) -> dict[str, int | None]:
        """The checksums of the items. Raises S3Error where they are of another subject."""
        found = self._manager.restore(step, args=ocp.args.Composite(subject=ocp.args.JsonRestore()))["subject"]
        seals = found.pop(SEAL, {})
        if found != self.subject:
            raise S3Error(
                f"the checkpoint in {self.folder} is of another space or architecture: it has {json.dumps(found)}, "
                f"this run needs {json.dumps(self.subject)}; give another workdir, or remove that folder"
            )
        return seals


def _items(state: TrainState) -> dict[str, Any]:
    """The parts of a state that are written by themselves, so that weights are read without an optimizer."""
    rest = {"step": state.step, "optimizer": state.optimizer}
    items = {PARAMS: state.params, STATS: state.stats, EMA: state.ema, REST: rest}
    return {name: item for name, item in items.items() if jax.tree.leaves(item)}


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


def _keys(path: Any) -> tuple[str, ...]:
    return tuple(str(key.key) for key in path)


@contextmanager
def _damage(folder: AnyPath, step: int) -> Iterator[None]:
    """What reading a checkpoint raises where it is damaged or of another network, told as S3Error."""
    try:
        yield
    except (S3Error, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise S3Error(
            f"the checkpoint of update {step} in {folder} cannot be read: {first_line(error)[:300]}. Remove its "
            "folder, and the same command goes on from the checkpoint before it, or from the beginning if there is none"
        ) from error


@contextmanager
def _disk_errors(folder: AnyPath) -> Iterator[None]:
    """What the disk or the bucket refuses, told as S3Error."""
    try:
        with refusals_as_s3_errors(folder) if isinstance(folder, BucketPath) else nullcontext():
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
