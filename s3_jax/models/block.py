"""The transformer block, which networks and supernets of every kind compute."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import Array

from s3_jax.models.layers import drop_path

# What a block adds to its input, norm included: an array to one of the same shape.
Branch = Callable[[Array], Array]


def residual_block(
    attention: Branch, mlp: Branch, x: Array, rate: Array, key: Array | None, batch_axis: str | None = None
) -> Array:
    """One block, (B, ..., C) to the same: attention, then the MLP, each with residual and drop path.

    A network's branches compute all of its weights; a supernet's compute what its mask picks of them. rate, batch_axis:
    as for `drop_path`, which is on where `key` is given.
    """
    first, second = (None, None) if key is None else jax.random.split(key)
    x = x + drop_path(attention(x), rate, first, batch_axis)
    return x + drop_path(mlp(x), rate, second, batch_axis)
