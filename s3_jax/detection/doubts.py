"""Mistakes that a file of annotations most likely has, though each of its entries could be meant as it is."""

from __future__ import annotations

import numpy as np

from s3_jax.detection.coco_json import NO_MASK, OUTSIDE, CocoFile, PackedMasks

# How much larger than its mask's a box may be, and how far it may miss its mask, before it does not fit.
_MOST_TIMES, _MOST_SHARE = 1.5, 0.1
_PIXEL = 1.0  # tools differ by one in where a box ends


def doubts_of(file: CocoFile) -> list[str]:
    """What most of a file's annotations have that hardly anyone means, each with the question that it raises."""
    of_boxes = _of_counts(file, OUTSIDE, _OTHER_SIZE) or _normalised(file) or _misfits(file)
    told = [_of_counts(file, NO_MASK, _MASKS_ARE_NEEDED), of_boxes, _all_crowds(file)]
    return [doubt for doubt in told if doubt]


_MASKS_ARE_NEEDED = (
    "masks are learned too, so each object needs a segmentation: where only its box is known, the polygon of the four "
    "corners will do, [[x, y, x + width, y, x + width, y + height, x, y + height]]"
)
_OTHER_SIZE = "most boxes lie outside of their images: are the annotations of another image size?"


def _of_counts(file: CocoFile, reason: str, doubt: str) -> str:
    return doubt if file.counts[reason] > file.annotations / 2 else ""


def _all_crowds(file: CocoFile) -> str:
    told = "all objects are crowds: is iscrowd 1 for those that are none?"
    return told if len(file.crowds) and file.crowds.all() else ""


def _normalised(file: CocoFile) -> str:
    ends = file.boxes[:, :2] + file.boxes[:, 2:]
    within = len(ends) and (ends <= 1.001).all()  # a little more than 1, as sums of rounded numbers are
    return "all boxes lie within 1 x 1 pixel: are they normalised to 0..1? COCO has pixels" if within else ""


def _misfits(file: CocoFile) -> str:
    """Of boxes as left, top, right, bottom most are too large; of those by their middle most miss half of the mask."""
    objects, extents = extents_of_polygons(file.masks)
    boxes = file.boxes[objects]
    starts, ends = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = extents[:, 2:] - extents[:, :2]
    margin = np.maximum(_PIXEL, _MOST_SHARE * sides)
    large = boxes[:, 2:].prod(1) > _MOST_TIMES * (sides + _PIXEL).prod(1)
    missed = ((starts > extents[:, :2] + margin) | (ends < extents[:, 2:] - margin)).any(1)
    count = int((large | missed).sum())
    if count <= len(objects) / 2:
        return ""
    return f"{count:,} of {len(objects):,} boxes do not fit their masks: is bbox x, y, width, height?"


def extents_of_polygons(masks: PackedMasks) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the objects that have polygons, int64 (K,), and the boxes of these, float64 (K, 4): left, top,
    right, bottom. Run lengths are left alone, as reading all of a large file's takes minutes."""
    firsts, ends = masks.object_starts[:-1], masks.object_starts[1:]
    objects = np.flatnonzero(ends > firsts)
    if not len(objects):
        return objects, np.zeros((0, 4))
    points = masks.numbers.reshape(-1, 2)
    starts = masks.polygon_starts[firsts[objects]] // 2
    return objects, np.concatenate([np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)], axis=1)
