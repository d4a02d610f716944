"""RandAugment (Cubuk et al., 2020) with the operations of timm's `rand-m9-mstd0.5-inc1`, on uint8 (H, W, 3) arrays.

Each operation takes a strength in [-1, 1]: the magnitude over its maximum, with a random sign for those that have two
directions. "Increasing" means that a larger magnitude is always the stronger change. Results agree with Pillow's
operations, which timm calls, up to rounding; OpenCV and tables do them in a fraction of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import cv2
import numpy as np

cv2.setNumThreads(0)  # loader workers are the parallelism; OpenCV's threads would fight over the cores

MAX_MAGNITUDE = 10.0
PROBABILITY = 0.5  # of each drawn operation to be applied, timm's
Fill = tuple[int, int, int]  # colour of pixels from outside the image

_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13  # Pillow's ImageFilter.SMOOTH
_LEVELS = np.arange(256)


def rand_augment(
    pixels: np.ndarray,
    rng: np.random.Generator,
    *,
    layers: int,
    magnitude: float,
    magnitude_std: float,
    fill: Fill,
) -> np.ndarray:
    """The image after `layers` operations drawn with replacement, each applied with probability 0.5.

    pixels: uint8 (H, W, 3). magnitude: of 10; each operation's own is drawn around it, normally with magnitude_std.
    """
    for index in rng.integers(len(OPERATIONS), size=layers):
        if rng.random() < PROBABILITY:
            drawn = min(max(rng.normal(magnitude, magnitude_std), 0.0), MAX_MAGNITUDE) / MAX_MAGNITUDE
            strength = -drawn if rng.random() < 0.5 else drawn
            pixels = OPERATIONS[index](pixels, strength, fill)
    return pixels


def adjust_brightness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Black at factor 0, the image at 1; uint8 (H, W, 3)."""
    return looked_up(pixels, _LEVELS * factor)


def adjust_contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """The image's mean grey at factor 0, the image at 1; uint8 (H, W, 3)."""
    mean = math.floor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean() + 0.5)
    return looked_up(pixels, mean + (_LEVELS - mean) * factor)


def adjust_saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """The grey image at factor 0, the image at 1; uint8 (H, W, 3)."""
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _blend(grey, pixels, factor)


def adjust_sharpness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """The smoothed image at factor 0, the image at 1, sharper above; uint8 (H, W, 3), its border left as it is."""
    smooth = pixels.copy()
    smooth[1:-1, 1:-1] = cv2.filter2D(pixels, -1, _SMOOTH)[1:-1, 1:-1]
    return _blend(smooth, pixels, factor)


def _auto_contrast(pixels: np.ndarray, strength: float, fill: Fill) -> np.ndarray:
    """Every channel stretched to 0..255."""
    tables = []
    for histogram in _histograms(pixels):
        present = np.flatnonzero(histogram)
        low, high = present[0], present[-1]
        tables.append(_LEVELS if high == low else (_LEVELS - low) * (255 / (high - low)))
    return looked_up(pixels, np.stack(tables, axis=-1))


def _equalize(pixels: np.ndarray, strength: float, fill: Fill) -> np.ndarray:
    """Every channel's histogram made flat."""
    tables = []
    for histogram in _histograms(pixels):
        present = histogram[histogram > 0]
        step = (present.sum() - present[-1]) // 255  # the last level is left out, as Pillow does
        below = np.cumsum(histogram) - histogram
        tables.append((below + step // 2) // step if step else _LEVELS)
    return looked_up(pixels, np.stack(tables, axis=-1))


def _invert(pixels: np.ndarray, strength: float, fill: Fill) -> np.ndarray:
    return 255 - pixels


def _posterize(pixels: np.ndarray, strength: float, fill: Fill) -> np.ndarray:
    """4 bits of each channel kept at strength 0, one at 1 (where timm's formula gives none: a black image)."""
    bits = max(1, 4 - int(4 * abs(strength)))
    return pixels & np.uint8(256 - 2 ** (8 - bits))


def _solarize(pixels: np.ndarray, strength: float, fill: Fill) -> np.ndarray:
    """Levels above a threshold inverted: none at strength 0, all at 1."""
    threshold = 256 - int(256 * abs(strength))
    return looked_up(pixels, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def _solarize_add(pixels: np.ndarray, strength: float, fill: Fill) -> np.ndarray:
    """Up to 110 added to levels below 128."""
    added = int(110 * abs(strength))
    return looked_up(pixels, np.where(_LEVELS < 128, _LEVELS + added, _LEVELS))


def _enhancement(adjust: Callable[[np.ndarray, float], np.ndarray]) -> Operation:
    def operation(pixels: np.ndarray, strength: float, fill: Fill) -> np.ndarray:
        """The adjustment by a factor that the strength gives."""
        return adjust(pixels, max(0.1, 1 + 0.9 * strength))

    return operation


def _rotate(pixels: np.ndarray, strength: float, fill: Fill) -> np.ndarray:
    """Up to 30 degrees about the centre, counter-clockwise for positive strength."""
    angle = math.radians(30 * strength)
    cosine, sine = math.cos(angle), math.sin(angle)
    x, y = pixels.shape[1] / 2, pixels.shape[0] / 2
    rows = (cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y)
    return _affine(pixels, rows, fill)


def _shear_x(pixels: np.ndarray, strength: float, fill: Fill) -> np.ndarray:
    return _affine(pixels, (1, 0.3 * strength, 0, 0, 1, 0), fill)


def _shear_y(pixels: np.ndarray, strength: float, fill: Fill) -> np.ndarray:
    return _affine(pixels, (1, 0, 0, 0.3 * strength, 1, 0), fill)


def _translate_x(pixels: np.ndarray, strength: float, fill: Fill) -> np.ndarray:
    """Up to 0.45 of the width."""
    return _affine(pixels, (1, 0, 0.45 * strength * pixels.shape[1], 0, 1, 0), fill)


def _translate_y(pixels: np.ndarray, strength: float, fill: Fill) -> np.ndarray:
    """Up to 0.45 of the height."""
    return _affine(pixels, (1, 0, 0, 0, 1, 0.45 * strength * pixels.shape[0]), fill)


Operation = Callable[[np.ndarray, float, Fill], np.ndarray]
OPERATIONS: tuple[Operation, ...] = (
    _auto_contrast,
    _equalize,
    _invert,
    _rotate,
    _posterize,
    _solarize,
    _solarize_add,
    _enhancement(adjust_saturation),
    _enhancement(adjust_contrast),
    _enhancement(adjust_brightness),
    _enhancement(adjust_sharpness),
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
)


def looked_up(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Each level replaced by the table's, (256,) for all channels or (256, 3); cut to whole numbers in 0..255."""
    levels = np.clip(table, 0, 255).astype(np.uint8)
    return cv2.LUT(pixels, levels if levels.ndim == 1 else levels.reshape(1, 256, 3))


def _blend(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """first + share * (second - first), also beyond 1, cut to 0..255."""
    return cv2.addWeighted(second, share, first, 1 - share, 0.0)


def _histograms(pixels: np.ndarray) -> np.ndarray:
    """Number of pixels of every level, int64 (3, 256)."""
    counts = [cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
    return np.stack(counts).astype(np.int64)


def _affine(pixels: np.ndarray, rows: tuple[float, float, float, float, float, float], fill: Fill) -> np.ndarray:
    """Output pixel (x, y) taken, bicubic, from (ax + by + c, dx + ey + f); pixel centres lie at half coordinates."""
    a, b, c, d, e, f = rows
    matrix = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
    height, width = pixels.shape[:2]
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, matrix, (width, height), flags=flags, borderValue=cast(tuple[float, ...], fill))
