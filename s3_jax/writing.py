"""Files that are written whole or not at all: a reader, or a stop at any instant, meets the old one or the new one."""

from __future__ import annotations

import os
from pathlib import Path

from s3_jax.errors import S3Error


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file, in a folder that is made where it is missing. Raises S3Error where the disk refuses it."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_through(part, content.encode() if isinstance(content, str) else content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise S3Error(
            f"cannot write {path}: {error.strerror or error}; make room or give the right to write there, and start "
            "the same command again"
        ) from error


def _write_through(path: Path, data: bytes) -> None:
    """Write, and wait until the disk has it: a replaced name must not outlive its content."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
