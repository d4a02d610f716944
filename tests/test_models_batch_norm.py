"""Batch normalisation: by hand, over examples and places that count, and its running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from s3_jax.models.batch_norm import BatchNorm, batch_norm


def trained(norm: BatchNorm, x: jax.Array, *weight: float) -> jax.Array:
    """What a batch norm makes of (B, H, W, C) in training, in one program."""
    return trained_at(norm, x, jnp.asarray(weight, jnp.float32))


def trained_at(norm: BatchNorm, x: jax.Array, weight: jax.Array) -> jax.Array:
    return nnx.jit(batch_norm_in_training)(norm, x, weight)


def batch_norm_in_training(norm: BatchNorm, x: jax.Array, weight: jax.Array) -> jax.Array:
    return batch_norm(norm, x, weight)


def norm_of(channels: int, scale: float = 1.0, bias: float = 0.0) -> BatchNorm:
    norm = BatchNorm(channels)
    norm.scale[...], norm.bias[...] = jnp.full(channels, scale), jnp.full(channels, bias)
    return norm


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def statistics(norm: BatchNorm) -> np.ndarray:
    return np.stack([norm.mean[...], norm.variance[...]])


def test_batch_normalisation_worked_out_by_hand():
    """Of 1, 3, 5, 7 the mean is 4, the variance 5 and its unbiased estimate 20 / 3."""
    norm = norm_of(1, scale=2.0, bias=1.0)
    x = jnp.asarray([[1.0, 3.0], [5.0, 7.0]]).reshape(2, 1, 2, 1)
    found = trained(norm, x, 1, 1)
    np.testing.assert_allclose(found.ravel(), 1 + 2 * np.array([-3, -1, 1, 3]) / 5**0.5, rtol=1e-5)
    np.testing.assert_allclose(statistics(norm), [[0.1 * 4], [0.9 + 0.1 * 20 / 3]], rtol=1e-6)
    trained(norm, x, 1, 1)
    np.testing.assert_allclose(statistics(norm), [[0.9 * 0.4 + 0.4], [0.81 + 1.9 * 2 / 3]], rtol=1e-6)


def test_the_epsilon_worked_out_by_hand_where_it_counts():
    """The variance is 1e-5 as the epsilon is, so the deviation comes out at half of the variance's sum."""
    x = jnp.asarray([1e-5**0.5, -(1e-5**0.5)]).reshape(2, 1, 1, 1)
    found = trained(norm_of(1), x, 1, 1)
    np.testing.assert_allclose(found.ravel(), [0.5**0.5, -(0.5**0.5)], rtol=1e-4)


def test_evaluation_normalises_by_running_statistics_and_leaves_them():
    norm = norm_of(1, scale=3.0, bias=-1.0)
    norm.mean[...], norm.variance[...] = jnp.asarray([2.0]), jnp.asarray([4.0])
    found = batch_norm(norm, jnp.asarray([2.0, 6.0]).reshape(1, 1, 2, 1))
    np.testing.assert_allclose(found.ravel(), [-1, 3 * 4 / 2 - 1], rtol=1e-5)
    np.testing.assert_array_equal(statistics(norm), [[2], [4]])


def test_examples_of_weight_0_are_in_no_statistics():
    """With more of them, wherever they stand, the others' output and the statistics are the same."""
    x, noise = normal(0, 3, 2, 5, 4), 100 + 100 * normal(1, 2, 2, 5, 4)
    alone, padded = norm_of(4, 2.0, 0.5), norm_of(4, 2.0, 0.5)
    expected = trained(alone, x, 1, 1, 1)
    among = jnp.stack([x[0], noise[0], x[1], x[2], noise[1]])
    found = trained(padded, among, 1, 0, 1, 1, 0)
    np.testing.assert_allclose(found[jnp.asarray([0, 2, 3])], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(statistics(padded), statistics(alone), rtol=1e-6)


def test_a_single_value_becomes_the_bias_and_says_nothing_of_the_variance():
    """As the pyramid's 1 x 1 map of a batch of one image has it, or of two of which one is bad."""
    for x, weight in ((normal(2, 1, 1, 1, 4), (1,)), (normal(3, 2, 1, 1, 4), (1, 0))):
        norm = norm_of(4, 2.0, 0.5)
        found = trained(norm, x, *weight)
        np.testing.assert_allclose(found[0], np.full((1, 1, 4), 0.5), atol=1e-6)
        np.testing.assert_allclose(statistics(norm), np.stack([0.1 * x[0, 0, 0], np.ones(4)]), rtol=1e-6)


def test_a_batch_in_which_nothing_counts_is_finite_and_leaves_running_statistics():
    norm = norm_of(4)
    norm.mean[...] = jnp.full(4, 3.0)
    assert np.isfinite(trained(norm, normal(4, 2, 3, 3, 4), 0, 0)).all()
    np.testing.assert_array_equal(statistics(norm), [[3] * 4, [1] * 4])


def test_statistics_of_a_map_in_half_precision_are_those_of_single():
    x = (normal(5, 4, 8, 8, 3) + 3).astype(jnp.bfloat16)
    half, single = norm_of(3), norm_of(3)
    found = trained(half, x, 1, 1, 1, 1)
    assert found.dtype == jnp.bfloat16
    trained(single, x.astype(jnp.float32), 1, 1, 1, 1)
    np.testing.assert_array_equal(statistics(half), statistics(single))


def test_running_statistics_pass_no_gradient():
    norm = norm_of(2)

    def running(x):
        copy = nnx.clone(norm)
        batch_norm(copy, x, jnp.ones(2))
        return (copy.mean[...] + copy.variance[...]).sum()

    assert not np.asarray(jax.grad(running)(normal(6, 2, 1, 3, 2))).any()


def test_places_of_weight_0_are_in_no_statistics():
    """As the padding of images of unequal sizes: whatever lies there, the others' output is the same."""
    weight = jnp.asarray([[[1, 1, 0], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]]], jnp.float32)
    x, other = normal(7, 2, 2, 3, 4), 50 * normal(8, 2, 2, 3, 4)
    counts = weight[..., None] > 0
    first, second, kept = norm_of(4, 2.0, 0.5), norm_of(4, 2.0, 0.5), np.asarray(weight, bool)
    found = [
        trained_at(norm, jnp.where(counts, x, beyond), weight) for norm, beyond in ((first, 0 * x), (second, other))
    ]
    np.testing.assert_array_equal(found[0][kept], found[1][kept])
    np.testing.assert_array_equal(statistics(first), statistics(second))
    np.testing.assert_allclose(statistics(first)[0], 0.1 * np.asarray(x)[kept].mean(0), rtol=1e-5)
