"""Masks of objects: as crops of fixed size to train from, as targets of RoIs, and pasted into an image.

A crop has CROP x CROP places in the frame of its object's box: the inner ones divide the box evenly, and the outermost
ring is what lies around it, so that a mask that touches its box has an edge there. Crops and pasting are numpy's, on
the host; targets are computed on the device.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from s3_jax.detection.boxes import sides
from s3_jax.detection.roi_align import Samples, axis_weights, samples_of

CROP = 112  # places a side, with the ring
BORDER = 1  # places of the ring
TARGET = 28  # places a side that the mask heads answer

_INNER = CROP - 2 * BORDER


def mask_crop(bitmap: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The crop of a mask: uint8 (CROP, CROP), 255 where all is the object's.

    bitmap: bool or 0 and 1, (H, W). box (4,): in pixels, with an area. Each place is the mean of about one sample a
    pixel, interpolated as RoIAlign does; beyond the image is what is at its edge.
    """
    left, top, right, bottom = (float(each) for each in box)
    rows, first_row = _crop_weights(top, bottom, bitmap.shape[0])
    columns, first_column = _crop_weights(left, right, bitmap.shape[1])
    part = bitmap[first_row : first_row + rows.shape[1], first_column : first_column + columns.shape[1]]
    return np.rint(255 * (rows @ part.astype(np.float32) @ columns.T)).clip(0, 255).astype(np.uint8)


def mask_targets(crops: Array, objects: Array, boxes: Array, matched: Array, side: int = TARGET) -> Array:
    """What a mask head is to answer for each RoI: bool (R, side, side).

    crops: (G, CROP, CROP), uint8 of 255 or shares from 0 to 1; objects (G, 4): their boxes; boxes (R, 4): the RoIs;
    matched (R,): the object of each, of which a negative number counts as the first. RoIAlign of the whole mask, with
    as many samples and at the same points, read from the crop; at least 0.5 (mmdetection's crop_and_resize).
    """
    shares = crops.astype(jnp.float32) / (255 if crops.dtype == jnp.uint8 else 1)
    own = jnp.maximum(matched, 0)

    def of_one(box: Array, number: Array) -> Array:
        """(side, side)"""
        columns, rows = (_weights_in_crop(box, objects[number], axis, side) for axis in (0, 1))
        return rows @ shares[number] @ columns.T

    with jax.default_matmul_precision("highest"):
        return jax.vmap(of_one)(boxes, own) >= 0.5


def pasted(shares: np.ndarray, box: np.ndarray, image_hw: tuple[int, int], threshold: float = 0.5) -> np.ndarray:
    """A mask in its image: bool (H, W), where the share of the object is at least the threshold.

    shares: float (side, side), 0 to 1, of the box (4,) in pixels; bilinear, and zero around it (mmdetection's
    paste). A box without an area covers nothing.
    """
    left, top, right, bottom = (float(each) for each in box)
    whole = np.zeros(image_hw, bool)
    if right <= left or bottom <= top:
        return whole
    rows, columns = _inside(top, bottom, image_hw[0]), _inside(left, right, image_hw[1])
    vertical = _paste_weights(top, bottom, rows, shares.shape[0])
    horizontal = _paste_weights(left, right, columns, shares.shape[1])
    whole[rows, columns] = vertical @ shares.astype(np.float32) @ horizontal.T >= threshold
    return whole


def _weights_in_crop(box: Array, own: Array, axis: int, side: int) -> Array:
    """What each place of a crop's axis counts in the bins of a RoI, (side, CROP), the object's box being `own`."""
    start, step, count = samples_of(box[axis] - 0.5, box[axis + 2] - 0.5, side)
    length = sides(own)[axis]
    ratio = _INNER / jnp.where(length > 0, length, 1)  # places of the crop for a pixel
    moved = (start + 0.5 - own[axis]) * ratio + BORDER - 0.5
    return axis_weights(Samples(moved, step * ratio, count), side, jnp.arange(CROP), CROP)


def _crop_weights(low: float, high: float, size: int) -> tuple[np.ndarray, int]:
    """What pixels of an axis count in each place of a crop: (CROP, n), of n pixels from the one that comes second."""
    length = (high - low) / _INNER
    each = max(1, int(np.ceil(length)))
    edges = low + length * (np.arange(CROP)[:, None] - BORDER)
    points = np.clip(edges + length * (np.arange(each) + 0.5) / each - 0.5, 0, size - 1)
    first, last = int(points.min()), min(int(points.max()) + 1, size - 1)
    return _hats(points, np.arange(first, last + 1)).mean(1), first


def _paste_weights(low: float, high: float, pixels: slice, side: int) -> np.ndarray:
    """What places of a mask count in each pixel of an axis, (pixels, side)."""
    middles = np.arange(pixels.start, pixels.stop) + 0.5
    return _hats((middles - low) * (side / (high - low)) - 0.5, np.arange(side))


def _inside(low: float, high: float, size: int) -> slice:
    """The pixels of an axis that a box touches: around it a mask is less than half."""
    return slice(min(max(int(np.floor(low)), 0), size), min(max(int(np.ceil(high)), 0), size))


def _hats(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Linear interpolation: what each place counts at each point, (..., places), nothing from one place away on."""
    return np.maximum(0, 1 - np.abs(points[..., None] - places)).astype(np.float32)
