"""Say what is in images: the likeliest classes of files, or of all images of a folder.

    python scripts/predict.py --model=s3_t --weights=swin_s3_tiny.safetensors cat.jpg dog.jpg
    python scripts/predict.py --model=runs/digits/network digits/ --json

--model is the name of a published model, whose weights --weights gives (timm's or the official file, or
hf-hub:owner/name), or the folder of a network. --class_names: a file with a name a line, for networks that know their
classes by number alone. A folder's images are taken at any depth, without what is hidden. A file that is no image is
named on standard error, and the exit code is 2; the others are answered all the same.
"""

from __future__ import annotations

import json
import sys

from absl import app, flags
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from s3_jax.classification import inference
from s3_jax.errors import S3Error
from s3_jax.networks import zoo
from s3_jax.paths import print_any_name, printable
from s3_jax.training.devices import keep_compiled_programs, keep_freed_memory

_MODEL = flags.DEFINE_string("model", None, "Published model, or folder of a network.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "File or hf-hub:owner/name of a published model's weights.")
_NAMES = flags.DEFINE_string("class_names", "", "File with the name of a class in each line.")
_TOP = flags.DEFINE_integer("top", 5, "How many classes of each image.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 16, "Images at a time.", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "Print one line of JSON for each image.")


def table(predictions: list[inference.Prediction]) -> Table:
    """A row for each image; names are shown as they are, whatever they would mean as markup."""
    places = [f"{place}." for place in range(1, len(predictions[0].classes) + 1)]
    rows = Table(Column("image", overflow="fold"), *places)
    for path, classes in predictions:
        cells = (f"{printable(name)}\n{100 * chance:.1f} %" for name, chance in classes)
        rows.add_row(Text(printable(path)), *map(Text, cells))
    return rows


def line(prediction: inference.Prediction) -> str:
    """A line of JSON for an image."""
    classes = [{"name": printable(name), "probability": chance} for name, chance in prediction.classes]
    return json.dumps({"path": printable(prediction.path), "classes": classes}, allow_nan=False)


def main(arguments: list[str]) -> int:
    """Predict and print. Returns the exit code: 2 for a mistake, and where a file is no image."""
    keep_compiled_programs()
    keep_freed_memory()
    print_any_name()
    try:
        if len(arguments) < 2:
            raise S3Error("give images, or a folder of them")
        paths = inference.list_images(arguments[1:])
        model = zoo.open_model(_MODEL.value, _WEIGHTS.value, _NAMES.value)
        predictions, problems = inference.predict(model, paths, top=_TOP.value, batch_size=_BATCH.value)
    except S3Error as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    if _JSON.value:
        print("".join(f"{line(prediction)}\n" for prediction in predictions), end="")
    elif predictions:
        Console().print(table(predictions))
    for problem in problems:
        print(f"predict: {problem}", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    app.run(main)
