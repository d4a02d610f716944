"""Convolution, batch normalisation and ReLU, as the heads of UperNet are made of: weights, and pure functions."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from s3_jax.models.batch_norm import BatchNorm, batch_norm
from s3_jax.models.convolution import ConvolutionNorm, convolution
from s3_jax.segmentation.resizing import Size, enlarged_convolution


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
    return jax.nn.relu(batch_norm(norm, x, passing.weight, passing.batch_axis))


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
