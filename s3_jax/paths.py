"""Paths and names as users give them: `~` is their home folder, and any name can be printed and written."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

from s3_jax.errors import S3Error

_ESCAPED = "s3_jax.escaped"


def user_path(text: str | Path) -> Path:
    """The path of a flag or setting, with `~` and `~name` expanded: a shell leaves them alone behind `--flag=`.

    Raises S3Error where there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise S3Error(f"{text}: {error}; give the whole path") from error


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
