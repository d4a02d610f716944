"""What a segmentation network by itself says of images: class maps of single files, and its metrics on a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx
from PIL import Image

from s3_jax.config import ModelConfig
from s3_jax.data.image_files import ImageFiles
from s3_jax.data.sources import BadImage, decode, of_bad_image
from s3_jax.data.splits import Subset
from s3_jax.networks.standalone import Standalone
from s3_jax.paths import AnyPath, printable
from s3_jax.progress import Advance
from s3_jax.segmentation.class_table import IGNORED
from s3_jax.segmentation.config import HeadConfig, SegmentationConfig, SegmentationDataConfig
from s3_jax.segmentation.examples import MaskedImages
from s3_jax.segmentation.metrics import counts_of
from s3_jax.segmentation.task import Segmentation, enlarged, of_classes
from s3_jax.task import Metrics, check_finite
from s3_jax.training.evaluate import check_read, lines_of_network

# Of ADE20K's published protocol, with a flip of each.
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


class UnmaskedFiles(ImageFiles):
    """Images without masks: no pixel counts."""

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """An image, and a class map of its size. Raises BadImage."""
        return self.image(index), np.full(self.size(index), IGNORED, np.uint8)


def task_of(model: Standalone, data: SegmentationDataConfig | None = None) -> Segmentation:
    """The task that a network is of; images are normalised and sized as it needs them."""
    spec = model.spec
    sizes = {"mean": spec.mean, "std": spec.std, "test_scale": spec.test_scale, "test_multiple": spec.test_multiple}
    config = SegmentationConfig(
        model=ModelConfig(spec.image_size, spec.patch_size),
        head=HeadConfig(spec.channels, spec.auxiliary_channels),
        data=dataclasses.replace(data or SegmentationDataConfig(), **sizes),
    )
    return of_classes(config, spec.class_names)


def predict(model: Standalone, paths: Sequence[AnyPath]) -> Iterator[tuple[AnyPath, np.ndarray, np.ndarray] | str]:
    """Of every file its path, pixels, uint8 (H, W, 3), and class map, uint8 (H, W), or what is wrong with it.

    One image after another, at the size that the network is tested at. Raises S3Error where its answers are not finite.
    """
    task = task_of(model)
    examples = task.examples(Subset(UnmaskedFiles(paths), np.arange(len(paths)), "files"), training=False)
    run = _predicting(model)
    for index, path in enumerate(paths):
        try:
            pixels = np.asarray(decode(examples.subset.source[index][0]))
            example = examples.example(index, None)
        except BadImage as error:
            yield printable(f"{path}: {error}")
            continue
        height, width = pixels.shape[:2]
        found = run(*(example[name] for name in ("image", "rows", "columns")))[:height, :width]
        check_finite(np.array([np.isfinite(found).all()]))
        yield path, pixels, found.argmax(-1).astype(np.uint8)


def evaluate(
    model: Standalone, subset: Subset, data: SegmentationDataConfig, *, batch_size: int, progress: Advance
) -> tuple[Metrics, int]:
    """The metrics of a network on images with masks whose classes are its own, each seen once and whole; their number.

    Raises S3Error for an unreadable image, unless the settings say to leave such out, and for answers not finite.
    """
    task = task_of(model, data)
    lines = lines_of_network(
        task,
        model.network,
        task.examples(subset, training=False),
        batch_size=batch_size,
        skip_bad=data.on_bad_image == "skip",
        num_workers=data.num_workers,
        progress=progress,
    )
    return task.score(lines), len(lines)


def evaluate_scaled(
    model: Standalone,
    subset: Subset,
    data: SegmentationDataConfig,
    *,
    scales: Sequence[float] = SCALES,
    flip: bool = True,
    progress: Advance,
) -> tuple[Metrics, int]:
    """The same with the mean of the probabilities that the network gives at several scales, and mirrored."""
    task, run = task_of(model, data), _predicting(model)
    lines = []
    for row in range(len(subset)):
        index = int(subset.indices[row])
        try:
            total, (_, classes) = probabilities(run, task, subset, row, scales, flip), subset.source[index]
            check_finite(np.array([np.isfinite(total).all()]))
            lines.append({"image": row, "pixels": counts_of(total.argmax(-1), classes, len(task.class_names))})
        except BadImage as error:
            name = subset.source.name(index)
            if data.on_bad_image != "skip":
                raise of_bad_image(name, error) from error
            logging.warning("skipped %s: %s", name, error)
        progress(row + 1, "")
    check_read(subset, lines)
    return task.score(lines), len(lines)


def probabilities(
    run: Callable[..., np.ndarray], task: Segmentation, subset: Subset, row: int, scales: Sequence[float], flip: bool
) -> np.ndarray:
    """Mean probabilities of an image's pixels, float32 (H, W, classes). run: see `_predicting`."""
    found = []
    height, width = subset.source.size(int(subset.indices[row]))
    for scale in scales:
        long, short = (max(1, int(side * scale)) for side in task.data.test_scale)
        data = dataclasses.replace(task.data, test_scale=(long, short))
        example = MaskedImages(subset, data, 1, task.model.patch_size).example(row, None)
        image, rows, columns = (example[name] for name in ("image", "rows", "columns"))
        # Behind the original's pixels there are those of its canvas, which a flip would bring to the front.
        found.append(run(image, rows, columns)[:height, :width])
        if flip:
            found.append(run(image[:, ::-1], rows, columns)[:height, :width][:, ::-1])
    return np.mean(found, axis=0)


def _predicting(model: Standalone) -> Callable[..., np.ndarray]:
    """The compiled network: an image (H, W, 3) and matrices that enlarge, to probabilities of pixels (H', W', classes).

    They are those of the whole canvas, at whose top left the original's pixels are.
    """
    definition, state = nnx.split(model.network)

    @jax.jit
    def run(state: Any, image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
        """The probabilities at the original's size."""
        return jax.nn.softmax(enlarged(nnx.merge(definition, state)(image), rows, columns))

    return lambda *arrays: np.asarray(run(state, *(jnp.asarray(array)[None] for array in arrays))[0])
