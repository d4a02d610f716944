"""Attention over heads, and a stage over its blocks: the same numbers, in the order that suits a kind of device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from s3_jax.models.layers import ActiveCount
from s3_jax.models.recompute import pull_back, recomputed, zeros_of

# Attention of one head (`attention.attend` in some windows): (what it is made of, whether windows shift) to its result.
OneHead = Callable[[tuple[Array, Array, Array], Any], Array]


class Heads(NamedTuple):
    """What the attention of all heads is made of."""

    qkv: Array  # (B, H, W, heads * 96) queries, keys and values of one head after another
    bias: Array  # (heads, 96) theirs
    of_pairs: Array  # (heads, side^2, side^2) what is added to the logits of a window's pairs of tokens


# (attention of one head, heads, whether windows shift, how many of the heads count) to (B, H, W, heads * 32), zero for
# the heads that do not count; None: all do.
OverHeads = Callable[[OneHead, Heads, Any, ActiveCount], Array]


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a network is computed on a kind of device; the numbers are the same up to rounding."""

    over_heads: OverHeads
    unrolled: bool  # a supernet's blocks one after another in the program, instead of a loop over them


def all_at_once(attend: OneHead, heads: Heads, shifted: Any, active: ActiveCount) -> Array:
    """All heads in one batch of products, also those that do not count, whose results are set to zero.

    For a GPU, to which one head is a small operation. The backward pass computes them again: in a supernet `one_of`
    sees to that, in a network by itself this function.
    """
    count, together = len(heads.bias), jax.vmap(attend, (0, None))
    each = (jnp.moveaxis(_by_head(heads.qkv, count), 3, 0), heads.bias, heads.of_pairs)
    if active is None:
        return _side_by_side(recomputed(together)(each, shifted))
    counts = (jnp.arange(count) < active)[:, None, None, None, None]
    return _side_by_side(jnp.where(counts, together(each, shifted), 0))


def one_by_one(attend: OneHead, heads: Heads, shifted: Any, active: ActiveCount) -> Array:
    """One head after another, so that only one has its logits in memory, and those that do not count are left out.

    The backward pass keeps nothing but what goes in, and computes each head again before it goes back. For a CPU, whose
    cache holds one head's logits, and for a TPU's memory. Where there is no backward pass and all heads count, they are
    computed at once: a loop is no use to an exported network.
    """
    count = len(heads.bias)
    each = (jnp.moveaxis(_by_head(heads.qkv, count), 3, 0), heads.bias, heads.of_pairs)
    on = None if active is None else jnp.arange(count) < active

    def in_turn(each: Any, shifted: Any, on: Array | None) -> Array:
        """The heads' results, stacked."""
        return jax.lax.map(lambda turn: _where_on(turn[0], attend, turn[1], shifted), (on, each))

    @jax.custom_vjp
    def run(each: Any, shifted: Any, on: Array | None) -> Array:
        """The same, where no gradient is asked for."""
        return jax.vmap(attend, (0, None))(each, shifted) if on is None else in_turn(each, shifted, on)

    def backward(kept: tuple[Any, Any, Array | None], cotangent: Array) -> tuple[Any, None, None]:
        """The heads' gradients, stacked."""
        each, shifted, on = kept
        pull = partial(pull_back, attend)
        turns = (on, each, cotangent)
        return jax.lax.map(lambda turn: _where_on(turn[0], pull, turn[1], shifted, turn[2]), turns), None, None

    run.defvjp(lambda *arguments: (in_turn(*arguments), arguments), backward)
    return _side_by_side(run(each, shifted, on))


ON_CPU = Execution(one_by_one, unrolled=True)
ON_GPU = Execution(all_at_once, unrolled=False)
ON_TPU = Execution(one_by_one, unrolled=False)


def execution_on(platform: str) -> Execution:
    """How networks are computed on devices of a platform, as JAX calls it (`jax.Device.platform`)."""
    return {"cpu": ON_CPU, "tpu": ON_TPU}.get(platform, ON_GPU)


def _by_head(qkv: Array, count: int) -> Array:
    return qkv.reshape(*qkv.shape[:3], count, -1)


def _side_by_side(attended: Array) -> Array:
    """(heads, B, H, W, 32) to (B, H, W, heads * 32)."""
    return jnp.moveaxis(attended, 0, 3).reshape(*attended.shape[1:4], -1)


def _where_on(on: Array | None, function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, or zeros, without computing it, where `on` is false."""
    if on is None:
        return function(*arguments)
    shapes = jax.eval_shape(function, *arguments)
    return jax.lax.cond(on, function, lambda *_: zeros_of(shapes), *arguments)
