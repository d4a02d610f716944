"""Bilinear resizing, adaptive pooling and convolutions: by hand, and the laws by which they change places."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.segmentation.resizing import (
    along_columns,
    along_rows,
    convolution,
    enlarged_convolution,
    interpolated,
    moved,
    pool_matrix,
    pooled,
    resize_matrix,
    resized,
)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def assert_close(actual, desired):
    actual, desired = np.asarray(actual), np.asarray(desired)
    np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-5 * np.abs(desired).max())


def test_resizing_worked_out_by_hand():
    """Pixels are areas: two become four, whose outer ones lie beyond the old centres, and three become two."""
    assert_close(resize_matrix(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    assert_close(resize_matrix(3, 2), [[0.75, 0.25, 0], [0, 0.25, 0.75]])
    assert_close(resize_matrix(1, 3), [[1], [1], [1]])
    np.testing.assert_array_equal(resize_matrix(5, 5), np.eye(5))


@pytest.mark.parametrize("size", [1, 2, 7, 13])
def test_every_row_of_a_resizing_and_of_a_pooling_sums_to_one(size):
    for new in range(1, 20):
        for matrix in (resize_matrix(size, new), pool_matrix(size, new)):
            assert matrix.shape == (new, size)
            assert matrix.min() >= 0
            np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)


def test_resizing_turns_round_with_the_map():
    for size, new in ((2, 5), (7, 3), (6, 12), (5, 11)):
        np.testing.assert_allclose(resize_matrix(size, new)[::-1, ::-1], resize_matrix(size, new), atol=1e-6)


def test_pooling_worked_out_by_hand():
    """Areas begin at the floor and end at the ceiling of their borders, so they overlap where they do not divide."""
    third, half = 1 / 3, 1 / 2
    assert_close(
        pool_matrix(7, 3),
        [[third] * 3 + [0] * 4, [0, 0, third, third, third, 0, 0], [0] * 4 + [third] * 3],
    )
    assert_close(pool_matrix(6, 3), [[half, half, 0, 0, 0, 0], [0, 0, half, half, 0, 0], [0, 0, 0, 0, half, half]])
    assert_close(pool_matrix(2, 3), [[1, 0], [half, half], [0, 1]])
    assert_close(pool_matrix(1, 6), np.ones((6, 1)))
    rows = [[1, 0, 0, 0], [half, half, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, half, half], [0, 0, 0, 1]]
    assert_close(pool_matrix(4, 6), rows)


@pytest.mark.parametrize("size", [(7, 20), (2, 3), (3, 5), (1, 1)])
def test_interpolation_is_resizing(size):
    x = normal(0, 2, 3, 5, 4)
    assert_close(interpolated(x, size), resized(x, size))


def test_maps_are_resized_and_pooled_along_both_axes():
    x = normal(0, 2, 3, 5, 4)
    expected = np.einsum("hH,wW,bHWc->bhwc", resize_matrix(3, 7), resize_matrix(5, 4), x)
    assert_close(resized(x, (7, 4)), expected)
    assert resized(x, (3, 5)) is x
    assert_close(pooled(x, 1), np.mean(x, (1, 2), keepdims=True))
    assert_close(pooled(x, 2), np.einsum("hH,wW,bHWc->bhwc", pool_matrix(3, 2), pool_matrix(5, 2), x))
    assert_close(pooled(x[:, :1, :1], 6), np.broadcast_to(x[:, :1, :1], (2, 6, 6, 4)))


def test_moving_worked_out_by_hand():
    matrix = np.float32([[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(moved(matrix, 0), matrix)
    np.testing.assert_array_equal(moved(matrix, 1), [[3, 4], [5, 6], [0, 0]])
    np.testing.assert_array_equal(moved(matrix, -1), [[0, 0], [1, 2], [3, 4]])
    np.testing.assert_array_equal(moved(matrix, 2), [[5, 6], [0, 0], [0, 0]])
    np.testing.assert_array_equal(moved(matrix[:1], 1), [[0, 0]])


@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
def test_a_moved_resizing_is_the_resized_map_moved(offset):
    """With zeros where it looks beyond the edges, as a convolution does."""
    x, matrix = normal(1, 1, 3, 3, 2), resize_matrix(3, 7)
    padded = np.pad(np.asarray(resized(x, (7, 3))), ((0, 0), (2, 2), (0, 0), (0, 0)))
    assert_close(along_rows(moved(matrix, offset), x), padded[:, 2 + offset : 9 + offset])
    padded = np.pad(np.asarray(resized(x, (3, 7))), ((0, 0), (0, 0), (2, 2), (0, 0)))
    assert_close(along_columns(moved(matrix, offset), x), padded[:, :, 2 + offset : 9 + offset])


def test_resizing_and_products_over_channels_change_places():
    x, kernel = normal(2, 2, 3, 4, 5), normal(3, 5, 6)
    assert_close(resized(x @ kernel, (7, 9)), resized(x, (7, 9)) @ kernel)


def reference(kernel, x):
    sizes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=sizes)


def assert_same_with_gradients(ours, theirs, *inputs):
    """Results, and gradients of a sum in which every entry counts differently."""
    cotangent = normal(4, *jax.eval_shape(theirs, *inputs).shape)

    @jax.jit
    def both(*inputs):
        pairs = [jax.vjp(each, *inputs) for each in (ours, theirs)]
        return [(value, *pull(cotangent)) for value, pull in pairs]

    for actual, desired in zip(*both(*inputs), strict=True):
        assert_close(actual, desired)


@pytest.mark.parametrize("by_products", [True, False])
@pytest.mark.parametrize("side", [1, 3, 5])
def test_a_convolution_is_that_of_xla_and_its_gradients_too(side, by_products):
    ours = partial(convolution, by_products=by_products)
    assert_same_with_gradients(ours, reference, normal(5, side, side, 3, 4), normal(6, 2, 5, 7, 3))


@pytest.mark.parametrize(
    ("side", "old", "new"),
    [(3, (3, 4), (6, 8)), (3, (5, 7), (11, 13)), (3, (1, 1), (4, 6)), (5, (2, 3), (2, 4))],
)
def test_the_convolution_of_an_enlarged_map_takes_its_products_first(side, old, new):
    def enlarged_first(kernel, x):
        return reference(kernel, resized(x, new))

    ours = partial(enlarged_convolution, size=new, by_products=True)
    assert_same_with_gradients(ours, enlarged_first, normal(7, side, side, 3, 4), normal(8, 2, *old, 3))


@pytest.mark.parametrize("by_products", [True, False])
def test_the_convolution_of_a_map_of_that_size_already_is_the_plain_one(by_products):
    kernel, x = normal(9, 3, 3, 2, 3), normal(10, 1, 4, 5, 2)
    found = enlarged_convolution(kernel, x, (4, 5), by_products=by_products)
    np.testing.assert_array_equal(found, convolution(kernel, x, by_products=by_products))


def test_kernels_are_taken_in_the_type_of_the_map():
    kernel, x = normal(11, 3, 3, 2, 3), normal(12, 1, 4, 5, 2).astype(jnp.bfloat16)
    plain = [partial(convolution, by_products=each) for each in (True, False)]
    for function in (*plain, partial(enlarged_convolution, size=(8, 9), by_products=True)):
        assert jax.eval_shape(function, kernel, x).dtype == jnp.bfloat16
