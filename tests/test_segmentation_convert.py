"""Weights of UperNet under mmsegmentation's names, and back; what does not fit is refused by its name."""

from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from s3_jax.config import ModelConfig
from s3_jax.errors import S3Error
from s3_jax.segmentation.convert import load_weights, to_state_dict
from s3_jax.segmentation.upernet import UperNet
from s3_jax.space import Architecture, Block, Stage
from s3_jax.task import variables_of

MODEL = ModelConfig(image_size=32, patch_size=4)


def abstract(dims: tuple[int, ...] = (8, 40), channels: int = 8, auxiliary_channels: int = 6) -> UperNet:
    architecture = Architecture(tuple(Stage(dim, (Block(2, 1.0, 32),)) for dim in dims))
    sizes = {"num_classes": 5, "channels": channels, "auxiliary_channels": auxiliary_channels}
    return nnx.eval_shape(lambda: UperNet(architecture, model=MODEL, rngs=nnx.Rngs(0), **sizes))


def filled(network: UperNet, fill) -> UperNet:
    for variables in variables_of(network):
        nnx.update(network, jax.tree.map(lambda leaf: fill(leaf.shape), variables))
    return network


def random_network() -> UperNet:
    rng = np.random.default_rng(0)
    return filled(abstract(), lambda shape: jnp.asarray(rng.uniform(0.1, 0.3, shape), jnp.float32))


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return to_state_dict(random_network())


def test_a_state_dict_gives_the_same_logits_bit_for_bit(tensors):
    network, loaded = random_network(), filled(abstract(), partial(jnp.full, fill_value=7.0))
    load_weights(loaded, tensors)
    run = nnx.jit(lambda network, x: network(x))
    image = np.random.default_rng(1).standard_normal((1, 20, 36, 3), np.float32)
    np.testing.assert_array_equal(run(loaded, image), run(network, image))
    jax.tree.map(np.testing.assert_array_equal, variables_of(loaded), variables_of(network))
    again = to_state_dict(loaded)
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor)


def test_names_and_shapes_are_those_of_mmsegmentation():
    network = filled(abstract((8, 16, 24, 40), 512, 256), lambda shape: np.broadcast_to(np.float32(0), shape))
    shapes = {name: tensor.shape for name, tensor in to_state_dict(network).items()}
    expected = {
        "backbone.patch_embed.proj.weight": (8, 3, 4, 4),
        "backbone.patch_embed.norm.bias": (8,),
        "backbone.norm0.weight": (8,),
        "backbone.norm3.bias": (40,),
        "backbone.layers.0.downsample.norm.weight": (32,),
        "backbone.layers.0.downsample.reduction.weight": (16, 32),
        "backbone.layers.2.downsample.reduction.weight": (40, 96),
        "backbone.layers.3.blocks.0.attn.qkv.weight": (96, 40),
        "backbone.layers.1.blocks.0.attn.relative_position_bias_table": (9, 1),
        "backbone.layers.0.blocks.0.mlp.fc2.bias": (8,),
        "decode_head.psp_modules.3.1.conv.weight": (512, 40, 1, 1),
        "decode_head.psp_modules.3.1.bn.running_var": (512,),
        "decode_head.bottleneck.conv.weight": (512, 40 + 2048, 3, 3),
        "decode_head.lateral_convs.2.conv.weight": (512, 24, 1, 1),
        "decode_head.lateral_convs.0.bn.running_mean": (512,),
        "decode_head.fpn_convs.1.bn.bias": (512,),
        "decode_head.fpn_bottleneck.conv.weight": (512, 2048, 3, 3),
        "decode_head.conv_seg.weight": (5, 512, 1, 1),
        "decode_head.conv_seg.bias": (5,),
        "auxiliary_head.convs.0.conv.weight": (256, 24, 3, 3),
        "auxiliary_head.convs.0.bn.weight": (256,),
        "auxiliary_head.conv_seg.weight": (5, 256, 1, 1),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert not [name for name in shapes if name.startswith(("backbone.layers.3.downsample", "backbone.norm."))]
    assert len([name for name in shapes if ".bn." in name]) == 4 * (4 + 1 + 3 + 3 + 1 + 1)


def test_a_convolutions_kernel_has_its_axes_where_pytorch_has_them(tensors):
    kernel = random_network().decode.bottleneck.convolution.kernel[...]
    theirs = tensors["decode_head.bottleneck.conv.weight"]
    assert theirs[3, 41, 0, 2] == kernel[0, 2, 41, 3]


def test_buffers_that_hold_no_weights_are_passed_over_and_half_precision_is_taken(tensors):
    buffers = {
        "backbone.layers.0.blocks.0.attn.relative_position_index": np.zeros((4, 4), np.int64),
        "decode_head.bottleneck.bn.num_batches_tracked": np.int64(160_000),
    }
    half = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    network = filled(abstract(), jnp.zeros)
    load_weights(network, half | buffers)
    scale = network.decode.bottleneck.norm.scale[...]
    assert scale.dtype == jnp.float32
    np.testing.assert_array_equal(scale, half["decode_head.bottleneck.bn.weight"].astype(np.float32))


HEAD, BACKBONE = "decode_head.fpn_bottleneck.conv.weight", "backbone.norm0.weight"


@pytest.mark.parametrize("name", [HEAD, BACKBONE, "backbone.layers.0.downsample.reduction.weight"])
def test_what_does_not_fit_is_refused_by_the_name_it_has_in_the_file(tensors, name):
    """And nothing of the network has changed then."""
    network = filled(abstract(), jnp.zeros)
    spoilt = tensors[name].copy()
    spoilt.flat[3] = np.nan
    others = name.rpartition(".")[0] + ".other"
    refused = {
        f"has no tensor {name}$": {key: tensor for key, tensor in tensors.items() if key != name},
        f"has a surplus tensor {others}$": tensors | {others: np.zeros(3)},
        rf"tensor {name} of the state dict is \(7,\), the network needs \(\d+,": tensors | {name: np.zeros(7)},
        f"tensor {name}: 1 of .* values are NaN or infinite": tensors | {name: spoilt},
        f"tensor {name}: .* values are NaN or infinite in float32": tensors | {name: tensors[name] * np.float64(1e300)},
        f"tensor {name} of the state dict holds int64": tensors | {name: np.zeros(tensors[name].shape, np.int64)},
    }
    for message, given in refused.items():
        with pytest.raises(S3Error, match=message):
            load_weights(network, given)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(variables_of(network)))


def test_more_than_one_missing_and_another_number_of_classes_are_told(tensors):
    network = filled(abstract(), jnp.zeros)
    with pytest.raises(S3Error, match=r"has no tensor auxiliary_head\.conv_seg\.bias and \d+ more"):
        load_weights(network, {name: tensor for name, tensor in tensors.items() if name.startswith("backbone")})
    ade20k = {"decode_head.conv_seg.weight": np.zeros((150, 8, 1, 1), np.float32)}
    with pytest.raises(S3Error, match=r"decode_head.conv_seg.weight .* \(150, 8, 1, 1\), .* needs \(5, 8, 1, 1\)"):
        load_weights(network, tensors | ade20k)
