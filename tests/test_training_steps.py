"""The laws of an update: averaged gradients, accumulation, rows that do not count, averaged weights, stochastic depth.

Most hold for any loss, and are shown with linear classifiers, whose programs compile in no time.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s3_jax.config import TrainConfig
from s3_jax.models.layers import drop_path
from s3_jax.models.subnet import StageMask, SubnetMask, drop_path_rates
from s3_jax.training.state import init_state, optimizer
from s3_jax.training.steps import accumulate, soft_cross_entropy, split_batch, train_step

BATCH, CLASSES = 8, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(BATCH, 2, 2, 3)).astype(np.float32)
TARGETS = RNG.dirichlet(np.ones(CLASSES), BATCH).astype(np.float32)
PARAMS = {"kernel": jnp.asarray(RNG.normal(size=(12, CLASSES)), jnp.float32), "bias": jnp.zeros(CLASSES)}
# A "subnet" of the classifier is what its kernel is multiplied with.
SUBNETS = np.array([1.0, 2.0, 0.5, -1.5], np.float32)
SGD = optax.sgd(0.1)


def linear_loss(params, batch, scale, key):
    scale = 1.0 if scale is None else scale
    logits = batch["image"].reshape(len(batch["image"]), -1) @ (scale * params["kernel"]) + params["bias"]
    return soft_cross_entropy(logits, batch["target"], batch["total"])


def step(batch=None, *, loss=linear_loss, subnets=SUBNETS, state=None, **settings):
    settings = {"transformation": SGD, "accumulation_steps": 1, "ema_decay": 0.0, **settings}
    begin = init_state(PARAMS, transformation=settings["transformation"], ema_decay=settings["ema_decay"])
    run = jax.jit(
        partial(
            train_step,
            loss=loss,
            schedule=optax.constant_schedule(0.1),
            **settings,
        )
    )
    batch = {"image": IMAGES, "target": TARGETS} if batch is None else batch
    return run(begin if state is None else state, batch, subnets, jax.random.key(0))


def whole_batch():
    return {"image": IMAGES, "target": TARGETS, "total": jnp.asarray(TARGETS.sum())}


def norm(tree):
    return np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(tree)))


def assert_trees_close(actual, expected, rtol=1e-5):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), actual, expected)


def test_the_gradient_is_the_mean_over_subnets():
    values, gradients = [], []
    for scale in SUBNETS:
        value, gradient = jax.value_and_grad(linear_loss)(PARAMS, whole_batch(), scale, None)
        values.append(value)
        gradients.append(gradient)
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *gradients)
    state, metrics = step()
    assert_trees_close(state.params, jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, mean))
    np.testing.assert_allclose(metrics["subnet_losses"], values, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(values), rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], norm(mean), rtol=1e-5)
    assert int(state.step) == 1


def test_a_single_network_has_no_subnets():
    state, metrics = step(subnets=None)
    value, gradient = jax.value_and_grad(linear_loss)(PARAMS, whole_batch(), None, None)
    assert_trees_close(state.params, jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, gradient))
    np.testing.assert_allclose(metrics["subnet_losses"], [value], rtol=1e-5)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_changes_nothing(parts):
    """Also where bad images make the parts count differently many rows."""
    target = TARGETS.copy()
    target[[0, 2]] = 0
    batch = {"image": IMAGES, "target": target}
    whole, parted = step(batch), step(batch, accumulation_steps=parts)
    assert_trees_close(parted, whole)


def test_parts_take_every_image_once_and_evenly_from_the_devices():
    """Of 8 images, of which each of two devices holds 4 in a row, both parts take two from each device."""
    parts = np.asarray(split_batch({"x": np.arange(8)}, 2)["x"])
    assert sorted(parts.ravel()) == list(range(8))
    for part in parts:
        assert [int((part // 4 == device).sum()) for device in (0, 1)] == [2, 2]


def test_rows_without_a_label_do_not_count():
    bad = [1, 6]
    target = TARGETS.copy()
    target[bad] = 0
    state, metrics = step({"image": IMAGES, "target": target})
    kept = np.delete(np.arange(BATCH), bad)
    expected, without = step({"image": IMAGES[kept], "target": TARGETS[kept]})
    assert_trees_close(state.params, expected.params)
    np.testing.assert_allclose(metrics["subnet_losses"], without["subnet_losses"], rtol=1e-5)
    assert int(metrics["bad_images"]) == 2
    assert int(without["bad_images"]) == 0


def test_a_batch_of_bad_images_alone_moves_nothing():
    state, metrics = step({"image": IMAGES, "target": np.zeros_like(TARGETS)})
    jax.tree.map(np.testing.assert_array_equal, state.params, PARAMS)
    assert float(metrics["loss"]) == 0.0


def test_averaged_weights_follow_their_formula():
    """ema = d * ema + (1 - d) * params after each update, from the initial weights on."""
    first, _ = step(ema_decay=0.9)
    second, _ = step(ema_decay=0.9, state=first)
    ema = jax.tree.map(lambda p, q: 0.9 * p + 0.1 * q, PARAMS, first.params)
    assert_trees_close(first.ema, ema)
    ema = jax.tree.map(lambda p, q: 0.9 * p + 0.1 * q, ema, second.params)
    assert_trees_close(second.ema, ema)
    assert float(jnp.abs(second.ema["kernel"] - second.params["kernel"]).max()) > 1e-3


def test_clipping_by_configuration_leaves_the_reported_norm():
    transformation = optimizer(TrainConfig(clip_norm=0.01, weight_decay=0.0), optax.constant_schedule(0.1))
    state, metrics = step(transformation=transformation)
    assert float(metrics["grad_norm"]) > 0.01
    moment = optax.tree_utils.tree_get(state.optimizer, "mu")
    np.testing.assert_allclose(norm(moment), 0.1 * 0.01, rtol=1e-5)


def test_random_draws_differ_between_updates_networks_and_parts_and_repeat_with_the_key():
    """The loss is the draw itself, so the metrics show what every network and part has drawn."""

    def draw(params, batch, subnet, key):
        return jax.random.uniform(key) + 0 * params["bias"].sum()

    def values(key, parts):
        images = {"image": jnp.asarray(IMAGES), "target": jnp.asarray(TARGETS)}
        return accumulate(draw, parts, PARAMS, images, jnp.ones(()), SUBNETS, key)[1]

    one, two = values(jax.random.key(0), 1), values(jax.random.key(0), 2)
    assert len(np.unique(one)) == len(SUBNETS)
    np.testing.assert_array_equal(one, values(jax.random.key(0), 1))
    assert not np.isin(one, values(jax.random.key(1), 1)).any()
    # The first part draws what the whole did, the second something else.
    assert not np.isclose(np.asarray(two), 2 * np.asarray(one)).any()
    state, first = step(loss=draw, subnets=None)
    _, second = step(loss=draw, subnets=None, state=state)
    assert float(first["loss"]) != float(second["loss"])


def mask_of(*depths, most=3):
    count = np.array(1, np.int32)
    blocks = np.ones(most, np.int32)
    return SubnetMask(tuple(StageMask(count, np.arange(most) < depth, blocks, blocks, blocks) for depth in depths))


def test_drop_path_rates_rise_over_the_subnets_own_blocks():
    """A subnet of 2 + 3 blocks has the rates 0, 0.1, 0.2, 0.3, 0.4; one of 1 + 1 has 0 and 0.4."""
    rates = drop_path_rates(mask_of(2, 3), 0.4)
    np.testing.assert_allclose(rates[0][:2], [0.0, 0.1], atol=1e-7)
    np.testing.assert_allclose(rates[1], [0.2, 0.3, 0.4], atol=1e-7)
    rates = drop_path_rates(mask_of(1, 1), 0.4)
    np.testing.assert_allclose([rates[0][0], rates[1][0]], [0.0, 0.4], atol=1e-7)
    np.testing.assert_array_equal(drop_path_rates(mask_of(1), 0.4)[0][0], 0.0)


def test_drop_path_keeps_the_expectation_per_image_and_repeats_with_the_key():
    x = jnp.ones((4000, 2, 2, 1))
    dropped = np.asarray(drop_path(x, 0.25, jax.random.key(0)))
    per_image = dropped.reshape(len(dropped), -1)
    np.testing.assert_array_equal(per_image, np.broadcast_to(per_image[:, :1], per_image.shape))
    np.testing.assert_allclose(np.unique(per_image), [0.0, 4 / 3], rtol=1e-6)
    # Standard error of the mean: sqrt(0.25 / 0.75 / 4000) = 0.009.
    assert abs(per_image.mean() - 1.0) < 0.04
    np.testing.assert_array_equal(dropped, drop_path(x, 0.25, jax.random.key(0)))
    assert (dropped != np.asarray(drop_path(x, 0.25, jax.random.key(1)))).any()
    np.testing.assert_array_equal(drop_path(x, 0.0, jax.random.key(0)), x)
    np.testing.assert_array_equal(drop_path(x, 0.25, None), x)
