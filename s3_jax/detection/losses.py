"""What the stages of Cascade Mask R-CNN learn from in an image, and their losses, as sums and what they count.

All functions are of one image; use `jax.vmap` for a batch.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from s3_jax.detection.anchors import Anchors, inside
from s3_jax.detection.assign import RPN_THRESHOLDS, STAGE_THRESHOLDS, assigned, is_object, sampled, with_objects
from s3_jax.detection.boxes import RPN_STDS, STAGE_STDS, decoded, encoded, generalized_overlaps
from s3_jax.detection.heads import BoxOutput, RpnOutput
from s3_jax.detection.mask_targets import mask_targets
from s3_jax.detection.proposals import Proposals, of_class

RPN_POSITIVES, BOX_POSITIVES = 0.5, 0.25  # of a sample, at most
SMOOTH_L1_BETA = 1 / 9
BOX_WEIGHT = 10.0  # of the generalized IoU's loss


class Truth(NamedTuple):
    """The objects of an image: boxes (M, 4), labels (M,) with -1 for padding, crops of masks uint8 (M, 112, 112).

    size: height and width (2,) of the image. counts (): whether it is trained on.
    """

    boxes: Array
    labels: Array
    crops: Array
    size: Array
    counts: Array

    @property
    def real(self) -> Array:
        """(M,) which rows are objects to learn."""
        return is_object(self.labels) & self.counts


class Rois(NamedTuple):
    """What a stage learns from: S boxes (S, 4), those that have an object first.

    target (S,): the object's number, negative where there is none. label (S,): its class, that of the background is
    the number of classes. goal (S, 4): the object's box. valid (S,): whether a row counts. is_object (S,): whether it
    is the box of the object itself.
    """

    boxes: Array
    target: Array
    label: Array
    goal: Array
    valid: Array
    is_object: Array

    @property
    def positive(self) -> Array:
        """(S,) whether a row has an object."""
        return self.target >= 0


class Sum(NamedTuple):
    """A loss summed over what it is of, and how many that is over, both ()."""

    total: Array
    over: Array


def rpn_losses(key: Array, output: RpnOutput, truth: Truth, *, anchors: Anchors, samples: int) -> tuple[Sum, Sum]:
    """Binary cross-entropy and smooth L1 of a sample of the anchors, both over all that are sampled."""
    boxes = jnp.asarray(anchors.boxes)
    valid = inside(boxes, truth.size) & truth.counts
    found = assigned(boxes, valid, truth.boxes, truth.real, RPN_THRESHOLDS)
    sample = sampled(key, found, samples, RPN_POSITIVES)
    logits, deltas = sample.of(output.objectness), sample.of(output.deltas)
    goals = encoded(sample.of(boxes), sample.of_targets(truth.boxes), RPN_STDS)
    count = sample.valid.sum()
    entropy = jnp.where(sample.valid, binary_cross_entropy(logits, sample.positive), 0)
    distance = jnp.where(sample.positive, smooth_l1(deltas - goals).sum(-1), 0)
    return Sum(entropy.sum(), count), Sum(distance.sum(), count)


def rois_of(key: Array, proposals: Proposals, truth: Truth, *, stage: int, samples: int, num_classes: int) -> Rois:
    """A sample of an image's proposals, its objects among them, for a stage of the cascade (0, 1, 2)."""
    valid = proposals.valid & truth.counts
    found = assigned(proposals.boxes, valid, truth.boxes, truth.real, STAGE_THRESHOLDS[stage])
    boxes, found = with_objects(proposals.boxes, found, truth.boxes, truth.real)
    sample = sampled(key, found, samples, BOX_POSITIVES)
    label = jnp.where(sample.positive, truth.labels[jnp.maximum(sample.target, 0)], num_classes)
    own = sample.valid & (sample.row >= len(proposals.boxes))
    return Rois(sample.of(boxes), sample.target, label, sample.of_targets(truth.boxes), sample.valid, own)


def box_losses(output: BoxOutput, rois: Rois, stage: int) -> tuple[Sum, Sum]:
    """Cross-entropy of the rows that count, and 10 (1 - GIoU) of those that have an object; both over all rows that
    count. Boxes are compared before they are clipped to the image."""
    count, positive = rois.valid.sum(), rois.positive
    log_shares = jax.nn.log_softmax(output.logits)
    entropy = -of_class(log_shares[..., None], rois.label)[..., 0]
    # Where a row has no object, both boxes are replaced before the division, so that no gradient can be NaN.
    rows = jnp.where(positive[:, None], rois.boxes, jnp.asarray([0.0, 0, 1, 1]))
    goals = jnp.where(positive[:, None], rois.goal, rows)
    deltas = of_class(output.deltas, jnp.where(positive, rois.label, 0))
    overlap = generalized_overlaps(decoded(rows, deltas, STAGE_STDS[stage]), goals)
    distance = BOX_WEIGHT * jnp.where(positive, 1 - overlap, 0).sum()
    return Sum(jnp.where(rois.valid, entropy, 0).sum(), count), Sum(distance, count)


def positives_of(rois: Rois) -> Rois:
    """The first rows alone, among which are all that have an object."""
    count = int(len(rois.valid) * BOX_POSITIVES)
    return jax.tree.map(lambda x: x[:count], rois)


def mask_loss(logits: Array, rois: Rois, truth: Truth) -> Sum:
    """Binary cross-entropy of the rows that have an object, the mean of each over its places: logits (R, 28, 28)."""
    targets = mask_targets(truth.crops, truth.boxes, rois.boxes, rois.target, logits.shape[-1])
    entropy = binary_cross_entropy(logits, targets).mean((1, 2))
    return Sum(jnp.where(rois.positive, entropy, 0).sum(), rois.positive.sum())


def binary_cross_entropy(logits: Array, targets: Array) -> Array:
    """Of logits with 0 and 1, each by itself."""
    return jax.nn.softplus(logits) - logits * targets


def smooth_l1(difference: Array) -> Array:
    """Quadratic below `SMOOTH_L1_BETA`, linear above (Girshick, 2015)."""
    size = jnp.abs(difference)
    return jnp.where(size < SMOOTH_L1_BETA, size**2 / (2 * SMOOTH_L1_BETA), size - SMOOTH_L1_BETA / 2)
