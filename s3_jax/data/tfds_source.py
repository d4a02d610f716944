"""TensorFlow Datasets without TensorFlow: array_record files are read by number and their images decoded here."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from s3_jax.buckets import BucketPath
from s3_jax.data.sources import OpenedSource, open_encoded
from s3_jax.errors import S3Error, first_line
from s3_jax.paths import any_path

_MANY = 200_000  # records whose labels take long enough to be told of
_AT_ONCE = 256  # records, read by array_record's own threads
# Preparing a set may import TensorFlow, so it happens in a process of its own; progress goes to its stderr.
_PREPARE = """
import sys
import tensorflow_datasets as tfds
name, data_dir = sys.argv[1:]
try:
    tfds.builder(name, data_dir=data_dir or None, file_format="array_record").download_and_prepare()
except Exception as error:
    sys.exit(print(error) or 1)
"""


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsImages:
    """A split's records; `records[i]` is a dict with the encoded image and the label under their keys."""

    records: Any
    set_name: str
    image_key: str
    label_key: str
    num_classes: int
    numbers: np.ndarray  # (N,) int64 of the records in the whole set

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """See `ImageSource`. Raises S3Error where the label is no class, as in splits that keep theirs secret."""
        record = self.records[index]
        return open_encoded(record[self.image_key]), self.checked_label(index, record[self.label_key])

    def checked_label(self, index: int, label: int) -> int:
        """The label of an image. Raises S3Error where it is no class."""
        if not 0 <= label < self.num_classes:
            raise S3Error(
                f"{self.name(index)} has the label {label}, and classes go from 0 to {self.num_classes - 1}: a split "
                "without labels can neither be trained nor tested on"
            )
        return int(label)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """See `ImageSource`. Reads every record once, images included, since TFDS keeps both in one place.

        Takes 50 us a record and the time to read the files: a minute for ImageNet where the disk keeps up.
        """
        import tensorflow_datasets as tfds

        if len(self) > _MANY:
            logging.warning("reading the labels of the %s images of %s", f"{len(self):,}", self.set_name)
        features = self.records.dataset_info.features
        label_alone = tfds.features.FeaturesDict({self.label_key: features[self.label_key]})
        labels = np.empty(len(self), np.int64)
        for start in range(0, len(self), _AT_ONCE):
            rows = range(start, min(start + _AT_ONCE, len(self)))
            encoded = self.records.data_source.__getitems__(rows)
            labels[start : rows.stop] = [label_alone.deserialize_example_np(each)[self.label_key] for each in encoded]
        outside = np.flatnonzero((labels < 0) | (labels >= self.num_classes))
        if len(outside):
            self.checked_label(outside[0], labels[outside[0]])
        return labels

    @property
    def identities(self) -> np.ndarray:
        """See `ImageSource`."""
        return self.numbers

    def name(self, index: int) -> str:
        """See `ImageSource`."""
        return f"image {index} of {self.set_name}"


def open_tfds(path: str, name: str, splits: Sequence[str]) -> OpenedSource:
    """The named splits of a prepared folder `path`, or of the set `name` below data_dir `path`, downloaded if missing.

    A split may be a slice such as "train[:90%]". An empty path is TFDS's own data_dir. Raises S3Error where there is no
    such folder, set, split, image or label.
    """
    builder = _builder(path, name)
    image_key, label_key, class_names = _features(builder)
    opened = {split: _split(builder, split, image_key, label_key, len(class_names)) for split in splits}
    return OpenedSource(builder.info.full_name, class_names, opened)


def _builder(path: str, name: str) -> Any:
    import tensorflow_datasets as tfds  # slow to import, and not needed for other sources
    from etils import epath

    if isinstance(any_path(path), BucketPath):
        raise S3Error(
            f"data.path = {path!r}: array_record files are read from a disk; copy the prepared folder there (gcloud "
            "storage cp -r) and give that, or keep the images in the bucket as <path>/<split>/<class>/<image>"
        )
    if path and not epath.Path(path).is_dir():
        raise S3Error(
            f"there is no folder data.path = {path!r}; set it to <data_dir>/<set>/<version>, to the data_dir of the "
            "set data.name, or to an empty folder into which that set is to be downloaded"
        )
    if path and (epath.Path(path) / "dataset_info.json").exists():
        return tfds.builder_from_directory(path)
    if not name:
        raise S3Error(
            f"data.path = {path!r} is not a prepared TFDS folder (it has no dataset_info.json), and data.name is "
            "empty; set data.path to <data_dir>/<set>/<version>, or data.name to a set and data.path to its data_dir"
        )
    builder = _named_builder(path, name)
    if not builder.info.splits:
        logging.warning("%s is not prepared yet: downloading and preparing it in %s", name, builder.data_dir)
        _prepare(path, name)
        builder = _named_builder(path, name)
    return builder


def _named_builder(path: str, name: str) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=path or None)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise S3Error(
            f"data.name = {name!r}: {first_line(error)} (see https://www.tensorflow.org/datasets/catalog)"
        ) from error


def _prepare(path: str, name: str) -> None:
    done = subprocess.run([sys.executable, "-c", _PREPARE, name, path], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        reason = (done.stdout.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise S3Error(
            f"the data set {name!r} is not below data.path = {path!r} and could not be downloaded and prepared "
            f"({reason}); where TensorFlow and tensorflow-datasets are installed, run\n"
            f"    tfds build {name} --file_format=array_record --data_dir=<data_dir>\n"
            "and set data.path to that data_dir"
        )


def _features(builder: Any) -> tuple[str, str, tuple[str, ...]]:
    """The keys of image and label, and the classes' names."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    image_key, label_key = builder.info.supervised_keys or ("image", "label")
    image, label = (dict(features).get(key) for key in (image_key, label_key))
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise S3Error(
            f"{builder.info.full_name} is no image classification set: expected features {image_key!r} (an image) and "
            f"{label_key!r} (a class), found {', '.join(features)}"
        )
    return image_key, label_key, tuple(label.names or map(str, range(label.num_classes or 0)))


def _is_no_group_size(record: Any) -> bool:
    # array_record reports any group size but 1 as an error, once per file. It costs microseconds an image: no error.
    return "was created with group size" not in record.getMessage()


def _split(builder: Any, split: str, image_key: str, label_key: str, num_classes: int) -> TfdsImages:
    import tensorflow_datasets as tfds

    logging.get_absl_logger().addFilter(_is_no_group_size)
    try:
        records = builder.as_data_source(split=split, decoders={image_key: tfds.decode.SkipDecoding()})
    except ValueError as error:
        known, reason = ", ".join(map(repr, builder.info.splits)), (str(error).strip() or repr(error)).splitlines()[-1]
        raise S3Error(
            f"{builder.info.full_name} has no split {split!r}; its splits are {known}, and slices of them such as "
            f"'train[:90%]' ({reason})"
        ) from error
    except NotImplementedError as error:
        raise S3Error(
            f"{builder.info.full_name} is not stored as array_record, the one format that is read without TensorFlow; "
            "prepare it again with `tfds build ... --file_format=array_record`, or use `tfds convert_format`"
        ) from error
    numbers = _numbers(builder, split)
    opened = TfdsImages(records, f"{builder.info.full_name}/{split}", image_key, label_key, num_classes, numbers)
    opened.checked_label(0, records[0][label_key])  # a split without labels is told at once
    return opened


def _numbers(builder: Any, split: str) -> np.ndarray:
    """The numbers of a split's records in the whole set, its files one after the other."""
    files = [file for whole in builder.info.splits.values() for file in whole.file_instructions]
    starts = np.cumsum([0, *(file.examples_in_shard for file in files)])
    start_of = {file.filename: int(start) for file, start in zip(files, starts[:-1], strict=True)}
    parts = builder.info.splits[split].file_instructions
    return np.concatenate([start_of[part.filename] + part.skip + np.arange(part.take) for part in parts])
