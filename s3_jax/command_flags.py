"""The flags of commands: a mistake in them ends a command as any other mistake does."""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from s3_jax.paths import printable


def parse_flags(arguments: list[str]) -> list[str]:
    """Parse a program's flags, and return what is none: a parser for `app.run`.

    Ends the program with 2, after one paragraph on standard error, for a flag that there is not, and for a value that a
    flag cannot have.
    """
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        program = Path(arguments[0]).stem
        told = " ".join(str(error).split())  # absl's messages have several lines
        print(f"{'s3_jax' if program == 'main' else program}: {printable(told)} (--help lists flags)", file=sys.stderr)
        sys.exit(2)
