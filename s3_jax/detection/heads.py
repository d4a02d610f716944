"""The parts of Cascade Mask R-CNN that have weights: modules that hold them, and pure functions that compute with them.

Feature pyramid (Lin et al., 2017), region proposal network (Ren et al., 2015), the box heads of a cascade (Cai and
Vasconcelos, 2018) and mask heads (He et al., 2017), as mmdetection makes them for Swin. by_products: see `convolution`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from s3_jax.detection.anchors import RATIOS, STRIDES
from s3_jax.detection.config import HeadConfig
from s3_jax.models.batch_norm import batch_norm
from s3_jax.models.convolution import ConvolutionNorm, convolution
from s3_jax.models.layers import Linear, product

CONVOLUTIONS = 4  # of a box head and of a mask head
BOX_SIDE, MASK_SIDE = 7, 14  # places a side that RoIAlign gives them; a mask head answers for twice as many


class Normalisation(NamedTuple):
    """How RoIs (R, ...) pass the box heads in training: those of weight (R,) 0 are in no statistics of the batch.

    batch_axis: the mesh axis over which `jax.shard_map` splits the batch.
    """

    weight: Array
    batch_axis: str | None


class RpnOutput(NamedTuple):
    """Of all anchors, float32: objectness (..., A), a logit, and deltas (..., A, 4)."""

    objectness: Array
    deltas: Array


class BoxOutput(NamedTuple):
    """Of RoIs, float32: logits (..., classes + 1), the background last, and deltas of every class (..., classes, 4)."""

    logits: Array
    deltas: Array


class Pyramid(nnx.Module):
    """Weights that bring maps of `dims` channels to the same channels."""

    def __init__(self, dims: Sequence[int], channels: int, rngs: nnx.Rngs) -> None:
        self.laterals = nnx.List([_convolution(dim, channels, 1, _xavier(dim, channels, 1), rngs) for dim in dims])
        deviation = _xavier(channels, channels, 3)
        self.outputs = nnx.List([_convolution(channels, channels, 3, deviation, rngs) for _ in dims])


class Rpn(nnx.Module):
    """Weights that tell of every anchor whether an object is there, and where."""

    def __init__(self, head: HeadConfig, rngs: nnx.Rngs) -> None:
        self.convolution = _convolution(head.channels, head.channels, 3, head.rpn_std, rngs)
        self.objectness = Linear((head.channels, len(RATIOS)), std=head.rpn_std, rngs=rngs)
        self.deltas = Linear((head.channels, len(RATIOS) * 4), std=head.rpn_std, rngs=rngs)


class BoxHead(nnx.Module):
    """Weights of one stage of the cascade: convolutions, a fully connected layer, a classifier and a regressor."""

    def __init__(self, head: HeadConfig, num_classes: int, rngs: nnx.Rngs) -> None:
        self.convolutions = nnx.List(
            [ConvolutionNorm(head.channels, head.channels, side=3, rngs=rngs) for _ in range(CONVOLUTIONS)]
        )
        inputs, width = BOX_SIDE**2 * head.channels, head.fc_channels
        shape = (BOX_SIDE, BOX_SIDE, head.channels, width)
        self.fc = Linear(shape, inputs=3, std=math.sqrt(2 / (inputs + width)), rngs=rngs)
        self.classifier = Linear((width, num_classes + 1), std=head.classifier_std, rngs=rngs)
        self.regressor = Linear((width, num_classes, 4), std=head.regressor_std, rngs=rngs)


class MaskHead(nnx.Module):
    """Weights of the mask head of one stage: convolutions, one that doubles both sides, and a mask for each class."""

    def __init__(self, head: HeadConfig, num_classes: int, rngs: nnx.Rngs) -> None:
        channels = head.channels
        deviation = _of_outputs(channels, 3)
        self.convolutions = nnx.List(
            [_convolution(channels, channels, 3, deviation, rngs) for _ in range(CONVOLUTIONS)]
        )
        self.doubling = _convolution(channels, channels, 2, _of_outputs(channels, 2), rngs)
        self.classifier = Linear((channels, num_classes), std=_of_outputs(num_classes, 1), rngs=rngs)


def pyramid(weights: Pyramid, maps: Sequence[Array], *, by_products: bool) -> list[Array]:
    """The maps P2 to P6 (B, h, w, channels), of the backbone's four (B, h, w, C); P6 is every other place of P5."""
    levels = [_convolved(layer, x, by_products) for layer, x in zip(weights.laterals, maps, strict=True)]
    for index in range(len(levels) - 1, 0, -1):
        below = levels[index - 1]
        levels[index - 1] = below + _doubled(levels[index], (below.shape[1], below.shape[2]))
    outputs = [_convolved(layer, x, by_products) for layer, x in zip(weights.outputs, levels, strict=True)]
    while len(outputs) < len(STRIDES):
        outputs.append(outputs[-1][:, ::2, ::2])
    return outputs


def rpn(weights: Rpn, maps: Sequence[Array], *, by_products: bool) -> RpnOutput:
    """What the region proposal network says of all anchors, in the order of `anchors_of`."""
    each = [_of_level(weights, x, by_products) for x in maps]
    return RpnOutput(*(jnp.concatenate(parts, axis=1) for parts in zip(*each, strict=True)))


def box_head(weights: BoxHead, x: Array, normalisation: Normalisation | None, *, by_products: bool) -> BoxOutput:
    """What a stage says of RoIs' maps (R, 7, 7, C). normalisation: None in evaluation, by running statistics."""
    given = (normalisation.weight, normalisation.batch_axis) if normalisation else (None, None)
    for layer in weights.convolutions:
        x = convolution(layer.convolution.kernel[...], x, by_products=by_products)
        x = jax.nn.relu(batch_norm(layer.norm, x, *given))
    hidden = jax.nn.relu(_linear(weights.fc, x.reshape(x.shape[0], -1)))
    deltas = _linear(weights.regressor, hidden).reshape(x.shape[0], -1, 4)
    return BoxOutput(_linear(weights.classifier, hidden).astype(jnp.float32), deltas.astype(jnp.float32))


def mask_head(weights: MaskHead, x: Array, labels: Array, *, by_products: bool) -> Array:
    """Logits of the mask of each RoI's own class, float32 (R, 28, 28), from maps (R, 14, 14, C) and labels (R,).

    Masks of other classes are not computed: nothing asks for them.
    """
    for layer in weights.convolutions:
        x = jax.nn.relu(_convolved(layer, x, by_products))
    x = jax.nn.relu(_transposed(weights.doubling, x))
    kernel = weights.classifier.kernel[...].astype(x.dtype).T[labels]
    logits = jnp.einsum("rhwc,rc->rhw", x, kernel, preferred_element_type=jnp.float32)
    return logits + weights.classifier.bias[...][labels][:, None, None]


def _of_level(weights: Rpn, x: Array, by_products: bool) -> RpnOutput:
    hidden = jax.nn.relu(_convolved(weights.convolution, x, by_products))
    objectness, deltas = (_linear(layer, hidden).astype(jnp.float32) for layer in (weights.objectness, weights.deltas))
    return RpnOutput(objectness.reshape(x.shape[0], -1), deltas.reshape(x.shape[0], -1, 4))


def _convolution(inputs: int, outputs: int, side: int, deviation: float, rngs: nnx.Rngs) -> Linear:
    return Linear((side, side, inputs, outputs), inputs=3, std=deviation, rngs=rngs)


def _xavier(inputs: int, outputs: int, side: int) -> float:
    """The deviation of Glorot and Bengio (2010)."""
    return math.sqrt(2 / (side * side * (inputs + outputs)))


def _of_outputs(outputs: int, side: int) -> float:
    """The deviation of He et al. (2015) by the number of outputs, as mmcv's layers begin."""
    return math.sqrt(2 / (side * side * outputs))


def _convolved(layer: Linear, x: Array, by_products: bool) -> Array:
    return convolution(layer.kernel[...], x, by_products=by_products) + layer.bias[...].astype(x.dtype)


def _linear(layer: Linear, x: Array) -> Array:
    """(..., C) through a kernel of which the axes of the bias are the outputs: to (..., outputs), flat."""
    bias = layer.bias[...]
    return product(x, layer.kernel[...].reshape(-1, bias.size)) + bias.reshape(-1).astype(x.dtype)


def _transposed(layer: Linear, x: Array) -> Array:
    """The transposed convolution of stride 2, kernel (2, 2, C, O): (R, h, w, C) to (R, 2 h, 2 w, O)."""
    count, height, width, channels = x.shape
    kernel = layer.kernel[...].transpose(2, 0, 1, 3).reshape(channels, -1)
    squares = product(x, kernel).reshape(count, height, width, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(count, 2 * height, 2 * width, -1) + layer.bias[...].astype(x.dtype)


def _doubled(x: Array, size: tuple[int, int]) -> Array:
    """(B, ceil(H / 2), ceil(W / 2), C) enlarged to `size`, (H, W): every place stands for a square of 2 x 2.

    PyTorch's nearest interpolation takes the same places for these sizes.
    """
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, : size[0], : size[1]]
