"""Class maps as pictures: over the image, with a legend, and as masks with a palette."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from s3_jax.data.pictures import default_colours
from s3_jax.paths import printable
from s3_jax.segmentation.class_table import IGNORED

OPACITY = 0.55  # of classes over the image
SMALLEST_SIDE = 320  # pixels, to which small pictures are enlarged, so that a legend fits beside them
_MARGIN, _SWATCH, _LINE, _TEXT = 10, 14, 22, 14


def colours_of(colours: Sequence[tuple[int, ...]], count: int) -> np.ndarray:
    """Colours of `count` classes, uint8 (count, 3): those given, or default ones."""
    return np.array(colours, np.uint8).reshape(-1, 3) if len(colours) else default_colours(count)


def overlay(pixels: np.ndarray, classes: np.ndarray, names: Sequence[str], colours: np.ndarray) -> Image.Image:
    """The image, uint8 (H, W, 3), under the colours of its classes, uint8 (H, W), beside a legend.

    The legend has the classes that occur, the largest first, with their share of the pixels that count.
    """
    shown = colours[np.minimum(classes, len(colours) - 1)]
    mixed = (1 - OPACITY) * pixels + OPACITY * shown
    mixed = np.where((classes == IGNORED)[..., None], pixels, mixed)
    picture = Image.fromarray(np.rint(mixed).astype(np.uint8))
    factor = max(1, -(-SMALLEST_SIDE // min(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    return _beside(picture, _legend(classes, names, colours))


def as_mask(classes: np.ndarray, colours: np.ndarray) -> Image.Image:
    """A class map, uint8 (H, W), as a picture of its values with the classes' colours as palette."""
    mask = Image.fromarray(classes, "P")
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = colours
    mask.putpalette(palette.tobytes())
    return mask


def shares_of(classes: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """The share of the pixels that count of each class that occurs, the largest first."""
    counts = np.bincount(classes[classes != IGNORED], minlength=len(names))
    order = [number for number in np.argsort(-counts, kind="stable").tolist() if counts[number]]
    return {names[number]: float(counts[number] / counts.sum()) for number in order}


def _legend(classes: np.ndarray, names: Sequence[str], colours: np.ndarray) -> Image.Image:
    shares = shares_of(classes, names)
    order = [list(names).index(name) for name in shares]
    font = ImageFont.load_default(_TEXT)
    labels = [f"{printable(name)}  {100 * share:.1f} %" for name, share in shares.items()]
    width = int(max([font.getlength(label) for label in labels], default=0)) + _SWATCH + 3 * _MARGIN
    legend = Image.new("RGB", (width, _LINE * len(labels) + 2 * _MARGIN), "white")
    draw = ImageDraw.Draw(legend)
    for line, (number, label) in enumerate(zip(order, labels, strict=True)):
        top = _MARGIN + _LINE * line
        box = (_MARGIN, top, _MARGIN + _SWATCH, top + _SWATCH)
        draw.rectangle(box, fill=tuple(colours[number].tolist()), outline="black")
        draw.text((2 * _MARGIN + _SWATCH, top + _SWATCH / 2), label, fill="black", font=font, anchor="lm")
    return legend


def _beside(picture: Image.Image, legend: Image.Image) -> Image.Image:
    size = (picture.width + legend.width, max(picture.height, legend.height))
    both = Image.new("RGB", size, "white")
    both.paste(picture, (0, 0))
    both.paste(legend, (picture.width, 0))
    return both
