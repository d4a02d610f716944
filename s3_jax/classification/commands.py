"""What predict.py and evaluate.py do with classifiers: likeliest classes of images, and accuracy on a data set."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.commands import DataOptions, Flag, Measured
from s3_jax.networks.classes import is_numbered, match
from s3_jax.paths import AnyPath, printable
from s3_jax.progress import progress_bar

if TYPE_CHECKING:
    from s3_jax.classification.inference import Prediction
    from s3_jax.networks.classifier import ClassifierSpec
    from s3_jax.networks.standalone import Standalone


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """How images are answered."""

    top: Annotated[int, Flag("How many classes of each image.", least=1)] = 5
    batch: Annotated[int, Flag("Images at a time.", least=1)] = 16


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(DataOptions):
    """The images that a classifier is measured on."""

    source: Annotated[str, Flag("digits, tfds or image_folder.")] = "image_folder"
    name: Annotated[str, Flag("Of a TFDS data set that is not itself at --path.")] = ""


def predict(model: Standalone, paths: Sequence[AnyPath], options: PredictOptions, *, as_json: bool) -> int:
    """Print the likeliest classes of images. Returns the exit code, 2 where a file is no image. Raises S3Error."""
    from s3_jax.classification import inference

    predictions, problems = inference.predict(model, paths, top=options.top, batch_size=options.batch)
    if as_json:
        print("".join(f"{_line(prediction)}\n" for prediction in predictions), end="")
    elif predictions:
        Console().print(_table(predictions))
    for problem in problems:
        print(f"predict: {problem}", file=sys.stderr)
    return 2 if problems else 0


def evaluate(model: Standalone, options: EvaluateOptions) -> Measured:
    """Top-1 and top-5 accuracy. Raises S3Error for data that are missing, or not of the network's classes."""
    from s3_jax.classification import inference
    from s3_jax.classification.dataset import open_split

    config = _data_config(options, model.spec)
    data = open_split(config, options.split)
    if note := about_classes(model.spec.class_names, data.class_names):
        print(f"evaluate: {note}", file=sys.stderr)
    with progress_bar(Console(stderr=True), "images", len(data.images)) as advance:
        found = inference.accuracy(
            model, data.images, config, class_names=data.class_names, batch_size=options.batch, progress=advance
        )
    record = {"data": printable(data.name), "split": printable(options.split)} | found._asdict()
    where = f"{found.images:,} images of {data.name}, {options.split}"
    return Measured(record, f"top-1 {found.top1:.2f} %, top-5 {found.top5:.2f} % on {where}")


def _data_config(options: EvaluateOptions, spec: ClassifierSpec) -> ClassificationDataConfig:
    """The data set, with a network's preprocessing."""
    return ClassificationDataConfig(
        source=options.source,
        path=options.path,
        name=options.name,
        on_bad_image=options.on_bad_image,
        mean=spec.mean,
        std=spec.std,
        eval_crop=spec.eval_crop,
    )


def about_classes(network: tuple[str, ...], data: tuple[str, ...]) -> str:
    """What a reader of the accuracy must know of the classes, if anything. Raises S3Error as `classes.match` does."""
    classes = match(network, data)
    if len(data) < len(network):
        return f"the data has {len(data):,} of the network's {len(network):,} classes, and an answer may be any of them"
    if is_numbered(network) and not set(network) & set(data):
        first, last = printable(data[0]), printable(data[-1])
        return f"the network knows its classes by number alone: 0 is taken for {first}, {classes[-1]} for {last}"
    return ""


def _table(predictions: list[Prediction]) -> Table:
    """A row for each image; names are shown as they are, whatever they would mean as markup."""
    places = [f"{place}." for place in range(1, len(predictions[0].classes) + 1)]
    rows = Table(Column("image", overflow="fold"), *places)
    for path, classes in predictions:
        cells = (f"{printable(name)}\n{100 * chance:.1f} %" for name, chance in classes)
        rows.add_row(Text(printable(path)), *map(Text, cells))
    return rows


def _line(prediction: Prediction) -> str:
    """A line of JSON for an image."""
    classes = [{"name": printable(name), "probability": chance} for name, chance in prediction.classes]
    return json.dumps({"path": printable(prediction.path), "classes": classes}, allow_nan=False)
