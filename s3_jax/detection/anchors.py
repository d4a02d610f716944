"""Anchors: boxes of fixed sizes and shapes around the places of every map of the pyramid, from which proposals start.

A canvas is the static size of a batch's images; each image lies at its top left, and has a size of its own.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

STRIDES = (4, 8, 16, 32, 64)  # pixels between places of the maps P2 to P6
SCALE = 8.0  # the side of a square anchor, in strides
RATIOS = (0.5, 1.0, 2.0)  # of height to width

Size = tuple[int, int]  # height and width


class Anchors(NamedTuple):
    """Anchors of a canvas: levels follow each other, in them rows, in these columns, in these `RATIOS`."""

    boxes: np.ndarray  # float32 (A, 4), may reach over the canvas
    places: np.ndarray  # float32 (A, 2), x and y of the middles
    sizes: tuple[int, ...]  # anchors of each level, which sum to A


def map_sizes(canvas: Size) -> list[Size]:
    """Height and width of the maps P2 to P6 of a canvas: sides over strides, rounded up."""
    return [(-(-canvas[0] // stride), -(-canvas[1] // stride)) for stride in STRIDES]


@cache
def anchors_of(canvas: Size, scale: float = SCALE) -> Anchors:
    """All anchors of a canvas; those of 800 x 1344 are 268,569. scale: side of a square one, in strides.

    As mmdetection's, anchors' middles are at multiples of the stride, the first at the image's corner.
    """
    levels = list(zip(map_sizes(canvas), STRIDES, strict=True))
    places = [np.repeat(_places(size, stride), len(RATIOS), axis=0) for size, stride in levels]
    halves = [np.tile(_shapes(scale * stride) / 2, (height * width, 1)) for (height, width), stride in levels]
    middle, half = np.concatenate(places), np.concatenate(halves)
    boxes = np.concatenate([middle - half, middle + half], axis=1)
    return Anchors(boxes.astype(np.float32), middle.astype(np.float32), tuple(map(len, places)))


def inside(boxes: Array | np.ndarray, image_hw: Array) -> Array:
    """Which boxes (A, 4) lie fully in an image of height and width `image_hw` (2,): only these are trained.

    The lower and right edges do not belong to the image, as in mmdetection.
    """
    height, width = image_hw
    return (boxes[:, 0] >= 0) & (boxes[:, 1] >= 0) & (boxes[:, 2] < width) & (boxes[:, 3] < height)


def proposing(places: Array | np.ndarray, image_hw: Array) -> Array:
    """Which anchors, by their middles (A, 2), are of an image of height and width `image_hw`, not of its padding."""
    height, width = image_hw
    return (places[:, 0] < width) & (places[:, 1] < height)


def of_levels(values: Array, sizes: tuple[int, ...]) -> list[Array]:
    """Values of all anchors, (A, ...), cut into those of each level."""
    return jnp.split(values, np.cumsum(sizes)[:-1].tolist())


def _places(size: Size, stride: int) -> np.ndarray:
    """x and y of a map's places in pixels, (h * w, 2), row by row."""
    rows, columns = np.indices(size)
    return np.stack([columns.ravel(), rows.ravel()], axis=1) * float(stride)


def _shapes(side: float) -> np.ndarray:
    """Width and height of anchors of each ratio, (3, 2), all of the area of a square of `side` pixels."""
    root = np.sqrt(np.asarray(RATIOS))
    return side * np.stack([1 / root, root], axis=1)
