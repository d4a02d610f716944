"""Soft labels, and mixup (Zhang et al., 2018) or cutmix (Yun et al., 2019) between the examples of a batch."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from s3_jax.classification.config import AugmentConfig

Rectangle = tuple[int, int, int, int]  # top, bottom, left, right in pixels


@dataclasses.dataclass(frozen=True)
class Mix:
    """How a whole batch is mixed: `share` is what an example keeps of its own label; without a box it is mixup."""

    share: float
    box: Rectangle | None = None


def draw_mix(rng: np.random.Generator, config: AugmentConfig, image_size: int) -> Mix | None:
    """One batch's mixup or cutmix, or None where both are off."""
    if config.cutmix and (not config.mixup or rng.random() < config.mix_switch):
        box = _random_box(rng, 1 - rng.beta(config.cutmix, config.cutmix), image_size)
        top, bottom, left, right = box
        return Mix(1 - (bottom - top) * (right - left) / image_size**2, box)
    return Mix(rng.beta(config.mixup, config.mixup)) if config.mixup else None


def soft_label(label: int, num_classes: int, smoothing: float) -> np.ndarray:
    """float32 (num_classes,): 1 - smoothing at the label, and `smoothing` spread over all classes (label included)."""
    target = np.full(num_classes, smoothing / num_classes, np.float32)
    target[label] += 1 - smoothing
    return target


def mix_pairs(images: np.ndarray, targets: np.ndarray, mix: Mix) -> None:
    """Mixes examples 2i and 2i + 1 with each other, in place; the last one of an odd number stays as it is.

    images: float32 (B, S, S, 3); targets: float32 (B, num_classes). An example whose target is all zeros (a bad image)
    has nothing to give: it and its partner stay as they are.
    """
    usable = targets.sum(axis=1) > 0
    for first in range(0, len(images) - 1, 2):
        second = first + 1
        if not (usable[first] and usable[second]):
            continue
        _blend(targets[first], targets[second], mix.share)
        if mix.box is None:
            _blend(images[first], images[second], mix.share)
        else:
            top, bottom, left, right = mix.box
            _swap(images[first, top:bottom, left:right], images[second, top:bottom, left:right])


def _blend(a: np.ndarray, b: np.ndarray, share: float) -> None:
    """Each becomes `share` of itself and the rest of the other, in place."""
    moved = (b - a) * np.float32(1 - share)
    a += moved
    b -= moved


def _swap(a: np.ndarray, b: np.ndarray) -> None:
    kept = a.copy()
    a[:] = b
    b[:] = kept


def _random_box(rng: np.random.Generator, area: float, side: int) -> Rectangle:
    """A square of `area` (share of the image) about a random centre, cut at the image's border."""
    half = int(side * math.sqrt(area)) // 2
    y, x = (int(centre) for centre in rng.integers(side, size=2))
    return max(y - half, 0), min(y + half, side), max(x - half, 0), min(x + half, side)
