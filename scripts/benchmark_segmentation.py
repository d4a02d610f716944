"""Time a training step and a forward pass of UperNet on this machine, as a line of JSON; figures are medians.

    python scripts/benchmark_segmentation.py --model=s3_t --batch=2 --size=512 --steps=3

Weights, images and labels are random. The step is forward, both heads' cross-entropy, backward and AdamW; compare only
with figures from the same machine in the same quiet quarter of an hour.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import jax
import numpy as np
from absl import app, flags

from s3_jax.command_flags import parse_flags
from s3_jax.config import TrainConfig, config_of, default_config
from s3_jax.networks import zoo
from s3_jax.profiling.benchmark import median_seconds
from s3_jax.segmentation.resizing import resized
from s3_jax.segmentation.task import Segmentation, of_classes
from s3_jax.training.devices import keep_compiled_programs, keep_freed_memory, make_mesh
from s3_jax.training.networks import define, merged
from s3_jax.training.programs import Length, training_of

_MODEL = flags.DEFINE_string("model", "s3_t", "Published model that is the backbone.")
_BATCH = flags.DEFINE_integer("batch", 2, "Images.", lower_bound=1)
_SIZE = flags.DEFINE_integer("size", 512, "Pixels, both sides.", lower_bound=32)
_CLASSES = flags.DEFINE_integer("classes", 150, "Classes.", lower_bound=2)
_STEPS = flags.DEFINE_integer("steps", 3, "Repetitions, of which the median is taken.", lower_bound=1)
TRAIN = TrainConfig(learning_rate=6e-5, min_learning_rate=0.0, weight_decay=0.01, drop_path=0.0)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the computation.")


def task() -> Segmentation:
    """Segmentation with images of the benchmark's size."""
    config = default_config("s3_jax.segmentation")
    config.model.dtype = _DTYPE.value
    config.augment.crop = _SIZE.value
    return of_classes(config_of(config.to_dict()), tuple(map(str, range(_CLASSES.value))))


def main(arguments: list[str]) -> None:
    """Time and print."""
    del arguments
    keep_compiled_programs()
    keep_freed_memory()
    measured, architecture, rng = task(), zoo.architecture(_MODEL.value), np.random.default_rng(0)
    side, count = _SIZE.value, _BATCH.value
    batch = {
        "image": jax.numpy.asarray(rng.normal(size=(count, side, side, 3)), np.float32),
        "label": jax.numpy.asarray(rng.integers(0, _CLASSES.value, (count, side, side)), np.uint8),
        "weight": jax.numpy.ones(count),
    }
    training = training_of(measured, architecture, TRAIN, Length(100, 100.0), make_mesh(1))
    state = training.begin(measured.initial(architecture, jax.random.key(0), print))
    variables = jax.tree.map(np.asarray, state.eval_variables)
    key = jax.random.key(1)

    def step() -> Any:
        """One update; the state before it is donated."""
        nonlocal state
        state, metrics = training.update(state, batch, None, key)
        return metrics

    seconds = median_seconds(step, _STEPS.value)
    network = define(measured, architecture)
    forward = jax.jit(lambda variables, image: resized(merged(network, variables)(image), (side, side)))
    found = {"step_s": seconds, "forward_s": median_seconds(partial(forward, variables, batch["image"]), _STEPS.value)}
    about = {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "batch": count, "size": side}
    print(json.dumps(about | found | {"params": measured.cost(architecture).params}))


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
