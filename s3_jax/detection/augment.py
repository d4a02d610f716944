"""What is done to an image and its objects: the two-branch multi-scale augmentation of DETR and Swin, and test sizes.

A view is drawn from an image's height and width alone, before a pixel is read, so that the canvas it takes is known
when batches are put together.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from s3_jax.data.rescaling import Scale, Size, rescaled_size, resized_to
from s3_jax.detection.config import DetectionAugmentConfig
from s3_jax.detection.masks import CROP_SIDE, bitmap, crop
from s3_jax.detection.objects import Objects

# Of what is left of a box in the image's own pixels: a sliver teaches nothing. mmdetection keeps any, but leaves out
# boxes that are as small from the beginning.
LEAST_SIDE = 1.0


@dataclasses.dataclass(frozen=True)
class View:
    """How an image is shown: resized, cut, resized again, and mirrored; sizes are (height, width) in pixels."""

    original: Size
    resized: Size  # before the cut
    window: tuple[int, int, int, int]  # top, left, height, width of the cut, in pixels of the resized image
    size: Size  # as it is shown
    mirrored: bool = False  # left for right

    @property
    def seen(self) -> np.ndarray:
        """What of the original is shown, (4,): left, top, right, bottom in its pixels."""
        top, left, height, width = self.window
        return np.array([left, top, left + width, top + height]) / self._resizing

    @property
    def _resizing(self) -> np.ndarray:
        (height, width), (new_height, new_width) = self.original, self.resized
        return np.array([new_width / width, new_height / height] * 2)

    @property
    def _enlarging(self) -> np.ndarray:
        return np.array([self.size[1] / self.window[3], self.size[0] / self.window[2]] * 2)

    def of(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) of the original, left, top, right, bottom in pixels, as they are in the view; not cut."""
        top, left, _, _ = self.window
        return self._mirrored((boxes * self._resizing - [left, top, left, top]) * self._enlarging)

    def back(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) of the view as they are in the original, in its pixels; not cut at its edges."""
        top, left, _, _ = self.window
        return (self._mirrored(boxes) / self._enlarging + [left, top, left, top]) / self._resizing

    def _mirrored(self, boxes: np.ndarray) -> np.ndarray:
        if not self.mirrored:
            return boxes
        return np.array([self.size[1], 0, self.size[1], 0]) + boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1]


def drawn_view(height: int, width: int, rng: np.random.Generator, config: DetectionAugmentConfig) -> View:
    """A random view of an image of this size.

    Its shorter side is one of `short_sides`, or less where the longer one would be above `long_side`. With probability
    `crop_probability` the image is first resized to one of `crop_short_sides` in the same way and cut to a random
    window, of which each side is drawn from `crop_sides`; nothing of an object need be in it.
    """
    resized, window = (height, width), (0, 0, height, width)
    if rng.random() < config.crop_probability:
        resized = _drawn_size(height, width, rng, config.crop_short_sides, config.long_side)
        window = _drawn_window(resized, rng, config.crop_sides)
    size = _drawn_size(window[2], window[3], rng, config.short_sides, config.long_side)
    return View((height, width), resized, window, size, bool(rng.random() < config.horizontal_flip))


def whole_view(height: int, width: int, scale: Scale) -> View:
    """The whole image as large as fits into a scale, (longer, shorter) side in pixels."""
    size = height, width
    return View(size, size, (0, 0, height, width), rescaled_size(height, width, scale))


def fitted(view: View, canvas: Size) -> View:
    """The same view as large as fits onto a canvas, (height, width) in pixels, if it is larger."""
    factor = min(1.0, *(most / side for most, side in zip(canvas, view.size, strict=True)))
    height, width = (max(1, min(most, int(side * factor + 0.5))) for most, side in zip(canvas, view.size, strict=True))
    return dataclasses.replace(view, size=(height, width))


def shown(image: np.ndarray, view: View) -> np.ndarray:
    """An image, uint8 (H, W, 3), in a view: uint8 (*view.size, 3)."""
    top, left, height, width = view.window
    cut = resized_to(image, view.resized)[top : top + height, left : left + width]
    seen = resized_to(cut, view.size)
    return cv2.flip(seen, 1) if view.mirrored else seen


def shown_objects(objects: Objects, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 4), labels (N,) and masks' crops, uint8 (N, 112, 112), of the objects of which something is in a view.

    Boxes are cut at the view's edges; an object stays where a pixel of the original's or more is left along each axis.
    Crops are as `masks.crop` has them, of what is left of the box.
    """
    left, top, right, bottom = view.seen
    cut = np.clip(objects.boxes, [left, top, left, top], [right, bottom, right, bottom])
    kept = np.flatnonzero((cut[:, 2:] - cut[:, :2] >= LEAST_SIDE).all(axis=1)).tolist()
    crops = [crop(bitmap(objects.masks[each]), cut[each], mirrored=view.mirrored) for each in kept]
    stacked = np.stack(crops) if crops else np.zeros((0, CROP_SIDE, CROP_SIDE), np.uint8)
    return view.of(cut[kept]), objects.labels[kept], stacked


def _drawn_size(
    height: int, width: int, rng: np.random.Generator, short_sides: tuple[int, ...], long_side: int
) -> Size:
    short = short_sides[rng.integers(len(short_sides))]
    return rescaled_size(height, width, (long_side, short))


def _drawn_window(size: Size, rng: np.random.Generator, sides: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of a window in an image of a size; sides that it has less of it keeps whole."""
    height, width = (int(rng.integers(min(side, sides[0]), min(side, sides[1]) + 1)) for side in size)
    return int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1)), height, width
