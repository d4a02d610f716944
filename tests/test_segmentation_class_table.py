"""Class tables: lines of every form, what is refused in them, and which class each value and colour is."""

import re
from pathlib import Path

import numpy as np
import pytest

from s3_jax.data.pictures import default_colours
from s3_jax.errors import S3Error
from s3_jax.segmentation.class_table import (
    IGNORED,
    ClassTable,
    meaning_of,
    packed,
    read_class_table,
)


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "classes.txt"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "names", "values", "colours"),
    [
        ("sky\nred car\n", ("sky", "red car"), None, None),
        ("0 sky\n7 red car\n", ("sky", "red car"), (0, 7), None),
        ("sky 1 2 3\nred car 0 0 255\n", ("sky", "red car"), None, ((1, 2, 3), (0, 0, 255))),
        ("0 sky 1 2 3\n7 red car 0 0 255", ("sky", "red car"), (0, 7), ((1, 2, 3), (0, 0, 255))),
        ("0\tsky, blue\t1\t2\t3\n7\tred car\t0\t0\t255", ("sky, blue", "red car"), (0, 7), ((1, 2, 3), (0, 0, 255))),
        ("sky,1,2,3\nred car, 0, 0, 255", ("sky", "red car"), None, ((1, 2, 3), (0, 0, 255))),
        ('0,sky\n7, "red, car"', ("sky", "red, car"), (0, 7), None),
        ("1 hot dog bun\n2 a\n", ("hot dog bun", "a"), (1, 2), None),  # four words, and no colour
        ("0 0\n1 1\n", ("0", "1"), (0, 1), None),  # digits
        ("1 traffic light coco_panoptic_id=10 thing\n2 road 1=2", ("traffic light", "road"), (1, 2), None),
        ("1 road 9 9 9 id=3\n", ("road",), (1,), ((9, 9, 9),)),
        ("# of ours\n\n  \n 5 sky \r\n  # more\r\n6 a#b\r\n", ("sky", "a#b"), (5, 6), None),
        ("\ufeff0 sk\u00fd\n1 cafe\u0301", ("ský", "café"), (0, 1), None),
    ],
)
def test_lines_of_every_form(tmp_path: Path, text: str, names: tuple, values: tuple, colours: tuple) -> None:
    assert read_class_table(str(written(tmp_path, text))) == ClassTable(names, colours, values)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "classes.txt names no class; write each on a line, as `name`"),
        ("# sky\n\n", "classes.txt names no class"),
        ("0 sky\n1 car\n\n3 sky", "classes.txt, line 4 has the name 'sky', as .*classes.txt, line 1 has"),
        ("3 sky\n3 car", "classes.txt, line 2 has the number 3, as .* line 1 has"),
        ("a 1 2 3\nb 3 2 1\nc 1 2 3", r"line 3 has the colour \(1, 2, 3\), as .* line 1 has"),
        ("a 1 2 256", r"line 1: the colour \(1, 2, 256\) of 'a' is none; expected three numbers of 0 to 255"),
        ("a,1,-2,3", r"line 1: the colour \(1, -2, 3\) of 'a' is none"),
        ("a 1 2 3\nb\n", "line 2 has no colour, but the first line of classes has one: give all lines a colour"),
        ("a\n\nb 1 2 3", "line 3 has a colour, but the first line of classes has none"),
        ("0 a\nb", "line 2 has no number, but the first"),
        ("a\n5 b", "line 2 has a number, but the first"),
        ("-1 plate", "line 1: the number -1 is no value of a mask; expected 0 to 65535"),
        ("65536 sky", "line 1: the number 65536 is no value"),
        ("a\n7", "line 2 has no name: '7'; expected `name`, `number name`"),
        ("7 10 20 30", "line 1 has no name: '7 10 20 30'"),
        ("64 128 64 Animal", "line 1 has no name"),  # another program's order
        ("0,", "line 1 has no name: '0,'"),
        ("1 id=3 thing", "line 1 has no name"),
        ("name,r,g,b\nsky,1,2,3", "line 1: 'name,r,g,b' is no class; expected .*, and # before what is no class"),
        ("0\tsky\tblue", "line 1: '0 sky blue' is no class"),
        ("sky\tblue", "line 1: 'sky blue' is no class"),
        ("1," + "x" * 100 + ",2", "'1,x{78}...' is no class"),
    ],
)
def test_what_is_refused_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(S3Error, match=told):
        read_class_table(written(tmp_path, text))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(S3Error, match=r"there is no .*nowhere\.txt, which is to have a class a line"):
        read_class_table(str(tmp_path / "nowhere.txt"))
    with pytest.raises(S3Error, match="cannot be read: Is a directory"):
        read_class_table(tmp_path)
    with pytest.raises(S3Error, match="is not UTF-8 text"):
        read_class_table(written(tmp_path, "ský", "latin-1"))


def classes_of(table: ClassTable, values: list[int], **settings: object) -> list[int | None]:
    found, unknown = meaning_of(table, **settings).values.look_up(np.array(values, np.int32))
    return [None if none else int(number) for number, none in zip(found, unknown, strict=True)]


def test_values_follow_from_the_order_of_lines() -> None:
    table = ClassTable(("sky", "road", "car"))
    assert meaning_of(table).table.values == (0, 1, 2)
    assert classes_of(table, [0, 1, 2, 3, 254, 255, 256, -1]) == [0, 1, 2, None, None, IGNORED, None, None]
    assert classes_of(table, [0, 2, 254, 255], ignored_value=254) == [0, 2, IGNORED, None]


def test_a_zero_that_is_ignored_moves_all_others_down() -> None:
    table = ClassTable(("sky", "road", "car"))
    assert meaning_of(table, zero_is_ignored=True).table.values == (1, 2, 3)
    assert classes_of(table, [0, 1, 2, 3, 4, 255], zero_is_ignored=True) == [IGNORED, 0, 1, 2, None, IGNORED]


def test_a_line_of_an_ignored_number_is_no_class() -> None:
    table = ClassTable(
        ("void", "road", "nothing", "sky"), ((9, 9, 9), (1, 0, 0), (0, 0, 0), (0, 0, 1)), (255, 2, 0, 300)
    )
    counted = meaning_of(table)  # numbered by their values, whatever the order of lines
    assert counted.table == ClassTable(("nothing", "road", "sky"), ((0, 0, 0), (1, 0, 0), (0, 0, 1)), (0, 2, 300))
    assert classes_of(table, [0, 2, 300, 255, 1]) == [0, 1, 2, IGNORED, None]
    without_zero = meaning_of(table, zero_is_ignored=True)
    assert without_zero.table.names == ("road", "sky")
    assert classes_of(table, [0, 2, 300, 255], zero_is_ignored=True) == [IGNORED, 0, 1, IGNORED]
    assert without_zero.colours is not None
    codes = np.array([packed(colour) for colour in ((9, 9, 9), (1, 0, 0), (0, 0, 0), (0, 0, 1), (0, 1, 0))], np.int32)
    classes, unknown = without_zero.colours.look_up(codes)
    assert classes[:4].tolist() == [IGNORED, 0, IGNORED, 1]
    assert unknown.tolist() == [False] * 4 + [True]


def test_bytes_and_wider_numbers_are_looked_up_alike() -> None:
    codes = meaning_of(ClassTable(("a", "b", "c"), None, (3, 40, 200))).values
    numbers = np.arange(256).reshape(16, 16)
    for of_bytes, of_numbers in zip(codes.look_up(numbers.astype(np.uint8)), codes.look_up(numbers), strict=True):
        np.testing.assert_array_equal(of_bytes, of_numbers)
        assert of_bytes.dtype == of_numbers.dtype


def test_classes_that_do_not_fit_are_refused() -> None:
    names = tuple(map(str, range(256)))
    assert len(meaning_of(ClassTable(names[:255])).table.names) == 255
    assert len(meaning_of(ClassTable(names, None, tuple(range(256)))).table.names) == 255  # one of them is ignored
    with pytest.raises(S3Error, match=r"the class table has 256 classes, not counting ignored values .* 1 to 255"):
        meaning_of(ClassTable(names, None, tuple(range(1000, 1256))))
    with pytest.raises(S3Error, match="has no numbers, so that '255' would have the value 255 in masks, which is ign"):
        meaning_of(ClassTable(names))
    with pytest.raises(S3Error, match="'254' would have the value 255"):
        meaning_of(ClassTable(names[:255]), zero_is_ignored=True)
    with pytest.raises(S3Error, match="'0' would have the value 0"):
        meaning_of(ClassTable(names[:2]), ignored_value=0)
    with pytest.raises(S3Error, match=re.escape("has 0 classes, not counting ignored values (0 and 255)")):
        meaning_of(ClassTable(("a", "b"), None, (0, 255)), zero_is_ignored=True)


def test_default_colours_are_far_apart_and_keep() -> None:
    colours = default_colours(255)
    assert colours.shape == (255, 3)
    assert colours.dtype == np.uint8
    np.testing.assert_array_equal(default_colours(20), colours[:20])
    apart = np.abs(colours[:, None].astype(int) - colours).sum(-1) + 999 * np.eye(255, dtype=int)
    assert apart.min() >= 30
    assert apart[:20, :20].min() >= 100
    assert colours.max(1).min() > 0  # none is black
    assert default_colours(0).shape == (0, 3)
