"""Window attention with a learned relative position bias, on maps of any size."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from s3_jax.models.heads import Heads, OverHeads, all_at_once
from s3_jax.models.layers import ActiveCount, Attention, Linear, pad_to_multiple, product
from s3_jax.space import HEAD_DIM

# What Swin adds to the logits of token pairs that are neighbours only because the map was rolled.
SHIFTED_APART = -100.0

Shifted = bool | Array


class Windows(NamedTuple):
    """How a map is cut: the window's side in tokens and how far the map is rolled up and left before."""

    side: int
    shift: tuple[int, int]


def windows_of_block(side: int, height: int, width: int, index: int, limit: int | None = None) -> Windows:
    """Windows of block `index` on a map: odd blocks shift by half a window.

    limit: the largest side, and then there is no shift along an axis that a window covers. None is no limit, as in
    Swin's code for detection and segmentation: smaller maps are padded to the window, and shifted like others.
    """
    side = side if limit is None else min(side, limit)
    half = side // 2 if index % 2 else 0
    if limit is None:
        return Windows(side, (half, half))
    return Windows(side, (half if side < height else 0, half if side < width else 0))


def window_attention(weights: Attention, x: Array, windows: Windows, over_heads: OverHeads) -> Array:
    """Multi-head self-attention within windows: (B, H, W, C) to (B, H, W, C).

    The linear layers run on the map's own tokens alone.
    """
    qkv, bias, table = project_qkv(weights.qkv.kernel[...], x), weights.qkv.bias[...], weights.bias_table[...]
    return project_heads(weights.proj, attend_within(qkv, bias, table, windows, over_heads))


def project_qkv(kernel: Array, x: Array) -> Array:
    """Query, key and value of each head without bias: (B, H, W, C) to (B, H, W, heads * 96); kernel (C, 3, heads, 32).

    Heads and their channels are one axis: an axis of 32 takes four times its memory on a TPU.
    """
    return product(x, kernel.swapaxes(1, 2).reshape(kernel.shape[0], -1))


def project_heads(proj: Linear, attended: Array, computed: int | None = None) -> Array:
    """What the heads found, mixed: (B, H, W, heads * 32) to (B, H, W, computed), the first channels (None: all)."""
    kernel = proj.kernel[..., :computed]
    out = product(attended, kernel.reshape(-1, kernel.shape[-1]))
    return out + proj.bias[:computed].astype(out.dtype)


def attend_within(
    qkv: Array,
    bias: Array,
    table: Array,
    windows: Windows,
    over_heads: OverHeads,
    active: ActiveCount = None,
    shifted: Shifted = True,
) -> Array:
    """Attention of the tokens of each window to each other: (B, H, W, heads * 96) to (B, H, W, heads * 32).

    bias: of queries, keys and values (3, heads, 32). table: relative position bias (S, S, heads). over_heads: in which
    order heads are computed. active: how many of the heads count (None: all); the others are zero. shifted: whether the
    windows' shift, if they have one, applies. A map that is no multiple of the window is padded right and bottom with
    tokens that have the bias alone; they are attended to, as in Swin, where zeros are padded before the linear layer.
    """
    height, width = qkv.shape[1:3]
    heads = _heads(qkv, bias, table, windows.side)
    return over_heads(partial(attend, windows=windows), heads, shifted, active)[:, :height, :width]


def attention_weights(weights: Attention, x: Array, windows: Windows) -> Array:
    """With which weights `window_attention` adds up values: (B, H, W, C) to (B, H, W, heads, side^2), float32.

    They are those of each token over the tokens of its window in the rolled and padded map, row by row; their sum is 1.
    """
    height, width = x.shape[1:3]
    qkv, bias, table = project_qkv(weights.qkv.kernel[...], x), weights.qkv.bias[...], weights.bias_table[...]
    heads = _heads(qkv, bias, table, windows.side)
    found = all_at_once(partial(weigh, windows=windows), heads, True, None)[:, :height, :width]
    return found.reshape(*found.shape[:3], len(heads.bias), -1)


def _heads(qkv: Array, bias: Array, table: Array, side: int) -> Heads:
    """What `attend_within` is given, of a map that is padded to multiples of the window's side."""
    padded = pad_to_multiple(qkv, (side, side))
    return Heads(padded, bias.swapaxes(0, 1).reshape(bias.shape[1], -1), relative_bias(table, side))


def attend(inputs: tuple[Array, Array, Array], shifted: Shifted, windows: Windows) -> Array:
    """One head of attention within windows that tile the map: (B, H, W, 96) to (B, H, W, 32).

    inputs: queries, keys and values; their bias (96,); what is added to the logits of a window's pairs of tokens
    (side^2, side^2).
    """
    query, key, value = _in_windows(inputs, shifted, windows)
    # A softmax whose division comes last, where it is 32 numbers a token and not side^2.
    weights = _exponentials(query, key, inputs, shifted, windows)
    total = weights.sum(-1, keepdims=True)
    x = jnp.einsum("bwnm,bwmd->bwnd", weights.astype(value.dtype), value) / total.astype(value.dtype)
    return _on_map(x, inputs[0].shape[1:3], shifted, windows)


def weigh(inputs: tuple[Array, Array, Array], shifted: Shifted, windows: Windows) -> Array:
    """The weights of one head, as `attend` has them, over each token's window: (B, H, W, 96) to (B, H, W, side^2)."""
    query, key, _ = _in_windows(inputs, shifted, windows)
    weights = _exponentials(query, key, inputs, shifted, windows)
    return _on_map(weights / weights.sum(-1, keepdims=True), inputs[0].shape[1:3], shifted, windows)


def _in_windows(inputs: tuple[Array, Array, Array], shifted: Shifted, windows: Windows) -> list[Array]:
    """Queries, keys and values of one head, with their bias: (B, H, W, 96) to three of (B, windows, side^2, 32)."""
    qkv = inputs[0] + inputs[1].astype(inputs[0].dtype)
    for axis in (1, 2):
        qkv = roll_back(qkv, windows.shift[axis - 1], axis, shifted)
    return [partition(part, windows.side) for part in jnp.split(qkv, 3, axis=-1)]


def _exponentials(
    query: Array, key: Array, inputs: tuple[Array, Array, Array], shifted: Shifted, windows: Windows
) -> Array:
    """The softmax over a window's keys before its division: (B, windows, side^2, side^2), float32."""
    logits = jnp.einsum("bwnd,bwmd->bwnm", query * HEAD_DIM**-0.5, key).astype(jnp.float32)
    logits = add_bias(logits, inputs[2])
    if any(windows.shift):
        logits = logits + jnp.where(shifted, _apart(inputs[0].shape[1:3], windows), 0.0)
    return jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))


def _on_map(x: Array, size: tuple[int, ...], shifted: Shifted, windows: Windows) -> Array:
    """Windows (B, windows, side^2, C) as the map of `size` that was cut, before it was rolled: (B, H, W, C)."""
    x = unpartition(x, size)
    for axis in (1, 2):
        x = roll_on(x, windows.shift[axis - 1], axis, shifted)
    return x


def roll_back(x: Array, shift: int, axis: int, shifted: Shifted) -> Array:
    """`x` with the first `shift` entries of an axis moved to its end, where `shifted`.

    Not jnp.roll: so that one compiled variant serves the blocks that shift and those that do not.
    """
    if not shift:
        return x
    ahead = jnp.concatenate([x, jax.lax.slice_in_dim(x, 0, shift, axis=axis)], axis)
    return jax.lax.dynamic_slice_in_dim(ahead, jnp.where(shifted, shift, 0), x.shape[axis], axis)


def roll_on(x: Array, shift: int, axis: int, shifted: Shifted) -> Array:
    """`x` with the last `shift` entries of an axis moved to its front, where `shifted`: the inverse of `roll_back`."""
    if not shift:
        return x
    size = x.shape[axis]
    ahead = jnp.concatenate([jax.lax.slice_in_dim(x, size - shift, size, axis=axis), x], axis)
    return jax.lax.dynamic_slice_in_dim(ahead, jnp.where(shifted, 0, shift), size, axis)


def partition(x: Array, side: int) -> Array:
    """(B, H, W, 32) into windows (B, H / side * W / side, side^2, 32)."""
    batch, height, width, dim = x.shape
    cut = x.reshape(batch, height // side, side, width // side, side, dim)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, side * side, dim)


def unpartition(x: Array, size: tuple[int, ...]) -> Array:
    """(B, windows, side^2, 32) back to a map of `size` (H, W): (B, H, W, 32)."""
    batch, _, tokens, dim = x.shape
    height, width = size
    side = math.isqrt(tokens)
    cut = x.reshape(batch, height // side, width // side, side, side, dim)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, dim)


@jax.custom_vjp
def add_bias(logits: Array, bias: Array) -> Array:
    """Logits (B, windows, side^2, side^2) with a bias (side^2, side^2), whose gradient is a product.

    XLA's CPU backend takes fifty times as long for the sum over leading axes that differentiation would make of it.
    """
    return logits + bias


def _add_bias_forward(logits: Array, bias: Array) -> tuple[Array, None]:
    return logits + bias, None


def _add_bias_backward(_: None, cotangent: Array) -> tuple[Array, Array]:
    count = math.prod(cotangent.shape[:2])
    ones = jnp.ones((1, count), cotangent.dtype)
    total = jnp.matmul(ones, cotangent.reshape(count, -1), preferred_element_type=jnp.float32)
    return cotangent, total.reshape(cotangent.shape[2:]).astype(cotangent.dtype)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


def _apart(size: tuple[int, ...], windows: Windows) -> Array:
    """What is added to the logits of a rolled map, as its windows need it: (windows, side^2, side^2)."""
    regions = jnp.asarray(shift_regions(size, windows))
    return jnp.where(regions[:, :, None] != regions[:, None, :], SHIFTED_APART, 0.0)


def relative_bias(table: Array, side: int) -> Array:
    """Bias of every pair of tokens in a window: (heads, side^2, side^2) from the centre of a table (S, S, heads).

    The bias of query (i, j) and key (k, l) is table[i - k + side - 1, j - l + side - 1] of that centre.
    """
    margin = (table.shape[0] + 1) // 2 - side
    table = table[margin : margin + 2 * side - 1, margin : margin + 2 * side - 1]
    rows = differences(table, side)  # (i, k, column of the table, heads)
    pairs = differences(jnp.moveaxis(rows, 2, 0), side)  # (j, l, i, k, heads)
    return pairs.transpose(4, 2, 0, 3, 1).reshape(-1, side * side, side * side)


def differences(line: Array, side: int) -> Array:
    """line[i - k + side - 1] for all i and k below `side`: (2 * side - 1, ...) to (side, side, ...).

    Rows of one element less than the line's length, read off copies of the line put end to end, are the line moved on
    by one from row to row. So neither this nor its gradient gathers or scatters, which is slow on every device.
    """
    span = line.shape[0]
    start = jnp.roll(line[::-1], 1 - side, axis=0)  # the entry of difference 0 first, then of -1, -2, ...
    copies = jnp.broadcast_to(start, (side, *line.shape)).reshape(-1, *line.shape[1:])
    return copies[: side * (span - 1)].reshape(side, span - 1, *line.shape[1:])[:, :side] if span > 1 else line[None]


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
