"""A set as TensorFlow Datasets prepares it, written without TensorFlow: for tests of what reads such sets."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

SHARDS = 2  # files of a split


def write_tfds(folder: Path, splits: Mapping[str, Sequence[int]], num_classes: int = 3) -> str:
    """Writes splits with these labels, an even number each, as array_record; returns the prepared folder.

    Image i of split number s is of one colour, (i, s, 0).
    """
    prepared = folder / "tiny/1.0.0"
    prepared.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=num_classes),
        }
    )
    features.save_config(prepared)
    serializer = ExampleSerializer(features.get_serialized_info())
    about = []
    for number, (split, labels) in enumerate(splits.items()):
        records = [
            serializer.serialize_example({"image": _png((i, number, 0)), "label": np.int64(label)})
            for i, label in enumerate(labels)
        ]
        length = len(records) // SHARDS
        for shard in range(SHARDS):
            path = prepared / f"tiny-{split}.array_record-{shard:05d}-of-{SHARDS:05d}"
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for record in records[shard * length : (shard + 1) * length]:
                writer.write(record)
            writer.close()
        about.append(
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": "1",
                "shardLengths": [str(length)] * SHARDS,
            }
        )
    info = {"name": "tiny", "version": "1.0.0", "fileFormat": "array_record", "splits": about}
    (prepared / "dataset_info.json").write_text(json.dumps(info))
    return str(prepared)


def _png(color: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "PNG")
    return buffer.getvalue()
