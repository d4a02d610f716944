"""Canvases: which an image takes, which a network cannot take, and objects in arrays of a fixed length."""

import numpy as np
import pytest

from s3_jax.data.canvases import canvas_of, check_canvases, on_canvas
from s3_jax.detection.canvas import overflow, padded_objects
from s3_jax.detection.config import DetectionAugmentConfig, DetectionDataConfig
from s3_jax.errors import S3Error

COCO = ((800, 1344), (1344, 800))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((800, 1333), (800, 1344)),
        ((1333, 800), (1344, 800)),
        ((480, 640), (800, 1344)),
        ((800, 800), (800, 1344)),  # of equal ones the first
        ((801, 600), (1344, 800)),
        ((800, 1344), (800, 1344)),
    ],
)
def test_an_image_takes_a_canvas_that_holds_it(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert canvas_of(size, COCO) == expected


def test_the_smallest_canvas_that_holds_an_image_is_taken() -> None:
    canvases = ((1344, 1344), (800, 1344), (512, 512), (640, 480))
    assert canvas_of((500, 300), canvases) == (512, 512)
    assert canvas_of((600, 300), canvases) == (640, 480)
    assert canvas_of((700, 1300), canvases) == (800, 1344)
    assert canvas_of((801, 1), canvases) == (1344, 1344)
    with pytest.raises(S3Error, match=r"no canvas holds an image of 800 x 1345 pixels .* has 800 x 1344, 1344 x 800"):
        canvas_of((800, 1345), COCO)


def test_canvases_are_refused_that_strides_or_images_do_not_fit() -> None:
    check_canvases(COCO, [(1333, 800)], 32)
    check_canvases(((64, 64),), [(64, 64)], 8)
    with pytest.raises(S3Error, match=r"800 x 1333 pixels do not fit .* stride of 32; .* such as 800 x 1344"):
        check_canvases(((800, 1333),), [(1333, 800)], 32)
    with pytest.raises(S3Error, match="no canvas holds an image of 1333 x 800"):  # an upright one
        check_canvases(COCO[:1], [(1333, 800)], 32)
    with pytest.raises(S3Error, match="no canvas holds an image of 900 x 1333"):
        check_canvases(COCO, [(1333, 800), (900, 1333)], 32)


def test_an_image_lies_at_the_top_left_of_zeros() -> None:
    image = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    wide = on_canvas(image, (8, 16))
    assert wide.shape == (8, 16, 3)
    assert wide.dtype == np.float32
    assert (wide[:5, :7] == image).all()
    assert not wide[5:].any()
    assert not wide[:, 7:].any()


def objects(*sides: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squares of these sides, of classes 0, 1, 2, ..."""
    boxes = np.array([[10, 20, 10 + side, 20 + side] for side in sides], np.float64).reshape(-1, 4)
    crops = np.stack([np.full((112, 112), side, np.uint8) for side in sides]) if sides else np.zeros((0, 112, 112))
    return boxes, np.arange(len(sides), dtype=np.int32), crops.astype(np.uint8)


def test_objects_are_padded_with_the_label_of_none() -> None:
    padded = padded_objects(*objects(5, 9), 4)
    assert {name: (array.dtype.name, array.shape) for name, array in padded.items()} == {
        "boxes": ("float32", (4, 4)),
        "labels": ("int32", (4,)),
        "masks": ("uint8", (4, 112, 112)),
        "left_out": ("int32", ()),
    }
    assert padded["labels"].tolist() == [0, 1, -1, -1]
    assert padded["boxes"].tolist() == [[10, 20, 15, 25], [10, 20, 19, 29], [0] * 4, [0] * 4]
    assert padded["masks"][:, 50, 50].tolist() == [5, 9, 0, 0]
    assert padded["left_out"] == 0
    assert padded_objects(*objects(), 2)["labels"].tolist() == [-1, -1]


def test_of_too_many_objects_the_largest_are_kept_in_order_and_the_others_counted() -> None:
    padded = padded_objects(*objects(5, 9, 2, 7, 9), 3)
    assert padded["labels"].tolist() == [1, 3, 4]
    assert padded["masks"][:, 0, 0].tolist() == [9, 7, 9]
    assert padded["left_out"] == 2
    counts = np.array([0, 100, 101, 93, 140])
    assert overflow(counts, 100) == (
        "2 images have more than data.max_objects = 100 objects, up to 140: the largest are kept, and 41 are left out"
    )
    assert overflow(counts, 140) == ""


def test_settings_that_cannot_be_are_refused_where_they_are_made() -> None:
    data, augment = DetectionDataConfig(), DetectionAugmentConfig()
    check_canvases(data.canvases, [data.test_scale, (augment.long_side, max(augment.short_sides))], 32)
    with pytest.raises(S3Error, match=r"data.canvases = .*: expected at least one pair"):
        DetectionDataConfig(canvases=())
    with pytest.raises(S3Error, match=r"data\.canvases"):
        DetectionDataConfig(canvases=((0, 64),))
    with pytest.raises(S3Error, match=r"data\.source = 'voc': expected one of scenes, coco"):
        DetectionDataConfig(source="voc")
    with pytest.raises(S3Error, match=r"augment\.long_side = 700: expected no less than the shorter sides"):
        DetectionAugmentConfig(long_side=700)
    with pytest.raises(S3Error, match=r"augment\.short_sides"):
        DetectionAugmentConfig(short_sides=())
    with pytest.raises(S3Error, match=r"augment\.crop_sides"):
        DetectionAugmentConfig(crop_sides=(600, 384))
