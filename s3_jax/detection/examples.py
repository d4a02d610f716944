"""Images with objects as examples on canvases: augmented views for training, whole images for evaluation.

A batch has one canvas, which is a function of an image's size alone: that on which the largest view of it fits, upright
or lying as it is. A cut out of a lying image may stand upright; where it then goes beyond the canvas, it is shown
smaller, by less than the shorter sides of the recipe differ.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from s3_jax.data.canvases import canvas_of, on_canvas
from s3_jax.data.rescaling import Scale, Size, normalized, rescaled_size
from s3_jax.data.sources import decode
from s3_jax.data.splits import Subset
from s3_jax.data.stream import Example, Examples
from s3_jax.detection.augment import View, drawn_view, fitted, shown, shown_objects, whole_view
from s3_jax.detection.canvas import padded_objects
from s3_jax.detection.config import DetectionAugmentConfig, DetectionDataConfig
from s3_jax.detection.masks import CROP_SIDE
from s3_jax.detection.objects import Objects


class ObjectsOnCanvases(Examples):
    """The examples of a subset: for training where `augment` is given, else for evaluation.

    "image": float32 (H, W, 3), normalised, at the top left of its canvas, and 0 beyond. "size": int32 (2,), height and
    width of what is there. For training the objects, at most M = `data.max_objects`, too: "boxes" float32 (M, 4), left,
    top, right, bottom in pixels of the canvas, "labels" int32 (M,), -1 for padding, and "masks" uint8 (M, 112, 112),
    their crops in the frames of the boxes.
    """

    def __init__(
        self, subset: Subset, data: DetectionDataConfig, *, augment: DetectionAugmentConfig | None = None
    ) -> None:
        self.subset, self.data, self.augment = subset, data, augment
        self.scale = largest_scale(augment) if augment else data.test_scale

    def group(self, row: int) -> Size:
        """The canvas of an image. Raises S3Error where none holds it."""
        height, width = self.subset.source.size(int(self.subset.indices[row]))
        return canvas_of(rescaled_size(height, width, self.scale), self.data.canvases)

    def blank(self, group: Hashable = None) -> Example:
        """An example of zeros on a canvas, or on the first of all where that is None."""
        canvas = self.data.canvases[0] if group is None else group
        example = {"image": np.zeros((*canvas, 3), np.float32), "size": np.zeros(2, np.int32)}  # type: ignore[misc]
        if self.augment is None:
            return example
        return example | self._padded(np.zeros((0, 4)), np.zeros(0), np.zeros((0, CROP_SIDE, CROP_SIDE)))

    def example(self, row: int, rng: np.random.Generator | None) -> Example:
        """An image on its canvas, with its objects where they are trained on. Raises BadImage."""
        image, objects = self.subset.source[int(self.subset.indices[row])]
        pixels, canvas = np.asarray(decode(image)), self.group(row)
        height, width = pixels.shape[0], pixels.shape[1]
        if rng is None or self.augment is None:
            return self._on_canvas(pixels, whole_view(height, width, self.data.test_scale), canvas)
        view = fitted(drawn_view(height, width, rng, self.augment), canvas)
        return self._on_canvas(pixels, view, canvas) | self.objects_of(objects, view)

    def objects_of(self, objects: Objects, view: View) -> Example:
        """The objects of a view as arrays; of those that are too many the largest."""
        return self._padded(*shown_objects(objects, view))

    def _padded(self, boxes: np.ndarray, labels: np.ndarray, crops: np.ndarray) -> Example:
        padded = padded_objects(boxes, labels, crops, self.data.max_objects)
        return {name: padded[name] for name in ("boxes", "labels", "masks")}

    def _on_canvas(self, pixels: np.ndarray, view: View, canvas: Size) -> Example:
        image = on_canvas(normalized(shown(pixels, view), self.data.mean, self.data.std), canvas)
        return {"image": image, "size": np.array(view.size, np.int32)}


def largest_scale(augment: DetectionAugmentConfig) -> Scale:
    """The longest side and the longest of the shorter sides that a view can have, in pixels."""
    return augment.long_side, max(augment.short_sides)
