"""The classes of masks: their names, their colours, and which value of a mask each of them is."""

from __future__ import annotations

import csv
import dataclasses
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, printable, read_text, user_path

Colour = tuple[int, int, int]  # red, green, blue, each 0..255

# What a class map, uint8, has where pixels do not count.
IGNORED = 255
MAX_CLASSES = 255  # 0..254
_MAX_VALUE = 65535  # of masks of 16 bits
_FORMS = "`name`, `number name`, `name r g b` or `number name r g b`"
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """Lines of a class table, or the classes among them, in order.

    names: of C lines. colours: (r, g, b) of each in masks of colours and in pictures, None where none are given.
    values: what each is in masks of grey or of a palette, None where it follows from the order.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] | None = None
    values: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """What some whole numbers stand for: values of a mask, or colours packed as r * 65536 + g * 256 + b."""

    numbers: np.ndarray  # (K,) int32, sorted
    classes: np.ndarray  # (K,) uint8: class numbers, and IGNORED for what does not count

    def look_up(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The classes, uint8, of numbers of any shape, and which of the numbers, bool, stand for nothing."""
        if numbers.dtype == np.uint8:
            classes, unknown = self.look_up(np.arange(256, dtype=np.int32))
            return classes[numbers], unknown[numbers]
        places = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        return self.classes[places], self.numbers[places] != numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Meaning:
    """What the pixels of masks mean."""

    table: ClassTable  # of the classes alone, with their values
    values: Codes  # of masks of grey or of a palette
    colours: Codes | None  # of masks of colours, where the table has some
    ignored: tuple[int, ...]  # values that do not count, sorted


@dataclasses.dataclass(frozen=True, eq=False)
class OpenedMasks:
    """The splits of a data set whose images have class maps, its own name, and the classes that count."""

    name: str
    table: ClassTable
    splits: Mapping[str, Any]  # each a `data.splits.Source` of images and class maps, with their `size`


def meaning_of(table: ClassTable, *, zero_is_ignored: bool = False, ignored_value: int = 255) -> Meaning:
    """The classes of a table, numbered 0..C-1 by their values in masks, and what masks with them mean.

    Lines without numbers have the values 0, 1, 2, ..., or 1, 2, 3, ... with `zero_is_ignored`. The value
    `ignored_value`, and 0 with `zero_is_ignored`, do not count: a line of such a number is no class, and its colour
    does not count either. Raises S3Error where no class is left, for more than 255, and where a line without a number
    would have an ignored value.
    """
    ignored = {ignored_value, 0} if zero_is_ignored else {ignored_value}
    values = table.values or _values_by_line(table.names, int(zero_is_ignored), ignored)
    order = sorted(range(len(values)), key=lambda line: values[line])
    kept = [line for line in order if values[line] not in ignored]
    if not 0 < len(kept) <= MAX_CLASSES:
        raise S3Error(
            f"the class table has {len(kept):,} classes, not counting ignored values ({_spoken(ignored)}); expected 1 "
            f"to {MAX_CLASSES}"
        )
    class_of = {line: number for number, line in enumerate(kept)}
    classes = [class_of.get(line, IGNORED) for line in range(len(values))]
    by_value = dict(zip(values, classes, strict=True)) | dict.fromkeys(ignored, IGNORED)
    by_colour = dict(zip(map(packed, table.colours), classes, strict=True)) if table.colours else {}
    of_colours = _codes(by_colour) if by_colour else None
    return Meaning(_lines_of(table, values, kept), _codes(by_value), of_colours, tuple(sorted(ignored)))


def packed(colour: Colour) -> int:
    """A colour as one number."""
    red, green, blue = colour
    return (red << 16) + (green << 8) + blue


def read_class_table(path: str | AnyPath) -> ClassTable:
    """The lines of a text file, each `name`, `number name`, `name r g b` or `number name r g b`, all of one form.

    A number is the class's value in masks; see `meaning_of` for lines that are no class. Where a line has a tab, tabs
    part it, else commas do where it has one, else blanks: then a name may be of many words, and ends before a word with
    a `=`, from which on there are remarks. Empty lines, and lines that begin with #, are left out. Raises S3Error for a
    file that cannot be read, has no line, or one of no or another form, or the same name, number or colour twice.
    """
    path = user_path(path)
    if not path.exists():
        told = f"there is no {path}, which is to have a class a line, as {_FORMS}; data.classes may name another file"
        raise S3Error(printable(told))
    numbered = enumerate(read_text(path).split("\n"), start=1)
    texts = [(number, text) for number, text in numbered if text.strip() and not text.lstrip().startswith("#")]
    if not texts:
        raise S3Error(printable(f"{path} names no class; write each on a line, as {_FORMS}"))
    lines = [_parse(text, printable(f"{path}, line {number}")) for number, text in texts]
    for line in lines:
        _check_form(line, lines[0])
    for what in ("name", "number", "colour"):
        _refuse_twice(lines, what)
    numbers = [line.number for line in lines if line.number is not None]
    colours = [line.colour for line in lines if line.colour is not None]
    return ClassTable(
        names=tuple(line.name for line in lines),
        colours=tuple(colours) if colours else None,
        values=tuple(numbers) if numbers else None,
    )


@dataclasses.dataclass(frozen=True)
class _Line:
    place: str  # file and line, for messages
    number: int | None
    name: str
    colour: Colour | None


def _parse(text: str, place: str) -> _Line:
    fields = _fields(text, place)
    number = int(fields.pop(0)) if len(fields) in (2, 5) else None
    name = printable(unicodedata.normalize("NFC", fields[0]))
    if not name or (_whole(name.split()[:2]) and (number is None or len(name.split()) > 1)):
        raise S3Error(f"{place} has no name: {_shown(text)}; expected {_FORMS}")
    if number is not None and not 0 <= number <= _MAX_VALUE:
        raise S3Error(f"{place}: the number {number} is no value of a mask; expected 0 to {_MAX_VALUE}")
    levels = [int(field) for field in fields[1:]]
    if not levels:
        return _Line(place, number, name, None)
    if not all(0 <= level <= 255 for level in levels):
        raise S3Error(f"{place}: the colour {tuple(levels)} of {name!r} is none; expected three numbers of 0 to 255")
    red, green, blue = levels
    return _Line(place, number, name, (red, green, blue))


def _fields(text: str, place: str) -> list[str]:
    """The 1, 2, 4 or 5 fields of a line; of 2 and 5 the first is a whole number, of 4 and 5 the last three are."""
    if "\t" not in text and "," not in text:
        return _fields_of_words(text.split())
    fields = text.split("\t") if "\t" in text else next(csv.reader([text], skipinitialspace=True))
    fields = [field.strip() for field in fields]
    numbers = {1: [], 2: fields[:1], 4: fields[1:], 5: [fields[0], *fields[2:]]}.get(len(fields))
    if numbers is None or not _whole(numbers):
        raise S3Error(f"{place}: {_shown(text)} is no class; expected {_FORMS}, and # before what is no class")
    return fields


def _fields_of_words(words: list[str]) -> list[str]:
    words = words[: next((place for place, word in enumerate(words) if "=" in word), len(words))]
    number = words[:1] if len(words) > 1 and _whole(words[:1]) else []
    colour = words[-3:] if len(words) - len(number) > 3 and _whole(words[-3:]) else []
    return [*number, " ".join(words[len(number) : len(words) - len(colour)]), *colour]


def _whole(words: Sequence[str]) -> bool:
    return all(_WHOLE_NUMBER.fullmatch(word) for word in words)


def _shown(text: str) -> str:
    text = " ".join(printable(text).split())
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def _check_form(line: _Line, first: _Line) -> None:
    for what in ("number", "colour"):
        here, there = (getattr(each, what) is not None for each in (line, first))
        if here != there:
            raise S3Error(
                f"{line.place} has {'a' if here else 'no'} {what}, but the first line of classes has "
                f"{'one' if there else 'none'}: give all lines a {what}, or none"
            )


def _refuse_twice(lines: Sequence[_Line], what: str) -> None:
    seen: dict[object, _Line] = {}
    for line in lines:
        value = getattr(line, what)
        other = seen.setdefault(value, line) if value is not None else line
        if other is not line:
            raise S3Error(f"{line.place} has the {what} {value!r}, as {other.place} has: give each class its own")


def _values_by_line(names: Sequence[str], first: int, ignored: set[int]) -> tuple[int, ...]:
    """The values of lines that have no numbers. Raises S3Error where one is ignored."""
    for value, name in enumerate(names, start=first):
        if value in ignored:
            raise S3Error(
                f"the class table has no numbers, so that {name!r} would have the value {value} in masks, which is "
                "ignored: number the lines, or have another value ignored"
            )
    return tuple(range(first, first + len(names)))


def _lines_of(table: ClassTable, values: Sequence[int], lines: Sequence[int]) -> ClassTable:
    return ClassTable(
        names=tuple(table.names[line] for line in lines),
        colours=tuple(table.colours[line] for line in lines) if table.colours else None,
        values=tuple(values[line] for line in lines),
    )


def _codes(by_number: dict[int, int]) -> Codes:
    numbers = sorted(by_number)
    return Codes(np.array(numbers, np.int32), np.array([by_number[number] for number in numbers], np.uint8))


def _spoken(values: set[int]) -> str:
    return " and ".join(str(value) for value in sorted(values))
