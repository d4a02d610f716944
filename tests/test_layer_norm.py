"""The epsilon of layer normalisation: timm's Swin has 1e-5, its plain transformers 1e-6; logits of usual size hide it.

Every norm sees the two channels +-1e-3, of variance 1e-6, and makes 1e-3 / sqrt(1e-6 + epsilon) of the first.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from s3_jax.models import S3Transformer
from s3_jax.models.isotropic import IsotropicArchitecture, IsotropicTransformer
from s3_jax.models.layers import LayerNorm, layer_norm
from s3_jax.space import Architecture, Block, Stage

SMALL = jnp.array([1e-3, -1e-3])
SWINS = 0.301511  # with 1e-5; 0.707107 with 1e-6
PLAIN = 0.707107  # with 1e-6; 0.301511 with 1e-5
STAGE = Stage(2, (Block(1, 1.0, 32),))


def emptied(network):
    """The network with all weights zero but the norms' scales."""
    params = nnx.state(network, nnx.Param)
    keep = jax.tree_util.tree_map_with_path(lambda path, leaf: float("scale" in str(path)) + 0 * leaf, params)
    nnx.update(network, keep)
    return network


def windowed(stages=1):
    """Patch norm's bias gives every token of the first map the small values, unless it is itself looked at."""
    architecture = Architecture((STAGE,) * stages)
    network = S3Transformer(architecture, image_size=2 * stages, patch_size=2, num_classes=1, rngs=nnx.Rngs(0))
    emptied(network)
    network.patch_norm.scale[...] *= 0
    network.patch_norm.bias[...] = SMALL
    return network


def plain():
    network = IsotropicTransformer(
        IsotropicArchitecture(2, 1, 1), image_size=2, patch_size=2, num_classes=1, rngs=nnx.Rngs(0)
    )
    emptied(network)
    network.class_token[...] = SMALL
    network.position[...] = network.position[...].at[1].set(SMALL)
    return network


def set_first(parameter, *index):
    parameter[...] = parameter[...].at[index].set(1.0)


def through_attention(block):
    """The norm's first channel, as the value of the first head, is added to the first channel."""
    set_first(block.attention.qkv.kernel, 0, 2, 0, 0)
    set_first(block.attention.proj.kernel, 0, 0, 0)


def through_mlp(block):
    """The same through the first hidden unit, moved to where the GELU changes nothing, and back."""
    set_first(block.mlp.fc1.kernel, 0, 0)
    set_first(block.mlp.fc2.kernel, 0, 0)
    block.mlp.fc1.bias[...] += 10
    block.mlp.fc2.bias[...] = jnp.array([-10.0, 0.0])


def images(network_size=2):
    return jnp.zeros((1, network_size, network_size, 3))


def test_a_norm_of_small_values():
    np.testing.assert_allclose(layer_norm(LayerNorm((2,)), SMALL)[0], SWINS, rtol=1e-5)
    np.testing.assert_allclose(layer_norm(LayerNorm((3,)), jnp.array([1e-3, -1e-3, 0]), 2)[0], SWINS, rtol=1e-5)
    np.testing.assert_allclose(layer_norm(LayerNorm((2,)), SMALL, epsilon=1e-6)[0], PLAIN, rtol=1e-5)


def test_swins_norm_of_patches():
    network = windowed()
    network.patch.bias[...] = SMALL
    network.patch_norm.scale[...] += 1
    network.patch_norm.bias[...] *= 0
    np.testing.assert_allclose(network.features(images())[0][0, 0, 0], [SWINS, -SWINS], rtol=1e-5)


@pytest.mark.parametrize("through", [through_attention, through_mlp])
def test_swins_norms_of_a_block(through):
    network = windowed()
    through(network.stages[0].blocks[0])
    np.testing.assert_allclose(network.features(images())[0][0, 0, 0, 0], 1e-3 + SWINS, rtol=1e-5)


def test_swins_norm_of_merged_patches():
    network = windowed(stages=2)
    set_first(network.merges[0].reduction.kernel, 0, 0, 0)
    np.testing.assert_allclose(network.features(images(4))[1][0, 0, 0], [SWINS, 0], rtol=1e-5)


def test_swins_last_norm():
    network = windowed()
    set_first(network.head.kernel, 0, 0)
    np.testing.assert_allclose(network(images())[0, 0], SWINS, rtol=1e-5)


@pytest.mark.parametrize("through", [through_attention, through_mlp])
def test_plain_norms_of_a_block(through):
    network = plain()
    through(network.blocks[0])
    np.testing.assert_allclose(network.tokens(images())[0, 0, 0], 1e-3 + PLAIN, rtol=1e-5)


def test_the_plain_transformers_last_norm():
    network = plain()
    set_first(network.head.kernel, 0, 0)
    np.testing.assert_allclose(network(images())[0, 0], PLAIN, rtol=1e-5)
