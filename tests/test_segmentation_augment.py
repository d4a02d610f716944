"""Augmentation of an image with its class map: the sizes, and that both stay together whatever is done to them."""

import dataclasses

import cv2
import numpy as np
import pytest

from s3_jax.errors import S3Error
from s3_jax.segmentation import augment as a
from s3_jax.segmentation.augment import SegmentationAugmentConfig, augmented, photometric_distortion, random_crop
from s3_jax.segmentation.class_table import IGNORED

ADE20K = SegmentationAugmentConfig()
OFF = dataclasses.replace(
    ADE20K, scale=(48, 48), ratio=(1.0, 1.0), crop=48, largest_class=1.0, horizontal_flip=0.0, photometric=False
)
NO_DISTORTION = dataclasses.replace(ADE20K, brightness=0.0, contrast=(1.0, 1.0), saturation=(1.0, 1.0), hue=0)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(seed)
    image = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
    return image, rng.integers(7, size=(height, width), dtype=np.uint8)


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red is the row and whose green is the column, and classes that are numbers of 16-pixel blocks."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    return image, (rows // 16 * 16 + columns // 16).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((512, 683), (2048, 512), (512, 683)),  # 1
        ((480, 640), (2048, 512), (512, 683)),  # 512 / 480; 682.67 + 0.5
        ((640, 480), (2048, 512), (683, 512)),  # the shape is kept, whichever side is longer
        ((300, 3000), (2048, 512), (205, 2048)),  # 2048 / 3000 is less than 512 / 300; 204.8 + 0.5
        ((300, 301), (1024, 256), (256, 257)),  # 301 * 256 / 300 = 256.85 + 0.5
        ((300, 301), (256, 1024), (256, 257)),  # mmcv takes the larger number for the longer side
        ((1, 10000), (2048, 512), (1, 2048)),  # 0.2 + 0.5 would be no pixel
    ],
)
def test_an_image_is_resized_by_the_rule_of_mmcv(
    size: tuple[int, int], scale: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert a.rescaled_size(*size, scale) == expected


def test_evaluation_brings_each_side_up_to_the_multiple() -> None:
    assert a.evaluation_size(480, 640, (2048, 512), 1) == (512, 683)
    assert a.evaluation_size(480, 640, (2048, 512), 32) == (512, 704)
    assert a.evaluation_size(300, 3000, (2048, 512), 32) == (224, 2048)


def test_resizing_is_bilinear_between_the_centres_of_pixels() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1] = 100
    assert a.resized_to(image, (1, 4))[0, :, 0].tolist() == [0, 25, 75, 100]
    assert a.resized_to(image, (1, 2)).tobytes() == image.tobytes()


def test_sizes_of_training_fill_the_range_of_the_ratio() -> None:
    image, classes = noise(480, 640)
    heights = []
    for seed in range(200):
        view, view_classes = a.resized(image, classes, generator(seed), (2048, 512), (0.5, 2.0))
        assert view.shape[:2] == view_classes.shape
        heights.append(view.shape[0])
    assert 256 <= min(heights) < 275
    assert 1000 < max(heights) <= 1024
    assert abs(np.mean(heights) - 640) < 40  # uniform in the ratio
    tiny = a.resized(image, classes, generator(), (1, 1), (0.1, 0.1))
    assert [part.shape for part in tiny] == [(1, 1, 3), (1, 1)]


def test_with_everything_off_nothing_is_changed() -> None:
    image, classes = noise(48, 48)
    view, view_classes, valid = augmented(image, classes, generator(), OFF)
    assert view.tobytes() == image.tobytes()
    assert view_classes.tobytes() == classes.tobytes()
    assert valid == (48, 48)
    assert not np.shares_memory(view, image)


def test_a_view_is_a_function_of_the_generator_and_leaves_its_input_alone() -> None:
    image, classes = noise(300, 400)
    before = image.copy(), classes.copy()
    config = dataclasses.replace(ADE20K, crop=128)
    first, second, other = (augmented(image, classes, generator(seed), config) for seed in (3, 3, 4))
    assert all((one == two).all() for one, two in zip(first[:2], second[:2], strict=True))
    assert (first[0] != other[0]).any()
    assert (image == before[0]).all()
    assert (classes == before[1]).all()


@pytest.mark.parametrize("seed", range(20))
def test_classes_stay_with_their_pixels_through_resizing_cropping_and_flipping(seed: int) -> None:
    image, classes = coordinates(160, 208)
    config = dataclasses.replace(ADE20K, scale=(208, 160), crop=96, photometric=False)
    view, view_classes, (height, width) = augmented(image, classes, generator(seed), config)
    rows, columns = view[:height, :width, 0].astype(int), view[:height, :width, 1].astype(int)
    # Interpolated coordinates and the nearest pixel's differ by two pixels at most where the image is halved.
    inside = (rows % 16 >= 2) & (rows % 16 < 14) & (columns % 16 >= 2) & (columns % 16 < 14)
    assert inside.mean() > 0.4
    assert (view_classes[:height, :width] == rows // 16 * 16 + columns // 16)[inside].all()


def test_a_crop_is_a_part_of_both_at_any_place() -> None:
    image, classes = coordinates(100, 120)
    corners = set()
    for seed in range(2000):
        view, view_classes = random_crop(image, classes, generator(seed), 90, 1.0)
        top, left = view[0, 0, :2].astype(int)
        assert (view == image[top : top + 90, left : left + 90]).all()
        assert (view_classes == classes[top : top + 90, left : left + 90]).all()
        corners.add((top, left))
    tops, lefts = map(set, zip(*corners, strict=True))
    assert tops == set(range(11))
    assert lefts == set(range(31))


def test_a_flip_is_of_both_with_the_set_probability() -> None:
    image, classes = noise(5, 7)
    flipped = 0
    for seed in range(400):
        view, view_classes = a.random_flip(image, classes, generator(seed), 0.3)
        is_mirror = (view == image[:, ::-1]).all()
        assert is_mirror or (view == image).all()
        assert (view_classes == (classes[:, ::-1] if is_mirror else classes)).all()
        flipped += int(is_mirror)
    assert 0.2 < flipped / 400 < 0.4


def test_what_does_not_count_stays_so_and_nothing_else_becomes_it() -> None:
    """Ignored pixels are white in an image that is black elsewhere; no class becomes another by interpolation."""
    classes = np.full((96, 96), 3, np.uint8)
    classes[:, 48:] = 200
    classes[32:64] = IGNORED
    image = np.repeat(np.where(classes == IGNORED, 255, 0)[..., None], 3, axis=-1).astype(np.uint8)
    config = dataclasses.replace(OFF, scale=(96, 96), ratio=(0.5, 2.0), crop=80, horizontal_flip=0.5)
    for seed in range(40):
        view, view_classes, (height, width) = augmented(image, classes, generator(seed), config)
        view, inside = view[:height, :width], view_classes[:height, :width]
        assert (inside[view[..., 0] == 255] == IGNORED).all()
        assert (inside[view[..., 0] == 0] != IGNORED).all()
        assert set(np.unique(inside)) <= {3, 200, IGNORED}


def test_padding_lies_right_and_below_and_does_not_count() -> None:
    image, classes = noise(30, 40)
    view, view_classes, valid = a.padded(image, classes, 48)
    assert valid == (30, 40)
    assert (view[:30, :40] == image).all()
    assert (view_classes[:30, :40] == classes).all()
    assert view.sum() == image.sum()
    assert (view_classes == IGNORED).sum() == 48 * 48 - 30 * 40


def test_a_crop_is_varied_where_no_class_reaches_its_share_of_what_counts() -> None:
    def map_of(*counts: tuple[int, int]) -> np.ndarray:
        return np.concatenate([np.full(count, number, np.uint8) for number, count in counts]).reshape(1, -1)

    assert a.is_varied(map_of((1, 74), (2, 26)), 0.75)
    assert not a.is_varied(map_of((1, 75), (2, 25)), 0.75)
    assert not a.is_varied(map_of((1, 75), (2, 25), (IGNORED, 900)), 0.75)  # which are not counted
    assert a.is_varied(map_of((0, 74), (254, 26), (IGNORED, 900)), 0.75)
    assert not a.is_varied(map_of((1, 100)), 0.999)
    assert not a.is_varied(map_of((IGNORED, 100)), 0.75)


def test_a_crop_is_sought_in_which_no_class_covers_too_much() -> None:
    """A map of one class but for a stripe on the left, of which 8 of 201 places see enough."""
    image, _ = coordinates(32, 232)
    classes = np.where(np.arange(232) < 16, 1, 0).astype(np.uint8) * np.ones((32, 1), np.uint8)
    # With the stripe's s columns of 32 the other class covers 1 - s / 32, below 0.75 from 9 on: lefts 0 to 7 of 201.
    share = np.mean(
        [a.is_varied(random_crop(image, classes, generator(seed), 32, 1.0)[1], 0.75) for seed in range(2000)]
    )
    sought = np.mean(
        [a.is_varied(random_crop(image, classes, generator(seed), 32, 0.75)[1], 0.75) for seed in range(2000)]
    )
    once = 8 / 201
    assert abs(share - once) < 0.015
    assert abs(sought - (1 - (1 - once) ** 11)) < 0.035


def test_a_crop_that_cannot_be_varied_is_taken_all_the_same() -> None:
    image, _ = noise(64, 64)
    for value in (4, IGNORED):
        view, view_classes = random_crop(image, np.full((64, 64), value, np.uint8), generator(), 48, 0.75)
        assert view.shape == (48, 48, 3)
        assert (view_classes == value).all()


def reference_distortion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """mmsegmentation's, pixel by pixel as it does it, in float32; the draws in its order."""

    def converted(values: np.ndarray, factor: float, added: float) -> np.ndarray:
        return np.clip(values.astype(np.float32) * factor + added, 0, 255).astype(np.uint8)

    def contrast(pixels: np.ndarray) -> np.ndarray:
        return converted(pixels, rng.uniform(0.5, 1.5), 0) if rng.random() < 0.5 else pixels

    image = converted(image, 1, rng.uniform(-32, 32)) if rng.random() < 0.5 else image
    first = rng.random() < 0.5
    image = contrast(image) if first else image
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = converted(hsv[..., 1], rng.uniform(0.5, 1.5), 0)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(-18, 19)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return image if first else contrast(image)


def test_distortion_is_that_of_mmsegmentation_bit_for_bit() -> None:
    image, _ = noise(32, 32)
    for seed in range(60):
        expected = reference_distortion(image, generator(seed))
        assert (photometric_distortion(image, generator(seed), ADE20K) == expected).all()


def test_distortion_leaves_the_classes_and_a_picture_of_one_colour_is_one() -> None:
    image, classes = noise(48, 48)
    config = dataclasses.replace(OFF, photometric=True)
    changed = 0
    for seed in range(40):
        view, view_classes, _ = augmented(image, classes, generator(seed), config)
        assert (view_classes == classes).all()
        changed += int((view != image).any())
    assert changed > 30
    plain = photometric_distortion(np.full((4, 4, 3), (200, 90, 30), np.uint8), generator(1), ADE20K)
    assert len(np.unique(plain.reshape(-1, 3), axis=0)) == 1


def test_distortion_without_strength_is_none_but_for_rounding_in_other_colours() -> None:
    image, _ = noise(32, 32)
    differences = [
        np.abs(photometric_distortion(image, generator(seed), NO_DISTORTION).astype(int) - image).max()
        for seed in range(20)
    ]
    assert min(differences) == 0
    assert max(differences) <= 8  # there and back between RGB and HSV of bytes, twice


def test_each_strength_does_what_it_says() -> None:
    grey = np.full((1, 1, 3), 100, np.uint8)
    only = dataclasses.replace
    for config, low, high in (
        (only(NO_DISTORTION, brightness=32.0), 68, 132),
        (only(NO_DISTORTION, contrast=(0.5, 1.5)), 50, 150),
    ):
        levels = [int(photometric_distortion(grey, generator(seed), config)[0, 0, 0]) for seed in range(400)]
        assert low <= min(levels) < low + 5
        assert high - 5 < max(levels) <= high
        assert 0.4 < np.mean(np.array(levels) == 100) < 0.6
    red = np.array([[[200, 100, 100]]], np.uint8)
    config = only(NO_DISTORTION, saturation=(0.5, 0.5))
    results = {tuple(photometric_distortion(red, generator(seed), config)[0, 0].tolist()) for seed in range(40)}
    assert {colour[1] for colour in results} == {100, 151}  # half of the difference to 200; 63 of 255 in bytes
    turned = only(NO_DISTORTION, hue=60)
    hues = {
        int(cv2.cvtColor(photometric_distortion(red, generator(seed), turned), cv2.COLOR_RGB2HSV)[0, 0, 0])
        for seed in range(400)
    }
    assert hues <= {*range(61), *range(119, 180)}
    assert len(hues) > 60


def test_the_defaults_give_crops_of_ade20k() -> None:
    view, view_classes, (height, width) = augmented(*noise(480, 640), generator(), ADE20K)
    assert (view.shape, view_classes.shape) == ((512, 512, 3), (512, 512))
    assert view.dtype == view_classes.dtype == np.uint8
    assert 0 < min(height, width) <= max(height, width) <= 512


WRONG = {"scale": (0, 512), "ratio": (0.0, 1.0), "crop": 0, "largest_class": 0.0, "horizontal_flip": 1.5}
WRONG_COLOURS = {"brightness": -1.0, "contrast": (1.5, 0.5), "saturation": (-1.0, 1.0), "hue": 91}


@pytest.mark.parametrize(("setting", "value"), (WRONG | WRONG_COLOURS).items())
def test_a_setting_that_cannot_be_is_refused(setting: str, value: object) -> None:
    with pytest.raises(S3Error, match=f"augment.{setting} = "):
        dataclasses.replace(ADE20K, **{setting: value})
