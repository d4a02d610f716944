"""Cascade Mask R-CNN: exact parameter counts, and the laws of training and of the supernet."""

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_cascade
from flax import nnx
from tiny_cascade import ARCHITECTURE, CANVAS, CLASSES, HEAD

from s3_jax.config import ModelConfig
from s3_jax.detection.anchors import anchors_of
from s3_jax.detection.cascade import CascadeMaskRCNN, slice_cascade
from s3_jax.detection.config import HeadConfig
from s3_jax.detection.heads import RpnOutput
from s3_jax.detection.losses import Truth, mask_loss, rois_of, rpn_losses
from s3_jax.detection.proposals import Proposals
from s3_jax.errors import S3Error
from s3_jax.models.subnet import subnet_mask
from s3_jax.networks import zoo
from s3_jax.space import Architecture, SearchSpace, StageSpace, largest, smallest
from s3_jax.task import Variables, variables_of

TIMEOUT = 600  # seconds
KEY, PAPERS = jax.random.key(0), HeadConfig()
SPACE = SearchSpace(tuple(StageSpace((1,), (8, 8 + extra), (2,), (1.0,), (32,)) for extra in (4, 8, 4, 8)))


def abstract(structure, *, classes: int = 80, head: HeadConfig = PAPERS, **model) -> CascadeMaskRCNN:
    make = partial(CascadeMaskRCNN, structure, model=ModelConfig(**model), num_classes=classes, head=head)
    return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))


def size_of(module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


@pytest.mark.parametrize(
    ("name", "backbone", "whole"),
    [("s3_t", 27_561_018, 85_670_124), ("s3_s", 48_969_642, 107_078_748), ("s3_b", 70_358_106, 128_467_212)],
)
def test_parameters_are_those_of_the_papers_table_2(name, backbone, whole):
    """The heads are the same for all three."""
    network = abstract(zoo.architecture(name))
    assert size_of(network) == whole
    assert size_of(network.backbone) == backbone
    parts = (network.pyramid, network.rpn, *network.box_heads, *network.mask_heads)
    assert list(map(size_of, parts)) == [2_729_984, 593_935, *[15_618_449] * 3, *[2_643_280] * 3]


def test_a_backbone_of_other_strides_is_refused():
    with pytest.raises(S3Error, match=r"4 stages, and config\.model\.patch_size = 4"):
        abstract(Architecture(ARCHITECTURE.stages[:3]), image_size=64)
    with pytest.raises(S3Error, match="strides 4, 8, 16 and 32"):
        abstract(ARCHITECTURE, image_size=64, patch_size=2)


def test_the_last_layers_begin_with_the_deviations_of_the_settings():
    """So does the network that proposes; 0 is that of the fan-in."""
    head = dataclasses.replace(HEAD, channels=64, fc_channels=128, classifier_std=0.0)
    model = {"model": ModelConfig(image_size=64), "num_classes": 40, "head": head}
    made = CascadeMaskRCNN(ARCHITECTURE, rngs=nnx.Rngs(0), **model)
    found = [
        float(layer.kernel[...].std())
        for layer in (made.rpn.convolution, made.box_heads[2].classifier, made.box_heads[0].regressor)
    ]
    np.testing.assert_allclose(found, [0.01, 128**-0.5, 0.001], rtol=0.05)
    assert not made.rpn.objectness.bias[...].any()


@pytest.fixture(scope="module")
def train():
    """(batch, key) to terms, gradient and statistics: one program."""
    network = tiny_cascade.network()
    definition, *_ = nnx.split(network, nnx.Param, nnx.BatchStat)
    program = jax.jit(partial(tiny_cascade.training, definition))
    return lambda batch, key=KEY: program(variables_of(network), batch, key)


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    return tiny_cascade.batch(3)


def assert_equal(one, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_lies_in_padding_changes_nothing_bit_for_bit(train, batch):
    """Neither pixels beyond an image, nor boxes and masks of rows without an object."""
    rows, columns = np.indices(CANVAS)
    beyond = (rows >= batch["size"][:, :1, None]) | (columns >= batch["size"][:, 1:, None])
    padding = batch["labels"] < 0
    other = batch | {
        "image": np.where(beyond[..., None], 9.0, batch["image"]).astype(np.float32),
        "boxes": np.where(padding[..., None], np.float32([3, 3, 30, 30]), batch["boxes"]),
        "masks": np.where(padding[..., None, None], np.uint8(255), batch["masks"]),
    }
    assert beyond.any()
    assert padding.any()
    assert_equal(train(other), train(batch))


def test_more_rows_of_padding_change_no_sample_and_no_loss_bit_for_bit():
    """Of all that is given the objects; what comes behind knows nothing of them."""
    head, found = tiny_cascade.network().head, []
    anchors = anchors_of(CANVAS, head.anchor_scale)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 30, (20, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 30, (20, 2))], axis=1).astype(np.float32)
    proposals = Proposals(jnp.asarray(boxes), jnp.arange(20) < 18)
    count = len(anchors.boxes)
    output = RpnOutput(*(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((count,), (count, 4))))
    logits = jnp.asarray(rng.normal(size=(head.box_samples, 28, 28)), jnp.float32)

    @jax.jit
    def everything(truth: Truth):
        rois = rois_of(KEY, proposals, truth, stage=0, samples=head.box_samples, num_classes=CLASSES)
        rpn = rpn_losses(KEY, output, truth, anchors=anchors, samples=head.rpn_samples)
        return rois, rpn, mask_loss(logits, rois, truth)

    for rows in (3, 9):
        given = {name: jnp.asarray(each[2]) for name, each in tiny_cascade.batch(3, rows).items()}
        truth = Truth(given["boxes"], given["labels"], given["masks"], given["size"], jnp.asarray(True))
        found.append(everything(truth))
    assert_equal(*found)
    assert int(found[0][0].positive.sum()) > 3  # the three objects, and a proposal


def test_images_of_weight_0_count_nowhere_and_samples_are_drawn_by_the_key(train, batch):
    weights = np.float32([1, 0, 1])
    other = {name: each.copy() for name, each in batch.items()}
    for name, each in other.items():
        each[1] = tiny_cascade.batch(3, seed=5)[name][1]
    terms, gradient, stats = train(batch | {"weight": weights})
    assert_equal(train(other | {"weight": weights}), (terms, gradient, stats))
    first, last = (train(batch | {"weight": np.float32(each)})[0] for each in ([1, 0, 0], [0, 0, 1]))
    for name in ("rpn_class", "rpn_box"):  # other terms pass batch normalisation
        for one, two, both in zip(first[name], last[name], terms[name], strict=True):
            assert float(one + two) == pytest.approx(float(both), rel=1e-5)
    drawn = [train(batch | {"weight": weights}, jax.random.key(seed))[0] for seed in (1, 2, 3)]
    for name in ("rpn_class", "box_class_1", "box_class_3"):  # of so few boxes two keys may draw the same
        assert any(each[name][0] != terms[name][0] for each in drawn)
    assert all(each[name][1] == HEAD.rpn_samples * 2 for each in drawn for name in ("rpn_class", "rpn_box"))


def leaves_of(tree):
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def test_nothing_to_learn_from_leaves_statistics_and_has_no_gradient(train, batch):
    network = tiny_cascade.network()
    terms, gradient, stats = train(batch | {"weight": np.zeros(3, np.float32)})
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves((terms, gradient)))
    assert_equal(stats, variables_of(network).stats)


def test_gradients_are_finite_without_objects_and_for_boxes_of_a_pixel(train, batch):
    """And reach every weight where there are objects; statistics are updated in every box head."""
    boxes = batch["boxes"].copy()
    boxes[1, 0, 2:] = boxes[1, 0, :2] + 1
    boxes[2, 0, 2:] = boxes[2, 0, :2] + [1, 0]
    for given in (batch, batch | {"boxes": boxes}, batch | {"labels": np.full_like(batch["labels"], -1)}):
        terms, gradient, stats = train(given)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((terms, gradient, stats)))
        assert (float(terms["mask_1"][1]) > 0) == (given["labels"] >= 0).any()
    _, gradient, stats = train(batch)
    without = [jax.tree_util.keystr(path) for path, leaf in leaves_of(gradient) if not np.asarray(leaf).any()]
    # On so small a canvas no anchor of the coarse maps lies inside, and all RoIs are looked up in the finest.
    assert all("pyramid" in name and "outputs" in name for name in without)
    old = variables_of(tiny_cascade.network()).stats
    assert len(jax.tree.leaves(stats)) == 2 * 4 * 3
    assert all((one != two).any() for one, two in zip(*map(jax.tree.leaves, (old, stats)), strict=True))


def test_masked_subnets_are_the_networks_of_their_weights():
    """In training, of the smallest: losses and statistics."""
    settings = {"classes": CLASSES, "head": HEAD, "image_size": 64, "kernel_std": 0.0}
    supernet, architecture = abstract(SPACE, **settings), smallest(SPACE)
    alone = abstract(architecture, **settings)
    rng = np.random.default_rng(0)
    filled = partial(jax.tree.map, lambda leaf: np.float32(rng.normal(size=leaf.shape) / leaf.shape[0] ** 0.5))
    params, stats = (
        filled(variables_of(supernet).params),
        jax.tree.map(lambda x: np.ones(x.shape, np.float32), variables_of(supernet).stats),
    )
    own = slice_cascade(params, SPACE, architecture)
    assert jax.tree.map(np.shape, own) == jax.tree.map(np.shape, variables_of(alone).params)
    assert jax.tree.map(np.shape, slice_cascade(params, SPACE, largest(SPACE))["pyramid"]) == jax.tree.map(
        np.shape, params["pyramid"]
    )
    mask, batch = subnet_mask(supernet.backbone.space, architecture), tiny_cascade.batch(1)
    found, expected = (
        jax.jit(partial(tiny_cascade.losses, nnx.split(network, nnx.Param, nnx.BatchStat)[0]))(
            Variables(weights, stats), batch, KEY, subnet
        )
        for network, weights, subnet in ((supernet, params, mask), (alone, own, None))
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected)


def test_four_devices_have_the_losses_gradient_and_statistics_of_one():
    """Examples that do not count are not spread evenly over the devices, and samples are drawn."""
    flags = f"--xla_force_host_platform_device_count=4 {os.environ.get('XLA_FLAGS', '')}"
    program = [sys.executable, str(Path(__file__).with_name("detection_device_programs.py"))]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout)
    assert set(differences) == {"losses", "gradient", "statistics"}
    assert max(differences.values()) <= 1e-5, differences
