"""Images in folders: `<path>/<split>/<class>/*`, as ImageNet and most image collections are laid out."""

from __future__ import annotations

import dataclasses
import functools
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import logging
from PIL import Image

from s3_jax.buckets import BucketEntry, BucketPath
from s3_jax.data.sources import OpenedSource, open_encoded
from s3_jax.errors import S3Error, listed
from s3_jax.paths import AnyPath, any_path, printable, user_path

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pnm", ".pfm", ".tif", ".tiff"),
    *(".webp", ".avif", ".jp2"),
)
Entry = os.DirEntry[str] | BucketEntry


@dataclasses.dataclass(frozen=True, eq=False)
class FolderImages:
    """Image files below one split's folder; paths are encoded in one array, a tenth of a list of strings."""

    folder: str
    paths: np.ndarray  # (N,) bytes, relative to folder
    labels: np.ndarray  # (N,) int32
    links: np.ndarray  # (N,) bool: whether the path is a link

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """See `ImageSource`. Raises S3Error where the file is gone or may not be read."""
        try:
            encoded = any_path(self.name(index)).read_bytes()
        except OSError as error:
            raise S3Error(f"{self.name(index)} cannot be read: {error.strerror or error}") from error
        return open_encoded(encoded), int(self.labels[index])

    def name(self, index: int) -> str:
        """The file's path."""
        return os.path.join(self.folder, os.fsdecode(bytes(self.paths[index])))

    @functools.cached_property
    def identities(self) -> np.ndarray:
        """See `ImageSource`: hashes of the real paths, so that links are what they lead to."""
        return np.fromiter((hash(path) for path in self._real_paths()), np.int64, len(self))

    def _real_paths(self) -> Iterator[bytes]:
        root = os.fsencode(self.folder)
        real_folder = functools.cache(lambda folder: os.path.realpath(os.path.join(root, folder)))
        for path, is_link in zip(map(bytes, self.paths), self.links, strict=True):
            folder, name = os.path.split(path)
            yield os.path.realpath(os.path.join(root, path)) if is_link else real_folder(folder) + b"/" + name


@dataclasses.dataclass
class Listing:
    """What lies below a folder; paths are relative to it."""

    images: list[str] = dataclasses.field(default_factory=list)
    links: set[str] = dataclasses.field(default_factory=set)  # the images that are links to one
    dead_links: list[str] = dataclasses.field(default_factory=list)  # that lead nowhere and might be images or folders
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)  # other files by suffix, without hidden ones


def list_image_files(folder: str) -> list[str]:
    """Paths of the images at any depth below a folder, relative to it, sorted by folder, then by name.

    Links that lead nowhere are among them, for whoever reads them to name. Raises S3Error for what cannot be listed.
    """
    listing = list_folder(folder)
    return sorted(listing.images + listing.dead_links, key=os.path.split)


def list_images(paths: Sequence[str]) -> list[AnyPath]:
    """The files among paths, and the images in folders, at any depth, sorted; what is hidden in a folder is left out.

    Raises S3Error where there is none, or a path is nothing.
    """
    found: list[AnyPath] = []
    for path in map(user_path, paths):
        if path.is_dir():
            found += [path / name for name in list_image_files(str(path))]
        elif path.exists():
            found.append(path)
        else:
            raise S3Error(f"there is no file or folder {path}")
    if not found:
        raise S3Error(f"no image in {', '.join(paths)}; known are {', '.join(SUFFIXES)}")
    return found


def list_folder(folder: str) -> Listing:
    """Images, dead links and other files at any depth below a folder: its own by name, then those of its folders.

    Links to folders are followed. Costs a stat for each folder and link, none for a file. Raises S3Error for a folder
    that cannot be listed.
    """
    listing = Listing()
    _visit(folder, "", (), listing)
    return listing


def _visit(folder: str, below: str, above: tuple[object, ...], listing: Listing) -> None:
    """Adds what lies in folder/below; `above` are the folders around it, into which a link must not lead again."""
    entries, place = _entries(os.path.join(folder, below))
    if place in above:
        return
    folders = []
    for entry in entries:
        path, suffix = os.path.join(below, entry.name), _suffix(entry)
        if _is_folder(entry):
            folders.append(path)
        elif suffix in SUFFIXES and _is_file(entry):
            listing.images.append(path)
            if entry.is_symlink():
                listing.links.add(path)
        elif _is_dead(entry):
            listing.dead_links.append(path)
        else:
            listing.left_out[suffix] += 1
    for path in folders:
        _visit(folder, path, (*above, place), listing)


def _entries(folder: str) -> tuple[list[Entry], object]:
    """What is in a folder and not hidden, by name, and where the folder really is. Raises S3Error."""
    path = any_path(folder)
    if isinstance(path, BucketPath):
        return sorted((e for e in path.entries() if not e.name.startswith(".")), key=lambda entry: entry.name), folder
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise S3Error(f"{folder} cannot be listed: {error.strerror}") from error
    return sorted(visible, key=lambda entry: entry.name), (status.st_dev, status.st_ino)


def _suffix(entry: Entry) -> str:
    return os.path.splitext(entry.name)[1].lower()


def _is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: Entry) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_dead(entry: Entry) -> bool:
    """Whether it leads nowhere and was perhaps an image, or a folder of them."""
    may_be_images = _suffix(entry) in ("", *SUFFIXES)
    return may_be_images and entry.is_symlink() and not _is_folder(entry) and not _is_file(entry)


def open_image_folder(path: str, splits: Sequence[str], *, skip_dead_links: bool = False) -> OpenedSource:
    """The named splits below `path`; classes are the sorted names of the first split's folders, composed (NFC).

    Raises S3Error for a missing folder, a class without images, no classes, class folders that differ, and links that
    lead nowhere, unless they are to be left out.
    """
    folders = {split: _list_split(path, split, skip_dead_links) for split in splits}
    first, *others = folders
    for other in others:
        _check_same_classes(path, first, folders[first], other, folders[other])
    opened = {split: _source(os.path.join(path, split), by_class) for split, by_class in folders.items()}
    return OpenedSource(os.path.basename(os.path.abspath(path)), tuple(folders[first]), opened)


def _list_split(path: str, split: str, skip_dead_links: bool) -> dict[str, tuple[str, Listing]]:
    """Folder and content of every class of a split, sorted by the classes' names."""
    folder = os.path.join(path, split)
    if not path or not any_path(folder).is_dir():
        raise S3Error(
            f"no folder {folder!r}: prepare the images as <path>/<split>/<class>/<image>, and set data.path to "
            f"<path>, data.train_split and data.test_split to the folders' names{_existing_splits(path)}"
        )
    entries, _ = _entries(folder)
    folders = _class_folders(folder, [entry.name for entry in entries if _is_folder(entry)])
    by_class = {name: (inside, list_folder(os.path.join(folder, inside))) for name, inside in folders.items()}
    _refuse_dead_links(folder, entries, by_class, skip_dead_links)
    _tell_what_is_left_out(folder, entries, by_class)
    empty = [name for name, (_, listing) in by_class.items() if not listing.images]
    if empty:
        raise S3Error(f"{folder}: no image in {listed(empty)}; remove the folder or add images ({', '.join(SUFFIXES)})")
    return by_class


def _class_folders(folder: str, names: Sequence[str]) -> dict[str, str]:
    """The folders of a split by the names of their classes.

    These are composed, as file systems and archives differ in that, and bytes that are not UTF-8 are escaped, as in all
    that is written of them.
    """
    folders: dict[str, str] = {}
    for name in names:
        other = folders.setdefault(printable(unicodedata.normalize("NFC", name)), name)
        if other != name:
            raise S3Error(
                f"{folder} has two folders {name!r} that differ in their Unicode form alone ({other!a} and "
                f"{name!a}); make one of them"
            )
    if not folders:
        raise S3Error(f"{folder} has no class folders; expected {folder}/<class>/<image>")
    return dict(sorted(folders.items()))


def _refuse_dead_links(
    folder: str, entries: Sequence[Entry], by_class: Mapping[str, tuple[str, Listing]], skip: bool
) -> None:
    dead = [entry.name for entry in entries if _is_dead(entry)]
    dead += [os.path.join(inside, each) for inside, listing in by_class.values() for each in listing.dead_links]
    if not dead:
        return
    found = f"{len(dead):,} links below {folder} lead nowhere, the first is {dead[0]}"
    if not skip:
        raise S3Error(
            f"{found}: fetch what they stand for (`dvc pull`, `git annex get`) or remove them; with "
            "data.on_bad_image='skip' they are left out"
        )
    logging.warning("%s; they are left out", found)


def _tell_what_is_left_out(folder: str, entries: Sequence[Entry], by_class: Mapping[str, tuple[str, Listing]]) -> None:
    left_out = sum((listing.left_out for _, listing in by_class.values()), Counter[str]())
    if left_out:
        counts = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in left_out.most_common())
        logging.warning("%s files below %s are no images by their name: %s", f"{left_out.total():,}", folder, counts)
    loose = sum(_suffix(entry) in SUFFIXES and _is_file(entry) for entry in entries)
    if loose:
        logging.warning("%s images of %s lie in no class folder and are left out", f"{loose:,}", folder)


def _existing_splits(path: str) -> str:
    entries, _ = _entries(path) if path and any_path(path).is_dir() else ([], None)
    folders = [entry.name for entry in entries if _is_folder(entry)]
    return f"; {path} has {listed(folders)}" if folders else ""


def _check_same_classes(
    path: str, first: str, expected: Mapping[str, object], other: str, found: Mapping[str, object]
) -> None:
    differing = [(first, sorted(set(expected) - set(found))), (other, sorted(set(found) - set(expected)))]
    parts = [f"only in {split}: {listed(names)}" for split, names in differing if names]
    if parts:
        raise S3Error(
            f"{path}: the class folders of {first!r} and {other!r} differ, so their labels would not agree; "
            f"{'; '.join(parts)}"
        )


def _source(folder: str, by_class: Mapping[str, tuple[str, Listing]]) -> FolderImages:
    listings = list(by_class.values())
    paths = [os.fsencode(os.path.join(inside, each)) for inside, listing in listings for each in listing.images]
    links = [each in listing.links for _, listing in listings for each in listing.images]
    counts = [len(listing.images) for _, listing in listings]
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return FolderImages(folder, np.array(paths), labels, np.array(links))
