"""Convolution of maps, in the form that the device at hand does quickly, and the weights of one before a norm."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from s3_jax.models.batch_norm import BatchNorm
from s3_jax.models.layers import Linear, product


class ConvolutionNorm(nnx.Module):
    """Weights of a convolution (side, side, inputs, outputs) without bias, and of the normalisation behind it."""

    def __init__(self, inputs: int, outputs: int, *, side: int, rngs: nnx.Rngs) -> None:
        # Normal with a deviation by the outputs (He et al., 2015), as mmcv's ConvModule begins.
        deviation = math.sqrt(2 / (outputs * side * side))
        self.convolution = Linear((side, side, inputs, outputs), inputs=3, bias=False, std=deviation, rngs=rngs)
        self.norm = BatchNorm(outputs)


def convolution(kernel: Array, x: Array, *, by_products: bool) -> Array:
    """Convolution without stride, zeros beyond the edges: kernel (k, k, C, O), odd k, (B, H, W, C) to (B, H, W, O).

    by_products: as k matrix products, each of the rows that one row of the kernel meets, which on a CPU takes 0.6 of
    the time of XLA's own convolution, with its gradients.
    """
    side, _, channels, outputs = kernel.shape
    kernel = kernel.astype(x.dtype)
    if side == 1:
        return product(x, kernel[0, 0])
    if not by_products:
        sizes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=sizes)
    margin, (height, width) = side // 2, x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    beside = jnp.concatenate([padded[:, :, column : column + width] for column in range(side)], axis=-1)
    flat = kernel.reshape(side, side * channels, outputs)
    return sum((product(beside[:, row : row + height], flat[row]) for row in range(side)), jnp.zeros((), x.dtype))
