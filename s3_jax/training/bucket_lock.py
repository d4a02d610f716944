"""One run at a time in a bucket's folder: a lock object that its holder keeps writing anew.

A bucket knows no lock that ends with its process. Here whoever finds the lock object unchanged for `STALE_SECONDS`
takes it over, and so does at once the machine on which its process is gone: a run that was killed goes on there
without a wait, and elsewhere after a minute. Taking and renewing are conditional on the object's generation, so of
two that try one succeeds. What this cannot promise: a holder that stands still for longer than that (a suspended
machine, a lost connection) may wake up to another holder; it ends itself as soon as it next renews, and what it
writes until then may mix with the other's.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from absl import logging

from s3_jax.buckets import BucketPath, filesystem, refusals_as_s3_errors
from s3_jax.errors import S3Error
from s3_jax.writing import as_json

RENEW_SECONDS, STALE_SECONDS, LOOK_SECONDS = 15.0, 60.0, 3.0
_MISSING = "0"  # the generation of an object that is not there
_EXIT_LOST = 1


def take(path: BucketPath) -> tuple[Callable[[], None] | None, str]:
    """What releases the lock and "", or None and who holds it. Raises S3Error where the bucket refuses."""
    generation, found = _read(path)
    free = generation if not found or _is_gone(found) else _once_stale(path, generation)
    if free is None:
        return None, f"process {found.get('process')} on {found.get('host')}"
    ours = _Lock(path)
    return (ours.release, "") if ours.write(free) else (None, "another process")


class _Lock:
    """The lock object while this process holds it."""

    def __init__(self, path: BucketPath) -> None:
        self._path, self._token, self._generation = path, uuid.uuid4().hex, _MISSING
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="bucket_lock", daemon=True)

    def write(self, generation: str) -> bool:
        """Take the lock where its object still has this generation. Returns whether it is ours now."""
        if not self._write_over(generation):
            return False
        self._thread.start()
        return True

    def release(self) -> None:
        """Remove the lock object, if it is still ours."""
        self._released.set()
        self._thread.join()
        fs = filesystem()
        bucket, key, _ = fs.split_path(str(self._path))
        try:
            with refusals_as_s3_errors(self._path):
                fs.call("DELETE", "b/{}/o/{}", bucket, key, ifGenerationMatch=self._generation)
        except (FileNotFoundError, FileExistsError):  # another has it: `_renew` would have found out
            return

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            try:
                kept = self._write_over(self._generation)
            except S3Error as error:  # the run itself will say so, unless it passes
                logging.warning("%s", error)
                continue
            if not kept:
                print(
                    f"s3_jax: another process has taken over {self._path.parent}, since this one did not renew its "
                    "lock in time; this one ends, so that they do not mix",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(_EXIT_LOST)

    def _write_over(self, generation: str) -> bool:
        record = {"process": os.getpid(), "host": socket.gethostname(), "machine": uuid.getnode(), "token": self._token}
        fs = filesystem()
        bucket, key, _ = fs.split_path(str(self._path))
        address = fs.base.replace("/storage/v1/", "/upload/storage/v1/") + f"b/{quote(bucket)}/o"
        about = {"uploadType": "media", "name": key, "ifGenerationMatch": generation}
        try:
            with refusals_as_s3_errors(self._path):
                done = fs.call("POST", address, **about, data=as_json(record).encode(), json_out=True)
            self._generation = str(done["generation"])
        except FileExistsError:  # it has another generation, be it that an answer to ourselves was lost on the way
            now, found = _read(self._path)
            if found.get("token") != self._token:
                return False
            self._generation = now
        return True


def _read(path: BucketPath) -> tuple[str, Mapping[str, Any]]:
    """The generation and the record of a lock object; no record where there is none, or it is damaged."""
    try:
        with refusals_as_s3_errors(path):
            generation = str(filesystem().info(str(path))["generation"])
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return _MISSING, {}
    except ValueError:
        return generation, {}
    return generation, found if isinstance(found, Mapping) else {}


def _is_gone(found: Mapping[str, Any]) -> bool:
    """Whether it was of a process of this machine that has ended."""
    if (found.get("host"), found.get("machine")) != (socket.gethostname(), uuid.getnode()):
        return False
    try:
        os.kill(int(found["process"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, KeyError, TypeError, ValueError, OverflowError):
        return False
    return False


def _once_stale(path: BucketPath, generation: str) -> str | None:
    """The generation to take over once its holder gave no sign for long enough, or released it; None where it did."""
    logging.warning("%s: there is a lock; waiting for up to %g s for a sign of its holder", path.parent, STALE_SECONDS)
    end = time.monotonic() + STALE_SECONDS
    while time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
        now, _ = _read(path)
        if now != generation:
            return now if now == _MISSING else None
    return generation
