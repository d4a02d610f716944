"""What is done to an image and its class map: mmsegmentation's training augmentation of ADE20K, and sizes to test at.

Images are uint8 (H, W, 3), RGB; class maps are uint8 (H, W), and IGNORED where a pixel does not count.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from s3_jax.data.rand_augment import looked_up
from s3_jax.data.rescaling import Scale, Size, rescaled_size, resized_to
from s3_jax.segmentation.class_table import IGNORED
from s3_jax.segmentation.config import SegmentationAugmentConfig

cv2.setNumThreads(0)  # loader workers are the parallelism; OpenCV's threads would fight over the cores

CROP_ATTEMPTS = 10  # to find a crop in which no class covers too much
DISTORTION_PROBABILITY = 0.5  # of each step of the photometric distortion, mmsegmentation's
HUES = 180  # OpenCV's of the circle

_LEVELS = np.arange(256, dtype=np.float32)


def augmented(
    image: np.ndarray, classes: np.ndarray, rng: np.random.Generator, config: SegmentationAugmentConfig
) -> tuple[np.ndarray, np.ndarray, Size]:
    """A random view of an image with its classes, and the height and width of what is not padding, at the top left.

    image: uint8 (H, W, 3) to (crop, crop, 3), padded with 0, where mmsegmentation has zeros after normalisation.
    classes: uint8 (H, W) to (crop, crop), padded with IGNORED.
    """
    image, classes = resized(image, classes, rng, config.scale, config.ratio)
    image, classes = random_crop(image, classes, rng, config.crop, config.largest_class)
    image, classes = random_flip(image, classes, rng, config.horizontal_flip)
    if config.photometric:
        image = photometric_distortion(image, rng, config)
    return padded(image, classes, config.crop)


def evaluation_size(height: int, width: int, scale: Scale, multiple: int) -> Size:
    """The size to test an image at: as large as fits into a scale, each side then brought up to a multiple.

    1 is mmsegmentation's test of ADE20K; its ResizeToMultiple is the same for others.
    """
    height, width = rescaled_size(height, width, scale)
    return math.ceil(height / multiple) * multiple, math.ceil(width / multiple) * multiple


def classes_resized_to(classes: np.ndarray, size: Size) -> np.ndarray:
    """A class map, uint8 (H, W), at another size: each pixel has the class of one of the original (OpenCV's rule)."""
    return classes if classes.shape == size else cv2.resize(classes, size[::-1], interpolation=cv2.INTER_NEAREST)


def resized(
    image: np.ndarray, classes: np.ndarray, rng: np.random.Generator, scale: Scale, ratio: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) and classes (H, W) as large as fits into a scale times a factor drawn uniformly from `ratio`."""
    factor = rng.uniform(*ratio)
    long, short = (max(1, int(side * factor)) for side in scale)
    height, width = classes.shape
    size = rescaled_size(height, width, (long, short))
    return resized_to(image, size), classes_resized_to(classes, size)


def random_crop(
    image: np.ndarray, classes: np.ndarray, rng: np.random.Generator, crop: int, largest_class: float
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) and classes (H, W) cut to at most `crop` pixels a side, at a random place.

    Of ten places the first is taken where there are two classes or more and each covers less than `largest_class` of
    the pixels that count, else an eleventh, as in mmsegmentation; any place where `largest_class` is 1.
    """
    window = _random_window(rng, classes.shape, crop)
    for _ in range(CROP_ATTEMPTS if largest_class < 1 else 0):
        if is_varied(classes[window], largest_class):
            break
        window = _random_window(rng, classes.shape, crop)
    return image[window], classes[window]


def is_varied(classes: np.ndarray, largest_class: float) -> bool:
    """Whether there are two classes or more, each on less than `largest_class` of the pixels that count."""
    counts = cv2.calcHist([classes], [0], None, [256], [0, 256]).ravel()  # a tenth of the time of numpy's
    counts[IGNORED] = 0
    return bool(np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < largest_class)


def random_flip(
    image: np.ndarray, classes: np.ndarray, rng: np.random.Generator, probability: float
) -> tuple[np.ndarray, np.ndarray]:
    """Both image (H, W, 3) and classes (H, W) mirrored, left for right, with a probability."""
    if rng.random() >= probability:
        return image, classes
    return cv2.flip(image, 1), cv2.flip(classes, 1)


def photometric_distortion(
    image: np.ndarray, rng: np.random.Generator, config: SegmentationAugmentConfig
) -> np.ndarray:
    """An image, uint8 (H, W, 3), of changed brightness, contrast, saturation and hue, each with probability 0.5.

    In this order, or with contrast last, by a coin: mmsegmentation's PhotoMetricDistortion. Its largest turn of the
    hue is left out of its draws, though its opposite is not; here both are drawn.
    """
    if _happens(rng):
        image = looked_up(image, _LEVELS + rng.uniform(-config.brightness, config.brightness))
    contrast_first = _happens(rng)
    if contrast_first:
        image = _random_contrast(image, rng, config.contrast)
    if _happens(rng):
        image = _in_hsv(image, 1, _LEVELS * rng.uniform(*config.saturation))
    if _happens(rng):
        turn = rng.integers(-config.hue, config.hue, endpoint=True)
        image = _in_hsv(image, 0, (_LEVELS + turn) % HUES)
    return image if contrast_first else _random_contrast(image, rng, config.contrast)


def padded(image: np.ndarray, classes: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, Size]:
    """Copies at the top left of (side, side, 3) zeros and of (side, side) IGNORED, and their height and width."""
    height, width = classes.shape
    wide_image = np.zeros((side, side, 3), np.uint8)
    wide_classes = np.full((side, side), IGNORED, np.uint8)
    wide_image[:height, :width], wide_classes[:height, :width] = image, classes
    return wide_image, wide_classes, (height, width)


def _random_window(rng: np.random.Generator, size: Size, crop: int) -> tuple[slice, slice]:
    """Slices of rows and columns, `crop` long or the whole side where that is less."""
    top, left = (int(rng.integers(max(side - crop, 0) + 1)) for side in size)
    return slice(top, top + crop), slice(left, left + crop)


def _happens(rng: np.random.Generator) -> bool:
    return rng.random() < DISTORTION_PROBABILITY


def _random_contrast(image: np.ndarray, rng: np.random.Generator, factors: tuple[float, float]) -> np.ndarray:
    return looked_up(image, _LEVELS * rng.uniform(*factors)) if _happens(rng) else image


def _in_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """The image with its hue (channel 0, of 180) or saturation (1, of 255) replaced by a table's, (256,)."""
    tables = np.repeat(_LEVELS[:, None], 3, axis=1)
    tables[:, channel] = table
    return cv2.cvtColor(looked_up(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables), cv2.COLOR_HSV2RGB)
