"""Window attention with a learned relative position bias, on maps of any size."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from s3_jax.models.layers import Attention, Count, active_mask, pad_to_multiple
from s3_jax.space import HEAD_DIM

# What Swin adds to the logits of token pairs that are neighbours only because the map was rolled.
SHIFTED_APART = -100.0


class Windows(NamedTuple):
    """How a map is cut: the window's side in tokens and how far the map is rolled up and left before."""

    side: int
    shift: tuple[int, int]


def windows_of_block(side: int, height: int, width: int, index: int) -> Windows:
    """Windows of block `index` on a map: odd blocks shift by half a window along each axis it does not cover."""
    half = side // 2 if index % 2 else 0
    return Windows(side, (half if side < height else 0, half if side < width else 0))


def window_attention(weights: Attention, x: Array, windows: Windows, heads: Count = None) -> Array:
    """Multi-head self-attention within windows: (B, H, W, C) to (B, H, W, C), the first `heads` heads active.

    A map that is no multiple of the window is padded right and bottom; padded keys are attended to, as in Swin.
    """
    batch, height, width, _ = x.shape
    side, shift = windows
    x = pad_to_multiple(x, (side, side))
    padded = x.shape[1:3]
    if any(shift):
        x = jnp.roll(x, (-shift[0], -shift[1]), (1, 2))
    tokens = _attend(weights, partition(x, side), _logit_bias(weights, padded, windows), heads)
    x = unpartition(tokens, side, batch, padded)
    if any(shift):
        x = jnp.roll(x, shift, (1, 2))
    return x[:, :height, :width]


def partition(x: Array, side: int) -> Array:
    """(B, H, W, C) into windows (B, H / side * W / side, side * side, C)."""
    batch, height, width, dim = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, dim)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, side * side, dim)


def unpartition(windows: Array, side: int, batch: int, size: tuple[int, ...]) -> Array:
    """The inverse of `partition` for a map of `size` (H, W)."""
    height, width = size
    x = windows.reshape(batch, height // side, width // side, side, side, -1)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, -1)


def _attend(weights: Attention, x: Array, bias: Array, heads: Count) -> Array:
    """(B, windows, N, C) to (B, windows, N, C) with logits plus `bias` (windows or 1, heads, N, N)."""
    qkv = jnp.einsum("bwnc,cthd->tbwhnd", x, weights.qkv.kernel[...].astype(x.dtype))
    qkv = qkv + weights.qkv.bias[...].astype(x.dtype)[:, None, None, :, None, :]
    query, key, value = qkv[0] * HEAD_DIM**-0.5, qkv[1], qkv[2]
    logits = jnp.einsum("bwhnd,bwhmd->bwhnm", query, key).astype(jnp.float32) + bias
    attended = jnp.einsum("bwhnm,bwhmd->bwhnd", jax.nn.softmax(logits).astype(x.dtype), value)
    mask = active_mask(attended.shape[2], heads, x.dtype)
    if mask is not None:
        attended = attended * mask[:, None, None]
    out = jnp.einsum("bwhnd,hdc->bwnc", attended, weights.proj.kernel[...].astype(x.dtype))
    return out + weights.proj.bias[...].astype(x.dtype)


def _logit_bias(weights: Attention, size: tuple[int, ...], windows: Windows) -> Array:
    bias = relative_bias(weights.bias_table[...], windows.side)[None]
    if not any(windows.shift):
        return bias
    regions = jnp.asarray(shift_regions(size, windows))
    apart = regions[:, :, None] != regions[:, None, :]
    return bias + jnp.where(apart, SHIFTED_APART, 0.0)[:, None]


def relative_bias(table: Array, side: int) -> Array:
    """Bias of every pair of tokens in a window: (heads, side^2, side^2) from the centre of a table (S, S, heads)."""
    margin = (table.shape[0] + 1) // 2 - side
    table = table[margin : margin + 2 * side - 1, margin : margin + 2 * side - 1]
    return table.reshape(-1, table.shape[-1])[relative_index(side)].transpose(2, 0, 1)


def relative_index(side: int) -> np.ndarray:
    """Entry of the flattened table for every pair of tokens: (side^2, side^2) whole numbers, rows are queries."""
    row, column = np.divmod(np.arange(side * side), side)
    offset = np.stack([row[:, None] - row, column[:, None] - column]) + side - 1
    return offset[0] * (2 * side - 1) + offset[1]


def shift_regions(size: tuple[int, ...], windows: Windows) -> np.ndarray:
    """Which part of the unrolled map each token of a rolled map comes from: (number of windows, side^2) labels."""
    side, shift = windows
    labels = [
        np.where(np.arange(length) < length - side, 0, np.where(np.arange(length) < length - roll, 1, 2))
        if roll
        else np.zeros(length, int)
        for length, roll in zip(size, shift, strict=True)
    ]
    regions = (labels[0][:, None] * 3 + labels[1]).reshape(size[0] // side, side, size[1] // side, side)
    return regions.transpose(0, 2, 1, 3).reshape(-1, side * side)
