"""What an update of UperNet executes, compiled ahead of time: the sum of its parts."""

import dataclasses

import pytest

from s3_jax.config import config_of, default_config
from s3_jax.cost import dense_cost, dense_map_sizes
from s3_jax.finetune import start_without_weights, target_architecture
from s3_jax.profiling import ahead
from s3_jax.segmentation import without_images
from s3_jax.segmentation.upernet import POOLS
from s3_jax.training.devices import make_mesh

BATCH, CROP, CLASSES, CHANNELS, AUXILIARY = 2, 32, 5, 16, 8


def settings():
    config = default_config("s3_jax.segmentation")
    config.model.update(image_size=CROP, patch_size=2)
    sizes = {"window": (4,) * 4, "mlp_ratio": (2.0,) * 4, "qkv_dim": (32, 32, 64, 64)}
    config.backbone.update(depth=(1, 1, 2, 1), embed_dim=(16, 24, 32, 40), **sizes)
    config.head.update(channels=CHANNELS, auxiliary_channels=AUXILIARY)
    config.augment.crop = CROP
    config.train.batch_size = BATCH
    return config_of(config.to_dict())


def resizing(size, new, channels):
    """Products of a map (h, w) with a matrix of its rows, and then with one of its columns."""
    return new[0] * size[0] * size[1] * channels + new[0] * new[1] * size[1] * channels


def enlarged(size, new, inputs, outputs):
    """A 3 x 3 kernel on the small map, and what enlarges and adds its nine products, by kernel's columns."""
    rows = 3 * new[0] * 3 * size[0] * size[1] * outputs
    return 9 * size[0] * size[1] * inputs * outputs, rows + new[0] * new[1] * 3 * size[1] * outputs


def parts(architecture):
    """Multiply-adds of the heads' forward pass in training: with weights, and with matrices that have no gradient."""
    dims = [stage.embed_dim for stage in architecture.stages]
    maps = dense_map_sizes((CROP, CROP), 2, len(dims))
    places, top = [height * width for height, width in maps], maps[-1]
    weighted, fixed = 0, 0
    for side in POOLS:
        weighted += side * side * dims[-1] * CHANNELS
        fixed += side * top[0] * top[1] * dims[-1] + side * side * top[1] * dims[-1]
        products, matrices = enlarged((side, side), top, CHANNELS, CHANNELS)
        same = (side, side) == top
        weighted, fixed = weighted + (9 * side**2 * CHANNELS**2 if same else products), fixed + (not same) * matrices
    weighted += 9 * places[-1] * dims[-1] * CHANNELS
    for index, dim in enumerate(dims[:-1]):
        weighted += places[index] * (dim * CHANNELS + 9 * CHANNELS**2)
        fixed += resizing(maps[index + 1], maps[index], CHANNELS)
    weighted += 9 * places[0] * CHANNELS**2 + places[0] * CHANNELS * CLASSES
    for size in maps[1:]:
        products, matrices = enlarged(size, maps[0], CHANNELS, CHANNELS)
        weighted, fixed = weighted + products, fixed + matrices
    weighted += 9 * places[-2] * dims[-2] * AUXILIARY + places[-2] * AUXILIARY * CLASSES
    return weighted, fixed + sum(resizing(maps[i], (CROP, CROP), CLASSES) for i in (0, len(maps) - 2))


def test_an_update_executes_the_sum_of_its_parts():
    config = settings()
    architecture = target_architecture(start_without_weights(config.backbone), config)
    task = without_images(config, tuple(map(str, range(CLASSES))))
    (program,) = ahead.transfer_programs(config, task, architecture, make_mesh(1))
    backbone = dense_cost(architecture, (CROP, CROP), image_size=CROP, patch_size=2).macs
    weighted, fixed = parts(architecture)
    needed = BATCH * (3 * (backbone + weighted) + 2 * fixed)
    result = ahead.compile_ahead(program)
    assert (result.name, result.collectives) == ("training", [])
    assert result.macs == pytest.approx(needed, rel=0.02)
    half = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=1))
    (program,) = ahead.transfer_programs(half, without_images(half, task.class_names), architecture, make_mesh(1))
    assert ahead._work(program)[0] == pytest.approx(result.macs / 2, rel=0.01)
