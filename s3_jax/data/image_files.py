"""Images that are given one by one, of which nothing is known: what a network is asked about."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from s3_jax.data.sources import open_file
from s3_jax.paths import AnyPath


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
    """A source but for its items, which a task adds: an image with whatever stands for what is not known of it."""

    paths: Sequence[AnyPath]

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image.Image:
        """An image, decoded only as far as its header. Raises BadImage."""
        return open_file(self.paths[index])

    def name(self, index: int) -> str:
        """The image's path."""
        return str(self.paths[index])

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels. Raises BadImage."""
        image = self.image(index)
        return image.height, image.width

    @property
    def identities(self) -> np.ndarray:
        """A number for each image."""
        return np.arange(len(self))
