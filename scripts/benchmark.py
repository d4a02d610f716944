"""Time the programs of a configuration on this machine; every figure is a median of repeated runs.

    python scripts/benchmark.py --what=sandwich --config=configs/imagenet_s3.py --batch=2 --config.model.dtype=float32
    python scripts/benchmark.py --what=training --config=configs/detection_small.py --batch=8

what: sandwich (an update of a supernet), training (an update of the network of config.backbone, on its own data),
gradient, forward (a random subnet), inference (the largest network alone, or the one of --architecture), input (images
from their files to batches), work (no time: the multiply-adds that so many updates execute, over what their subnets
need). --json prints one line with the figures, the settings and the versions.
"""

from __future__ import annotations

import json
import sys

import jax
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from s3_jax.command_flags import parse_flags
from s3_jax.config import config_of, room_of
from s3_jax.errors import S3Error
from s3_jax.finetune import start_without_weights, target_architecture
from s3_jax.networks import zoo
from s3_jax.profiling.benchmark import WHAT, Bench, figures_of
from s3_jax.training.devices import keep_compiled_programs, keep_freed_memory
from s3_jax.training.records import environment

_CONFIG = config_flags.DEFINE_config_file("config", "configs/imagenet_s3.py", "Configuration file.")
_WHAT = flags.DEFINE_enum("what", "sandwich", list(WHAT), "What to time.")
_BATCH = flags.DEFINE_integer("batch", 2, "Images at a time.", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Instead of the configuration's model.dtype.")
_CLASSES = flags.DEFINE_integer("num_classes", 1000, "Of the synthetic labels.", lower_bound=1)
_ARCHITECTURE = flags.DEFINE_string("architecture", "", "Of one network: a published one, or a JSON file.")
_REPEATS = flags.DEFINE_integer("repeats", 8, "Runs of which the median is taken.", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "Print one line of JSON.")


def main(arguments: list[str]) -> int:
    """Measure and print. Returns the exit code."""
    del arguments
    keep_compiled_programs()
    keep_freed_memory()
    settings = _CONFIG.value.to_dict()
    settings["model"]["dtype"] = _DTYPE.value or settings["model"]["dtype"]
    try:
        config = config_of(settings)
        chosen = zoo.read_architecture(_ARCHITECTURE.value) if _ARCHITECTURE.value else None
        if not chosen and config.backbone.is_given:
            chosen = target_architecture(start_without_weights(config.backbone), config)
        task = room_of(config.task).without_images(config, tuple(map(str, range(_CLASSES.value))))
        bench = Bench(config, task, _BATCH.value, _REPEATS.value, chosen)
        figures = figures_of(bench, _WHAT.value)
    except S3Error as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    about = {
        "what": _WHAT.value,
        "config": config_flags.get_config_filename(flags.FLAGS["config"]),
        "batch": _BATCH.value,
    }
    if _JSON.value:
        print(json.dumps(about | figures | {"settings": settings["model"], "environment": environment()}))
        return 0
    table = Table(
        title=f"{_WHAT.value}, {_BATCH.value} images",
        min_width=40,
        caption=f"{jax.devices()[0].device_kind}, jax {jax.__version__}",
    )
    for name in figures:
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:.4g}" for value in figures.values()))
    Console().print(table)
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
