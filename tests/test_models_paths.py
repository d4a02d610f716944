"""Stochastic depth as an image meets it, branch by branch, and layer normalisation by hand.

Where all kernels are zero, a branch of a block is its last bias, whatever the image: with a channel of its own for each
branch, the maps tell which branches every image has kept, and by how much they were scaled.
"""

from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from s3_jax.models.attention import Windows, windows_of_block
from s3_jax.models.isotropic import IsotropicArchitecture, IsotropicTransformer
from s3_jax.models.layers import LayerNorm, layer_norm
from s3_jax.models.transformer import S3Transformer
from s3_jax.space import SearchSpace, StageSpace, largest

IMAGES, RATE = 3000, 0.5
SPACE = SearchSpace((StageSpace((1, 2), (8,), (2,), (1.0,), (32,)),) * 2)
LAST_BIASES = (("attention", "proj", "bias"), ("mlp", "fc2", "bias"))


def with_a_channel_for_each_branch(network) -> dict:
    """Parameters that are zero but for the last bias of every branch: one at channel 2 j or 2 j + 1 of block j."""
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(network)))
    filled = {path: np.zeros(leaf.shape, np.float32) for path, leaf in flat.items()}
    for path, leaf in filled.items():
        for branch, names in enumerate(LAST_BIASES):
            if path[-3:] == names:
                stacked = leaf if leaf.ndim == 2 else leaf[None]
                for row, bias in enumerate(stacked):
                    index = row if leaf.ndim == 2 else path[-4]
                    bias[2 * index + branch] = 1.0
    return traverse_util.unflatten_dict(filled)


def windowed_branches(structure, key) -> np.ndarray:
    """What each branch has added, (images, 4 blocks, 2 branches), in two stages of two blocks."""
    network = nnx.eval_shape(lambda: S3Transformer(structure, image_size=4, patch_size=1, rngs=nnx.Rngs(0)))
    nnx.update(network, with_a_channel_for_each_branch(network))
    maps = network.features(jnp.ones((IMAGES, 4, 4, 3)), dense=False, max_drop_path=RATE, key=key)
    assert all((each == each[:, :1, :1]).all() for each in maps)  # an image keeps a branch everywhere or nowhere
    return np.concatenate([np.asarray(each[:, 0, 0, :4]) for each in maps], axis=1).reshape(IMAGES, 4, 2)


def isotropic_branches(key) -> np.ndarray:
    """The same of a plain transformer of four blocks."""
    make = partial(IsotropicTransformer, IsotropicArchitecture(8, 4, 1), image_size=2, patch_size=2)
    network = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    nnx.update(network, with_a_channel_for_each_branch(network))
    tokens = network.tokens(jnp.ones((IMAGES, 2, 2, 3)), max_drop_path=RATE, key=key)
    assert (tokens == tokens[:, :1]).all()
    return np.asarray(tokens[:, 0]).reshape(IMAGES, 4, 2)


NETWORKS = {
    "network": partial(windowed_branches, largest(SPACE)),
    "supernet": partial(windowed_branches, SPACE),
    "plain": isotropic_branches,
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_branch_of_every_block_and_stage_is_dropped_by_itself_at_its_rate(kind) -> None:
    added = NETWORKS[kind](jax.random.key(1))
    for block, rate in enumerate((0, 1 / 6, 2 / 6, 3 / 6)):
        np.testing.assert_allclose(np.unique(added[:, block]), [0, 1 / (1 - rate)] if rate else [1], rtol=1e-6)
        for branch in (0, 1):
            share = np.mean(added[:, block, branch] == 0)
            assert share == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / IMAGES) + 1e-9)
    kept = (added[:, 1:] > 0).reshape(IMAGES, 6)
    for one, other in combinations(range(6), 2):
        correlation = np.corrcoef(kept[:, one], kept[:, other])[0, 1]
        assert abs(correlation) < 4 / np.sqrt(IMAGES), (one, other, correlation)


def test_without_a_key_nothing_is_dropped() -> None:
    assert (NETWORKS["network"](None) == 1).all()
    assert (NETWORKS["supernet"](None) == 1).all()
    assert (NETWORKS["plain"](None) == 1).all()


SCALE = 0.01


def normed(value: float, epsilon: float) -> float:
    """What a layer norm of scale 1 makes of two channels at `value` and `-value`, whose variance is `value` squared."""
    return value / np.sqrt(value**2 + epsilon)


def handing_on(network) -> None:
    """Weights under which every branch is SCALE times the norm before it, two channels that are each other's negative.

    Values are the norm's, tokens of a window alike, and units lie where GELU is a line, so only norms shape the result.
    """
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(network)))
    filled = {path: np.zeros(leaf.shape, np.float32) for path, leaf in flat.items()}
    for path, leaf in filled.items():
        if path[-1] == "scale":
            leaf[:] = 1.0 if path[0] == "norm" else SCALE
        if path[-2:] == ("qkv", "kernel"):
            leaf[:, 2, 0, :2] = np.eye(2)
        if path[-2:] == ("proj", "kernel"):
            leaf[0, :2] = np.eye(2)
        if path[-2:] in (("fc1", "kernel"), ("fc2", "kernel")):
            leaf[:2, :2] = np.eye(2)
        if path[-2:] in (("fc1", "bias"), ("fc2", "bias")):
            leaf[:2] = 6.0 if path[-2] == "fc1" else -6.0
        if path[-2:] == ("reduction", "kernel"):
            leaf[0] = np.eye(2)
        if path[-2:] == ("head", "kernel"):
            leaf[:] = np.eye(2)
    kernel = filled["patch", "kernel"]
    kernel[0, 0, 0] = 1.0, -1.0
    if ("class_token",) in filled:
        filled["class_token",][:] = 0.01, -0.01
        kernel[:] = 0.0
    nnx.update(network, traverse_util.unflatten_dict(filled))


def test_norms_of_the_window_transformer_have_swins_epsilon() -> None:
    """1e-5, by hand: the channels' variance is 1e-4, so each norm of them is 1 / sqrt(1.1) = 0.953 and not 1."""
    stage = StageSpace((1,), (2,), (2,), (1.0,), (32,))
    make = partial(S3Transformer, largest(SearchSpace((stage,) * 2)), image_size=4, patch_size=1, num_classes=2)
    network = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    handing_on(network)
    faint, found = jnp.full((1, 4, 4, 3), 0.01), []
    value = 0.01
    for _ in range(2):
        value = SCALE * normed(value, 1e-5)  # of the patches, or of merging
        value += SCALE * normed(value, 1e-5)  # attention
        value += SCALE * normed(value, 1e-5)  # MLP
        found.append(value)
    for actual, expected in zip(network.features(faint), found, strict=True):
        np.testing.assert_allclose(actual, np.broadcast_to([expected, -expected], actual.shape), rtol=1e-3)
    last = normed(found[-1], 1e-5)
    np.testing.assert_allclose(network(faint), [[last, -last]], rtol=1e-4)


def test_norms_of_the_plain_transformer_have_the_vits_epsilon() -> None:
    """1e-6. The one patch is zero, and takes half of the class token's value, as that itself does."""
    make = partial(IsotropicTransformer, IsotropicArchitecture(2, 1, 1), image_size=2, patch_size=2, num_classes=2)
    network = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    handing_on(network)
    value = 0.001
    network.class_token[...] = jnp.asarray([value, -value])
    image = jnp.zeros((1, 2, 2, 3))
    value += SCALE * normed(value, 1e-6) / 2
    value += SCALE * normed(value, 1e-6)
    np.testing.assert_allclose(network.tokens(image)[:, 0], [[value, -value]], rtol=1e-3)
    network.blocks = nnx.List([])
    faint = normed(0.001, 1e-6)
    np.testing.assert_allclose(network(image), [[faint, -faint]], rtol=1e-4)


def test_layer_norm_worked_out_by_hand_where_its_epsilon_counts() -> None:
    """Two values about 1 at +-0.01 have variance 1e-4: each becomes +-sqrt(10 / 11) = 0.953; the mean goes."""
    found = layer_norm(LayerNorm((2,)), jnp.asarray([[0.99, 1.01]]))
    np.testing.assert_allclose(found, [[-0.9534626, 0.9534626]], rtol=1e-4)


def test_dense_maps_keep_their_windows_and_others_never_exceed_the_map() -> None:
    """Maps of 2 x 2 and 2 x 4 in windows of 4: of 16 tokens that are attended to, 12 and 8 are padding, values zero."""
    space = SearchSpace((StageSpace((1,), (2,), (4,), (1.0,), (32,)),))
    make = partial(S3Transformer, largest(space), image_size=4, patch_size=1, num_classes=2)
    network = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    handing_on(network)
    for width, dense, share in ((2, True, 4 / 16), (4, True, 8 / 16), (2, False, 1.0), (4, False, 1.0)):
        faint = jnp.full((16, 2, width, 3), 0.01)
        value = SCALE * normed(0.01, 1e-5)
        value += share * SCALE * normed(value, 1e-5)
        value += SCALE * normed(value, 1e-5)
        (found,) = network.features(faint, dense=dense)
        np.testing.assert_allclose(found, np.broadcast_to([value, -value], found.shape), rtol=1e-3)


def test_odd_blocks_of_dense_maps_shift_also_along_an_axis_that_a_window_covers() -> None:
    """As in Swin's code for detection; in classification, where a window never exceeds the map, they do not."""
    assert windows_of_block(14, 13, 21, 0) == Windows(14, (0, 0))
    assert windows_of_block(14, 13, 21, 1) == windows_of_block(14, 21, 13, 3) == Windows(14, (7, 7))
    assert windows_of_block(7, 3, 2, 5) == Windows(7, (3, 3))
    assert windows_of_block(14, 13, 21, 1, limit=13) == Windows(13, (0, 6))
    assert windows_of_block(14, 14, 14, 1, limit=14) == Windows(14, (0, 0))
    assert windows_of_block(7, 14, 21, 1, limit=14) == Windows(7, (3, 3))
    assert windows_of_block(7, 14, 21, 2, limit=14) == Windows(7, (0, 0))


def test_a_map_that_moves_out_of_its_padding_attends_to_itself_alone() -> None:
    """Maps of 2 x 2 and 2 x 4 in windows of 4, padded: once moved by 2, their tokens are 2 x 2 to a part of the window,
    and no padding is among them."""
    space = SearchSpace((StageSpace((2,), (2,), (4,), (1.0,), (32,)),))
    make = partial(S3Transformer, largest(space), image_size=4, patch_size=1, num_classes=2)
    network = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    handing_on(network)
    for width, dense, first_share in ((2, True, 4 / 16), (4, True, 8 / 16), (4, False, 1.0)):
        value = SCALE * normed(0.01, 1e-5)
        for share in (first_share, 1.0):
            value += share * SCALE * normed(value, 1e-5)
            value += SCALE * normed(value, 1e-5)
        (found,) = network.features(jnp.full((16, 2, width, 3), 0.01), dense=dense)
        np.testing.assert_allclose(found, np.broadcast_to([value, -value], found.shape), rtol=1e-3)


def test_every_map_has_the_norm_of_its_own_stage() -> None:
    stage = StageSpace((1,), (2,), (2,), (1.0,), (32,))
    architecture = largest(SearchSpace((stage,) * 2))
    make = partial(S3Transformer, architecture, image_size=4, patch_size=1, num_classes=2, output_norms=True)
    network = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    handing_on(network)
    plain = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0), output_norms=False))
    handing_on(plain)
    faint = jnp.full((1, 4, 4, 3), 0.01)
    for place, norm in enumerate(network.output_norms):
        norm.scale[...] = jnp.full(2, 3.0 + place)
    for place, (found, bare) in enumerate(zip(network.features(faint), plain.features(faint), strict=True)):
        value = (3.0 + place) * normed(float(bare[0, 0, 0, 0]), 1e-5)
        np.testing.assert_allclose(found, np.broadcast_to([value, -value], found.shape), rtol=1e-4)
