"""Learning-rate schedule, optimizer and initial state of a training, against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s3_jax.config import TrainConfig
from s3_jax.errors import S3Error
from s3_jax.task import Variables
from s3_jax.training.state import init_state, kernels_only, learning_rate, optimizer

PARAMS = {
    "norm": {"scale": jnp.array([1.0, 2.0]), "bias": jnp.array([3.0])},
    "attention": {"qkv": {"kernel": jnp.array([4.0]), "bias": jnp.array([5.0])}, "bias_table": jnp.array([6.0])},
}

STATS = {"mean": np.zeros(2)}


def test_schedule_warms_up_from_zero_and_ends_at_the_minimum():
    config = TrainConfig(learning_rate=0.4, min_learning_rate=0.1, warmup_epochs=2.0)
    schedule = learning_rate(config, steps_per_epoch=5.0, num_steps=50)
    assert float(schedule(0)) == 0.0
    np.testing.assert_allclose(schedule(5), 0.2, rtol=1e-6)
    np.testing.assert_allclose(schedule(10), 0.4, rtol=1e-6)
    # Half of the way from the end of the warm-up to the end the cosine is in the middle of its range.
    np.testing.assert_allclose(schedule(30), 0.25, rtol=1e-6)
    np.testing.assert_allclose(schedule(50), 0.1, rtol=1e-6)


def test_schedule_without_warm_up_begins_at_the_peak():
    config = TrainConfig(learning_rate=0.4, min_learning_rate=0.1, warmup_epochs=0.0)
    schedule = learning_rate(config, steps_per_epoch=5.0, num_steps=1)
    np.testing.assert_allclose(schedule(0), 0.4, rtol=1e-6)
    # A training shorter than its warm-up still has a last update that is no part of it.
    short = learning_rate(TrainConfig(learning_rate=0.4, warmup_epochs=20.0), steps_per_epoch=5.0, num_steps=4)
    np.testing.assert_allclose(short(3), 0.4, rtol=1e-6)


def test_schedule_in_steps_falls_to_a_tenth_at_the_end_of_the_epochs_named():
    """Detection's 1x: 12 epochs, a tenth after 8 and again after 11, with a warm-up of half an epoch."""
    drops = {"schedule": "steps", "drop_epochs": (8.0, 11.0)}
    config = TrainConfig(learning_rate=1e-4, min_learning_rate=0.0, warmup_epochs=0.5, epochs=12.0, **drops)
    schedule = learning_rate(config, steps_per_epoch=10.0, num_steps=120)
    expected = {0: 0.0, 2: 4e-5, 5: 1e-4, 79: 1e-4, 81: 1e-5, 109: 1e-5, 111: 1e-6, 119: 1e-6}
    assert {step: float(schedule(step)) for step in expected} == pytest.approx(expected, rel=1e-5)
    least = learning_rate(TrainConfig(learning_rate=1e-4, min_learning_rate=5e-6, **drops), 10.0, 120)
    np.testing.assert_allclose(least(119), 5e-6, rtol=1e-6)


@pytest.mark.parametrize("settings", [{"schedule": "steps"}, {"drop_epochs": (8.0,)}])
def test_steps_and_their_epochs_are_given_together(settings):
    with pytest.raises(S3Error, match="expected drop_epochs with schedule = 'steps', and with no other"):
        TrainConfig(**settings)


@pytest.mark.parametrize("everything", [False, True])
def test_weight_decay_acts_on_kernels_only_unless_configured(everything):
    """With gradients of zero, AdamW moves a weight w by -learning rate * decay * w alone: here by -0.01 w."""
    config = TrainConfig(weight_decay=0.1, decay_norms_and_biases=everything)
    transformation = optimizer(config, optax.constant_schedule(0.1))
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = transformation.update(zeros, transformation.init(PARAMS), PARAMS)
    decayed = jax.tree.map(lambda leaf: -0.01 * leaf, PARAMS)
    expected = decayed if everything else zeros
    expected["attention"]["qkv"]["kernel"] = decayed["attention"]["qkv"]["kernel"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)


def test_only_kernels_are_marked():
    marked = jax.tree_util.tree_leaves_with_path(kernels_only(PARAMS))
    assert [jax.tree_util.keystr(path) for path, flag in marked if flag] == ["['attention']['qkv']['kernel']"]


def test_clip_norm_scales_the_whole_gradient_to_that_norm():
    """Adam's first moment after one update is 0.1 times what it was given: (3, 4) with norm 5 arrives with norm 2."""
    params = {"a": {"kernel": jnp.zeros(1)}, "b": {"kernel": jnp.zeros(1)}}
    gradient = {"a": {"kernel": jnp.array([3.0])}, "b": {"kernel": jnp.array([4.0])}}
    for clip_norm, arrived in ((2.0, (1.2, 1.6)), (7.0, (3.0, 4.0)), (0.0, (3.0, 4.0))):
        transformation = optimizer(TrainConfig(clip_norm=clip_norm), optax.constant_schedule(0.1))
        _, state = transformation.update(gradient, transformation.init(params), params)
        moment = optax.tree_utils.tree_get(state, "mu")
        np.testing.assert_allclose(
            [moment["a"]["kernel"][0], moment["b"]["kernel"][0]], np.multiply(0.1, arrived), 1e-6
        )


def test_beta2_is_that_of_the_second_moment():
    transformation = optimizer(TrainConfig(beta2=0.9), optax.constant_schedule(0.1))
    params = {"kernel": jnp.zeros(1)}
    _, state = transformation.update({"kernel": jnp.array([3.0])}, transformation.init(params), params)
    np.testing.assert_allclose(optax.tree_utils.tree_get(state, "nu")["kernel"], [0.1 * 9.0], rtol=1e-6)


def test_the_state_begins_at_zero_with_averages_only_where_wanted():
    transformation = optimizer(TrainConfig(), optax.constant_schedule(0.1))
    plain = init_state(Variables(PARAMS, STATS), transformation=transformation, ema_decay=0.0)
    assert int(plain.step) == 0
    assert plain.ema is None
    assert plain.eval_variables.params is plain.params
    averaged = init_state(Variables(PARAMS, STATS), transformation=transformation, ema_decay=0.5)
    assert averaged.eval_variables.params is averaged.ema
    assert averaged.eval_variables.stats == averaged.stats == STATS
    jax.tree.map(np.testing.assert_array_equal, averaged.ema, PARAMS)


def test_a_line_falls_from_the_first_update_on_and_the_warm_up_has_a_growing_share_of_it():
    """By hand: 0.4 to 0 in 10 updates is 0.4, 0.36, 0.32, ...; of the first 4 it has 0, 1/4, 1/2, 3/4."""
    config = TrainConfig(learning_rate=0.4, min_learning_rate=0.0, warmup_epochs=1.0, schedule="linear")
    schedule = learning_rate(config, steps_per_epoch=4.0, num_steps=10)
    found = [float(schedule(step)) for step in (0, 1, 2, 3, 4, 9, 10)]
    np.testing.assert_allclose(found, [0.0, 0.09, 0.16, 0.21, 0.24, 0.04, 0.0], atol=1e-6)
    plain = learning_rate(
        TrainConfig(0.1, learning_rate=0.4, min_learning_rate=0.0, warmup_epochs=0.0, schedule="linear"), 4.0, 10
    )
    np.testing.assert_allclose([float(plain(step)) for step in (0, 5)], [0.4, 0.2], atol=1e-6)
