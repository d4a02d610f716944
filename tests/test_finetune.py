"""Fine-tuning: what it begins with, that it trains, goes on, and is refused where it does not fit."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from s3_jax.classification.config import AugmentConfig, ClassificationConfig, ClassificationDataConfig
from s3_jax.classification.task import kept_classifier
from s3_jax.config import ModelConfig, RunConfig, TrainConfig
from s3_jax.errors import S3Error
from s3_jax.finetune import Start, finetune
from s3_jax.models.families import family_of
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.networks import zoo
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.convert import params_of
from s3_jax.networks.standalone import Standalone
from s3_jax.pipeline import run_pipeline
from s3_jax.space import Architecture, Block, Stage
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import read_json

FIVE = tuple("abcde")
ARCHITECTURE = Architecture((Stage(8, (Block(2, 1.0, 32),)), Stage(16, (Block(2, 1.0, 32),))))
PLAIN = AugmentConfig(
    random_resized_crop=False, horizontal_flip=0, rand_augment_layers=0, random_erasing=0, mixup=0, cutmix=0
)
CONFIG = ClassificationConfig(
    model=ModelConfig(image_size=16, patch_size=2),
    data=ClassificationDataConfig(source="digits"),
    augment=PLAIN,
    train=TrainConfig(epochs=0.2, batch_size=64, warmup_epochs=0.0, learning_rate=0.0, min_learning_rate=0.0),
    run=RunConfig(eval_batch_size=359, tensorboard=False),
)


def start(kind: str = "windowed") -> Standalone:
    architecture = ARCHITECTURE if kind == "windowed" else IsotropicArchitecture(8, 2, 2)
    spec = ClassifierSpec(architecture, 8, 2, FIVE)
    return Standalone(spec.build(rngs=nnx.Rngs(1)), spec)


def tune(workdir, config=CONFIG, kind="windowed", from_scratch=False):
    console = Console(quiet=True)
    return finetune(
        Start(start(kind), start(kind).spec.architecture, from_scratch),
        config,
        workdir,
        console=console,
        stop=StopRequest(),
    )


@pytest.mark.parametrize("kind", ["windowed", "isotropic"])
def test_it_begins_with_the_weights_at_another_size_and_with_other_classes(kind, tmp_path):
    """At a learning rate of zero the network keeps what it begins with."""
    result = tune(tmp_path, kind=kind)
    tuned, before = zoo.load(tmp_path / "network"), start(kind)
    assert tuned.spec.image_size == 16
    assert tuned.spec.class_names == tuple("0123456789")
    assert 0 <= result["test_accuracy"] <= 100
    ours, theirs = params_of(tuned.network), params_of(before.network)
    np.testing.assert_array_equal(ours["norm"]["scale"], theirs["norm"]["scale"])
    assert ours["head"]["kernel"].shape[-1] == 10
    if kind == "windowed":
        block, same = ours["stages"][0]["blocks"][0], theirs["stages"][0]["blocks"][0]
        np.testing.assert_array_equal(block["attention"]["qkv"]["kernel"], same["attention"]["qkv"]["kernel"])
        assert (block["attention"]["bias_table"].shape, same["attention"]["bias_table"].shape) == ((7, 7, 1), (3, 3, 1))
    else:
        assert ours["position"].shape == (65, 8)
        np.testing.assert_array_equal(ours["position"][0], theirs["position"][0])


def test_it_trains_is_finished_once_and_knows_its_own_start(tmp_path):
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, learning_rate=1e-3))
    result = tune(tmp_path, config)
    moved = params_of(zoo.load(tmp_path / "network").network)["stages"][0]["blocks"][0]["mlp"]["fc1"]["kernel"]
    begun = params_of(start().network)["stages"][0]["blocks"][0]["mlp"]["fc1"]["kernel"]
    assert 0 < float(jax.numpy.abs(moved - begun).max()) < 0.1
    assert tune(tmp_path, config) == result == read_json(tmp_path / "result.json")
    with pytest.raises(S3Error, match="holds a training that began with another network"):
        tune(tmp_path, config, from_scratch=True)
    with pytest.raises(S3Error, match=r"config.train.learning_rate: 0.001 there, 0.0 now"):
        tune(tmp_path)


def test_batches_of_a_retraining_that_does_not_come_may_have_any_size(tmp_path):
    """Its batches of 1,024 images cannot be divided by three; the training of one network has no use for them."""
    in_three = TrainConfig(accumulation_steps=3)
    config = dataclasses.replace(CONFIG, retrain=dataclasses.replace(CONFIG.retrain, train=in_three))
    with pytest.raises(S3Error, match=r"config.retrain.train.batch_size = 1024 cannot be divided"):
        run_pipeline(config, tmp_path / "search", console=Console(quiet=True), stop=StopRequest())
    assert tune(tmp_path / "tuned", config)["test_accuracy"] >= 0


def test_a_classifier_is_kept_for_the_same_classes_alone():
    numbers = tuple("0123456789")
    assert kept_classifier(FIVE, FIVE).tolist() == [0, 1, 2, 3, 4]
    assert kept_classifier(FIVE, tuple("edcba")).tolist() == [4, 3, 2, 1, 0]
    assert kept_classifier(numbers, tuple("abcdefghij")).tolist() == list(range(10))  # a published model, without names
    assert kept_classifier(FIVE, tuple("ABCDE")) is None
    assert kept_classifier(FIVE, tuple("abcd")) is None
    assert kept_classifier(numbers, FIVE) is None


def test_a_kept_classifier_is_put_into_the_datas_order(tmp_path):
    """A learning rate of zero changes nothing else."""
    order = ("9", "1", "2", "3", "4", "5", "6", "7", "8", "0")
    spec = ClassifierSpec(ARCHITECTURE, 8, 2, order)
    begun = Standalone(spec.build(rngs=nnx.Rngs(1)), spec)
    begun.network.head.bias[...] = np.arange(10, dtype=np.float32)
    console = Console(quiet=True)
    finetune(Start(begun, spec.architecture, False), CONFIG, tmp_path, console=console, stop=StopRequest())
    head = zoo.load(tmp_path / "network").network.head
    np.testing.assert_array_equal(head.bias[...], [9, 1, 2, 3, 4, 5, 6, 7, 8, 0])
    np.testing.assert_array_equal(head.kernel[...][:, 0], begun.network.head.kernel[...][:, 9])


def test_windows_keep_their_share_of_the_map():
    scaled = family_of(ARCHITECTURE).scaled
    assert scaled(zoo.architecture("s3_s"), 224, 384) == zoo.architecture("s3_s_384")
    assert scaled(zoo.architecture("s3_b"), 224, 384) == zoo.architecture("s3_b_384")
    assert scaled(ARCHITECTURE, 8, 8) == ARCHITECTURE


def test_patches_of_another_size_are_refused(tmp_path):
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, patch_size=4))
    with pytest.raises(S3Error, match=r"config.model.patch_size = 4, but the network has patches of 2"):
        tune(tmp_path, config)


def test_a_size_that_patches_do_not_tile_is_refused_and_the_folder_stays_free(tmp_path):
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, image_size=9))
    with pytest.raises(S3Error, match=r"9 px cannot be cut into patches of 2"):
        tune(tmp_path / "run", config)
    assert not list((tmp_path / "run").iterdir())
