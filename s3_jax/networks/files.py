"""State dicts in files: names of tensors to arrays, as safetensors or as PyTorch saves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from s3_jax.errors import S3Error
from s3_jax.networks.torch_pickle import read_torch
from s3_jax.paths import AnyPath, any_path
from s3_jax.writing import SEAL, checksum_of, write_whole

StateDict = dict[str, np.ndarray]

# The types of safetensors. Its own reader for numpy does not know bfloat16.
_TYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
# Under which of these keys a training's checkpoint holds the weights, the first that is there.
_WRAPPERS = ("model_ema", "state_dict_ema", "model", "state_dict")


def read_state_dict(path: str | AnyPath) -> StateDict:
    """The tensors of a .safetensors, .pth, .pt or .bin file; of a training's checkpoint those of its model.

    Raises S3Error where there is no such file, or it is neither, or it is cut short.
    """
    path = any_path(str(path))
    if not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"there is no file {path}"
        raise S3Error(f"{what}; give a .safetensors or .pth file, or hf-hub:owner/name")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    found = read_torch(path)
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
            break
    tensors = {name: value for name, value in found.items() if isinstance(value, np.ndarray)} if _named(found) else {}
    if not tensors:
        raise S3Error(f"{path} holds no named tensors: it is not a state dict, nor a checkpoint with one")
    return tensors


def write_safetensors(path: AnyPath, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write tensors and a checksum of them, whole or not at all. Raises S3Error where the disk refuses it."""
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    write_whole(
        path, safetensors.numpy.save(contiguous, {**metadata, SEAL: str(checksum_of(sorted(contiguous.items())))})
    )


def _read_safetensors(path: AnyPath) -> StateDict:
    try:
        data = path.read_bytes()
        stored = safetensors.deserialize(data)
    except (OSError, safetensors.SafetensorError) as error:
        raise S3Error(f"{path} is not a safetensors file, or it is cut short: {error}; download it again") from error
    unknown = [(name, tensor["dtype"]) for name, tensor in stored if tensor["dtype"] not in _TYPES]
    if unknown:
        name, kind = unknown[0]
        raise S3Error(f"{path}: tensor {name} is of type {kind}; known are {', '.join(_TYPES)}")
    tensors = {
        name: np.frombuffer(tensor["data"], _TYPES[tensor["dtype"]]).reshape(tensor["shape"]) for name, tensor in stored
    }
    if _metadata(data).get(SEAL) not in (None, str(checksum_of(sorted(tensors.items())))):
        raise S3Error(f"{path} is damaged: its tensors are not those that were written, as their checksum tells")
    return tensors


def _metadata(data: bytes) -> dict[str, str]:
    """What a safetensors file says of itself: an entry of its header, which is JSON of a length that comes first."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__", {})


def _named(found: Any) -> bool:
    return isinstance(found, Mapping) and all(isinstance(name, str) for name in found)
