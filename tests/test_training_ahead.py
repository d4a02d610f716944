"""What a program needs, compiled for the one CPU device that is there, and what does not fit."""

import dataclasses
import json
import sys

import compile_ahead as script
import jax
import numpy as np
import pytest

from s3_jax.classification.task import of_classes
from s3_jax.config import Config, ModelConfig, RetrainConfig, RunConfig, SpaceConfig, TrainConfig
from s3_jax.cost import cost
from s3_jax.errors import S3Error
from s3_jax.networks import zoo
from s3_jax.profiling import ahead
from s3_jax.space import sample, smallest
from s3_jax.training.devices import make_mesh

BATCH, NAMES = 8, "abcde"
CLASSES = len(NAMES)
TRAIN = TrainConfig(batch_size=BATCH, accumulation_steps=2)
CONFIG = Config(
    model=ModelConfig(image_size=8, patch_size=2),
    space=SpaceConfig(depth=((1, 2),), embed_dim=((8, 16),), window=((2,),), mlp_ratio=((1.0, 2.0),), qkv_dim=((32,),)),
    train=TRAIN,
    retrain=RetrainConfig(train=TRAIN),
    run=RunConfig(eval_batch_size=BATCH),
)
SPACE, TASK = CONFIG.space.build(), of_classes(CONFIG.model, NAMES)


def macs(architecture) -> int:
    return cost(architecture, image_size=8, patch_size=2, num_classes=CLASSES).macs


def test_retraining_executes_three_forward_passes_of_its_images():
    architecture = smallest(SPACE)
    (program,) = ahead.retraining_programs(CONFIG, TASK, architecture, make_mesh(1))
    result = ahead.compile_ahead(program)
    # Of the patch embedding only its weights have a gradient: images have none.
    patches = 4 * 4 * 2 * 2 * 3 * architecture.stages[0].embed_dim
    # The gradient of the position bias is a sum over images and windows, made a product: 4 windows of 4 x 4 entries.
    assert result.macs == BATCH * (3 * macs(architecture) - patches + 4 * 4 * 4)
    (block,) = architecture.stages[0].blocks
    # Made again a head at a time: logits of a map of 4 x 4 tokens, and the sums of values that they weigh.
    attention = 2 * 4 * 4 * block.window**2 * 32 * block.heads
    assert (result.name, result.recomputed, result.collectives) == ("retraining", BATCH * attention, [])
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.arguments[0]))
    images = BATCH * (8 * 8 * 3 + CLASSES + 1) * 4  # with targets and weights
    assert state + images <= result.arguments <= state + images + 64  # the key, and padding
    assert result.memory > result.arguments


def test_the_evaluation_of_a_subnet_executes_hardly_more_than_it_needs():
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, every_width=True))
    sandwich, evaluation = ahead.supernet_programs(config, of_classes(config.model, NAMES), make_mesh(1))
    assert [sandwich.name, evaluation.name] == ["sandwich", "evaluation"]
    rng = np.random.default_rng(0)
    drawn = [[sample(SPACE, rng) for _ in range(ahead.NUM_RANDOM_SUBNETS)] for _ in range(ahead.NUM_DRAWS)]
    needed = BATCH * np.mean([macs(first) for first, _ in drawn])
    assert needed <= ahead.compile_ahead(evaluation).macs < 1.25 * needed


def test_what_does_not_fit_is_told_with_the_overshoot():
    result = ahead.Compiled("sandwich", 1.0, 18 * ahead.GIB, ahead.GIB, 1.0, 0.0, 0.0, [])
    ahead.check_fits(result, 18 * ahead.GIB)
    with pytest.raises(S3Error, match=r"sandwich does not fit: it needs 2\.00 GiB more than a chip has"):
        ahead.check_fits(result, ahead.hbm_bytes("v5e:4x4"))
    with pytest.raises(S3Error, match="memory of v99 is not known"):
        ahead.hbm_bytes("v99:4x4")
    uneven = dataclasses.replace(CONFIG, retrain=RetrainConfig(train=TrainConfig(batch_size=6, accumulation_steps=4)))
    programs = ahead.retraining_programs(uneven, TASK, smallest(SPACE), make_mesh(1))
    with pytest.raises(
        S3Error, match="batch size of retraining = 6 cannot be divided over 1 devices x accumulation_steps = 4"
    ):
        next(programs)


@pytest.mark.parametrize(
    ("message", "overshoot"),
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Exceeded hbm capacity by 43.33G.\n", "43.33G"),
        ("required for HLO temporaries (17.65G) exceeds available HBM (15.75G).", "1.90G"),
        ("INVALID_ARGUMENT: no such flag", None),
    ],
)
def test_the_overshoot_is_read_from_the_compilers_message(message, overshoot):
    assert ahead.read_overshoot(message) == overshoot


def test_a_compiler_that_ends_the_process_is_told(capfd):
    program = "import os, sys; print('x.cc:1] Check failed: a == b', file=sys.stderr, flush=True); {}"
    assert script.run_guarded([sys.executable, "-c", program.format("os.abort()")]) == 2
    assert "gave up on this program (signal 6): x.cc:1] Check failed: a == b\n" in capfd.readouterr().err
    assert script.run_guarded([sys.executable, "-c", program.format("sys.exit(3)")]) == 3
    assert capfd.readouterr().err == "x.cc:1] Check failed: a == b\n"


def test_an_architecture_is_given_by_name_or_by_file(tmp_path):
    assert [stage.depth for stage in zoo.read_architecture("s3_b").stages] == [2, 2, 30, 2]
    path, architecture = tmp_path / "best.json", smallest(SPACE)
    for record in (architecture.to_json(), {"architecture": architecture.to_json(), "params": 1}):
        path.write_text(json.dumps(record))
        assert zoo.read_architecture(str(path)) == architecture
    for text in ("[]", '{"stages": 1}'):
        path.write_text(text)
        with pytest.raises(S3Error, match="not an architecture record"):
            zoo.read_architecture(str(path))
    path.write_text("{")
    for no_json in (path, tmp_path):
        with pytest.raises(S3Error, match="is no JSON file"):
            zoo.read_architecture(str(no_json))
    with pytest.raises(S3Error, match="no published model is called 's3_x'; there are s3_t, s3_s"):
        zoo.read_architecture("s3_x")
