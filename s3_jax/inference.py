"""What a stand-alone network says of images: classes of single files, and its accuracy on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from s3_jax.config import DataConfig
from s3_jax.data.augment import Normalization, centred
from s3_jax.data.dataset import Subset
from s3_jax.data.image_folder import SUFFIXES
from s3_jax.data.input import eval_batches
from s3_jax.data.sources import BadImage, open_encoded
from s3_jax.errors import S3Error
from s3_jax.progress import Advance
from s3_jax.standalone import Spec, Standalone


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


def list_images(paths: Sequence[str]) -> list[Path]:
    """The files among paths, and the images in folders. Raises S3Error where there is none, or a path is nothing."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)
        elif path.exists():
            found.append(path)
        else:
            raise S3Error(f"there is no file or folder {path}")
    if not found:
        raise S3Error(f"no image in {', '.join(paths)}; known are {', '.join(SUFFIXES)}")
    return found


def read_image(path: Path, spec: Spec) -> np.ndarray:
    """An image as a network takes it: float32 (S, S, 3), cropped and normalised. Raises S3Error where it is none."""
    try:
        pixels = centred(open_encoded(path.read_bytes()), spec.image_size, spec.eval_crop)
    except (BadImage, OSError) as error:
        raise S3Error(f"{path}: {error}") from error
    out = np.empty((spec.image_size, spec.image_size, 3), np.float32)
    Normalization(spec.mean, spec.std, spec.image_size)(pixels, out)
    return out


def predict(model: Standalone, paths: Sequence[Path], *, top: int = 5, batch_size: int = 16) -> list[Prediction]:
    """The `top` likeliest classes of every image. Raises S3Error for a file that is no image."""
    run, names = logits_of(model), model.spec.class_names
    predictions = []
    for batch in _chunks(paths, batch_size):
        images = np.stack([read_image(path, model.spec) for path in batch])
        padded = np.pad(images, ((0, min(batch_size, len(paths)) - len(batch)), (0, 0), (0, 0), (0, 0)))
        chances = np.asarray(jax.nn.softmax(run(padded)))[: len(batch)]
        for path, row in zip(batch, chances, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            predictions.append(Prediction(str(path), [(names[index], float(row[index])) for index in best]))
    return predictions


def accuracy(
    model: Standalone, subset: Subset, data: DataConfig, *, batch_size: int, progress: Advance | None = None
) -> Accuracy:
    """Top-1 and top-5 accuracy on a subset of a data set. progress: as `progress.progress_bar` yields it.

    Raises S3Error where a label is no class of the network, or no image can be read.
    """
    run, count = logits_of(model), len(model.spec.class_names)
    right, images = np.zeros(2), 0
    for batch in eval_batches(subset, data=data, image_size=model.spec.image_size, batch_size=batch_size):
        kept = batch["weight"] > 0
        if kept.any() and batch["label"][kept].max() >= count:
            raise S3Error(f"the data has a class {batch['label'][kept].max()}, the network has {count} classes")
        ranks = np.argsort(-np.asarray(run(batch["image"])), axis=-1, kind="stable")
        hits = ranks[kept] == batch["label"][kept][:, None]
        right += hits[:, :1].sum(), hits[:, :5].sum()
        images += int(kept.sum())
        if progress:
            progress(images, "")
    if not images:
        raise S3Error("there is no readable image to evaluate on")
    top1, top5 = (100.0 * right / images).tolist()
    return Accuracy(top1, top5, images)


def _chunks(items: Sequence[Path], size: int) -> Iterable[Sequence[Path]]:
    return (items[start : start + size] for start in range(0, len(items), size))
