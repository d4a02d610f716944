"""Convolution with normalisation, and dropout of channels: by hand, and over many devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from s3_jax.models.convolution import ConvolutionNorm
from s3_jax.segmentation.layers import (
    Passing,
    channel_dropout,
    convolved,
    convolved_together,
)
from s3_jax.segmentation.resizing import resized

TIMEOUT = 300  # seconds
EVALUATION = Passing(by_products=True)


def training(*weight: float, key=None) -> Passing:
    return Passing(by_products=True, weight=jnp.asarray(weight, jnp.float32), key=key)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def test_dropout_leaves_out_whole_channels_of_an_example_and_scales_the_rest():
    images, channels, rate = 40, 100, 0.3
    passing = training(*[1] * images, key=jax.random.key(0))
    share = np.asarray(channel_dropout(jnp.ones((images, 2, 3, channels)), rate, passing))
    assert (share == share[:, :1, :1]).all()
    kept = share[:, 0, 0] > 0
    np.testing.assert_allclose(share[:, 0, 0][kept], 1 / (1 - rate), rtol=1e-6)
    deviation = np.sqrt(rate * (1 - rate))
    assert (~kept).mean() == pytest.approx(rate, abs=4 * deviation / kept.size**0.5)
    assert (kept[0] != kept[1]).any()  # each example has draws of its own
    assert np.ptp(kept.mean(0)) > 0


def test_dropout_is_off_in_evaluation_and_at_a_rate_of_0():
    x = normal(8, 2, 2, 2, 3)
    assert channel_dropout(x, 0.5, EVALUATION) is x
    assert channel_dropout(x, 0.0, training(1, 1, key=jax.random.key(0))) is x


def test_several_maps_pass_as_one_on_top_of_each_other():
    """Enlarged to one size and put together in their order; negative results become 0."""
    layer = ConvolutionNorm(5, 4, side=3, rngs=nnx.Rngs(0))
    first, second = normal(9, 2, 4, 6, 2), normal(10, 2, 2, 3, 3)
    together = jnp.concatenate([first, resized(second, (4, 6))], axis=-1)
    expected, found = nnx.jit(
        lambda layer: (
            convolved(layer, together, EVALUATION),
            convolved_together(layer, [first, second], (4, 6), EVALUATION),
        )
    )(layer)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.min() == 0
    assert 0.2 < (found > 0).mean() < 0.8


def test_convolutions_begin_with_the_deviation_of_their_outputs():
    layer = ConvolutionNorm(40, 50, side=3, rngs=nnx.Rngs(0))
    assert float(jnp.std(layer.convolution.kernel[...])) == pytest.approx((2 / (9 * 50)) ** 0.5, rel=0.02)
    assert not hasattr(layer.convolution, "bias")


def test_four_devices_have_the_output_gradient_and_statistics_of_one():
    """Examples that do not count are not spread evenly over the devices."""
    flags = f"--xla_force_host_platform_device_count=4 {os.environ.get('XLA_FLAGS', '')}"
    program = [sys.executable, str(Path(__file__).with_name("segmentation_device_programs.py"))]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout)
    assert set(differences) == {"output", "gradient", "statistics"}
    assert max(differences.values()) <= 1e-5, differences
