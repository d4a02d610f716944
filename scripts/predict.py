"""Say what is in images, files or all of a folder: the likeliest classes, the class of each pixel, or objects.

    python scripts/predict.py --model=s3_t --weights=swin_s3_tiny.safetensors cat.jpg dog.jpg
    python scripts/predict.py --model=runs/digits/network digits/ --json
    python scripts/predict.py --model=runs/mine/network street.jpg --out=pictures
    python scripts/predict.py --model=runs/vqa/network --question="Is there a circle?" picture.png

--model is the name of a published model, whose weights --weights gives (timm's or the official file, or
hf-hub:owner/name), or the folder of a network. --class_names: a file with a name a line, for networks that know their
classes by number alone. A folder's images are taken at any depth, without what is hidden. A file that is no image is
named on standard error, and the exit code is 2; the others are answered all the same. A segmentation network writes
for each image two PNG files to --out: the classes over the image with a legend, and a mask with a palette; --json
prints the share of each class as well. A detector writes one, the image with its objects; --json prints them as COCO's
results have them, for images that are numbered 0, 1, 2, ... in their order. A network for visual question answering is
asked --question="..." about each image and answers with its likeliest answers. --help shows the flags of all tasks, and
with --model those of its task.
"""

from __future__ import annotations

import sys
from functools import partial

from absl import app, flags

# Nothing here may import JAX or anything else that takes seconds: `main` does, once the flags are checked.
from s3_jax import commands
from s3_jax.data.image_folder import list_images
from s3_jax.errors import S3Error
from s3_jax.paths import print_any_name

_MODEL = flags.DEFINE_string("model", None, "Published model, or folder of a network.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "File or hf-hub:owner/name of a published model's weights.")
_NAMES = flags.DEFINE_string("class_names", "", "File with the name of a class in each line.")
_JSON = flags.DEFINE_bool("json", False, "Print one line of JSON for each image.")


def main(arguments: list[str]) -> int:
    """Predict and print. Returns the exit code: 2 for a mistake, and where a file is no image."""
    print_any_name()
    try:
        if len(arguments) < 2:
            raise S3Error("give images, or a folder of them")
        paths = list_images(arguments[1:])

        from s3_jax.networks import zoo
        from s3_jax.training.devices import keep_compiled_programs, keep_freed_memory

        keep_compiled_programs()
        keep_freed_memory()
        model = zoo.open_model(_MODEL.value, _WEIGHTS.value, _NAMES.value)
        part = commands.part_of(model.spec.TASK, "predict")
        return part.function(model, paths, commands.options_of(part), as_json=_JSON.value)
    except S3Error as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    app.run(main, flags_parser=partial(commands.parse, "predict"))
