"""Folders of images as they lie about: nested, linked, misnamed, in two Unicode forms."""

import io
import os
import unicodedata
from pathlib import Path

import pytest
from absl import logging
from labelled_batches import eval_batches
from PIL import Image

from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.classification.dataset import open_data, open_split
from s3_jax.data.image_folder import list_image_files, open_image_folder
from s3_jax.data.sources import decode
from s3_jax.errors import S3Error


def write_images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(buffer, "PNG")
        (folder / name).write_bytes(buffer.getvalue())


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: messages.append(message % values))
    return messages


def names_of(root: Path, split: str = "train", **options: bool) -> list[str]:
    images = open_image_folder(str(root), (split,), **options).splits[split]
    return [os.path.relpath(images.name(i), root / split) for i in range(len(images))]


def test_images_below_a_class_at_any_depth_are_its_images(tmp_path: Path, said: list[str]) -> None:
    files = ("cat/1.png", "cat/2021/0.png", "cat/2021/b/2.png", "cat/2022/0.png", "dog/0.png")
    write_images(tmp_path / "train", *files)
    assert names_of(tmp_path) == list(files)
    train = open_image_folder(str(tmp_path), ("train",)).splits["train"]
    assert train.labels.tolist() == [0, 0, 0, 0, 1]
    assert [decode(train[i][0]).getpixel((0, 0))[0] for i in range(5)] == [0, 1, 2, 3, 4]
    assert not said


@pytest.mark.parametrize("suffix", [".jfif", ".avif", ".JPE", ".jp2", ".pnm"])
def test_images_of_rarer_suffixes_are_read(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path / "train", "cat/0.png")
    (tmp_path / "train/cat" / f"1{suffix}").parent.mkdir(exist_ok=True)
    kind = {".avif": "AVIF", ".jp2": "JPEG2000", ".pnm": "PPM"}.get(suffix, "JPEG")
    Image.new("RGB", (8, 8)).save(tmp_path / "train/cat" / f"1{suffix}", kind)
    train = open_image_folder(str(tmp_path), ("train",)).splits["train"]
    assert [decode(train[i][0]).size for i in range(len(train))] == [(8, 8)] * 2


def test_files_that_are_left_out_are_counted_once_by_suffix(tmp_path: Path, said: list[str]) -> None:
    others = ("cat/a.txt", "cat/x/b.TXT", "dog/film.mp4", "dog/README", "cat/.DS_Store", "cat/._0.png")
    write_images(tmp_path / "train", "cat/0.png", "dog/0.png", *others, "loose.png", "labels.csv")
    assert names_of(tmp_path) == ["cat/0.png", "dog/0.png"]
    folder = tmp_path / "train"
    assert said == [
        f"4 files below {folder} are no images by their name: 2 .txt, 1 without a suffix, 1 .mp4",
        f"1 images of {folder} lie in no class folder and are left out",
    ]


def test_a_folder_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "train", "cat/0.png", "cat/000.thumbs.jpg/1.png")
    (tmp_path / "train/cat/empty.jpg").mkdir()
    assert names_of(tmp_path) == ["cat/0.png", "cat/000.thumbs.jpg/1.png"]
    assert list_image_files(str(tmp_path / "train/cat")) == ["0.png", "000.thumbs.jpg/1.png"]


def test_a_pipe_named_like_an_image_is_none(tmp_path: Path, said: list[str]) -> None:
    write_images(tmp_path / "train", "cat/0.png")
    os.mkfifo(tmp_path / "train/cat/1.png")
    assert names_of(tmp_path) == ["cat/0.png"]
    assert "1 files below" in said[0]


def test_dead_links_are_refused_at_the_start_or_counted(tmp_path: Path, said: list[str]) -> None:
    write_images(tmp_path / "train", "cat/0.png", "dog/0.png")
    write_images(tmp_path / "store", "there.png")
    (tmp_path / "train/cat/1.png").symlink_to(tmp_path / "store/there.png")
    assert names_of(tmp_path) == ["cat/0.png", "cat/1.png", "dog/0.png"]
    (tmp_path / "train/cat/2.jpg").symlink_to(tmp_path / "store/gone")  # as DVC and git-annex leave them
    (tmp_path / "train/dog/2021").symlink_to(tmp_path / "store/folder")
    (tmp_path / "train/dog/loop.png").symlink_to("loop.png")
    (tmp_path / "train/eel").symlink_to(tmp_path / "store/eel")  # a whole class
    (tmp_path / "train/dog/notes.txt").symlink_to("nowhere.txt")  # no image, so no harm
    config = ClassificationDataConfig(source="image_folder", path=str(tmp_path))
    with pytest.raises(
        S3Error, match=r"4 links below .*train lead nowhere, the first is eel: fetch .*on_bad_image='skip'"
    ):
        open_split(config, "train")
    skipping = ClassificationDataConfig(source="image_folder", path=str(tmp_path), on_bad_image="skip")
    assert len(open_split(skipping, "train").images) == 3
    assert "4 links below" in said[-2]
    assert "1 .txt" in said[-1]
    assert list_image_files(str(tmp_path / "train/cat")) == ["0.png", "1.png", "2.jpg"]  # whoever reads it, says so


def test_a_link_up_the_tree_is_followed_once(tmp_path: Path) -> None:
    write_images(tmp_path / "train", "cat/a/0.png")
    (tmp_path / "train/cat/a/up").symlink_to(tmp_path / "train/cat")
    assert names_of(tmp_path) == ["cat/a/0.png"]


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "train", "cat/0.png", "cat/secret/0.png")
    scandir = os.scandir

    def refusing(folder: str) -> object:
        if str(folder).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(S3Error, match=r"cat/secret cannot be listed: Permission denied"):
        open_image_folder(str(tmp_path), ("train",))


def test_names_in_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    write_images(tmp_path, f"train/{composed}/0.png", "train/tea/0.png", f"test/{decomposed}/0.png", "test/tea/0.png")
    opened = open_image_folder(str(tmp_path), ("train", "test"))
    assert opened.class_names == (composed, "tea")
    assert opened.splits["test"].labels.tolist() == [0, 1]
    assert decode(opened.splits["test"][0][0]).size == (8, 8)  # read by the name that it has
    write_images(tmp_path, f"train/{decomposed}/0.png")
    with pytest.raises(S3Error, match="differ in their Unicode form alone"):
        open_image_folder(str(tmp_path), ("train",))


def test_odd_names_are_read_as_they_are(tmp_path: Path) -> None:
    write_images(tmp_path / "train", "a\nb/new\nline.png", "lamp [on]/100%s.png", "lamp [on]/ .png")
    (tmp_path / "train" / os.fsdecode(b"gr\xfcn")).mkdir()
    (tmp_path / "train" / os.fsdecode(b"gr\xfcn/\xff.png")).write_bytes(
        (tmp_path / "train/lamp [on]/ .png").read_bytes()
    )
    opened = open_image_folder(str(tmp_path), ("train",))
    train = opened.splits["train"]
    assert opened.class_names == ("a\nb", r"gr\xfcn", "lamp [on]")
    assert [decode(train[i][0]).size for i in range(len(train))] == [(8, 8)] * 4
    assert len(set(train.identities)) == 4


@pytest.mark.parametrize("split", ["file", "train/../file", "nowhere", "train/cat/0.png"])
def test_a_split_that_is_no_folder_is_told(tmp_path: Path, split: str) -> None:
    write_images(tmp_path, "train/cat/0.png", "train/dog/0.png")
    (tmp_path / "file").touch()
    with pytest.raises(S3Error, match=r"no folder .*; .* has train"):
        open_image_folder(str(tmp_path), (split,))


def test_an_empty_file_is_named_as_such(tmp_path: Path) -> None:
    write_images(tmp_path, "train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png")
    (tmp_path / "test/dog/0.png").write_bytes(b"")
    config = ClassificationDataConfig(source="image_folder", path=str(tmp_path))
    test = open_split(config, "test").images
    with pytest.raises(S3Error, match=r"dog/0\.png: not an image: the file is empty; replace it"):
        list(eval_batches(test, data=config, image_size=8, batch_size=2))


def test_one_class_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{split}/cat/{i}.png" for split in ("train", "test") for i in range(4)))
    config = ClassificationDataConfig(source="image_folder", path=str(tmp_path), holdout_fraction=0.5)
    with pytest.raises(S3Error, match="has the one class cat: there is nothing to tell apart"):
        open_data(config, seed=0)
