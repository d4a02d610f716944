"""Digit scenes with the class of each pixel: see `data.digit_scenes` for what is drawn, and for whose handwriting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from s3_jax.data import digit_scenes
from s3_jax.segmentation.class_table import ClassTable, OpenedMasks

CLASS_NAMES = ("background", *(str(digit) for digit in range(digit_scenes.DIGITS)))


class DigitScenes(digit_scenes.DigitScenes):
    """The scenes of one split, by number, with their class maps."""

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """A picture, RGB, and its class map, uint8 (side, side): 0 is background, 1 + d is a stroke of a digit d."""
        picture, instances = self.scene(index)
        classes = np.zeros((self.side, self.side), np.uint8)
        for number, mask in instances:
            classes[mask] = number
        return Image.fromarray(picture), classes


def open_scenes(splits: Sequence[str], **settings: Any) -> OpenedMasks:
    """The scenes of the named splits; settings and errors are those of `open_digit_scenes`."""
    opened = digit_scenes.open_digit_scenes(DigitScenes, splits, **settings)
    return OpenedMasks("digit scenes", ClassTable(CLASS_NAMES), opened)
