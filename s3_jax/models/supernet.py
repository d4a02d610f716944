"""The blocks of a supernet's stage for the subnet that a mask tells: scanned over the depth, computed at their width.

A block has five parts: queries, keys and values; attention, head by head; the heads' projection; the MLP's units; their
way back. A part is compiled once for each of a few sizes, its bodies: attention for each kind of window, the others for
each number of channels. It runs in the smallest that holds the block, with what the body has too much masked to zero;
bodies that are not picked cost nothing, and a block that is not in the subnet picks none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from s3_jax.models.attention import (
    Body,
    Shifted,
    Windows,
    attend_within,
    project_heads,
    project_qkv,
    pull_back,
    windows_of_block,
    zeros_of,
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
from s3_jax.models.subnet import StageMask
from s3_jax.space import StageSpace, hidden_dim

# (inputs, what is told of them: counts of what is active, or whether windows shift; index of the body) to an array.
Part = Callable[[Any, Any, Array], Array]


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

    limit: the largest side of a window, in tokens. every_width: compile bodies for every number of channels; otherwise
    for the largest alone. batch_axis: as for `drop_path`. Blocks that are not in the subnet add zeros, which cost a
    fill and no product.
    """
    depth = len(mask.active)
    (qkv_of, attend, mix, units_of, feed), bodies = block_parts(space, mask, x.shape[1:3], limit, every_width)
    keys = None if key is None else jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(depth))

    def step(x: Array, block_step: tuple) -> tuple[Array, None]:
        """One turn of the scan: attention and MLP, each with residual and drop path."""
        block, heads, hidden, shifted, picks, rate, block_key = block_step
        first, second = (None, None) if block_key is None else jax.random.split(block_key)
        attention, dim = block.attention, mask.embed_dim
        qkv = qkv_of((block.norm1, attention.qkv.kernel[...], x), dim, picks[0])
        attended = attend((attention.qkv.bias[...], attention.bias_table[...], qkv), (heads, shifted), picks[1])
        x = x + drop_path(mix((attention.proj, attended), dim, picks[2]), rate, first, batch_axis)
        units = units_of((block.norm2, block.mlp.fc1, x), dim, picks[3])
        return x + drop_path(feed((block.mlp.fc2, units), (dim, hidden), picks[4]), rate, second, batch_axis), None

    steps = (blocks, mask.heads, mask.hidden, np.arange(depth) % 2 == 1, bodies, rates, keys)
    return jax.lax.scan(step, x, jax.tree.map(jnp.asarray, steps))[0]


def block_parts(space: StageSpace, mask: StageMask, size: tuple[int, ...], limit: int, every_width: bool) -> BlockParts:
    """The parts of a stage's blocks on a map of `size` (H, W), and the bodies that the mask's blocks need."""
    dims = space.embed_dim if every_width else space.embed_dim[-1:]
    # As of an odd block, whose windows shift: whether a block's do is told when it runs.
    windows = [windows_of_block(min(side, limit), size[0], size[1], index=1) for side in space.window]
    mlps = [(dim, hidden_dim(dim, space.mlp_ratio[-1])) for dim in dims]
    parts = (
        [partial(_qkv_of, dim=dim) for dim in dims],
        [partial(_attend, windows=each) for each in windows],
        [partial(_mix, dim=dim, all_dims=dims[-1]) for dim in dims],
        [partial(_units_of, hidden=hidden, dim=dim, all_hidden=mlps[-1][1]) for dim, hidden in mlps],
        [partial(_feed, hidden=hidden, dim=dim, all_dims=dims[-1]) for dim, hidden in mlps],
    )
    width = jnp.argmax(np.array(dims) >= mask.embed_dim)
    bodies = (width, jnp.asarray(mask.window), width, width, width)
    return BlockParts(tuple(map(one_of, parts)), tuple(jnp.where(mask.active, 1 + body, 0) for body in bodies))


def _qkv_of(inputs: tuple[LayerNorm, Array, Array], active: Count, *, dim: int) -> Array:
    """Norm and projection of the first `dim` channels of x (B, H, W, C): (B, H, W, heads * 96)."""
    norm, kernel, x = inputs
    return project_qkv(kernel[:dim], layer_norm(norm, x[..., :dim], active))


def _attend(inputs: tuple[Array, Array, Array], told: tuple[Count, Shifted], *, windows: Windows) -> Array:
    """Attention of those heads that are active: (B, H, W, heads * 96) to (B, H, W, heads * 32)."""
    bias, table, qkv = inputs
    return attend_within(qkv, bias, table, windows, *told)


def _mix(inputs: tuple[Linear, Array], active: Count, *, dim: int, all_dims: int) -> Array:
    """Output projection of the heads (B, H, W, heads * 32) to `dim` channels: (B, H, W, all_dims)."""
    proj, attended = inputs
    branch = project_heads(proj, attended, dim)
    return _padded(masked(branch, active_mask(dim, active, branch.dtype)), all_dims)


def _units_of(
    inputs: tuple[LayerNorm, Linear, Array], active: Count, *, dim: int, hidden: int, all_hidden: int
) -> Array:
    """Norm of x (B, H, W, C) and `hidden` units of `dim` of its channels: (B, H, W, all_hidden)."""
    norm, layer, x = inputs
    return _padded(expand(layer, layer_norm(norm, x[..., :dim], active), hidden), all_hidden)


def _feed(inputs: tuple[Linear, Array], active: tuple[Count, Count], *, dim: int, hidden: int, all_dims: int) -> Array:
    """GELU of `hidden` units (B, H, W, all_hidden) and their way back to `dim` channels: (B, H, W, all_dims)."""
    layer, units = inputs
    branch = contract(layer, units[..., :hidden], active[1], dim)
    return _padded(masked(branch, active_mask(dim, active[0], branch.dtype)), all_dims)


def _padded(x: Array, size: int) -> Array:
    """`x` (..., C) with zeros appended to its last axis until it is `size` long."""
    missing = size - x.shape[-1]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)]) if missing else x


def one_of(bodies: Sequence[Body]) -> Part:
    """The function (inputs, told, index) that computes one of `bodies`, index 1 the first; 0 gives zeros.

    The backward pass, with respect to `inputs`, computes the body again. Otherwise every body would keep what its own
    backward pass needs, zeros for those not picked: on a CPU that took longer than the attention itself.
    """

    @jax.custom_vjp
    def pick(inputs: Any, told: Any, index: Array) -> Array:
        """The picked body alone."""
        nothing = jax.eval_shape(bodies[0], inputs, told)
        return jax.lax.switch(index, [lambda *_: zeros_of(nothing), *bodies], inputs, told)

    def backward(arguments: tuple[Any, ...], cotangent: Array) -> tuple[Any, None, None]:
        """The gradient of the picked body alone."""
        inputs, told, index = arguments
        pulls: list[Callable[..., Any]] = [lambda *_: zeros_of(inputs)]
        pulls += [partial(pull_back, body) for body in bodies]
        return jax.lax.switch(index, pulls, inputs, told, cotangent), None, None

    # Keeps what went in, and nothing that the body made of it.
    pick.defvjp(lambda *arguments: (pick(*arguments), arguments), backward)
    return pick
