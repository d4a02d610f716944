"""The places of an image on its canvas as tokens: which are there, what they are pooled of, and where they are."""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
from jax import Array

_TEMPERATURE = 10_000.0
_TINY = 1e-6  # DETR's


def places_of(sizes: Array, map_size: tuple[int, int], stride: int) -> Array:
    """Which places of a map (B, h, w) show a pixel of the image, bool; sizes: int (B, 2), heights and widths in pixels.

    SOHO's own code takes the canvas's height for both axes; here each axis has its own.
    """
    rows, columns = (_there(sizes, axis, length, stride) for axis, length in enumerate(map_size))
    return rows[:, :, None] & columns[:, None, :]


def _there(sizes: Array, axis: int, length: int, stride: int) -> Array:
    """Which rows (axis 0) or columns show a pixel: (B, length)."""
    return jnp.arange(length) * stride < sizes[:, axis, None]


def pooled(x: Array, there: Array) -> Array:
    """The largest values of 2 x 2 places of (B, h, w, C) that are there (B, h, w): (B, ceil(h / 2), ceil(w / 2), C).

    Where none of the four is, 0. Odd maps keep their last row and column, which a plain max pool would leave out.
    """
    lowest = -jnp.inf
    held = jnp.where(there[..., None], x, jnp.asarray(lowest, x.dtype))
    held = jnp.pad(held, ((0, 0), *((0, length % 2) for length in x.shape[1:3]), (0, 0)), constant_values=lowest)
    # Pairwise: the gradient of a maximum over axes looks for the entry that equals it, and XLA may have computed that
    # entry twice, in ways that round differently; then it finds none.
    quarters = [held[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    largest = functools.reduce(jnp.maximum, quarters)
    return jnp.where(jnp.isneginf(largest), 0, largest)


def positions_of(sizes: Array, map_size: tuple[int, int], stride: int, width: int) -> Array:
    """Sines and cosines of where each place is, float32 (B, h, w, width): the first half of its row (Carion et al.,
    2020), the second of its column, both counted from 1 and scaled so that the image's last is 2 pi."""
    axes = []
    for axis, length in enumerate(map_size):
        last = _there(sizes, axis, length, stride).astype(jnp.float32).sum(-1, keepdims=True)
        scaled = jnp.arange(1, length + 1) / (last + _TINY) * (2 * math.pi)
        axes.append(_waves(scaled, width // 2))
    shape = (sizes.shape[0], *map_size, width // 2)
    rows, columns = axes[0][:, :, None], axes[1][:, None, :]
    return jnp.concatenate([jnp.broadcast_to(rows, shape), jnp.broadcast_to(columns, shape)], axis=-1)


def _waves(places: Array, channels: int) -> Array:
    """(B, n) to (B, n, channels): sine and cosine in turns, of ever longer waves."""
    wavelengths = _TEMPERATURE ** (2 * jnp.arange(channels // 2) / channels)
    angles = places[..., None] / wavelengths
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(*places.shape, channels)
