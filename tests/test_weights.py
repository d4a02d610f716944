"""State dicts: read, renamed, resized and written, with every tensor accounted for."""

import os
import pickle
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from flax import nnx

from s3_jax.errors import S3Error
from s3_jax.models import S3Transformer
from s3_jax.models.isotropic import IsotropicArchitecture, IsotropicTransformer
from s3_jax.networks.convert import load_weights, params_of, to_state_dict
from s3_jax.networks.files import read_state_dict, write_safetensors
from s3_jax.networks.resize import resize_positions, resize_table
from s3_jax.space import Architecture, Block, Stage

TORCH_FILE = Path(__file__).parent / "torch_checkpoint.pth"
WINDOWED = Architecture((Stage(8, (Block(2, 2.0, 32), Block(4, 1.0, 64))), Stage(16, (Block(2, 2.0, 32),))))


def windowed(seed: int = 0, image_size: int = 16, num_classes: int = 3) -> S3Transformer:
    return S3Transformer(WINDOWED, image_size=image_size, num_classes=num_classes, rngs=nnx.Rngs(seed))


def isotropic(seed: int = 0, image_size: int = 16) -> IsotropicTransformer:
    architecture = IsotropicArchitecture(8, 2, 2)
    return IsotropicTransformer(architecture, image_size=image_size, patch_size=4, num_classes=3, rngs=nnx.Rngs(seed))


def load(network, tensors, resize=False, reset_head=False):
    load_weights(network, tensors, resize=resize, reset_head=reset_head)


@pytest.mark.parametrize("make", [windowed, isotropic])
def test_weights_come_back_as_they_went(make, tmp_path):
    source, target = make(0), make(1)
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, to_state_dict(source), {"model": "tiny"})
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata()["model"] == "tiny"
    load(target, read_state_dict(path))
    jax.tree.map(np.testing.assert_array_equal, params_of(source), params_of(target))


def test_tensors_have_pytorchs_names_and_layout():
    """Entries of the kernels, one by one, where PyTorch would have them."""
    network = windowed()
    tensors = to_state_dict(network)
    attention = network.stages[0].blocks[1].attention
    qkv, proj = attention.qkv.kernel[...], attention.proj.kernel[...]
    weight = tensors["layers.0.blocks.1.attn.qkv.weight"]
    assert weight.shape == (3 * 64, 8)
    assert weight[1 * 64 + 1 * 32 + 5, 3] == qkv[3, 1, 1, 5]  # the key of head 1
    assert tensors["layers.0.blocks.1.attn.proj.weight"][2, 1 * 32 + 7] == proj[1, 7, 2]
    assert tensors["layers.0.blocks.1.attn.relative_position_bias_table"][7 * 2 + 3, 1] == attention.bias_table[2, 3, 1]
    assert tensors["patch_embed.proj.weight"][5, 2, 1, 3] == network.patch.kernel[1, 3, 2, 5]
    merge = network.merges[0].reduction.kernel[...]
    assert tensors["layers.1.downsample.reduction.weight"][4, 3 * 8 + 6] == merge[3, 6, 4]
    assert tensors["head.fc.weight"].shape == (3, 16)


def test_official_names_are_read_as_timms():
    """There the merging belongs to the stage before, the classifier is called head, and buffers are kept."""
    source, target = windowed(0), windowed(1)
    official = {}
    for name, tensor in to_state_dict(source).items():
        name = name.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc", "head")
        official[name] = tensor
    official["layers.0.blocks.1.attn_mask"] = np.zeros((4, 4))
    official["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((4, 4), np.int64)
    load(target, official)
    jax.tree.map(np.testing.assert_array_equal, params_of(source), params_of(target))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("norm.weight"), "has no tensor norm.weight$"),
        (lambda t: t.update(extra=np.zeros(3)), "has a surplus tensor extra$"),
        (lambda t: t.update({"norm.bias": np.zeros(17)}), r"norm.bias of the state dict is \(17,\), .* needs \(16,\)$"),
        (
            lambda t: t.update({"layers.1.blocks.0.attn.relative_position_bias_table": np.zeros((25, 1))}),
            r"is \(25, 1\), the network needs \(9, 1\); resizing was not asked for",
        ),
    ],
)
def test_every_tensor_is_accounted_for_and_a_refusal_changes_nothing(change, message):
    network, tensors = windowed(1), to_state_dict(windowed(0))
    before = params_of(network)
    change(tensors)
    with pytest.raises(S3Error, match=message):
        load(network, tensors)
    jax.tree.map(np.testing.assert_array_equal, before, params_of(network))


def test_the_classifier_can_be_left_out():
    network, tensors = windowed(1, num_classes=5), to_state_dict(windowed(0))
    own = network.head.kernel[...]
    load(network, tensors, reset_head=True)
    np.testing.assert_array_equal(network.head.kernel[...], own)
    np.testing.assert_array_equal(network.norm.scale[...], tensors["norm.weight"])


def test_a_plain_transformer_goes_over_to_larger_images():
    network = isotropic(1, image_size=24)
    load(network, to_state_dict(isotropic(0)), resize=True)
    assert network.position.shape == (37, 8)
    assert network(jnp.zeros((1, 24, 24, 3))).shape == (1, 3)


def test_resizing_is_pytorchs():
    """torch.nn.functional.interpolate, 2.13.0, mode="bicubic", of squares to 4: without and with antialias."""
    table = np.array([[0, 1, 4], [2, 0, 1], [5, 3, 2]], np.float32)[..., None]
    np.testing.assert_allclose(resize_table(table, (4, 4))[..., 0], GOLDEN_TABLE, atol=1e-6)
    positions = np.concatenate([[[9.0]], table.reshape(9, 1)])
    resized = resize_positions(positions, 17)
    assert resized[0] == 9
    np.testing.assert_allclose(resized[1:].reshape(4, 4), GOLDEN_UP, atol=1e-6)
    np.testing.assert_allclose(resize_positions(positions, 5)[1:].reshape(2, 2), GOLDEN_DOWN, atol=1e-6)
    np.testing.assert_array_equal(resize_table(table, (3, 3)), table)


GOLDEN_TABLE = [
    [-0.230787992477417, 0.2884693145751953, 2.3380825519561768, 4.4409685134887695],
    [1.0156664848327637, 0.14872312545776367, 0.6290402412414551, 2.1104702949523926],
    [3.4679930210113525, 1.8041181564331055, 0.7367212772369385, 1.0350375175476074],
    [5.35888671875, 4.061670303344727, 2.583523750305176, 1.9896960258483887],
]
GOLDEN_UP = [
    [-0.16490310430526733, 0.40269187092781067, 2.2921266555786133, 4.318890571594238],
    [1.0890146493911743, 0.35894644260406494, 0.8052549362182617, 2.148143768310547],
    [3.3755288124084473, 1.8666894435882568, 0.9367417693138123, 1.1686818599700928],
    [5.261194229125977, 3.9806973934173584, 2.604156494140625, 1.9945422410964966],
]
GOLDEN_DOWN = [[0.4665197730064392, 2.075160503387451], [3.303798198699951, 1.577722430229187]]


def test_a_file_of_pytorch_is_read_without_it():
    """torch_checkpoint.pth is of PyTorch 2.13.0: a model, an optimizer, arguments; a transposed and a half tensor."""
    tensors = read_state_dict(TORCH_FILE)
    assert tensors.keys() == {"weight", "transposed", "half", "count", "bias"}
    np.testing.assert_array_equal(tensors["weight"], np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(tensors["transposed"], np.arange(6, dtype=np.float32).reshape(2, 3).T)
    np.testing.assert_array_equal(tensors["half"].astype(np.float32), [0.5, -2.0])
    assert tensors["count"].shape == ()
    assert tensors["count"] == 7
    np.testing.assert_array_equal(tensors["bias"], [1.0, 2.0])


def test_nothing_in_a_pickle_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"model": Evil()}))
    pickle.loads(pickle.dumps(Evil()))
    (tmp_path / "executed").rmdir()  # as an ordinary reader would have made it
    with pytest.raises(S3Error, match="holds no named tensors"):
        read_state_dict(path)
    assert not (tmp_path / "executed").exists()


def test_truncated_and_foreign_files_are_told(tmp_path):
    whole = TORCH_FILE.read_bytes()
    good = tmp_path / "good.safetensors"
    write_safetensors(good, {"a": np.zeros(100, np.float32)}, {})
    for name, data, message in (
        ("cut.pth", whole[: len(whole) // 2], "not a PyTorch file of version 1.6 or later, or it is cut short"),
        ("text.pth", b"hello", "not a PyTorch file"),
        ("cut.safetensors", good.read_bytes()[:200], "not a safetensors file, or it is cut short"),
        ("text.safetensors", b"hello", "not a safetensors file"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(S3Error, match=message):
            read_state_dict(tmp_path / name)


def test_a_storage_that_is_shorter_than_its_tensors_is_told(tmp_path):
    """As a file whose bytes were lost, but not its directory."""
    path = tmp_path / "short.pth"
    with zipfile.ZipFile(TORCH_FILE) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data[:4] if "/data/" in name else data)
    with pytest.raises(S3Error, match="a tensor has 1 of 6 elements"):
        read_state_dict(path)
