"""One process at a time in a run's folder: a second one would write the same records and checkpoints."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from s3_jax.buckets import BucketPath
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, printable
from s3_jax.training import bucket_lock

NAME = ".lock"
# A process that was killed is gone at once, but the kernel may take a moment to clear it away.
WAIT_SECONDS = 3.0


@contextmanager
def only_run(workdir: AnyPath) -> Iterator[None]:
    """Hold the folder for this run, of whose processes the first one locks it.

    Raises S3Error, naming the holder, where another run has it. The kernel drops the lock when its process ends,
    however it ends, so kill -9 leaves none behind. It relies on POSIX record locks (`fcntl`), which hold on local disks
    and between hosts on NFS; where a file system has none, as most buckets that are mounted, a warning says so.
    `bucket_lock` tells what holds in a bucket that is given by its address.
    """
    release, holder = _take(workdir / NAME) if jax.process_index() == 0 else (None, "")
    if jax.process_count() > 1:
        refused = bool(multihost_utils.broadcast_one_to_all(np.array(bool(holder))))
        holder = holder or ("another process" if refused else "")
    if holder:
        raise S3Error(
            f"{workdir} is in use by {holder}: one run at a time can write there. Wait until it has ended, or stop it; "
            "for a run of its own give another --workdir"
        )
    try:
        yield
    finally:
        if release:
            release()


def _take(path: AnyPath) -> tuple[Callable[[], None] | None, str]:
    """What releases the lock (None where there can be none) and "", or what holds it."""
    if isinstance(path, BucketPath):
        return bucket_lock.take(path)
    lock, holder = _try(path)
    return (partial(_release, path, lock) if lock >= 0 else None), holder


def _release(path: Path, lock: int) -> None:
    path.unlink(missing_ok=True)
    os.close(lock)


def _try(path: Path) -> tuple[int, str]:
    """The open lock file (-1 where there can be none) and "", or what holds it."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        # Not flock: child processes would inherit it, and hold it for as long as they outlive a killed parent.
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:  # told like any refusal, so that the other processes of a run hear of it
            return -1, f"a lock file that cannot be opened ({path}: {error.strerror}; remove it)"
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = os.read(lock, 200).decode(errors="replace").strip() or "another process"
            os.close(lock)
            if time.monotonic() > end:
                return -1, holder
            time.sleep(0.1)
            continue
        except OSError as error:
            os.close(lock)
            logging.warning("%s cannot be locked (%s): start no second run in this folder", path.parent, error.strerror)
            return -1, ""
        if _is_there(path, lock):
            os.ftruncate(lock, 0)
            os.write(lock, printable(f"process {os.getpid()} on {socket.gethostname()}").encode())
            return lock, ""
        os.close(lock)  # its holder ended, and removed it, between our opening and locking it


def _is_there(path: Path, lock: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(lock))
    except FileNotFoundError:
        return False
