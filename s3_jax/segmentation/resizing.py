"""Bilinear resizing and adaptive pooling of maps, as products with small matrices of one axis each.

Both are linear and treat every channel alike, so they may change places with any product over channels: that is what
makes `enlarged_convolution` cheap. Only `interpolated`, which nothing is trained through, picks entries instead.
"""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from s3_jax.models.convolution import convolution
from s3_jax.models.layers import product

Size = tuple[int, int]  # height and width


@cache
def resize_matrix(size: int, new: int) -> np.ndarray:
    """Bilinear interpolation of `size` entries at `new` places: float32 (new, size), each row sums to 1.

    As PyTorch has it with align_corners=False: pixels are areas, places beyond the outermost centres take these, and
    shrinking does not average.
    """
    below, above, share = _neighbours(size, new)
    matrix = np.zeros((new, size), np.float32)
    np.add.at(matrix, (np.arange(new), below), 1 - share)
    np.add.at(matrix, (np.arange(new), above), share)
    return matrix


def _neighbours(size: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two entries that each of `new` places is between, and the share of the second, each (new,)."""
    places = np.clip((np.arange(new) + 0.5) * (size / new) - 0.5, 0, size - 1)
    below = np.minimum(np.floor(places).astype(int), size - 1)
    return below, np.minimum(below + 1, size - 1), places - below


@cache
def pool_matrix(size: int, new: int) -> np.ndarray:
    """Means of `size` entries over `new` areas that cover them, as PyTorch's AdaptiveAvgPool: float32 (new, size)."""
    starts = np.arange(new) * size // new
    ends = -(-(np.arange(new) + 1) * size // new)
    inside = (np.arange(size) >= starts[:, None]) & (np.arange(size) < ends[:, None])
    return (inside / (ends - starts)[:, None]).astype(np.float32)


def along_rows(matrix: np.ndarray, x: Array) -> Array:
    """The matrix (h, H) times every column of a map: (B, H, W, C) to (B, h, W, C)."""
    batch, height, width, channels = x.shape
    return _times(matrix, x.reshape(batch, height, -1)).reshape(batch, -1, width, channels)


def along_columns(matrix: np.ndarray, x: Array) -> Array:
    """The matrix (w, W) times every row of a map: (B, H, W, C) to (B, H, w, C)."""
    batch, height, width, channels = x.shape
    return _times(matrix, x.reshape(-1, width, channels)).reshape(batch, height, -1, channels)


def _times(matrix: np.ndarray, x: Array) -> Array:
    """The matrix (n, N) times each of (K, N, C): (K, n, C), as products in which nothing changes places."""
    copies = jnp.broadcast_to(jnp.asarray(matrix, x.dtype), (x.shape[0], *matrix.shape))
    return jax.lax.dot_general(copies, x, (((2,), (1,)), ((0,), (0,))))


def resized(x: Array, size: Size) -> Array:
    """A map (B, H, W, C) at another size, bilinear, see `resize_matrix`."""
    rows, columns = (resize_matrix(old, new) for old, new in zip(x.shape[1:3], size, strict=True))
    return along_columns(columns, along_rows(rows, x)) if x.shape[1:3] != size else x


def interpolated(x: Array, size: Size) -> Array:
    """The same as `resized`, in a sixth of its time on a CPU, but not for training: the gradient would scatter."""
    for axis in (2, 1):
        below, above, share = _neighbours(x.shape[axis], size[axis - 1])
        first, second = (jnp.take(x, entries, axis=axis) for entries in (below, above))
        x = first + (second - first) * share.astype(x.dtype).reshape(-1, *[1] * (3 - axis))
    return x


def pooled(x: Array, side: int) -> Array:
    """A map (B, H, W, C) averaged to (B, side, side, C), see `pool_matrix`."""
    return along_columns(pool_matrix(x.shape[2], side), along_rows(pool_matrix(x.shape[1], side), x))


def enlarged_convolution(kernel: Array, x: Array, size: Size, *, by_products: bool) -> Array:
    """The convolution of a map that is first enlarged to `size`: kernel (k, k, C, O), (B, h, w, C) to (B, H, W, O).

    The products with the kernel, one for each of its k * k places, come first, on the small map; their results are
    enlarged, moved to where the place looks, and added. Of a map of half the side that is a quarter of the products.
    """
    if x.shape[1:3] == size:
        return convolution(kernel, x, by_products=by_products)
    side = len(kernel)
    kernel = kernel.astype(x.dtype)
    rows, columns = (_moved_along(resize_matrix(old, new), side) for old, new in zip(x.shape[1:3], size, strict=True))
    tall = []
    for column in range(side):
        products = [product(x, kernel[row, column]) for row in range(side)]
        tall.append(along_rows(rows, jnp.concatenate(products, axis=1)))
    return along_columns(columns, jnp.concatenate(tall, axis=2))


def _moved_along(matrix: np.ndarray, side: int) -> np.ndarray:
    """For each place of a kernel the matrix moved to where it looks, side by side: (n, N) to (n, side * N)."""
    return np.concatenate([moved(matrix, place - side // 2) for place in range(side)], axis=1)


def moved(matrix: np.ndarray, offset: int) -> np.ndarray:
    """A matrix whose row i is row i + offset of the given one, and zero where there is none."""
    result = np.zeros_like(matrix)
    length = len(matrix)
    result[max(0, -offset) : length - max(0, offset)] = matrix[max(0, offset) : length + min(0, offset)]
    return result
