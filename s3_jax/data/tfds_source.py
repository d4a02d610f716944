"""TensorFlow Datasets without TensorFlow: array_record files are read by number and their images decoded here."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from absl import logging
from PIL import Image

from s3_jax.data.sources import OpenedSource, open_encoded
from s3_jax.errors import S3Error

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

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """See `ImageSource`."""
        record = self.records[index]
        return open_encoded(record[self.image_key]), int(record[self.label_key])

    def name(self, index: int) -> str:
        """See `ImageSource`."""
        return f"image {index} of {self.set_name}"


def open_tfds(path: str, name: str, splits: Sequence[str]) -> OpenedSource:
    """The named splits of a prepared folder `path`, or of the set `name` below data_dir `path`, downloaded if missing.

    A split may be a slice such as "train[:90%]". Raises S3Error where there is no such set, split, image or label.
    """
    builder = _builder(path, name)
    image_key, label_key, class_names = _features(builder)
    opened = {split: _split(builder, split, image_key, label_key) for split in splits}
    return OpenedSource(builder.info.full_name, class_names, opened)


def _builder(path: str, name: str) -> Any:
    import tensorflow_datasets as tfds  # slow to import, and not needed for other sources
    from etils import epath

    if path and (epath.Path(path) / "dataset_info.json").exists():
        return tfds.builder_from_directory(path)
    if not name:
        raise S3Error(
            f"data.path = {path!r} is not a prepared TFDS folder (it has no dataset_info.json), and data.name is "
            "empty; set data.path to <data_dir>/<set>/<version>, or data.name to a set and data.path to its data_dir"
        )
    if not _named_builder(path, name).info.splits:
        _prepare(path, name)
    return _named_builder(path, name)


def _named_builder(path: str, name: str) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=path or None)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise S3Error(f"data.name = {name!r}: {reason} (see https://www.tensorflow.org/datasets/catalog)") from error


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
    return image_key, label_key, tuple(label.names or map(str, range(label.num_classes)))


def _is_no_group_size(record: Any) -> bool:
    # array_record reports any group size but 1 as an error, once per file. It costs microseconds an image: no error.
    return "was created with group size" not in record.getMessage()


def _split(builder: Any, split: str, image_key: str, label_key: str) -> TfdsImages:
    import tensorflow_datasets as tfds

    logging.get_absl_logger().addFilter(_is_no_group_size)
    try:
        records = builder.as_data_source(split=split, decoders={image_key: tfds.decode.SkipDecoding()})
    except ValueError as error:
        known = ", ".join(map(repr, builder.info.splits))
        raise S3Error(f"{builder.info.full_name} has no split {split!r}; its splits are {known}") from error
    except NotImplementedError as error:
        raise S3Error(
            f"{builder.info.full_name} is not stored as array_record, the one format that is read without TensorFlow; "
            "prepare it again with `tfds build ... --file_format=array_record`, or use `tfds convert_format`"
        ) from error
    return TfdsImages(records, f"{builder.info.full_name}/{split}", image_key, label_key)
