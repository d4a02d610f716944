"""The input pipeline's laws: a batch is a function of (seed, step), whoever makes it and wherever one starts."""

import contextlib
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from labelled_batches import eval_batches, train_batches
from PIL import Image

from s3_jax.classification.config import AugmentConfig, ClassificationDataConfig
from s3_jax.classification.dataset import open_split
from s3_jax.data.sources import MemoryImages
from s3_jax.data.splits import Subset
from s3_jax.data.stream import Batch
from s3_jax.errors import S3Error

NUM_IMAGES, SIDE, CLASSES = 50, 8, 4
# Pixels come out as they are, so that an image of constant level k can be recognised as number k.
PLAIN = ClassificationDataConfig(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255), eval_crop=1.0)
OFF = AugmentConfig(
    random_resized_crop=False,
    horizontal_flip=0.0,
    rand_augment_layers=0,
    random_erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
    label_smoothing=0.0,
)
EVERYTHING = AugmentConfig(pad_crop=1, color_jitter=0.3, random_erasing=0.5)


def numbered(count: int = NUM_IMAGES) -> Subset:
    levels = np.arange(count, dtype=np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (count, SIDE, SIDE, 3)).copy()
    return Subset(MemoryImages(images, levels % CLASSES, "numbered"), np.arange(count), "train")


def noise(count: int = NUM_IMAGES) -> Subset:
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(count, SIDE, SIDE, 3), dtype=np.uint8)
    return Subset(MemoryImages(images, rng.integers(CLASSES, size=count), "noise"), np.arange(count), "train")


def take(steps: int, subset: Subset, data: ClassificationDataConfig = PLAIN, **settings: object) -> list[Batch]:
    options = {"augment": EVERYTHING, "batch_size": 8, "seed": 0, "image_size": SIDE, "num_classes": CLASSES}
    with contextlib.closing(train_batches(subset, data=data, **(options | settings))) as batches:
        return list(itertools.islice(batches, steps))


def evaluate(subset: Subset, data: ClassificationDataConfig = PLAIN, **settings: object) -> list[Batch]:
    options = {"batch_size": 8, "image_size": SIDE}
    with contextlib.closing(eval_batches(subset, data=data, **(options | settings))) as batches:
        return list(batches)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in zip(first, second, strict=True)
    )


def test_every_epoch_visits_each_image_once_in_a_new_order() -> None:
    batches = take(3 * NUM_IMAGES // 10, numbered(), augment=OFF, batch_size=10)
    order = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches]).round().astype(int)
    labels = np.concatenate([batch["target"].argmax(axis=1) for batch in batches])
    epochs = order.reshape(3, NUM_IMAGES)
    assert all(sorted(epoch) == list(range(NUM_IMAGES)) for epoch in epochs)
    assert (labels == order % CLASSES).all()
    for first, second in [*itertools.combinations(epochs, 2), (epochs[0], np.arange(NUM_IMAGES))]:
        assert (first == second).sum() < 10


def test_a_subset_gives_its_own_images_only() -> None:
    subset = dataclasses.replace(numbered(), indices=np.array([3, 11, 30]))
    batches = take(3, subset, augment=OFF, batch_size=4)
    order = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches]).round().astype(int)
    assert [sorted(order[start : start + 3]) for start in range(0, 12, 3)] == [[3, 11, 30]] * 4


def test_batches_have_the_agreed_form() -> None:
    (batch,) = take(1, noise())
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "image": ((8, SIDE, SIDE, 3), "float32"),
        "target": ((8, CLASSES), "float32"),
        "weight": ((8,), "float32"),
    }
    np.testing.assert_allclose(batch["target"].sum(axis=1), 1, rtol=1e-5)
    assert type(batch["image"]) is np.ndarray


def test_pixels_are_normalised() -> None:
    data = ClassificationDataConfig()
    (batch,) = take(1, numbered(), data, augment=OFF)
    levels = 255 * (batch["image"][:, 0, 0] * np.array(data.std) + np.array(data.mean))
    assert len(np.unique(levels[:, 0].round())) == 8
    assert np.abs(levels - levels[:, :1].round()).max() < 1e-3


@pytest.mark.parametrize("start", [1, 7, 20])
def test_starting_at_a_step_equals_skipping_to_it(start: int) -> None:
    assert same(take(3, noise(), start_step=start), take(start + 3, noise())[start:])


def test_seeds_differ_and_repeat() -> None:
    assert same(take(2, noise()), take(2, noise()))
    assert not same(take(2, noise()), take(2, noise(), seed=1))
    orders = [take(4, numbered(), augment=OFF, seed=seed) for seed in (0, 1)]
    assert not same(*orders)
    # Not the same stream an epoch later either.
    shifted = take(4, numbered(), augment=OFF, seed=0, batch_size=NUM_IMAGES)[1:]
    assert not same(shifted, take(3, numbered(), augment=OFF, seed=1, batch_size=NUM_IMAGES))


def test_the_same_image_is_augmented_anew_in_every_epoch() -> None:
    subset = dataclasses.replace(noise(), indices=np.array([5]))
    batches = take(3, subset, augment=dataclasses.replace(OFF, pad_crop=2), batch_size=4)
    images = np.concatenate([batch["image"] for batch in batches])
    assert len({image.tobytes() for image in images}) > 6


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(num_workers: int) -> None:
    with_workers = dataclasses.replace(PLAIN, num_workers=num_workers)
    batches = take(7, noise(), with_workers, start_step=3)
    assert same(batches, take(7, noise(), start_step=3))
    assert all(type(value) is np.ndarray for batch in batches for value in batch.values())  # not a worker's memory
    assert same(evaluate(noise(13), with_workers), evaluate(noise(13)))


@pytest.mark.parametrize("process_count", [2, 4])
@pytest.mark.parametrize("augment", [EVERYTHING, dataclasses.replace(EVERYTHING, mixup=0.0)])
def test_processes_yield_slices_of_the_one_process_batch(process_count: int, augment: AugmentConfig) -> None:
    whole = take(8, noise(), augment=augment)
    parts = [
        take(8, noise(), augment=augment, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    for step, batch in enumerate(whole):
        for name, value in batch.items():
            assert np.array_equal(value, np.concatenate([part[step][name] for part in parts]))


def test_batches_mix_neighbours_with_one_share() -> None:
    plain = take(6, noise(), augment=OFF)
    mixed = take(6, noise(), augment=dataclasses.replace(OFF, mixup=0.8))
    shares = []
    for before, after in zip(plain, mixed, strict=True):
        partner = np.arange(8) ^ 1
        moved = before["image"][partner] - before["image"]
        estimates = ((after["image"] - before["image"]) * moved).sum((1, 2, 3)) / (moved**2).sum((1, 2, 3))
        np.testing.assert_allclose(estimates, estimates[0], atol=1e-4)
        expected = before["target"] + estimates[0] * (before["target"][partner] - before["target"])
        np.testing.assert_allclose(after["target"], expected, atol=1e-4)
        shares.append(estimates[0])
    assert np.std(shares) > 0.05  # a new one for every step


def test_each_augmentation_reaches_the_batch() -> None:
    plain = take(2, noise(), augment=OFF)
    for setting in (
        {"random_resized_crop": True},
        {"pad_crop": 1},
        {"horizontal_flip": 1.0},
        {"color_jitter": 0.4},
        {"rand_augment_layers": 2},
        {"random_erasing": 1.0},
        {"mixup": 0.8},
        {"cutmix": 1.0},
        {"label_smoothing": 0.1},
    ):
        changed = take(2, noise(), augment=dataclasses.replace(OFF, **setting))
        assert not same(plain, changed), setting
        name = "target" if "label_smoothing" in setting else "image"
        assert not np.array_equal(plain[0][name], changed[0][name]), setting


def test_evaluation_sees_every_image_once_in_batches_of_one_shape() -> None:
    batches = evaluate(numbered(19))
    assert [batch["weight"].sum() for batch in batches] == [8, 8, 3]
    for batch in batches:
        assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
            "image": ((8, SIDE, SIDE, 3), "float32"),
            "label": ((8,), "int32"),
            "weight": ((8,), "float32"),
        }
    seen = np.concatenate([batch["image"][batch["weight"] > 0][:, 0, 0, 0] for batch in batches])
    assert seen.round().tolist() == list(range(19))
    assert np.concatenate([batch["label"] for batch in batches])[:19].tolist() == [i % CLASSES for i in range(19)]
    assert not batches[-1]["image"][3:].any()


def test_evaluation_is_shared_by_processes_in_slices() -> None:
    whole, *parts = (
        evaluate(noise(19), process_index=index, process_count=count) for index, count in [(0, 1), (0, 2), (1, 2)]
    )
    for number, batch in enumerate(whole):
        for name, value in batch.items():
            assert np.array_equal(value, np.concatenate([part[number][name] for part in parts]))


def folder_with_a_bad_image(root: Path) -> Subset:
    for name in ("ant", "bee"):
        (root / "train" / name).mkdir(parents=True)
        for index in range(4):
            pixels = np.random.default_rng(index).integers(1, 256, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "train" / name / f"{index}.jpg")
    broken = root / "train/bee/2.jpg"
    broken.write_bytes(broken.read_bytes()[:-300])
    return open_split(ClassificationDataConfig(source="image_folder", path=str(root)), "train").images


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_image_is_an_error_that_names_the_file(tmp_path: Path, num_workers: int) -> None:
    subset = folder_with_a_bad_image(tmp_path)
    data = ClassificationDataConfig(on_bad_image="error", num_workers=num_workers)
    with pytest.raises(S3Error, match=r"bee/2\.jpg: damaged image.*data\.on_bad_image='skip'"):
        take(2, subset, data, num_classes=2)
    with pytest.raises(S3Error) as caught:
        evaluate(subset, data)
    assert str(caught.value).startswith(str(tmp_path / "train/bee/2.jpg: damaged image"))
    assert "\n" not in str(caught.value)  # one line for the user, nothing of the loader's machinery


def test_a_bad_image_can_be_skipped_and_counted(tmp_path: Path) -> None:
    subset = folder_with_a_bad_image(tmp_path)
    data = ClassificationDataConfig(on_bad_image="skip")
    for batch in take(3, subset, data, num_classes=2):
        bad = batch["target"].sum(axis=1) == 0
        assert bad.sum() == 1
        assert (batch["weight"] == ~bad).all()
        assert not batch["image"][bad].any()
        np.testing.assert_allclose(batch["target"][~bad].sum(axis=1), 1, rtol=1e-5)
    (batch,) = evaluate(subset, data)
    assert batch["weight"].tolist() == [1, 1, 1, 1, 1, 1, 0, 1]
    assert batch["label"][[5, 7]].tolist() == [1, 1]
    assert not batch["image"][6].any()


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(S3Error, match="cannot be shared by 3 processes"):
        take(1, noise(), batch_size=8, process_count=3)
    with pytest.raises(S3Error, match="cannot be shared by 1 processes"):
        evaluate(noise(), batch_size=0)
    with pytest.raises(S3Error, match="a multiple of twice the processes"):
        take(1, noise(), batch_size=6, process_count=2)
    assert len(take(1, noise(), augment=OFF, batch_size=6, process_count=2)[0]["image"]) == 3


@pytest.mark.parametrize(
    "setting",
    [
        {"crop_scale": (0.5, 0.1)},
        {"crop_ratio": (0.0, 1.0)},
        {"horizontal_flip": 1.5},
        {"pad_crop": -1},
        {"mixup": -1.0},
    ],
)
def test_augmentation_that_cannot_be_drawn_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(S3Error, match=rf"augment\.{next(iter(setting))}"):
        take(1, noise(), augment=dataclasses.replace(EVERYTHING, **setting))
