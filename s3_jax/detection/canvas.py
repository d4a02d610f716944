"""Objects in static shapes, beside the canvases on which images of all sizes are seen: see `data.canvases`."""

from __future__ import annotations

import numpy as np

from s3_jax.detection.masks import CROP_SIDE

NO_OBJECT = -1  # the label of padding


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
