"""Paths and names that users give."""

import io
import os
import sys

import pytest

from s3_jax.errors import S3Error
from s3_jax.paths import expanded, print_any_name, printable, read_text, read_user_json, user_path


def test_a_home_folder_is_expanded_and_other_paths_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs/a") == tmp_path / "runs" / "a"
    assert user_path("~") == tmp_path
    for path in ("runs/~", "runs/a~", "/runs"):
        assert str(user_path(path)) == path
    assert [expanded(text) for text in ("", "gs://bucket/a", "~/a")] == ["", "gs://bucket/a", f"{tmp_path}/a"]
    for address in ("s3://bucket/a", "gs:/bucket/a", "gs://", "gs://Bucket/a", "gs://b/a", "https://bucket/a"):
        with pytest.raises(S3Error, match=r"is no path, and not the address of a bucket .* give gs://bucket/folder"):
            user_path(address)
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
    """Those of tests and notebooks, which cannot be told how to encode."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    print_any_name()
    print("lamp [on]")
    assert stream.getvalue() == "lamp [on]\n"


def test_texts_may_have_a_byte_order_mark_and_any_line_ends(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xef\xbb\xbfblue\r\nred\r\n")
    assert read_text(path) == "blue\nred\n"
    path.write_bytes(b"\xef\xbb\xbf[1]\r\n")
    assert read_user_json(path) == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("blue".encode("utf-16"), r"names.txt is not UTF-8 text \(invalid start byte at byte 0\); save it as UTF-8"),
        (b"{", "names.txt is no JSON file"),
        (b"[" * 100_000, "names.txt is no JSON file"),
        (b"", "names.txt is no JSON file"),
    ],
)
def test_what_is_no_text_or_no_json_is_told(content, message, tmp_path):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(S3Error, match=message):
        read_user_json(tmp_path / "names.txt")
    with pytest.raises(S3Error, match="cannot be read: Is a directory"):
        read_text(tmp_path)


def test_a_path_that_cannot_be_looked_at_is_told():
    with pytest.raises(S3Error, match="cannot be looked at: File name too long"):
        user_path("a" * 300)
