"""UperNet: exact parameter counts, shapes, and the laws of evaluation, of training and of the supernet."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from s3_jax.config import ModelConfig
from s3_jax.models.subnet import slice_weights, subnet_mask
from s3_jax.networks import zoo
from s3_jax.segmentation.upernet import UperNet, overlapped_upernet, slice_upernet
from s3_jax.space import Architecture, Block, SearchSpace, Stage, StageSpace, largest, sample, smallest
from s3_jax.task import Variables, variables_of

MODEL = ModelConfig(image_size=16, patch_size=4, kernel_std=0.0)
CLASSES, CHANNELS = 5, 8
SIZE = (30, 21)  # pixels: maps of 8 x 6, 4 x 3 and 2 x 2, which neither patches nor windows tile
ARCHITECTURE = Architecture(
    (Stage(16, (Block(4, 1.0, 32),)), Stage(24, (Block(2, 1.0, 32),)), Stage(40, (Block(2, 1.0, 32),)))
)
SPACE = SearchSpace(
    (
        StageSpace((1,), (16, 24), (2, 4), (1.0, 2.0), (32, 64)),
        StageSpace((1,), (24, 40), (2,), (1.0,), (32, 64)),
    )
)


def build(structure, model: ModelConfig = MODEL) -> UperNet:
    sizes = {"num_classes": CLASSES, "channels": CHANNELS, "auxiliary_channels": 6}
    return UperNet(structure, model=model, **sizes, dropout=0.3, rngs=nnx.Rngs(0))


def abstract(structure, model: ModelConfig = MODEL) -> UperNet:
    return nnx.eval_shape(partial(build, structure, model))


def noisy(network: UperNet) -> UperNet:
    """With random scales, biases and statistics: zeros and ones would hide what is left out. From numpy."""
    rng = np.random.default_rng(1)

    def filled(path, leaf):
        """Kernels keep activations near 1; scales and variances are positive."""
        name, fan_in = str(path[-1]), prod(leaf.shape[:-1])
        positive = "scale" in name or "variance" in name
        noise = 0.2 * rng.normal(size=leaf.shape)
        return jnp.asarray(np.exp(noise) if positive else noise if leaf.ndim == 1 else 5 * noise / fan_in**0.5)

    held = variables_of(network)
    nnx.update(network, jax.tree_util.tree_map_with_path(filled, held.params))
    nnx.update(network, jax.tree_util.tree_map_with_path(filled, held.stats))
    return network


class Programs(NamedTuple):
    """A supernet's, which all tests share: compiled once for all subnets."""

    space: SearchSpace
    variables: Variables
    evaluate: Callable  # (variables, images, subnet) to logits and statistics
    train: Callable  # (variables, images, weight, key, subnet) to logits of both heads, and statistics
    traces: list[str]

    def mask(self, architecture):
        return subnet_mask(self.space, architecture)


@pytest.fixture(scope="module")
def supernet() -> Programs:
    network, traces = noisy(abstract(SPACE)), []
    definition, *_ = nnx.split(network, nnx.Param, nnx.BatchStat)

    def traced(function):
        def run(*arguments):
            traces.append(function.__name__)
            return function(definition, *arguments)

        return jax.jit(run)

    return Programs(network.backbone.space, variables_of(network), traced(evaluated), traced(in_training), traces)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((3, *SIZE, 3), np.float32)


def evaluated(definition, variables: Variables, x, subnet=None):
    """Logits, and running statistics after them."""
    network = nnx.merge(definition, *map(nnx.State, variables))
    return network(x, subnet), variables_of(network).stats


def in_training(definition, variables: Variables, x, weight, key, subnet=None):
    """Logits of both heads, and running statistics after them."""
    network = nnx.merge(definition, *map(nnx.State, variables))
    logits = network.in_training(x, weight, subnet, max_drop_path=0.2, key=key)
    return logits, variables_of(network).stats


def assert_close(actual, desired):
    actual, desired = np.asarray(actual), np.asarray(desired)
    np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-5 * max(np.abs(desired).max(), 1e-3))


def size_of(*modules) -> int:
    return sum(leaf.size for module in modules for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


@pytest.mark.parametrize(
    ("name", "backbone", "whole"),
    [
        ("s3_t", 27_561_018, 59_982_182),
        ("s3_s", 48_969_642, 81_390_806),
        ("s3_b", 70_358_106, 102_779_270),
    ],
)
def test_parameters_are_those_of_the_papers_table_3(name, backbone, whole):
    """The heads are the same for all three: 31,497,366 of the decode head, 923,798 of the auxiliary one."""
    make = partial(UperNet, zoo.architecture(name), model=ModelConfig(), num_classes=150)
    network = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    assert size_of(network.backbone) == backbone
    assert size_of(network) == whole
    assert (size_of(network.decode), size_of(network.auxiliary)) == (31_497_366, 923_798)


@pytest.mark.parametrize("size", [SIZE, (1, 1)])
def test_logits_have_strides_of_the_first_map_and_of_the_last_but_one(size):
    network, images = abstract(ARCHITECTURE), jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    rows, columns = (-(-length // 4) for length in size)
    assert nnx.eval_shape(lambda n, x: n(x), network, images).shape == (2, rows, columns, CLASSES)
    train = partial(UperNet.in_training, key=jax.random.key(0))
    logits = nnx.eval_shape(train, network, images, jax.ShapeDtypeStruct((2,), jnp.float32))
    assert logits.decode.shape == (2, rows, columns, CLASSES)
    assert logits.auxiliary.shape == (2, -(-rows // 2), -(-columns // 2), CLASSES)


def test_evaluation_of_an_image_knows_nothing_of_the_others_and_changes_no_statistics(supernet, images):
    subnet = supernet.mask(largest(supernet.space))
    together, statistics = supernet.evaluate(supernet.variables, images, subnet)
    others = np.concatenate([images[:1], 10 * images[1:]])
    assert_close(supernet.evaluate(supernet.variables, others, subnet)[0][0], together[0])
    assert float(jnp.std(together)) > 0.1
    jax.tree.map(np.testing.assert_array_equal, statistics, supernet.variables.stats)


def test_half_precision_gives_single_logits_near_those_of_single(supernet, images):
    half = abstract(SPACE, ModelConfig(image_size=16, patch_size=4, dtype="bfloat16"))
    definition, *_ = nnx.split(half, nnx.Param, nnx.BatchStat)
    inputs = (supernet.variables, images, supernet.mask(largest(supernet.space)))
    (expected, _), (found, _) = supernet.evaluate(*inputs), jax.jit(partial(evaluated, definition))(*inputs)
    assert found.dtype == expected.dtype == jnp.float32
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_training_updates_the_statistics_of_every_layer(supernet, images):
    """In place, by examples that count alone, which no others change."""
    before, subnet, key = supernet.variables, supernet.mask(largest(supernet.space)), jax.random.key(0)
    same, other = images.copy(), images.copy()
    same[2], other[0] = 3 * images[2] + 1, 3 * images[0] + 1
    (logits, after), (padded, unchanged), (_, changed) = (
        supernet.train(before, each, jnp.asarray([1.0, 1.0, 0.0]), key, subnet) for each in (images, same, other)
    )
    jax.tree.map(assert_close, unchanged, after)
    for found, expected in zip(padded, logits, strict=True):
        assert_close(found[:2], expected[:2])
    assert len(jax.tree.leaves(after)) == 2 * (4 + 1 + 1 + 1 + 1 + 1)
    for leaves in zip(*map(jax.tree.leaves, (before.stats, after, changed)), strict=True):
        old, new, others = map(np.asarray, leaves)
        assert (new != old).any()
        assert (new != others).any()


def sliced(variables: Variables, space: SearchSpace, architecture) -> Variables:
    """What of a supernet is a subnet's: the backbone's slice, and of the heads the inputs that it has."""
    dims = [stage.embed_dim for stage in architecture.stages]
    widest = [max(stage.embed_dim) for stage in space.stages]
    backbone = slice_weights(variables.params["backbone"], space, architecture)
    decode, auxiliary = (jax.tree.map(lambda leaf: leaf, variables.params[name]) for name in ("decode", "auxiliary"))
    for layer, dim in zip(decode["laterals"].values(), dims[:-1], strict=True):
        cut(layer, lambda kernel, dim=dim: kernel[:, :, :dim])
    for layer in decode["pools"].values():
        cut(layer, lambda kernel: kernel[:, :, : dims[-1]])
    absent = np.arange(dims[-1], widest[-1])  # of the map; the pools come behind it
    cut(decode["bottleneck"], lambda kernel: jnp.delete(kernel, absent, axis=2))
    cut(auxiliary["convolution"], lambda kernel: kernel[:, :, : dims[-2]])
    return Variables({"backbone": backbone, "decode": decode, "auxiliary": auxiliary}, variables.stats)


def cut(layer, by) -> None:
    layer["convolution"]["kernel"] = by(layer["convolution"]["kernel"])


def test_masked_subnets_are_the_networks_of_their_weights_in_one_trace(supernet, images):
    """Logits of four; of the smallest also both heads' in training, with stochastic depth and dropout, and after it
    the statistics."""
    space, variables, rng = supernet.space, supernet.variables, np.random.default_rng(3)
    for architecture in (largest(space), sample(space, rng), sample(space, rng), smallest(space)):
        alone, own = abstract(architecture), sliced(variables, space, architecture)
        assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, variables_of(alone))
        found = slice_upernet(variables.params, space, architecture)
        jax.tree.map(np.testing.assert_array_equal, found, own.params)
        mask, (network, *_) = supernet.mask(architecture), nnx.split(alone, nnx.Param, nnx.BatchStat)
        expected = jax.jit(partial(evaluated, network))(own, images)
        assert_close(supernet.evaluate(variables, images, mask)[0], expected[0])
    batch = (images, jnp.asarray([1.0, 1.0, 0.0]), jax.random.key(0))
    expected = jax.jit(partial(in_training, network))(own, *batch)
    jax.tree.map(assert_close, supernet.train(variables, *batch, mask), expected)
    assert sorted(supernet.traces) == ["evaluated", "in_training"]


def test_overlap_of_spaces_keeps_the_networks_that_they_share():
    """Those of the bottleneck's inputs that come from the pools too, which begin at another place in a wider space."""
    wider = SPACE.replace(0, "embed_dim", (24, 32)).replace(1, "embed_dim", (40, 56))
    rng = np.random.default_rng(4)
    first, second = (
        jax.tree.map(lambda leaf: jnp.asarray(rng.random(leaf.shape, np.float32)), variables_of(abstract(space)).params)
        for space in (SPACE, wider)
    )
    overlapped = overlapped_upernet(first, second)
    shared = Architecture((Stage(24, (Block(4, 2.0, 64),)), Stage(40, (Block(2, 1.0, 32),))))
    slices = slice_upernet(first, SPACE, shared), slice_upernet(overlapped, wider, shared)
    jax.tree.map(np.testing.assert_array_equal, *slices)
    assert jax.tree.map(jnp.shape, overlapped) == jax.tree.map(jnp.shape, second)
