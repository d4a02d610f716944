"""Batches from a subset: every batch is a function of its number alone, and Grain orders and prefetches them.

Examples are numbered along one endless stream, epoch after epoch: example i of step s has position s * B + i, and what
it is (Grain's index shuffle, new in every epoch) and how it is augmented derive from the seed and that position. So a
training resumes at any step, and neither the number of loader workers nor that of hosts changes a single bit. Under
repeated augmentation the views of an image stand apart in its batch, so that mixup and cutmix do not pair them.
"""

from __future__ import annotations

import atexit
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Generator

import grain
import numpy as np
from absl import flags, logging
from PIL import Image

from s3_jax.config import AugmentConfig, DataConfig
from s3_jax.data.augment import Normalization, augmented, centred, erase
from s3_jax.data.dataset import Subset
from s3_jax.data.mixing import draw_mix, mix_pairs, soft_label
from s3_jax.data.randomness import EXAMPLE, MIX, ORDER, generator
from s3_jax.data.sources import BadImage
from s3_jax.errors import S3Error

Batch = dict[str, np.ndarray]

# Without worker processes: batches that are made at the same time, and made ahead.
_THREADS = 2
_AHEAD = 2
# Generators whose workers are to be ended before the interpreter goes down, if the caller did not close them.
_OPEN: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()


def train_batches(
    subset: Subset,
    *,
    data: DataConfig,
    augment: AugmentConfig,
    image_size: int,
    num_classes: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch, None, None]:
    """Endless training batches from `start_step` on; closing the generator ends its loader workers.

    batch_size: examples of a step over all processes; this process yields its contiguous slice of b = batch_size /
    process_count. "image": float32 (b, S, S, 3), normalised. "target": float32 (b, num_classes), rows sum to 1; all
    zeros for a bad image that was skipped. Examples 2i and 2i + 1 are each other's partner in mixup and cutmix; the
    last one of an odd batch is not mixed. Raises S3Error for sizes that do not fit and, under on_bad_image="error",
    for an image that cannot be decoded.
    """
    rows = _local_rows(batch_size, process_index, process_count)
    check_batch(augment, batch_size, process_count)
    shuffle_seed = int(generator(seed, ORDER).integers(2**32))
    batches = _TrainBatches(
        reader=_Reader(subset, data, image_size),
        order=grain.MapDataset.range(len(subset)).shuffle(seed=shuffle_seed).repeat(),
        augment=augment,
        num_classes=num_classes,
        batch_size=batch_size,
        rows=rows,
        seed=seed,
    )
    return _prefetched(batches, range(start_step, sys.maxsize), data.num_workers)


def eval_batches(
    subset: Subset,
    *,
    data: DataConfig,
    image_size: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch, None, None]:
    """Every image of the subset once, in order, in ceil(N / batch_size) batches of one shape.

    batch_size: examples over all processes; this process yields its contiguous slice of b = batch_size / process_count.
    "image": float32 (b, S, S, 3), normalised; "label": int32 (b,); "weight": float32 (b,): 1, or 0 for the last
    batch's padding and for bad images that were skipped. Raises S3Error as `train_batches` does.
    """
    rows = _local_rows(batch_size, process_index, process_count)
    batches = _EvalBatches(_Reader(subset, data, image_size), batch_size, rows)
    return _prefetched(batches, range(-(-len(subset) // batch_size)), data.num_workers)


class _Reader:
    """Images of a subset by row, and their normalisation; knows what to do about bad ones."""

    def __init__(self, subset: Subset, data: DataConfig, image_size: int):
        self.subset, self.data, self.image_size = subset, data, image_size
        self.normalize = Normalization(data.mean, data.std, image_size)
        red, green, blue = (min(255, round(255 * mean)) for mean in data.mean)
        self.mean_color = (red, green, blue)

    def read(self, row: int, view: Callable[[Image.Image], np.ndarray], out: np.ndarray) -> int | None:
        """Writes the normalised view of an image to `out` and returns its label, or None for a bad image skipped."""
        index = int(self.subset.indices[row])
        try:
            image, label = self.subset.source[index]
            pixels = view(image)
        except BadImage as error:
            name = self.subset.source.name(index)
            if self.data.on_bad_image == "skip":
                logging.warning("skipped %s: %s", name, error)
                return None
            raise S3Error(
                f"{name}: {error}; replace it, or leave out such images with data.on_bad_image='skip'"
            ) from error
        self.normalize(pixels, out)
        return label

    def empty_images(self, count: int) -> np.ndarray:
        """Zeros, float32 (count, S, S, 3)."""
        return np.zeros((count, self.image_size, self.image_size, 3), np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class _TrainBatches:
    """Training batches by step."""

    reader: _Reader
    order: grain.MapDataset  # row of the subset at every position of the stream
    augment: AugmentConfig
    num_classes: int
    batch_size: int
    rows: range  # of the batch, this process's
    seed: int

    def __call__(self, step: int) -> Batch:
        images = self.reader.empty_images(len(self.rows))
        targets = np.zeros((len(self.rows), self.num_classes), np.float32)
        for image, target, row in zip(images, targets, self.rows, strict=True):
            self._fill_example(step * self.batch_size + row, image, target)
        mix = draw_mix(generator(self.seed, MIX, step), self.augment, self.reader.image_size)
        if mix is not None:
            mix_pairs(images, targets, mix)
        return {"image": images, "target": targets}

    def _row(self, position: int) -> int:
        """The subset's row at a position of the stream.

        An epoch of N examples takes the first N / R images of its order R times, cut off at N as DeiT's sampler does.
        They come in groups that are seen as a whole R times, so that the views of an image are a group apart.
        """
        length, repeats = len(self.reader.subset), self.augment.repeats
        group = max(1, min(self.batch_size, length) // repeats)
        epoch, place = divmod(position, length)
        number, within = divmod(place, group * repeats)
        return self.order[epoch * length + number * group + within % group]

    def _fill_example(self, position: int, image: np.ndarray, target: np.ndarray) -> None:
        rng = generator(self.seed, EXAMPLE, position)

        def view(original: Image.Image) -> np.ndarray:
            """The augmented image."""
            return augmented(original, rng, self.augment, self.reader.image_size, self.reader.mean_color)

        label = self.reader.read(self._row(position), view, image)
        if label is not None:
            erase(image, rng, self.augment.random_erasing)
            target[:] = soft_label(label, self.num_classes, self.augment.label_smoothing)


@dataclasses.dataclass(frozen=True, eq=False)
class _EvalBatches:
    """Evaluation batches by number."""

    reader: _Reader
    batch_size: int
    rows: range

    def __call__(self, number: int) -> Batch:
        images = self.reader.empty_images(len(self.rows))
        labels, weights = np.zeros(len(self.rows), np.int32), np.zeros(len(self.rows), np.float32)
        for place, row in enumerate(self.rows):
            position = number * self.batch_size + row
            if position >= len(self.reader.subset):
                break
            label = self.reader.read(position, self._view, images[place])
            if label is not None:
                labels[place], weights[place] = label, 1
        return {"image": images, "label": labels, "weight": weights}

    def _view(self, image: Image.Image) -> np.ndarray:
        return centred(image, self.reader.image_size, self.reader.data.eval_crop)


def _local_rows(batch_size: int, process_index: int, process_count: int) -> range:
    if batch_size < 1 or batch_size % process_count:
        raise S3Error(
            f"a batch of {batch_size} examples cannot be shared by {process_count} processes; "
            f"choose a positive multiple of {process_count}"
        )
    local = batch_size // process_count
    return range(process_index * local, (process_index + 1) * local)


def check_batch(augment: AugmentConfig, batch_size: int, process_count: int = 1) -> None:
    """Raises S3Error for a batch that repeated views leave less than two images, or that parts pairs of mixup."""
    repeats = augment.repeats
    if repeats > 1 and 2 * repeats > batch_size:
        raise S3Error(
            f"augment.repeats = {repeats}: expected 1 (off), or more that leave two images to a batch of {batch_size}"
        )
    local = batch_size // process_count
    if process_count > 1 and local % 2 and (augment.mixup or augment.cutmix):
        raise S3Error(
            f"a batch of {batch_size} leaves {local} examples to each of {process_count} processes, but mixup and "
            "cutmix pair neighbours; choose a batch size that is a multiple of twice the processes"
        )


def _prefetched(make_batch: Callable[[int], Batch], numbers: range, num_workers: int) -> Generator[Batch, None, None]:
    """The batches of these numbers, in order, made ahead by threads, or by `num_workers` processes."""
    dataset = grain.MapDataset.range(numbers.start, numbers.stop).map(make_batch)
    if num_workers:
        in_worker = dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=1)
        batches = _iterate(in_worker.mp_prefetch(options, _start_worker))
    else:
        options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
        batches = _iterate(dataset.to_iter_dataset(options))
    _OPEN.add(batches)
    return batches


def _iterate(dataset: grain.IterDataset) -> Generator[Batch, None, None]:
    if not flags.FLAGS.is_parsed():  # Grain reads its flags when it starts workers, also in a notebook or a test
        flags.FLAGS.mark_as_parsed()
    iterator = iter(dataset)
    try:
        for batch in iterator:
            # Out of the memory shared with a worker, which is unmapped behind the back of whoever still looks at it.
            yield {name: np.array(value) if type(value) is not np.ndarray else value for name, value in batch.items()}
    finally:
        iterator.close()


@atexit.register
def _close_all() -> None:
    for batches in list(_OPEN):
        batches.close()


def _start_worker(index: int, count: int) -> None:
    """In a new worker: signals to the process group are the main process's to handle, and no worker outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # returns also after kill -9, of which Grain's workers would not notice
    os._exit(1)
