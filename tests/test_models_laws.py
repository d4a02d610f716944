"""The laws of the supernet: masked == sliced, one trace for all subnets, zero gradients outside, cost == eval_shape."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from s3_jax.cost import cost
from s3_jax.errors import S3Error
from s3_jax.models.attention import Windows, attend, attend_within, relative_bias, windows_of_block
from s3_jax.models.heads import all_at_once, one_by_one
from s3_jax.models.layers import gelu, pad_to_multiple
from s3_jax.models.subnet import Params, copy_overlap, slice_weights, subnet_mask
from s3_jax.models.transformer import S3Transformer
from s3_jax.space import SearchSpace, StageSpace, largest, sample, smallest

NUM_SUBNETS = 10  # besides the largest and the smallest
IMAGE_SIZE, PATCH_SIZE, CLASSES = 12, 2, 5  # maps of side 6 and 3: padded windows and an odd map occur
SPACE = SearchSpace((StageSpace((1, 2), (16, 32), (2, 4), (1.0, 2.0), (32, 64)),) * 2)


class Supernet(NamedTuple):
    space: SearchSpace
    definition: nnx.GraphDef
    params: Params


def split(network: S3Transformer) -> tuple[nnx.GraphDef, Params]:
    definition, params = nnx.split(network)
    return definition, nnx.to_pure_dict(params)


def build(
    structure, every_width: bool = False, remat: bool = False, platform: str = "cpu", output_norms: bool = False
) -> S3Transformer:
    return S3Transformer(
        structure,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        num_classes=CLASSES,
        kernel_std=0.0,
        every_width=every_width,
        remat=remat,
        platform=platform,
        output_norms=output_norms,
        rngs=nnx.Rngs(0),
    )


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    # Zero biases and unit scales would hide a mask that lets them through. From numpy: nothing to compile.
    network = nnx.eval_shape(lambda: build(SPACE))
    definition, shapes = split(network)
    rng = np.random.default_rng(1)
    noise = jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype), shapes)
    lifted = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf + ("scale" in str(path[-1])), noise)
    return Supernet(network.space, definition, lifted)


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.normal(jax.random.key(2), (2, IMAGE_SIZE, IMAGE_SIZE, 3))


def value_and_gradient(definition, params, images, subnet, key):
    """The logits, and the gradient of a scalar in which every logit counts differently."""

    def scalar(params):
        logits = nnx.merge(definition, params)(images, subnet, max_drop_path=0.3, key=key)
        return (jnp.sin(jnp.arange(logits.size).reshape(logits.shape)) * logits).sum(), logits

    gradient, logits = jax.grad(scalar, has_aux=True)(params)
    return logits, gradient


def assert_close(actual, desired):
    """Equal up to float32 rounding: relative to each entry, or to the size of the array's entries where they cancel."""
    actual, desired = np.asarray(actual), np.asarray(desired)
    np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-5 * max(np.abs(desired).max(), 1e-3))


def test_masked_is_sliced_in_one_trace_with_zero_gradients_outside(supernet, images):
    traces = []

    def masked_run(definition):
        def run(params, subnet, key):
            traces.append(subnet)
            return value_and_gradient(definition, params, images, subnet, key)

        return jax.jit(run)

    # All blocks at the largest width, or a body for every width; computed as on every kind of device.
    kinds = ((False, "cpu"), (False, "gpu"), (True, "tpu"))
    definitions = [
        nnx.split(nnx.eval_shape(partial(build, SPACE, every_width, platform=platform)))[0]
        for every_width, platform in kinds
    ]
    runs = list(map(masked_run, definitions))
    rng = np.random.default_rng(0)
    subnets = [largest(supernet.space), smallest(supernet.space)]
    subnets += [sample(supernet.space, rng) for _ in range(NUM_SUBNETS)]
    for index, architecture in enumerate(subnets):
        # With stochastic depth, whose draws and rates must agree as well.
        key = jax.random.key(index)
        sliced = slice_weights(supernet.params, supernet.space, architecture)
        network = nnx.split(nnx.eval_shape(lambda architecture=architecture: build(architecture)))[0]
        # Not compiled as a whole: architectures share most operations, not programs.
        expected_logits, expected = value_and_gradient(network, sliced, images, None, key)
        for run in runs:
            logits, gradient = run(supernet.params, subnet_mask(supernet.space, architecture), key)
            assert_close(logits, expected_logits)
            inside = slice_weights(gradient, supernet.space, architecture)
            jax.tree.map(assert_close, inside, expected)
            assert_zero_outside(gradient, supernet.space, architecture)
    assert len(traces) == len(runs)


def assert_zero_outside(gradient, space, architecture):
    """Where the subnet's weights are cut out of a tree of ones, the rest marks what lies outside of it."""
    flagged = jax.tree.map(np.ones_like, gradient)
    count_inside = sum(leaf.size for leaf in jax.tree.leaves(slice_weights(flagged, space, architecture)))
    nonzero = sum(int((np.asarray(leaf) != 0).sum()) for leaf in jax.tree.leaves(gradient))
    nonzero_inside = sum(
        int((np.asarray(leaf) != 0).sum()) for leaf in jax.tree.leaves(slice_weights(gradient, space, architecture))
    )
    assert nonzero == nonzero_inside
    assert 0 < nonzero_inside <= count_inside


@pytest.mark.parametrize("size", [(26, 18), (3, 5)])  # of the maps of stage 1; the second is smaller than a window
def test_dense_maps_are_those_of_the_sliced_network_and_of_each_image_alone(size):
    """With output norms, off the training size: windows stay, and depend on neither the map nor the batch."""
    network = build(SPACE, output_norms=True, every_width=True)
    definition, params = split(network)
    noise = np.random.default_rng(4)
    params = jax.tree.map(lambda leaf: leaf + jnp.asarray(0.2 * noise.normal(size=leaf.shape), leaf.dtype), params)
    images = jax.random.normal(jax.random.key(5), (3, PATCH_SIZE * size[0], PATCH_SIZE * size[1], 3))
    masked_run = jax.jit(lambda mask: nnx.merge(definition, params).features(images, mask))
    for architecture in (smallest(network.space), sample(network.space, noise)):
        sliced = slice_weights(params, network.space, architecture)
        alone = nnx.split(nnx.eval_shape(partial(build, architecture, output_norms=True)))[0]
        run = jax.jit(lambda x, alone=alone, sliced=sliced: nnx.merge(alone, sliced).features(x))
        expected, one, masked = run(images), run(images[:1]), masked_run(network.mask(architecture))
        for dim, theirs, ours, first in zip(architecture.stages, expected, masked, one, strict=True):
            assert_close(ours[..., : dim.embed_dim], theirs)
            assert_close(first, theirs[:1])
        windows = [windows_of_block(block.window, *size, 1).side for block in architecture.stages[0].blocks]
        assert windows == [block.window for block in architecture.stages[0].blocks]


@pytest.mark.parametrize("over_heads", [all_at_once, one_by_one])
@pytest.mark.parametrize(("active", "shifted"), [(None, True), (2, True), (2, False), (3, True)])
def test_attention_has_the_gradient_that_differentiation_gives(active, shifted, over_heads):
    """Against all heads at once, masked, without a gradient of our own; the map is odd, and windows shift."""
    rng, heads, windows = np.random.default_rng(3), 3, Windows(4, (2, 2))
    shapes = ((2, 7, 7, heads * 96), (3, heads, 32), (9, 9, heads))
    inputs = tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    cotangent = jnp.asarray(rng.normal(size=(2, 7, 7, heads * 32)), jnp.float32)

    def plain(qkv, bias, table):
        qkv = pad_to_multiple(qkv, (4, 4))
        outputs = []
        for head in range(heads if active is None else active):
            part = qkv[..., 96 * head : 96 * (head + 1)]
            of_head = (part, bias[:, head].reshape(-1), relative_bias(table[..., head : head + 1], 4)[0])
            outputs.append(attend(of_head, shifted, windows)[:, :7, :7])
        outputs += [jnp.zeros_like(outputs[0])] * (heads - len(outputs))
        return jnp.concatenate(outputs, -1)

    def ours(qkv, bias, table):
        return attend_within(qkv, bias, table, windows, over_heads, active, shifted)

    (expected, pull), (actual, pull_ours) = jax.vjp(plain, *inputs), jax.vjp(ours, *inputs)
    assert_close(actual, expected)
    jax.tree.map(assert_close, pull_ours(cotangent), pull(cotangent))
    assert_close(ours(*inputs), expected)


def test_recomputed_blocks_have_the_same_gradient(supernet, images):
    architecture = largest(supernet.space)
    sliced = slice_weights(supernet.params, supernet.space, architecture)
    kept, again = (
        nnx.split(nnx.eval_shape(lambda remat=remat: build(architecture, remat=remat)))[0] for remat in (False, True)
    )
    (_, expected), (_, actual) = (
        value_and_gradient(definition, sliced, images, None, jax.random.key(0)) for definition in (kept, again)
    )
    jax.tree.map(assert_close, actual, expected)


def test_gelu_keeps_its_small_values_in_half_precision():
    x = np.linspace(-4, 4, 65)
    exact = x * 0.5 * np.array([math.erfc(-value / math.sqrt(2)) for value in x])
    half = np.asarray(gelu(jnp.asarray(x, jnp.bfloat16)), np.float64)
    np.testing.assert_allclose(half, exact, rtol=2**-7, atol=1e-6)


def test_parameter_count_is_that_of_eval_shape_for_every_architecture():
    rng = np.random.default_rng(1)
    for _ in range(40):
        architecture = sample(SPACE, rng)
        shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda a=architecture: build(a))))
        count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        expected = cost(architecture, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, num_classes=CLASSES)
        assert expected.params == count


def test_multiply_adds_are_those_of_the_products_in_the_program():
    """The count of cost.py against the dot products that JAX traces, over windows that need padding and that do not."""
    rng = np.random.default_rng(2)
    for _ in range(10):
        architecture = sample(SPACE, rng)
        network = nnx.eval_shape(lambda a=architecture: build(a))
        definition, params = split(network)
        image = jax.ShapeDtypeStruct((1, IMAGE_SIZE, IMAGE_SIZE, 3), jnp.float32)
        program = jax.make_jaxpr(lambda p, x, d=definition: nnx.merge(d, p)(x))(params, image)
        expected = cost(architecture, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, num_classes=CLASSES)
        assert sum(map(multiply_adds, program.eqns)) == expected.macs


def multiply_adds(equation) -> int:
    if equation.primitive.name != "dot_general":
        inner = [p.jaxpr for p in equation.params.values() if hasattr(p, "jaxpr")]
        assert equation.primitive.name not in ("scan", "while"), "a network without a gradient holds no loop"
        return sum(multiply_adds(e) for jaxpr in inner for e in jaxpr.eqns)
    (contracted, _), _ = equation.params["dimension_numbers"]
    summed = np.prod([equation.invars[0].aval.shape[axis] for axis in contracted])
    return int(summed * equation.outvars[0].aval.size)


def test_a_space_of_one_stage_can_be_sliced(images):
    network = build(SearchSpace(SPACE.stages[:1]))
    definition, params = split(network)
    architecture = smallest(network.space)
    sliced = slice_weights(params, network.space, architecture)
    alone = nnx.split(nnx.eval_shape(lambda: build(architecture)))[0]
    expected = nnx.merge(alone, sliced)(images)
    assert_close(nnx.merge(definition, params)(images, network.mask(architecture)), expected)


def test_slicing_the_largest_changes_no_weight(supernet):
    sliced = slice_weights(supernet.params, supernet.space, largest(supernet.space))
    count = sum(leaf.size for leaf in jax.tree.leaves(supernet.params))
    assert count == sum(leaf.size for leaf in jax.tree.leaves(sliced))
    for j, block in sliced["stages"][1]["blocks"].items():
        whole = supernet.params["stages"][1]["blocks"]["mlp"]["fc1"]["kernel"][j]
        np.testing.assert_array_equal(block["mlp"]["fc1"]["kernel"], whole)


def test_overlap_of_spaces_keeps_the_subnets_they_share(supernet, images):
    """A subnet of both spaces computes the same after the weights went over into the larger supernet."""
    wider = SearchSpace((StageSpace((2, 3), (16, 48), (4, 5), (1.0, 2.5), (64, 96)),) * 2)
    network = build(wider)
    definition, fresh = split(network)
    params = copy_overlap(supernet.params, fresh)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)
    shared = smallest(network.space)
    assert supernet.space.contains(shared)
    before = nnx.merge(supernet.definition, supernet.params)(images, subnet_mask(supernet.space, shared))
    after = nnx.merge(definition, params)(images, subnet_mask(network.space, shared))
    assert_close(after, before)


def test_an_architecture_outside_the_space_is_refused(supernet):
    foreign = smallest(SearchSpace((StageSpace((1,), (24,), (2,), (1.0,), (32,)),) * 2))
    with pytest.raises(S3Error, match="not in the space"):
        subnet_mask(supernet.space, foreign)
    with pytest.raises(S3Error, match="not in the space"):
        slice_weights(supernet.params, supernet.space, foreign)
