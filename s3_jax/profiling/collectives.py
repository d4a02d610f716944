"""What the devices of a compiled program send to one another, read from its optimised HLO text."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import NamedTuple

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (.*)$")
_OPERATION = re.compile(rf"^(.*?) ({'|'.join(_KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)[a-z0-9]*\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|body)=%?([\w.-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}|\b(?:true|false)_computation=%?([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Collective(NamedTuple):
    """All operations of one kind that a device executes."""

    kind: str
    executions: int
    bytes: int  # of the results on one device, over all executions


def collectives(hlo: str) -> list[Collective]:
    """The collective operations that one execution of a program performs on every device, by kind.

    hlo: `compiled.as_text()`. A loop counts as often as it turns (once where the text does not tell), a conditional as
    the branch that sends most.
    """
    bodies, entry = _computations(hlo)
    counts, sizes = _walk(entry, bodies, {})
    return [Collective(kind, counts[kind], sizes[kind]) for kind in _KINDS if counts[kind]]


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    """The instructions of each computation by its name, and the name of the one that runs first."""
    bodies: dict[str, list[str]] = {}
    entry = current = ""
    for line in hlo.splitlines():
        if header := _HEADER.match(line):
            current = header[2]
            entry = current if header[1] else entry
            bodies[current] = []
        elif current and (instruction := _INSTRUCTION.match(line)):
            bodies[current].append(instruction[1])
    return bodies, entry


def _walk(
    name: str, bodies: dict[str, list[str]], known: dict[str, tuple[Counter[str], Counter[str]]]
) -> tuple[Counter[str], Counter[str]]:
    """Executions and bytes by kind of one computation, with all that it calls."""
    if name not in known:
        counts, sizes = Counter[str](), Counter[str]()
        for instruction in bodies.get(name, ()):
            if operation := _OPERATION.match(instruction):
                counts[operation[2]] += 1
                sizes[operation[2]] += _result_bytes(*operation.groups())
            turns = int(trips[1]) if (trips := _TRIPS.search(instruction)) else 1
            called = [_walk(inner, bodies, known) for inner in _CALLED.findall(instruction)]
            branches = [part for pair in _BRANCHES.findall(instruction) for part in ",".join(pair).split(",") if part]
            if branches:
                works = [_walk(branch.strip().lstrip("%"), bodies, known) for branch in branches]
                called.append(max(works, key=lambda work: work[1].total()))
            for more, bigger in called:
                counts.update({kind: turns * count for kind, count in more.items()})
                sizes.update({kind: turns * size for kind, size in bigger.items()})
        known[name] = counts, sizes
    return known[name]


def _result_bytes(type_text: str, kind: str, started: str | None) -> int:
    """Bytes of an operation's results; the type of most that are only started names the operands before them."""
    found = _ARRAY.findall(type_text)
    if kind == "collective-permute":  # when started, its type ends with two counters, which are not sent
        found = [each for each in found if each != ("u32", "")]
    arrays = [_bytes(element, dimensions) for element, dimensions in found]
    with_operands = started and kind != "all-reduce" and len(arrays) > 1
    return sum(arrays[len(arrays) // 2 :] if with_operands else arrays)


def _bytes(kind: str, dimensions: str) -> int:
    bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
    return math.prod(int(length) for length in dimensions.split(",") if length) * bits // 8
