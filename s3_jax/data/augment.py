"""What can be done to one image on its way into a batch: crops, colours, normalisation and erasing.

Which of it is done, and how strongly, the tasks say; constants that no task sets are timm's.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image

from s3_jax.data import rand_augment as ra
from s3_jax.data.sources import Box, decode, decoded_for

CROP_ATTEMPTS = 10  # of a random crop or erased area to fit into the image
LONGEST_WHOLE = 16  # longer over shorter side: the most at which evaluation resizes the whole image before it crops
ERASE_AREA = (0.02, 1 / 3)  # share of the image
ERASE_RATIO = (0.3, 1 / 0.3)  # height over width


def centred(image: Image.Image, image_size: int, crop: float) -> np.ndarray:
    """The central square, `crop` of the shorter side, as uint8 (image_size, image_size, 3), bicubic.

    That is the image resized to image_size / crop on its shorter side, then cropped, both to whole pixels as
    torchvision does it, and timm by it; an image of that size already keeps its pixels. Raises BadImage.
    """
    short = math.floor(image_size / crop)
    width, height = (int(short * length / min(image.size)) for length in image.size)
    left, top = round((width - image_size) / 2), round((height - image_size) / 2)
    decoded = decode(image)
    if max(width, height) <= LONGEST_WHOLE * short:
        whole = decoded.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(whole.crop((left, top, left + image_size, top + image_size)))
    # The same without what the crop throws away: of 1 x 4,000 pixels the whole would be a gigabyte. Not always, since
    # Pillow orders its two passes by the shape, and between them it rounds and clips.
    x, y = image.width / width, image.height / height
    right, bottom = min((left + image_size) * x, image.width), min((top + image_size) * y, image.height)
    box = (left * x, top * y, right, bottom)
    return np.asarray(decoded.resize((image_size, image_size), Image.Resampling.BICUBIC, box=box))


def quickly_resized(image: Image.Image, box: Box, size: int) -> np.ndarray:
    """The box of the image, to whole pixels, as uint8 (size, size, 3): shrunk by averaging areas, enlarged bicubically.

    Takes less than half the time of Pillow's antialiased bicubic filter, which evaluation keeps. Raises BadImage.
    """
    decoded, (left, top, right, bottom) = decoded_for(image, box, size)
    left, top = min(round(left), decoded.width - 1), min(round(top), decoded.height - 1)
    part = np.asarray(decoded.crop((left, top, max(round(right), left + 1), max(round(bottom), top + 1))))
    shrinks = min(part.shape[:2]) >= size
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def random_crop_box(
    rng: np.random.Generator, image_wh: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """A box of random area (share of the image, within scale) and shape (width over height, log-uniform in ratio).

    Where none of ten fits: the largest central box of an allowed shape (Szegedy et al., 2015, as torchvision does it).
    """
    width, height = image_wh
    for _ in range(CROP_ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        shape = _log_uniform(rng, ratio)
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = max(1, min(width, round(height * ratio[1]))), max(1, min(height, round(width / ratio[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def pad_crop(pixels: np.ndarray, rng: np.random.Generator, padding: int) -> np.ndarray:
    """The image padded with `padding` black pixels on every side, cropped back to its size at a random place."""
    height, width, channels = pixels.shape
    padded = np.zeros((height + 2 * padding, width + 2 * padding, channels), pixels.dtype)
    padded[padding : padding + height, padding : padding + width] = pixels
    top, left = rng.integers(2 * padding + 1), rng.integers(2 * padding + 1)
    return padded[top : top + height, left : left + width]


def color_jitter(pixels: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Brightness, contrast and saturation, in random order, times factors from [max(0, 1 - strength), 1 + strength]."""
    adjustments = (ra.adjust_brightness, ra.adjust_contrast, ra.adjust_saturation)
    for index in rng.permutation(len(adjustments)):
        pixels = adjustments[index](pixels, rng.uniform(max(0.0, 1 - strength), 1 + strength))
    return pixels


def erase(image: np.ndarray, rng: np.random.Generator, probability: float) -> None:
    """With `probability` fills a random rectangle with normal noise, pixel by pixel (Zhong et al., 2020), in place.

    image: float32 (H, W, 3), normalised. Nothing is erased where none of ten rectangles fits.
    """
    if rng.random() >= probability:
        return
    height, width, channels = image.shape
    for _ in range(CROP_ATTEMPTS):
        area = height * width * rng.uniform(*ERASE_AREA)
        shape = _log_uniform(rng, ERASE_RATIO)
        h, w = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < h < height and 0 < w < width:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            noise = rng.standard_normal((h, w, channels), dtype=np.float32)
            image[top : top + h, left : left + w] = noise
            return


class Normalization:
    """(x / 255 - mean) / std for square images of one size, its constants laid out so that numpy runs fast."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float], image_size: int):
        self._scale = np.tile(np.float32(1 / (255 * np.asarray(std))), (image_size, 1))
        self._shift = np.tile(np.float32(np.asarray(mean) / np.asarray(std)), (image_size, 1))

    def __call__(self, pixels: np.ndarray, out: np.ndarray) -> None:
        """Writes the normalised pixels, uint8 (S, S, 3), to `out`, float32 (S, S, 3)."""
        np.multiply(pixels, self._scale, out=out, dtype=np.float32)
        out -= self._shift


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1])))
