"""Paths, names and texts as users give them: `~` is their home folder, and any name can be printed and written."""

from __future__ import annotations

import codecs
import json
import sys
from pathlib import Path
from typing import Any

from s3_jax.buckets import BucketPath, bucket_path, is_address
from s3_jax.errors import S3Error

AnyPath = Path | BucketPath

_ESCAPED = "s3_jax.escaped"


def any_path(text: str) -> AnyPath:
    """A path on a disk, or in a bucket for an address gs://bucket/folder. Raises S3Error for other addresses."""
    return bucket_path(text) if is_address(text) else Path(text)


def user_path(text: str | AnyPath) -> AnyPath:
    """The path of a flag or setting, with `~` and `~name` expanded: a shell leaves them alone behind `--flag=`.

    Raises S3Error where there is no such home folder, and for an address that is none of a bucket.
    """
    path = any_path(expanded(str(text)))
    if isinstance(path, BucketPath):
        return path  # whether it can be reached shows where it is used
    try:
        path.exists()
    except OSError as error:  # a name that is too long, or a folder above it that may not be entered
        raise S3Error(f"{printable(path)} cannot be looked at: {error.strerror}; give another path") from error
    return path


def expanded(text: str) -> str:
    """The same as text, for settings that may also be empty or an address. Raises S3Error as above."""
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError as error:
        raise S3Error(f"{text}: {error}; give the whole path") from error


def read_text(path: AnyPath) -> str:
    """A text file that a user has written: UTF-8, with or without a byte order mark, any line ends.

    Raises S3Error where it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise S3Error(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise S3Error(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error


def read_user_json(path: AnyPath) -> Any:
    """The content of a JSON file that a user has written. Raises S3Error where it is none."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise S3Error(f"{path} is no JSON file: {error}") from error


def printable(text: object) -> str:
    r"""What can be printed and written as UTF-8: bytes of a file's name that are not UTF-8 become `\xfc`."""
    return str(text).encode("utf-8", _ESCAPED).decode()


def print_any_name() -> None:
    """From now on printing to standard output escapes what its encoding lacks, as standard error does anyway."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # tests and notebooks put something else there
    if reconfigure:
        reconfigure(errors=_ESCAPED)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Python keeps a byte b of a name that is not UTF-8 as the character U+DC00 + b."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    codes = map(ord, error.object[error.start : error.end])
    return "".join(_escaped(code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code) for code in codes), error.end


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


codecs.register_error(_ESCAPED, _escape)
