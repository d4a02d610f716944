"""Boxes as pairs of corners: areas, overlaps, clipping, and their differences as numbers to learn.

A box is (left, top, right, bottom) in pixels of an image, without the "+ 1" of older code: its width is right - left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

SMALLEST_UNION = 1e-6  # square pixels, mmdetection's; keeps the IoU of two empty boxes at 0
LARGEST_LOG_RATIO = math.log(1000 / 16)  # of sides, mmdetection's: a box grows at most so much
FINEST_SIDE = 56  # pixels; RoIs of less than twice this side are looked up in the finest map (mmdetection's)
LEVELS = 4  # maps P2 to P5 of the pyramid

# Deviations of (dx, dy, dw, dh) that deltas are divided by: of the RPN, and of the cascade's three stages.
RPN_STDS = (1.0, 1.0, 1.0, 1.0)
STAGE_STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))


def sides(boxes: Array) -> Array:
    """Width and height, (..., 2), of boxes (..., 4)."""
    return boxes[..., 2:] - boxes[..., :2]


def centres(boxes: Array) -> Array:
    """x and y of the middle, (..., 2), of boxes (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def areas(boxes: Array) -> Array:
    """Square pixels, (...), of boxes (..., 4)."""
    return sides(boxes).prod(-1)


def intersections(first: Array, second: Array) -> Array:
    """Square pixels that boxes share: (..., 4) and (..., 4), which are broadcast, to (...)."""
    shared = jnp.minimum(first[..., 2:], second[..., 2:]) - jnp.maximum(first[..., :2], second[..., :2])
    return jnp.maximum(shared, 0).prod(-1)


def overlaps(first: Array, second: Array) -> Array:
    """Intersection over union, 0 to 1, of boxes (..., 4) and (..., 4), which are broadcast, to (...)."""
    shared = intersections(first, second)
    return shared / jnp.maximum(areas(first) + areas(second) - shared, SMALLEST_UNION)


def pairwise_overlaps(first: Array, second: Array) -> Array:
    """Intersection over union of every pair: (A, 4) and (B, 4) to (A, B)."""
    return overlaps(first[:, None], second[None])


def generalized_overlaps(first: Array, second: Array) -> Array:
    """GIoU, -1 to 1, of boxes (..., 4) and (..., 4), which are broadcast, to (...) (Rezatofighi et al., 2019).

    The IoU less the share of the smallest box around both that neither covers.
    """
    shared = intersections(first, second)
    union = jnp.maximum(areas(first) + areas(second) - shared, SMALLEST_UNION)
    around = jnp.maximum(first[..., 2:], second[..., 2:]) - jnp.minimum(first[..., :2], second[..., :2])
    hull = jnp.maximum(jnp.maximum(around, 0).prod(-1), SMALLEST_UNION)
    return shared / union - (hull - union) / hull


def clipped(boxes: Array, image_hw: Array) -> Array:
    """Boxes (..., 4) with their corners moved into an image of height and width `image_hw` (2,)."""
    height, width = image_hw[..., 0], image_hw[..., 1]
    return jnp.clip(boxes, 0, jnp.stack([width, height, width, height], -1).astype(boxes.dtype))


def encoded(boxes: Array, targets: Array, stds: Sequence[float]) -> Array:
    """What leads from boxes (..., 4) to targets (..., 4): (dx, dy, dw, dh), each over its deviation.

    Moves of the centre are in sides of the box, changes of sides are logarithms of ratios (Girshick et al., 2014).
    Of boxes without an area, as in padding, the sides count as 1, so that nothing is infinite.
    """
    old, new = _positive(sides(boxes)), _positive(sides(targets))
    moved = (centres(targets) - centres(boxes)) / old
    return jnp.concatenate([moved, jnp.log(new / old)], -1) / jnp.asarray(stds, boxes.dtype)


def decoded(boxes: Array, deltas: Array, stds: Sequence[float]) -> Array:
    """Boxes (..., 4) after deltas (..., 4), the inverse of `encoded`; not clipped to an image.

    Shapes are broadcast: boxes (R, 1, 4) and deltas (R, K, 4) give the boxes of every class. Ratios of sides are
    limited to 1000 / 16 either way.
    """
    scaled = deltas * jnp.asarray(stds, deltas.dtype)
    old = sides(boxes)
    new = old * jnp.exp(jnp.clip(scaled[..., 2:], -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO))
    middle = centres(boxes) + scaled[..., :2] * old
    return jnp.concatenate([middle - new / 2, middle + new / 2], -1)


def level_of(boxes: Array, levels: int = LEVELS) -> Array:
    """Which map of a pyramid, 0 the finest, a RoI is looked up in: (..., 4) to int32 (...).

    floor(log2(sqrt(area) / 56 + 1e-6)), at least 0 and less than `levels` (Lin et al., 2017, with mmdetection's
    numbers).
    """
    ratio = jnp.sqrt(jnp.maximum(areas(boxes), 0)) / FINEST_SIDE + 1e-6
    # Counted instead of computed: a logarithm's rounding would put boxes of 224 or 448 pixels one level too low.
    steps = jnp.asarray([2.0**level for level in range(1, levels)], boxes.dtype)
    return (ratio[..., None] >= steps).sum(-1, dtype=jnp.int32)


def _positive(lengths: Array) -> Array:
    return jnp.where(lengths > 0, lengths, 1)
