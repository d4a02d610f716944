"""Weights files as users have them: wrapped by programs, of other number types, damaged, or made to do harm."""

import contextlib
import json
import pickle
import struct
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from test_weights import TORCH_FILE, isotropic, load, windowed

from s3_jax.errors import S3Error
from s3_jax.networks.convert import params_of, to_state_dict, to_timm
from s3_jax.networks.files import read_state_dict, write_safetensors

TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"


def official(tensors):
    """Under the names of the official releases: merging at the end of a stage, a classifier called head."""
    moved = {name.replace("layers.1.downsample", "layers.0.downsample"): tensor for name, tensor in tensors.items()}
    return {name.replace("head.fc", "head"): tensor for name, tensor in moved.items()}


def headless(tensors):
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.model."])
@pytest.mark.parametrize("make", [windowed, isotropic])
def test_what_a_training_program_puts_before_every_name_is_left_out_and_told(make, prefix, caplog):
    source, target = make(0), make(1)
    with caplog.at_level("WARNING", logger="absl"):
        load(target, {prefix + name: tensor for name, tensor in to_state_dict(source).items()})
    assert f"begins with {prefix}, which is left out" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, params_of(source), params_of(target))


def test_an_averaged_models_counter_is_no_weight():
    """torch.optim.swa_utils.AveragedModel."""
    source, target = windowed(0), windowed(1)
    averaged = {"module." + name: tensor for name, tensor in to_state_dict(source).items()}
    load(target, averaged | {"n_averaged": np.array(3)})
    jax.tree.map(np.testing.assert_array_equal, params_of(source), params_of(target))


def test_a_prefix_of_some_names_is_kept():
    tensors = to_state_dict(windowed(0))
    tensors["module.extra"] = np.zeros(3, np.float32)
    with pytest.raises(S3Error, match=r"has a surplus tensor module\.extra$"):
        load(windowed(1), tensors)


@pytest.mark.parametrize("names", [dict, official])
@pytest.mark.parametrize("head", [dict, headless])
def test_the_names_are_told_by_where_patches_are_merged_not_by_the_classifier(names, head):
    source, target = windowed(0), windowed(1)
    load(target, head(names(to_state_dict(source))), reset_head=True)
    np.testing.assert_array_equal(target.merges[0].reduction.kernel[...], source.merges[0].reduction.kernel[...])
    np.testing.assert_array_equal(target.norm.scale[...], source.norm.scale[...])


def test_names_of_timm_with_the_officials_classifier_and_the_reverse():
    """Files that people have renamed halfway: each part is read by itself."""
    source = to_state_dict(windowed(0))
    halves = (
        {name.replace("head.fc", "head"): tensor for name, tensor in source.items()},
        {name.replace("layers.1.downsample", "layers.0.downsample"): tensor for name, tensor in source.items()},
    )
    for half in halves:
        target = windowed(1)
        load(target, half)
        jax.tree.map(np.testing.assert_array_equal, params_of(windowed(0)), params_of(target))


def test_a_classifier_under_both_names_is_refused():
    tensors = to_state_dict(windowed(0))
    with pytest.raises(S3Error, match="a classifier under both names"):
        to_timm(tensors | {"head.weight": tensors["head.fc.weight"]})


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.nan, np.float32),
        (np.inf, np.float16),
        (-np.inf, ml_dtypes.bfloat16),
        (1e300, np.float64),
    ],
)
@pytest.mark.parametrize("name", ["norm.weight", TABLE, "head.fc.weight"])
def test_weights_that_are_not_finite_are_refused_by_name(value, dtype, name):
    network, tensors = windowed(1), to_state_dict(windowed(0))
    before = params_of(network)
    tensors[name] = tensors[name].astype(dtype)
    tensors[name].flat[2] = value
    count = f"1 of {tensors[name].size} values"
    with pytest.raises(S3Error, match=rf"^tensor {name}: {count} are NaN or infinite in float32"):
        load(network, tensors)
    jax.tree.map(np.testing.assert_array_equal, before, params_of(network))
    tensors["patch_embed.norm.bias"] = np.full(8, np.nan, np.float32)
    with pytest.raises(S3Error, match=r"^tensor [a-z0-9_.]+ and 1 more: "):
        load(network, tensors)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_are_read(dtype, tmp_path):
    source, target = windowed(0), windowed(1)
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, {name: tensor.astype(dtype) for name, tensor in to_state_dict(source).items()}, {})
    load(target, read_state_dict(path))
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype).astype(np.float32), params_of(source))
    jax.tree.map(np.testing.assert_array_equal, rounded, params_of(target))


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.bool_, np.complex64])
def test_numbers_that_are_no_weights_are_refused(dtype):
    tensors = to_state_dict(windowed(0))
    tensors["norm.weight"] = tensors["norm.weight"].astype(dtype)
    with pytest.raises(S3Error, match=rf"tensor norm\.weight of the state dict holds {np.dtype(dtype)}"):
        load(windowed(1), tensors)


@pytest.mark.parametrize("shape", [(), (0, 1), (10, 1), (16, 1), (9,), (1, 9, 1)])
def test_a_bias_table_that_is_none_is_told_also_where_it_is_resized(shape):
    """Of 10 and 16 rows none has an odd side."""
    tensors = to_state_dict(windowed(0))
    tensors[TABLE] = np.zeros(shape, np.float32)
    with pytest.raises(S3Error, match=r"bias_table of the state dict is .* the network needs \(9, 1\)"):
        load(windowed(1), tensors, resize=True)


@pytest.mark.parametrize("shape", [(), (17, 8), (1, 0, 8), (1, 1, 8), (1, 12, 8), (2, 10, 8)])
def test_position_embeddings_that_are_none_are_told_also_where_they_are_resized(shape):
    tensors = to_state_dict(isotropic(0))
    tensors["pos_embed"] = np.zeros(shape, np.float32)
    with pytest.raises(S3Error, match=r"pos_embed of the state dict is .* the network needs \(1, 17, 8\)"):
        load(isotropic(1), tensors, resize=True)


def safetensors_file(header, data=b""):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a safetensors file, or it is cut short"),
        (b"\xff" * 100, "not a safetensors file, or it is cut short"),
        (safetensors_file(b"[1, 2"), "not a safetensors file, or it is cut short"),
        (safetensors_file([]), "not a safetensors file, or it is cut short"),
        (safetensors_file({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, b"1234"), "cut short"),
        (
            safetensors_file({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, b"12"),
            "tensor a is of type F8_E4M3; known are F64, F32, F16, BF16",
        ),
        (TORCH_FILE.read_bytes(), "not a safetensors file"),
    ],
)
def test_safetensors_files_that_are_none_are_told(content, message, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(S3Error, match=message):
        read_state_dict(path)


def test_folders_are_no_weights(tmp_path):
    for name in ("folder.pth", "folder.safetensors"):
        (tmp_path / name).mkdir()
        with pytest.raises(S3Error, match=rf"{name} is a folder; give a .safetensors or .pth file"):
            read_state_dict(tmp_path / name)


def opcodes(value):
    """What pickles a value, without the beginning and the end of a pickle."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(size, stride, offset=0, key="0", count=4):
    storage = (
        b"(" + opcodes("storage") + b"ctorch\nFloatStorage\n" + b"".join(map(opcodes, (key, "cpu", count))) + b"tQ"
    )
    rest = b"".join(map(opcodes, (offset, size, stride)))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def torch_file(path, made, compression=zipfile.ZIP_STORED):
    """A PyTorch file whose state dict holds under "a" what the opcodes make, with one storage of four floats."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}" + opcodes("a") + made + b"s.")
        archive.writestr("x/data/0", np.arange(4, dtype=np.float32).tobytes())


def test_the_files_of_these_tests_are_read_where_nothing_is_wrong(tmp_path):
    torch_file(tmp_path / "a.pth", tensor((2, 2), (2, 1)))
    np.testing.assert_array_equal(read_state_dict(tmp_path / "a.pth")["a"], [[0, 1], [2, 3]])
    torch_file(tmp_path / "expanded.pth", tensor((3, 2), (0, 1)))
    np.testing.assert_array_equal(read_state_dict(tmp_path / "expanded.pth")["a"], [[0, 1]] * 3)


@pytest.mark.parametrize(
    "made",
    [
        tensor((2**40,), (0,)),  # four terabytes out of one number
        tensor((2**20, 2**20), (0, 1)),
        tensor((2**70,), (1,)),
        tensor((4,), (1,), offset=1),
        tensor((-1,), (1,)),
        tensor((2,), (-1,)),
        tensor((2, 2), (1,)),
        tensor((2,), (1,), key="1"),
        tensor((2,), (1,), count=2**60),
        tensor(3, (1,)),
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + opcodes(1) + opcodes(0) + opcodes((2,)) + opcodes((1,)) + b"tR",
        b"ctorch._utils\n_rebuild_tensor_v2\n(tR",
        b"ctorch\nFloatStorage\n(tR",
        b"(" * 200_000 + b"t" * 200_000,
        b"\x8e" + struct.pack("<Q", 2**50),  # a text of a petabyte
        b"(" + opcodes("storage") + b"tQ",
        b"R",
    ],
)
def test_pickles_that_are_damaged_or_made_to_do_harm_are_told(made, tmp_path):
    torch_file(tmp_path / "a.pth", made)
    with pytest.raises(S3Error, match=r"a\.pth (is not a PyTorch file|holds no named tensors)"):
        read_state_dict(tmp_path / "a.pth")


def test_a_file_that_would_unpack_to_far_more_than_it_is_gets_refused(tmp_path):
    torch_file(tmp_path / "bomb.pth", tensor((2,), (1,)), zipfile.ZIP_DEFLATED)
    with pytest.raises(S3Error, match="is compressed, which PyTorch does not do"):
        read_state_dict(tmp_path / "bomb.pth")


def test_a_file_altered_at_random_bytes_is_read_or_told(tmp_path):
    """300 files: never a traceback. A zip's checksums, and safetensors' header, see most of it."""
    rng = np.random.default_rng(0)
    write_safetensors(tmp_path / "good.safetensors", {"a": np.zeros(10, np.float32), "b": np.ones((2, 3))}, {"k": "v"})
    for source in (TORCH_FILE, tmp_path / "good.safetensors"):
        whole = source.read_bytes()
        for number in range(150):
            changed = bytearray(whole[: rng.integers(1, len(whole))] if number % 3 == 0 else whole)
            changed[rng.integers(len(changed))] = rng.integers(256)
            path = tmp_path / f"changed{source.suffix}"
            path.write_bytes(changed)
            with contextlib.suppress(S3Error):
                assert all(isinstance(each, np.ndarray) for each in read_state_dict(path).values())
