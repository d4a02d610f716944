"""Our parameters and PyTorch's state dicts, one made of the other; every tensor is accounted for.

PyTorch's linear kernels are (out, in), its convolutions (out, in, H, W), and it has no axes for heads; what it holds is
the same, in the same order. Names are timm's; those of the official releases of Swin, S3 and DeiT become these first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx, traverse_util

from s3_jax.errors import S3Error
from s3_jax.models.families import AnyNetwork, family_of
from s3_jax.models.subnet import Params
from s3_jax.networks.files import StateDict
from s3_jax.networks.resize import resize_positions, resize_table

ParameterPath = tuple[Any, ...]

# Tensors of PyTorch that hold no weights: they follow from shapes, or count what an average was made of.
_BUFFERS = re.compile(r"(relative_position_index|attn_mask|num_batches_tracked|^n_averaged)$")
# What training programs put before every name: data parallel, torch.compile, Lightning and others.
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
_RENAMED = (
    (r"^stages\.", "layers."),
    (r"^patch\.", "patch_embed.proj."),
    (r"^patch_norm\.", "patch_embed.norm."),
    (r"\battention\.", "attn."),
    (r"\bbias_table$", "relative_position_bias_table"),
    (r"\b(kernel|scale)$", "weight"),
    (r"^class_token$", "cls_token"),
    (r"^position$", "pos_embed"),
)


def load_weights(network: AnyNetwork, tensors: Mapping[str, np.ndarray], *, resize: bool, reset_head: bool) -> None:
    """Give a network the weights of a state dict, in place.

    resize: interpolate bias tables and position embeddings of another window or image size. reset_head: keep the
    network's own classifier, and output norms that the state dict has not. Raises S3Error, and changes nothing, where a
    tensor is missing, in surplus or misshapen, or its values are no finite numbers.
    """
    found, shapes = to_timm(tensors), param_shapes(network)
    expected = {timm_name(path, network): path for path in shapes}
    if reset_head:
        found = {name: tensor for name, tensor in found.items() if not name.startswith("head.")}
        kept = {name for name, path in expected.items() if path[0] in ("head", "output_norms") and name not in found}
        expected = {name: path for name, path in expected.items() if name not in kept}
    check_names(found, expected)
    resized = {name: _resized(name, found[name], shapes[path], path, resize) for name, path in expected.items()}
    check_finite(resized)
    loaded = {path: jax.numpy.asarray(_from_theirs(path, resized[n], shapes[path])) for n, path in expected.items()}
    nnx.update(network, traverse_util.unflatten_dict(loaded))


def is_buffer(name: str) -> bool:
    """Whether a tensor of PyTorch of this name holds no weights."""
    return bool(_BUFFERS.search(name))


def check_finite(tensors: Mapping[str, np.ndarray]) -> None:
    """Raises S3Error where a tensor holds NaN or an infinity: whatever a network with it answers means nothing."""
    counts = {name: int(np.size(tensor) - np.isfinite(tensor).sum()) for name, tensor in tensors.items()}
    bad = sorted(name for name, count in counts.items() if count)
    if bad:
        raise S3Error(
            f"tensor {bad[0]}{and_more(len(bad) - 1)}: {counts[bad[0]]:,} of {np.size(tensors[bad[0]]):,} values are "
            "NaN or infinite in float32; take weights from before the training diverged, or get the file again"
        )


def to_state_dict(network: AnyNetwork) -> StateDict:
    """A network's weights under timm's names and in its shapes, float32."""
    params = traverse_util.flatten_dict(params_of(network))
    return {timm_name(path, network): _to_theirs(path, np.asarray(leaf)) for path, leaf in params.items()}


def state_dict_shapes(network: AnyNetwork) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of `to_state_dict`; the network may be an abstract one of `nnx.eval_shape`."""
    return {timm_name(path, network): _their_shape(path, shape) for path, shape in param_shapes(network).items()}


def params_of(network: AnyNetwork) -> Params:
    """A network's parameters as a nested dict."""
    return nnx.to_pure_dict(nnx.state(network, nnx.Param))


def param_shapes(network: AnyNetwork) -> dict[ParameterPath, tuple[int, ...]]:
    """The shape of every parameter by its path."""
    flat = traverse_util.flatten_dict(params_of(network))
    return {path: np.shape(leaf) for path, leaf in flat.items()}


def timm_name(path: ParameterPath, network: AnyNetwork) -> str:
    """What timm calls a parameter."""
    name = ".".join(map(str, path))
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    name = re.sub(r"^merges\.(\d+)", lambda match: f"layers.{int(match[1]) + 1}.downsample", name)
    return re.sub(r"^head\.", family_of(network).timm_classifier, name)


def begin_backbone(
    backbone: AnyNetwork, start: Any, *, without: tuple[str, ...] = ("norm.", "head."), own_norms: bool = True
) -> None:
    """Give a backbone, in place, the weights of another network's, whatever its task; bias tables are resized.

    without: what the names of those begin with that are left. own_norms: output norms that `start` lacks stay.
    """
    tensors = to_state_dict(getattr(start, "backbone", start))
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(without)}
    load_weights(backbone, kept, resize=True, reset_head=own_norms)


def to_timm(tensors: Mapping[str, np.ndarray]) -> StateDict:
    """Without buffers and wrappers' prefixes, and under timm's names where they are those of the official releases.

    Raises S3Error where two tensors would have one name.
    """
    kept = without_prefixes({name: tensor for name, tensor in tensors.items() if not is_buffer(name)})
    if not any(name.startswith("layers.") for name in kept):  # a plain transformer's names are timm's everywhere
        return kept
    # There patches are merged at the end of a stage, in timm at the beginning of the next.
    shift = int(any(name.startswith("layers.0.downsample.") for name in kept))
    renamed = {_timm_from_official(name, shift): tensor for name, tensor in kept.items()}
    if len(renamed) < len(kept):
        raise S3Error("the state dict has a classifier under both names, head and head.fc; leave one of them out")
    return renamed


def without_prefixes(tensors: StateDict) -> StateDict:
    """Without what a training program has put before every name, however often; and says so."""
    stripped = ""
    while prefix := next((each for each in _PREFIXES if tensors and all(n.startswith(each) for n in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        stripped += prefix
    if stripped:
        logging.warning("Every tensor's name begins with %s, which is left out.", stripped)
    return tensors


def _timm_from_official(name: str, shift: int) -> str:
    name = re.sub(r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + shift}.downsample", name)
    return re.sub(r"^head\.(weight|bias)$", r"head.fc.\1", name)


def check_names(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises S3Error where tensors of a state dict are missing or in surplus."""
    for names, what in ((expected.keys() - found.keys(), "has no"), (found.keys() - expected.keys(), "has a surplus")):
        if names:
            raise S3Error(f"the state dict {what} tensor {sorted(names)[0]}{and_more(len(names) - 1)}")


def and_more(count: int) -> str:
    """How a message goes on that has named the first of so many more."""
    return f" and {count} more" if count else ""


def checked(name: str, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of a state dict in float32. Raises S3Error where it has another shape, or no floating-point numbers."""
    array = np.asarray(tensor)
    _check_floating(name, array)
    if array.shape != shape:
        raise S3Error(f"tensor {name} of the state dict is {array.shape}, the network needs {shape}")
    with np.errstate(over="ignore"):  # becomes infinite, which `check_finite` tells
        return array.astype(np.float32, copy=False)


def beside_backbone(network: Any) -> dict[ParameterPath, Any]:
    """Parameters and running statistics of a network but those of its backbone, by their paths."""
    state = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(network)))
    return {path: leaf for path, leaf in state.items() if path[0] != "backbone"}


def _check_floating(name: str, array: np.ndarray) -> None:
    if not jax.numpy.issubdtype(array.dtype, jax.numpy.floating):
        raise S3Error(f"tensor {name} of the state dict holds {array.dtype}, where weights are floating-point numbers")


def _resized(name: str, tensor: np.ndarray, shape: tuple[int, ...], path: ParameterPath, resize: bool) -> np.ndarray:
    """A tensor in float32 and in the shape that PyTorch would have it in."""
    array = np.asarray(tensor)
    _check_floating(name, array)
    theirs = _their_shape(path, shape)
    if resize and array.shape != theirs:
        array = _interpolated(array, shape, path)
    if array.shape != theirs:
        hint = "" if resize or path[-1] not in ("bias_table", "position") else "; resizing was not asked for"
        raise S3Error(f"tensor {name} of the state dict is {array.shape}, the network needs {theirs}{hint}")
    with np.errstate(over="ignore"):  # becomes infinite, which `check_finite` tells
        return array.astype(np.float32)


def _interpolated(array: np.ndarray, shape: tuple[int, ...], path: ParameterPath) -> np.ndarray:
    """A bias table or position embeddings for another window or image size; anything else as it is."""
    if path[-1] == "bias_table" and array.ndim == 2 and array.shape[1] == shape[-1]:
        side = math.isqrt(len(array))
        if side % 2 and side * side == len(array):
            table = array.astype(np.float32).reshape(side, side, -1)
            return resize_table(table, (shape[0], shape[1])).reshape(-1, shape[-1])
    if path[-1] == "position" and array.ndim == 3 and array.shape[::2] == (1, shape[-1]):
        patches = array.shape[1] - 1
        if patches > 0 and math.isqrt(patches) ** 2 == patches:
            return resize_positions(array[0].astype(np.float32), shape[0])[None]
    return array


def _inputs(path: ParameterPath, shape: tuple[int, ...]) -> int | None:
    """How many leading axes of a kernel are summed over; None for what is no kernel, and for a convolution 3."""
    if path[-1] != "kernel":
        return None
    if path[0] == "patch":
        return 3
    return 2 if path[-2] in ("proj", "reduction") and len(shape) == 3 else 1


def _their_shape(path: ParameterPath, shape: tuple[int, ...]) -> tuple[int, ...]:
    inputs = _inputs(path, shape)
    if inputs == 3:
        return (shape[3], shape[2], shape[0], shape[1])
    if inputs is not None:
        return (int(np.prod(shape[inputs:])), int(np.prod(shape[:inputs])))
    if path[-1] == "bias_table":
        return (shape[0] * shape[1], shape[2])
    if path[-1] in ("class_token", "position"):
        return (1,) * (3 - len(shape)) + shape
    return (int(np.prod(shape)),)


def _from_theirs(path: ParameterPath, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if _inputs(path, shape) == 3:
        return array.transpose(2, 3, 1, 0)
    return (array.T if _inputs(path, shape) else array).reshape(shape)


def _to_theirs(path: ParameterPath, array: np.ndarray) -> np.ndarray:
    theirs, inputs = _their_shape(path, array.shape), _inputs(path, array.shape)
    if inputs == 3:
        return array.transpose(3, 2, 0, 1)
    return array.reshape(theirs[::-1]).T if inputs else array.reshape(theirs)
