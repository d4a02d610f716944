"""How well class maps agree: intersection over union of each class, and pixel accuracy, from counts of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from s3_jax.segmentation.class_table import IGNORED
from s3_jax.task import Metrics

Counts = list[list[int]]


def counts_of(predicted: np.ndarray, label: np.ndarray, num_classes: int) -> Counts:
    """[class, pixels of both, predicted pixels, labelled pixels] for each class that occurs, of maps (H, W).

    Only pixels that count are looked at.
    """
    counted = label != IGNORED
    predicted, label = predicted[counted], label[counted]
    both = np.bincount(label[predicted == label], minlength=num_classes)
    each = both, np.bincount(predicted, minlength=num_classes), np.bincount(label, minlength=num_classes)
    table = np.stack([np.arange(num_classes), *each], axis=1)
    return table[table[:, 1:].any(axis=1)].tolist()


def summed(counts: Iterable[Counts], num_classes: int) -> np.ndarray:
    """Pixels of both, predicted and labelled of each class, over all images: int64 (C, 3)."""
    total = np.zeros((num_classes, 3), np.int64)
    for rows in counts:
        for number, *pixels in rows:
            total[number] += pixels
    return total


def metrics_of_counts(total: np.ndarray, class_names: Sequence[str]) -> Metrics:
    """Mean intersection over union, pixel accuracy, mean accuracy of classes, and each class's own, in percent.

    total: as `summed` has it. A class that occurs in neither prediction nor label has no intersection over union, and
    one without label no accuracy: means are over the others, as in mmsegmentation.
    """
    both, predicted, labelled = total.T.astype(np.float64)
    union = predicted + labelled - both
    there, has_label = union > 0, labelled > 0
    overlaps = 100.0 * both[there] / union[there]
    each: dict[str, Any] = {
        f"iou/{class_names[number]}": overlap
        for number, overlap in zip(np.flatnonzero(there).tolist(), overlaps.tolist(), strict=True)
    }
    return {
        "miou": float(overlaps.mean()) if there.any() else 0.0,
        "pixel_accuracy": float(100.0 * both.sum() / max(labelled.sum(), 1)),
        "class_accuracy": float((100.0 * both[has_label] / labelled[has_label]).mean()) if has_label.any() else 0.0,
    } | each
