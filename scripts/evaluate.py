"""Measure a network: accuracy of a classifier, mIoU of a segmentation network, AP of a detector, VQA's accuracy.

    python scripts/evaluate.py --model=s3_t --weights=swin_s3_tiny.safetensors --source=image_folder --path=IMAGENET
    python scripts/evaluate.py --model=runs/digits/network --source=digits --split=test
    python scripts/evaluate.py --model=runs/mine/network --path=FOLDER --split=test --scales=0.5,1,1.5 --flip
    python scripts/evaluate.py --model=runs/coco/network --path=COCO --split=val2017 --results=found.json
    python scripts/evaluate.py --model=runs/vqa/network --path=FOLDER --split=test --results=answers.json

--model, --weights, --class_names: as for predict.py; --help shows the flags of all tasks, and with --model those of its
task. --source: digits, tfds or image_folder, with --path, or --name for TFDS. The data's classes are found among the
network's by their names; a published model knows its own by number alone, which stand for ImageNet's in their order.
For a segmentation network FOLDER has images/SPLIT and MASKS/SPLIT, and --class_table tells what masks mean
(FOLDER/classes.txt if not given); --scales: the mean of its probabilities at these scales, and with --flip mirrored as
well. For a detector FOLDER has data in COCO's form, of the categories that the network was trained on; for a network
that answers questions, the files of docs/vqa.md. --results: a file to write what is found, or answered, to.
"""

from __future__ import annotations

import json
import sys
from functools import partial

from absl import app, flags

# Nothing here may import JAX or anything else that takes seconds: `main` does, once the flags are checked.
from s3_jax import commands
from s3_jax.errors import S3Error
from s3_jax.paths import print_any_name, printable

_MODEL = flags.DEFINE_string("model", None, "Published model, or folder of a network.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "File or hf-hub:owner/name of a published model's weights.")
_NAMES = flags.DEFINE_string("class_names", "", "File with the name of a class in each line.")
_JSON = flags.DEFINE_bool("json", False, "Print one line of JSON.")


def main(arguments: list[str]) -> int:
    """Measure and print. Returns the exit code."""
    del arguments
    from s3_jax.networks import zoo
    from s3_jax.training.devices import keep_compiled_programs, keep_freed_memory

    keep_compiled_programs()
    keep_freed_memory()
    print_any_name()
    try:
        model = zoo.open_model(_MODEL.value, _WEIGHTS.value, _NAMES.value)
        part = commands.part_of(model.spec.TASK, "evaluate")
        measured = part.function(model, commands.options_of(part))
    except S3Error as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    record = {"model": printable(_MODEL.value)} | measured.record
    print(json.dumps(record, allow_nan=False) if _JSON.value else measured.words)
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=partial(commands.parse, "evaluate"))
