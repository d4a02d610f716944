"""Exact parameter and multiply-add counts of UperNet, counted as the paper's Table 3 counts them."""

from __future__ import annotations

import math

from s3_jax.cost import Cost, dense_cost, dense_map_sizes
from s3_jax.segmentation.upernet import POOLS
from s3_jax.space import Architecture


def upernet_cost(
    architecture: Architecture,
    size: tuple[int, int],
    *,
    image_size: int,
    patch_size: int,
    num_classes: int,
    channels: int,
    auxiliary_channels: int,
) -> Cost:
    """Parameters of the whole network, and MACs of evaluation on an image of `size` (height, width).

    Convolutions are counted where they are written down, on the enlarged maps, though fewer products are executed (see
    `resizing.enlarged_convolution`). The auxiliary head has parameters and no part in evaluation.
    """
    backbone = dense_cost(architecture, size, image_size=image_size, patch_size=patch_size)
    dims = [stage.embed_dim for stage in architecture.stages]
    places = [math.prod(sides) for sides in dense_map_sizes(size, patch_size, len(dims))]
    parts = [_convolution(dims[-1], channels, 1, side * side) for side in POOLS]
    parts.append(_convolution(dims[-1] + len(POOLS) * channels, channels, 3, places[-1]))
    for dim, count in zip(dims[:-1], places, strict=False):
        parts += [_convolution(dim, channels, 1, count), _convolution(channels, channels, 3, count)]
    parts += [_convolution(len(dims) * channels, channels, 3, places[0]), _classifier(channels, num_classes, places[0])]
    auxiliary = [_convolution(dims[-2], auxiliary_channels, 3, 0), _classifier(auxiliary_channels, num_classes, 0)]
    return Cost(
        backbone.params + sum(part.params for part in parts + auxiliary),
        backbone.macs + sum(part.macs for part in parts),
    )


def _convolution(inputs: int, outputs: int, side: int, places: int) -> Cost:
    """Without bias, and the scale and bias of the normalisation behind it."""
    kernel = side * side * inputs * outputs
    return Cost(kernel + 2 * outputs, kernel * places)


def _classifier(inputs: int, outputs: int, places: int) -> Cost:
    return Cost((inputs + 1) * outputs, inputs * outputs * places)
