"""Images with class maps as examples: augmented crops for training, whole images of any size for evaluation."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np

from s3_jax.data.rescaling import normalized
from s3_jax.data.sources import decode
from s3_jax.data.splits import Subset
from s3_jax.data.stream import Example, Examples
from s3_jax.segmentation.augment import augmented, evaluation_size, resized_to
from s3_jax.segmentation.class_table import IGNORED
from s3_jax.segmentation.config import SegmentationAugmentConfig, SegmentationDataConfig
from s3_jax.segmentation.resizing import Size, resize_matrix


class Canvas(NamedTuple):
    """What the examples of a batch of evaluation have in common: the size an image is seen at, and a size that holds
    its class map, both (height, width) in pixels."""

    image: Size
    classes: Size


class MaskedImages(Examples):
    """The examples of a subset: for training where `augment` is given, else for evaluation.

    "image": float32 (H, W, 3), normalised. "label": uint8 (H', W'), class numbers, and IGNORED where they do not count.
    For training both are of the crop's size, and "weight" is 0 for a crop in which no pixel counts. For evaluation the
    label is that of the original image, at the top left of the canvas, and "rows" (H', h) and "columns" (W', w),
    float32, are what resizes a map of the network, at stride `stride`, to the original; they are 0 beyond it.
    """

    def __init__(
        self,
        subset: Subset,
        data: SegmentationDataConfig,
        crop: int,
        stride: int,
        *,
        augment: SegmentationAugmentConfig | None = None,
    ) -> None:
        self.subset, self.data, self.crop, self.stride, self.augment = subset, data, crop, stride, augment
        self._canvases: dict[int, Canvas] = {}

    def group(self, row: int) -> Canvas | None:
        """The canvas of an image in evaluation. Raises BadImage."""
        if self.augment is not None:
            return None
        if row not in self._canvases:
            self._canvases[row] = self._canvas(*self.subset.source.size(int(self.subset.indices[row])))
        return self._canvases[row]

    def _canvas(self, height: int, width: int) -> Canvas:
        multiple = self.data.test_multiple
        whole = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
        return Canvas(evaluation_size(height, width, self.data.test_scale, multiple), whole)

    def blank(self, group: Hashable = None) -> Example:
        """An example of zeros, of a canvas, or of the crop's size where that is None."""
        canvas = group if isinstance(group, Canvas) else Canvas((self.crop,) * 2, (self.crop,) * 2)
        image, label = np.zeros((*canvas.image, 3), np.float32), np.zeros(canvas.classes, np.uint8)
        if self.augment is not None:
            return {"image": image, "label": label}
        maps = [-(-length // self.stride) for length in canvas.image]
        rows, columns = (np.zeros(shape, np.float32) for shape in zip(canvas.classes, maps, strict=True))
        return {"image": image, "label": label, "rows": rows, "columns": columns}

    def example(self, row: int, rng: np.random.Generator | None) -> Example:
        """An image with its classes, augmented where `rng` is given. Raises BadImage."""
        original, classes = self.subset.source[int(self.subset.indices[row])]
        pixels = np.asarray(decode(original))
        if rng is not None and self.augment is not None:
            return self._crop_of(pixels, classes, rng)
        canvas = self._canvas(*classes.shape)
        label = np.full(canvas.classes, IGNORED, np.uint8)
        label[: classes.shape[0], : classes.shape[1]] = classes
        rows, columns = (
            _back(old, seen, self.stride, new)
            for old, seen, new in zip(classes.shape, canvas.image, canvas.classes, strict=True)
        )
        image = normalized(resized_to(pixels, canvas.image), self.data.mean, self.data.std)
        return {"image": image, "label": label, "rows": rows, "columns": columns}

    def _crop_of(self, pixels: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> Example:
        assert self.augment is not None
        crop, label, (height, width) = augmented(pixels, classes, rng, self.augment)
        image = np.zeros(crop.shape, np.float32)  # padding is zero after normalisation
        image[:height, :width] = normalized(crop[:height, :width], self.data.mean, self.data.std)
        return {"image": image, "label": label, "weight": np.asarray((label != IGNORED).any(), np.float32)}


@functools.lru_cache(maxsize=256)
def _back(original: int, seen: int, stride: int, canvas: int) -> np.ndarray:
    """What resizes an axis of the network's map to the image as it was seen and then to the original, (canvas, map)."""
    matrix = np.zeros((canvas, -(-seen // stride)), np.float32)
    matrix[:original] = resize_matrix(seen, original) @ resize_matrix(matrix.shape[1], seen)
    return matrix
