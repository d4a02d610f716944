"""RoIAlign: against ONNX Runtime's, by hand, its two forms against each other, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.detection.boxes import level_of
from s3_jax.detection.roi_align import (
    Samples,
    axis_weights,
    by_either,
    by_places,
    by_products,
    most_places,
    roi_align_on,
    samples_of,
)

FORMS = pytest.mark.parametrize("form", [by_places, by_products])
SIZES = ((112, 128), (56, 64), (28, 32), (14, 16))  # of the maps of a canvas of 448 x 512
ALIGNED = jax.jit(lambda form, maps, boxes, side: form(maps, boxes, side), static_argnums=(0, 3))


def maps_of(seed: int, sizes=SIZES, channels: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((*size, channels), np.float32) for size in sizes]


def boxes_of(seed: int, count: int, height: float = 448, width: float = 512) -> np.ndarray:
    """Boxes of all sizes and shapes in an image, long ones too; some with whole corners, some without an area."""
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(0, np.log([width, height]), (count, 2)))
    sides[1::2] = rng.uniform(0.2, 1, (count // 2, 2)) * [width, height]
    middle = rng.uniform(0, (width, height), (count, 2))
    boxes = np.concatenate([middle - sides / 2, middle + sides / 2], axis=1)
    boxes[::3] = np.round(boxes[::3] / 4) * 4
    boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
    boxes[:2] = [[5, 5, 5, 9], [0, 0, width, height]]
    boxes[2:4] = [[0, 3, width, 21], [60, 0, 77.3, height]]
    return boxes


def expected(maps, boxes: np.ndarray, side: int, align) -> np.ndarray:
    """Every box looked up in the map of its level by `align(map, boxes, side, scale)`."""
    levels = np.asarray(level_of(jnp.asarray(boxes)))
    result = np.zeros((len(boxes), side, side, maps[0].shape[-1]), np.float32)
    for level, x in enumerate(maps):
        own = levels == level
        assert own.any()
        result[own] = align(x, boxes[own], side, 1 / (4 * 2**level))
    return result


@pytest.mark.parametrize(("form", "side"), [(by_places, 7), (by_products, 7), (by_places, 14)])
def test_it_is_onnx_runtimes(form, side):
    """Of boxes of all levels, sizes and shapes."""
    from onnx_operators import roi_align

    maps, boxes = maps_of(0), boxes_of(1, 128)
    actual = ALIGNED(form, maps, boxes, side)
    np.testing.assert_allclose(actual, expected(maps, boxes, side, roi_align), atol=5e-5)
    assert not np.asarray(actual[0]).any()  # without an area


def test_both_forms_are_one_for_boxes_as_long_as_can_be():
    """And for boxes that leave the image, and inverted ones: what `most_places` says is enough for all of them."""
    maps, rng = maps_of(2), np.random.default_rng(3)
    thin = np.exp(rng.uniform(np.log(1), np.log(60), (128, 1)))
    long = np.minimum(110 * 110 / thin, 700)
    sides = np.where(rng.random((128, 1)) < 0.5, np.concatenate([thin, long], 1), np.concatenate([long, thin], 1))
    low = rng.uniform(-50, 300, (128, 2)) * (rng.random((128, 1)) < 0.7)
    boxes = np.concatenate([low, low + sides], axis=1).astype(np.float32)
    boxes[-3:] = boxes[-3:, [2, 3, 0, 1]]
    gathered, multiplied = (np.asarray(ALIGNED(form, maps, boxes, 7)) for form in (by_places, by_products))
    np.testing.assert_allclose(gathered, multiplied, atol=2e-5)
    assert not gathered[-3:].any()


def test_most_places_worked_out_by_hand():
    """Of the last map all may be covered; a RoI of the others is smaller than 28 places squared, whatever its shape."""
    assert most_places([(25, 42)]) == 25 * 42
    assert most_places([(10, 10), (5, 5)]) == 100  # all of a small map
    assert most_places([(200, 336), (100, 168), (50, 84), (25, 42)]) == 336 * (785 // 333 + 3)


def test_a_slope_is_its_value_at_the_middle_of_every_bin():
    """Interpolation of a linear map is exact, so a mean is the value at the middle, for any number of samples."""
    x = np.stack(np.meshgrid(np.arange(128.0), np.arange(112.0)), axis=-1).astype(np.float32)
    box = np.asarray([40, 80, 96.5, 150], np.float32)
    boxes = np.tile(box, (128, 1))
    maps = [x, *maps_of(0)[1:]]
    bins = (np.arange(7) + 0.5) / 7
    columns, rows = (low / 4 - 0.5 + bins * (high - low) / 4 for low, high in ((40, 96.5), (80, 150)))
    desired = np.stack(np.meshgrid(columns, rows), axis=-1)
    for form in (by_places, by_products):
        np.testing.assert_allclose(ALIGNED(form, maps, boxes, 7)[5], desired, rtol=1e-5)


def test_samples_worked_out_by_hand():
    """A bin of exactly seven places has seven samples, not eight, and one of a little more has eight."""
    high = jnp.asarray([49, 49.001, 3.5, 0, -7, 98], jnp.float32)
    start, step, count = jax.jit(samples_of, static_argnums=2)(jnp.zeros(6), high, 7)
    np.testing.assert_array_equal(count, [7, 8, 1, 0, 0, 14])
    np.testing.assert_allclose(step[:3], [1, 49.001 / 56, 0.5], rtol=1e-6)
    np.testing.assert_allclose(start[:3], step[:3] / 2, rtol=1e-6)


def test_weights_worked_out_by_hand():
    """One bin: samples at 0.25 and 0.75 are shared by two places; beyond the map by one place, and then by none."""

    def weights(*samples: float) -> np.ndarray:
        return np.asarray(WEIGHTS(Samples(*(jnp.float32(each) for each in samples))))[0]

    np.testing.assert_allclose(weights(0.25, 0.5, 2), [0.5, 0.5, 0])
    np.testing.assert_allclose(weights(-0.5, 1, 2), [0.75, 0.25, 0])
    np.testing.assert_allclose(weights(2.5, 1, 2), [0, 0, 0.5])  # 2.5 counts for the last place, 3.5 for none
    np.testing.assert_allclose(weights(3, 1, 1), [0, 0, 1])
    np.testing.assert_allclose(weights(-1.5, 1, 1), [0, 0, 0])
    np.testing.assert_allclose(weights(0, 1, 0), [0, 0, 0])


WEIGHTS = jax.jit(lambda samples: axis_weights(samples, 1, jnp.arange(3), 3))


def sampled_weights(low: float, high: float, side: int, size: int) -> np.ndarray:
    """What places count, sample by sample, in float64: (side, size)."""
    count = max(int(np.ceil((high - low) / side - 1e-9)), 0)
    weights = np.zeros((side, size))
    for place, sample in np.ndindex(side, count):
        at = low + (high - low) / side * (place + (sample + 0.5) / count)
        if -1 <= at <= size:
            weights[place] += np.maximum(0, 1 - np.abs(np.clip(at, 0, size - 1) - np.arange(size))) / count
    return weights


def sampled_gradient(x: np.ndarray, boxes: np.ndarray, scale: float, cotangent: np.ndarray) -> np.ndarray:
    """The gradient of RoIAlign with respect to the map (H, W, C), for (R, side, side, C)."""
    gradient = np.zeros(x.shape)
    for (left, top, right, bottom), each in zip(boxes * scale - 0.5, cotangent, strict=True):
        rows = sampled_weights(top, bottom, len(each), x.shape[0])
        gradient += np.einsum("ph,pqc,qw->hwc", rows, each, sampled_weights(left, right, len(each), x.shape[1]))
    return gradient


@FORMS
def test_its_gradient_is_that_of_the_samples_one_by_one(form):
    maps, boxes = maps_of(4), boxes_of(5, 128)
    cotangent = np.random.default_rng(6).standard_normal((128, 7, 7, 2)).astype(np.float32)
    gradients = jax.jit(lambda maps, boxes: jax.vjp(lambda each: form(each, boxes, 7), maps)[1](cotangent)[0])
    levels = np.asarray(level_of(jnp.asarray(boxes)))
    for level, actual in enumerate(gradients(maps, boxes)):
        own = levels == level
        desired = sampled_gradient(maps[level], boxes[own], 1 / (4 * 2**level), cotangent[own])
        np.testing.assert_allclose(actual, desired, atol=1e-4)


@FORMS
def test_images_of_a_batch_and_boxes_of_an_image_do_not_meet(form):
    """vmap is a loop, up to rounding; 70 boxes are no whole number of chunks."""
    first, second = maps_of(7, SIZES[2:]), maps_of(8, SIZES[2:])
    boxes = boxes_of(9, 140).reshape(2, 70, 4)
    both = [np.stack(pair) for pair in zip(first, second, strict=True)]
    batch = jax.jit(jax.vmap(lambda maps, boxes: form(maps, boxes, 2)))(both, boxes)
    single = jax.jit(lambda maps, boxes: form(maps, boxes, 2))
    for index, maps in enumerate((first, second)):
        alone = single(maps, boxes[index])
        np.testing.assert_allclose(batch[index], alone, atol=1e-6)
    assert single._cache_size() == 1


def test_the_form_suits_the_platform():
    assert [roi_align_on(platform) for platform in ("tpu", "cpu", "gpu")] == [by_products, by_either, by_places]


def test_maps_of_two_bytes_give_answers_of_two_bytes():
    maps = [jnp.asarray(x, jnp.bfloat16) for x in maps_of(0, SIZES[2:])]
    shapes = jax.eval_shape(lambda maps: by_places(maps, jnp.zeros((3, 4)), 7), maps)
    assert shapes.dtype == jnp.bfloat16
    assert jax.eval_shape(lambda maps: by_products(maps, jnp.zeros((3, 4)), 7), maps) == shapes


@pytest.mark.parametrize(("sizes", "expected"), [(((8, 8), (4, 4)), by_products), (((256, 256), (2, 2)), by_places)])
def test_on_a_cpu_small_maps_are_multiplied_and_large_ones_gathered_from(sizes, expected):
    maps = [jax.ShapeDtypeStruct((*size, 2), jnp.float32) for size in sizes]
    boxes = jax.ShapeDtypeStruct((3, 4), jnp.float32)
    chosen, wanted = (
        jax.make_jaxpr(lambda m, b, form=form: form(m, b, 7))(maps, boxes) for form in (by_either, expected)
    )
    assert str(chosen) == str(wanted)
