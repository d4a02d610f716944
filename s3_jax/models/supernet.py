"""The blocks of a supernet's stage for the subnet that a mask describes: each computed at about its own width.

A block has five parts: the projection to queries, keys and values; attention; the heads' output projection; the MLP's
first and its second layer. A part is compiled once for each of a few sizes, its variants: attention for each size of
window, the others for each number of channels. A block runs in the smallest variant that holds it, with what that has
too much masked to zero; variants that are not picked cost nothing, and a block that is not in the subnet picks none.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from s3_jax.models.attention import Shifted, Windows, attend_within, project_heads, project_qkv, windows_of_block
from s3_jax.models.block import residual_block
from s3_jax.models.heads import Execution, OverHeads
from s3_jax.models.layers import (
    ActiveCount,
    LayerNorm,
    Linear,
    active_mask,
    contract,
    expand,
    layer_norm,
    masked,
)
from s3_jax.models.recompute import Part, Variant, one_of
from s3_jax.models.subnet import StageMask
from s3_jax.space import StageSpace, hidden_dim


class BlockParts(NamedTuple):
    """The five parts of a stage's blocks; attention once for blocks whose windows shift, once for the others."""

    qkv: Part
    attention: dict[bool, Part]  # where one program serves all blocks, they share the one whose windows shift
    projection: Part
    hidden: Part
    output: Part


class BlockMask(NamedTuple):
    """What a block of the subnet is: (D,) arrays of all blocks of a stage, or the scalars of one."""

    heads: Array
    hidden: Array
    shifted: Array | np.ndarray
    width_variant: Array  # of parts that have one for each number of channels: see `one_of`
    window_variant: Array  # of attention


def run_subnet_stage(
    blocks: Any,
    x: Array,
    mask: StageMask,
    space: StageSpace,
    rates: Array,
    key: Array | None,
    *,
    limit: int | None,
    every_width: bool,
    execution: Execution,
    batch_axis: str | None = None,
) -> Array:
    """The blocks of a supernet's stage, stacked on a depth axis (D, ...): (B, H, W, C) to the same.

    limit: the largest side of a window, in tokens; None is no limit. every_width: compile variants for every number of
    channels; otherwise for the largest alone. batch_axis: as for `drop_path`. Blocks that are not in the subnet add
    zeros, which cost a fill and no product.
    """
    depth = len(mask.active)
    parts = block_parts(space, x.shape[1:3], limit, every_width, execution)
    keys = None if key is None else jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(depth))
    turns = jax.tree.map(jnp.asarray, (blocks, block_masks(mask, space, every_width), rates, keys))
    run = partial(_run_picked_block, parts, mask.embed_dim, batch_axis)
    if not execution.unrolled:
        return jax.lax.scan(lambda x, turn: (run(x, turn, turn[1].shifted), None), x, turns)[0]
    for index in range(depth):
        x = run(x, jax.tree.map(lambda leaf, index=index: leaf[index], turns), index % 2 == 1)
    return x


def block_masks(mask: StageMask, space: StageSpace, every_width: bool) -> BlockMask:
    """What every block of a stage is, and which variants it picks."""
    width = jnp.argmax(np.array(_widths(space, every_width)) >= mask.embed_dim)
    picked = (jnp.where(mask.active, 1 + variant, 0) for variant in (width, jnp.asarray(mask.window)))
    return BlockMask(jnp.asarray(mask.heads), jnp.asarray(mask.hidden), np.arange(len(mask.active)) % 2 == 1, *picked)


def block_parts(
    space: StageSpace, size: tuple[int, ...], limit: int | None, every_width: bool, execution: Execution
) -> BlockParts:
    """The parts of a stage's blocks on a map of `size` (H, W)."""
    dims = _widths(space, every_width)
    mlps = [(dim, hidden_dim(dim, space.mlp_ratio[-1])) for dim in dims]

    def attention(index: int) -> list[Variant]:
        """The variants of attention in the block of this number."""
        windows = [windows_of_block(side, size[0], size[1], index, limit) for side in space.window]
        return [partial(_attend, windows=each, over_heads=execution.over_heads) for each in windows]

    shifting = one_of(attention(1))
    return BlockParts(
        qkv=one_of([partial(_qkv_of, dim=dim) for dim in dims]),
        attention={True: shifting, False: one_of(attention(0)) if execution.unrolled else shifting},
        projection=one_of([partial(_project, dim=dim, all_dims=dims[-1]) for dim in dims]),
        hidden=one_of([partial(_hidden_of, hidden=units, dim=dim, all_hidden=mlps[-1][1]) for dim, units in mlps]),
        output=one_of([partial(_output_of, hidden=units, dim=dim, all_dims=dims[-1]) for dim, units in mlps]),
    )


def _widths(space: StageSpace, every_width: bool) -> tuple[int, ...]:
    """The numbers of channels that variants are compiled for."""
    return space.embed_dim if every_width else space.embed_dim[-1:]


def _run_picked_block(
    parts: BlockParts,
    dim: ActiveCount,
    batch_axis: str | None,
    x: Array,
    turn: tuple[Any, BlockMask, Array, Array | None],
    shifted: Shifted,
) -> Array:
    """A supernet's block, (B, H, W, C) to the same, in the variants that the mask picks."""
    block, mask, rate, key = turn
    weights, width = block.attention, mask.width_variant
    attend = parts.attention[shifted if isinstance(shifted, bool) else True]

    def attention(x: Array) -> Array:
        """Norm, and attention of the heads that are active."""
        qkv = parts.qkv((block.norm1, weights.qkv.kernel[...], x), dim, width)
        inputs = (weights.qkv.bias[...], weights.bias_table[...], qkv)
        attended = attend(inputs, (mask.heads, shifted), mask.window_variant)
        return parts.projection((weights.proj, attended), dim, width)

    def mlp(x: Array) -> Array:
        """Norm, and the MLP with the units that are active."""
        units = parts.hidden((block.norm2, block.mlp.fc1, x), dim, width)
        return parts.output((block.mlp.fc2, units), (dim, mask.hidden), width)

    return residual_block(attention, mlp, x, rate, key, batch_axis)


def _qkv_of(inputs: tuple[LayerNorm, Array, Array], active: ActiveCount, *, dim: int) -> Array:
    """Norm and projection of the first `dim` channels of x (B, H, W, C): (B, H, W, heads * 96)."""
    norm, kernel, x = inputs
    return project_qkv(kernel[:dim], layer_norm(norm, x[..., :dim], active))


def _attend(
    inputs: tuple[Array, Array, Array],
    settings: tuple[ActiveCount, Shifted],
    *,
    windows: Windows,
    over_heads: OverHeads,
) -> Array:
    """Attention of those heads that are active: (B, H, W, heads * 96) to (B, H, W, heads * 32)."""
    bias, table, qkv = inputs
    return attend_within(qkv, bias, table, windows, over_heads, *settings)


def _project(inputs: tuple[Linear, Array], active: ActiveCount, *, dim: int, all_dims: int) -> Array:
    """Output projection of the heads (B, H, W, heads * 32) to `dim` channels: (B, H, W, all_dims)."""
    proj, attended = inputs
    branch = project_heads(proj, attended, dim)
    return _padded(masked(branch, active_mask(dim, active, branch.dtype)), all_dims)


def _hidden_of(
    inputs: tuple[LayerNorm, Linear, Array], active: ActiveCount, *, dim: int, hidden: int, all_hidden: int
) -> Array:
    """Norm of x (B, H, W, C) and `hidden` units of `dim` of its channels: (B, H, W, all_hidden)."""
    norm, layer, x = inputs
    return _padded(expand(layer, layer_norm(norm, x[..., :dim], active), hidden), all_hidden)


def _output_of(
    inputs: tuple[Linear, Array], active: tuple[ActiveCount, ActiveCount], *, dim: int, hidden: int, all_dims: int
) -> Array:
    """GELU and the second layer, `hidden` units (B, H, W, all_hidden) to `dim` channels (B, H, W, all_dims)."""
    layer, units = inputs
    branch = contract(layer, units[..., :hidden], active[1], dim)
    return _padded(masked(branch, active_mask(dim, active[0], branch.dtype)), all_dims)


def _padded(x: Array, size: int) -> Array:
    """`x` (..., C) with zeros appended to its last axis until it is `size` long."""
    missing = size - x.shape[-1]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)]) if missing else x
