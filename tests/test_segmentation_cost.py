"""Costs of UperNet: those published, by hand, and those of the network itself."""

from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from s3_jax.config import ModelConfig
from s3_jax.networks import zoo
from s3_jax.segmentation.cost import upernet_cost
from s3_jax.segmentation.upernet import UperNet
from s3_jax.space import Architecture, Block, SearchSpace, Stage, StageSpace, sample

PUBLISHED = partial(upernet_cost, image_size=224, patch_size=4, num_classes=150, channels=512, auxiliary_channels=256)
SPACE = SearchSpace((StageSpace((1, 2), (16, 32), (2, 4), (1.0, 2.0), (32, 64)),) * 3)


@pytest.mark.parametrize(
    ("name", "params", "giga_macs"),
    [("s3_t", 59_982_182, 952.98), ("s3_s", 81_390_806, 1069.90), ("s3_b", 102_779_270, None)],
)
def test_costs_are_those_of_the_papers_table_3(name, params, giga_macs):
    """There 60 M and 954 G, 81 M and 1,071 G, at 512 x 2048."""
    counted = PUBLISHED(zoo.architecture(name), (512, 2048))
    assert counted.params == params
    if giga_macs is not None:
        assert counted.macs == pytest.approx(giga_macs * 1e9, rel=1e-5)
        assert counted.macs == pytest.approx({"s3_t": 954e9, "s3_s": 1071e9}[name], rel=0.005)


def test_an_image_that_lies_costs_what_it_costs_upright():
    upright = PUBLISHED(zoo.architecture("s3_t"), (2048, 512))
    assert upright == PUBLISHED(zoo.architecture("s3_t"), (512, 2048))
    odd = [PUBLISHED(zoo.architecture("s3_t"), size) for size in ((200, 333), (333, 200))]
    assert odd[0] == odd[1]


def test_cost_worked_out_by_hand_with_padded_windows_and_an_odd_map():
    """Maps of 3 x 5 and 2 x 3 in windows of 2, padded to 24 and 8 tokens; the window of 9 is cut to the map at 4 px."""
    architecture = Architecture((Stage(2, (Block(2, 1.0, 32),)), Stage(3, (Block(9, 1.0, 32),))))
    sizes = {"image_size": 4, "patch_size": 1, "num_classes": 3, "channels": 5, "auxiliary_channels": 4}
    patch, merging = 15 * 3 * 2, 6 * 8 * 3
    first = 24 * 2 * 96 + 2 * 24 * 4 * 32 + 24 * 32 * 2 + 2 * 15 * 2 * 2
    second = 8 * 3 * 96 + 2 * 8 * 4 * 32 + 8 * 32 * 3 + 2 * 6 * 3 * 3
    pools, bottleneck = 3 * 5 * (1 + 4 + 9 + 36), 9 * (3 + 20) * 5 * 6
    lateral, smoother, fusion, classifier = 2 * 5 * 15, 9 * 5 * 5 * 15, 9 * 10 * 5 * 15, 5 * 3 * 15
    macs = patch + first + merging + second + pools + bottleneck + lateral + smoother + fusion + classifier
    counted = upernet_cost(architecture, (3, 5), **sizes)
    assert counted.macs == macs == 35_330
    norms = 4 + 3 * 4 + 16 + 3 * 6  # of the patches; of stage 1 and its map; of merging; of stage 2 and its map
    stage_1 = (2 + 1) * 96 + 9 + (32 + 1) * 2 + 2 * (2 + 1) * 2
    stage_2 = (3 + 1) * 96 + 9 + (32 + 1) * 3 + 2 * (3 + 1) * 3
    backbone = norms + (3 + 1) * 2 + stage_1 + 8 * 3 + stage_2
    decode = 4 * (15 + 10) + (9 * 23 * 5 + 10) + (10 + 10) + (225 + 10) + (450 + 10) + (5 + 1) * 3
    auxiliary = (9 * 2 * 4 + 8) + (4 + 1) * 3
    assert counted.params == backbone + decode + auxiliary == 2_946


def test_parameters_are_those_of_the_network_for_architectures_of_a_space():
    rng = np.random.default_rng(0)
    sizes = {"num_classes": 7, "channels": 12, "auxiliary_channels": 6}
    for _ in range(3):
        architecture = sample(SPACE, rng)
        model = ModelConfig(image_size=16, patch_size=2)
        make = partial(UperNet, architecture, model=model, **sizes)
        network = nnx.eval_shape(lambda make=make: make(rngs=nnx.Rngs(0)))
        counted = upernet_cost(architecture, (20, 30), image_size=16, patch_size=2, **sizes)
        assert counted.params == sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
