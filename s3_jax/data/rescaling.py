"""Sizes that images are resized to where their shape is kept, their pixels then, and what networks see of them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

cv2.setNumThreads(0)  # loader workers are the parallelism; OpenCV's threads would fight over the cores

Size = tuple[int, int]  # height and width
Scale = tuple[int, int]  # most pixels of the longer and of the shorter side


def rescaled_size(height: int, width: int, scale: Scale) -> Size:
    """The largest size of an image's shape that fits into a scale, to the nearest pixel, at least 1 (mmcv's rule)."""
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resized_to(image: np.ndarray, size: Size) -> np.ndarray:
    """An image, uint8 (H, W, 3), at another size, bilinear and, as in OpenMMLab's code, without antialiasing."""
    return image if image.shape[:2] == size else cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def normalized(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(x / 255 - mean) / std of uint8 (H, W, 3), float32; mean and std of red, green and blue in [0, 1]."""
    factor, shift = np.float32(1 / (255 * np.asarray(std))), np.float32(np.asarray(mean) / np.asarray(std))
    return image * factor - shift
