"""Bias tables and position embeddings for another window or image size."""

from __future__ import annotations

import math

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
