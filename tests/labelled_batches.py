"""Batches of labelled images as classification makes them of its settings, for tests of the input pipeline."""

from collections.abc import Generator

from s3_jax.classification.batches import LabelledImages
from s3_jax.classification.config import AugmentConfig, ClassificationDataConfig
from s3_jax.data import stream
from s3_jax.data.splits import Subset
from s3_jax.data.stream import Batch


def train_batches(
    subset: Subset,
    *,
    data: ClassificationDataConfig,
    augment: AugmentConfig,
    image_size: int,
    num_classes: int,
    batch_size: int,
    process_count: int = 1,
    **settings: int,
) -> Generator[Batch, None, None]:
    examples = LabelledImages(subset, data, image_size, augment=augment, num_classes=num_classes)
    examples.check_batch(batch_size, process_count)
    loading = {"num_workers": data.num_workers, "skip_bad": data.on_bad_image == "skip"}
    return stream.train_batches(examples, batch_size=batch_size, process_count=process_count, **loading, **settings)


def eval_batches(
    subset: Subset, *, data: ClassificationDataConfig, image_size: int, **settings: int
) -> Generator[Batch, None, None]:
    loading = {"num_workers": data.num_workers, "skip_bad": data.on_bad_image == "skip"}
    return stream.eval_batches(LabelledImages(subset, data, image_size), **loading, **settings)
