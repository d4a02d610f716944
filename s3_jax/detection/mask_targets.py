"""Masks of objects: as targets of RoIs, computed on the device from their crops, and pasted into an image on the host.

A crop, made by `masks.crop`, has CROP_SIDE x CROP_SIDE places in the frame of its object's box: the inner ones divide
the box evenly, and the outermost ring is what lies around it, so that a mask that touches its box has an edge there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from s3_jax.detection.boxes import sides
from s3_jax.detection.masks import CROP_BORDER, CROP_SIDE
from s3_jax.detection.roi_align import Samples, axis_weights, samples_of

TARGET = 28  # places a side that the mask heads answer

_INNER = CROP_SIDE - 2 * CROP_BORDER


def mask_targets(crops: Array, objects: Array, boxes: Array, matched: Array, side: int = TARGET) -> Array:
    """What a mask head is to answer for each RoI: bool (R, side, side).

    crops: (G, CROP_SIDE, CROP_SIDE), uint8 of 255 or shares from 0 to 1; objects (G, 4): their boxes; boxes (R, 4):
    the RoIs; matched (R,): the object of each, of which a negative number counts as the first. RoIAlign of the whole
    mask, with as many samples and at the same points, read from the crop; at least 0.5 (mmdetection's crop_and_resize).
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
    """What each place of a crop's axis counts in the bins of a RoI, (side, CROP_SIDE), the object's box being `own`."""
    start, step, count = samples_of(box[axis] - 0.5, box[axis + 2] - 0.5, side)
    length = sides(own)[axis]
    ratio = _INNER / jnp.where(length > 0, length, 1)  # places of the crop for a pixel
    moved = (start + 0.5 - own[axis]) * ratio + CROP_BORDER - 0.5
    return axis_weights(Samples(moved, step * ratio, count), side, jnp.arange(CROP_SIDE), CROP_SIDE)


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
