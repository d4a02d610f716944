"""What an update of one network executes, as the benchmark tells it."""

import pytest
import tiny_config

from s3_jax.config import config_of
from s3_jax.finetune import start_without_weights, target_architecture
from s3_jax.profiling.benchmark import Bench, figures_of
from s3_jax.task import open_task


def test_an_update_executes_three_times_the_cost_of_its_network():
    """Forward, and in the backward pass as much again for the weights and for the maps before each product."""
    config = tiny_config.get_config()
    config.backbone.update(depth=(1, 1), embed_dim=(16, 16), window=(2, 2), mlp_ratio=(1.0, 2.0), qkv_dim=(32, 32))
    settings = config_of(config.to_dict())
    network = target_architecture(start_without_weights(settings.backbone), settings)
    bench = Bench(settings, open_task(settings), batch=4, repeats=2, architecture=network)
    figures = figures_of(bench, "training")
    assert figures["step_s"] > 0
    assert 0 < figures["share_of_products"] < 1
    needed = 3 * 4 * bench.task.cost(network).macs
    assert 1e9 * figures["gmacs"] == pytest.approx(needed, rel=0.02)  # and what a backward pass computes again
