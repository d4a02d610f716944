"""Say what is in images: the likeliest classes of files, or of all images of a folder.

    python scripts/predict.py --model=s3_t --weights=swin_s3_tiny.safetensors cat.jpg dog.jpg
    python scripts/predict.py --model=runs/digits/network digits/ --json

--model is the name of a published model, whose weights --weights gives (timm's or the official file, or
hf-hub:owner/name), or the folder of a network. --class_names: a file with a name a line, for published models.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from absl import app, flags
from rich.console import Console
from rich.table import Column, Table

from s3_jax import inference, zoo
from s3_jax.errors import S3Error
from s3_jax.training.devices import keep_compiled_programs

_MODEL = flags.DEFINE_string("model", None, "Published model, or folder of a network.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "File or hf-hub:owner/name of a published model's weights.")
_NAMES = flags.DEFINE_string("class_names", "", "File with the name of a class in each line.")
_TOP = flags.DEFINE_integer("top", 5, "How many classes of each image.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 16, "Images at a time.", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "Print one line of JSON for each image.")


def named(model: zoo.Standalone, path: str) -> zoo.Standalone:
    """A model whose classes have the names in a file. Raises S3Error where these are not as many."""
    try:
        names = tuple(Path(path).read_text().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise S3Error(f"--class_names={path} cannot be read: {error}") from error
    if len(names) != len(model.spec.class_names):
        raise S3Error(f"{path} has {len(names)} names, the network has {len(model.spec.class_names)} classes")
    return dataclasses.replace(model, spec=dataclasses.replace(model.spec, class_names=names))


def table(predictions: list[inference.Prediction]) -> Table:
    """A row for each image."""
    places = [f"{place}." for place in range(1, len(predictions[0].classes) + 1)]
    rows = Table(Column("image", overflow="fold"), *places)
    for path, classes in predictions:
        rows.add_row(path, *(f"{name}\n{100 * chance:.1f} %" for name, chance in classes))
    return rows


def main(arguments: list[str]) -> int:
    """Predict and print. Returns the exit code."""
    keep_compiled_programs()
    try:
        if len(arguments) < 2:
            raise S3Error("give images, or a folder of them")
        paths = inference.list_images(arguments[1:])
        model = zoo.open_model(_MODEL.value, _WEIGHTS.value)
        model = named(model, _NAMES.value) if _NAMES.value else model
        predictions = inference.predict(model, paths, top=_TOP.value, batch_size=_BATCH.value)
    except S3Error as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    if not _JSON.value:
        Console().print(table(predictions))
        return 0
    for path, classes in predictions:
        print(json.dumps({"path": path, "classes": [{"name": name, "probability": p} for name, p in classes]}))
    return 0


if __name__ == "__main__":
    app.run(main)
