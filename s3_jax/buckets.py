"""Buckets of Google Cloud Storage: `gs://bucket/folder` as a path, which fails in words and keeps no listings.

A bucket has objects and no folders: an object is replaced whole, seen at once by all, and never appended to.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
from etils.epath.gpath import PosixGPath

from s3_jax.errors import S3Error

_ADDRESS = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/.*)?", re.DOTALL)
_SCHEME = re.compile(r"(\w+://|(gs|gcs|s3):)")
# What a request is refused with where the account lacks a right, or there is no account at all.
_NO_RIGHT = re.compile(r"Forbidden|\b40[13]\b|Unauthorized|credentials", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class BucketEntry:
    """What `os.DirEntry` tells: here of an object, or of all below a common name."""

    name: str
    is_folder: bool

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        return self.is_folder

    def is_file(self) -> bool:
        """Whether it is an object."""
        return not self.is_folder

    def is_symlink(self) -> bool:
        """No: a bucket has no links."""
        return False


class BucketPath(PosixGPath):
    """A path in a bucket, for those methods of `pathlib.Path` that this package uses.

    All of them raise S3Error where the bucket cannot be reached or refuses, and those that read FileNotFoundError where
    there is no such object.
    """

    def exists(self) -> bool:
        """Whether there is such an object, or one below it."""
        return bool(self._info())

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        return self._info().get("type") == "directory"

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self._info().get("type") == "file"

    def entries(self) -> list[BucketEntry]:
        """What is directly below it, in no order; one request for each thousand."""
        with refusals_as_s3_errors(self):
            found = filesystem().ls(str(self), detail=True)
        named = ((os.path.basename(each["name"].rstrip("/")), each["type"] == "directory") for each in found)
        return [BucketEntry(name, is_folder) for name, is_folder in named if name]

    def read_bytes(self) -> bytes:
        """The object's content."""
        with refusals_as_s3_errors(self):
            return filesystem().cat_file(str(self))

    def read_text(self, encoding: str | None = "utf-8", errors: str = "strict") -> str:
        """The object's content as text, with any line ends."""
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding, errors).read()

    def write_bytes(self, data: bytes) -> int:
        """Write the object, whole or not at all. Raises S3Error where there is no such bucket, too."""
        try:
            with refusals_as_s3_errors(self):
                filesystem().pipe_file(str(self), data)
        except FileNotFoundError as error:
            raise S3Error(
                f"there is no bucket gs://{self.parts[2]}: look at its spelling, or make it with `gcloud storage "
                f"buckets create gs://{self.parts[2]}`"
            ) from error
        return len(data)

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a bucket has no folders."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            with refusals_as_s3_errors(self):
                filesystem().rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def absolute(self) -> BucketPath:
        """The same: an address is never relative to a folder."""
        return self

    def _info(self) -> dict[str, Any]:
        try:
            with refusals_as_s3_errors(self):
                return filesystem().info(str(self))
        except FileNotFoundError:
            return {}


def is_address(text: str) -> bool:
    """Whether a text is the address of a bucket, or a misspelt one, and no path of a disk."""
    return bool(_SCHEME.match(text))


def bucket_path(text: str) -> BucketPath:
    """The path of an address. Raises S3Error where it is none of this kind, or gcsfs is not installed."""
    if not _ADDRESS.fullmatch(text):
        raise S3Error(
            f"{text} is no path, and not the address of a bucket that can be used: give gs://bucket/folder, where the "
            "bucket's name has 3 to 222 lower-case letters, digits, dashes, underscores and dots; a bucket of another "
            "kind can be mounted and given by its path there"
        )
    if importlib.util.find_spec("gcsfs") is None:
        raise S3Error(f"{text}: buckets need the package gcsfs; install it with: pip install s3_jax[gcs]")
    # Orbax reaches buckets through etils, which would import TensorFlow wherever it is installed.
    os.environ["EPATH_USE_TF"] = "0"
    # Checkpoints are written past gcsfs, by tensorstore: what it remembers of a folder would be old.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    # It logs the traceback of every error that it raises, and that is told here in words.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    return BucketPath(text)


def filesystem() -> Any:
    """gcsfs, of which each process has one; other processes and programs write there too, so no listing is kept."""
    return fsspec.filesystem("gcs", use_listings_cache=False)


@contextmanager
def refusals_as_s3_errors(path: object) -> Iterator[None]:
    """What a bucket refuses, told as S3Error; what is not there stays FileNotFoundError, what is, FileExistsError."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except Exception as error:  # gcsfs, aiohttp and google.auth raise many kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        advice = (
            "look at your connection"
            if not _NO_RIGHT.search(reason)
            else "give your account the role Storage Object User there, or log in as one that has it (gcloud auth "
            "application-default login)"
        )
        raise S3Error(
            f"{path} cannot be reached: {reason}; {advice}, and start the same command again. What was written before "
            "is whole"
        ) from error
