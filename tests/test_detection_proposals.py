"""From answers to boxes: what padding must not change, refinement by hand, and that no gradient passes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.detection.anchors import anchors_of, of_levels, proposing
from s3_jax.detection.heads import BoxOutput, RpnOutput
from s3_jax.detection.proposals import likeliest, of_class, proposals_of, refined

CANVAS, SIZE = (64, 96), np.int32([50, 70])
ANCHORS = anchors_of(CANVAS, 4.0)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


@pytest.fixture(scope="module")
def propose():
    return jax.jit(partial(proposals_of, anchors=ANCHORS, candidates=100, limit=30))


@pytest.fixture(scope="module")
def output() -> RpnOutput:
    count = len(ANCHORS.boxes)
    return RpnOutput(normal(0, count), 0.3 * normal(1, count, 4))


def test_anchors_in_the_padding_propose_nothing(propose, output):
    """However sure they are; proposals lie in the image and are as many as are asked for."""
    outside = ~np.asarray(proposing(ANCHORS.places, SIZE))
    assert outside.any()
    other = RpnOutput(output.objectness + 100.0 * outside, output.deltas + outside[:, None])
    found = propose(output, SIZE)
    jax.tree.map(np.testing.assert_array_equal, propose(other, SIZE), found)
    assert found.valid.all()
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2:] <= SIZE[::-1]).all()
    assert len(np.unique(np.asarray(found.boxes), axis=0)) == 30


def test_every_level_has_its_own_candidates(output):
    """The best two of each of five levels, however much surer others are; the last level has six anchors."""
    level = np.concatenate([np.full(count, 10.0 * number) for number, count in enumerate(ANCHORS.sizes)])
    still = RpnOutput(output.objectness + level, jnp.zeros_like(output.deltas))
    size = np.int32(CANVAS)
    found = proposals_of(still, size, anchors=ANCHORS, candidates=2, limit=40)
    levels = (of_levels(jnp.asarray(values), ANCHORS.sizes) for values in (ANCHORS.boxes, still.objectness))
    best = np.concatenate([boxes[jax.lax.top_k(scores, 2)[1]] for boxes, scores in zip(*levels, strict=True)])
    expected = rounded(np.clip(best, 0, [96, 64, 96, 64]))
    kept = rounded(np.asarray(found.boxes)[np.asarray(found.valid)])
    assert kept <= expected
    assert 5 <= len(kept) <= 10
    assert not np.asarray(found.boxes)[~np.asarray(found.valid)].any()


def rounded(boxes) -> set[tuple[int, ...]]:
    return {tuple(map(int, box)) for box in (100 * boxes).round()}


def test_refinement_worked_out_by_hand():
    """A box of 20 x 40 that its class moves by a tenth of its sides for a unit in the first stage; it is clipped."""
    boxes, labels = jnp.asarray([[[10.0, 10, 30, 50]] * 2]), jnp.asarray([[1, 2]])
    deltas = np.zeros((1, 2, 3, 4), np.float32)
    deltas[0, 0, 1] = [5, -2.5, 0, 0]
    deltas[0, 1, 2] = [0, 5, 0, 5 * np.log(2)]
    output = BoxOutput(jnp.zeros((1, 2, 4)), jnp.asarray(deltas))
    found = refined(boxes, labels, output, jnp.asarray([[55, 200]]), 0)
    np.testing.assert_allclose(found, [[[20, 0, 40, 40], [10, 10, 30, 55]]], rtol=1e-6)
    finer = refined(boxes, labels, output, jnp.asarray([[55, 200]]), 1)
    np.testing.assert_allclose(finer[0, 0], [15, 5, 35, 45], rtol=1e-6)


def test_the_background_is_no_class_of_a_box():
    logits = jnp.asarray([[0.0, 2, 1, 9], [3, 1, 2, -1]])
    np.testing.assert_array_equal(likeliest(BoxOutput(logits, jnp.zeros((2, 3, 4)))), [1, 0])
    values = normal(2, 2, 3, 4)
    np.testing.assert_array_equal(of_class(values, jnp.asarray([2, 0])), [values[0, 2], values[1, 0]])


def test_no_gradient_passes_from_boxes_to_what_they_came_from(propose, output):
    def total(output: RpnOutput):
        return propose(output, SIZE).boxes.sum()

    def refinement(deltas, boxes):
        output = BoxOutput(jnp.zeros((2, 4)), deltas)
        return refined(boxes, jnp.asarray([0, 2]), output, jnp.asarray([50, 70]), 2).sum()

    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.grad(total)(output)))
    boxes = jnp.asarray([[5.0, 5, 20, 30]] * 2)
    assert not any(leaf.any() for leaf in jax.grad(refinement, (0, 1))(normal(3, 2, 3, 4), boxes))
