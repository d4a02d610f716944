"""Measure a network's accuracy: top-1 and top-5 on a split of any data source.

    python scripts/evaluate.py --model=s3_t --weights=swin_s3_tiny.safetensors --source=image_folder --path=IMAGENET
    python scripts/evaluate.py --model=runs/digits/network --source=digits --split=test

--model, --weights: as for predict.py. --source: digits, tfds or image_folder, with --path, or --name for TFDS.
"""

from __future__ import annotations

import json
import sys

from absl import app, flags
from rich.console import Console

from s3_jax import inference, zoo
from s3_jax.config import DataConfig
from s3_jax.data.dataset import open_split
from s3_jax.errors import S3Error
from s3_jax.progress import progress_bar
from s3_jax.training.devices import keep_compiled_programs

_MODEL = flags.DEFINE_string("model", None, "Published model, or folder of a network.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "File or hf-hub:owner/name of a published model's weights.")
_SOURCE = flags.DEFINE_string("source", "image_folder", "digits, tfds or image_folder.")
_PATH = flags.DEFINE_string("path", "", "Folder of the data set.")
_NAME = flags.DEFINE_string("name", "", "Of a TFDS data set that is not itself at --path.")
_SPLIT = flags.DEFINE_string("split", "val", "Which images.")
_BATCH = flags.DEFINE_integer("batch", 64, "Images at a time.", lower_bound=1)
_SKIP = flags.DEFINE_bool("skip_bad_images", False, "Leave out images that cannot be read, instead of ending.")
_JSON = flags.DEFINE_bool("json", False, "Print one line of JSON.")


def data_config(spec: zoo.Spec) -> DataConfig:
    """The data set of the flags, with a network's preprocessing."""
    return DataConfig(
        source=_SOURCE.value,
        path=_PATH.value,
        name=_NAME.value,
        on_bad_image="skip" if _SKIP.value else "error",
        mean=spec.mean,
        std=spec.std,
        eval_crop=spec.eval_crop,
    )


def main(arguments: list[str]) -> int:
    """Measure and print. Returns the exit code."""
    del arguments
    keep_compiled_programs()
    try:
        model = zoo.open_model(_MODEL.value, _WEIGHTS.value)
        config = data_config(model.spec)
        data = open_split(config, _SPLIT.value)
        if data.num_classes != len(model.spec.class_names):
            raise S3Error(f"{data.name} has {data.num_classes} classes, the network {len(model.spec.class_names)}")
        with progress_bar(Console(stderr=True), "images", len(data.images)) as advance:
            found = inference.accuracy(model, data.images, config, batch_size=_BATCH.value, progress=advance)
    except S3Error as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    record = {"model": _MODEL.value, "data": data.name, "split": _SPLIT.value} | found._asdict()
    where = f"{found.images:,} images of {data.name}, {_SPLIT.value}"
    print(json.dumps(record) if _JSON.value else f"top-1 {found.top1:.2f} %, top-5 {found.top5:.2f} % on {where}")
    return 0


if __name__ == "__main__":
    app.run(main)
