"""Masks: run lengths that are none, and the crops in boxes' frames that a network is taught by."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from s3_jax.detection import masks as m


def blob(height: int, width: int, seed: int) -> np.ndarray:
    """A smooth random mask, uint8 of 0 and 1."""
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (0, 0), max(height, width) / 16) > 0).astype(np.uint8)


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_read_as_pycocotools_writes_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 200, size=2)
    mask = blob(height, width, seed) if seed % 2 else (rng.random((height, width)) < 0.3).astype(np.uint8)
    packed = m.run_lengths(mask)
    lengths = m.uncompressed(packed["counts"])
    assert (mask == np.repeat(np.arange(len(lengths)) % 2, lengths).reshape(width, height).T).all()
    text = m.as_json(packed)
    for form in (packed, text, text | {"counts": lengths.tolist()}):
        read = m.checked_run_lengths(form, height, width)
        assert read is not None
        assert (m.bitmap(read) == mask).all()


@pytest.mark.parametrize(
    ("counts", "size"),
    [
        *((counts, [5, 7]) for counts in ("", "0", "0R1", "0T1", "0Z", "zzzz", "0S", "üü", "PPPPPPPPPPPP0", "0S1 ")),
        *((counts, [5, 7]) for counts in ([], [3, 3], [0, 100], [-1, 36], [36, -1], ["a"], [[35]], None, 35, [10**30])),
        *((counts, size) for counts in ([35], "S1") for size in ([7, 5], [5], [], None, 35)),
    ],
)
def test_run_lengths_that_are_none_of_the_size_never_reach_pycocotools(counts: object, size: object) -> None:
    """It would read memory that is not its own."""
    assert m.checked_run_lengths({"counts": "0S1", "size": [5, 7]}, 5, 7) is not None
    assert m.checked_run_lengths({"counts": counts, "size": size}, 5, 7) is None


@pytest.mark.parametrize("segmentation", [None, 3, "0S1", [], {}, {"counts": "0S1"}, {"size": [5, 7]}])
def test_what_has_no_run_lengths_is_none(segmentation: object) -> None:
    assert m.checked_run_lengths(segmentation, 5, 7) is None


def test_polygons_of_less_than_three_points_or_far_away_are_left_out() -> None:
    fine = [1.0, 1.0, 3.0, 1.0, 3.0, 4.0]
    bad = [[1, 1, 3, 3], [], [1, 1, 3, 1, 3], [*fine[:5], np.nan], [*fine[:5], 1e9], ["a"] * 6, None, [fine], fine[:1]]
    assert [polygon.tolist() for polygon in m.polygons_of([*bad, fine], 5, 7)] == [fine]
    near = [-20, -20, 28, 0, 0, 28]
    assert len(m.polygons_of([near], 5, 7)) == 1


def test_a_crop_is_the_box_with_a_border_of_one_pixel() -> None:
    mask = np.zeros((300, 300), np.uint8)
    mask[50:160, 70:180] = 1  # a pixel of the mask is one of the crop
    crop = m.crop(mask, (70, 50, 180, 160))
    assert crop.shape == (112, 112)
    assert crop.dtype == np.uint8
    assert (crop[1:-1, 1:-1] == 255).all()
    assert crop.sum() == 255 * 110 * 110
    mask[49, 69] = 1
    assert m.crop(mask, (70, 50, 180, 160))[0, 0] == 255
    mask[50, 70] = 0
    assert m.crop(mask, (70, 50, 180, 160))[1, 1] == 0
    mirrored = m.crop(mask, (70, 50, 180, 160), mirrored=True)
    assert (mirrored == m.crop(mask, (70, 50, 180, 160))[:, ::-1]).all()


@pytest.mark.parametrize(
    "box", [(20.3, 15.7, 260.1, 210.4), (100, 90, 131.5, 118.25), (3, 5, 299, 17.6), (0, 0, 300, 300)]
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_pixel_is_the_mean_of_the_mask_over_itself(box: tuple[float, ...], mirrored: bool) -> None:
    mask = blob(300, 300, 3)
    if mirrored:
        left, top, right, bottom = box
        expected = mean_over_pixels(mask[:, ::-1], (300 - right, top, 300 - left, bottom))
    else:
        expected = mean_over_pixels(mask, box)
    found = m.crop(mask, box, mirrored=mirrored) / 255
    assert np.abs(found - expected).mean() < 0.004
    assert ((found >= 0.5) == (expected >= 0.5)).mean() > 0.995


def mean_over_pixels(mask: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    """By 8 x 8 samples of the bilinear interpolation in each pixel, (112, 112)."""
    left, top, right, bottom = box
    inside = (np.arange(112 * 8) + 0.5) / 8 - 1
    x, y = left + inside * (right - left) / 110 - 0.5, top + inside * (bottom - top) / 110 - 0.5
    rows, columns = (_weights(places, length) for places, length in ((y, mask.shape[0]), (x, mask.shape[1])))
    return (rows @ mask @ columns.T).reshape(112, 8, 112, 8).mean((1, 3))


def _weights(places: np.ndarray, length: int) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(length)))


def test_targets_from_crops_are_those_of_the_whole_bitmap() -> None:
    """Mask targets of proposals about an object: 28 x 28 bins, each the mean of samples, at least a half."""
    agreeing = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        scale = rng.uniform(0.15, 1)
        mask = np.zeros((400, 400), np.uint8)
        side = int(380 * scale)
        mask[10 : 10 + side, 10 : 10 + side] = blob(side, side, seed)
        left, top, width, height = coco_mask.toBbox(m.run_lengths(mask))
        crop = m.crop(mask, (left, top, left + width, top + height)) / 255
        for _ in range(4):
            proposal = np.array([left, top, left + width, top + height]) + rng.normal(size=4) * 0.06 * side
            in_crop = (proposal - [left, top, left, top]) / ([width, height] * 2) * 110 + 1
            agreeing.append(((binned(mask, proposal) >= 0.5) == (binned(crop, in_crop) >= 0.5)).mean())
    assert np.mean(agreeing) > 0.995


def binned(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    """RoIAlign, aligned, to 28 x 28 with as many samples of a bin as it has pixels."""
    left, top, right, bottom = box
    axes = []
    for start, end, length in ((top, bottom, mask.shape[0]), (left, right, mask.shape[1])):
        count = int(np.ceil((end - start) / 28))
        places = start + (np.arange(28 * count) + 0.5) / count * (end - start) / 28 - 0.5
        axes.append(_weights(places, length).reshape(28, count, length).mean(1))
    return axes[0] @ mask @ axes[1].T
