"""The laws of an update: averaged gradients, accumulation, rows that do not count, averaged weights, stochastic depth.

Most hold for any loss, and are shown with linear classifiers, whose programs compile in no time.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s3_jax.classification.task import soft_cross_entropy
from s3_jax.config import TrainConfig
from s3_jax.models.layers import drop_path
from s3_jax.models.subnet import StageMask, SubnetMask, drop_path_rates
from s3_jax.task import Variables
from s3_jax.training.state import init_state, optimizer
from s3_jax.training.steps import accumulate, split_batch, train_step

BATCH, CLASSES = 8, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(BATCH, 2, 2, 3)).astype(np.float32)
TARGETS = RNG.dirichlet(np.ones(CLASSES), BATCH).astype(np.float32)
STATS = {"mean": jnp.zeros(()), "scale": jnp.asarray(10.0)}
PARAMS = {"kernel": jnp.asarray(RNG.normal(size=(12, CLASSES)), jnp.float32), "bias": jnp.zeros(CLASSES)}
# A "subnet" of the classifier is what its kernel is multiplied with.
SUBNETS = np.array([1.0, 2.0, 0.5, -1.5], np.float32)
SGD = optax.sgd(0.1)


def linear(variables, batch, scale, key):
    """Cross-entropy, and statistics: the mean of the images that count, and of the subnets' factors."""
    params, scale = variables.params, 1.0 if scale is None else scale
    flat = batch["image"].reshape(len(batch["image"]), -1)
    logits = flat @ (scale * params["kernel"]) + params["bias"]
    terms = {"cross_entropy": soft_cross_entropy(logits, batch["target"] * batch["weight"][:, None])}
    return terms, {"mean": flat.mean(), "scale": variables.stats["scale"] + scale}


def linear_loss(params, batch, scale):
    total, count = linear(Variables(params, STATS), batch, scale, None)[0]["cross_entropy"]
    return total / count


def step(batch=None, *, terms=linear, subnets=SUBNETS, state=None, **settings):
    settings = {"transformation": SGD, "accumulation_steps": 1, "ema_decay": 0.0, **settings}
    begin = init_state(
        Variables(PARAMS, STATS), transformation=settings["transformation"], ema_decay=settings["ema_decay"]
    )
    run = jax.jit(
        partial(
            train_step,
            terms=terms,
            schedule=optax.constant_schedule(0.1),
            **settings,
        )
    )
    batch = whole_batch() if batch is None else batch
    return run(begin if state is None else state, batch, subnets, jax.random.key(0))


def whole_batch(bad=()):
    """All examples; those of the places `bad` do not count, whatever their targets are."""
    return {"image": IMAGES, "target": TARGETS, "weight": np.float32(~np.isin(np.arange(BATCH), bad))}


def norm(tree):
    return np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(tree)))


def assert_trees_close(actual, expected, rtol=1e-5):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), actual, expected)


def test_the_gradient_is_the_mean_over_subnets():
    values, gradients = [], []
    for scale in SUBNETS:
        value, gradient = jax.value_and_grad(linear_loss)(PARAMS, whole_batch(), scale)
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
    value, gradient = jax.value_and_grad(linear_loss)(PARAMS, whole_batch(), None)
    assert_trees_close(state.params, jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, gradient))
    np.testing.assert_allclose(metrics["subnet_losses"], [value], rtol=1e-5)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_changes_nothing(parts):
    """Also where bad images make the parts count differently many rows."""
    batch = whole_batch(bad=[0, 2])
    whole, parted = step(batch), step(batch, accumulation_steps=parts)
    assert_trees_close(parted, whole)


@pytest.mark.parametrize("parts", [1, 2])
def test_terms_are_divided_by_their_own_counts_over_the_whole_batch(parts):
    """Also where these depend on the network, as the number of a detector's positive samples does."""

    def two(variables, batch, scale, key):
        (entropy,) = linear(variables, batch, scale, key)[0].values()
        bright = (scale * batch["image"] > 0.3).sum((1, 2, 3)) * batch["weight"]
        red = (batch["image"][..., 0].sum((1, 2)) * variables.params["bias"][0] * bright).sum()
        return {"entropy": entropy, "red": (red, bright.sum())}, variables.stats

    state, metrics = step(whole_batch(bad=[3]), terms=two, accumulation_steps=parts)
    batch = whole_batch(bad=[3])

    def expected(params, scale):
        found = two(Variables(params, STATS), batch, scale, None)[0].values()
        return sum(total / count for total, count in found)

    gradients = [jax.grad(expected)(PARAMS, scale) for scale in SUBNETS]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *gradients)
    assert_trees_close(state.params, jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, mean))
    np.testing.assert_allclose(metrics["subnet_losses"], [expected(PARAMS, scale) for scale in SUBNETS], rtol=1e-5)
    np.testing.assert_allclose(sum(metrics["terms"].values()), metrics["subnet_losses"], rtol=1e-6)
    assert float(jnp.abs(mean["bias"][0])) > 0.01


@pytest.mark.parametrize("parts", [1, 2])
def test_statistics_are_averaged_over_subnets_and_parts(parts):
    state, _ = step(accumulation_steps=parts)
    np.testing.assert_allclose(state.stats["mean"], IMAGES.mean(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.stats["scale"], 10.0 + SUBNETS.mean(), rtol=1e-6)


def test_parts_take_every_image_once_and_evenly_from_the_devices():
    """Of 8 images, of which each of two devices holds 4 in a row, both parts take two from each device."""
    parts = np.asarray(split_batch({"x": np.arange(8)}, 2)["x"])
    assert sorted(parts.ravel()) == list(range(8))
    for part in parts:
        assert [int((part // 4 == device).sum()) for device in (0, 1)] == [2, 2]


def test_examples_of_weight_0_do_not_count():
    bad = [1, 6]
    state, metrics = step(whole_batch(bad))
    kept = np.delete(np.arange(BATCH), bad)
    expected, without = step({name: array[kept] for name, array in whole_batch().items()})
    assert_trees_close(state.params, expected.params)
    np.testing.assert_allclose(metrics["subnet_losses"], without["subnet_losses"], rtol=1e-5)
    assert int(metrics["bad_images"]) == 2
    assert int(without["bad_images"]) == 0


def test_a_batch_of_bad_images_alone_moves_nothing():
    state, metrics = step(whole_batch(bad=range(BATCH)))
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

    def draw(variables, batch, subnet, key):
        total = jax.random.uniform(key) + 0 * variables.params["bias"].sum()
        return {"draw": (total, jnp.asarray(0.5))}, variables.stats

    def values(key, parts):
        batch = jax.tree.map(jnp.asarray, whole_batch())
        return accumulate(draw, parts, Variables(PARAMS, STATS), batch, SUBNETS, key)[1]["draw"]

    one, two = values(jax.random.key(0), 1), values(jax.random.key(0), 2)
    assert len(np.unique(one)) == len(SUBNETS)
    np.testing.assert_array_equal(one, values(jax.random.key(0), 1))
    assert not np.isin(one, values(jax.random.key(1), 1)).any()
    # The first part draws what the whole did, the second something else.
    assert not np.isclose(np.asarray(two), 2 * np.asarray(one)).any()
    state, first = step(terms=draw, subnets=None)
    _, second = step(terms=draw, subnets=None, state=state)
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
