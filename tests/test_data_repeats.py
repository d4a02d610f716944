"""Repeated augmentation: which images an epoch takes, how often, and where their views stand."""

import contextlib
import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from labelled_batches import train_batches

from s3_jax.classification.config import AugmentConfig, ClassificationDataConfig
from s3_jax.data.sources import MemoryImages
from s3_jax.data.splits import Subset
from s3_jax.data.stream import Batch
from s3_jax.errors import S3Error

SIDE, CLASSES = 4, 7
PLAIN = ClassificationDataConfig(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
OFF = AugmentConfig(
    random_resized_crop=False,
    horizontal_flip=0.0,
    rand_augment_layers=0,
    random_erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
    label_smoothing=0.0,
)


def numbered(count: int) -> Subset:
    """Images of constant level k, number k."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, SIDE, SIDE, 3)).copy()
    return Subset(MemoryImages(images, np.arange(count) % CLASSES, "numbered"), np.arange(count), "train")


def take(steps: int, count: int, augment: AugmentConfig, batch_size: int, **settings: int) -> list[Batch]:
    options = {"image_size": SIDE, "num_classes": CLASSES, "batch_size": batch_size, "seed": 0}
    batches = train_batches(numbered(count), data=PLAIN, augment=augment, **(options | settings))
    with contextlib.closing(batches):
        return list(itertools.islice(batches, steps))


def numbers(batches: list[Batch]) -> np.ndarray:
    """The images' numbers (steps, B)."""
    return np.stack([batch["image"][:, 0, 0, 0] for batch in batches]).round().astype(int)


def repeated(repeats: int, **settings: float) -> AugmentConfig:
    return dataclasses.replace(OFF, repeats=repeats, **settings)


def test_the_default_sees_every_image_once_an_epoch() -> None:
    assert AugmentConfig().repeats == 1
    assert sorted(numbers(take(5, 60, repeated(1), 12)).ravel()) == list(range(60))


@pytest.mark.parametrize("repeats", [2, 3])
def test_an_epoch_takes_a_part_of_the_images_each_as_often(repeats: int) -> None:
    epochs = numbers(take(15, 60, repeated(repeats), 12)).reshape(3, 60)
    seen = [Counter(epoch.tolist()) for epoch in epochs]
    for counts in seen:
        assert len(counts) == 60 // repeats
        assert set(counts.values()) == {repeats}
    assert len({frozenset(counts) for counts in seen}) == 3  # others in every epoch


def test_views_of_an_image_are_in_one_batch_and_no_neighbours() -> None:
    for batch in numbers(take(10, 60, repeated(3), 12)):
        assert set(Counter(batch.tolist()).values()) == {3}
        assert all(batch[first] != batch[first + 1] for first in range(0, 12, 2))


@pytest.mark.parametrize(("count", "batch_size"), [(61, 12), (10, 64), (50, 7), (7, 6)])
def test_odd_sizes_end_an_epoch_as_the_sampler_of_deit_does(count: int, batch_size: int) -> None:
    stream = numbers(take(-(-4 * count // batch_size), count, repeated(3), batch_size)).ravel()
    for epoch in stream[: 4 * count].reshape(4, count):
        counts = Counter(epoch.tolist())
        assert max(counts.values()) <= 3
        assert -(-count // 3) <= len(counts) <= count // 3 + max(1, min(batch_size, count) // 3) + 1


def test_views_differ() -> None:
    (batch,) = take(1, 60, repeated(3, random_erasing=1.0), 12)
    views = {tuple(image.ravel().tolist()) for image in batch["image"]}
    assert len(views) == 12


@pytest.mark.parametrize("process_count", [2, 3])
def test_hosts_share_the_one_stream(process_count: int) -> None:
    settings = {"mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.5}
    whole = take(6, 61, repeated(3, **settings), 12, start_step=4)
    parts = [
        take(6, 61, repeated(3, **settings), 12, start_step=4, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    for step, batch in enumerate(whole):
        for name, value in batch.items():
            assert np.array_equal(value, np.concatenate([part[step][name] for part in parts]))
    later = take(10, 61, repeated(3, **settings), 12)[4:]
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(whole, later, strict=True))


@pytest.mark.parametrize(
    ("repeats", "expected"), [(0, "a whole number from 1 on"), (-1, "a whole number from 1 on"), (5, r"1 \(off\)")]
)
def test_repeats_that_leave_a_batch_no_two_images_are_refused(repeats: int, expected: str) -> None:
    with pytest.raises(S3Error, match=rf"augment\.repeats = {repeats}: expected {expected}"):
        take(1, 60, repeated(repeats), 8)
