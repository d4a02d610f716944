"""Batch normalisation over a whole batch, whatever devices share it: weights and running statistics, pure functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

MOMENTUM, EPSILON = 0.1, 1e-5  # PyTorch's


class BatchNorm(nnx.Module):
    """Scale, bias and running statistics of a batch normalisation of `channels`."""

    def __init__(self, channels: int) -> None:
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.variance = nnx.BatchStat(jnp.ones(channels))


def batch_norm(norm: BatchNorm, x: Array, weight: Array | None = None, batch_axis: str | None = None) -> Array:
    """Batch normalisation of (B, ..., C): by running statistics, or, with weights, by those of the batch itself.

    weight: (B,), or (B, H, W) and the like: what its leading axes have weight 0 for is in no statistics. With it the
    running statistics are updated in place. batch_axis: the mesh axis over which `jax.shard_map` splits the batch.
    Statistics are float32 and over the whole batch, whatever devices share it. Of a single value the deviation is 0 and
    its normalisation the bias, where PyTorch refuses to normalise; it says nothing of the running variance, and no
    value nothing of the mean either, which then stay.
    """
    if weight is None:
        mean, variance = norm.mean[...], norm.variance[...]
    else:
        mean, variance, count = moments(x, weight, batch_axis)
        unbiased = variance * count / jnp.maximum(count - 1, 1)
        norm.mean[...] += MOMENTUM * (count > 0) * (jax.lax.stop_gradient(mean) - norm.mean[...])
        norm.variance[...] += MOMENTUM * (count > 1) * (jax.lax.stop_gradient(unbiased) - norm.variance[...])
    factor = norm.scale[...] * jax.lax.rsqrt(variance + EPSILON)
    return (x.astype(jnp.float32) * factor + (norm.bias[...] - mean * factor)).astype(x.dtype)


def moments(x: Array, weight: Array, batch_axis: str | None = None) -> tuple[Array, Array, Array]:
    """Mean and variance (C,) of (B, ..., C) over what counts, weighted, and the sum of weights of all places."""
    places = x.shape[:-1]
    spread = weight.astype(jnp.float32).reshape(*weight.shape, *[1] * (len(places) - weight.ndim))
    each = jnp.broadcast_to(spread, places).reshape(-1)
    flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    # Sums over places as products: XLA's CPU backend takes many times as long for sums over leading axes.
    count = _over_devices(each.sum(), batch_axis)
    mean = _over_devices(each @ flat, batch_axis) / jnp.maximum(count, 1.0)
    variance = _over_devices(each @ jnp.square(flat - mean), batch_axis) / jnp.maximum(count, 1.0)
    return mean, variance, count


def _over_devices(x: Array, batch_axis: str | None) -> Array:
    """The sum over the devices that share the batch."""
    return jax.lax.psum(x, batch_axis) if batch_axis else x
