"""Images by number, wherever they lie: the protocol that every source follows, decoding, and sources in memory."""

from __future__ import annotations

import dataclasses
import io
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from s3_jax.errors import S3Error

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the undecoded image

DIGITS_TEST_SHARE = 0.2
# What Pillow raises for broken files of the various formats.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
# Pixels per output pixel that reduced decoding must leave for the resize, so that it cannot be seen in the result.
_REDUCING_GAP = 2


class BadImage(Exception):
    """An image that cannot be decoded; whoever asked for it knows its name and what to do about it."""


class ImageSource(Protocol):
    """Images with labels, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """An image, read but perhaps not yet decoded, and its label. Raises BadImage."""

    def name(self, index: int) -> str:
        """Where the image lies, for messages."""


@dataclasses.dataclass(frozen=True)
class OpenedSource:
    """The splits of a data set that share their classes; `name` is the set's own name and version."""

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, ImageSource]


@dataclasses.dataclass(frozen=True, eq=False)
class MemoryImages:
    """Images that are held decoded: uint8 (N, H, W, 3) and labels (N,)."""

    images: np.ndarray
    labels: np.ndarray
    set_name: str

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """See `ImageSource`."""
        return Image.fromarray(self.images[index]), int(self.labels[index])

    def name(self, index: int) -> str:
        """See `ImageSource`."""
        return f"image {index} of {self.set_name}"


class CachedImages:
    """Another source whose images are decoded at their first use and then kept, uint8 (H, W, 3) each."""

    def __init__(self, source: ImageSource):
        self._source = source
        self._kept: list[tuple[np.ndarray, int] | None] = [None] * len(source)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """See `ImageSource`."""
        kept = self._kept[index]
        if kept is None:
            image, label = self._source[index]
            kept = self._kept[index] = np.asarray(decode(image)), label
        return Image.fromarray(kept[0]), kept[1]

    def name(self, index: int) -> str:
        """See `ImageSource`."""
        return self._source.name(index)


def open_encoded(encoded: bytes) -> Image.Image:
    """The image of a file's bytes, decoded only as far as its header. Raises BadImage."""
    try:
        return Image.open(io.BytesIO(encoded))
    except _DECODING_ERRORS as error:
        raise BadImage(f"not an image: {error}") from error


def decode(image: Image.Image) -> Image.Image:
    """The image decoded to RGB; EXIF orientation is ignored, as in ImageNet's protocols. Raises BadImage."""
    try:
        image.load()
        if image.mode.startswith("I;16"):  # Pillow would clip 16-bit grey at 255 instead of scaling it
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image if image.mode == "RGB" else image.convert("RGB")
    except _DECODING_ERRORS as error:
        raise BadImage(f"damaged image: {error}") from error


def decoded_for(image: Image.Image, box: Box, size: int) -> tuple[Image.Image, Box]:
    """The image decoded to show its box at (size, size), and the box in pixels of what was decoded. Raises BadImage.

    A JPEG far larger than needed is decoded at 1/2, 1/4 or 1/8, which leaves at least `_REDUCING_GAP` pixels for each.
    """
    width, height = image.size
    left, top, right, bottom = box
    needed_width = math.ceil(_REDUCING_GAP * size * width / (right - left))
    needed_height = math.ceil(_REDUCING_GAP * size * height / (bottom - top))
    image.draft(None, (needed_width, needed_height))  # does nothing for other formats than JPEG
    decoded = decode(image)
    x, y = decoded.width / width, decoded.height / height
    return decoded, (left * x, top * y, min(right * x, decoded.width), min(bottom * y, decoded.height))


def open_digits(splits: Sequence[str]) -> OpenedSource:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, grey repeated to RGB, values 0..16 scaled to 0..255.

    The set has no official split. Ours is stratified and the same for every run: of each class, a fifth, drawn with
    numpy's legacy generator at seed 0 (its stream is frozen), is "test" (359 images), the rest "train" (1,438).
    Raises S3Error for another split.
    """
    from sklearn.datasets import load_digits  # takes a second

    unknown = sorted(set(splits) - {"train", "test"})
    if unknown:
        raise S3Error(f"the digits have no split {unknown[0]!r}; their splits are 'train' and 'test'")
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=-1)
    labels = digits.target.astype(np.int32)
    test = _stratified(labels, DIGITS_TEST_SHARE)
    rows = {"train": np.setdiff1d(np.arange(len(labels)), test), "test": test}
    opened = {name: MemoryImages(images[rows[name]], labels[rows[name]], f"digits/{name}") for name in splits}
    return OpenedSource("digits", tuple(str(digit) for digit in range(10)), opened)


def _stratified(labels: np.ndarray, share: float) -> np.ndarray:
    """Sorted row numbers of `share` of every class, always the same."""
    legacy = np.random.RandomState(0)
    drawn = [legacy.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    return np.sort(np.concatenate([rows[: round(share * len(rows))] for rows in drawn]))
