"""Images with their classes as examples: augmented, normalised, with soft labels; mixup and cutmix between them."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from PIL import Image

from s3_jax.classification.augment import augmented
from s3_jax.classification.config import AugmentConfig, ClassificationDataConfig
from s3_jax.classification.mixing import draw_mix, mix_pairs, soft_label
from s3_jax.data.augment import Normalization, centred, erase
from s3_jax.data.splits import Subset
from s3_jax.data.stream import Batch, Example, Examples
from s3_jax.errors import S3Error


class LabelledImages(Examples):
    """The examples of a subset: for training where `augment` and `num_classes` are given, else for evaluation.

    "image": float32 (S, S, 3), normalised. For training "target", float32 (classes,), which sums to 1; of neighbours 2i
    and 2i + 1 of a batch each is the other's partner in mixup and cutmix, and the last one of an odd batch is not
    mixed. For evaluation "label", int32 (), the class; classes: (L,) which class each label of the subset is.
    """

    def __init__(
        self,
        subset: Subset,
        data: ClassificationDataConfig,
        image_size: int,
        *,
        augment: AugmentConfig | None = None,
        num_classes: int = 0,
        classes: np.ndarray | None = None,
    ) -> None:
        self.subset, self.data, self.image_size = subset, data, image_size
        self.augment, self.num_classes, self.classes = augment, num_classes, classes
        self.repeats = augment.repeats if augment else 1
        self.normalize = Normalization(data.mean, data.std, image_size)
        red, green, blue = (min(255, round(255 * mean)) for mean in data.mean)
        self.mean_color = (red, green, blue)

    def blank(self, group: Hashable = None) -> Example:
        """An example of zeros."""
        image = np.zeros((self.image_size, self.image_size, 3), np.float32)
        if self.augment is None:
            return {"image": image, "label": np.zeros((), np.int32)}
        return {"image": image, "target": np.zeros(self.num_classes, np.float32)}

    def example(self, row: int, rng: np.random.Generator | None) -> Example:
        """An image with its class, augmented where `rng` is given. Raises BadImage."""
        original, label = self.subset.source[int(self.subset.indices[row])]
        image = np.empty((self.image_size, self.image_size, 3), np.float32)
        self.normalize(self._pixels(original, rng), image)
        if rng is None or self.augment is None:
            return {"image": image, "label": np.asarray(self._class_of(label), np.int32)}
        erase(image, rng, self.augment.random_erasing)
        return {"image": image, "target": soft_label(label, self.num_classes, self.augment.label_smoothing)}

    def _pixels(self, original: Image.Image, rng: np.random.Generator | None) -> np.ndarray:
        if rng is None or self.augment is None:
            return centred(original, self.image_size, self.data.eval_crop)
        return augmented(original, rng, self.augment, self.image_size, self.mean_color)

    def _class_of(self, label: int) -> int:
        if self.classes is None:
            return label
        if label >= len(self.classes):
            raise S3Error(f"the data has a label {label}, but {len(self.classes)} classes")
        return int(self.classes[label])

    def mixed(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch after mixup or cutmix, in place."""
        mix = draw_mix(rng, self.augment, self.image_size) if self.augment else None
        if mix is not None:
            mix_pairs(batch["image"], batch["target"], mix)
        return batch

    def check_batch(self, batch_size: int, process_count: int) -> None:
        """Raises S3Error for a batch that repeated views leave less than two images, or that parts pairs of mixup."""
        augment = self.augment or AugmentConfig()
        if augment.repeats > 1 and 2 * augment.repeats > batch_size:
            raise S3Error(
                f"augment.repeats = {augment.repeats}: expected 1 (off), or more that leave two images to a batch of "
                f"{batch_size}"
            )
        local = batch_size // process_count
        if process_count > 1 and local % 2 and (augment.mixup or augment.cutmix):
            raise S3Error(
                f"a batch of {batch_size} leaves {local} examples to each of {process_count} processes, but mixup and "
                "cutmix pair neighbours; choose a batch size that is a multiple of twice the processes"
            )
