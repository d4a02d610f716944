"""What the pictures of all tasks' answers have in common: colours of classes, and how they are written."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from s3_jax.paths import AnyPath, printable

# How much the eye sees of a difference in red, green and blue.
_EYE = np.array([2, 4, 3])


def default_colours(count: int) -> np.ndarray:
    """Colours to draw classes in, uint8 (count, 3), for up to 255: a class has the same in any count.

    Each is as far as can be from those before it and from black, grey and white, which masks and pictures have anyway.
    """
    levels = np.arange(0, 256, 17)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    nearest = np.min([_squared_distance(candidates, np.full(3, grey)) for grey in (0, 128, 255)], axis=0)
    colours = np.zeros((count, 3), np.uint8)
    for number in range(count):
        colours[number] = candidates[nearest.argmax()]
        nearest = np.minimum(nearest, _squared_distance(candidates, colours[number].astype(np.int64)))
    return colours


def _squared_distance(colours: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (colours - other) ** 2 @ _EYE


def name_of(path: AnyPath, number: int, count: int) -> str:
    """The name of what is drawn of one of so many images: its own, with its number where there are several."""
    return printable(f"{number:04d}_{path.stem}" if count > 1 else path.stem)


def encoded(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
