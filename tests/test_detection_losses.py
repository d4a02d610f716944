"""Losses worked out by hand; test_detection_reference.py has those of whole networks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.detection.anchors import anchors_of, inside
from s3_jax.detection.heads import BoxOutput, RpnOutput
from s3_jax.detection.losses import Rois, Truth, box_losses, mask_loss, positives_of, rpn_losses, smooth_l1

CLASSES = 3
NOTHING = Truth(
    jnp.zeros((2, 4)),
    jnp.asarray([-1, -1]),
    jnp.zeros((2, 112, 112), jnp.uint8),
    jnp.asarray([60, 90]),
    jnp.asarray(True),
)


@pytest.fixture
def rois() -> Rois:
    """A row with the second object, two of background, and one that does not count."""
    box = [0.0, 0, 10, 10]
    return Rois(
        boxes=jnp.asarray([box, box, box, [0, 0, 0, 0]]),
        target=jnp.asarray([1, -1, -1, -1]),
        label=jnp.asarray([2, CLASSES, CLASSES, CLASSES]),
        goal=jnp.asarray([box, [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        valid=jnp.asarray([True, True, True, False]),
        is_object=jnp.zeros(4, bool),
    )


def test_losses_of_boxes_worked_out_by_hand(rois):
    """A box that moves by half its width to the left, out of the image, of which a third of the hull is shared."""
    deltas = np.full((4, CLASSES, 4), 7.0, np.float32)  # other classes and rows have no part
    deltas[0, 2] = [-5, 0, 0, 0]
    logits = np.zeros((4, CLASSES + 1), np.float32)
    logits[1, CLASSES] = math.log(5)  # five of eight
    logits[3, 0] = 100
    classes, boxes = box_losses(BoxOutput(jnp.asarray(logits), jnp.asarray(deltas)), rois, stage=0)
    assert float(classes.total) == pytest.approx(2 * math.log(4) + math.log(8 / 5))
    assert float(boxes.total) == pytest.approx(10 * (1 - 1 / 3))
    assert int(classes.over) == int(boxes.over) == 3


@pytest.mark.parametrize(("stage", "shared"), [(1, 7.5 / 12.5), (2, 8.35 / 11.65)])
def test_deltas_are_those_of_the_stage(rois, stage, shared):
    deltas = jnp.zeros((4, CLASSES, 4)).at[0, 2, 0].set(-5)
    _, boxes = box_losses(BoxOutput(jnp.zeros((4, CLASSES + 1)), deltas), rois, stage=stage)
    assert float(boxes.total) == pytest.approx(10 * (1 - shared), rel=1e-5)


def test_the_loss_of_masks_is_the_mean_of_every_object(rois):
    """The first row alone can have an object, of four; its target is an upper half."""
    mask = np.zeros((2, 112, 112), np.uint8)
    mask[1, :56] = 255
    truth = NOTHING._replace(boxes=jnp.asarray([[0.0, 0, 1, 1], [0, 0, 10, 10]]), crops=jnp.asarray(mask))
    own = positives_of(rois)
    assert len(own.valid) == 1
    for value in (0.0, 2.0):
        found = mask_loss(jnp.full((1, 28, 28), value), own, truth)
        expected = (math.log1p(math.exp(value)) + math.log1p(math.exp(-value))) / 2
        assert float(found.total) == pytest.approx(expected, rel=1e-5)
        assert int(found.over) == 1
    none = own._replace(target=jnp.asarray([-1]))
    assert [float(each) for each in mask_loss(jnp.full((1, 28, 28), 9.0), none, truth)] == [0, 0]


def test_without_objects_anchors_of_the_image_are_background():
    """All 64 that are drawn; of a sample that is larger than all anchors inside, these."""
    anchors = anchors_of((64, 96), 4.0)
    output = RpnOutput(jnp.full(len(anchors.boxes), 1.5), jnp.full((len(anchors.boxes), 4), 3.0))
    whole = int(inside(anchors.boxes, np.asarray([60, 90])).sum())
    for samples, count in ((64, 64), (4096, whole)):
        entropy, distance = rpn_losses(jax.random.key(0), output, NOTHING, anchors=anchors, samples=samples)
        assert float(entropy.total) == pytest.approx(count * math.log1p(math.exp(1.5)), rel=1e-5)
        assert int(entropy.over) == int(distance.over) == count
        assert float(distance.total) == 0
    left_out = rpn_losses(
        jax.random.key(0), output, NOTHING._replace(counts=jnp.asarray(False)), anchors=anchors, samples=64
    )
    assert [float(each) for pair in left_out for each in pair] == [0] * 4


def test_smooth_l1_is_quadratic_below_a_ninth():
    found = smooth_l1(jnp.asarray([0.0, 0.05, -0.05, 1 / 9, -1.0]))
    np.testing.assert_allclose(found, [0, 0.01125, 0.01125, 1 / 18, 1 - 1 / 18], rtol=1e-5)
