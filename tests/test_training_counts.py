"""What a step says of itself, by hand: the rate of its own update, and right answers among the images that count."""

import json
import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from s3_jax.classification.task import of_classes
from s3_jax.config import ModelConfig
from s3_jax.data.sources import MemoryImages
from s3_jax.data.splits import Subset
from s3_jax.errors import S3Error
from s3_jax.task import Variables
from s3_jax.training.devices import make_mesh
from s3_jax.training.evaluate import Placed, lines_of
from s3_jax.training.programs import evaluation_of
from s3_jax.training.state import init_state
from s3_jax.training.steps import train_step


def test_the_learning_rate_told_is_that_of_the_update() -> None:
    """A loss of gradient 1, and rates of 0.1, 0.2, 0.4: the weight goes down by just these."""
    rates = jnp.asarray([0.1, 0.2, 0.4])
    transformation = optax.sgd(lambda step: rates[step])
    state = init_state(Variables({"weight": jnp.zeros(())}, {}), transformation=transformation, ema_decay=0.0)
    step = partial(
        train_step,
        terms=lambda variables, *others: ({"weight": (variables.params["weight"], jnp.ones(()))}, {}),
        transformation=transformation,
        schedule=lambda step: rates[step],
        accumulation_steps=1,
        ema_decay=0.0,
    )
    batch, told, weights = {"weight": jnp.ones(2)}, [], []
    for _ in range(3):
        state, metrics = step(state, batch, None, jax.random.key(0))
        told.append(float(metrics["learning_rate"]))
        weights.append(float(state.params["weight"]))
    np.testing.assert_allclose(told, rates, rtol=1e-6)
    np.testing.assert_allclose(weights, [-0.1, -0.3, -0.7], rtol=1e-6)


def test_examples_are_scored_by_their_own_lines() -> None:
    """Of four images 7, 2 and 5 are right, and 9 has its class among the five likeliest."""
    task = of_classes(ModelConfig(), "abcdef")
    images = MemoryImages(np.zeros((10, 1, 1, 3), np.uint8), np.zeros(10, np.int64), "zeros")
    subset = Subset(images, np.array([2, 5, 7, 9]), "test")
    ranked = np.array([[2, 0, 1, 3, 4], [0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [4, 0, 2, 3, 5]])
    predicted = {"ranked": ranked, "label": np.array([2, 0, 1, 5]), "finite": np.ones(4, bool)}
    lines = task.lines(subset, [0, 1, 2, 3], predicted)
    assert [line["image"] for line in lines] == [2, 5, 7, 9]
    metrics = task.score(json.loads(json.dumps(lines)))
    assert metrics == {"top1": 75.0, "top5": 100.0, "error": 25.0}
    assert task.error(metrics) == 25.0
    with pytest.raises(S3Error, match="answers to 2 of 4 images are not finite"):
        task.lines(subset, [0, 1, 2, 3], predicted | {"finite": np.array([True, False, True, False])})


def test_an_image_of_weight_0_is_in_no_sum_and_no_count() -> None:
    """Whatever its target is; the logits of the stand-in are an image's first pixel."""
    task = of_classes(ModelConfig(), "abc")
    rng = np.random.default_rng(0)
    batch = {"image": rng.normal(size=(4, 2, 2, 3)), "target": rng.dirichlet(np.ones(3), 4), "weight": np.ones(4)}
    kept = {name: array[[0, 2]] for name, array in batch.items()}

    def terms(batch: dict) -> tuple[float, float]:
        (found,) = task.terms(lambda image, *_, **__: image[:, 0, 0], batch, None, None, 0.0).values()
        return tuple(map(float, found))

    np.testing.assert_allclose(terms(batch | {"weight": np.array([1.0, 0, 1, 0])}), terms(kept), rtol=1e-6)
    assert terms(batch)[1] == pytest.approx(4.0)


class Plain(nnx.Module):
    """Nothing to train."""

    def __init__(self) -> None:
        self.unused = nnx.Param(jnp.zeros(1))


def test_examples_that_do_not_count_have_no_line() -> None:
    """Of seven examples in batches of three the last batch has one, and example 4 is bad."""
    task = types.SimpleNamespace(
        predict=lambda network, batch, subnet: {"number": batch["number"]},
        lines=lambda subset, rows, predicted: [
            {"row": row, "number": int(number)} for row, number in zip(rows, predicted["number"], strict=True)
        ],
    )
    definition, params = nnx.split(Plain())
    step = evaluation_of(task, definition, make_mesh(1))
    numbers, weights = np.arange(9).reshape(3, 3), np.array([[1, 1, 1], [1, 0, 1], [1, 0, 0]], np.float32)
    batches = [
        Placed({"number": number + 10, "weight": weight}, range(3 * index, 3 * index + 3))
        for index, (number, weight) in enumerate(zip(numbers, weights, strict=True))
    ]
    variables = Variables(nnx.to_pure_dict(params), {})
    lines = lines_of(task, None, lambda batch: step(variables, batch, None), batches)
    assert lines == [{"row": row, "number": row + 10} for row in (0, 1, 2, 3, 5, 6)]
