"""Folders of images with masks: pairs at any depth, what is refused when they are opened, and when they are read."""

import os
import pickle
import unicodedata
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pytest
from absl import logging
from PIL import Image

from s3_jax.data.sources import BadImage, decode
from s3_jax.data.splits import Subset
from s3_jax.data.stream import Batch, Example, Examples, eval_batches
from s3_jax.errors import S3Error
from s3_jax.segmentation.class_table import IGNORED, ClassTable, OpenedMasks, read_class_table
from s3_jax.segmentation.folders import MaskFolder, open_mask_folder

SEG_MINI = Path(__file__).parents[2] / "shared/data/seg_mini"
TABLE = ClassTable(("sky", "road", "car"))
needs_seg_mini = pytest.mark.skipif(not SEG_MINI.is_dir(), reason="the example data seg_mini is not here")


def write(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_pair(root: Path, stem: str, value: int = 0, split: str = "train", size: tuple[int, int] = (6, 4)) -> None:
    write(root / "images" / split / f"{stem}.jpg", Image.new("RGB", size, (200, 0, 0)))
    write(root / "annotations" / split / f"{stem}.png", Image.new("L", size, value))


def opened(root: Path, *splits: str, **settings: object) -> OpenedMasks:
    return open_mask_folder(str(root), splits or ("train",), **{"table": TABLE, **settings})


def train_of(root: Path, **settings: object) -> MaskFolder:
    return opened(root, **settings).splits["train"]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: messages.append(message % values))
    return messages


def test_pairs_at_any_depth(tmp_path: Path, said: list[str]) -> None:
    for number, stem in enumerate(("b", "a/x", "a/deep/b")):
        write_pair(tmp_path, stem, number)
    write(tmp_path / "images/train/c.one.JPEG", Image.new("RGB", (8, 2)))
    write(tmp_path / "annotations/train/c.one.tif", Image.fromarray(np.tile(np.uint8([1, 2, 255, 0]), (2, 2))))
    write_pair(tmp_path, "other", split="val")
    both = opened(tmp_path, "train", "val")
    train = both.splits["train"]
    assert (both.name, both.table.names, both.table.values) == (tmp_path.name, TABLE.names, (0, 1, 2))
    assert (len(train), len(both.splits["val"])) == (4, 1)
    names = [os.path.relpath(train.name(index), tmp_path / "images/train") for index in range(4)]
    assert names == ["b.jpg", "c.one.JPEG", "a/x.jpg", "a/deep/b.jpg"]
    assert [int(train[index][1][0, 0]) for index in range(4)] == [0, 1, 1, 2]
    image, classes = train[1]
    assert (decode(image).size, classes.shape, classes.dtype) == ((8, 2), (2, 8), np.uint8)
    assert classes[0].tolist() == [1, 2, IGNORED, 0] * 2
    assert [train.size(index) for index in range(4)] == [(4, 6), (2, 8), (4, 6), (4, 6)]
    assert len(set(train.identities) | set(both.splits["val"].identities)) == 5
    assert not said


def test_an_image_is_opened_and_not_decoded(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", size=(600, 400))
    encoded = (tmp_path / "images/train/a.jpg").read_bytes()
    (tmp_path / "images/train/a.jpg").write_bytes(encoded[: len(encoded) // 2])  # what follows its header is damaged
    train = train_of(tmp_path)
    image, classes = train[0]
    assert (train.size(0), classes.shape) == ((400, 600), (400, 600))
    with pytest.raises(BadImage):
        decode(image)


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "images/train/a.jpg", exif=turned)
    train = train_of(tmp_path)
    assert train.size(0) == train[0][1].shape == (4, 6)


def test_other_names_of_folders_and_what_is_ignored(tmp_path: Path) -> None:
    write(tmp_path / "rgb/x/0.png", Image.new("RGB", (3, 1)))
    write(tmp_path / "labels/x/0.png", Image.fromarray(np.uint8([[0, 1, 255]])))
    settings = {"images": "rgb", "masks": "labels"}
    assert opened(tmp_path, "x", **settings).splits["x"][0][1].tolist() == [[0, 1, 255]]
    assert opened(tmp_path, "x", zero_is_ignored=True, **settings).splits["x"][0][1].tolist() == [[255, 0, 255]]


def test_links_share_identities_and_a_copy_reads_the_same(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", 2)
    write_pair(tmp_path, "b", split="val")
    (tmp_path / "images/val/b.jpg").unlink()
    (tmp_path / "images/val/b.jpg").symlink_to(tmp_path / "images/train/a.jpg")
    splits = opened(tmp_path, "train", "val").splits
    train, val = (Subset(splits[split], np.arange(1), split) for split in ("train", "val"))
    assert train.shared_with(val) == 1
    copy = pickle.loads(pickle.dumps(splits["train"]))  # as loader processes get it
    assert (copy[0][1] == 2).all()


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("annotations/train/b/1.png", r"1 of 3 images below .*images/train have no mask .*annotations/train: b/1.jpg$"),
        ("images/train/a.jpg", r"1 of 3 masks below .*annotations/train have no image .*images/train: a.png$"),
        ("images/train", "no folder '.*images/train': prepare the data as .*images has val$"),
        ("annotations", "no folder '.*annotations/train': .*; .* has images$"),
    ],
)
def test_what_is_missing_is_told_when_it_is_opened(tmp_path: Path, gone: str, told: str) -> None:
    for stem in ("a", "b/1", "b/2"):
        write_pair(tmp_path, stem)
    write_pair(tmp_path, "a", split="val")
    (tmp_path / gone).rename(tmp_path / f".{gone.replace('/', '-')}")
    with pytest.raises(S3Error, match=told):
        opened(tmp_path, "train")


def test_the_first_of_many_without_masks_are_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    for number in range(12):
        write(tmp_path / f"images/train/n{number:02}.jpg", Image.new("RGB", (1, 1)))
    with pytest.raises(S3Error, match=r"12 of 13 images .*: n00.jpg, .*, n09.jpg and 2 more$"):
        opened(tmp_path)


def test_an_empty_split_is_refused_and_other_files_are_counted(tmp_path: Path, said: list[str]) -> None:
    write_pair(tmp_path, "a")
    (tmp_path / "annotations/train/a.png").rename(tmp_path / "annotations/train/a.mat")
    with pytest.raises(S3Error, match=r"annotations/train has no image at any depth"):
        opened(tmp_path)
    assert said == [f"files below {tmp_path}/annotations/train are no images by their name: 1 .mat"]
    with pytest.raises(S3Error, match="no folder 'images/train'"):
        open_mask_folder("", ("train",), table=TABLE)


@pytest.mark.parametrize(("folder", "first"), [("images", "a/b.jpg"), ("annotations", "a/b.png")])
def test_two_files_of_one_stem_are_ambiguous(tmp_path: Path, folder: str, first: str) -> None:
    write_pair(tmp_path, "a/b")
    write(tmp_path / folder / "train/a/b.bmp", Image.new("L", (6, 4)))
    with pytest.raises(S3Error, match=f"{folder}/train has both a/b.bmp and {first}, and which belongs to which"):
        opened(tmp_path)


def test_dead_links_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    (tmp_path / "annotations/train/b.png").symlink_to("gone.png")
    with pytest.raises(S3Error, match=r"1 links below .*annotations/train lead nowhere, the first is b.png: fetch"):
        opened(tmp_path)


def test_names_of_two_unicode_forms_are_a_pair(tmp_path: Path) -> None:
    write(tmp_path / "images/train" / unicodedata.normalize("NFD", "café.jpg"), Image.new("RGB", (1, 1)))
    write(tmp_path / "annotations/train" / unicodedata.normalize("NFC", "café.png"), Image.new("L", (1, 1)))
    assert train_of(tmp_path)[0][1].tolist() == [[0]]


@pytest.mark.parametrize("stem", [os.fsdecode(b"\xff"), "<b>&[red]%s{0}", " "])
def test_odd_names_do_not_break_messages(tmp_path: Path, stem: str) -> None:
    write_pair(tmp_path, stem, value=7)
    with pytest.raises(S3Error, match="has the value 7") as refused:
        train_of(tmp_path)[0]
    shown = r"\xff" if stem == os.fsdecode(b"\xff") else stem
    assert f"/{shown}.png" in str(refused.value)
    str(refused.value).encode()
    (tmp_path / "annotations/train" / f"{stem}.png").write_bytes(b"")
    with pytest.raises(BadImage, match="not an image: the file is empty") as damaged:
        train_of(tmp_path)[0]
    assert f"/{shown}.png" in str(damaged.value)
    (tmp_path / "annotations/train" / f"{stem}.png").rename(tmp_path / "annotations/train/other.png")
    with pytest.raises(S3Error, match="have no mask") as refused:
        opened(tmp_path)
    assert f"{shown}.jpg" in str(refused.value)


def test_a_file_that_goes_away_is_told(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    train = train_of(tmp_path)
    (tmp_path / "annotations/train/a.png").unlink()
    with pytest.raises(S3Error, match=r"annotations/train/a.png cannot be read: No such file"):
        train[0]


class ClassMaps(Examples):
    def __init__(self, source: MaskFolder) -> None:
        self.subset = Subset(source, np.arange(len(source)), "train")

    def blank(self, group: Hashable = None) -> Example:
        return {"classes": np.full((4, 6), IGNORED, np.uint8)}

    def example(self, row: int, rng: np.random.Generator | None) -> Example:
        return {"classes": self.subset.source[row][1]}

    def batch(self, **settings: bool) -> Batch:
        return next(eval_batches(self, batch_size=len(self.subset), **settings))


def test_bad_pairs_are_skipped_or_told_with_both_names(tmp_path: Path, said: list[str]) -> None:
    for number, stem in enumerate("abc"):
        write_pair(tmp_path, stem, number)
    write(tmp_path / "annotations/train/b.png", Image.new("L", (4, 6)))
    examples = ClassMaps(train_of(tmp_path))
    told = "images/train/b.jpg: its mask .*annotations/train/b.png: it has 4 x 6 pixels, and the image 6 x 4; replace"
    with pytest.raises(S3Error, match=told):
        examples.batch()
    batch = examples.batch(skip_bad=True)
    assert batch["weight"].tolist() == [1, 0, 1]
    assert batch["classes"][:, 0, 0].tolist() == [0, 0, 2]  # what does not count is zero
    assert "its mask" in said[0]
    write(tmp_path / "annotations/train/b.png", Image.new("L", (6, 4), 9))  # a mistake in the table, not a bad image
    with pytest.raises(S3Error, match=r"b.png has the value 9 at 24 pixels, but the 3 classes"):
        examples.batch(skip_bad=True)


@needs_seg_mini
@pytest.mark.parametrize(
    ("name", "splits", "settings", "classes", "seen"),
    [
        ("coco_sem", {"training": 100, "validation": 100}, {"zero_is_ignored": True}, 133, 119),
        ("camvid", {"train": 120, "val": 50, "test": 50}, {"masks": "labels"}, 11, 11),
    ],
)
def test_the_example_sets(name: str, splits: dict, settings: dict, classes: int, seen: int) -> None:
    table = read_class_table(SEG_MINI / name / "classes.txt")
    data = opened(SEG_MINI / name, *splits, table=table, **settings)
    assert {split: len(folder) for split, folder in data.splits.items()} == splits
    assert len(data.table.names) == classes
    first = next(iter(data.splits.values()))
    counts = np.zeros(256, np.int64)
    for index in range(len(first)):
        image, class_map = first[index]
        assert class_map.shape == first.size(index) == image.size[::-1]
        counts += np.bincount(class_map.ravel(), minlength=256)
    assert np.count_nonzero(counts[:255]) == seen
    assert 0 < counts[IGNORED] < 0.2 * counts.sum()
    assert not counts[classes:IGNORED].any()
