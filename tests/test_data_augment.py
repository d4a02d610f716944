"""Augmentation of one image: what each part does to the pixels."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from s3_jax.classification.augment import augmented
from s3_jax.classification.config import AugmentConfig
from s3_jax.data.augment import (
    ERASE_AREA,
    ERASE_RATIO,
    Normalization,
    centred,
    color_jitter,
    erase,
    pad_crop,
    random_crop_box,
)

OFF = AugmentConfig(
    random_resized_crop=False, horizontal_flip=0.0, rand_augment_layers=0, random_erasing=0.0, mixup=0.0, cutmix=0.0
)
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
FILL = (1, 2, 3)


def noise_image(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8))


def view(image: Image.Image, size: int, seed: int = 0, **settings: object) -> np.ndarray:
    config = dataclasses.replace(OFF, **settings)
    return augmented(image, np.random.default_rng(seed), config, size, FILL)


def test_with_everything_off_the_image_is_left_as_it_is() -> None:
    image = noise_image(16, 16)
    assert (view(image, 16) == np.asarray(image)).all()


def test_flip_is_the_exact_mirror_with_the_set_probability() -> None:
    image = noise_image(16, 16)
    original, mirror = np.asarray(image), np.asarray(image)[:, ::-1]
    assert (view(image, 16, horizontal_flip=1.0) == mirror).all()
    flipped = [(view(image, 16, seed, horizontal_flip=0.3) == mirror).all() for seed in range(400)]
    assert 0.2 < np.mean(flipped) < 0.4
    unflipped = [(view(image, 16, seed, horizontal_flip=0.3) == original).all() for seed in range(400)]
    assert np.mean(flipped) + np.mean(unflipped) == 1


def test_random_crop_boxes_have_the_wanted_areas_and_shapes() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([random_crop_box(rng, (500, 400), SCALE, RATIO) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert min(left.min(), top.min()) >= 0
    assert right.max() <= 500
    assert bottom.max() <= 400
    area, shape = (right - left) * (bottom - top) / (500 * 400), (right - left) / (bottom - top)
    assert 0.078 < area.min() < 0.1
    assert 0.9 < area.max() <= 1.0
    assert 0.74 < shape.min() < 0.78
    assert 1.28 < shape.max() < 1.35
    assert left.std() > 50
    assert top.std() > 40


def test_an_image_too_long_for_any_crop_gives_its_centre() -> None:
    rng = np.random.default_rng(0)
    assert random_crop_box(rng, (1000, 10), (0.9, 1.0), RATIO) == (493, 0, 506, 10)
    assert random_crop_box(rng, (10, 1000), (0.9, 1.0), RATIO) == (0, 493, 10, 506)


def test_a_crop_of_a_constant_image_is_constant() -> None:
    image = Image.new("RGB", (61, 43), (10, 200, 77))
    for seed in range(20):
        pixels = view(image, 24, seed, random_resized_crop=True, horizontal_flip=0.5)
        assert pixels.shape == (24, 24, 3)
        assert (pixels == (10, 200, 77)).all()


def test_a_random_resized_crop_shows_its_box() -> None:
    x, y = np.meshgrid(np.arange(128), np.arange(128))
    image = Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))
    for seed in range(5):
        left, top, right, bottom = random_crop_box(np.random.default_rng(seed), (128, 128), SCALE, RATIO)
        pixels = view(image, 32, seed, random_resized_crop=True).astype(float)
        columns = left + (np.arange(32) + 0.5) / 32 * (right - left) - 0.5
        rows = top + (np.arange(32) + 0.5) / 32 * (bottom - top) - 0.5
        inside = slice(3, -3)
        assert np.abs(pixels[inside, inside, 0] - columns[inside]).max() <= 1
        assert np.abs(pixels[inside, inside, 1] - rows[inside, None]).max() <= 1


def test_pad_crop_shifts_the_image_over_black() -> None:
    pixels = np.asarray(noise_image(8, 8)) | 1  # no black of its own
    padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)))
    places = {(top, left): padded[top : top + 8, left : left + 8].tobytes() for top in range(5) for left in range(5)}
    rng = np.random.default_rng(0)
    seen = {pad_crop(pixels, rng, 2).tobytes() for _ in range(400)}
    assert seen == set(places.values())


def test_color_jitter_stays_within_its_factors() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)  # contrast and saturation leave a constant grey alone
    levels = np.array([color_jitter(grey, np.random.default_rng(seed), 0.3).max() for seed in range(300)])
    assert 69 <= levels.min() < 75
    assert 125 < levels.max() <= 130
    image = np.asarray(noise_image(8, 8))
    assert (view(Image.fromarray(image), 8, color_jitter=0.4) != image).any()
    red = np.full((4, 4, 3), (200, 0, 0), np.uint8)
    spread = [np.ptp(color_jitter(red, np.random.default_rng(seed), 1.0)[0, 0].astype(int)) for seed in range(50)]
    assert min(spread) < 100  # saturation


def test_erasing_puts_noise_into_one_rectangle_and_leaves_the_rest() -> None:
    shares, shapes = [], []
    for seed in range(200):
        image = np.full((40, 60, 3), 9, np.float32)
        erase(image, np.random.default_rng(seed), 1.0)
        changed = (image != 9).all(axis=-1)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert changed.sum() == height * width  # a full rectangle, and nothing else
        assert ((image != 9).any(axis=-1) == changed).all()
        inside = image[changed]
        if height * width > 300:
            assert abs(inside.mean()) < 0.15
            assert abs(inside.std() - 1) < 0.15
        shares.append(height * width / (40 * 60))
        shapes.append(height / width)
    assert ERASE_AREA[0] * 0.8 < min(shares) < 0.05
    assert 0.28 < max(shares) < ERASE_AREA[1] * 1.05
    assert min(shapes) > ERASE_RATIO[0] * 0.8
    assert max(shapes) < ERASE_RATIO[1] * 1.2


def test_erasing_happens_with_its_probability() -> None:
    def erased(seed: int) -> bool:
        image = np.zeros((16, 16, 3), np.float32)
        erase(image, np.random.default_rng(seed), 0.25)
        return bool(image.any())

    assert 0.17 < np.mean([erased(seed) for seed in range(400)]) < 0.33


def test_normalization_is_the_formula() -> None:
    pixels = np.asarray(noise_image(12, 12))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    out = np.empty((12, 12, 3), np.float32)
    Normalization(mean, std, 12)(pixels, out)
    np.testing.assert_allclose(out, (pixels / 255 - np.array(mean)) / np.array(std), atol=1e-6)


def test_evaluation_of_all_of_an_image_of_the_right_size_leaves_it_alone() -> None:
    image = noise_image(32, 32)
    assert (centred(image, 32, 1.0) == np.asarray(image)).all()


def as_timm(image: Image.Image, size: int, crop: float) -> np.ndarray:
    """Resize and CenterCrop of torchvision, which timm's transform for evaluation is made of."""
    short = math.floor(size / crop)
    width, height = (int(short * length / min(image.size)) for length in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize(
    "width_height", [(224, 224), (223, 223), (225, 225), (224, 300), (120, 80), (80, 120), (250, 800), (500, 375)]
)
@pytest.mark.parametrize("crop", [0.8, 0.9, 1.0])
def test_evaluation_is_timms_resize_then_centre_crop(width_height: tuple[int, int], crop: float) -> None:
    image = noise_image(*width_height)
    assert (centred(image, 224, crop) == as_timm(image, 224, crop)).all()


def test_the_crop_is_taken_from_an_image_of_the_right_size_too() -> None:
    ring = np.zeros((32, 32, 3), np.uint8)
    ring[2:-2, 2:-2] = 255
    assert centred(Image.fromarray(ring), 32, 0.8).min() > 200
    assert centred(Image.fromarray(ring), 32, 1.0).min() == 0


@pytest.mark.parametrize(("width", "height"), [(20, 640), (640, 20), (7, 120)])
def test_a_long_image_is_cropped_before_it_is_resized_with_the_same_pixels(width: int, height: int) -> None:
    y, x = np.mgrid[:height, :width]
    waves = 127 + 60 * np.sin(x / 3) + 60 * np.cos(y / 4)
    image = Image.fromarray(np.stack([waves, waves / 2, 255 - waves], axis=-1).astype(np.uint8))
    assert np.abs(centred(image, 32, 0.9).astype(int) - as_timm(image, 32, 0.9)).max() <= 1


@pytest.mark.parametrize("width_height", [(1, 4000), (4000, 1), (2, 100_000), (1, 1)])
def test_a_thin_image_takes_no_more_memory_than_others(width_height: tuple[int, int]) -> None:
    made: list[tuple[int, int]] = []

    class Noting(Image.Image):
        def resize(self, size: tuple[int, int], *arguments: object, **options: object) -> Image.Image:
            made.append(size)
            return super().resize(size, *arguments, **options)

    image = Image.new("RGB", width_height, (9, 99, 199))
    image.__class__ = Noting
    assert (centred(image, 224, 0.9) == (9, 99, 199)).all()
    assert made
    assert max(width * height for width, height in made) <= 17 * 249**2
    for ratio in (RATIO, (0.1, 0.2), (5.0, 6.0)):  # also where no box of an allowed shape has a whole pixel
        pixels = view(Image.new("RGB", width_height, (9, 99, 199)), 224, random_resized_crop=True, crop_ratio=ratio)
        assert (pixels == (9, 99, 199)).all()
