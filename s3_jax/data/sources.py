"""Images by number, wherever they lie: the protocol that every source follows, decoding, and sources in memory."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from absl import logging
from PIL import Image, PngImagePlugin

from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the undecoded image

DIGITS_TEST_SHARE = 0.2
# Pillow takes a megabyte of text or of a colour profile in a PNG for an attack; editors write more.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 64 * 2**20)
PngImagePlugin.MAX_TEXT_MEMORY = max(PngImagePlugin.MAX_TEXT_MEMORY, 256 * 2**20)
# It warns of every image above half of its limit of pixels, which is told where it is exceeded.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Pixels per output pixel that reduced decoding must leave for the resize, so that it cannot be seen in the result.
_REDUCING_GAP = 2
# Of TIFF.
_PHOTOMETRIC, _MAX_SAMPLE_VALUE = 262, 281
_WHITE_IS_ZERO = 0
_WHITE = 65535.0
_SMALLER_WHITES = tuple(2**bits - 1 for bits in range(9, 16))


class BadImage(Exception):
    """An image that cannot be decoded; whoever asked for it knows its name and what to do about it."""


def of_bad_image(name: str, error: BadImage) -> S3Error:
    """What users are told of an image that is not to be left out."""
    return S3Error(
        f"{name}: {error}; replace it, or leave out such images with data.on_bad_image='skip' (of evaluate.py: "
        "--skip_bad_images)"
    )


class ImageSource(Protocol):
    """Images with labels, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """An image, read but perhaps not yet decoded, and its label. Raises BadImage."""

    def name(self, index: int) -> str:
        """Where the image lies, for messages."""

    @property
    def labels(self) -> np.ndarray:
        """All labels, int (N,), without the images."""

    @property
    def identities(self) -> np.ndarray:
        """int64 (N,): a number for each image that no other of the data set has, whichever splits it is in."""


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
    rows: np.ndarray | None = None  # (N,) of the images in the whole set; None where this is the whole

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """See `ImageSource`."""
        return Image.fromarray(self.images[index]), int(self.labels[index])

    def name(self, index: int) -> str:
        """See `ImageSource`."""
        return f"image {index} of {self.set_name}"

    @property
    def identities(self) -> np.ndarray:
        """See `ImageSource`."""
        return np.arange(len(self)) if self.rows is None else self.rows


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

    @property
    def labels(self) -> np.ndarray:
        """See `ImageSource`."""
        return self._source.labels

    @property
    def identities(self) -> np.ndarray:
        """See `ImageSource`."""
        return self._source.identities


def open_encoded(encoded: bytes) -> Image.Image:
    """The image of a file's bytes, decoded only as far as its header. Raises BadImage."""
    if not encoded:
        raise BadImage("not an image: the file is empty")
    try:
        image = Image.open(io.BytesIO(encoded))
    except Exception as error:  # of any kind: Pillow's readers pass on what broken bytes make them run into
        raise _bad_image("not an image", error) from error
    if 0 in image.size:
        raise BadImage(f"not an image: it has {image.width} x {image.height} pixels")
    return image


def open_file(path: AnyPath) -> Image.Image:
    """The image of a file, decoded only as far as its header. Raises BadImage, also where it cannot be read."""
    try:
        return open_encoded(path.read_bytes())
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror or error}") from error


def decode(image: Image.Image) -> Image.Image:
    """The image decoded to RGB; EXIF orientation is ignored, as in ImageNet's protocols.

    Grey of more than 8 bits is scaled, see `_byte_grey`. Raises BadImage.
    """
    try:
        image.load()
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            image = _byte_grey(image)
        return image if image.mode == "RGB" else image.convert("RGB")
    except BadImage:
        raise
    except Exception as error:  # as in open_encoded
        raise _bad_image("damaged image", error) from error


def _bad_image(what: str, error: Exception) -> BadImage:
    if isinstance(error, Image.UnidentifiedImageError):
        return BadImage(f"{what}: its format is none that Pillow {Image.__version__} knows")
    if isinstance(error, Image.DecompressionBombError):
        numbers = [int(number) / 1e6 for number in re.findall(r"\d+", str(error))[:2]]
        if len(numbers) == 2:
            return BadImage(f"too large: {numbers[0]:.0f} of at most {numbers[1]:.0f} million pixels")
    return BadImage(f"{what}: {error or type(error).__name__}")


def _byte_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or of floats, scaled to 8 bits; Pillow would clip it at 255.

    White is 1 for floats and 65,535 for whole numbers: Pillow scales PGM of every depth to that. A TIFF of 9 to 15 bits
    kept in 16 says so in its tag MaxSampleValue. Raises BadImage where the values show that white must be another.
    """
    levels = np.asarray(image)
    white = 1.0 if image.mode == "F" else _white_of(image)
    low, high = levels.min(), levels.max()
    # Up to 255 they are bytes in 32 bits just as well as darkness in 16.
    two_meanings = image.mode == "I" and image.format not in ("PPM", "PNG") and 0 < high <= 255
    if not 0 <= low <= high <= white or two_meanings:  # so also where there is a NaN
        raise BadImage(
            f"grey of unknown scale: its values go from {low:g} to {high:g}, where white is taken for {white:g}; save "
            "it with 8 or 16 bits"
        )
    if image.mode.startswith("I;16") and white == _WHITE and 0 < high < _WHITE / 16:
        _warn_of_dark_grey()
    scaled = np.rint(np.multiply(levels, 255 / white, dtype=np.float32, casting="unsafe")).astype(np.uint8)
    return Image.fromarray(255 - scaled if _tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO else scaled)


def _white_of(image: Image.Image) -> float:
    """White in whole numbers: what a TIFF's tag says if that is the end of 9 to 15 bits, as the tag may also hold the
    largest value of one picture, and 65,535 otherwise."""
    tag = _tags(image).get(_MAX_SAMPLE_VALUE)
    value = tag[0] if isinstance(tag, tuple) and tag else tag
    return float(value) if isinstance(value, int) and value in _SMALLER_WHITES else _WHITE


def _tags(image: Image.Image) -> Mapping[int, object]:
    return getattr(image, "tag_v2", {})


@functools.cache
def _warn_of_dark_grey() -> None:
    """Says, once, what cannot be seen in a picture."""
    logging.warning(
        "a 16-bit grey image uses less than a sixteenth of its range, so it will look nearly black: if its values have "
        "12 bits, scale them to 16 or write the TIFF tag MaxSampleValue = 4095 (said once)"
    )


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
    opened = {
        name: MemoryImages(images[rows[name]], labels[rows[name]], f"digits/{name}", rows[name]) for name in splits
    }
    return OpenedSource("digits", tuple(str(digit) for digit in range(10)), opened)


def _stratified(labels: np.ndarray, share: float) -> np.ndarray:
    """Sorted row numbers of `share` of every class, always the same."""
    legacy = np.random.RandomState(0)
    drawn = [legacy.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    return np.sort(np.concatenate([rows[: round(share * len(rows))] for rows in drawn]))
