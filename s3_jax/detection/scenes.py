"""Digit scenes with boxes and masks: see `data.digit_scenes` for what is drawn, and for whose handwriting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from s3_jax.data import digit_scenes
from s3_jax.detection.masks import as_json, run_lengths
from s3_jax.detection.objects import Categories, Line, Objects, OpenedObjects

# Ids begin at 1, as COCO's do: the digit is its label, not its id.
CATEGORIES = Categories(
    tuple(range(1, digit_scenes.DIGITS + 1)), tuple(str(digit) for digit in range(digit_scenes.DIGITS))
)


class DigitScenes(digit_scenes.DigitScenes):
    """The scenes of one split, by number, with their digits as objects."""

    categories = CATEGORIES
    doubts: ClassVar[list[str]] = []  # nobody has annotated them

    def __getitem__(self, index: int) -> tuple[Image.Image, Objects]:
        """A picture, RGB, and its digits; a box is as tight about a digit's strokes as whole pixels are."""
        picture, instances = self.scene(index)
        boxes = np.array([_box(mask) for _, mask in instances], np.float64).reshape(-1, 4)
        labels = np.array([number - 1 for number, _ in instances], np.int32)
        return Image.fromarray(picture), Objects(boxes, labels, [run_lengths(mask) for _, mask in instances])

    @property
    def has_objects(self) -> np.ndarray:
        """bool (count,): all of them, as the first digit of a scene always finds a place."""
        return np.ones(self.count, bool)

    @property
    def has_counted(self) -> np.ndarray:
        """bool (count,): all of them; see `has_objects`."""
        return self.has_objects

    def image_record(self, index: int) -> Line:
        """A scene as COCO's "images" has it: id, file_name, height, width."""
        return {"id": index, "file_name": f"{self.split}_{index}.png", "height": self.side, "width": self.side}

    def truth(self, index: int) -> list[Line]:
        """The digits of a scene as COCO's "annotations" has them; no two of a split have the same id."""
        first = 1 + index * digit_scenes.MOST_DIGITS
        return [_annotation(first + place, index, *each) for place, each in enumerate(self.instances(index))]


def open_scenes(splits: Sequence[str], **settings: Any) -> OpenedObjects:
    """The scenes of the named splits; settings and errors are those of `open_digit_scenes`."""
    opened = digit_scenes.open_digit_scenes(DigitScenes, splits, **settings)
    return OpenedObjects("digit scenes", CATEGORIES, opened)


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _annotation(identity: int, image: int, number: int, mask: np.ndarray) -> Line:
    left, top, right, bottom = map(float, _box(mask))
    packed = run_lengths(mask)
    return {
        "id": identity,
        "image_id": image,
        "category_id": CATEGORIES.ids[number - 1],
        "bbox": [left, top, right - left, bottom - top],
        "area": float(coco_mask.area(packed)),
        "iscrowd": 0,
        "segmentation": as_json(packed),
    }
