"""Digit scenes: pictures with handwritten digits on textured noise, and where each digit is, without a download.

A scene is a function of its data set's seed, its split and its number; nothing is stored. It is drawn in whole numbers
alone, so that every machine draws the same. The handwriting is scikit-learn's, and that of the test scenes is the test
split's of `open_digits`, which no other split shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from s3_jax.data.randomness import generator
from s3_jax.data.sources import ImageSource, open_digits
from s3_jax.errors import S3Error

SPLITS = ("train", "holdout", "test")
DIGITS = 10  # classes
SMALLEST_SIDE = 16  # of a picture, in pixels
MOST_DIGITS = 4  # in a picture
HOLDOUT_SHARE = 5  # one of so many of the train split's digits, in each class
STROKE = 96  # of 255: brightness from which on a pixel of an enlarged digit has its class

_SIDE_OF_DIGIT = 8
# What numbers are drawn for, beside the uses in `randomness`.
_SCENE, _CLASSES = 101, 102
_ATTEMPTS = 20  # to find a digit a place
_TINTS = 8  # colours drawn for a digit, of which the first that stands out is taken
_CONTRAST = 60  # of 255, in luminance: what stands out
_LUMINANCE = np.array([299, 587, 114])  # thousandths of red, green and blue
# Of the background's noise: cells along a side of a picture, and the largest deviation, of 255.
_OCTAVES = ((3, 40), (8, 25), (20, 15))
_GRAIN = 8  # the same of each pixel

Instance = tuple[int, np.ndarray]  # 1 + the digit, 0 being background, and its strokes, bool (side, side)


@dataclasses.dataclass(frozen=True, eq=False)
class DigitScenes:
    """The scenes of one split, by number; the class of a task (`segmentation.scenes`, `detection.scenes`) adds items.

    The two last fields, set by `dataclasses.replace`, make controls: a network that is trained on such scenes can learn
    where digits are but not which, or neither. The set of pictures stays the same.
    """

    digits: np.ndarray  # uint8 (N, 8, 8), strokes bright
    digit_labels: np.ndarray  # (N,) of the digits, 0..9
    count: int  # of scenes
    side: int  # of a picture, in pixels
    seed: int
    split: str
    shuffled_classes: bool = False  # the class of every instance is drawn at random
    shuffled_pictures: bool = False  # classes and instances of a scene stay, but its picture is another's

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> tuple[np.ndarray, list[Instance]]:
        """A picture, uint8 (side, side, 3), and its digits, as `instances` has them. Raises IndexError."""
        picture, instances = self._scene(index)
        if self.shuffled_pictures:
            picture, _ = self._scene((index + 1) % self.count)
        return picture, instances

    def instances(self, index: int) -> list[Instance]:
        """Every digit of a scene: its class number, 1..10, and its strokes, bool (side, side); no two share a pixel."""
        return self._scene(index)[1]

    def name(self, index: int) -> str:
        """What a scene is called in messages."""
        return f"scene {index} of digit scenes/{self.split}"

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a picture in pixels."""
        return self.side, self.side

    @property
    def identities(self) -> np.ndarray:
        """int64 (count,): a number for each scene that no other has, whichever split it is in."""
        return np.arange(self.count) + (SPLITS.index(self.split) << 32)

    def _scene(self, index: int) -> tuple[np.ndarray, list[Instance]]:
        """A picture, uint8 (side, side, 3), and its instances."""
        if not 0 <= index < self.count:
            raise IndexError(f"no scene {index} among {self.count}")  # which ends a loop over the scenes
        rng = self._generator(_SCENE, index)
        picture = _background(rng, self.side)
        drawn = rng.integers(len(self.digits), size=rng.integers(1, MOST_DIGITS + 1))
        classes = self.digit_labels[drawn] + 1
        if self.shuffled_classes:
            classes = self._generator(_CLASSES, index).integers(1, DIGITS + 1, size=len(drawn))
        occupied = np.zeros((self.side, self.side), bool)
        instances = []
        for digit, number in zip(self.digits[drawn], classes, strict=True):
            mask = _draw(digit, picture, occupied, rng)
            if mask is not None:
                occupied |= mask
                instances.append((int(number), mask))
        return picture, instances

    def _generator(self, use: int, index: int) -> np.random.Generator:
        return generator(self.seed, use, 1 + SPLITS.index(self.split), index)


Scenes = TypeVar("Scenes", bound=DigitScenes)


def open_digit_scenes(
    kind: type[Scenes],
    splits: Sequence[str],
    *,
    size: int = 48,
    seed: int = 0,
    train_count: int = 3000,
    holdout_count: int = 500,
    test_count: int = 500,
) -> dict[str, Scenes]:
    """Scenes of `size` x `size` pixels with 1 to 4 digits, each a quarter to half as high, but 8 at least.

    kind: the task's class. Splits are "train", "holdout" and "test"; no two share handwriting: test scenes show the 359
    digits of the test split of `open_digits`, holdout scenes a fixed fifth of each class of its train split, train
    scenes the others. Raises S3Error for another split, and for a size below 16.
    """
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise S3Error(f"the digit scenes have no split {unknown[0]!r}; their splits are 'train', 'holdout' and 'test'")
    if size < SMALLEST_SIDE:
        raise S3Error(f"digit scenes of {size} pixels a side are too small; give them {SMALLEST_SIDE} or more")
    counts = {"train": train_count, "holdout": holdout_count, "test": test_count}
    handwriting = _handwriting()
    return {split: kind(*handwriting[split], counts[split], size, seed, split) for split in splits}


def _handwriting() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The digits of every split, uint8 (N, 8, 8), and their labels (N,)."""
    splits = open_digits(("train", "test")).splits
    digits, labels = _digits_of(splits["train"])
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[::HOLDOUT_SHARE]] = True
    return {
        "train": (digits[~held_out], labels[~held_out]),
        "holdout": (digits[held_out], labels[held_out]),
        "test": _digits_of(splits["test"]),
    }


def _digits_of(source: ImageSource) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([np.asarray(source[row][0])[..., 0] for row in range(len(source))]), source.labels


def _background(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise of several scales about a random colour, uint8 (side, side, 3)."""
    total = np.zeros((side, side, 3), np.int32) + rng.integers(30, 226, size=3)
    for cells, deviation in _OCTAVES:
        coarse = Image.fromarray(rng.integers(256, size=(cells, cells, 3), dtype=np.uint8))
        fine = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int32)
        total += (fine - 128) * int(rng.integers(deviation // 2, deviation + 1)) // 128
    total += rng.integers(-_GRAIN, _GRAIN + 1, size=total.shape)
    return np.clip(total, 0, 255).astype(np.uint8)


def _draw(digit: np.ndarray, picture: np.ndarray, occupied: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Draws a digit, uint8 (8, 8), into the picture where no other is; its strokes, or None where it finds no place."""
    side = len(picture)
    shortest, longest = (max(_SIDE_OF_DIGIT, twelfths * side // 12) for twelfths in (3, 6))
    length = int(rng.integers(shortest, longest + 1))
    strokes = np.asarray(Image.fromarray(digit).resize((length, length), Image.Resampling.BICUBIC))
    tints = rng.integers(256, size=(_TINTS, 3))
    for top, left in rng.integers(side - length + 1, size=(_ATTEMPTS, 2)):
        window = slice(top, top + length), slice(left, left + length)
        if not occupied[window].any():
            picture[window] = _tinted(picture[window], strokes, tints)
            mask = np.zeros_like(occupied)
            mask[window] = strokes >= STROKE
            return mask
    return None


def _tinted(ground: np.ndarray, strokes: np.ndarray, tints: np.ndarray) -> np.ndarray:
    """The ground, uint8 (h, w, 3), with strokes, uint8 (h, w), in the first of the tints that stands out from it."""
    contrasts = np.abs((tints * strokes.size - ground.sum((0, 1), dtype=np.int64)) @ _LUMINANCE)
    stands_out = contrasts >= _CONTRAST * strokes.size * _LUMINANCE.sum()
    tint = tints[np.argmax(stands_out if stands_out.any() else contrasts)]
    share = np.minimum(strokes.astype(np.int32) * 3 // 2, 255)[..., None]
    return ((ground * (255 - share) + tint * share + 127) // 255).astype(np.uint8)
