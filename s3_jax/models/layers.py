"""Layers of the transformer: modules that hold parameters, and the pure functions that compute with them.

Every function takes the number of active channels, heads or hidden units as an optional scalar, traced or not. `None`
means that all are active: then nothing is masked and the layer is the ordinary one. Otherwise activations outside the
active part are exactly zero on the way in and on the way out, and so are the gradients of the weights outside it.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from s3_jax.space import HEAD_DIM

ActiveCount = int | Array | np.ndarray | None


class LayerNorm(nnx.Module):
    """Scale and bias of a layer normalisation over the axes of `shape`, the last of which is maskable."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.scale = nnx.Param(jnp.ones(shape))
        self.bias = nnx.Param(jnp.zeros(shape))


class Linear(nnx.Module):
    """Kernel of `shape`, of which the first `inputs` axes are summed over, and a bias over the others."""

    def __init__(
        self, shape: tuple[int, ...], *, inputs: int = 1, bias: bool = True, std: float, rngs: nnx.Rngs
    ) -> None:
        self.kernel = nnx.Param(truncated_normal(rngs.params(), shape, inputs, std))
        if bias:
            self.bias = nnx.Param(jnp.zeros(shape[inputs:]))


class Attention(nnx.Module):
    """Weights of window attention: qkv (C, 3, heads, 32), proj (heads, 32, C), bias table (2w-1, 2w-1, heads)."""

    def __init__(self, dim: int, heads: int, window: int, *, std: float, rngs: nnx.Rngs) -> None:
        self.qkv = Linear((dim, 3, heads, HEAD_DIM), std=std, rngs=rngs)
        self.proj = Linear((heads, HEAD_DIM, dim), inputs=2, std=std, rngs=rngs)
        span = 2 * window - 1
        self.bias_table = nnx.Param(truncated_normal(rngs.params(), (span, span, heads), 1, 0.02))


class Mlp(nnx.Module):
    """Weights of the feed-forward network."""

    def __init__(self, dim: int, hidden: int, *, std: float, rngs: nnx.Rngs) -> None:
        self.fc1 = Linear((dim, hidden), std=std, rngs=rngs)
        self.fc2 = Linear((hidden, dim), std=std, rngs=rngs)


def truncated_normal(key: Array, shape: tuple[int, ...], inputs: int, std: float) -> Array:
    """Initial weights of `shape`, normal with deviation `std`; 0 means 1 / sqrt(fan-in over the first axes).

    Cut as `trunc_normal_` of PyTorch and timm does it: at the absolute values -2 and 2, so the deviation is what is
    asked for; a cut at two deviations would shrink it to 0.88 of that.
    """
    fan_in = 1
    for size in shape[:inputs]:
        fan_in *= size
    deviation = std if std > 0 else fan_in**-0.5
    # In float32 a draw at the very end of the distribution would be infinite and land on the cut: -2 among 0.02s.
    bound = min(2.0 / deviation, 5.0)
    size = math.prod(shape)
    drawn = max(4**6, 4 ** math.ceil(math.log(size, 4)))
    return deviation * _draws(key, bound, drawn)[:size].reshape(shape)


@partial(jax.jit, static_argnames=("bound", "size"))
def _draws(key: Array, bound: float, size: int) -> Array:
    """The first of them are the same however many are drawn: so few programs serve arrays of all shapes."""
    return jax.random.truncated_normal(key, -bound, bound, (size,))


def active_mask(size: int, count: ActiveCount, dtype: jnp.dtype) -> Array | None:
    """Ones at the first `count` of `size` positions and zeros behind: (size,), or None where all are active."""
    return None if count is None else (jnp.arange(size) < count).astype(dtype)


def masked(x: Array, mask: Array | None) -> Array:
    """`x` with the channels (its last axis) outside the mask set to zero."""
    return x if mask is None else x * mask


def layer_norm(norm: LayerNorm, x: Array, count: ActiveCount = None, epsilon: float = 1e-5) -> Array:
    """Layer normalisation over the trailing axes of `x` that `norm` has, of which the last has `count` active entries.

    x: (..., *norm.scale.shape), zero where inactive; fewer channels are the norm's first. Statistics are float32 and
    run over the active entries alone.
    """
    size, shape = x.shape[-1], norm.scale.shape
    axes = tuple(range(-len(shape), 0))
    mask = active_mask(size, count, jnp.float32)
    entries = (size if count is None else count) * (norm.scale.size // shape[-1])
    wide = x.astype(jnp.float32)
    centred = masked(wide - wide.sum(axes, keepdims=True) / entries, mask)
    variance = jnp.square(centred).sum(axes, keepdims=True) / entries
    normed = centred * jax.lax.rsqrt(variance + epsilon) * norm.scale[..., :size] + norm.bias[..., :size]
    return masked(normed, mask).astype(x.dtype)


def linear(layer: Linear, x: Array) -> Array:
    """`x` (..., C_in) through a kernel (C_in, C_out) and a bias, in the type of `x`."""
    return product(x, layer.kernel[...]) + layer.bias[...].astype(x.dtype)


def product(x: Array, kernel: Array) -> Array:
    """`x` (..., C_in) times `kernel` (C_in, C_out), as one product of two matrices in the type of `x`.

    XLA's CPU backend takes four times as long for the kernel's gradient where that sums over several axes.
    """
    flat = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def mlp(weights: Mlp, x: Array) -> Array:
    """Two linear layers with an exact GELU between: (..., C) to (..., C)."""
    return contract(weights.fc2, expand(weights.fc1, x))


def expand(layer: Linear, x: Array, computed: int | None = None) -> Array:
    """The MLP's units before the GELU, the first `computed` (None: all): (..., C) to (..., computed).

    Of the weights' channels only the first C are used.
    """
    units = product(x, layer.kernel[: x.shape[-1], :computed])
    return units + layer.bias[:computed].astype(x.dtype)


def contract(layer: Linear, units: Array, active: ActiveCount = None, computed: int | None = None) -> Array:
    """GELU of the MLP's units, of which the first `active` count, and their projection back to channels.

    (..., U) to (..., computed), the first `computed` channels (None: all). Of the weights' units the first U are used.
    """
    size = units.shape[-1]
    units = masked(gelu(units), active_mask(size, active, units.dtype))
    return product(units, layer.kernel[:size, :computed]) + layer.bias[:computed].astype(units.dtype)


def gelu(x: Array) -> Array:
    """The exact GELU, by erf in float32 as in PyTorch; a TPU's compiler takes three times as long for jax.nn's erfc."""
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1.0 + jax.lax.erf(wide * 2.0**-0.5))).astype(x.dtype)


def patch_embed(layer: Linear, x: Array) -> Array:
    """Non-overlapping patches of (B, H, W, channels) to (B, H / p, W / p, C); ragged edges are padded with zeros."""
    patch, _, channels, dim = layer.kernel.shape
    x = pad_to_multiple(x, (patch, patch))
    batch, height, width, _ = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    flat = x.reshape(batch, height // patch, width // patch, -1)
    return product(flat, layer.kernel[...].reshape(-1, dim)) + layer.bias[...].astype(x.dtype)


def pad_to_multiple(x: Array, sides: tuple[int, int]) -> Array:
    """(B, H, W, C) padded with zeros at the bottom and the right until H and W are multiples of `sides`."""
    height, width = -x.shape[1] % sides[0], -x.shape[2] % sides[1]
    return jnp.pad(x, ((0, 0), (0, height), (0, width), (0, 0))) if height or width else x


def drop_path(x: Array, rate: Array | float, key: Array | None, batch_axis: str | None = None) -> Array:
    """Stochastic depth: the branch `x` (B, ...) dropped for an image with chance `rate`, else times 1 / (1 - rate).

    batch_axis: the mesh axis over whose devices `jax.shard_map` has split the images, if it has. The draws of the whole
    batch are then made on each, which takes its own: so many devices drop what one would.
    """
    if key is None:
        return x
    count = x.shape[0]
    whole = count * jax.lax.axis_size(batch_axis) if batch_axis else count
    keep = jax.random.bernoulli(key, 1.0 - rate, (whole,) + (1,) * (x.ndim - 1))
    if batch_axis:
        keep = jax.lax.dynamic_slice_in_dim(keep, jax.lax.axis_index(batch_axis) * count, count)
    return x * (keep / (1.0 - rate)).astype(x.dtype)
