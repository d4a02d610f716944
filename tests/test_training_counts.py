"""What a step says of itself, by hand: the rate of its own update, and right answers among the images that count."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from s3_jax.training.state import init_state
from s3_jax.training.steps import eval_step, train_step


def test_the_learning_rate_told_is_that_of_the_update() -> None:
    """A loss of gradient 1, and rates of 0.1, 0.2, 0.4: the weight goes down by just these."""
    rates = jnp.asarray([0.1, 0.2, 0.4])
    transformation = optax.sgd(lambda step: rates[step])
    state = init_state({"weight": jnp.zeros(())}, transformation=transformation, ema_decay=0.0)
    step = partial(
        train_step,
        loss=lambda params, batch, subnet, key: params["weight"],
        transformation=transformation,
        schedule=lambda step: rates[step],
        accumulation_steps=1,
        ema_decay=0.0,
    )
    batch, told, weights = {"image": jnp.zeros((2, 1, 1, 3)), "target": jnp.ones((2, 2))}, [], []
    for _ in range(3):
        state, metrics = step(state, batch, None, jax.random.key(0))
        told.append(float(metrics["learning_rate"]))
        weights.append(float(state.params["weight"]))
    np.testing.assert_allclose(told, rates, rtol=1e-6)
    np.testing.assert_allclose(weights, [-0.1, -0.3, -0.7], rtol=1e-6)


class FirstChannel(nnx.Module):
    """Takes an image's red pixels for logits, and adds a bias to them."""

    def __init__(self) -> None:
        self.bias = nnx.Param(jnp.zeros(3))

    def __call__(self, images: jax.Array, subnet: None) -> jax.Array:
        return images[:, 0, :, 0] + self.bias[...]


def test_only_images_that_count_are_counted_and_right() -> None:
    """Of five images 0, 1 and 3 are right; 1 and 4 do not count."""
    answers, labels, weights = np.array([2, 0, 1, 1, 0]), np.array([2, 0, 0, 1, 2]), np.array([1.0, 0, 1, 1, 0])
    images = np.zeros((5, 1, 3, 3), np.float32)
    images[np.arange(5), 0, answers, 0] = 1.0
    definition, params = nnx.split(FirstChannel())
    batch = {"image": images, "label": labels, "weight": weights}
    found = eval_step(nnx.to_pure_dict(params), batch, None, definition=definition)
    assert (float(found["correct"]), float(found["images"])) == (2.0, 3.0)
