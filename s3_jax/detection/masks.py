"""Masks of objects: COCO's polygons and run lengths, and what a network is shown of them, crops in boxes' frames.

pycocotools trusts what it is given: run lengths that end early read memory that is not theirs, coordinates of a billion
end the process. So all of a file's masks pass `polygons_of` or `checked_run_lengths` before it sees them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from s3_jax.detection.objects import RunLengths

cv2.setNumThreads(0)  # loader workers are the parallelism; OpenCV's threads would fight over the cores

CROP_SIDE = 112  # pixels
CROP_BORDER = 1  # pixels on each side that lie outside of the box
_FEWEST_NUMBERS = 6  # of a polygon: three points
_MOST_DIGITS = 7  # of a number in compressed run lengths, which have 35 bits
_MOST_SIDES = 4  # of the image's longer side, how far from its corner a point may lie


def polygons_of(segmentation: Sequence[Any], height: int, width: int) -> list[np.ndarray]:
    """The polygons of a list, float64 (2 P,) as x, y, x, y, ... in pixels, that have three points or more.

    Left out are those of fewer points, of an odd number of numbers, and with what is no number or lies far outside.
    """
    limit = _MOST_SIDES * max(height, width)
    found = [_numbers(polygon) for polygon in segmentation]
    return [numbers for numbers in found if numbers is not None and (np.abs(numbers) <= limit).all()]


def _numbers(polygon: Any) -> np.ndarray | None:
    try:
        numbers = np.asarray(polygon, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers.ndim == 1 and len(numbers) >= _FEWEST_NUMBERS and len(numbers) % 2 == 0 else None


def checked_run_lengths(segmentation: Any, height: int, width: int) -> RunLengths | None:
    """The mask of COCO's plain or compressed run lengths, or None where they are not those of a mask of this size."""
    try:
        counts, size = segmentation["counts"], list(segmentation["size"])
        packed = counts.encode("ascii") if isinstance(counts, str) else counts
        lengths = uncompressed(packed) if isinstance(packed, bytes) else np.array(packed, np.int64)
        if size != [height, width] or lengths.ndim != 1 or lengths.sum() != height * width or lengths.min() < 0:
            return None
        mask = {"size": size, "counts": packed if isinstance(packed, bytes) else lengths.tolist()}
        return mask if isinstance(packed, bytes) else coco_mask.frPyObjects(mask, height, width)
    except (TypeError, ValueError, KeyError, OverflowError):  # of whatever else a file may have there
        return None


def uncompressed(counts: bytes) -> np.ndarray:
    """The lengths of runs, pixels of 0 and 1 by turns, int64 (R,), from COCO's string. Raises ValueError for none.

    A number is written in characters of five bits and one that says whether more follow, lowest first; from the fourth
    on it is the difference to the length two before.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    if not len(ends) or ends[-1] != len(codes) - 1 or digits.max() > _MOST_DIGITS or codes.min() < 0:
        raise ValueError("no run lengths")
    places = np.arange(len(codes)) - np.repeat(starts, digits)
    numbers = np.add.reduceat((codes & 31) << 5 * places, starts) - ((codes[ends] & 16) >> 4 << 5 * digits)
    numbers[1::2], numbers[2::2] = numbers[1::2].cumsum(), numbers[2::2].cumsum()
    return numbers


def run_lengths_of_polygons(polygons: Sequence[np.ndarray], height: int, width: int) -> RunLengths:
    """The mask that at least one of the polygons covers."""
    return coco_mask.merge(coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width))


def run_lengths(mask: np.ndarray) -> RunLengths:
    """A mask, bool or uint8 of 0 and 1 (H, W), in pycocotools' form."""
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def bitmap(mask: RunLengths) -> np.ndarray:
    """The mask as uint8 (H, W) of 0 and 1."""
    return coco_mask.decode(mask)


def as_json(mask: RunLengths) -> dict[str, Any]:
    """A mask as JSON can have it."""
    return {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")}


def crop(mask: np.ndarray, box: Sequence[float], *, mirrored: bool = False) -> np.ndarray:
    """What of a mask, uint8 (H, W) of 0 and 1, lies in a box: uint8 (112, 112), 255 where it covers a pixel wholly.

    box: left, top, right, bottom in the mask's pixels. It covers the inner 110 x 110 pixels of the crop: a border of
    one pixel lies outside, so that whoever interpolates at the box's edge finds what is beyond it. A pixel has the mean
    over itself of the mask interpolated bilinearly, which is 0 beyond the image. mirrored: left for right.
    """
    left, top, right, bottom = box
    inner = CROP_SIDE - 2 * CROP_BORDER
    scale_x, scale_y = (right - left) / inner, (bottom - top) / inner
    fine = max(
        1, math.ceil(max(scale_x, scale_y))
    )  # samples of a pixel and axis, so that no pixel of the mask is missed
    matrix = np.array(
        [_along(left, scale_x, fine), _along(top, scale_y, fine)[[1, 0, 2]]],
    )
    if mirrored:
        matrix[0] = [-matrix[0, 0], 0, matrix[0, 2] + (CROP_SIDE * fine - 1) * matrix[0, 0]]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    sampled = cv2.warpAffine(mask * np.uint8(255), matrix, (CROP_SIDE * fine,) * 2, flags=flags)
    return sampled if fine == 1 else cv2.resize(sampled, (CROP_SIDE,) * 2, interpolation=cv2.INTER_AREA)


def _along(start: float, scale: float, fine: int) -> np.ndarray:
    """A row of the matrix that maps a sample's number to a place along an axis, both counted from pixels' centres."""
    return np.array([scale / fine, 0, start + (0.5 / fine - CROP_BORDER) * scale - 0.5])
