"""Boxes and anchors, worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.detection.anchors import RATIOS, STRIDES, anchors_of, inside, map_sizes, of_levels, proposing
from s3_jax.detection.boxes import (
    RPN_STDS,
    STAGE_STDS,
    areas,
    clipped,
    decoded,
    encoded,
    generalized_overlaps,
    level_of,
    overlaps,
    pairwise_overlaps,
)


def boxes_of(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 200, (count, 2))
    return np.concatenate([low, low + rng.uniform(4, 100, (count, 2))], axis=1).astype(np.float32)


def assert_close(actual, desired, **tolerances):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(desired, np.float32), **{"rtol": 1e-5} | tolerances)


def test_overlaps_worked_out_by_hand():
    box = jnp.asarray([0.0, 0, 10, 10])
    others = jnp.asarray(
        [[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [20, 30, 30, 40], [2, 2, 4, 7], [3, 3, 3, 3]]
    )
    assert_close(areas(others), [100, 100, 100, 100, 10, 0])
    assert_close(overlaps(box, others), [1, 1 / 3, 0, 0, 0.1, 0])
    # The box around both: 100, 150, 200, 30 * 40 and 100 twice.
    assert_close(generalized_overlaps(box, others), [1, 1 / 3, 0, -1000 / 1200, 0.1, 0], atol=1e-7)
    assert_close(overlaps(others[5], others[5]), 0)


def test_pairs_are_overlaps_of_each_with_each():
    first, second = boxes_of(0, 5), boxes_of(1, 7)
    loop = [[overlaps(one, other) for other in second] for one in first]
    assert_close(jax.jit(pairwise_overlaps)(first, second), loop)


def test_boxes_are_clipped_to_their_own_image():
    boxes = jnp.asarray([[[-3.0, 2, 50, 60]], [[-3, 2, 50, 60]]])
    assert_close(jax.vmap(clipped)(boxes, jnp.asarray([[40, 45], [70, 30]])), [[[0, 2, 45, 40]], [[0, 2, 30, 60]]])


def test_deltas_worked_out_by_hand():
    """A box of 20 by 40 that moves by half its width and a quarter of its height, and doubles its height."""
    box, target = jnp.asarray([10.0, 10, 30, 50]), jnp.asarray([20.0, 0, 40, 80])
    assert_close(encoded(box, target, RPN_STDS), [0.5, 0.25, 0, math.log(2)])
    assert_close(encoded(box, target, STAGE_STDS[0]), [5, 2.5, 0, 5 * math.log(2)])


@pytest.mark.parametrize("stds", [RPN_STDS, *STAGE_STDS])
def test_decoding_undoes_encoding(stds):
    boxes, targets = boxes_of(2, 50), boxes_of(3, 50)
    assert_close(decoded(boxes, encoded(boxes, targets, stds), stds), targets, atol=1e-3)


def test_a_box_grows_by_no_more_than_a_limit_and_padding_is_finite():
    box = jnp.asarray([0.0, 0, 16, 16])
    assert_close(decoded(box, jnp.asarray([0.0, 0, 100, -100]), RPN_STDS), [8 - 500, 8 - 0.128, 8 + 500, 8 + 0.128])
    empty = jnp.zeros(4)
    assert np.isfinite(encoded(empty, box, RPN_STDS)).all()
    assert np.isfinite(encoded(box, empty, RPN_STDS)).all()


def test_boxes_of_every_class_are_decoded_at_once():
    boxes, deltas = boxes_of(4, 3), np.random.default_rng(5).standard_normal((3, 6, 4)).astype(np.float32)
    each = [[decoded(box, delta, STAGE_STDS[1]) for delta in row] for box, row in zip(boxes, deltas, strict=True)]
    assert_close(decoded(boxes[:, None], deltas, STAGE_STDS[1]), each)


@pytest.mark.parametrize(
    ("side", "level"), [(0, 0), (56, 0), (111.9, 0), (112, 1), (223.9, 1), (224, 2), (448, 3), (2000, 3)]
)
def test_levels_change_where_the_side_doubles(side, level):
    box = np.asarray([[3, 5, 3 + side, 5 + side], [0, 0, side / 2, side * 2]], np.float32)
    np.testing.assert_array_equal(level_of(box), [level, level])
    assert level_of(box[0], levels=2) == min(level, 1)


def test_anchors_of_a_canvas_of_the_papers_recipe():
    anchors = anchors_of((800, 1344))
    assert len(anchors.boxes) == sum(anchors.sizes) == 268_569
    assert map_sizes((800, 1344))[-1] == (13, 21)
    parts = of_levels(jnp.asarray(anchors.boxes), anchors.sizes)
    assert [len(part) for part in parts] == list(anchors.sizes)
    for part, stride in zip(parts, STRIDES, strict=True):
        assert_close(areas(part[:3]), [(8 * stride) ** 2] * 3)


def test_anchors_worked_out_by_hand():
    """Of stride 4: a square of 32 around the image's corner, the flat one before it, the tall one behind; then the
    next column."""
    anchors = anchors_of((64, 96))
    root = 16 * math.sqrt(2)
    flat, square, tall = [-root, -root / 2, root, root / 2], [-16, -16, 16, 16], [-root / 2, -root, root / 2, root]
    assert_close(anchors.boxes[:3], [flat, square, tall])
    assert_close(anchors.boxes[4], [-12, -16, 20, 16])
    assert_close(anchors.boxes[24 * 3 + 1], [-16, -12, 16, 20])  # the first of the second row
    assert_close(anchors.places[24 * 3 + 5], [4, 4])
    assert anchors.sizes == tuple(len(RATIOS) * each for each in (16 * 24, 8 * 12, 4 * 6, 2 * 3, 1 * 2))


def test_only_anchors_of_the_image_count():
    """An image of 40 x 50 on a larger canvas: it has ceil(40 / 4) rows and ceil(50 / 4) columns of stride 4."""
    anchors, image_hw = anchors_of((64, 96)), jnp.asarray([40, 50])
    own = np.asarray(proposing(anchors.places, image_hw))
    assert [int(part.sum()) for part in of_levels(own, anchors.sizes)] == [
        10 * 13 * 3,
        5 * 7 * 3,
        3 * 4 * 3,
        2 * 2 * 3,
        3,
    ]
    tiled = np.asarray(proposing(anchors.places, jnp.asarray([48, 40])))  # by places of stride 4 and of 8
    assert [int(part.sum()) for part in of_levels(tiled, anchors.sizes)[:2]] == [12 * 10 * 3, 6 * 5 * 3]
    whole = np.asarray(inside(anchors.boxes, image_hw))
    assert not (whole & ~own).any()
    boxes = np.asarray([[0, 0, 49.9, 39.9], [0, 0, 50, 39.9], [0, 0, 49.9, 40], [-0.1, 0, 9, 9], [0, -0.1, 9, 9]])
    np.testing.assert_array_equal(inside(boxes, image_hw), [True, False, False, False, False])
