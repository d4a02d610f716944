"""Images with objects as COCO has them: a folder of images and a file of annotations for each split."""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from PIL import Image
from pycocotools import mask as coco_mask

from s3_jax.data.image_folder import FolderImages, list_folder
from s3_jax.data.sources import BadImage
from s3_jax.detection.coco_json import CocoFile, read_coco
from s3_jax.detection.doubts import doubts_of
from s3_jax.detection.masks import as_json
from s3_jax.detection.objects import Categories, Line, Objects, OpenedObjects, RunLengths
from s3_jax.errors import S3Error, listed
from s3_jax.paths import any_path, printable

_ANNOTATIONS, _IMAGES = (
    f"data.{setting} (evaluate.py: --{flag})"
    for setting, flag in (("annotations_file", "annotations"), ("images_folder", "images"))
)
_TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's orientation, and its values that swap height and width


@dataclasses.dataclass(frozen=True, eq=False)
class CocoImages:
    """The images of one split and their objects, by number; of the images only the paths are held."""

    images: FolderImages
    missing: np.ndarray  # bool (I,): images of which there is no file
    file: CocoFile

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, Objects]:
        """An image, read but not decoded, and the objects that are trained on; boxes are cut at the image's edges.

        EXIF orientation is ignored. Raises BadImage where the file is missing or damaged, or has another size than the
        annotations say, and S3Error where it may not be read.
        """
        if self.missing[index]:
            raise BadImage("there is no such file, though the annotations list it")
        image, _ = self.images[index]
        height, width = self.size(index)
        if image.size != (width, height):
            there = f"{image.width} x {image.height} pixels"
            raise BadImage(f"it has {there}, and its annotations are for {width} x {height}{_turned(image)}")
        numbers = self._numbers(index)[self.file.trained[self._slice(index)]]
        boxes = self.file.boxes[numbers]
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        corners = np.clip(corners, 0, [width, height, width, height])
        return image, Objects(corners, self.file.labels[numbers], [self._mask(number, index) for number in numbers])

    def name(self, index: int) -> str:
        """The image's path."""
        return self.images.name(index)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image in pixels, as the annotations have them."""
        image = self.file.images[index]
        return image["height"], image["width"]

    @property
    def categories(self) -> Categories:
        """The classes of the data set."""
        return self.file.categories

    @property
    def identities(self) -> np.ndarray:
        """int64 (N,): see `FolderImages`; of the images, whatever their objects are."""
        return self.images.identities

    @property
    def object_counts(self) -> np.ndarray:
        """int64 (N,): how many objects of each image are trained on."""
        return np.diff(np.concatenate([[0], np.cumsum(self.file.trained)])[self.file.starts])

    @property
    def has_objects(self) -> np.ndarray:
        """bool (N,): whether an image has objects that are trained on; others are for evaluation alone."""
        return self.object_counts > 0

    @property
    def has_counted(self) -> np.ndarray:
        """bool (N,): whether an image has objects that count in what is measured, and its file is there."""
        counted = np.concatenate([[0], np.cumsum(~self.file.crowds)])[self.file.starts]
        return (np.diff(counted) > 0) & ~self.missing

    @property
    def doubts(self) -> list[str]:
        """Mistakes that the annotations most likely have; see `doubts_of`."""
        return doubts_of(self.file)

    def image_record(self, index: int) -> Line:
        """An image as COCO's "images" has it: id, file_name, height, width."""
        return dict(self.file.images[index])

    def truth(self, index: int) -> list[Line]:
        """What an image is evaluated against, crowds too, as COCO's "annotations" has it.

        Ids are 1, 2, 3, ... over the whole split: those of files may occur twice, and pycocotools takes 0 for none.
        """
        return [self._annotation(number, index) for number in self._numbers(index)]

    def _annotation(self, number: int, index: int) -> Line:
        mask, area = self._mask(number, index), self.file.areas[number]
        return {
            "id": int(number) + 1,
            "image_id": self.file.images[index]["id"],
            "category_id": self.categories.ids[self.file.labels[number]],
            "bbox": self.file.boxes[number].tolist(),
            "area": float(coco_mask.area(mask) if np.isnan(area) else area),
            "iscrowd": int(self.file.crowds[number]),
            "segmentation": as_json(mask),
        }

    def _slice(self, index: int) -> slice:
        return slice(self.file.starts[index], self.file.starts[index + 1])

    def _numbers(self, index: int) -> np.ndarray:
        return np.arange(self.file.starts[index], self.file.starts[index + 1])

    def _mask(self, number: int, index: int) -> RunLengths:
        return self.file.masks.of(int(number), *self.size(index))


def open_coco(
    path: str,
    splits: Sequence[str],
    *,
    annotations_file: str = "annotations/instances_{split}.json",
    images_folder: str = "{split}",
) -> OpenedObjects:
    """The named splits below `path`; in both patterns `{split}` stands for the name of a split.

    Raises S3Error for a file of annotations that `read_coco` refuses or of which nothing can be used, a folder that is
    missing or holds none of its images, and categories that differ between splits. What is left out, and missing
    images, are counted in a warning.
    """
    opened = {split: _open_split(path, split, annotations_file, images_folder) for split in splits}
    first, *others = opened
    for other in others:
        _check_same_categories(path, {split: opened[split].categories for split in (first, other)})
    return OpenedObjects(printable(os.path.basename(os.path.abspath(path))), opened[first].categories, opened)


def _turned(image: Image.Image) -> str:
    tag, values = _TURNED
    turned = image.getexif().get(tag) in values
    return ": its EXIF orientation turns it, so save it turned as it was annotated" if turned else ""


def _open_split(path: str, split: str, annotations_file: str, images_folder: str) -> CocoImages:
    annotations, folder = (
        os.path.join(path, pattern.replace("{split}", split)) for pattern in (annotations_file, images_folder)
    )
    _refuse_absent(annotations, folder, path)
    file = read_coco(any_path(annotations))
    images, missing = _files(folder, [image["file_name"] for image in file.images], printable(annotations))
    _refuse_useless(file, printable(annotations))
    for reason, count in file.counts.items():
        if count:
            logging.warning("%s: left out %s %s", printable(annotations), f"{count:,}", reason)
    return CocoImages(images, missing, file)


def _refuse_useless(file: CocoFile, place: str) -> None:
    if file.annotations and not len(file.labels):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in file.counts.items() if count)
        told = "; ".join([reasons, *doubts_of(file)])
        raise S3Error(f"{place}: none of its {file.annotations:,} annotations can be used: {told}")


def _refuse_absent(annotations: str, folder: str, path: str) -> None:
    expected = "<path>/annotations/instances_<split>.json and <path>/<split>/<name>.jpg"
    if not path:
        raise S3Error(f"no data set is named: give data.path (evaluate.py: --path), a folder with {expected}")
    if not any_path(annotations).is_file():
        raise S3Error(
            printable(
                f"no file {annotations!r}: prepare the data as {expected}, or set {_ANNOTATIONS} and {_IMAGES}, in "
                f"which {{split}} is the split's name{_existing(os.path.dirname(annotations))}"
            )
        )
    if not any_path(folder).is_dir():
        raise S3Error(
            printable(f"no folder {folder!r} of images: set {_IMAGES}, in which {{split}} is the split's name")
        )


def _existing(folder: str) -> str:
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # it is not there either, or in a bucket
        return ""
    return f"; {folder} has {listed(names)}" if names else ""


def _files(folder: str, names: Sequence[str], annotations: str) -> tuple[FolderImages, np.ndarray]:
    """The image files of these names, and which of them are missing, bool (I,). Raises S3Error where all are."""
    listing = list_folder(folder)
    # File systems and archives differ in how they compose letters.
    by_name = {unicodedata.normalize("NFC", path): path for path in listing.images}
    paths = [_found(folder, name, by_name) for name in names]
    missing = np.array([path is None for path in paths])
    if missing.all():
        raise S3Error(
            printable(
                f"none of the {len(names):,} images of {annotations} is in {folder}; the first is {names[0]}: set "
                f"{_IMAGES} to where the file names begin"
            )
        )
    if missing.any():
        count, first = f"{missing.sum():,} of {len(names):,}", names[int(missing.argmax())]
        logging.warning("%s images of %s are missing, the first is %s", count, annotations, printable(first))
    encoded = np.array([os.fsencode(name if path is None else path) for name, path in zip(names, paths, strict=True)])
    links = np.array([path in listing.links for path in paths])
    return FolderImages(folder, encoded, np.zeros(len(names), np.int32), links), missing


def _found(folder: str, name: str, by_name: Mapping[str, str]) -> str | None:
    path = by_name.get(unicodedata.normalize("NFC", os.path.normpath(name)))
    if path is None and name and any_path(os.path.join(folder, name)).is_file():  # of a suffix that is no image's
        return name
    return path


def _check_same_categories(path: str, categories: Mapping[str, Categories]) -> None:
    known: dict[str, Any] = {split: set(zip(each.ids, each.names, strict=True)) for split, each in categories.items()}
    (first, ours), (other, theirs) = known.items()
    parts = [
        f"only in {split}: {listed(f'{number} {name}' for number, name in alone)}"
        for split, alone in ((first, ours - theirs), (other, theirs - ours))
        if alone
    ]
    if parts:
        raise S3Error(
            f"{printable(path)}: the categories of {first!r} and {other!r} differ, so their labels would not agree; "
            f"{'; '.join(parts)}: give both files the same list"
        )
