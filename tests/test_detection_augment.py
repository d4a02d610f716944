"""Augmentation of an image with its objects: sizes, and that pixels, boxes and masks stay together."""

import dataclasses

import numpy as np
import pytest

from s3_jax.data.canvases import canvas_of
from s3_jax.detection import augment as a
from s3_jax.detection.config import DetectionAugmentConfig, DetectionDataConfig
from s3_jax.detection.masks import run_lengths
from s3_jax.detection.objects import Objects

COCO = DetectionAugmentConfig()
SMALL = DetectionAugmentConfig((96, 112, 128), 192, 0.5, 0.5, (80, 100), (60, 90))
OFF = DetectionAugmentConfig((100,), 200, 0.0, 0.0, (100,))


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def scene(height: int, width: int, boxes: list[tuple[int, int, int, int]]) -> tuple[np.ndarray, Objects]:
    """Rectangles, each of a brightness of its own in the red channel, on black, as objects with their masks."""
    image = np.zeros((height, width, 3), np.uint8)
    masks = []
    for number, (left, top, right, bottom) in enumerate(boxes):
        mask = np.zeros((height, width), np.uint8)
        mask[top:bottom, left:right] = 1
        masks.append(run_lengths(mask))
        image[mask > 0, number % 3] = 255
    return image, Objects(np.array(boxes, np.float64).reshape(-1, 4), np.arange(len(boxes), dtype=np.int32), masks)


def bounds(channel: np.ndarray) -> list[float]:
    """Left, top, right and bottom of what is bright, to a part of a pixel by how bright the edges are."""
    rows, columns = (channel.max(axis) / 255.0 for axis in (1, 0))
    return [edge(columns), edge(rows), len(columns) - edge(columns[::-1]), len(rows) - edge(rows[::-1])]


def edge(profile: np.ndarray) -> float:
    """Where a rising profile of pixels reaches a half."""
    first = int(np.argmax(profile >= 0.5))
    if first == 0:
        return 0.0
    before, here = profile[first - 1 : first + 1]
    return first - 0.5 + (0.5 - before) / (here - before) if here > before else float(first)


def test_the_sizes_of_the_first_branch_are_the_recipes() -> None:
    config = dataclasses.replace(COCO, crop_probability=0.0)
    views = [a.drawn_view(480, 640, generator(seed), config) for seed in range(300)]
    assert {min(view.size) for view in views} == set(range(480, 801, 32))
    assert all(view.window == (0, 0, 480, 640) and view.resized == (480, 640) for view in views)
    assert all(abs(view.size[1] / view.size[0] - 4 / 3) < 2e-3 for view in views)
    assert 0.4 < np.mean([view.mirrored for view in views]) < 0.6
    long = [a.drawn_view(300, 900, generator(seed), config).size for seed in range(50)]
    assert max(size[1] for size in long) == 1333
    assert max(size[0] for size in long) == 444  # 300 * 1333 / 900


def test_the_second_branch_resizes_cuts_and_resizes() -> None:
    config = dataclasses.replace(COCO, crop_probability=1.0)
    views = [a.drawn_view(480, 640, generator(seed), config) for seed in range(400)]
    assert {view.resized for view in views} == {(400, 533), (500, 667), (600, 800)}
    windows = np.array([view.window for view in views])
    resized = np.array([view.resized for view in views])
    assert (windows[:, 2:] >= 384).all()
    assert (windows[:, 2:] <= np.minimum(resized, 600)).all()
    assert (windows[:, :2] >= 0).all()
    assert (windows[:, :2] + windows[:, 2:] <= resized).all()
    assert windows[:, 2].max() == 600
    assert windows[:, 3].min() < 390
    assert (windows[:, :2] + windows[:, 2:] == resized).any()
    assert {min(view.size) for view in views} == set(range(480, 801, 32))
    canvases = DetectionDataConfig().canvases
    assert {canvas_of(view.size, canvases) for view in views} == set(canvases)


def test_the_branches_are_drawn_by_a_coin_and_a_small_image_is_cut_to_what_it_has() -> None:
    views = [a.drawn_view(480, 640, generator(seed), COCO) for seed in range(400)]
    assert 0.4 < np.mean([view.resized != (480, 640) for view in views]) < 0.6
    thin = a.drawn_view(20, 2000, generator(0), dataclasses.replace(COCO, crop_probability=1.0))
    assert thin.window[2] == thin.resized[0] < 384


def test_a_view_is_a_function_of_the_generator_and_needs_no_pixel() -> None:
    assert a.drawn_view(480, 640, generator(7), COCO) == a.drawn_view(480, 640, generator(7), COCO)
    assert len({a.drawn_view(480, 640, generator(seed), COCO) for seed in range(50)}) > 30


def test_the_test_view_is_the_whole_image_within_the_scale() -> None:
    assert a.whole_view(480, 640, (1333, 800)).size == (800, 1067)
    assert a.whole_view(640, 480, (1333, 800)).size == (1067, 800)
    assert a.whole_view(300, 1000, (1333, 800)).size == (400, 1333)
    view = a.whole_view(480, 640, (1333, 800))
    assert view.seen.tolist() == [0, 0, 640, 480]
    assert not view.mirrored


@pytest.mark.parametrize("seed", range(60))
def test_boxes_survive_the_round_trip_within_half_a_pixel(seed: int) -> None:
    rng = generator(seed)
    height, width = (int(side) for side in rng.integers(100, 700, size=2))
    view = a.drawn_view(height, width, rng, COCO)
    corners = np.sort(rng.uniform(0, 1, size=(20, 2, 2)), axis=1).reshape(-1, 4) * [width, height, width, height]
    assert np.abs(view.back(view.of(corners)) - corners).max() < 1e-9
    rounded = np.rint(view.of(corners)).astype(np.float32)  # to whole pixels of a view
    enlarged = view.size[0] / (view.seen[3] - view.seen[1])
    assert np.abs(view.back(rounded) - corners).max() <= 0.51 / min(enlarged, 1)


@pytest.mark.parametrize("seed", range(40))
def test_boxes_are_where_the_pixels_are_within_half_a_pixel(seed: int) -> None:
    boxes = [(20, 30, 75, 62), (90, 12, 140, 100), (52, 80, 88, 119)]
    image, objects = scene(120, 160, boxes)
    view = a.drawn_view(120, 160, generator(seed), SMALL)
    pixels = a.shown(image, view)
    assert pixels.shape == (*view.size, 3)
    shown, labels, _ = a.shown_objects(objects, view)
    assert len(labels) >= 1
    height, width = view.size
    assert (shown >= 0).all()
    assert (shown <= np.array([width, height, width, height]) + 1e-9).all()
    for box, label in zip(shown, labels, strict=True):
        if (box[2:] - box[:2]).min() > 4:  # of less the edges blur into each other
            assert np.abs(np.array(bounds(pixels[..., label])) - box).max() <= 0.5 * max(
                1, view.size[0] / view.window[2]
            )


@pytest.mark.parametrize("seed", range(30))
def test_masks_follow_their_boxes(seed: int) -> None:
    """An L, so that a mirrored mask is told from one that is not, and what is cut off from what is left."""
    mask = np.zeros((120, 160), np.uint8)
    mask[30:100, 40:60] = 1
    mask[80:100, 40:120] = 1
    objects = Objects(np.array([[40.0, 30, 120, 100]]), np.array([4], np.int32), [run_lengths(mask)])
    view = a.drawn_view(120, 160, generator(seed), SMALL)
    boxes, _, crops = a.shown_objects(objects, view)
    pixels = a.shown(np.repeat(mask[..., None] * np.uint8(255), 3, axis=-1), view)[..., 0]
    for box, crop in zip(boxes, crops, strict=True):
        centres = (np.arange(110) + 0.5) / 110
        columns = np.floor(box[0] + centres * (box[2] - box[0])).astype(int).clip(0, view.size[1] - 1)
        rows = np.floor(box[1] + centres * (box[3] - box[1])).astype(int).clip(0, view.size[0] - 1)
        agreeing = (crop[1:-1, 1:-1] >= 128) == (pixels[np.ix_(rows, columns)] >= 128)
        assert agreeing.mean() > 0.95


def test_what_is_cut_away_is_gone_and_a_cut_may_be_empty() -> None:
    image, objects = scene(200, 200, [(0, 0, 20, 20), (150, 150, 199, 199), (59, 90, 61, 130), (40, 40, 60, 100)])
    view = a.View((200, 200), (200, 200), (60, 60, 100, 80), (200, 160))
    boxes, labels, crops = a.shown_objects(objects, view)
    assert labels.tolist() == [2]  # 1 pixel of it is left, of the fourth nothing
    assert boxes.tolist() == [[0, 60, 2, 140]]
    assert crops.shape == (1, 112, 112)
    nothing = a.shown_objects(objects, dataclasses.replace(view, window=(20, 62, 30, 40)))
    assert [part.shape for part in nothing] == [(0, 4), (0,), (0, 112, 112)]
    assert nothing[2].dtype == np.uint8
    assert image.max() == 255  # the original is as it was


def test_with_everything_off_an_image_of_that_size_is_as_it_was() -> None:
    image, objects = scene(100, 150, [(10, 20, 60, 90)])
    image[...] = generator(0).integers(256, size=image.shape)
    view = a.drawn_view(100, 150, generator(0), OFF)
    assert (a.shown(image, view) == image).all()
    boxes, labels, crops = a.shown_objects(objects, view)
    assert (boxes == objects.boxes).all()
    assert labels.tolist() == [0]
    assert (crops[0, 1:-1, 1:-1] >= 128).all()
    assert (a.shown(image, dataclasses.replace(view, mirrored=True)) == image[:, ::-1]).all()
