"""Detections as pictures: masks, boxes, names and scores over the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from s3_jax.data.pictures import default_colours
from s3_jax.paths import printable

OPACITY = 0.45  # of masks over the image
SMALLEST_SIDE = 400  # pixels, to which small pictures are enlarged, so that names can be read
_TEXT, _EDGE, _MARGIN = 13, 2, 2
_BRIGHT = 140  # of 255: grounds brighter than this have black names


def drawn(
    pixels: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    masks: Sequence[np.ndarray],
    names: Sequence[str],
    scores: Sequence[float] | None = None,
) -> Image.Image:
    """The image, uint8 (H, W, 3), with its objects, the first on top, each in the colour of its class.

    boxes: (N, 4), left, top, right, bottom in pixels. labels: (N,). masks: N, bool (H, W). scores: (N,), 0 to 1, or
    None for objects that are known.
    """
    colours = default_colours(len(names))
    mixed = pixels.astype(np.float32)
    for label, mask in reversed(list(zip(labels, masks, strict=True))):
        mixed[mask] += OPACITY * (colours[label] - mixed[mask])
    picture = Image.fromarray(np.rint(mixed).astype(np.uint8))
    factor = max(1, -(-SMALLEST_SIDE // min(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    texts = [printable(names[label]) for label in labels]
    if scores is not None:
        texts = [f"{text} {100 * score:.0f}" for text, score in zip(texts, scores, strict=True)]
    draw = ImageDraw.Draw(picture)
    found = [
        (box.tolist(), text, tuple(colours[label].tolist()))
        for box, label, text in zip(boxes * factor, labels, texts, strict=True)
    ]
    for (left, top, right, bottom), _, colour in reversed(found):
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=_EDGE)
    for box, text, colour in reversed(found):  # no box's edge goes through a name
        _draw_text(draw, box, text, colour)
    return picture


def _draw_text(draw: ImageDraw.ImageDraw, box: Sequence[float], text: str, colour: tuple[int, ...]) -> None:
    """A text above a box, or inside where the picture ends."""
    left, top, _, _ = box
    font = ImageFont.load_default(_TEXT)
    height, width = _TEXT + 2 * _MARGIN, font.getlength(text) + 2 * _MARGIN
    top = top - height if top >= height else top
    draw.rectangle((left, top, left + width, top + height), fill=colour)
    ink = "black" if np.dot(colour, (0.299, 0.587, 0.114)) > _BRIGHT else "white"
    draw.text((left + _MARGIN, top + height / 2), text, fill=ink, font=font, anchor="lm")
