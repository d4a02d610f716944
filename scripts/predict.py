"""Say what is in images: the likeliest classes of files, or of all images of a folder, or the class of each pixel.

    python scripts/predict.py --model=s3_t --weights=swin_s3_tiny.safetensors cat.jpg dog.jpg
    python scripts/predict.py --model=runs/digits/network digits/ --json
    python scripts/predict.py --model=runs/mine/network street.jpg --out=pictures

--model is the name of a published model, whose weights --weights gives (timm's or the official file, or
hf-hub:owner/name), or the folder of a network. --class_names: a file with a name a line, for networks that know their
classes by number alone. A folder's images are taken at any depth, without what is hidden. A file that is no image is
named on standard error, and the exit code is 2; the others are answered all the same. A segmentation network writes
for each image two PNG files to --out: the classes over the image with a legend, and a mask with a palette; --json
prints the share of each class as well.
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
from s3_jax.networks.standalone import Standalone
from s3_jax.paths import AnyPath, print_any_name, printable, user_path
from s3_jax.segmentation import pictures
from s3_jax.segmentation.inference import predict
from s3_jax.segmentation.standalone import SegmentationSpec
from s3_jax.training.devices import keep_compiled_programs, keep_freed_memory
from s3_jax.writing import write_whole

_MODEL = flags.DEFINE_string("model", None, "Published model, or folder of a network.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "File or hf-hub:owner/name of a published model's weights.")
_NAMES = flags.DEFINE_string("class_names", "", "File with the name of a class in each line.")
_TOP = flags.DEFINE_integer("top", 5, "How many classes of each image.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 16, "Images at a time.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "", "Folder for a segmentation network's pictures.")
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


def segment(model: Standalone, paths: list[AnyPath]) -> int:
    """Write the pictures of a segmentation network, and print where they are. Returns the exit code."""
    if not _OUT.value:
        raise S3Error("a segmentation network answers with pictures: give a folder for them with --out")
    out, spec, code = user_path(_OUT.value), model.spec, 0
    colours = pictures.colours_of(spec.colours, len(spec.class_names))
    for number, found in enumerate(predict(model, paths)):
        if isinstance(found, str):
            print(f"predict: {found}", file=sys.stderr)
            code = 2
            continue
        path, pixels, classes = found
        name = f"{number:04d}_{path.stem}" if len(paths) > 1 else path.stem
        files = [out / f"{printable(name)}_{kind}.png" for kind in ("overlay", "classes")]
        drawn = pictures.overlay(pixels, classes, spec.class_names, colours), pictures.as_mask(classes, colours)
        for file, picture in zip(files, drawn, strict=True):
            write_whole(file, pictures.encoded(picture))
        shares = pictures.shares_of(classes, spec.class_names)
        record = {"path": printable(path), "overlay": printable(files[0]), "classes": shares}
        likeliest = ", ".join(f"{printable(name)} {100 * share:.1f} %" for name, share in list(shares.items())[:5])
        print(json.dumps(record) if _JSON.value else f"{printable(path)}: {likeliest}; {printable(files[0])}")
    return code


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
        if isinstance(model.spec, SegmentationSpec):
            return segment(model, paths)
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
