"""Non-maximum suppression with static shapes, for one image: boxes that a better one of their group overlaps go.

The greedy rule goes box by box. Here all boxes are judged at once, again and again, until nothing changes: a box is
kept if no kept box before it suppresses it. Each round is right for one box more in order of scores at least, so
it ends with what the greedy rule keeps; a handful of rounds is enough for thousands of boxes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from s3_jax.detection.boxes import pairwise_overlaps


class Kept(NamedTuple):
    """What is left, best first: row (K,) among the boxes, 0 where not valid (K,); total (): all that is left, which
    is more than K where the limit cut something off."""

    row: Array
    valid: Array
    total: Array


class Best(NamedTuple):
    """The boxes of all classes that are left of an image's, best first, and zeros where not valid.

    boxes (K, 4), scores (K,), labels (K,), row (K,): of the proposal, valid (K,). overflow (): how many boxes over the
    least score were not looked at, for want of room.
    """

    boxes: Array
    scores: Array
    labels: Array
    row: Array
    valid: Array
    overflow: Array


def non_maximum_suppression(
    boxes: Array, scores: Array, valid: Array, threshold: float, limit: int, groups: Array | None = None
) -> Kept:
    """The best `limit` boxes of those that no better box of their group overlaps by more than a threshold.

    boxes (N, 4), scores (N,), valid (N,): boxes that exist; groups (N,): whole numbers, None for one group. Of equal
    scores the first is the better.
    """
    groups = jnp.zeros(scores.shape, jnp.int32) if groups is None else groups
    order, kept = _kept_in_order(boxes, scores, valid, threshold, groups)
    place, existing = _first(kept, limit)
    return Kept(jnp.where(existing, order[place], 0), existing, kept.sum())


def suppressed_by_level(boxes: Array, scores: Array, valid: Array, threshold: float, limit: int) -> Kept:
    """The best `limit` boxes of all levels, after suppression within each: (L, N, 4), (L, N), (L, N).

    Indices are of the levels' boxes one after another, (L * N).
    """
    none = jnp.zeros(scores.shape[1:], jnp.int32)
    order, kept = jax.vmap(_kept_in_order, (0, 0, 0, None, None))(boxes, scores, valid, threshold, none)
    alive = jnp.zeros_like(valid).at[jnp.arange(len(order))[:, None], order].set(kept).ravel()
    best = jnp.argsort(jnp.where(alive, -scores.ravel(), jnp.inf), stable=True)
    place, existing = _first(alive[best], limit)
    return Kept(jnp.where(existing, best[place], 0), existing, alive.sum())


def detections(
    boxes: Array,
    scores: Array,
    valid: Array,
    *,
    least_score: float = 0.05,
    threshold: float = 0.5,
    candidates: int = 2000,
    limit: int = 100,
) -> Best:
    """The best boxes of all classes after suppression within each: of proposals' boxes and scores.

    boxes: (R, 4), or (R, C, 4) where every class has its own. scores: (R, C), of the foreground's classes. valid:
    (R,). Only boxes of more than the least score, and of them the best `candidates`, are looked at.
    """
    classes = scores.shape[1]
    existing = (valid[:, None] & (scores > least_score)).ravel()
    score, place = jax.lax.top_k(jnp.where(existing, scores.ravel(), -jnp.inf), min(candidates, existing.size))
    row, label = jnp.divmod(place, classes)
    box = boxes[row] if boxes.ndim == 2 else boxes.reshape(-1, 4)[place]
    kept = non_maximum_suppression(box, score, jnp.isfinite(score), threshold, limit, label)
    box, score, label, row = (_where(kept.valid, values[kept.row]) for values in (box, score, label, row))
    return Best(box, score, label, row, kept.valid, jnp.maximum(existing.sum() - candidates, 0))


def _kept_in_order(boxes: Array, scores: Array, valid: Array, threshold: float, groups: Array) -> tuple[Array, Array]:
    """Indices of the boxes in order of scores (N,), and whether the box at each place is kept."""
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
    boxes, groups, valid = boxes[order], groups[order], valid[order]
    places = jnp.arange(len(order))
    suppresses = pairwise_overlaps(boxes, boxes) > threshold
    suppresses &= (groups[:, None] == groups) & (places[:, None] < places)

    def judged(state: tuple[Array, Array]) -> tuple[Array, Array]:
        """What is kept now, and before."""
        kept, _ = state
        return valid & ~(kept[:, None] & suppresses).any(0), kept

    start = (valid, jnp.zeros_like(valid))
    return order, jax.lax.while_loop(lambda state: (state[0] != state[1]).any(), judged, start)[0]


def _first(kept: Array, limit: int) -> tuple[Array, Array]:
    """Places of the first `limit` that are kept (N,), and which of these exist."""
    missing = max(0, limit - len(kept))
    rank, place = jax.lax.top_k(jnp.where(kept, jnp.arange(len(kept), 0, -1), 0), limit - missing)
    return jnp.pad(place, (0, missing)), jnp.pad(rank > 0, (0, missing))


def _where(valid: Array, values: Array) -> Array:
    return jnp.where(valid.reshape(-1, *[1] * (values.ndim - 1)), values, 0)
