"""The blocks of a supernet's stage for the subnet that a mask tells: scanned over the depth, computed at their width.

A block has five parts: queries, keys and values; attention, head by head; the heads' projection; the MLP's units; their
way back. A part is compiled once for each of a few sizes, its bodies, and runs in the smallest that holds the block,
with what the body has too much masked to zero; bodies that are not picked cost nothing, and a block that is not in the
subnet picks none. Between parts, arrays have the largest size, and heads and their 32 channels are one axis: an axis of
32 would take four times its memory on a TPU.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from s3_jax.models.attention import (
    Windows,
    attend_within,
    project_heads,
    project_qkv,
    pull_back,
    windows_of_block,
)
from s3_jax.models.layers import (
    Count,
    LayerNorm,
    Linear,
    active_mask,
    contract,
    drop_path,
    expand,
    layer_norm,
    masked,
)
from s3_jax.models.subnet import ArrayLike, StageMask
from s3_jax.space import HEAD_DIM, StageSpace, hidden_dim

# (inputs, counts of what is active, index of the body) to an array.
Part = Callable[[Any, tuple[Count, Count], Array], Array]


class BlockParts(NamedTuple):
    """The five parts of a stage's blocks, and which body of each every block (D,) runs in: see `one_of`."""

    parts: tuple[Part, ...]
    bodies: tuple[Array, ...]


def run_subnet_stage(
    blocks: Any,
    x: Array,
    mask: StageMask,
    space: StageSpace,
    rates: Array,
    key: Array | None,
    *,
    limit: int,
    every_width: bool,
    batch_axis: str | None = None,
) -> Array:
    """The blocks of a supernet's stage, scanned over the depth axis of `blocks` (D, ...): (B, H, W, C) to the same.

    limit: the largest side of a window, in tokens. every_width: compile bodies for every width of the space; otherwise
    for the largest alone. batch_axis: as for `drop_path`. Blocks that are not in the subnet add zeros, which cost a
    fill and no product. (A `lax.cond` around the block, whose other branch hands x on, makes libtpu abort.)
    """
    depth = len(mask.active)
    (qkv_of, attend, mix, units_of, feed), bodies = block_parts(space, mask, x.shape[1:3], limit, every_width)
    keys = None if key is None else jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(depth))

    def step(x: Array, block_step: tuple) -> tuple[Array, None]:
        """One turn of the scan: attention and MLP, each with residual and drop path."""
        block, heads, hidden, picks, rate, block_key = block_step
        first, second = (None, None) if block_key is None else jax.random.split(block_key)
        attention, of_heads, of_units = block.attention, (mask.embed_dim, heads), (mask.embed_dim, hidden)
        qkv = qkv_of((block.norm1, attention.qkv.kernel[...], x), of_heads, picks[0])
        attended = attend((attention.qkv.bias[...], attention.bias_table[...], qkv), of_heads, picks[1])
        x = x + drop_path(mix((attention.proj, attended), of_heads, picks[2]), rate, first, batch_axis)
        units = units_of((block.norm2, block.mlp.fc1, x), of_units, picks[3])
        return x + drop_path(feed((block.mlp.fc2, units), of_units, picks[4]), rate, second, batch_axis), None

    steps = (blocks, mask.heads, mask.hidden, bodies, rates, keys)
    return jax.lax.scan(step, x, jax.tree.map(jnp.asarray, steps))[0]


def block_parts(space: StageSpace, mask: StageMask, size: tuple[int, ...], limit: int, every_width: bool) -> BlockParts:
    """The parts of a stage's blocks on a map of `size` (H, W), and the bodies that the mask's blocks need."""
    from_width = 0 if every_width else -1
    dims, heads = space.embed_dim[from_width:], [dim // HEAD_DIM for dim in space.qkv_dim][from_width:]
    pairs = sorted(itertools.product(space.embed_dim, space.mlp_ratio), key=lambda pair: pair[0] * hidden_dim(*pair))
    mlps = [(dim, hidden_dim(dim, ratio)) for dim, ratio in pairs[from_width:]]
    variants, variant = _window_variants(space, mask, size, limit)
    head = _narrowest([heads], [mask.heads])
    mlp = _narrowest(list(zip(*mlps, strict=True)), [mask.embed_dim, mask.hidden])
    parts = (
        [partial(_qkv_of, dim=d, heads=h, all_heads=heads[-1]) for d, h in itertools.product(dims, heads)],
        [partial(_attend, windows=windows) for windows in variants],
        [partial(_mix, dim=d, heads=h, all_dims=dims[-1]) for d, h in itertools.product(dims, heads)],
        [partial(_units_of, dim=dim, hidden=hidden, all_hidden=mlps[-1][1]) for dim, hidden in mlps],
        [partial(_feed, dim=dim, hidden=hidden, all_dims=dims[-1]) for dim, hidden in mlps],
    )
    pair = _narrowest([dims], [mask.embed_dim]) * len(heads) + head
    bodies = (jnp.where(mask.active, 1 + body, 0) for body in (pair, variant, pair, mlp, mlp))
    return BlockParts(tuple(map(one_of, parts)), tuple(bodies))


def _qkv_of(
    inputs: tuple[LayerNorm, Array, Array], active: tuple[Count, Count], *, dim: int, heads: int, all_heads: int
) -> Array:
    """Norm and projection of x (B, H, W, C) with `dim` channels and `heads` heads: (B, H, W, 3 * all_heads * 32)."""
    norm, kernel, x = inputs
    qkv = project_qkv(kernel[:dim, :, :heads], layer_norm(norm, x[..., :dim], active[0]))
    return _padded(qkv, -2, all_heads).reshape(*x.shape[:3], -1)


def _attend(inputs: tuple[Array, Array, Array], active: tuple[Count, Count], *, windows: Windows) -> Array:
    """Attention of those heads that are active: (B, H, W, 3 * heads * 32) to (B, H, W, heads * 32)."""
    bias, table, qkv = inputs
    attended = attend_within(qkv.reshape(*qkv.shape[:3], *bias.shape), bias, table, windows, active[1])
    return attended.reshape(*qkv.shape[:3], -1)


def _mix(inputs: tuple[Linear, Array], active: tuple[Count, Count], *, dim: int, heads: int, all_dims: int) -> Array:
    """Output projection of `heads` heads (B, H, W, all_heads * 32) to `dim` channels: (B, H, W, all_dims)."""
    proj, attended = inputs
    of_heads = attended[..., : heads * HEAD_DIM].reshape(*attended.shape[:3], heads, HEAD_DIM)
    branch = project_heads(proj, of_heads, dim)
    return _padded(masked(branch, active_mask(dim, active[0], branch.dtype)), -1, all_dims)


def _units_of(
    inputs: tuple[LayerNorm, Linear, Array], active: tuple[Count, Count], *, dim: int, hidden: int, all_hidden: int
) -> Array:
    """Norm of x (B, H, W, C) and `hidden` units of `dim` of its channels: (B, H, W, all_hidden)."""
    norm, layer, x = inputs
    return _padded(expand(layer, layer_norm(norm, x[..., :dim], active[0]), hidden), -1, all_hidden)


def _feed(inputs: tuple[Linear, Array], active: tuple[Count, Count], *, dim: int, hidden: int, all_dims: int) -> Array:
    """GELU of `hidden` units (B, H, W, all_hidden) and their way back to `dim` channels: (B, H, W, all_dims)."""
    layer, units = inputs
    branch = contract(layer, units[..., :hidden], active[1], dim)
    return _padded(masked(branch, active_mask(dim, active[0], branch.dtype)), -1, all_dims)


def _padded(x: Array, axis: int, size: int) -> Array:
    """`x` with zeros appended to an axis until it is `size` long."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths) if widths[axis][1] else x


def _narrowest(sizes: Sequence[Sequence[int]], wanted: Sequence[ArrayLike]) -> Array:
    """The first of a list of bodies that holds what is wanted: sizes and wants are given per dimension."""
    pairs = zip(sizes, wanted, strict=True)
    holds = (np.array(column) >= jnp.asarray(want)[..., None] for column, want in pairs)
    return jnp.argmax(math.prod(holds), axis=-1)


def _window_variants(
    space: StageSpace, mask: StageMask, size: tuple[int, ...], limit: int
) -> tuple[list[Windows], Array]:
    """The ways in which blocks may cut a map of `size` (H, W), and which of them each block (D,) takes."""
    sides = [min(side, limit) for side in space.window]
    wanted = [[windows_of_block(side, size[0], size[1], parity) for parity in (0, 1)] for side in sides]
    variants = list(dict.fromkeys(windows for pair in wanted for windows in pair))
    numbers = np.array([[variants.index(windows) for windows in pair] for pair in wanted])
    return variants, jnp.asarray(numbers)[mask.window, jnp.arange(len(mask.active)) % 2]


def one_of(bodies: Sequence[Callable[[Any, Any], Array]]) -> Part:
    """The function (inputs, counts, index) that computes one of `bodies`, index 1 the first; 0 gives zeros.

    The backward pass, with respect to `inputs`, computes the body again. Otherwise every body would keep what its own
    backward pass needs, zeros for those not picked: on a CPU that took longer than the attention itself.
    """

    @jax.custom_vjp
    def pick(inputs: Any, counts: Any, index: Array) -> Array:
        """The picked body alone."""
        nothing = jax.eval_shape(bodies[0], inputs, counts)
        return jax.lax.switch(index, [lambda *_: _zeros(nothing), *bodies], inputs, counts)

    def forward(*arguments: Any) -> tuple[Array, tuple[Any, ...]]:
        """Keeps what went in, and nothing that the body made of it."""
        return pick(*arguments), arguments

    def backward(arguments: tuple[Any, ...], cotangent: Array) -> tuple[Any, None, None]:
        """The gradient of the picked body alone."""

        def backward_of(body: Callable[[Any, Any], Array]) -> Callable[[Any, Any], Any]:
            """A body, computed again and pulled back."""
            return lambda inputs, counts: pull_back(lambda tree: body(tree, counts), inputs, cotangent)

        inputs, counts, index = arguments
        pulls = [lambda *_: _zeros(inputs), *map(backward_of, bodies)]
        return jax.lax.switch(index, pulls, inputs, counts), None, None

    pick.defvjp(forward, backward)
    return pick


def _zeros(tree: Any) -> Any:
    """Zeros of the shapes and types of a tree of arrays."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)
