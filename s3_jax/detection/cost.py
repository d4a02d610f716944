"""Exact parameter and multiply-add counts of Cascade Mask R-CNN, counted as the paper's Table 2 counts them."""

from __future__ import annotations

import math

from s3_jax.cost import Cost, dense_cost
from s3_jax.detection.anchors import RATIOS, map_sizes
from s3_jax.detection.boxes import LEVELS
from s3_jax.detection.cascade import STAGES
from s3_jax.detection.config import HeadConfig
from s3_jax.detection.heads import BOX_SIDE, CONVOLUTIONS, MASK_SIDE
from s3_jax.space import Architecture


def cascade_cost(
    architecture: Architecture,
    size: tuple[int, int],
    *,
    image_size: int,
    patch_size: int,
    num_classes: int,
    head: HeadConfig,
) -> Cost:
    """Parameters of the whole network, and MACs of a test on an image of `size` (height, width).

    Counted are `head.test_proposals` RoIs in each stage and `head.detections` in each mask head, whatever is found, and
    masks of all classes, though only those of the classes found are computed; RoIAlign is not.
    """
    dims = [stage.embed_dim for stage in architecture.stages]
    parts = [
        dense_cost(architecture, size, image_size=image_size, patch_size=patch_size),
        *_pyramid(dims, size, head),
        *_rpn(size, head),
        *STAGES * _box_head(num_classes, head),
        *STAGES * _mask_head(num_classes, head),
    ]
    return Cost(sum(part.params for part in parts), sum(part.macs for part in parts))


def _pyramid(dims: list[int], size: tuple[int, int], head: HeadConfig) -> list[Cost]:
    places = [math.prod(sides) for sides in map_sizes(size)[:LEVELS]]
    laterals = [_layer(dim, head.channels, count) for dim, count in zip(dims, places, strict=True)]
    return laterals + [_layer(9 * head.channels, head.channels, count) for count in places]


def _rpn(size: tuple[int, int], head: HeadConfig) -> list[Cost]:
    """One network for all levels."""
    places = sum(math.prod(sides) for sides in map_sizes(size))
    outputs = len(RATIOS) * (1 + 4)
    return [_layer(9 * head.channels, head.channels, places), _layer(head.channels, outputs, places)]


def _box_head(num_classes: int, head: HeadConfig) -> list[Cost]:
    rois, channels, width = head.test_proposals, head.channels, head.fc_channels
    # Without bias, and with the scale and bias of the normalisation.
    convolution = Cost(9 * channels**2 + 2 * channels, 9 * channels**2 * BOX_SIDE**2 * rois)
    outputs = _layer(width, num_classes + 1, rois), _layer(width, 4 * num_classes, rois)
    return [*[convolution] * CONVOLUTIONS, _layer(BOX_SIDE**2 * channels, width, rois), *outputs]


def _mask_head(num_classes: int, head: HeadConfig) -> list[Cost]:
    channels, places = head.channels, head.detections * MASK_SIDE**2
    # The transposed convolution has four products for a place that comes in, and its bias but once.
    doubling = Cost((4 * channels + 1) * channels, 4 * channels**2 * places)
    return [
        *[_layer(9 * channels, channels, places)] * CONVOLUTIONS,
        doubling,
        _layer(channels, num_classes, 4 * places),
    ]


def _layer(inputs: int, outputs: int, times: int) -> Cost:
    """A linear layer with a bias that is applied so often."""
    return Cost((inputs + 1) * outputs, inputs * outputs * times)
