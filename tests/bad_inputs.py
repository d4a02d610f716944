"""Bad inputs, made from a seed, and a judgement of what becomes of each.

An input is refused (S3Error, in one paragraph), or it does no harm: the result is the right one. What else happens is a
fault: another exception, or another result. Some altered inputs are as good as the original: a weight that is another
finite number, a pixel, a word in a name. Nothing but a checksum tells them, which all has that this
package writes, and what a user brings has not; they are counted apart, as `other`.
"""

from __future__ import annotations

import dataclasses
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from s3_jax.errors import S3Error

SAME, OTHER = "same", "other"
REFUSED: tuple[type[Exception], ...] = (S3Error,)
AS_MAIN = (S3Error, OSError)  # what a run ends with in one paragraph
LONGEST_MESSAGE = 2500  # characters


@dataclasses.dataclass
class Tally:
    """What became of the inputs of one kind."""

    kind: str
    refused: int = 0
    unharmed: int = 0
    other: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)

    @property
    def inputs(self) -> int:
        """How many there were."""
        return self.refused + self.unharmed + self.other + len(self.faults)

    def judge(
        self,
        name: str,
        act: Callable[[], Any],
        compare: Callable[[Any], str],
        refused: tuple[type[Exception], ...] = REFUSED,
        names: str | tuple[str, ...] = "",
    ) -> None:
        """Do `act` on an input and count what becomes of it.

        compare: SAME or OTHER of a result, or in words what is wrong with it. refused: what a command ends with in one
        paragraph. names: what the message of a refusal must name, or one of several such.
        """
        try:
            found = compare(act())
        except refused as error:
            complaint = _complaint(str(error), names)
            self.refused += not complaint
            self.faults += [f"{name}: {complaint}: {str(error)[:300]!r}"] if complaint else []
        except Exception as error:
            self.faults.append(f"{name}: {_traced(error)}")
        else:
            self.unharmed += found == SAME
            self.other += found == OTHER
            self.faults += [] if found in (SAME, OTHER) else [f"{name}: {found}"]

    def check(self) -> None:
        """Print the row of the table; raises AssertionError where there is a fault, with all of them."""
        header = f"{'kind':40} inputs refused unharmed other faults"
        row = f"{self.kind:40} {self.inputs:6} {self.refused:7} {self.unharmed:8} {self.other:5} {len(self.faults):6}"
        print(f"\n{header}\n{row}")
        assert not self.faults, f"{len(self.faults)} of {self.inputs} {self.kind}:\n" + "\n".join(self.faults)


def _complaint(message: str, names: str | tuple[str, ...]) -> str:
    """What is wrong with the message of a refusal, "" where nothing is."""
    if not message.strip() or "Traceback" in message or "\n\n" in message or len(message) > LONGEST_MESSAGE:
        return "its message is not a paragraph"
    if " object at 0x" in message:
        return "its message has an object's address"
    wanted = (names,) if isinstance(names, str) else names
    return "" if any(name in message for name in wanted) else f"its message does not name {' or '.join(wanted)}"


def _traced(error: Exception) -> str:
    """The exception, and the deepest line of the package on its way."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "s3_jax" in Path(frame.filename).parts]
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}: {' '.join(str(error).split())[:160]}"


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """The beginning of a file, as a full disk or a broken download leaves it."""
    return data[: int(rng.integers(len(data)))]


def altered(data: bytes, rng: np.random.Generator, start: int = 0, stop: int | None = None) -> bytes:
    """A file of which up to 8 bytes from `start` on and before `stop` are others."""
    out = bytearray(data)
    for place in rng.integers(start, len(data) if stop is None else stop, size=int(rng.choice([1, 2, 8]))):
        out[place] ^= int(rng.integers(1, 256))
    return bytes(out)


def zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    """A file with a run of zeros in it, as a crash of the machine leaves it."""
    start, stop = sorted(map(int, rng.integers(len(data) + 1, size=2)))
    return data[:start] + bytes(stop - start) + data[stop:]


def emptied(data: bytes, rng: np.random.Generator) -> bytes:
    """A file of no bytes."""
    return b""


def with_other_digit(data: bytes, rng: np.random.Generator) -> bytes:
    """A record of which one digit is another: still a record."""
    digits = [place for place, byte in enumerate(data) if chr(byte).isdigit() and chr(byte).isascii()]
    if not digits:
        return data
    place = digits[int(rng.integers(len(digits)))]
    digit = (data[place] - ord("0") + int(rng.integers(1, 10))) % 10
    return data[:place] + str(digit).encode() + data[place + 1 :]


DAMAGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (cut, altered, zeroed, emptied)


def of_another_type(record: Any, rng: np.random.Generator) -> tuple[str, Any]:
    """A record with one of its values removed or replaced by one of a type it never has, and which."""
    paths = [path for path in _paths(record) if path]
    path = paths[int(rng.integers(len(paths)))]
    copy = json.loads(json.dumps(record))
    parent = copy
    for step in path[:-1]:
        parent = parent[step]
    old = parent[path[-1]]
    values = [v for v in ("removed", None, "x", [], {}, -1.5, True) if type(v) is not type(old)]
    value = values[int(rng.integers(len(values)))]
    if value == "removed" and isinstance(parent, dict):
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return f"{'.'.join(map(str, path))} = {value!r}", copy


def _paths(record: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    return [path, *(deeper for key, value in items for deeper in _paths(value, (*path, key)))]


def is_another_value(damaged: bytes, whole: bytes) -> bool:
    """Whether a damaged record is still one of the same fields, of which words or numbers are others."""
    try:
        lines = [[_outline(json.loads(line)) for line in _documents(data)] for data in (damaged, whole)]
    except ValueError:
        return False
    return damaged != whole and lines[0] == lines[1]


def _documents(data: bytes) -> list[str]:
    """The JSON documents of a file: the file itself, or its lines."""
    text = data.decode()
    return text.splitlines() if text.startswith('{"') else [text]


def _outline(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _outline(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_outline(item) for item in value]
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
