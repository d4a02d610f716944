"""Non-maximum suppression: against ONNX Runtime's, against the greedy loop, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.detection.boxes import pairwise_overlaps
from s3_jax.detection.nms import detections, non_maximum_suppression, suppressed_by_level

NMS = jax.jit(non_maximum_suppression, static_argnums=4)
BY_LEVEL = jax.jit(suppressed_by_level, static_argnums=4)
DETECTIONS = jax.jit(detections, static_argnames=("candidates", "limit"))


def crowded(seed: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (..., 4) that overlap a lot, and scores (...)."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (*shape, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 50, (*shape, 2))], axis=-1).astype(np.float32)
    return boxes, rng.random(shape, np.float32)


def greedy(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Box by box, best first."""
    overlap, kept = np.asarray(pairwise_overlaps(boxes, boxes)), []
    for number in np.argsort(-scores, kind="stable"):
        if not (overlap[number, kept] > threshold).any():
            kept.append(int(number))
    return kept


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_it_keeps_what_onnx_runtime_keeps(threshold):
    """Within each of three classes, in the order of scores."""
    from onnx_operators import non_maximum_suppression as onnx_nms

    for seed in range(4):
        boxes, scores = crowded(seed, 300)
        groups = np.random.default_rng(seed).integers(0, 3, 300)
        kept = NMS(boxes, scores, np.ones(300, bool), threshold, 300, groups)
        actual = np.asarray(kept.row)[np.asarray(kept.valid)]
        by_class = np.where(groups == np.arange(3)[:, None], scores, -1)
        desired = {number for label, number in onnx_nms(boxes, by_class, threshold) if groups[number] == label}
        assert set(actual) == desired
        assert len(actual) == kept.total == len(desired)
        assert (np.diff(scores[actual]) <= 0).all()


def test_boxes_are_worked_out_by_hand():
    """Each overlaps the next by 9 / 11: the second goes for the first, so the third stays."""
    boxes = np.asarray([[0, 0, 10, 10], [0, 1, 10, 11], [0, 2, 10, 12], [50, 0, 60, 10], [0, 0, 10, 10]], np.float32)
    scores, every = np.asarray([0.9, 0.8, 0.7, 0.1, 0.9], np.float32), np.ones(5, bool)
    kept = NMS(boxes, scores, every, 0.7, 5)
    np.testing.assert_array_equal(kept.row, [0, 2, 3, 0, 0])
    np.testing.assert_array_equal(kept.valid, [True] * 3 + [False] * 2)
    second = NMS(boxes, scores, np.asarray([False, True, True, True, False]), 0.7, 2)
    np.testing.assert_array_equal(second.row, [1, 3])
    assert second.total == 2
    few = NMS(boxes, scores, every, 9 / 11 + 0.01, 7, np.asarray([0, 0, 0, 0, 1]))
    np.testing.assert_array_equal(few.row, [0, 4, 1, 2, 3, 0, 0])
    assert few.total == 5


def test_boxes_that_do_not_exist_change_nothing():
    boxes, scores = crowded(5, 300)
    valid = np.arange(300) < 200
    scores[250] = np.nan
    kept = NMS(boxes, scores, valid, 0.5, 300)
    np.testing.assert_array_equal(np.asarray(kept.row)[np.asarray(kept.valid)], greedy(boxes[:200], scores[:200], 0.5))


def test_a_batch_is_a_loop_over_images():
    boxes, scores = crowded(6, 3, 50)
    valid = np.random.default_rng(6).random((3, 50)) < 0.8
    single = jax.jit(lambda *image: non_maximum_suppression(*image, 0.4, 20))
    batch = jax.jit(jax.vmap(single))(boxes, scores, valid)
    for index in range(3):
        alone = single(boxes[index], scores[index], valid[index])
        jax.tree.map(lambda every, own: np.testing.assert_array_equal(every[index], own), batch, alone)  # noqa: B023
    assert single._cache_size() == 1


def test_levels_do_not_suppress_each_other_and_the_best_of_all_are_kept():
    boxes, scores = crowded(7, 2, 60)
    kept = BY_LEVEL(boxes, scores, np.ones((2, 60), bool), 0.6, 25)
    each = [greedy(boxes[level], scores[level], 0.6) for level in range(2)]
    every = np.concatenate([each[0], np.asarray(each[1]) + 60])
    best = every[np.argsort(-scores.ravel()[every], kind="stable")]
    np.testing.assert_array_equal(kept.row, best[:25])
    assert kept.total == len(every) > 25
    assert np.asarray(kept.valid).all()


def test_detections_are_the_best_of_every_class():
    rng = np.random.default_rng(8)
    boxes, _ = crowded(8, 40, 3)
    scores, valid = rng.random((40, 3), np.float32), rng.random(40) < 0.9
    found = DETECTIONS(boxes, scores, valid, least_score=0.3, threshold=0.5, candidates=120, limit=100)
    desired = []
    for label in range(3):
        rows = np.flatnonzero(valid & (scores[:, label] > 0.3))
        desired += [(rows[each], label) for each in greedy(boxes[rows, label], scores[rows, label], 0.5)]
    valid_rows = np.asarray(found.valid)
    actual = list(zip(np.asarray(found.row)[valid_rows], np.asarray(found.labels)[valid_rows], strict=True))
    assert set(actual) == set(desired)
    assert len(actual) == len(desired) < 100
    np.testing.assert_array_equal(np.asarray(found.boxes)[valid_rows], [boxes[each] for each in actual])
    np.testing.assert_array_equal(np.asarray(found.scores)[valid_rows], [scores[each] for each in actual])
    assert found.overflow == 0
    assert not np.asarray(found.scores)[~valid_rows].any()


def test_detections_say_how_many_they_did_not_look_at():
    """Three proposals apart, two classes that share boxes, all six over the score, of which four are looked at."""
    boxes = np.asarray([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]], np.float32)
    scores = np.asarray([[0.9, 0.2], [0.8, 0.7], [0.3, 0.6]], np.float32)
    found = DETECTIONS(boxes, scores, jnp.ones(3, bool), least_score=0.1, threshold=0.5, candidates=4, limit=3)
    np.testing.assert_array_equal(found.row, [0, 1, 1])
    np.testing.assert_array_equal(found.labels, [0, 0, 1])
    assert found.overflow == 2
