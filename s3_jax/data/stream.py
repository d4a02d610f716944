"""Batches of examples, for every task: each batch is a function of its number alone; Grain orders and prefetches them.

Examples are numbered along one endless stream, epoch after epoch: example i of step s has position s * B + i, and what
it is (Grain's index shuffle, new in every epoch) and how it is augmented derive from the seed and that position. So a
training resumes at any step, and neither the number of loader workers nor that of hosts changes a single bit. Where an
epoch repeats its examples, the views of one stand apart in their batch, so that a mix of neighbours does not pair them.
Where examples are of several shapes, each batch is of one: the groups of a shape are streams that take turns.
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
from abc import abstractmethod
from collections.abc import Callable, Generator, Hashable, Sequence
from typing import NamedTuple, Protocol

import grain
import numpy as np
from absl import flags, logging

from s3_jax.data.randomness import EXAMPLE, MIX, ORDER, generator
from s3_jax.data.sources import BadImage, of_bad_image
from s3_jax.data.splits import Subset
from s3_jax.errors import S3Error

Example = dict[str, np.ndarray]
Batch = dict[str, np.ndarray]

# Without worker processes: batches that are made at the same time, and made ahead.
_THREADS = 2
_AHEAD = 2
# Generators whose workers are to be ended before the interpreter goes down, if the caller did not close them.
_OPEN: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()


class Examples(Protocol):
    """What a task makes of the images of a subset, for training or for evaluation; loader processes get a copy.

    Classes that name this as their base need to write only what is abstract here; without it they cannot be made.
    """

    subset: Subset
    repeats: int = 1  # how often an epoch of training shows each example that it shows

    def group(self, row: int) -> Hashable:
        """What the examples of one batch have in common, such as the size of a canvas. Raises BadImage.

        It is a function of the row alone, so that an order of training is known before anything is drawn.
        """
        return None

    @abstractmethod
    def blank(self, group: Hashable = None) -> Example:
        """Arrays of the shapes and types of an example of a group, zeros, for examples that do not count."""

    @abstractmethod
    def example(self, row: int, rng: np.random.Generator | None) -> Example:
        """An example as arrays; augmented by draws of `rng`, or as evaluation sees it where that is None.

        It counts once, or as "weight" among the arrays says: 0 for one of which nothing can be learnt. Raises BadImage.
        """

    def mixed(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """A batch of training after whatever its examples do to each other."""
        return batch

    def check_batch(self, batch_size: int, process_count: int) -> None:
        """Raises S3Error for a batch of training that cannot be made."""
        return


def train_batches(
    examples: Examples,
    *,
    batch_size: int,
    seed: int,
    num_workers: int = 0,
    skip_bad: bool = False,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch, None, None]:
    """Endless training batches from `start_step` on; closing the generator ends its loader workers.

    batch_size: examples of a step over all processes; this process yields its contiguous slice of b = batch_size /
    process_count. Arrays are those of an example with a leading axis (b, ...), and "weight", float32 (b,): 1, or 0 for
    a bad image that was skipped. Raises S3Error for sizes that do not fit and, without `skip_bad`, for an image that
    cannot be decoded.
    """
    rows = _local_rows(batch_size, process_index, process_count)
    shuffle_seed = int(generator(seed, ORDER).integers(2**32))
    parts = [_Part(group, np.array(members), shuffle_seed) for group, members in _by_group(examples).items()]
    batches = _TrainBatches(_Reader(examples, skip_bad), parts, batch_size, rows, seed)
    return _prefetched(batches, range(start_step, sys.maxsize), num_workers)


def eval_batches(
    examples: Examples,
    *,
    batch_size: int,
    num_workers: int = 0,
    skip_bad: bool = False,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch, None, None]:
    """Every example once, in the batches of `eval_plan`.

    Arrays as for `train_batches`; "weight" is 0 for the padding of batches that are not full. Raises S3Error as it
    does.
    """
    local = _local_rows(batch_size, process_index, process_count)
    plan = eval_plan(examples, batch_size)
    return _prefetched(_EvalBatches(_Reader(examples, skip_bad), plan, local), range(len(plan)), num_workers)


class PlannedBatch(NamedTuple):
    """What is in a batch of evaluation: examples of one group."""

    group: Hashable
    rows: Sequence[int]  # of the subset; fewer than the batch has places, where it is not full


def eval_plan(examples: Examples, batch_size: int) -> list[PlannedBatch]:
    """Every example once: groups in the order in which they first occur, the examples of each in order."""
    return [
        PlannedBatch(group, rows[start : start + batch_size])
        for group, rows in _by_group(examples).items()
        for start in range(0, len(rows), batch_size)
    ]


def _by_group(examples: Examples) -> dict[Hashable, list[int]]:
    """The rows of each group in order; groups in the order in which they first occur."""
    by_group: dict[Hashable, list[int]] = {}
    unread = []
    for row in range(len(examples.subset)):
        try:
            by_group.setdefault(examples.group(row), []).append(row)
        except BadImage:  # which the reader comes to, and tells or skips
            unread.append(row)
    if unread:
        by_group.setdefault(next(iter(by_group), None), []).extend(unread)
    return by_group


@dataclasses.dataclass(frozen=True, eq=False)
class _Reader:
    """Puts examples into batches; knows what to do about bad ones."""

    examples: Examples
    skip_bad: bool

    def empty(self, count: int, group: Hashable = None) -> Batch:
        """A batch of so many examples of a group that do not count."""
        blank = self.examples.blank(group)
        zeros = {name: np.zeros((count, *array.shape), array.dtype) for name, array in blank.items()}
        return zeros | {"weight": np.zeros(count, np.float32)}

    def read(self, row: int, rng: np.random.Generator | None, batch: Batch, place: int) -> None:
        """Write an example to its place in the batch; a bad one that may be skipped leaves it as it is."""
        try:
            example = self.examples.example(row, rng)
        except BadImage as error:
            subset = self.examples.subset
            name = subset.source.name(int(subset.indices[row]))
            if self.skip_bad:
                logging.warning("skipped %s: %s", name, error)
                return
            raise of_bad_image(name, error) from error
        for key, array in ({"weight": np.ones((), np.float32)} | example).items():
            batch[key][place] = array


class _Part:
    """The examples of one group in training: an endless stream of their own."""

    def __init__(self, group: Hashable, members: np.ndarray, shuffle_seed: int) -> None:
        self.group, self.members = group, members  # members: rows of the subset
        self._order = grain.MapDataset.range(len(members)).shuffle(seed=shuffle_seed).repeat()

    def row(self, position: int, batch_size: int, repeats: int) -> int:
        """The subset's row at a position of the stream.

        An epoch of N examples takes the first N / R images of its order R times, cut off at N as DeiT's sampler does.
        They come in bunches that are seen as a whole R times, so that the views of an image are a bunch apart.
        """
        length = len(self.members)
        bunch = max(1, min(batch_size, length) // repeats)
        epoch, place = divmod(position, length)
        number, within = divmod(place, bunch * repeats)
        return int(self.members[self._order[epoch * length + number * bunch + within % bunch]])


@dataclasses.dataclass(frozen=True, eq=False)
class _TrainBatches:
    """Training batches by step."""

    reader: _Reader
    parts: Sequence[_Part]
    batch_size: int
    rows: range  # of the batch, this process's
    seed: int

    def __call__(self, step: int) -> Batch:
        part, number = self._turn(step)
        batch, repeats = self.reader.empty(len(self.rows), part.group), self.reader.examples.repeats
        for place, row in enumerate(self.rows):
            own = part.row(number * self.batch_size + row, self.batch_size, repeats)
            position = step * self.batch_size + row
            self.reader.read(own, generator(self.seed, EXAMPLE, position), batch, place)
        return self.reader.examples.mixed(batch, generator(self.seed, MIX, step))

    def _turn(self, step: int) -> tuple[_Part, int]:
        """Whose turn a step is, and how many batches of that group there were before.

        Groups take turns in proportion to their examples, evenly spread: among s batches one of a share p has had s p,
        rounded down.
        """
        number, others = step, sum(len(part.members) for part in self.parts)
        for part in self.parts[:-1]:
            share = len(part.members)
            before = number * share // others
            if (number + 1) * share // others > before:
                return part, before
            number, others = number - before, others - share
        return self.parts[-1], number


@dataclasses.dataclass(frozen=True, eq=False)
class _EvalBatches:
    """Evaluation batches by number."""

    reader: _Reader
    plan: Sequence[PlannedBatch]
    places: range  # of the batch, this process's

    def __call__(self, number: int) -> Batch:
        group, rows = self.plan[number]
        batch = self.reader.empty(len(self.places), group)
        for place, row in enumerate(rows[self.places.start : self.places.stop]):
            self.reader.read(row, None, batch, place)
        return batch


def _local_rows(batch_size: int, process_index: int, process_count: int) -> range:
    if batch_size < 1 or batch_size % process_count:
        raise S3Error(
            f"a batch of {batch_size} examples cannot be shared by {process_count} processes; "
            f"choose a positive multiple of {process_count}"
        )
    local = batch_size // process_count
    return range(process_index * local, (process_index + 1) * local)


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
