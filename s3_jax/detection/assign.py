"""Which boxes are to find which object, and a sample of fixed size of them to learn from, for one image.

Objects are padded to a fixed number; padding has the label -1. Use `jax.vmap` for a batch, each image with its key.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from s3_jax.detection.boxes import pairwise_overlaps

NEGATIVE, IGNORED = -1, -2  # in place of an object's number: background, and neither object nor background
CHUNK = 8192  # boxes that are compared with all objects at once; those of a whole canvas would take 100 MB an image


class Thresholds(NamedTuple):
    """IoU from which a box is positive, below which it is negative, and which an object's best box must reach to be
    its own whatever it is (None: objects without a positive box stay without)."""

    positive: float
    negative: float
    low_quality: float | None = None


RPN_THRESHOLDS = Thresholds(0.7, 0.3, 0.3)
STAGE_THRESHOLDS = tuple(Thresholds(each, each) for each in (0.5, 0.6, 0.7))


class Sample(NamedTuple):
    """Rows to learn from: positives first, then negatives, then rows that do not count.

    row (S,): the box's number among the candidates. target (S,): the number of its object, NEGATIVE where it has
    none. valid (S,): whether the row counts; where not, row is 0 and target NEGATIVE.
    """

    row: Array
    target: Array
    valid: Array

    @property
    def positive(self) -> Array:
        """(S,) whether a row has an object."""
        return self.target >= 0

    def of(self, values: Array) -> Array:
        """The candidates' values (N, ...) of each row, (S, ...), zero where the row does not count."""
        return jnp.where(_beside(self.valid, values), values[self.row], 0)

    def of_targets(self, values: Array) -> Array:
        """The objects' values (G, ...) of each row, (S, ...), zero where it has no object."""
        return jnp.where(_beside(self.positive, values), values[jnp.maximum(self.target, 0)], 0)


def is_object(labels: Array, crowd: Array | None = None) -> Array:
    """(G,) which rows of ground truth are to be found: no padding (label -1), and no crowd (G,) of objects."""
    return labels >= 0 if crowd is None else (labels >= 0) & ~crowd.astype(bool)


def assigned(boxes: Array, valid: Array, objects: Array, real: Array, thresholds: Thresholds) -> Array:
    """The object of each box: int32 (N,), its number, or NEGATIVE or IGNORED.

    boxes (N, 4), of which those not `valid` (N,) are ignored; objects (G, 4), of which those not `real` (G,) do not
    exist. Of several objects that overlap a box alike the first is its own. In the end every object takes its best
    boxes, all that tie; a box that is the best of several objects goes to the last of them (mmdetection's
    MaxIoUAssigner).
    """
    found = _compared(boxes, valid, objects, real)
    result = jnp.where(found.overlap < thresholds.negative, NEGATIVE, IGNORED)
    result = jnp.where(found.overlap >= thresholds.positive, found.nearest, result)
    if thresholds.low_quality is not None:
        own = found.is_best & (found.best >= thresholds.low_quality)
        last = jnp.where(own, jnp.arange(len(objects)), -1).max(1)
        result = jnp.where(last >= 0, last, result)
    return jnp.where(valid, result, IGNORED).astype(jnp.int32)


def with_objects(boxes: Array, found: Array, objects: Array, real: Array) -> tuple[Array, Array]:
    """Boxes (N + G, 4) and their objects (N + G,): the objects themselves join the candidates of a stage.

    They come last, so that the random numbers of no candidate depend on how many rows of padding there are.
    """
    own = jnp.where(real, jnp.arange(len(objects)), IGNORED).astype(found.dtype)
    return jnp.concatenate([boxes, objects]), jnp.concatenate([found, own])


def sampled(key: Array, found: Array, size: int, positive_share: float) -> Sample:
    """A random sample of `size` rows of the candidates (N,), given by their objects.

    At most the share of them is positive; negatives fill the rest, and rows that do not count what they leave.
    """
    found = jnp.pad(found, (0, max(0, size - len(found))), constant_values=IGNORED)
    drawn = jax.random.uniform(key, found.shape)
    # Each kind's best by itself, since positives beyond their share must not push negatives out.
    positive = jax.lax.top_k(jnp.where(found >= 0, 2 + drawn, 0), int(size * positive_share))
    negative = jax.lax.top_k(jnp.where(found == NEGATIVE, 1 + drawn, 0), size)
    scores, indices = (jnp.concatenate(pair) for pair in zip(positive, negative, strict=True))
    score, row = jax.lax.top_k(scores, size)
    valid = score > 0
    index = jnp.where(valid, indices[row], 0)
    return Sample(index, jnp.where(valid, found[index], NEGATIVE), valid)


class _Compared(NamedTuple):
    """overlap (N,): the highest IoU of each box, -1 without objects; nearest (N,): with which object. best (G,): the
    highest of each object; is_best (N, G): with which boxes."""

    overlap: Array
    nearest: Array
    best: Array
    is_best: Array


def _compared(boxes: Array, valid: Array, objects: Array, real: Array) -> _Compared:
    count = len(boxes)
    if count <= CHUNK:
        return _compared_at_once(boxes, valid, objects, real)
    missing = -count % CHUNK
    chunks = jnp.pad(boxes, ((0, missing), (0, 0))).reshape(-1, CHUNK, 4)
    counted = jnp.pad(valid, (0, missing)).reshape(-1, CHUNK)
    each = jax.lax.map(lambda chunk: _compared_at_once(chunk[0], chunk[1], objects, real), (chunks, counted))
    best = each.best.max(0)
    is_best = each.is_best & (each.best == best)[:, None]
    overlap, nearest = (values.reshape(-1)[:count] for values in (each.overlap, each.nearest))
    return _Compared(overlap, nearest, best, is_best.reshape(-1, len(objects))[:count])


def _compared_at_once(boxes: Array, valid: Array, objects: Array, real: Array) -> _Compared:
    overlap = jnp.where(valid[:, None] & real, pairwise_overlaps(boxes, objects), -1)
    # Computed once, not again for each use: rounded another way, the best would not be found equal to itself.
    overlap = jax.lax.optimization_barrier(overlap)
    best = overlap.max(0)
    return _Compared(overlap.max(1), overlap.argmax(1), best, overlap == best)


def _beside(mask: Array, values: Array) -> Array:
    return mask.reshape(-1, *[1] * (values.ndim - 1))
