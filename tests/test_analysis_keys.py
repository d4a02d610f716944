"""Attention weights are those that the network computes, and keys are where they lie in the image."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_standalone import make

from s3_jax.analysis.attention import attention_of, weights_of
from s3_jax.analysis.keys import (
    key_distances,
    mean_key_distance,
    mean_top_distance,
    top_keys,
    window_keys,
    window_limits,
)
from s3_jax.errors import S3Error
from s3_jax.models.attention import Windows, attention_weights, window_attention
from s3_jax.models.heads import all_at_once
from s3_jax.models.layers import Attention
from s3_jax.models.transformer import S3Transformer, run_block
from s3_jax.space import SearchSpace, StageSpace

DIM, HEADS = 6, 2
# Map and windows: whole, shifted, shifted along one axis, padded, both, smaller than its window.
CASES = [
    ((4, 6), Windows(2, (0, 0))),
    ((6, 9), Windows(3, (1, 1))),
    ((4, 8), Windows(4, (0, 2))),
    ((5, 7), Windows(3, (0, 0))),
    ((5, 7), Windows(4, (2, 2))),
    ((3, 2), Windows(4, (2, 2))),
]


def weights_with(side: int) -> Attention:
    """Random weights, of biases and the table as well."""
    attention = Attention(DIM, HEADS, side, std=0.5, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for leaf in (attention.qkv.bias, attention.proj.bias, attention.bias_table):
        leaf[...] = jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
    return attention


def a_map(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((2, *size, DIM), np.float32)


@pytest.mark.parametrize(("size", "windows"), CASES)
def test_weights_times_values_are_what_the_block_computes(size, windows) -> None:
    """Values are looked up at the keys' places, so places are right as well; padding has the bias alone."""
    attention, x = weights_with(windows.side), a_map(size)
    weights, (places, _) = np.asarray(attention_weights(attention, x, windows)), window_keys(size, windows)
    assert weights.shape == (2, *size, HEADS, windows.side**2)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    padded = np.full((2, 16, 16, DIM), 0, np.float32)
    padded[:, : size[0], : size[1]] = x
    values = np.einsum("bhwc,cnd->bhwnd", padded, np.asarray(attention.qkv.kernel[:, 2])) + attention.qkv.bias[2]
    found = values[:, places[..., 0], places[..., 1]]  # (B, H, W, side^2, heads, 32)
    attended = np.einsum("bhwnk,bhwknd->bhwnd", weights, found)
    projected = (
        np.einsum("bhwnd,ndc->bhwc", attended, np.asarray(attention.proj.kernel[...])) + attention.proj.bias[...]
    )
    expected = np.asarray(window_attention(attention, x, windows, all_at_once))
    np.testing.assert_allclose(projected, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("size", "windows"), CASES)
def test_keys_of_another_part_of_the_image_get_nothing(size, windows) -> None:
    """A key beside a token in the rolled map alone is as far away as the image is wide."""
    keys = window_keys(size, windows)
    within = (keys.places < np.array(size)).all(-1)
    apart = within & ~keys.attended
    weights = np.asarray(attention_weights(weights_with(windows.side), a_map(size), windows))
    masked = np.broadcast_to(apart[None, :, :, None], weights.shape)
    assert weights[masked].max(initial=0) < 1e-30
    assert key_distances(keys)[keys.attended].max() <= 2**0.5 * (windows.side - 1)
    rows, columns = np.indices(size)
    own = (keys.places == np.stack([rows, columns], -1)[:, :, None]).all(-1)
    assert (own.sum(-1) == 1).all()  # each token is once among its own keys
    assert (own <= keys.attended).all()


def test_places_worked_out_by_hand() -> None:
    """3 x 4 tokens, padded to 4 x 4, windows of 2 rolled by 1: each token's partners are on its other side."""
    keys = window_keys((3, 4), Windows(2, (1, 1)))
    assert keys.places[1, 1].tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert keys.attended[1, 1].tolist() == [True] * 4
    assert keys.places[0, 3].tolist() == [[3, 3], [3, 0], [0, 3], [0, 0]]  # row 3 is padding
    assert keys.attended[0, 3].tolist() == [False, False, True, False]
    assert keys.places[0, 1].tolist() == [[3, 1], [3, 2], [0, 1], [0, 2]]
    assert keys.attended[0, 1].tolist() == [False, False, True, True]
    assert window_limits(3, 2, 1) == [1]
    assert window_limits(4, 2, 1) == [1, 3]
    assert window_limits(4, 2, 0) == [2]


@pytest.mark.parametrize(("shift", "with_left"), [((0, 0), (1, 3)), ((1, 1), (2,))])
def test_a_table_that_favours_the_left_neighbour_makes_it_the_top_key(shift, with_left) -> None:
    """4 x 4 tokens, windows of 2. Rolled by 1, columns 1 and 2 share windows, and 0 and 3 are apart."""
    attention, windows = Attention(DIM, 1, 2, std=0.5, rngs=nnx.Rngs(0)), Windows(2, shift)
    attention.qkv.kernel[...] = jnp.zeros(attention.qkv.kernel.shape)
    attention.bias_table[...] = jnp.zeros((3, 3, 1)).at[1, 2].set(5.0)  # same row; a query's column less its key's is 1
    weights = np.asarray(attention_weights(attention, a_map((4, 4)), windows))[0]
    keys = window_keys((4, 4), windows)
    order, valid = top_keys(weights, keys, 1)
    assert valid.all()
    for row in range(4):
        for column in with_left:
            assert keys.places[row, column, order[row, column, 0, 0]].tolist() == [row, column - 1]
    np.testing.assert_array_equal(mean_top_distance(weights, keys, 1)[:, with_left, 0], 1)
    share = np.exp(5) / (np.exp(5) + (3 if shift == (0, 0) else 1))  # of 4 keys, or of 2 in row 0
    assert weights[0, with_left[0], 0].max() == pytest.approx(share, rel=1e-5)


def test_distances_worked_out_by_hand() -> None:
    """One window of 3 x 3 tokens, of which the last row is padding."""
    keys = window_keys((2, 3), Windows(3, (0, 0)))
    weights = np.zeros((2, 3, 1, 9))
    weights[0, 0, 0] = [0.1, 0.05, 0.3, 0.0, 0.2, 0.0, 0.35, 0.0, 0.0]  # the padding has most
    assert mean_top_distance(weights, keys, 1)[0, 0, 0] == 2
    assert mean_top_distance(weights, keys, 2)[0, 0, 0] == pytest.approx((2 + 2**0.5) / 2)
    assert mean_top_distance(weights, keys, 3)[0, 0, 0] == pytest.approx((2 + 2**0.5 + 0) / 3)
    whole = (0 + 1 + 2 + 1 + 2**0.5 + 5**0.5) / 6
    assert mean_top_distance(weights, keys, 10)[0, 0, 0] == pytest.approx(whole)  # it has six keys
    middle = (0 + 1 + 1 + 1 + 2 * 2**0.5) / 6
    assert mean_key_distance(keys) == pytest.approx((4 * whole + 2 * middle) / 6)


def test_a_networks_attention_is_that_of_its_own_maps() -> None:
    """Block by block, what it is computed from gives the maps of the network, and windows pad, shift and cover."""
    model = make()
    images = np.random.default_rng(0).standard_normal((1, 8, 8, 3), np.float32)
    seen = model.network.block_inputs(images)
    settings = {"over_heads": all_at_once, "rate": jnp.zeros(()), "key": None}
    maps = [run_block(each.block, each.x, windows=each.windows, **settings) for each in seen]
    np.testing.assert_allclose(maps[0], seen[1].x, rtol=1e-5, atol=1e-6)
    for found, expected in zip(maps[1:], model.network.features(images, dense=False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    blocks = attention_of(model)(images[0])
    assert [(block.name, block.stride, block.size) for block in blocks] == [
        ("1.1", 2, (4, 4)),
        ("1.2", 2, (4, 4)),
        ("2.1", 4, (2, 2)),
    ]
    assert [block.windows for block in blocks] == [Windows(3, (0, 0)), Windows(2, (1, 1)), Windows(2, (0, 0))]
    for block, each in zip(blocks, seen, strict=True):
        np.testing.assert_allclose(block.weights, weights_of(each)[0], rtol=1e-4, atol=1e-6)


def test_a_supernet_and_a_plain_transformer_are_refused() -> None:
    space = SearchSpace((StageSpace((1,), (8,), (2,), (1.0,), (32,)),))
    supernet = nnx.eval_shape(lambda: S3Transformer(space, image_size=4, patch_size=2, rngs=nnx.Rngs(0)))
    with pytest.raises(S3Error, match="build a network"):
        supernet.block_inputs(jnp.ones((1, 4, 4, 3)))
    with pytest.raises(S3Error, match="plain transformer has neither stages nor windows"):
        attention_of(make("isotropic"))


def test_weights_that_are_not_finite_are_refused() -> None:
    model = make()
    bias = model.network.stages[1].blocks[0].attention.qkv.bias
    bias[...] = jnp.full(bias.shape, jnp.nan)
    with pytest.raises(S3Error, match=r"block 2\.1 are not finite"):
        attention_of(model)(np.zeros((8, 8, 3), np.float32))
