"""Convolution, batch normalisation and ReLU, as the heads of UperNet are made of: weights, and pure functions."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from s3_jax.models.layers import Linear
from s3_jax.segmentation.resizing import Size, convolution, enlarged_convolution

MOMENTUM, EPSILON = 0.1, 1e-5  # of batch normalisation, PyTorch's


@dataclasses.dataclass(frozen=True)
class Passing:
    """How a batch passes through a head: in evaluation by running statistics, in training by the batch's own.

    weight: (B,), in training alone: the examples of weight 0 are in no statistics. key: for dropout, in training.
    batch_axis: the mesh axis over which `jax.shard_map` splits the batch. by_products: see `convolution`.
    """

    by_products: bool
    weight: Array | None = None
    key: Array | None = None
    batch_axis: str | None = None

    def summed(self, x: Array) -> Array:
        """The sum of `x` over the devices that share the batch."""
        return jax.lax.psum(x, self.batch_axis) if self.batch_axis else x


class BatchNorm(nnx.Module):
    """Scale, bias and running statistics of a batch normalisation of `channels`."""

    def __init__(self, channels: int) -> None:
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.variance = nnx.BatchStat(jnp.ones(channels))


class ConvolutionNorm(nnx.Module):
    """Weights of a convolution (side, side, inputs, outputs) without bias, and of the normalisation behind it."""

    def __init__(self, inputs: int, outputs: int, *, side: int, rngs: nnx.Rngs) -> None:
        # Normal with a deviation by the outputs (He et al., 2015), as mmcv's ConvModule begins.
        deviation = math.sqrt(2 / (outputs * side * side))
        self.convolution = Linear((side, side, inputs, outputs), inputs=3, bias=False, std=deviation, rngs=rngs)
        self.norm = BatchNorm(outputs)


def batch_norm(norm: BatchNorm, x: Array, passing: Passing) -> Array:
    """Batch normalisation of (B, H, W, C); in training updates the running statistics in place.

    Statistics are float32 and over the whole batch, whatever devices share it. Of a single value the deviation is 0 and
    its normalisation the bias, where PyTorch refuses to normalise; it says nothing of the running variance, and no
    value nothing of the mean either, which then stay.
    """
    if passing.weight is None:
        mean, variance = norm.mean[...], norm.variance[...]
    else:
        mean, variance, count = moments(x, passing)
        unbiased = variance * count / jnp.maximum(count - 1, 1)
        norm.mean[...] += MOMENTUM * (count > 0) * (jax.lax.stop_gradient(mean) - norm.mean[...])
        norm.variance[...] += MOMENTUM * (count > 1) * (jax.lax.stop_gradient(unbiased) - norm.variance[...])
    factor = norm.scale[...] * jax.lax.rsqrt(variance + EPSILON)
    return (x.astype(jnp.float32) * factor + (norm.bias[...] - mean * factor)).astype(x.dtype)


def moments(x: Array, passing: Passing) -> tuple[Array, Array, Array]:
    """Mean and variance (C,) of (B, H, W, C) over all examples that count, and how many places that are."""
    batch, *size, channels = x.shape
    weight = jnp.ones(batch) if passing.weight is None else passing.weight
    each = jnp.repeat(weight.astype(jnp.float32), math.prod(size))
    flat = x.reshape(-1, channels).astype(jnp.float32)
    # Sums over places as products: XLA's CPU backend takes many times as long for sums over leading axes.
    count = passing.summed(each.sum())
    mean = passing.summed(each @ flat) / jnp.maximum(count, 1.0)
    variance = passing.summed(each @ jnp.square(flat - mean)) / jnp.maximum(count, 1.0)
    return mean, variance, count


def convolved(layer: ConvolutionNorm, x: Array, passing: Passing) -> Array:
    """Convolution, normalisation, ReLU: (B, H, W, C) to (B, H, W, O)."""
    kernel = layer.convolution.kernel[...]
    return activated(layer.norm, convolution(kernel, x, by_products=passing.by_products), passing)


def convolved_together(layer: ConvolutionNorm, maps: list[Array], size: Size, passing: Passing) -> Array:
    """The same of several maps, enlarged to `size` and put on top of each other: (B, h, w, C_i) to (B, H, W, O)."""
    kernel, start, total = layer.convolution.kernel[...], 0, jnp.zeros((), maps[0].dtype)
    for x in maps:
        part = kernel[:, :, start : start + x.shape[-1]]
        total = total + enlarged_convolution(part, x, size, by_products=passing.by_products)
        start += x.shape[-1]
    return activated(layer.norm, total, passing)


def activated(norm: BatchNorm, x: Array, passing: Passing) -> Array:
    """Batch normalisation and ReLU."""
    return jax.nn.relu(batch_norm(norm, x, passing))


def channel_dropout(x: Array, rate: float, passing: Passing) -> Array:
    """Dropout of whole channels of (B, H, W, C), in training alone; many devices drop what one would."""
    if passing.key is None or not rate:
        return x
    count, channels, axis = x.shape[0], x.shape[-1], passing.batch_axis
    whole = count * jax.lax.axis_size(axis) if axis else count
    keep = jax.random.bernoulli(passing.key, 1 - rate, (whole, 1, 1, channels))
    if axis:
        keep = jax.lax.dynamic_slice_in_dim(keep, jax.lax.axis_index(axis) * count, count)
    return x * (keep / (1 - rate)).astype(x.dtype)
