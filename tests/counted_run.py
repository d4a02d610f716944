"""`python tests/counted_run.py FILE --config=... --workdir=...`: a run that writes the names of its programs to FILE.

One line for every program, in the order in which they are compiled or taken from the cache of compiled programs.
"""

import sys
from functools import partial
from pathlib import Path

import jax

from s3_jax.main import entry


def note(event: str, _seconds: float, *, file: Path, **about: str) -> None:
    if event.endswith("backend_compile_duration"):
        with file.open("a") as lines:
            lines.write(about["fun_name"] + "\n")


if __name__ == "__main__":
    jax.monitoring.register_event_duration_secs_listener(partial(note, file=Path(sys.argv.pop(1))))
    entry()
