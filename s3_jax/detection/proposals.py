"""From what networks say of anchors and of RoIs to the boxes that the next stage looks at, without gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from s3_jax.detection.anchors import Anchors, of_levels, proposing
from s3_jax.detection.boxes import RPN_STDS, STAGE_STDS, clipped, decoded
from s3_jax.detection.heads import BoxOutput, RpnOutput
from s3_jax.detection.nms import suppressed_by_level

RPN_NMS = 0.7  # of proposals of a level that overlap more, the better one stays


class Proposals(NamedTuple):
    """Boxes (..., P, 4) that may be objects, within their image, and which are valid (..., P), the others padding."""

    boxes: Array
    valid: Array


def proposals_of(output: RpnOutput, size: Array, *, anchors: Anchors, candidates: int, limit: int) -> Proposals:
    """The proposals of one image of height and width `size` (2,), at most `limit` of all levels, the best first.

    Of every level the `candidates` of highest objectness, in whose order suppression goes.
    """
    output = jax.lax.stop_gradient(output)
    scores = jnp.where(proposing(anchors.places, size), output.objectness, -jnp.inf)
    boxes = clipped(decoded(jnp.asarray(anchors.boxes), output.deltas, RPN_STDS), size)
    most = min(candidates, max(anchors.sizes))
    each = zip(of_levels(boxes, anchors.sizes), of_levels(scores, anchors.sizes), strict=True)
    levels = [_best(box, score, most) for box, score in each]
    best, score = (jnp.stack(parts) for parts in zip(*levels, strict=True))
    kept = suppressed_by_level(best, score, jnp.isfinite(score), RPN_NMS, limit)
    chosen = jnp.where(kept.valid[:, None], best.reshape(-1, 4)[kept.row], 0)
    return Proposals(chosen, kept.valid)


def refined(boxes: Array, labels: Array, output: BoxOutput, size: Array, stage: int) -> Array:
    """RoIs (..., R, 4) as a stage would have them, were they of the classes `labels` (..., R), within the image.

    size: (..., 2) height and width.
    """
    deltas = of_class(output.deltas, labels)
    return jax.lax.stop_gradient(clipped(decoded(boxes, deltas, STAGE_STDS[stage]), size[..., None, :]))


def likeliest(output: BoxOutput) -> Array:
    """The class of the highest logit, (..., R), of the foreground's."""
    return output.logits[..., :-1].argmax(-1)


def of_class(values: Array, labels: Array) -> Array:
    """The values (..., R, classes, K) of one class of each row, labels (..., R): (..., R, K)."""
    # Comparing instead of gathering: the gradient of a gather is a scatter, which is slow and long to compile.
    own = jnp.arange(values.shape[-2]) == labels[..., None]
    return jnp.where(own[..., None], values, 0).sum(-2)


def _best(boxes: Array, scores: Array, most: int) -> tuple[Array, Array]:
    """The boxes of the highest scores (most, 4), and these (most,): -inf where a level lacks boxes."""
    count = min(most, len(scores))
    score, row = jax.lax.top_k(scores, count)
    missing = most - count
    padded = jnp.pad(boxes[row], ((0, missing), (0, 0)))
    return padded, jnp.pad(score, (0, missing), constant_values=-jnp.inf)
