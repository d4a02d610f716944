"""RandAugment: every operation against Pillow's, which timm calls, and how operations are drawn."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from s3_jax.data import rand_augment as ra

FILL = (124, 116, 104)
BICUBIC = Image.Resampling.BICUBIC
Oracle = Callable[[Image.Image, float], Image.Image]


def photograph() -> np.ndarray:
    """Smooth shapes with some noise, each channel with its own range, not square."""
    rng = np.random.default_rng(0)
    coarse = rng.integers([30, 0, 90], [220, 140, 255], size=(6, 8, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((80, 60), BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-3, 4, size=smooth.shape), 0, 255).astype(np.uint8)


def affine(image: Image.Image, *rows: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, rows, BICUBIC, fillcolor=FILL)


def factor(strength: float) -> float:
    return max(0.1, 1 + 0.9 * strength)


def add_below_128(image: Image.Image, added: int) -> Image.Image:
    return image.point([min(255, level + added) if level < 128 else level for level in range(256)] * 3)


# Each of timm's operations as it calls Pillow, its level (magnitude / 10, signed) given as strength.
ORACLES: dict[str, Oracle] = {
    "_auto_contrast": lambda image, s: ImageOps.autocontrast(image),
    "_equalize": lambda image, s: ImageOps.equalize(image),
    "_invert": lambda image, s: ImageOps.invert(image),
    "_posterize": lambda image, s: ImageOps.posterize(image, max(1, 4 - int(abs(s) * 4))),
    "_solarize": lambda image, s: ImageOps.solarize(image, 256 - min(256, int(abs(s) * 256))),
    "_solarize_add": lambda image, s: add_below_128(image, min(128, int(abs(s) * 110))),
    "saturation": lambda image, s: ImageEnhance.Color(image).enhance(factor(s)),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(factor(s)),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(factor(s)),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(factor(s)),
    "_rotate": lambda image, s: image.rotate(30 * s, BICUBIC, fillcolor=FILL),
    "_shear_x": lambda image, s: affine(image, 1, 0.3 * s, 0, 0, 1, 0),
    "_shear_y": lambda image, s: affine(image, 1, 0, 0, 0.3 * s, 1, 0),
    "_translate_x": lambda image, s: affine(image, 1, 0, 0.45 * s * image.width, 0, 1, 0),
    "_translate_y": lambda image, s: affine(image, 1, 0, 0, 0, 1, 0.45 * s * image.height),
}
# In the order of OPERATIONS.
NAMES = ["_auto_contrast", "_equalize", "_invert", "_rotate", "_posterize", "_solarize", "_solarize_add"]
NAMES += ["saturation", "contrast", "brightness", "sharpness"]
NAMES += ["_shear_x", "_shear_y", "_translate_x", "_translate_y"]
GEOMETRIC = ("_rotate", "_shear_x", "_shear_y", "_translate_x", "_translate_y")


def test_there_are_timms_fifteen_increasing_operations() -> None:
    assert len(ra.OPERATIONS) == len(NAMES) == len(ORACLES) == 15
    named = {operation.__name__ for operation in ra.OPERATIONS}
    assert named - {"operation"} == {name for name in NAMES if name.startswith("_")}


@pytest.mark.parametrize("strength", [-0.9, -0.35, 0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in GEOMETRIC])
def test_colour_operations_agree_with_pillow(name: str, strength: float) -> None:
    pixels = photograph()
    result = ra.OPERATIONS[NAMES.index(name)](pixels, strength, FILL)
    expected = np.asarray(ORACLES[name](Image.fromarray(pixels), strength))
    assert result.shape == pixels.shape
    assert result.dtype == np.uint8
    # Blends round here and are cut there; the rest is exact.
    tolerance = 2 if name in ("saturation", "contrast", "brightness", "sharpness", "_auto_contrast") else 0
    assert np.abs(result.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("strength", [-0.9, -0.2, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_operations_agree_with_pillow(name: str, strength: float) -> None:
    pixels = photograph()
    result = ra.OPERATIONS[NAMES.index(name)](pixels, strength, FILL).astype(int)
    expected = np.asarray(ORACLES[name](Image.fromarray(pixels), strength)).astype(int)
    difference = np.abs(result - expected).max(axis=-1)
    # Same places and colours; the bicubic kernels and the one-pixel seam to the fill colour differ a little.
    assert np.median(difference) <= 1
    assert np.percentile(difference, 93) <= 6
    filled = (expected == FILL).all(axis=-1)
    assert ((result == FILL).all(axis=-1) == filled).mean() > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_operations_take_constant_and_tiny_images(name: str) -> None:
    for pixels in (np.full((8, 8, 3), 77, np.uint8), np.zeros((1, 2, 3), np.uint8)):
        before = pixels.copy()
        pixels.setflags(write=False)
        result = ra.OPERATIONS[NAMES.index(name)](pixels, 0.9, FILL)
        assert result.shape == pixels.shape
        assert (pixels == before).all()


def count_applied(monkeypatch: pytest.MonkeyPatch, layers: int, runs: int) -> tuple[list[int], list[float]]:
    """How often each operation was applied, and with which strengths."""
    counts, strengths = [0] * 15, []

    def recording(index: int) -> ra.Operation:
        def operation(pixels: np.ndarray, strength: float, fill: ra.Fill) -> np.ndarray:
            counts[index] += 1
            strengths.append(strength)
            return pixels

        return operation

    monkeypatch.setattr(ra, "OPERATIONS", tuple(recording(index) for index in range(15)))
    rng = np.random.default_rng(0)
    for _ in range(runs):
        ra.rand_augment(np.zeros((2, 2, 3), np.uint8), rng, layers=layers, magnitude=9, magnitude_std=0.5, fill=FILL)
    return counts, strengths


def test_operations_are_drawn_evenly_and_half_of_them_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, strengths = count_applied(monkeypatch, layers=2, runs=6000)
    assert abs(sum(counts) / 6000 - 1.0) < 0.04  # 2 layers, each with probability 0.5
    assert min(counts) > 320
    assert max(counts) < 480
    magnitudes = 10 * np.abs(strengths)
    assert abs(np.median(magnitudes) - 9) < 0.05
    assert magnitudes.max() == 10  # cut there
    assert abs(magnitudes[magnitudes < 9].std() - 0.5 * math.sqrt(1 - 2 / math.pi)) < 0.03
    assert abs(np.mean(np.array(strengths) > 0) - 0.5) < 0.03


def test_no_layers_leave_the_image_alone() -> None:
    pixels, rng = photograph(), np.random.default_rng(0)
    result = ra.rand_augment(pixels, rng, layers=0, magnitude=9, magnitude_std=0.5, fill=FILL)
    assert (result == pixels).all()
