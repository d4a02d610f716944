"""What a detector by itself says of images: objects in single files, and its metrics on a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from s3_jax.config import ModelConfig
from s3_jax.data.image_files import ImageFiles
from s3_jax.data.sources import BadImage, decode
from s3_jax.data.splits import Subset
from s3_jax.detection.config import DetectionConfig, DetectionDataConfig
from s3_jax.detection.objects import Categories, Line, Objects
from s3_jax.detection.task import FOUND, Detection, of_categories, results_in_original
from s3_jax.networks.standalone import Standalone
from s3_jax.paths import AnyPath, printable
from s3_jax.progress import Advance
from s3_jax.task import check_finite
from s3_jax.training.evaluate import lines_of_network


class FilesWithoutObjects(ImageFiles):
    """Images of whose objects nothing is known."""

    def __getitem__(self, index: int) -> tuple[Image.Image, Objects]:
        """An image, and no objects. Raises BadImage."""
        return self.image(index), Objects(np.zeros((0, 4)), np.zeros(0, np.int32), [])


class Found(NamedTuple):
    """What is found in an image, best first, N objects."""

    path: AnyPath
    pixels: np.ndarray  # uint8 (H, W, 3)
    boxes: np.ndarray  # (N, 4): left, top, right, bottom in pixels
    scores: np.ndarray  # (N,)
    labels: np.ndarray  # (N,)
    masks: Sequence[np.ndarray]  # N, bool (H, W)


def task_of(model: Standalone, data: DetectionDataConfig | None = None) -> Detection:
    """The task that a network is of; images are normalised and sized as it needs them."""
    spec = model.spec
    sizes = {"mean": spec.mean, "std": spec.std, "test_scale": spec.test_scale, "canvases": spec.canvases}
    config = DetectionConfig(
        model=ModelConfig(spec.image_size, spec.patch_size),
        head=spec.head,
        data=dataclasses.replace(data or DetectionDataConfig(), **sizes),
    )
    return of_categories(config, Categories(spec.category_ids, spec.class_names))


def predict(model: Standalone, paths: Sequence[AnyPath]) -> Iterator[Found | str]:
    """Of every file what is found in it, or what is wrong with it, one after another.

    Raises S3Error where the network's answers are not finite.
    """
    task, run = task_of(model), _detecting(model)
    examples = task.examples(Subset(FilesWithoutObjects(paths), np.arange(len(paths)), "files"), training=False)
    for index, path in enumerate(paths):
        try:
            pixels = np.asarray(decode(examples.subset.source[index][0]))
            example = examples.example(index, None)
        except BadImage as error:
            yield printable(f"{path}: {error}")
            continue
        found = run(example["image"], example["size"])
        check_finite(found["finite"][None])
        size = pixels.shape[0], pixels.shape[1]
        yield Found(path, pixels, *results_in_original(size, task.data, *(found[name] for name in FOUND)))


def lines_of_split(
    model: Standalone, subset: Subset, data: DetectionDataConfig, *, batch_size: int, progress: Advance
) -> list[Line]:
    """What a network finds in images whose classes are its own, beside what is there; see `results`."""
    task = task_of(model, data)
    return lines_of_network(
        task,
        model.network,
        task.examples(subset, training=False),
        batch_size=batch_size,
        skip_bad=data.on_bad_image == "skip",
        num_workers=data.num_workers,
        progress=progress,
    )


def _detecting(model: Standalone) -> Callable[..., dict[str, np.ndarray]]:
    """The compiled network: an image on its canvas and its size there to what is found, without a batch's axis."""
    definition, state = nnx.split(model.network)

    @jax.jit
    def run(state: Any, image: jax.Array, size: jax.Array) -> dict[str, jax.Array]:
        """Of one image."""
        return nnx.merge(definition, state).detect(image[None], size[None])._asdict()

    return lambda image, size: {
        name: np.asarray(values[0]) for name, values in run(state, jnp.asarray(image), jnp.asarray(size)).items()
    }
