"""The blocks of a supernet's stage for the subnet that a mask tells: scanned over the depth, computed at their width.

A half of a block (attention, MLP) is compiled once for each of a few sizes, its bodies. A block runs in the smallest
body that holds it, with what the body has too much masked to zero; bodies that are not picked cost nothing.
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

from s3_jax.models.attention import Windows, window_attention, windows_of_block
from s3_jax.models.layers import Attention, Count, LayerNorm, Mlp, active_mask, drop_path, layer_norm, masked, mlp
from s3_jax.models.subnet import StageMask
from s3_jax.space import HEAD_DIM, StageSpace, hidden_dim


class AttentionBody(NamedTuple):
    """A size of attention that is compiled."""

    heads: int
    windows: Windows


class MlpBody(NamedTuple):
    """A size of MLP that is compiled."""

    embed_dim: int
    hidden: int


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
) -> Array:
    """The blocks of a supernet's stage, scanned over the depth axis of `blocks` (D, ...): (B, H, W, C) to the same.

    Inactive blocks are skipped by `lax.cond`. limit: the largest side of a window, in tokens. every_width: compile
    bodies for every number of heads and size of MLP in the space; otherwise for the largest alone.
    """
    depth = len(mask.active)
    attend, attention_body = _attention(space, mask, x, limit, every_width)
    feed, mlp_body = _mlp(space, mask, every_width)
    keys = None if key is None else jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(depth))

    def step(x: Array, block_step: tuple) -> tuple[Array, None]:
        block, active, heads, hidden, (attention, feeding), rate, block_key = block_step
        first, second = (None, None) if block_key is None else jax.random.split(block_key)

        def run(x: Array) -> Array:
            branch = attend((block.norm1, block.attention, x), (mask.embed_dim, heads), attention)
            x = x + drop_path(branch, rate, first)
            branch = feed((block.norm2, block.mlp, x), (mask.embed_dim, hidden), feeding)
            return x + drop_path(branch, rate, second)

        return jax.lax.cond(active, run, lambda x: x, x), None

    steps = (blocks, mask.active, mask.heads, mask.hidden, (attention_body, mlp_body), rates, keys)
    return jax.lax.scan(step, x, jax.tree.map(jnp.asarray, steps))[0]


def attention_half(
    inputs: tuple[LayerNorm, Attention, Array], counts: tuple[Count, Count], *, body: AttentionBody
) -> Array:
    """Norm and attention of x (B, H, W, C) with the body's heads, of which and of the channels `counts` are active."""
    norm, weights, x = inputs
    embed_dim, heads = counts
    branch = window_attention(weights, layer_norm(norm, x, embed_dim), body.windows, heads, body.heads)
    return masked(branch, active_mask(x.shape[-1], embed_dim, x.dtype))


def mlp_half(inputs: tuple[LayerNorm, Mlp, Array], counts: tuple[Count, Count], *, body: MlpBody) -> Array:
    """Norm and MLP of x (B, H, W, C) within the body's channels and hidden units, of which `counts` are active."""
    norm, weights, x = inputs
    embed_dim, hidden = counts
    normed = layer_norm(norm, x[..., : body.embed_dim], embed_dim)
    branch = mlp(weights, normed, hidden, body.hidden)
    branch = masked(branch, active_mask(body.embed_dim, embed_dim, x.dtype))
    return jnp.pad(branch, ((0, 0),) * 3 + ((0, x.shape[-1] - body.embed_dim),))


def one_of(bodies: Sequence[Callable[[Any, Any], Array]]) -> Callable[[Any, Any, Array], Array]:
    """The function (inputs, counts) -> array that a third argument picks from `bodies`; only that one is computed.

    The backward pass, with respect to `inputs`, computes the body again. Otherwise every body would keep what its own
    backward pass needs, zeros for those not picked: on a CPU that took longer than the attention itself.
    """

    @jax.custom_vjp
    def pick(inputs: Any, counts: Any, index: Array) -> Array:
        return jax.lax.switch(index, list(bodies), inputs, counts)

    def forward(*arguments: Any) -> tuple[Array, tuple[Any, ...]]:
        return pick(*arguments), arguments

    def backward(arguments: tuple[Any, ...], cotangent: Array) -> tuple[Any, None, None]:
        def backward_of(body: Callable[[Any, Any], Array]) -> Callable[[Any, Any], Any]:
            return lambda inputs, counts: jax.vjp(lambda tree: body(tree, counts), inputs)[1](cotangent)[0]

        inputs, counts, index = arguments
        return jax.lax.switch(index, [backward_of(body) for body in bodies], inputs, counts), None, None

    pick.defvjp(forward, backward)
    return pick


def _attention(
    space: StageSpace, mask: StageMask, x: Array, limit: int, every_width: bool
) -> tuple[Callable[[Any, Any, Array], Array], Array]:
    """`attention_half` of the stage with its body to pick, and the first body (D,) that holds each block."""
    sides = [min(side, limit) for side in space.window]
    wanted = [[windows_of_block(side, x.shape[1], x.shape[2], parity) for parity in (0, 1)] for side in sides]
    variants = list(dict.fromkeys(windows for pair in wanted for windows in pair))
    numbers = np.array([[variants.index(windows) for windows in pair] for pair in wanted])
    heads = [dim // HEAD_DIM for dim in space.qkv_dim][0 if every_width else -1 :]
    bodies = [AttentionBody(*size) for size in itertools.product(heads, variants)]
    variant = jnp.asarray(numbers)[mask.window, jnp.arange(len(mask.active)) % 2]
    narrowest = jnp.argmax(np.array(heads) >= jnp.asarray(mask.heads)[:, None], axis=-1)
    return one_of([partial(attention_half, body=body) for body in bodies]), narrowest * len(variants) + variant


def _mlp(space: StageSpace, mask: StageMask, every_width: bool) -> tuple[Callable[[Any, Any, Array], Array], Array]:
    """`mlp_half` of the stage with its body to pick, and the first body (D,) that holds each block."""
    sizes = [MlpBody(dim, hidden_dim(dim, ratio)) for dim in space.embed_dim for ratio in space.mlp_ratio]
    bodies = sorted(sizes, key=math.prod) if every_width else sizes[-1:]
    dims, hidden = np.array(bodies).T
    narrowest = jnp.argmax((dims >= mask.embed_dim) & (hidden >= jnp.asarray(mask.hidden)[:, None]), axis=-1)
    return one_of([partial(mlp_half, body=body) for body in bodies]), narrowest
