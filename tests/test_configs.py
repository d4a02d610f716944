"""Every configuration file is built, and its run could begin: space, budgets, networks and training schedule."""

import importlib.util
from pathlib import Path

import jax
import ml_collections
import pytest
from flax import nnx

from s3_jax.config import Config, config_of, default_config
from s3_jax.cost import check_budget, cost
from s3_jax.errors import S3Error
from s3_jax.mapping import to_mapping
from s3_jax.models.transformer import S3Transformer
from s3_jax.space import largest, map_sizes, smallest

FOLDER = Path(__file__).parent.parent / "configs"
FILES = sorted(path.stem for path in FOLDER.glob("*.py"))
NUM_CLASSES = 10


SMALL = ("digits", "cifar10", "cifar10_full", "image_folder", "image_folder_pretrained")


def load(name: str) -> Config:
    return config_of(settings(name).to_dict())


def settings(name: str) -> ml_collections.ConfigDict:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def test_all_configs_are_there():
    assert set(FILES) == {
        "digits",
        "cifar10",
        "cifar10_full",
        "imagenet_s3",
        "image_folder",
        "image_folder_pretrained",
        "finetune_384",
        "ade20k_upernet_s3_t",
        "ade20k_upernet_s3_s",
        "ade20k_upernet_s3_b",
        "segmentation_folder",
        "segmentation_small",
        "coco_cascade_s3_t",
        "coco_cascade_s3_s",
        "coco_cascade_s3_b",
        "detection_folder",
        "detection_small",
        "vqa_s3_t",
        "vqa_small",
        "vqa_folder",
    }


@pytest.mark.parametrize("name", FILES)
def test_config_describes_a_run_that_can_begin(name):
    config = load(name)
    model, space = config.model, config.space.build()
    clamped = space.clamped(map_sizes(model.image_size, model.patch_size, len(space.stages)))

    def cost_of(architecture):
        return cost(architecture, image_size=model.image_size, patch_size=model.patch_size, num_classes=NUM_CLASSES)

    check_budget(clamped, config.search.budget, cost_of)
    check_budget(clamped, config.evolution.budget, cost_of)
    assert clamped.size() <= config.evolution.max_space_size
    assert cost_of(largest(clamped)).macs > cost_of(smallest(clamped)).macs
    supernet = nnx.eval_shape(
        lambda: S3Transformer(
            space,
            image_size=model.image_size,
            patch_size=model.patch_size,
            num_classes=NUM_CLASSES,
            rngs=nnx.Rngs(0),
        )
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(supernet)))
    assert count == cost_of(largest(clamped)).params
    assert config.train.epochs > config.train.warmup_epochs
    assert config.train.batch_size % config.train.accumulation_steps == 0


@pytest.mark.parametrize("name", FILES)
def test_config_opens_with_its_command_and_is_kept_by_json(name):
    text = (FOLDER / f"{name}.py").read_text()
    command = "python scripts/finetune.py" if name.startswith("finetune") else "python -m s3_jax.main"
    assert f"{command} --config=configs/{name}.py " in text
    config = load(name)
    assert config_of(to_mapping(config)) == config


def test_defaults_are_the_papers():
    config = load("imagenet_s3")
    assert config.space.build().stages[0].embed_dim == (224, 256, 288)
    assert (config.train.epochs, config.train.batch_size, config.train.learning_rate) == (300.0, 1024, 1e-3)
    assert (config.evolution.tau, config.evolution.num_samples, config.evolution.top_k) == (0.4, 1000, 50)


def test_an_unknown_key_is_refused_with_the_right_ones():
    settings = default_config().to_dict()
    settings["train"]["learning_rat"] = 1.0
    with pytest.raises(
        S3Error, match=r"config.train has no field 'learning_rat'; its fields are epochs, .*learning_rate"
    ):
        config_of(settings)


@pytest.mark.parametrize(
    ("group", "field", "value", "message"),
    [
        ("train", "epochs", "many", "config.train.epochs = 'many': expected float"),
        ("train", "batch_size", 1.5, "config.train.batch_size = 1.5: expected int"),
        ("space", "depth", 3, "config.space.depth = 3: expected a tuple"),
        ("augment", "crop_scale", (0.1,), "config.augment.crop_scale = .*expected 2 values, got 1"),
        ("space", "window", ((0,),) * 4, "stage 1 window"),
        ("space", "depth", ((), (1,), (1,), (1,)), "stage 1 depth: the list of choices is empty"),
        ("space", "depth", ((1,),) * 3, "every dimension needs one tuple of choices per stage"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(group, field, value, message):
    settings = default_config().to_dict()
    settings[group][field] = value
    with pytest.raises(S3Error, match=message):
        config_of(settings).space.build()


@pytest.mark.parametrize("name", SMALL)
def test_spaces_are_measured_under_the_limit_of_their_search(name):
    config = settings(name)
    assert config.evolution.budget.max_macs == config.search.budget.max_macs > 0
    config.search.budget.max_macs *= 2
    assert config.evolution.budget.max_macs == config.search.budget.max_macs
    config.evolution.budget.max_macs = 1e12
    assert config.search.budget.max_macs != 1e12


@pytest.mark.parametrize("name", [f"coco_cascade_s3_{size}" for size in "tsb"])
def test_cocos_schedules_are_told_by_one_word(name):
    """The published recipe: 12 epochs with drops after 8 and 11, or 36 with drops after 27 and 33."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    once, thrice = (config_of(module.get_config(word).to_dict()).train for word in ("1x", "3x"))
    assert (once.epochs, once.drop_epochs) == (12.0, (8.0, 11.0))
    assert (thrice.epochs, thrice.drop_epochs) == (36.0, (27.0, 33.0))
    for train in (once, thrice):
        assert (train.batch_size, train.learning_rate, train.weight_decay, train.clip_norm) == (16, 1e-4, 0.05, 0.0)
        assert round(train.warmup_epochs * 117_266 / 16) == 500
    assert load(name).backbone.model == name.removeprefix("coco_cascade_")
