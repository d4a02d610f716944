"""Masks: targets from crops as from whole bitmaps, and pasting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.detection.mask_targets import mask_targets, pasted
from s3_jax.detection.masks import CROP_SIDE, crop

HEIGHT, WIDTH = 240, 320
TARGETS = jax.jit(mask_targets)


def bitmaps() -> np.ndarray:
    """A disc, a ring, a triangle, a star, a tiny disc, a long slanted bar and one cut off by the image's edge."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    angle, radius = np.arctan2(y - 120, x - 200), np.hypot(y - 120, x - 200)
    masks = [
        np.hypot(y - 100, x - 120) < 71.3,
        (radius < 90) & (radius > 48),
        (y > 30) & (y < 200) & (np.abs(x - 150) < (y - 30) * 0.7),
        radius < 60 + 30 * np.cos(5 * angle),
        np.hypot(y - 50, x - 60) < 9.4,
        (np.abs((y - 120) - 0.3 * (x - 160)) < 8) & (np.abs(x - 160) < 140),
        np.hypot(y - 5, x - 310) < 60,
    ]
    return np.stack(masks)


def box_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.asarray([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def rois_of(box: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Boxes around an object's, moved and stretched by up to a fifth of its sides."""
    sides = np.tile(box[2:] - box[:2], 2)
    moved = box + rng.uniform(-0.2, 0.2, (count, 4)) * sides
    return np.clip(moved, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32)


@pytest.fixture(scope="module")
def objects() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bitmaps, boxes and crops."""
    masks = bitmaps()
    boxes = np.stack([box_of(mask) for mask in masks])
    return masks, boxes, np.stack([crop(mask.astype(np.uint8), box) for mask, box in zip(masks, boxes, strict=True)])


def test_targets_from_crops_are_those_from_whole_bitmaps(objects):
    """At least 99.5 % of all bins; of the tiny object too."""
    from onnx_operators import roi_align

    masks, boxes, crops = objects
    rng = np.random.default_rng(0)
    rois = np.concatenate([rois_of(box, 20, rng) for box in boxes])
    matched = np.repeat(np.arange(len(boxes)), 20)
    actual = np.asarray(TARGETS(crops, boxes, rois, matched))
    every = roi_align(masks.transpose(1, 2, 0).astype(np.float32), rois, 28, 1.0)
    desired = every[np.arange(len(rois)), ..., matched] >= 0.5
    agreement = (actual == desired).reshape(len(boxes), -1).mean(1)
    assert agreement.mean() >= 0.995
    assert agreement.min() >= 0.99


def test_a_target_worked_out_by_hand():
    """An object that fills its box of 56 pixels, and a RoI whose left half lies beside it."""
    full = np.zeros((1, CROP_SIDE, CROP_SIDE), np.uint8)
    full[:, 1:-1, 1:-1] = 255
    objects = np.asarray([[28, 0, 84, 56]], np.float32)
    rois = np.asarray([[0, 0, 56, 56], [28, 0, 84, 56], [0, 0, 0, 0]], np.float32)
    beside, own, empty = np.asarray(TARGETS(full, objects, rois, np.asarray([0, 0, -1])))
    np.testing.assert_array_equal(beside, np.tile(np.arange(28) >= 14, (28, 1)))
    assert own.all()
    assert not empty.any()


def test_padding_of_objects_changes_no_target(objects):
    _, boxes, crops = objects
    rois, matched = boxes[[0, 3, 5]], np.asarray([0, 3, 5])
    padded = [np.concatenate([each, np.zeros((4, *each.shape[1:]), each.dtype)]) for each in (crops, boxes)]
    actual = mask_targets(*(jnp.asarray(each) for each in (*padded, rois, matched)))
    np.testing.assert_array_equal(actual, TARGETS(crops, boxes, rois, matched))


def test_a_pasted_mask_is_the_object_again(objects):
    masks, boxes, crops = objects
    targets = np.asarray(TARGETS(crops, boxes, boxes, np.arange(len(boxes))))
    for mask, box, target in zip(masks[:4], boxes, targets, strict=False):
        again = pasted(target.astype(np.float32), box, mask.shape)
        assert (again & mask).sum() / (again | mask).sum() > 0.93


def test_pasting_worked_out_by_hand():
    """Two places over four pixels: 1, 3/4, 1/4, 0 of the way between them; and a box that leaves the image."""
    shares = np.asarray([[1, 0], [1, 0]])
    box = np.asarray([0, 0, 4, 4])
    assert pasted(shares, box, (4, 5))[1].tolist() == [True] * 2 + [False] * 3
    assert pasted(shares, box, (4, 5), threshold=0.2)[1].tolist() == [True] * 3 + [False] * 2
    whole = pasted(np.ones((28, 28)), np.asarray([-3, 2, 2, 90]), (6, 7))
    np.testing.assert_array_equal(whole, (np.mgrid[:6, :7][1] < 2) & (np.mgrid[:6, :7][0] >= 2))
    assert not pasted(np.ones((2, 2)), np.asarray([3, 3, 3, 5]), (6, 7)).any()


def test_pasting_is_opencvs_remap():
    """Bilinear with zeros around, at the middles of pixels."""
    import cv2

    shares = np.random.default_rng(0).random((28, 28), np.float32)
    box = np.asarray([3.3, 7.9, 61.2, 40.4])
    x, y = (
        ((np.arange(size) + 0.5 - low) * 28 / side - 0.5).astype(np.float32)
        for size, low, side in ((80, 3.3, 57.9), (60, 7.9, 32.5))
    )
    maps = np.broadcast_to(x, (60, 80)).copy(), np.broadcast_to(y[:, None], (60, 80)).copy()
    desired = cv2.remap(shares, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) >= 0.5
    assert (pasted(shares, box, (60, 80)) == desired).mean() > 0.99
