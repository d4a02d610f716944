"""Canvases: the few static shapes on which images of all sizes are seen, each at the top left of one that holds it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from s3_jax.data.rescaling import Scale, Size
from s3_jax.errors import S3Error


def canvas_of(size: Size, canvases: Sequence[Size]) -> Size:
    """The canvas, (height, width), of the fewest pixels that holds an image of a size; of equal ones the first.

    Raises S3Error where none does.
    """
    holding = [canvas for canvas in canvases if canvas[0] >= size[0] and canvas[1] >= size[1]]
    if not holding:
        raise S3Error(
            f"no canvas holds an image of {size[0]} x {size[1]} pixels (height x width); data.canvases has "
            f"{_spoken(canvases)}: add one, or have images resized to less"
        )
    return min(holding, key=lambda canvas: canvas[0] * canvas[1])


def check_canvases(canvases: Sequence[Size], scales: Sequence[Scale], stride: int) -> None:
    """Raises S3Error for canvases that a network cannot take, or that do not hold all images.

    scales: (longer, shorter) sides in pixels that images are resized to fit into, upright or lying. stride: pixels to a
    cell of the network's coarsest map, so that each map is exactly half of the one before, as a feature pyramid adds
    them. Windows need no check: the networks pad maps to whole windows, and those of any canvas.
    """
    for canvas in canvases:
        if any(side % stride for side in canvas):
            fitting = " x ".join(str(-(-side // stride) * stride) for side in canvas)
            raise S3Error(
                f"data.canvases: {_spoken([canvas])} pixels do not fit a network whose coarsest map has a stride of "
                f"{stride}; give both sides as multiples of it, such as {fitting}"
            )
    for scale in scales:
        for size in ((min(scale), max(scale)), (max(scale), min(scale))):
            canvas_of(size, canvases)


def on_canvas(image: np.ndarray, canvas: Size) -> np.ndarray:
    """An image (H, W, C) at the top left of a canvas of zeros, (height, width, C), of its type."""
    wide = np.zeros((*canvas, image.shape[-1]), image.dtype)
    wide[: image.shape[0], : image.shape[1]] = image
    return wide


def _spoken(canvases: Sequence[Size]) -> str:
    return ", ".join(f"{height} x {width}" for height, width in canvases) or "none"
