"""Published models: their names, costs, and the weights that make them."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import parity
import pytest
from flax import nnx

from s3_jax.errors import S3Error
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.networks import zoo
from s3_jax.networks.convert import param_shapes, state_dict_shapes
from s3_jax.networks.files import write_safetensors
from s3_jax.space import Architecture

# Parameters of timm 1.0.31, and multiply-adds in G: METHOD's for S3, those of Table 1 of the paper at 384 px.
GOLDEN = {
    "s3_t": (28_328_674, 4.62),
    "s3_s": (49_737_298, 9.40),
    "s3_b": (71_125_762, 13.66),
    "s3_s_384": (None, 33),
    "s3_b_384": (None, 46),
    "swin_t": (28_288_354, 4.5),
    "swin_s": (49_606_258, 8.7),
    "swin_b": (87_768_224, 15.4),
    "deit_s": (22_050_664, 4.6),
    "deit_b": (86_567_656, 17.6),
    "vit_s16": (22_050_664, 4.6),
    "vit_b16": (86_567_656, 17.6),
}


def test_every_published_model_has_golden_costs():
    assert set(zoo.names()) == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_costs_are_those_published_and_those_of_the_network(name):
    params, giga_macs = GOLDEN[name]
    counted = zoo.cost_of(name)
    assert counted.macs == pytest.approx(giga_macs * 1e9, rel=0.012)
    if params is not None:
        assert counted.params == params
    network = nnx.eval_shape(lambda: zoo.create(name))
    assert counted.params == sum(int(np.prod(shape)) for shape in param_shapes(network).values())


def test_a_network_of_other_classes_and_size_answers():
    network = zoo.create("deit_s", image_size=32, num_classes=7)
    images = np.zeros((2, 32, 32, 3), np.float32)
    assert network(images).shape == (2, 7)
    with pytest.raises(S3Error, match="takes images of 32 pixels, not of 48 x 48"):
        network(np.zeros((1, 48, 48, 3), np.float32))
    with pytest.raises(S3Error, match="33 pixels cannot be cut into patches of 16"):
        zoo.create("deit_s", image_size=33)


def test_names_that_are_none_are_told_with_those_that_are():
    with pytest.raises(S3Error, match=r"no published model is called 'swin'; there are s3_t, s3_s, .*vit_b16"):
        zoo.create("swin")
    with pytest.raises(S3Error, match=r"vit_b16 is a plain transformer, .* those that have: s3_t, .*swin_b$"):
        zoo.architecture("vit_b16")


def test_plain_transformers_are_records_too():
    for name in ("s3_b_384", "vit_b16"):
        found = zoo.spec(name).architecture
        kind = IsotropicArchitecture if name == "vit_b16" else Architecture
        assert kind.from_json(found.to_json()) == found
    for record in ({}, {"isotropic": 3}, {"isotropic": {"embed_dim": 8}}):
        with pytest.raises(S3Error, match="not a record of a plain transformer"):
            IsotropicArchitecture.from_json(record)
    with pytest.raises(S3Error, match="a width of 10 cannot be divided among 3 heads"):
        IsotropicArchitecture(10, 2, 3)


@pytest.fixture(scope="module")
def swin_file(tmp_path_factory):
    """Weights of zeros, of the shapes of swin_t."""
    path = tmp_path_factory.mktemp("weights") / "swin.safetensors"
    network = nnx.eval_shape(lambda: zoo.create("swin_t"))
    tensors = {name: np.zeros(shape, np.float32) for name, shape in state_dict_shapes(network).items()}
    write_safetensors(path, tensors, {})
    return path


@pytest.mark.parametrize("name", ["s3_t", "swin_b", "vit_b16"])
def test_weights_of_another_model_are_refused_by_its_name(swin_file, name):
    with pytest.raises(S3Error, match=rf"does not fit {name}: .* It looks like swin_t$"):
        zoo.pretrained(name, str(swin_file))


def test_weights_for_another_number_of_classes_need_a_new_classifier(swin_file):
    with pytest.raises(S3Error, match=r"head.fc.(bias|weight) of the state dict is .*1000.*, the network needs .*10"):
        zoo.pretrained("swin_t", str(swin_file), num_classes=10)
    network = zoo.pretrained("swin_t", str(swin_file), num_classes=10, reset_head=True).network
    assert network.head.kernel.shape == (768, 10)
    assert float(np.abs(network.head.kernel[...]).max()) > 0
    assert not np.asarray(network.patch.kernel[...]).any()


def test_an_unreachable_hub_and_a_missing_file_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(S3Error, match="hf-hub:nobody/nothing: the hub's client is not installed"):
        zoo.pretrained("swin_t", "hf-hub:nobody/nothing")
    client = types.ModuleType("huggingface_hub")
    client.hf_hub_download = lambda repository, file: (_ for _ in ()).throw(TimeoutError())
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    with pytest.raises(S3Error, match=r"could not get model.safetensors of hf-hub:nobody/nothing: TimeoutError"):
        zoo.pretrained("swin_t", "hf-hub:nobody/nothing")
    client.hf_hub_download = lambda repository, file: (_ for _ in ()).throw(ConnectionError(f"no way to {repository}"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    with pytest.raises(S3Error, match=r"could not get model.safetensors of hf-hub:nobody/nothing: no way to nobody"):
        zoo.pretrained("swin_t", "hf-hub:nobody/nothing")
    with pytest.raises(S3Error, match=r"there is no file nowhere.pth"):
        zoo.pretrained("swin_t", "nowhere.pth")


@pytest.mark.parametrize("name", ["s3_t", "deit_s"])
def test_logits_are_timms(name):
    """timm 1.0.31's own, of seeded weights and images, as scripts/parity.py has written them."""
    network = nnx.eval_shape(lambda: zoo.create(name))
    tensors = {key: parity.seeded_tensor(key, shape) for key, shape in state_dict_shapes(network).items()}
    logits, maps = parity.our_answers(name, tensors)
    golden = json.loads(Path(__file__).with_name("golden_logits.json").read_text())[name]
    np.testing.assert_allclose(logits[:, : parity.KEPT], golden, atol=1e-4)
    assert [each.shape[-1] for each in maps] == ([96, 192, 384, 768] if name == "s3_t" else [384])
