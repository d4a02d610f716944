"""How well class maps agree: intersection over union of each class, and pixel accuracy, from counts of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from absl import logging

from s3_jax.errors import S3Error, listed
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
    one without label no accuracy: means are over the others, as in mmsegmentation. Raises S3Error where no pixel has a
    label.
    """
    both, predicted, labelled = total.T.astype(np.float64)
    if not labelled.any():
        raise S3Error(
            "no pixel of the masks counts, so there is nothing to measure by: all are ignored; look at "
            "data.ignored_value and data.zero_is_ignored (evaluate.py: --ignored_value, --zero_is_ignored)"
        )
    _tell_absent(tuple(name for name, pixels in zip(class_names, labelled, strict=True) if not pixels))
    union = predicted + labelled - both
    there, has_label = union > 0, labelled > 0
    overlaps = 100.0 * both[there] / union[there]
    each: dict[str, Any] = {
        f"iou/{class_names[number]}": overlap
        for number, overlap in zip(np.flatnonzero(there).tolist(), overlaps.tolist(), strict=True)
    }
    return {
        "miou": float(overlaps.mean()),
        "pixel_accuracy": float(100.0 * both.sum() / labelled.sum()),
        "class_accuracy": float((100.0 * both[has_label] / labelled[has_label]).mean()),
    } | each


@cache
def _tell_absent(names: tuple[str, ...]) -> None:
    """A class that no mask has is often one whose value is taken for another, or ignored."""
    if names:
        logging.warning("classes of which no pixel is in the masks that are measured by: %s", listed(names))
