"""Images in folders: `<path>/<split>/<class>/*`, as ImageNet and most image collections are laid out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from s3_jax.data.sources import OpenedSource, open_encoded
from s3_jax.errors import S3Error

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_MAX_LISTED = 10  # class names in a message


@dataclasses.dataclass(frozen=True, eq=False)
class FolderImages:
    """Image files below one split's folder; paths are encoded in one array, a tenth of a list of strings."""

    folder: str
    paths: np.ndarray  # (N,) bytes, relative to folder
    labels: np.ndarray  # (N,) int32

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """See `ImageSource`. Raises S3Error where the file is gone or may not be read."""
        try:
            with open(self.name(index), "rb") as file:
                encoded = file.read()
        except OSError as error:
            raise S3Error(f"{self.name(index)} cannot be read: {error.strerror}") from error
        return open_encoded(encoded), int(self.labels[index])

    def name(self, index: int) -> str:
        """The file's path."""
        return os.path.join(self.folder, os.fsdecode(bytes(self.paths[index])))


def open_image_folder(path: str, splits: Sequence[str]) -> OpenedSource:
    """The named splits below `path`; classes are the sorted names of the first split's folders.

    Raises S3Error for a missing folder, a class without images, no classes, or class folders that differ.
    """
    files = {split: _list_split(path, split) for split in splits}
    first, *others = files
    for other in others:
        _check_same_classes(path, first, files[first], other, files[other])
    opened = {split: _source(os.path.join(path, split), by_class) for split, by_class in files.items()}
    return OpenedSource(os.path.basename(os.path.abspath(path)), tuple(files[first]), opened)


def _list_split(path: str, split: str) -> dict[str, list[str]]:
    """File names of every class of a split, classes and files sorted."""
    folder = os.path.join(path, split)
    if not path or not os.path.isdir(folder):
        raise S3Error(
            f"no folder {folder!r}: prepare the images as <path>/<split>/<class>/<image>, and set data.path to "
            f"<path>, data.train_split and data.test_split to the folders' names{_existing_splits(path)}"
        )
    with os.scandir(folder) as entries:
        classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise S3Error(f"{folder} has no class folders; expected {folder}/<class>/<image>")
    by_class = {name: _list_images(os.path.join(folder, name)) for name in classes}
    empty = [name for name, images in by_class.items() if not images]
    if empty:
        raise S3Error(
            f"{folder}: no image in {_listed(empty)}; remove the folder or add images ({', '.join(SUFFIXES)})"
        )
    return by_class


def _existing_splits(path: str) -> str:
    folders = sorted(entry.name for entry in os.scandir(path) if entry.is_dir()) if os.path.isdir(path) else []
    return f"; {path} has {_listed(folders)}" if folders else ""


def _list_images(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name.lower().endswith(SUFFIXES) and not e.name.startswith("."))


def _check_same_classes(
    path: str, first: str, expected: Mapping[str, object], other: str, found: Mapping[str, object]
) -> None:
    differing = [(first, sorted(set(expected) - set(found))), (other, sorted(set(found) - set(expected)))]
    parts = [f"only in {split}: {_listed(names)}" for split, names in differing if names]
    if parts:
        raise S3Error(
            f"{path}: the class folders of {first!r} and {other!r} differ, so their labels would not agree; "
            f"{'; '.join(parts)}"
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {more:,} more" if more > 0 else "")


def _source(folder: str, by_class: Mapping[str, Sequence[str]]) -> FolderImages:
    paths = [os.fsencode(os.path.join(name, file)) for name, files in by_class.items() for file in files]
    counts = [len(files) for files in by_class.values()]
    return FolderImages(folder, np.array(paths), np.repeat(np.arange(len(counts), dtype=np.int32), counts))
