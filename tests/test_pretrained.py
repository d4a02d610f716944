"""Weights of a trained network in a supernet: what goes where, what is refused, and that a run is bound to them."""

import dataclasses
import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_config
from flax import nnx
from PIL import Image
from rich.console import Console
from safetensors.numpy import load_file, save_file

from s3_jax.classification.pretrained import fitted, open_pretrained, shares
from s3_jax.config import Config, TrainConfig, config_of
from s3_jax.errors import S3Error
from s3_jax.finetune import Start, finetune
from s3_jax.models import S3Transformer, copy_network, slice_weights
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.models.subnet import Params, subnet_mask
from s3_jax.networks import standalone
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.convert import params_of
from s3_jax.networks.extract import _about, _Source
from s3_jax.networks.resize import fit_table, resize_patches, resize_table
from s3_jax.networks.standalone import Standalone
from s3_jax.space import Architecture, Block, SearchSpace, Stage, StageSpace, largest, map_sizes, sample
from s3_jax.task import open_task
from s3_jax.training.loop import StopRequest
from s3_jax.training.start import opened_workdir, record_start, start_run

QUIET = Console(quiet=True)
FIVE = tuple("abcde")
SPACE = SearchSpace((StageSpace((1, 2), (16, 32), (2, 3, 4), (1.0, 2.0), (32, 64)),) * 2)
SIDES = map_sizes(image_size=16, patch_size=2, num_stages=2)
# A point of the space, of neither its largest nor its smallest choices.
ARCHITECTURE = Architecture((Stage(16, (Block(3, 2.0, 32), Block(2, 1.0, 64))), Stage(32, (Block(3, 1.0, 32),))))


def noise(tree, seed: int) -> Params:
    """Random numbers in the shapes of a tree: zero biases and unit scales would hide a mistake."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32), tree)


def build(structure, patch_size: int = 2, image_size: int = 16) -> S3Transformer:
    """A network without weights."""
    make = partial(S3Transformer, structure, image_size=image_size, patch_size=patch_size, num_classes=len(FIVE))
    return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))


def filled(structure, seed: int = 0, patch_size: int = 2) -> tuple[nnx.GraphDef, Params]:
    """Its definition, and random weights for it."""
    definition, state = nnx.split(build(structure, patch_size))
    return definition, noise(nnx.to_pure_dict(state), seed)


def trained(architecture=ARCHITECTURE, seed: int = 1, patch_size: int = 2, **changes) -> Standalone:
    """A network that stands for one that was trained."""
    definition, params = filled(architecture, seed, patch_size)
    spec = ClassifierSpec(architecture, 16, patch_size, FIVE, **changes)
    return Standalone(nnx.merge(definition, jax.tree.map(jnp.asarray, params)), spec)


def begun(network: Standalone, space: SearchSpace = SPACE, class_names=FIVE) -> tuple[Params, Params]:
    """A supernet's random weights, and these with those of a network."""
    fresh = filled(space, seed=2)[1]
    return fresh, copy_network(fitted(network, space, SIDES, 2, class_names), fresh)


def test_what_is_sliced_out_and_put_back_is_the_same():
    """slice_weights(copy_network(slice_weights(p, a), q), a) == slice_weights(p, a), for any a of the space."""
    (_, params), (_, others) = filled(SPACE, seed=0), filled(SPACE, seed=1)
    for seed in range(5):
        architecture = sample(SPACE, np.random.default_rng(seed))
        sliced = slice_weights(params, SPACE, architecture)
        again = slice_weights(copy_network(sliced, others), SPACE, architecture)
        jax.tree.map(np.testing.assert_array_equal, again, sliced)
    whole = copy_network(slice_weights(params, SPACE, largest(SPACE)), others)
    jax.tree.map(np.testing.assert_array_equal, whole, params)


@pytest.mark.parametrize("size", [16, 8])
def test_the_subnet_with_a_networks_architecture_computes_what_the_network_does(size):
    """Also on smaller images, of whose maps of side 4 and 2 the network itself uses the centres of its tables."""
    images = jax.random.normal(jax.random.key(3), (2, size, size, 3))
    network, sides = trained(), map_sizes(size, patch_size=2, num_stages=2)
    space = SPACE.clamped(sides)
    params = copy_network(fitted(network, space, sides, 2, FIVE), filled(space, seed=2)[1])
    supernet, mask = build(space, image_size=size), subnet_mask(space, ARCHITECTURE.clamped(sides))
    ours = jax.jit(nnx.merge(nnx.split(supernet)[0], params))(images, mask)
    np.testing.assert_allclose(ours, jax.jit(network.network)(images), rtol=1e-5, atol=1e-5)
    assert np.abs(ours).max() > 0.1


def test_what_does_not_overlap_is_as_it_was():
    fresh, params = begun(trained(), class_names=tuple("vwxyz"))
    theirs = params_of(trained().network)
    jax.tree.map(np.testing.assert_array_equal, params["head"], fresh["head"])
    second = jax.tree.map(lambda leaf: leaf[1], (params["stages"][1], fresh["stages"][1]))  # the network has one block
    jax.tree.map(np.testing.assert_array_equal, *second)
    fc1 = [tree["stages"][0]["blocks"]["mlp"]["fc1"]["kernel"][0] for tree in (params, fresh)]
    own = theirs["stages"][0]["blocks"][0]["mlp"]["fc1"]["kernel"]
    assert own.shape == (16, 32)
    np.testing.assert_array_equal(fc1[0][:16, :32], own)
    np.testing.assert_array_equal(fc1[0][16:], fc1[1][16:])
    np.testing.assert_array_equal(fc1[0][:, 32:], fc1[1][:, 32:])


def test_blocks_that_the_supernet_has_no_place_for_are_left_out():
    shallow = SearchSpace(tuple(dataclasses.replace(stage, depth=(1,)) for stage in SPACE.stages))
    _, params = begun(trained(), shallow)
    kernel = params["stages"][0]["blocks"]["attention"]["qkv"]["kernel"]
    own = params_of(trained().network)["stages"][0]["blocks"][0]["attention"]["qkv"]["kernel"]
    assert kernel.shape == (1, 32, 3, 2, 32)
    np.testing.assert_array_equal(kernel[0, :16, :, :1], own)


def test_a_head_is_taken_in_the_order_of_the_datas_classes_and_only_theirs():
    head = params_of(trained().network)["head"]
    ours = fitted(trained(), SPACE, SIDES, 2, ("e", "a"))["head"]
    np.testing.assert_array_equal(ours["kernel"], head["kernel"][:, [4, 0]])
    np.testing.assert_array_equal(ours["bias"], head["bias"][jnp.array([4, 0])])
    assert "head" not in fitted(trained(), SPACE, SIDES, 2, ("e", "other"))


def test_patches_of_another_size_are_resized():
    """The network answers to a flat patch, of whatever size, what it answered before."""
    for side in (2, 4, 6):
        wide = trained(patch_size=4)
        kernel = fitted(wide, SPACE, SIDES, side, FIVE)["patch"]["kernel"]
        theirs = params_of(wide.network)["patch"]["kernel"]
        assert kernel.shape == (side, side, 3, 16)
        np.testing.assert_allclose(kernel.sum((0, 1)), theirs.sum((0, 1)), atol=1e-5)


def test_the_shares_that_are_told_are_counted_by_hand():
    """One stage, one block: width 32 of 64, 1 of 2 heads, 32 of 128 units, window 2 of 2; 5 classes, of others."""
    space = SearchSpace((StageSpace((1,), (64,), (2,), (2.0,), (64,)),))
    network = trained(Architecture((Stage(32, (Block(2, 1.0, 32),)),)))
    told = shares(fitted(network, space, (8,), 2, tuple("vwxyz")), filled(space)[1])
    patch = (12 * 32 + 3 * 32, 12 * 64 + 3 * 64)
    block = [
        2 * 2 * c + c * 96 * h + 96 * h + 32 * h * c + c + 9 * h + 2 * c * u + u + c
        for c, h, u in [(32, 1, 32), (64, 2, 128)]
    ]
    norm, head = (64, 128), (0, 64 * 5 + 5)
    total = [sum(counts) for counts in zip(patch, block, norm, head, strict=True)]
    expected = [f"{100 * a / b:.3g} %" for a, b in (total, patch, block, norm, head)]
    assert told == (
        f"{expected[0]} of {total[1]:,} parameters (patch {expected[1]}, stage 1 {expected[2]}, norm {expected[3]}, "
        "head 0 %); the others are random"
    )


def tiny(**train) -> Config:
    config = tiny_config.get_config()
    config.run.update(tensorboard=False)
    config.train.update(train)
    return config_of(config.to_dict())


def saved(folder, network: Standalone) -> str:
    folder.mkdir(exist_ok=True)
    standalone.save(folder, network)
    return str(folder)


@pytest.mark.parametrize(
    ("init_from", "init_weights", "message"),
    [
        (
            "nowhere",
            "",
            "config.train.init_from = 'nowhere': nowhere is neither the folder of a network nor a published",
        ),
        (".", "", "config.train.init_from = '.*': . holds no architecture.json"),
        ("s3_t", "", "'s3_t' is a published model: give its weights, .* as init_weights"),
        ("nowhere", "s3_t.pth", "'nowhere' is no published model, so .* leave out config.train.init_weights"),
        ("s3_t", "nowhere.pth", "config.train.init_from = 's3_t': .*nowhere.pth"),
    ],
)
def test_what_is_no_network_is_refused(init_from, init_weights, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(S3Error, match=message):
        open_pretrained(tiny(init_from=init_from, init_weights=init_weights))


def test_networks_that_share_no_blocks_are_refused_and_bind_nothing(tmp_path):
    plain = ClassifierSpec(IsotropicArchitecture(8, 1, 2), 8, 2, FIVE)
    isotropic = saved(tmp_path / "plain", Standalone(plain.build(), plain))
    with pytest.raises(S3Error, match=r"is a plain transformer, .* or one of s3_t, .*swin_b"):
        open_pretrained(tiny(init_from=isotropic))
    one_stage = saved(tmp_path / "short", trained(Architecture(ARCHITECTURE.stages[:1])))
    with pytest.raises(S3Error, match=r"has 1 stages and config.space has 2"), opened_workdir(tmp_path / "run", tiny()):
        open_task(tiny(init_from=one_stage))
    assert not list((tmp_path / "run").iterdir())


def test_weights_that_are_not_finite_are_refused(tmp_path):
    folder = saved(tmp_path / "network", trained())
    tensors = load_file(tmp_path / "network" / standalone.WEIGHTS)
    tensors["norm.weight"][3] = np.nan
    save_file(tensors, tmp_path / "network" / standalone.WEIGHTS)
    with pytest.raises(S3Error, match=r"tensor norm.weight: 1 of 32 values are NaN or infinite"):
        open_pretrained(tiny(init_from=folder))


def test_settings_that_contradict_are_refused():
    with pytest.raises(S3Error, match=r"init_weights = 'a.pth': expected the name of their published model"):
        TrainConfig(init_weights="a.pth")
    config = tiny_config.get_config()
    config.retrain.train.init_from = "s3_t"
    with pytest.raises(S3Error, match=r"config.retrain.train.init_from = 's3_t': expected none"):
        config_of(config.to_dict())
    with pytest.raises(S3Error, match="the training of one network begins with --model"):
        finetune(Start(trained(), ARCHITECTURE, False), tiny(init_from="s3_t"), None, console=QUIET, stop=StopRequest())


def test_a_run_is_bound_to_the_weights_that_it_begins_with(tmp_path):
    config = tiny(init_from=saved(tmp_path / "network", trained()))

    def begin() -> None:
        with opened_workdir(tmp_path / "run", config):
            record_start(start_run(config, open_task(config), tmp_path / "run", QUIET, StopRequest()))

    begin()
    saved(tmp_path / "network", trained(about=standalone.About(licence="mine")))  # the same weights: the same run
    begin()
    assert len(json.loads((tmp_path / "run" / "config.json").read_text())["init_from_sha256"]) == 64
    saved(tmp_path / "network", trained(seed=5))
    with pytest.raises(S3Error, match=r"init_from has other weights, .* put that one back, or give another --workdir"):
        begin()


def test_another_normalisation_than_the_networks_is_told(tmp_path):
    said: list[str] = []
    config = tiny(init_from=saved(tmp_path / "network", trained(mean=(0.3, 0.3, 0.3), std=(0.2, 0.25, 0.3))))
    open_task(config).initial(config.space.build(), jax.random.key(0), said.append)
    assert "it had --config.data.std='(0.2, 0.25, 0.3)'" in said[0]
    assert "config.data.mean" not in said[0]


@pytest.mark.parametrize(("old", "new"), [(2, 4), (4, 6), (4, 2), (6, 4)])
def test_a_resized_kernel_answers_to_a_patch_what_it_did_at_the_other_size(old, new):
    """The larger of the two patches is the smaller one enlarged, as Pillow does it."""
    rng = np.random.default_rng(0)
    kernel, small = rng.normal(size=(old, old, 3, 5)), rng.normal(size=(min(old, new),) * 2).astype(np.float32)
    enlarged = np.array(Image.fromarray(small, "F").resize((max(old, new),) * 2, Image.Resampling.BICUBIC))
    before, after = (small, enlarged) if old < new else (enlarged, small)
    answers = [
        np.einsum("yx,yxcd->cd", patch, each)
        for patch, each in ((before, kernel), (after, resize_patches(kernel, new)))
    ]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


def test_a_bias_table_is_kept_where_its_window_is_a_choice_and_else_resized_to_the_nearest():
    table = np.arange(25, dtype=np.float32).reshape(5, 5, 1)  # of window 3
    np.testing.assert_array_equal(fit_table(table, (2, 3), 8), table)
    np.testing.assert_array_equal(fit_table(table, (2,), 2), table[1:4, 1:4])  # on a map of side 2: the centre
    wider = fit_table(table, (3, 4), 8)[..., 0]  # further apart: what the outermost have
    np.testing.assert_array_equal(wider[1:6, 1:6], table[..., 0])
    np.testing.assert_array_equal(wider[0], [0, 0, 1, 2, 3, 4, 4])
    np.testing.assert_array_equal(fit_table(table, (4, 6), 8)[2:9, 2:9], resize_table(table, (7, 7)))
    np.testing.assert_array_equal(fit_table(table, (2,), 8), resize_table(table, (3, 3)))


@pytest.mark.parametrize(
    ("init_from", "from_supernet", "recipe"),
    [
        ("", False, "retrained from scratch, 2 epochs in batches of 64"),
        ("a", False, "retrained, 2 epochs in batches of 64; before that: weights of a, where they overlap"),
        (
            "a",
            True,
            "retrained, starting from the supernet, 2 epochs in .*; before that: weights of a, where they overlap",
        ),
    ],
)
def test_the_card_of_a_network_tells_what_it_began_with(init_from, from_supernet, recipe, tmp_path):
    config = tiny_config.get_config()
    config.train.init_from = init_from
    config.retrain.from_supernet = from_supernet
    config.retrain.train.epochs = 2.0
    splits = {use: {"split": use} for use in ("train", "holdout", "test")}
    dataset = {"name": "digits", "splits": splits}
    source = _Source(tmp_path, config_of(config.to_dict()), None, dataset, index=0, retrained=True)
    assert re.fullmatch(recipe, _about(source, ARCHITECTURE).recipe)
