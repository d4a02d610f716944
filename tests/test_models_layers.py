"""Initial weights have the deviation that is asked for."""

import jax
import numpy as np
import pytest

from s3_jax.models.layers import truncated_normal


@pytest.mark.parametrize(
    ("std", "shape", "inputs", "deviation"),
    [
        (0.02, (512, 2048), 1, 0.02),
        (0.0, (1000, 1000), 1, 1000**-0.5),
        (0.0, (4, 96, 2048), 2, 384**-0.5),
        (0.0, (16, 65_536), 1, 0.25),
    ],
)
def test_initial_weights_have_the_deviation_asked_for(std, shape, inputs, deviation):
    weights = np.asarray(truncated_normal(jax.random.key(0), shape, inputs, std))
    assert weights.std() == pytest.approx(deviation, rel=0.01)
    assert abs(weights.mean()) < 5 * deviation / weights.size**0.5
    assert np.abs(weights).max() <= 5.01 * deviation  # none of them at the cut


@pytest.mark.parametrize("shape", [(3,), (40, 3, 2, 32), (64, 64), (65, 64), (300, 70)])
def test_initial_weights_are_those_of_a_draw_of_their_own_shape(shape):
    """To the last bit, though more are drawn than there are."""
    weights = np.asarray(truncated_normal(jax.random.key(1), shape, 1, 0.5))
    drawn = jax.jit(lambda key: 0.5 * jax.random.truncated_normal(key, -4.0, 4.0, shape))(jax.random.key(1))
    np.testing.assert_array_equal(weights, np.asarray(drawn))


def test_initial_weights_are_cut_at_two():
    weights = np.asarray(truncated_normal(jax.random.key(0), (1, 100_000), 1, 1.0))
    assert 1.9 < np.abs(weights).max() <= 2
