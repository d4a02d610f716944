"""Bias tables, position embeddings and patches for another window, image size or patch size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import jax
import numpy as np


def resize_table(table: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A bias table (H, W, C) at another size (H', W', C) by bicubic interpolation.

    As `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`: edges repeated, no antialiasing.
    """
    resized = cv2.resize(table.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return resized.reshape(*size, -1).astype(table.dtype)  # OpenCV leaves out an axis of one channel


def resize_positions(positions: np.ndarray, num_tokens: int) -> np.ndarray:
    """Position embeddings (1 + N, C) of a class token and a square of patches for another number of tokens.

    As the same with `antialias=True`: another cubic kernel, widened where the square shrinks, cut at the edges.
    """
    old, new = (math.isqrt(count - 1) for count in (len(positions), num_tokens))
    grid = jax.image.resize(positions[1:].reshape(old, old, -1), (new, new, positions.shape[-1]), "bicubic")
    return np.concatenate([positions[:1], np.asarray(grid, positions.dtype).reshape(new * new, -1)])


def fit_table(table: np.ndarray, windows: Sequence[int], side: int) -> np.ndarray:
    """A network's bias table (S, S, C) for the supernet of a stage: (2w-1, 2w-1, C), w the largest of its `windows`.

    windows: the choices, none above the `side` of the map. On such a map the network uses the centre of its table. That
    is kept as it is where its window is a choice, whose subnets then compute what the network does; else it is resized
    to the nearest one. Pairs of tokens that are further apart have what the outermost ones have.
    """
    own = min((len(table) + 1) // 2, side)
    margin = (len(table) + 1) // 2 - own
    table = table[margin : margin + 2 * own - 1, margin : margin + 2 * own - 1]
    nearest = min(windows, key=lambda window: (abs(window - own), -window))
    if nearest != own:
        table = resize_table(table, (2 * nearest - 1,) * 2)
    further = (max(windows) - nearest,) * 2
    return np.pad(table, (further, further, (0, 0)), mode="edge")


def resize_patches(kernel: np.ndarray, side: int) -> np.ndarray:
    """A kernel of patches (P, P, channels, C) for patches of another side.

    It answers to a small patch what the kernel answers to the same enlarged by bicubic interpolation, or the other way
    round: patches that grow are FlexiViT's (Beyer et al. 2023, Eq. 4).
    """
    old = len(kernel)
    if side == old:
        return kernel
    matrix = np.linalg.pinv(_antialiased(old, side)).T if side > old else _antialiased(side, old).T
    flat = kernel.reshape(old, old, -1).astype(np.float64)
    resized = np.einsum("yh,xw,hwc->yxc", matrix, matrix, flat)
    return resized.astype(kernel.dtype).reshape(side, side, *kernel.shape[2:])


def _antialiased(old: int, new: int) -> np.ndarray:
    """Weights (new, old) of one axis in bicubic interpolation as `resize_positions` has it."""
    return np.asarray(jax.image.resize(np.eye(old, dtype=np.float32), (new, old), "bicubic"), np.float64)
