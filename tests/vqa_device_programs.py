"""What a subprocess of test_vqa_task.py runs, with four forced devices.

An update of a network on one device, and on four: with dropout, stochastic depth, examples that do not count and
images that do not fill their canvas. Prints as JSON each result's largest difference, relative to its largest entry.
"""

import json
from typing import Any

import jax
import numpy as np
import optax
from test_vqa_network import SPACE, VOCABULARY, make, tiny_config

from s3_jax.space import smallest
from s3_jax.task import variables_of
from s3_jax.training.devices import make_mesh, put_batch, put_replicated
from s3_jax.training.programs import Length, training_of
from s3_jax.vqa.task import of_answers

BATCH, QUESTIONS = 8, 2


def batch_of() -> dict[str, np.ndarray]:
    """Of the devices' two examples each: two, one, none and two count."""
    rng = np.random.default_rng(0)
    words = rng.integers(5, len(VOCABULARY), (BATCH, QUESTIONS, 6)).astype(np.int32)
    words[:, 1, 4:] = 0
    asked = np.ones((BATCH, QUESTIONS), np.float32)
    asked[1, 1] = 0
    return {
        "image": rng.normal(size=(BATCH, 16, 16, 3)).astype(np.float32),
        "size": np.array([[16, 16], [10, 16]] * (BATCH // 2), np.int32),
        "words": words,
        "asked": asked,
        "scores": rng.uniform(size=(BATCH, QUESTIONS, 5)).astype(np.float32),
        "weight": np.float32([1, 1, 1, 0, 0, 0, 1, 1]),
    }


def updated(devices: int) -> Any:
    """Loss, gradient and running statistics of an update."""
    config, mesh = tiny_config(), make_mesh(devices)
    architecture = smallest(SPACE)
    task = of_answers(config, "abcde", VOCABULARY)
    training = training_of(task, architecture, config.train, Length(10, 5.0), mesh)
    state = training.begin(put_replicated(mesh, variables_of(make(architecture))))
    state, metrics = training.update(state, put_batch(mesh, batch_of()), None, jax.random.key(1))
    return jax.device_get((metrics["loss"], optax.tree.get(state.optimizer, "mu"), state.stats))


def main() -> dict[str, float]:
    """The differences by the names of the results."""
    names = ("loss", "gradient", "statistics")
    return {name: difference(*pair) for name, *pair in zip(names, updated(1), updated(4), strict=True)}


def difference(one: Any, other: Any) -> float:
    """The largest of an array, relative to its largest entry, or to a hundredth of that of all arrays.

    The gradient of a bias in front of batch normalisation is 0, and what is computed of it noise.
    """
    pairs = [tuple(map(np.asarray, pair)) for pair in zip(*map(jax.tree.leaves, (one, other)), strict=True)]
    least = max(np.abs(a).max() for a, _ in pairs) / 100
    return float(max(np.abs(a - b).max() / max(np.abs(a).max(), least) for a, b in pairs))


if __name__ == "__main__":
    print(json.dumps(main()))
