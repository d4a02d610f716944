"""Who finds which object: against a plain rule, by hand, and what padding must not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.detection import assign
from s3_jax.detection.anchors import anchors_of, inside
from s3_jax.detection.assign import (
    IGNORED,
    NEGATIVE,
    RPN_THRESHOLDS,
    STAGE_THRESHOLDS,
    Thresholds,
    assigned,
    is_object,
    sampled,
    with_objects,
)
from s3_jax.detection.boxes import pairwise_overlaps

ASSIGNED = jax.jit(assigned, static_argnames="thresholds")
SAMPLED = jax.jit(sampled, static_argnums=(2, 3))


def plainly(overlap: np.ndarray, thresholds: Thresholds) -> list[int]:
    """The rule in words of loops, on the IoU of boxes (N, G) that all count."""
    result = [IGNORED] * len(overlap)
    for box, row in enumerate(overlap):
        if row.max(initial=0) < thresholds.negative:
            result[box] = NEGATIVE
        if row.max(initial=0) >= thresholds.positive:
            result[box] = int(row.argmax())
    for number, column in enumerate(overlap.T):
        if thresholds.low_quality is not None and column.max() >= thresholds.low_quality:
            for box in np.flatnonzero(column == column.max()):
                result[box] = number
    return result


def objects_of(seed: int, count: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole-numbered boxes in 192 x 256, so that anchors tie, and padding."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 150, (count, 2))
    boxes = np.zeros((rows, 4), np.float32)
    boxes[:count] = np.concatenate([low, low + rng.integers(8, 90, (count, 2))], axis=1)
    return boxes, np.arange(rows) < count


@pytest.fixture(scope="module")
def anchors() -> tuple[np.ndarray, np.ndarray]:
    """Of a canvas of 192 x 256, and which lie in an image of 180 x 250."""
    boxes = anchors_of((192, 256)).boxes
    assert len(boxes) > assign.CHUNK
    return boxes, np.asarray(inside(boxes, np.asarray([180, 250])))


@pytest.mark.parametrize("thresholds", [RPN_THRESHOLDS, STAGE_THRESHOLDS[0]])
def test_anchors_in_chunks_follow_the_plain_rule(anchors, thresholds):
    boxes, valid = anchors
    objects, real = objects_of(0, 9, 12)
    actual = np.asarray(ASSIGNED(boxes, valid, objects, real, thresholds=thresholds))
    overlap = np.asarray(jax.jit(pairwise_overlaps)(boxes[valid], objects[real]))
    np.testing.assert_array_equal(actual[valid], plainly(overlap, thresholds))
    assert (actual[~valid] == IGNORED).all()
    assert (actual >= 0).sum() > 0


def test_the_rule_worked_out_by_hand():
    """Boxes of height 10 over an object of 100 wide; IoU .8, .5, .2, and an object whose best, at .4, is twofold."""
    boxes = np.asarray([[0, 0, 80, 10], [0, 0, 50, 10], [0, 0, 20, 10], [0, 50, 40, 60], [60, 50, 100, 60]], np.float32)
    objects = np.asarray([[0, 0, 100, 10], [0, 50, 100, 60], [0, 0, 0, 0]], np.float32)
    every, labels = np.ones(5, bool), np.asarray([7, 0, -1])
    real = is_object(labels)
    rpn = ASSIGNED(boxes, every, objects, real, thresholds=RPN_THRESHOLDS)
    np.testing.assert_array_equal(rpn, [0, IGNORED, NEGATIVE, 1, 1])
    first = ASSIGNED(boxes, every, objects, real, thresholds=STAGE_THRESHOLDS[0])
    np.testing.assert_array_equal(first, [0, 0, NEGATIVE, NEGATIVE, NEGATIVE])
    crowd = is_object(labels, np.asarray([0, 1, 0]))
    np.testing.assert_array_equal(crowd, [True, False, False])
    alone = ASSIGNED(boxes, every, objects, crowd, thresholds=RPN_THRESHOLDS)
    np.testing.assert_array_equal(alone, [0, IGNORED, NEGATIVE, NEGATIVE, NEGATIVE])


def test_a_low_quality_match_goes_before_a_better_one():
    """mmdetection's rule: a box that fits the first object well is the second's, if that has no better box."""
    boxes = np.asarray([[0, 0, 100, 100]], np.float32)
    objects = np.asarray([[0, 0, 100, 90], [0, 0, 100, 40]], np.float32)
    np.testing.assert_array_equal(assigned(boxes, jnp.ones(1, bool), objects, jnp.ones(2, bool), RPN_THRESHOLDS), [1])


def test_without_objects_every_box_is_background():
    boxes, objects = np.asarray([[0, 0, 5, 5], [0, 0, 0, 0]], np.float32), np.zeros((3, 4), np.float32)
    for thresholds in (RPN_THRESHOLDS, STAGE_THRESHOLDS[2]):
        found = assigned(boxes, jnp.asarray([True, False]), objects, jnp.zeros(3, bool), thresholds)
        np.testing.assert_array_equal(found, [NEGATIVE, IGNORED])


@jax.jit
def stage(key, boxes, valid, objects, real):
    """The rows a stage of the cascade learns from, as boxes, objects' boxes and flags."""
    found = assigned(boxes, valid, objects, real, STAGE_THRESHOLDS[0])
    candidates, found = with_objects(boxes, found, objects, real)
    sample = sampled(key, found, 32, 0.25)
    return sample.of(candidates), sample.of_targets(objects), sample.target, sample.valid


def test_padding_of_objects_changes_nothing_bit_for_bit(anchors):
    boxes, valid = (each[:3000] for each in anchors)
    key, results = jax.random.key(0), []
    for rows in (9, 20):
        results.append(stage(key, boxes, valid, *objects_of(0, 9, rows)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    rows, targets, numbers, counts = (np.asarray(each) for each in results[0])
    assert counts.all()
    assert (numbers >= 0).sum() == 8  # a quarter, of objects themselves and of boxes over them
    assert (np.diag(np.asarray(pairwise_overlaps(rows, targets)))[:8] >= 0.5).all()


def test_a_batch_is_a_loop_over_images_and_one_program(anchors):
    boxes, valid = (np.stack([each[:3000], each[1000:4000]]) for each in anchors)
    objects, real = (np.stack(pair) for pair in zip(objects_of(0, 9, 12), objects_of(1, 3, 12), strict=True))
    keys = jax.random.split(jax.random.key(1), 2)
    traces = []

    def counted(*image):
        traces.append(1)
        return stage(*image)

    program = jax.jit(jax.vmap(counted))
    batch = program(keys, boxes, valid, objects, real)
    program(keys, boxes, valid, objects, ~real)
    assert len(traces) == 1
    for index in range(2):
        alone = stage(keys[index], boxes[index], valid[index], objects[index], real[index])
        jax.tree.map(lambda all_images, own: np.testing.assert_array_equal(all_images[index], own), batch, alone)  # noqa: B023


def test_a_sample_takes_positives_up_to_their_share_and_fills_up_with_negatives():
    found = np.asarray([0, 1, 2, 3, 4, IGNORED] + [NEGATIVE] * 20)
    seen = set()
    for seed in range(20):
        sample = SAMPLED(jax.random.key(seed), found, 8, 0.5)
        index, target = np.asarray(sample.row), np.asarray(sample.target)
        assert np.asarray(sample.valid).all()
        assert len(set(index)) == 8
        np.testing.assert_array_equal(target, found[index])
        np.testing.assert_array_equal(target >= 0, [True] * 4 + [False] * 4)
        seen |= set(index)
    assert seen == set(range(26)) - {5}
    again = SAMPLED(jax.random.key(19), found, 8, 0.5)
    np.testing.assert_array_equal(again.row, sample.row)
    assert set(np.asarray(SAMPLED(jax.random.key(3), found, 8, 0.5).row)) != set(index)


def test_rows_that_nothing_fills_do_not_count():
    """Of six boxes two are positive and three negative, and eight are asked for: also of fewer boxes than rows."""
    found = np.asarray([IGNORED, 1, NEGATIVE, NEGATIVE, 0, NEGATIVE])
    sample = SAMPLED(jax.random.key(0), found, 8, 0.5)
    np.testing.assert_array_equal(sample.valid, [True] * 5 + [False] * 3)
    assert sorted(np.asarray(sample.target)[:2]) == [0, 1]
    np.testing.assert_array_equal(sample.target[2:], [NEGATIVE] * 6)
    assert not np.asarray(sample.of(np.ones((6, 4))))[5:].any()
    assert not np.asarray(sample.of_targets(np.ones((2, 4))))[2:].any()
