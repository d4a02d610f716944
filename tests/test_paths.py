"""Paths and names that users give."""

import io
import os
import sys

import pytest

from s3_jax.errors import S3Error
from s3_jax.paths import print_any_name, printable, user_path


def test_a_home_folder_is_expanded_and_other_paths_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs/a") == tmp_path / "runs" / "a"
    assert user_path("~") == tmp_path
    for path in ("runs/~", "runs/a~", "/runs"):
        assert str(user_path(path)) == path
    with pytest.raises(S3Error, match=r"~nobody_has_this_name/a: .*give the whole path"):
        user_path("~nobody_has_this_name/a")


def test_names_that_are_not_utf8_can_be_written():
    name = os.fsdecode(b"gr\xfcn")
    assert printable(name) == "gr\\xfcn"
    assert printable("café \U0001f600") == "café \U0001f600"
    assert printable("\ud800") == "\\ud800"


@pytest.mark.parametrize(
    ("encoding", "name", "shown"),
    [
        ("utf-8", os.fsdecode(b"gr\xfcn"), "gr\\xfcn"),
        ("ascii", "grün 猫 \U0001f600", "gr\\xfcn \\u732b \\U0001f600"),
    ],
)
def test_standard_output_prints_any_name(encoding, name, shown, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(UnicodeEncodeError):
        print(name, flush=True)
    print_any_name()
    print(name, flush=True)
    assert stream.buffer.getvalue().decode().rstrip().endswith(shown)


def test_other_streams_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    print_any_name()
