"""Sources: what they read, and what they say when they cannot."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.classification.dataset import open_data
from s3_jax.data.image_folder import open_image_folder
from s3_jax.data.sources import BadImage, CachedImages, MemoryImages, decode, decoded_for, open_digits, open_encoded
from s3_jax.data.tfds_source import open_tfds
from s3_jax.errors import S3Error

CIFAR10 = Path(__file__).parents[2] / "shared/data/cifar10/3.0.2"
needs_cifar10 = pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"no prepared CIFAR-10 at {CIFAR10}")


def write_folder(root: Path, split: str, classes: dict[str, int], side: int = 8) -> None:
    for name, count in classes.items():
        (root / split / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (side, side), (index, 0, 0)).save(root / split / name / f"{index}.png")


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_digits_are_scaled_to_bytes_and_repeated_to_three_channels() -> None:
    from sklearn.datasets import load_digits

    opened = open_digits(("train", "test"))
    train, test = opened.splits["train"], opened.splits["test"]
    assert (len(train), len(test)) == (1438, 359)
    everything = np.stack([np.asarray(split[i][0]) for split in (train, test) for i in range(len(split))])
    assert everything.shape == (1797, 8, 8, 3)
    assert everything.dtype == np.uint8
    assert everything.max() == 255
    assert (everything == everything[..., :1]).all()
    # Nothing lost, nothing doubled: the same multiset of images as scikit-learn's.
    original = np.rint(load_digits().images * 255 / 16).astype(np.uint8).reshape(1797, 64)
    assert sorted(map(bytes, everything[..., 0].reshape(1797, 64))) == sorted(map(bytes, original))


def test_digits_split_is_stratified_and_always_the_same() -> None:
    first, second = (open_digits(("test",)).splits["test"] for _ in range(2))
    labels = np.array([first[i][1] for i in range(len(first))])
    assert np.bincount(labels).min() >= 34
    assert np.bincount(labels).max() <= 37
    assert all(first[i][0].tobytes() == second[i][0].tobytes() for i in range(len(first)))
    with pytest.raises(S3Error, match=r"no split 'val'; their splits are 'train' and 'test'"):
        open_digits(("train", "val"))


def test_image_folder_numbers_classes_by_sorted_name(tmp_path: Path) -> None:
    write_folder(tmp_path, "train", {"cat": 2, "ant": 1})
    (tmp_path / "train/cat/notes.txt").write_text("no image")
    (tmp_path / "train/.hidden").mkdir()
    opened = open_image_folder(str(tmp_path), ("train",))
    train = opened.splits["train"]
    assert opened.class_names == ("ant", "cat")
    assert [train[i][1] for i in range(len(train))] == [0, 1, 1]
    assert [os.path.relpath(train.name(i), tmp_path) for i in range(3)] == [
        "train/ant/0.png",
        "train/cat/0.png",
        "train/cat/1.png",
    ]
    assert [decode(train[i][0]).getpixel((0, 0)) for i in range(3)] == [(0, 0, 0), (0, 0, 0), (1, 0, 0)]


def test_image_folder_order_is_that_of_the_names_not_of_the_disk(tmp_path: Path) -> None:
    write_folder(tmp_path, "train", {"cat": 12})
    train = open_image_folder(str(tmp_path), ("train",)).splits["train"]
    names = [os.path.basename(train.name(i)) for i in range(12)]
    assert names == sorted(f"{index}.png" for index in range(12))


def test_image_folder_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(S3Error, match="prepare the images as <path>/<split>/<class>/<image>"):
        open_image_folder(str(tmp_path / "nowhere"), ("train",))
    write_folder(tmp_path, "train", {"ant": 1, "bee": 1, "cat": 1})
    with pytest.raises(S3Error, match=r"no folder .*val.* has train"):
        open_image_folder(str(tmp_path), ("train", "val"))
    write_folder(tmp_path, "test", {"ant": 1, "dog": 1})
    with pytest.raises(S3Error, match=r"differ.*only in train: bee, cat; only in test: dog"):
        open_image_folder(str(tmp_path), ("train", "test"))
    (tmp_path / "train/empty").mkdir()
    with pytest.raises(S3Error, match="no image in empty"):
        open_image_folder(str(tmp_path), ("train",))
    (tmp_path / "flat").mkdir()
    with pytest.raises(S3Error, match="has no class folders"):
        open_image_folder(str(tmp_path), ("flat",))


def test_a_file_that_vanished_is_an_error_not_a_bad_image(tmp_path: Path) -> None:
    write_folder(tmp_path, "train", {"ant": 1})
    train = open_image_folder(str(tmp_path), ("train",)).splits["train"]
    (tmp_path / "train/ant/0.png").unlink()
    with pytest.raises(S3Error, match=r"0\.png cannot be read: No such file"):
        train[0]


@pytest.mark.parametrize(
    ("mode", "level"), [("L", 204), ("LA", 204), ("RGBA", 204), ("P", 204), ("1", 255), ("CMYK", 204)]
)
def test_every_mode_becomes_rgb(mode: str, level: int) -> None:
    image = Image.new("RGB", (9, 7), (level,) * 3).convert(mode)
    opened = open_encoded(encode(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert opened.mode == mode
    assert np.asarray(decode(opened)).tolist() == np.full((7, 9, 3), level).tolist()


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    encoded = encode(Image.fromarray(np.full((4, 4), 100 * 256 + 7, np.uint16)), "PNG")
    assert np.asarray(decode(open_encoded(encoded))).tolist() == np.full((4, 4, 3), 100).tolist()


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees
    encoded = encode(Image.new("RGB", (9, 7)), "JPEG", exif=exif)
    assert decode(open_encoded(encoded)).size == (9, 7)


def test_broken_images_are_bad_images() -> None:
    rng = np.random.default_rng(0)
    whole = encode(Image.fromarray(rng.integers(256, size=(64, 64, 3), dtype=np.uint8)), "JPEG")
    with pytest.raises(BadImage, match="not an image"):
        open_encoded(b"")
    with pytest.raises(BadImage, match="not an image"):
        open_encoded(b"text")
    with pytest.raises(BadImage, match=r"damaged image.*truncated"):
        decode(open_encoded(whole[: len(whole) // 2]))
    png = bytearray(encode(Image.fromarray(rng.integers(256, size=(64, 64, 3), dtype=np.uint8)), "PNG"))
    png[len(png) // 2] ^= 0xFF
    with pytest.raises(BadImage, match="damaged image"):
        decode(open_encoded(bytes(png)))


def test_reduced_jpeg_decoding_does_not_show() -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(256, size=(40, 50, 3), dtype=np.uint8)).resize((1000, 800))
    encoded = encode(smooth, "JPEG", quality=95)
    box = (100.0, 40.0, 900.0, 760.0)
    opened = open_encoded(encoded)
    decoded, scaled = decoded_for(opened, box, 64)
    assert opened.size == (250, 200)  # it was decoded at a quarter
    reduced = np.asarray(decoded.resize((64, 64), Image.Resampling.BICUBIC, box=scaled))
    exact = np.asarray(decode(open_encoded(encoded)).resize((64, 64), Image.Resampling.BICUBIC, box=box))
    difference = np.abs(reduced.astype(int) - exact)
    assert difference.mean() < 0.7
    assert difference.max() <= 8
    opened = open_encoded(encoded)
    decoded_for(opened, (300.0, 300.0, 420.0, 420.0), 64)
    assert opened.size == (1000, 800)  # a small box needs every pixel


def test_cached_images_are_decoded_once() -> None:
    class Counting(MemoryImages):
        reads = 0

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            Counting.reads += 1
            return super().__getitem__(index)

    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    cached = CachedImages(Counting(images, np.array([5, 6]), "some"))
    for _ in range(3):
        assert [cached[i][1] for i in range(2)] == [5, 6]
        assert all((np.asarray(cached[i][0]) == images[i]).all() for i in range(2))
    assert Counting.reads == 2
    assert (len(cached), cached.name(1)) == (2, "image 1 of some")


@needs_cifar10
def test_tfds_reads_a_prepared_folder_and_slices_of_splits() -> None:
    opened = open_tfds(str(CIFAR10), "", ("train", "test", "train[:1%]"))
    assert opened.name == "cifar10/3.0.2"
    assert opened.class_names[:3] == ("airplane", "automobile", "bird")
    assert [len(split) for split in opened.splits.values()] == [50_000, 10_000, 500]
    image, label = opened.splits["test"][0]
    assert decode(image).size == (32, 32)
    import tensorflow_datasets as tfds

    record = tfds.builder_from_directory(CIFAR10).as_data_source(split="test")[0]
    assert label == record["label"]
    assert np.abs(np.asarray(decode(image)).astype(int) - record["image"]).max() <= 2  # its decoder is another


@needs_cifar10
def test_tfds_finds_a_prepared_set_by_name() -> None:
    assert open_tfds(str(CIFAR10.parents[1]), "cifar10", ("test",)).name == "cifar10/3.0.2"
    with pytest.raises(S3Error, match=r"has no split 'val'; its splits are 'train', 'test'"):
        open_tfds(str(CIFAR10), "", ("val",))


def test_tfds_says_how_to_prepare_a_missing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(S3Error, match="is not a prepared TFDS folder"):
        open_tfds(str(tmp_path), "", ("train",))
    with pytest.raises(S3Error, match=r"data.name = 'no_such_set'"):
        open_tfds(str(tmp_path), "no_such_set", ("train",))
    monkeypatch.setattr("s3_jax.data.tfds_source._PREPARE", "import sys; print('no network'); sys.exit(1)")
    with pytest.raises(S3Error, match=r"no network.*\n.*tfds build cifar10 --file_format=array_record"):
        open_tfds(str(tmp_path), "cifar10", ("train",))


_OPEN_EVERYTHING = """
import sys
sys.path[:0] = sys.argv[1], sys.argv[4]
from labelled_batches import eval_batches, train_batches
from s3_jax.classification.config import AugmentConfig, ClassificationDataConfig
from s3_jax.classification.dataset import open_data
configs = [ClassificationDataConfig()]
configs.append(ClassificationDataConfig(source="image_folder", path=sys.argv[2], holdout_fraction=0.5))
if sys.argv[3]:
    configs.append(ClassificationDataConfig(source="tfds", path=sys.argv[3]))
    configs.append(ClassificationDataConfig(source="tfds", path=sys.argv[3] + "/../..", name="cifar10"))
for config in configs:
    data = open_data(config, seed=0)
    sizes = dict(data=config, image_size=8, batch_size=2)
    next(eval_batches(data.splits.test, **sizes))
    next(train_batches(data.splits.train, augment=AugmentConfig(), num_classes=data.num_classes, seed=0, **sizes))
print("imported" if "tensorflow" in sys.modules else "clean")
"""


def test_tensorflow_is_never_imported_even_where_it_is_installed(tmp_path: Path) -> None:
    stand_in = tmp_path / "site/tensorflow"  # importable, so that an attempt to import it is seen
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text("__version__ = '2.20.0'\n")
    for split in ("train", "test"):
        write_folder(tmp_path / "images", split, {"ant": 2, "bee": 2})
    cifar10 = str(CIFAR10) if CIFAR10.is_dir() else ""
    arguments = [sys.executable, "-c", _OPEN_EVERYTHING, str(stand_in.parent), str(tmp_path / "images"), cifar10]
    arguments.append(str(Path(__file__).parent))
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "clean"


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(S3Error, match=r"data.source = 'mnist': expected one of digits, tfds, image_folder"):
        open_data(ClassificationDataConfig(source="mnist"), seed=0)
    with pytest.raises(S3Error, match=r"data.on_bad_image = 'ignore': expected one of error, skip"):
        open_data(ClassificationDataConfig(on_bad_image="ignore"), seed=0)
