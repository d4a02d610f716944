"""Measure a network: top-1 and top-5 accuracy of a classifier, mIoU and each class's IoU of a segmentation network.

    python scripts/evaluate.py --model=s3_t --weights=swin_s3_tiny.safetensors --source=image_folder --path=IMAGENET
    python scripts/evaluate.py --model=runs/digits/network --source=digits --split=test
    python scripts/evaluate.py --model=runs/mine/network --path=FOLDER --split=test --scales=0.5,1,1.5 --flip

--model, --weights, --class_names: as for predict.py. --source: digits, tfds or image_folder, with --path, or --name for
TFDS. The data's classes are found among the network's by their names; a published model knows its own by number alone,
which stand for ImageNet's in their order. For a segmentation network FOLDER has images/SPLIT and MASKS/SPLIT, and
--class_table tells what masks mean (FOLDER/classes.txt if not given); --scales: the mean of its probabilities at these
scales, and with --flip mirrored as well.
"""

from __future__ import annotations

import json
import sys

from absl import app, flags
from rich.console import Console

from s3_jax.classification import inference
from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.classification.dataset import open_split
from s3_jax.errors import S3Error
from s3_jax.networks import zoo
from s3_jax.networks.classes import is_numbered, match
from s3_jax.networks.standalone import Standalone
from s3_jax.paths import print_any_name, printable
from s3_jax.progress import progress_bar
from s3_jax.segmentation import inference as segmentation
from s3_jax.segmentation.config import SegmentationDataConfig
from s3_jax.segmentation.dataset import open_split as open_masks
from s3_jax.segmentation.standalone import SegmentationSpec
from s3_jax.training.devices import keep_compiled_programs, keep_freed_memory

_MODEL = flags.DEFINE_string("model", None, "Published model, or folder of a network.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "File or hf-hub:owner/name of a published model's weights.")
_NAMES = flags.DEFINE_string("class_names", "", "File with the name of a class in each line.")
_SOURCE = flags.DEFINE_string("source", "image_folder", "digits, tfds or image_folder.")
_PATH = flags.DEFINE_string("path", "", "Folder of the data set.")
_NAME = flags.DEFINE_string("name", "", "Of a TFDS data set that is not itself at --path.")
_SPLIT = flags.DEFINE_string("split", "val", "Which images.")
_BATCH = flags.DEFINE_integer("batch", 64, "Images at a time.", lower_bound=1)
_SKIP = flags.DEFINE_bool("skip_bad_images", False, "Leave out images that cannot be read, instead of ending.")
_MASKS = flags.DEFINE_string("masks", "annotations", "Segmentation: the folder of masks below --path.")
_TABLE = flags.DEFINE_string("class_table", "", "Segmentation: the file with a class in each line.")
_ZERO = flags.DEFINE_bool("zero_is_ignored", False, "Segmentation: 0 in a mask does not count.")
_SCALES = flags.DEFINE_list("scales", [], "Segmentation: scales of which the probabilities' mean is taken.")
_FLIP = flags.DEFINE_bool("flip", False, "Segmentation: with --scales, mirrored images too.")
_JSON = flags.DEFINE_bool("json", False, "Print one line of JSON.")


def data_config(spec: zoo.ClassifierSpec) -> ClassificationDataConfig:
    """The data set of the flags, with a network's preprocessing."""
    return ClassificationDataConfig(
        source=_SOURCE.value,
        path=_PATH.value,
        name=_NAME.value,
        on_bad_image="skip" if _SKIP.value else "error",
        mean=spec.mean,
        std=spec.std,
        eval_crop=spec.eval_crop,
    )


def segmentation_metrics(model: Standalone) -> int:
    """Measure and print a segmentation network. Returns the exit code."""
    config = SegmentationDataConfig(
        source="scenes" if _SOURCE.value == "scenes" else "mask_folder",
        path=_PATH.value,
        masks_folder=_MASKS.value,
        classes=_TABLE.value,
        zero_is_ignored=_ZERO.value,
        on_bad_image="skip" if _SKIP.value else "error",
    )
    data = open_masks(config, _SPLIT.value)
    if data.table.names != model.spec.class_names:
        known, given = (", ".join(names[:10]) for names in (model.spec.class_names, data.table.names))
        raise S3Error(f"the network's classes are {known}, and the data's {given}: give those of the network in order")
    subset = data.splits.test
    with progress_bar(Console(stderr=True), "images", len(subset)) as advance:
        if _SCALES.value:
            scales = [_scale(text) for text in _SCALES.value]
            metrics = segmentation.evaluate_scaled(
                model, subset, config, scales=scales, flip=_FLIP.value, progress=advance
            )
        else:
            metrics = segmentation.evaluate(model, subset, config, batch_size=_BATCH.value, progress=advance)
    names = {"model": _MODEL.value, "data": data.name, "split": _SPLIT.value}
    record = {key: printable(name) for key, name in names.items()} | {"images": len(subset)} | metrics
    print(json.dumps(record, allow_nan=False) if _JSON.value else "\n".join(_rows(metrics)))
    return 0


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0.01 <= scale <= 100:
        raise S3Error(f"--scales has {text!r}; expected numbers from 0.01 to 100, as 0.5,1,1.5")
    return scale


def _rows(metrics: dict[str, float]) -> list[str]:
    """A line for each metric; names in a column."""
    width = max(map(len, map(printable, metrics)))
    return [f"{printable(name):{width}}  {value:6.2f} %" for name, value in metrics.items()]


def about_classes(network: tuple[str, ...], data: tuple[str, ...]) -> str:
    """What a reader of the accuracy must know of the classes, if anything. Raises S3Error as `classes.match` does."""
    classes = match(network, data)
    if len(data) < len(network):
        return f"the data has {len(data):,} of the network's {len(network):,} classes, and an answer may be any of them"
    if is_numbered(network) and not set(network) & set(data):
        first, last = printable(data[0]), printable(data[-1])
        return f"the network knows its classes by number alone: 0 is taken for {first}, {classes[-1]} for {last}"
    return ""


def main(arguments: list[str]) -> int:
    """Measure and print. Returns the exit code."""
    del arguments
    keep_compiled_programs()
    keep_freed_memory()
    print_any_name()
    try:
        model = zoo.open_model(_MODEL.value, _WEIGHTS.value, _NAMES.value)
        if isinstance(model.spec, SegmentationSpec):
            return segmentation_metrics(model)
        config = data_config(model.spec)
        data = open_split(config, _SPLIT.value)
        if note := about_classes(model.spec.class_names, data.class_names):
            print(f"evaluate: {note}", file=sys.stderr)
        settings = {"class_names": data.class_names, "batch_size": _BATCH.value}
        with progress_bar(Console(stderr=True), "images", len(data.images)) as advance:
            found = inference.accuracy(model, data.images, config, progress=advance, **settings)
    except S3Error as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    names = {"model": _MODEL.value, "data": data.name, "split": _SPLIT.value}
    record = {key: printable(name) for key, name in names.items()} | found._asdict()
    where = f"{found.images:,} images of {data.name}, {_SPLIT.value}"
    print(
        json.dumps(record, allow_nan=False)
        if _JSON.value
        else f"top-1 {found.top1:.2f} %, top-5 {found.top5:.2f} % on {where}"
    )
    return 0


if __name__ == "__main__":
    app.run(main)
