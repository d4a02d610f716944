"""Files that are written whole or not at all: a reader, or a stop at any instant, meets the old one or the new one."""

from __future__ import annotations

import csv
import io
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from s3_jax.buckets import BucketPath
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, printable


def write_whole(path: AnyPath, content: bytes | str) -> None:
    """Write a file, in a folder that is made where it is missing; of text, what is not UTF-8 is escaped.

    Raises S3Error where the disk or the bucket refuses it.
    """
    data = printable(content).encode() if isinstance(content, str) else content
    if isinstance(path, BucketPath):
        path.write_bytes(data)
        return
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_through(part, data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise S3Error(
            f"cannot write {path}: {error.strerror or error}; make room or give the right to write there, and start "
            "the same command again"
        ) from error


def as_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as the text of a CSV file."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def as_json(record: Any, indent: int | None = None) -> str:
    r"""A record as JSON in ASCII that every reader takes: names that are not UTF-8 are escaped, as `gr\xfcn`."""
    return json.dumps(_printable_strings(record), indent=indent)


# Under this key a record holds the checksum of the rest of it.
SEAL = "crc32"


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON has it, with a checksum, which tells of damage that leaves a record, such as another digit."""
    content = json.loads(json.dumps(record))
    return content | {SEAL: _checksum(content)}


def unsealed(record: Any) -> Any:
    """What `sealed` was given; a record without a checksum as it is. Raises S3Error where the content is another."""
    if not isinstance(record, dict) or SEAL not in record:
        return record
    content = {key: value for key, value in record.items() if key != SEAL}
    if record[SEAL] != _checksum(content):
        raise S3Error(f"its content is not what was written; where you have changed it on purpose, remove its {SEAL!r}")
    return content


def checksum_of(arrays: Iterable[tuple[str, np.ndarray]]) -> int:
    """A checksum of named arrays in their order: of names, types, shapes and bytes."""
    checksum = 0
    for name, array in arrays:
        what = f"{name} {array.dtype} {array.shape}"
        checksum = zlib.crc32(array.tobytes(), zlib.crc32(what.encode(), checksum))
    return checksum


def _checksum(content: Any) -> int:
    return zlib.crc32(json.dumps(content).encode())


def _printable_strings(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_printable_strings(key): _printable_strings(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable_strings(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def _write_through(path: Path, data: bytes) -> None:
    """Write, and wait until the disk has it: a replaced name must not outlive its content."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
