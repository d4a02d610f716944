"""Canvases: the few static shapes on which images of all sizes are seen, with their objects in static shapes too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from s3_jax.data.rescaling import Scale, Size
from s3_jax.detection.masks import CROP_SIDE
from s3_jax.errors import S3Error

NO_OBJECT = -1  # the label of padding


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


def padded_objects(boxes: np.ndarray, labels: np.ndarray, crops: np.ndarray, most: int) -> dict[str, np.ndarray]:
    """N objects in arrays for `most`, M: the first rows in order, the others padding.

    boxes: (N, 4), left, top, right, bottom in pixels. labels: (N,). crops: uint8 (N, 112, 112). Gives "boxes" float32
    (M, 4), "labels" int32 (M,), -1 for padding, and "masks" uint8 (M, 112, 112). Of more than M objects the largest by
    their boxes are kept, in their order; "left_out", int32 (), tells how many are not.
    """
    kept = np.sort(np.argsort(-_areas(boxes), kind="stable")[:most])
    count = len(kept)
    padded: dict[str, np.ndarray] = {
        "boxes": np.zeros((most, 4), np.float32),
        "labels": np.full(most, NO_OBJECT, np.int32),
        "masks": np.zeros((most, CROP_SIDE, CROP_SIDE), np.uint8),
    }
    for name, values in (("boxes", boxes), ("labels", labels), ("masks", crops)):
        padded[name][:count] = values[kept]
    return padded | {"left_out": np.asarray(len(labels) - count, np.int32)}


def overflow(counts: np.ndarray, most: int) -> str:
    """What to warn of where images have more objects, (I,), than `most`; "" where none has."""
    over = counts[counts > most]
    if not len(over):
        return ""
    return (
        f"{len(over):,} images have more than data.max_objects = {most} objects, up to {over.max():,}: the largest are "
        f"kept, and {int((over - most).sum()):,} are left out"
    )


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _spoken(canvases: Sequence[Size]) -> str:
    return ", ".join(f"{height} x {width}" for height, width in canvases) or "none"
