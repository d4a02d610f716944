"""Bias tables, position embeddings and patches for another window, image size or patch size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def resize_table(table: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A bias table (H, W, C) at another size (H', W', C) by bicubic interpolation.

    As `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`: edges repeated, no antialiasing.
    """
    rows, columns = (_repeating(old, new) for old, new in zip(table.shape[:2], size, strict=True))
    return _apply(rows, columns, table)


def resize_positions(positions: np.ndarray, num_tokens: int) -> np.ndarray:
    """Position embeddings (1 + N, C) of a class token and a square of patches for another number of tokens.

    As the same with `antialias=True`: another cubic kernel, widened where the square shrinks, cut at the edges.
    """
    old, new = (math.isqrt(count - 1) for count in (len(positions), num_tokens))
    matrix = _antialiased(old, new)
    grid = _apply(matrix, matrix, positions[1:].reshape(old, old, -1))
    return np.concatenate([positions[:1], grid.reshape(new * new, -1)])


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
    return _apply(matrix, matrix, kernel.reshape(old, old, -1)).reshape(side, side, *kernel.shape[2:])


def _apply(rows: np.ndarray, columns: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.einsum("yh,xw,hwc->yxc", rows, columns, table.astype(np.float64)).astype(table.dtype)


def _repeating(old: int, new: int) -> np.ndarray:
    """Weights (new, old) of one axis, whose ends are repeated."""
    matrix = np.zeros((new, old))
    for index in range(new):
        centre = (index + 0.5) * old / new - 0.5
        first = math.floor(centre)
        for tap in range(first - 1, first + 3):
            matrix[index, min(max(tap, 0), old - 1)] += _cubic(centre - tap, -0.75)
    return matrix


def _antialiased(old: int, new: int) -> np.ndarray:
    """Weights (new, old) of one axis: the kernel as wide as the spacing, and normalised where the ends cut it."""
    scale = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = np.array([[_cubic((centre - tap) / scale, -0.5) for tap in range(old)] for centre in centres])
    return matrix / matrix.sum(1, keepdims=True)


def _cubic(x: float, a: float) -> float:
    """Keys' cubic kernel of sharpness `a` at distance `x`."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0
