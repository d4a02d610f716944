"""What is known of the objects of an image, and the classes they are of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

RunLengths = dict[str, Any]  # pycocotools' form of a mask: "size", [height, width], and "counts", bytes
Line = dict[str, Any]  # a JSON record


@dataclasses.dataclass(frozen=True, eq=False)
class Objects:
    """The objects of an image that are trained on."""

    boxes: np.ndarray  # float64 (N, 4): left, top, right, bottom in pixels, from the image's corner on
    labels: np.ndarray  # int32 (N,), 0..C-1
    masks: Sequence[RunLengths]  # N, of the image's size

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Categories:
    """The classes of a data set: their label is their place here."""

    ids: tuple[int, ...]  # the numbers they have in files, in increasing order
    names: tuple[str, ...]

    def record(self) -> list[Line]:
        """As COCO has them."""
        return [{"id": number, "name": name} for number, name in zip(self.ids, self.names, strict=True)]


def numbered(names: Sequence[str]) -> Categories:
    """Classes of these names, with the ids 1, 2, 3, ..."""
    return Categories(tuple(range(1, len(names) + 1)), tuple(names))


class ObjectImages(Protocol):
    """The images of one split with their objects, by number."""

    @property
    def categories(self) -> Categories:
        """The classes of the data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, Objects]:
        """An image, RGB where it is decoded, and its objects. Raises BadImage."""

    def name(self, index: int) -> str:
        """Where the image lies, for messages."""

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image in pixels, without reading it."""

    @property
    def identities(self) -> np.ndarray:
        """int64 (N,): a number for each image that no other of the data set has, whichever splits it is in."""

    @property
    def has_objects(self) -> np.ndarray:
        """bool (N,): whether an image has objects that are trained on; others are for evaluation alone."""

    @property
    def has_counted(self) -> np.ndarray:
        """bool (N,): whether an image has objects that count in what is measured: all but crowds."""

    @property
    def doubts(self) -> list[str]:
        """Mistakes that the annotations most likely have, each with the question that it raises."""

    def image_record(self, index: int) -> Line:
        """An image as COCO's "images" has it: id, file_name, height, width."""

    def truth(self, index: int) -> list[Line]:
        """What an image is evaluated against, crowds too, as COCO's "annotations" has it."""


@dataclasses.dataclass(frozen=True, eq=False)
class OpenedObjects:
    """The splits of a data set of images with objects, its own name, and the classes that all splits share."""

    name: str
    categories: Categories
    splits: Mapping[str, ObjectImages]
