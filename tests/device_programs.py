"""What the subprocesses of test_devices.py run: `python tests/device_programs.py DEVICES FOLDER STEPS SAVE_AT SHARD`.

Sandwich training of a small supernet on random images. Prints as JSON the losses of its updates, how many numbers a
gradient has, and the bytes that an update sends to other devices, by kind of collective. SHARD is 0 or 1.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from s3_jax.classification.task import of_classes
from s3_jax.config import ModelConfig, TrainConfig
from s3_jax.profiling.collectives import collectives
from s3_jax.space import SearchSpace, StageSpace, sample
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.devices import (
    check_batch_size,
    make_mesh,
    put_batch,
    put_replicated,
    replicated,
)
from s3_jax.training.networks import random_variables, trained_subnets
from s3_jax.training.programs import Length, training_of

BATCH, NAMES, DROP_PATH = 32, "abcde", 0.3
CLASSES = len(NAMES)
SPACE = SearchSpace((StageSpace((1, 2), (8, 16), (2,), (1.0, 2.0), (32, 64)),))
MODEL = ModelConfig(image_size=8, patch_size=2, kernel_std=0.0)
CONFIG = TrainConfig(
    batch_size=BATCH, learning_rate=3e-3, accumulation_steps=2, ema_decay=0.9, clip_norm=1.0, drop_path=DROP_PATH
)


def batch_of(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    target = np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=BATCH)]
    target[step % BATCH] = 0  # one bad image
    image = rng.normal(size=(BATCH, 8, 8, 3)).astype(np.float32)
    return {"image": image, "target": target, "weight": target.sum(1)}


def train(num_devices: int, folder: Path, num_steps: int, save_at: int, shard: bool) -> dict[str, Any]:
    """What the updates from the last checkpoint in `folder` to `num_steps` show, saving after `save_at` updates."""
    mesh = make_mesh(num_devices)
    check_batch_size(mesh, BATCH, CONFIG.accumulation_steps, "batch_size")
    task = of_classes(MODEL, NAMES)
    training = training_of(task, SPACE, CONFIG, Length(100, 1.0), mesh, shard=shard)
    variables = put_replicated(mesh, random_variables(task, SPACE, jax.random.key(0)))
    state = training.begin(variables)
    layout, update = training.layout, training.update
    checkpoints = Checkpoints(folder, SPACE.to_json())
    state = checkpoints.restore(state, layout) or state
    key = jax.jit(lambda: jax.random.key(0), out_shardings=replicated(mesh))()
    losses, compiled = [], None
    for step in range(int(state.step), num_steps):
        rng = np.random.default_rng([1, step])
        masks = trained_subnets(SPACE, [sample(SPACE, rng) for _ in range(2)])
        inputs = (put_batch(mesh, batch_of(step)), put_replicated(mesh, masks), key)
        compiled = compiled or update.lower(state, *inputs).compile()
        state, metrics = compiled(state, *inputs)
        losses.append(metrics["subnet_losses"].tolist())
        if step + 1 == save_at:
            checkpoints.save(state)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)} == {num_devices}
    held = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(state))
    whole = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert held < 1.2 * whole / num_devices if shard else held == whole
    checkpoints.close()
    sent = {each.kind: each.bytes for each in collectives(compiled.as_text())}
    return {"losses": losses, "gradient": sum(leaf.size for leaf in jax.tree.leaves(variables.params)), "sent": sent}


if __name__ == "__main__":
    devices, where, steps, save, shard = sys.argv[1:]
    print(json.dumps(train(int(devices), Path(where), int(steps), int(save), shard == "1")))
