"""Costs of Cascade Mask R-CNN: those published, by hand, and those of the network itself."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from s3_jax.config import ModelConfig
from s3_jax.cost import dense_cost
from s3_jax.detection.cascade import CascadeMaskRCNN
from s3_jax.detection.config import HeadConfig
from s3_jax.detection.cost import cascade_cost
from s3_jax.networks import zoo
from s3_jax.space import SearchSpace, StageSpace, sample

SPACE = SearchSpace((StageSpace((1, 2), (16, 32), (2, 4), (1.0, 2.0), (32, 64)),) * 4)
PAPERS = {"image_size": 224, "patch_size": 4, "num_classes": 80, "head": HeadConfig()}


@pytest.mark.parametrize(
    ("name", "params", "giga_macs", "published"),
    [
        ("s3_t", 85_670_124, 748.0, 748),
        ("s3_s", 107_078_748, 853.2, 855),
        ("s3_b", 128_467_212, 944.8, 947),
    ],
)
def test_costs_are_those_of_the_papers_table_2(name, params, giga_macs, published):
    """At 800 x 1280, lying or upright."""
    counted = cascade_cost(zoo.architecture(name), (800, 1280), **PAPERS)
    assert counted.params == params
    assert counted.macs == pytest.approx(giga_macs * 1e9, rel=1e-4)
    assert counted.macs == pytest.approx(published * 1e9, rel=0.005)
    assert counted == cascade_cost(zoo.architecture(name), (1280, 800), **PAPERS)


def test_cost_worked_out_by_hand():
    """Maps of 10 x 13, 5 x 7, 3 x 4, 2 x 2 and 1 x 1 places; two proposals and one detection."""
    architecture = sample(SPACE, np.random.default_rng(0))
    dims = [stage.embed_dim for stage in architecture.stages]
    head = dataclasses.replace(HeadConfig(), channels=5, fc_channels=11, test_proposals=2, detections=1)
    backbone = dense_cost(architecture, (37, 50), image_size=64, patch_size=4)
    counted = cascade_cost(architecture, (37, 50), image_size=64, patch_size=4, num_classes=3, head=head)
    places = [130, 35, 12, 4, 1]
    pyramid = sum((dim * 5 + 9 * 5 * 5) * count for dim, count in zip(dims, places, strict=False))
    rpn = (9 * 5 * 5 + 5 * 15) * sum(places)
    box = 4 * 9 * 5 * 5 * 49 + 49 * 5 * 11 + 11 * 4 + 11 * 12
    mask = 4 * 9 * 5 * 5 * 196 + 4 * 5 * 5 * 196 + 5 * 3 * 784
    assert counted.macs == backbone.macs + pyramid + rpn + 3 * (2 * box + mask)


def test_parameters_are_those_of_the_network_for_architectures_of_a_space():
    rng = np.random.default_rng(1)
    head = HeadConfig(channels=6, fc_channels=10)
    for _ in range(2):
        architecture = sample(SPACE, rng)
        sizes = {"num_classes": 7, "head": head}
        model = ModelConfig(image_size=64, patch_size=4)
        network = nnx.eval_shape(lambda: CascadeMaskRCNN(architecture, model=model, rngs=nnx.Rngs(0), **sizes))  # noqa: B023
        counted = cascade_cost(architecture, (64, 64), image_size=64, patch_size=4, **sizes)
        assert counted.params == sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
