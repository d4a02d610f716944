"""What a stand-alone network says of images: classes of single files, and its accuracy on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from s3_jax.classification.batches import LabelledImages
from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.classification.task import of_classes
from s3_jax.config import ModelConfig
from s3_jax.data.augment import Normalization, centred
from s3_jax.data.sources import BadImage, open_encoded
from s3_jax.data.splits import Subset
from s3_jax.errors import S3Error
from s3_jax.networks.classes import match
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.standalone import Standalone
from s3_jax.paths import AnyPath
from s3_jax.progress import Advance
from s3_jax.task import check_finite
from s3_jax.training.evaluate import lines_of_network


class Prediction(NamedTuple):
    """The likeliest classes of an image, with their probabilities."""

    path: str
    classes: list[tuple[str, float]]


class Accuracy(NamedTuple):
    """Shares in percent of the images whose class is the likeliest, or among the five likeliest."""

    top1: float
    top5: float
    images: int


def logits_of(model: Standalone) -> Callable[[np.ndarray], jax.Array]:
    """The compiled network: images (B, S, S, 3), normalised, to logits (B, classes)."""
    definition, state = nnx.split(model.network)
    run = jax.jit(lambda state, x: nnx.merge(definition, state)(x))
    return lambda images: run(state, images)


def read_image(path: AnyPath, spec: ClassifierSpec) -> np.ndarray:
    """An image as a network takes it: float32 (S, S, 3), cropped and normalised. Raises S3Error where it is none."""
    try:
        pixels = centred(open_encoded(path.read_bytes()), spec.image_size, spec.eval_crop)
    except OSError as error:
        raise S3Error(f"{path} cannot be read: {error.strerror or error}") from error
    except BadImage as error:
        raise S3Error(f"{path}: {error}") from error
    out = np.empty((spec.image_size, spec.image_size, 3), np.float32)
    Normalization(spec.mean, spec.std, spec.image_size)(pixels, out)
    return out


def predict(
    model: Standalone, paths: Sequence[AnyPath], *, top: int = 5, batch_size: int = 16
) -> tuple[list[Prediction], list[str]]:
    """The `top` likeliest classes of every image, and of each file that is no image what is wrong with it.

    Raises S3Error where the network answers with numbers that are not finite.
    """
    run, names = logits_of(model), model.spec.class_names
    predictions, problems = [], []
    for batch in _chunks(paths, batch_size):
        images, bad = _read_images(batch, model.spec)
        problems += bad
        if not images:
            continue
        stacked = np.stack([pixels for _, pixels in images])
        padded = np.pad(stacked, ((0, min(batch_size, len(paths)) - len(images)), (0, 0), (0, 0), (0, 0)))
        logits = np.asarray(run(padded))[: len(images)]
        check_finite(np.isfinite(logits).all(axis=-1))
        for (path, _), row in zip(images, np.asarray(jax.nn.softmax(logits)), strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            predictions.append(Prediction(str(path), [(names[index], float(row[index])) for index in best]))
    return predictions, problems


def accuracy(
    model: Standalone,
    subset: Subset,
    data: ClassificationDataConfig,
    *,
    class_names: Sequence[str],
    batch_size: int,
    progress: Advance | None = None,
) -> Accuracy:
    """Top-1 and top-5 accuracy on a subset of a data set. progress: as `progress.progress_bar` yields it.

    class_names: of the data's labels, found among the network's as `classes.match` has it. The likeliest classes are
    those of all that the network has. Raises S3Error where a class is none of the network's, no image can be read, or
    the network answers with numbers that are not finite.
    """
    spec = model.spec
    task = of_classes(ModelConfig(spec.image_size, spec.patch_size), spec.class_names, data)
    lines = lines_of_network(
        task,
        model.network,
        LabelledImages(subset, data, spec.image_size, classes=match(spec.class_names, class_names)),
        batch_size=batch_size,
        skip_bad=data.on_bad_image == "skip",
        num_workers=data.num_workers,
        progress=progress or (lambda count, what: None),
    )
    metrics = task.score(lines)
    return Accuracy(metrics["top1"], metrics["top5"], len(lines))


def _read_images(paths: Sequence[AnyPath], spec: ClassifierSpec) -> tuple[list[tuple[AnyPath, np.ndarray]], list[str]]:
    """The images that can be read, with their paths, and what is wrong with the others."""
    images, problems = [], []
    for path in paths:
        try:
            images.append((path, read_image(path, spec)))
        except S3Error as error:
            problems.append(str(error))
    return images, problems


def _chunks(items: Sequence[AnyPath], size: int) -> Iterable[Sequence[AnyPath]]:
    return (items[start : start + size] for start in range(0, len(items), size))
