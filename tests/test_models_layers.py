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


def test_initial_weights_are_cut_at_two():
    weights = np.asarray(truncated_normal(jax.random.key(0), (1, 100_000), 1, 1.0))
    assert 1.9 < np.abs(weights).max() <= 2
