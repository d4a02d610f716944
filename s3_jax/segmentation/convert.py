"""A network's weights under mmsegmentation's names, and back; every tensor is accounted for.

The backbone has the names of Swin's official release for segmentation, whose files can be read; the heads have those of
mmsegmentation's UPerHead and FCNHead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from s3_jax.errors import S3Error
from s3_jax.networks import convert
from s3_jax.networks.files import StateDict
from s3_jax.segmentation.upernet import UperNet

_HEADS = (
    (r"^decode\.pools\.(\d+)\.", r"decode_head.psp_modules.\1.1."),
    (r"^decode\.bottleneck\.", "decode_head.bottleneck."),
    (r"^decode\.laterals\.", "decode_head.lateral_convs."),
    (r"^decode\.smoothers\.", "decode_head.fpn_convs."),
    (r"^decode\.fusion\.", "decode_head.fpn_bottleneck."),
    (r"^decode\.classifier\.", "decode_head.conv_seg."),
    (r"^auxiliary\.classifier\.", "auxiliary_head.conv_seg."),
    (r"^auxiliary\.convolution\.", "auxiliary_head.convs.0."),
    (r"\.convolution\.kernel$", ".conv.weight"),
    (r"\.norm\.mean$", ".bn.running_mean"),
    (r"\.norm\.variance$", ".bn.running_var"),
    (r"\.norm\.", ".bn."),
    (r"\.(kernel|scale)$", ".weight"),
)


def to_state_dict(network: UperNet) -> StateDict:
    """A network's weights and running statistics under mmsegmentation's names and in its shapes, float32."""
    backbone = {_official(name): tensor for name, tensor in convert.to_state_dict(network.backbone).items()}
    heads = {_name(path): _theirs(np.asarray(leaf)) for path, leaf in _heads(network).items()}
    return backbone | heads


def load_weights(network: UperNet, tensors: Mapping[str, np.ndarray]) -> None:
    """Give a network the weights of a state dict under mmsegmentation's names, in place.

    Raises S3Error, and changes nothing, where a tensor is missing, in surplus or misshapen, or has values that are no
    finite numbers.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not convert.is_buffer(name)}
    heads = {_name(path): (path, leaf.shape) for path, leaf in _heads(network).items()}
    shapes = {name: np.shape(_theirs(np.broadcast_to(np.float32(0), shape))) for name, (_, shape) in heads.items()}
    shapes |= {_official(name): shape for name, shape in convert.state_dict_shapes(network.backbone).items()}
    for names, what in ((shapes.keys() - kept.keys(), "has no"), (kept.keys() - shapes.keys(), "has a surplus")):
        if names:
            raise S3Error(f"the state dict {what} tensor {min(names)}{convert.and_more(len(names) - 1)}")
    arrays = {name: _checked(name, np.asarray(kept[name]), shape) for name, shape in shapes.items()}
    convert.check_finite(arrays)
    loaded = {path: _ours(arrays[name], shape) for name, (path, shape) in heads.items()}
    backbone = {_timm(name): array for name, array in arrays.items() if name not in heads}
    convert.load_weights(network.backbone, backbone, resize=False, reset_head=False)
    nnx.update(network, traverse_util.unflatten_dict(loaded))


def _heads(network: UperNet) -> dict[tuple[Any, ...], Any]:
    """Parameters and statistics of the heads by their paths."""
    state = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(network)))
    return {path: leaf for path, leaf in state.items() if path[0] != "backbone"}


def _name(path: tuple[Any, ...]) -> str:
    name = ".".join(map(str, path))
    for pattern, replacement in _HEADS:
        name = re.sub(pattern, replacement, name)
    return name


def _official(name: str) -> str:
    """The official release's name of what timm calls `name`: there patches are merged at the end of a stage."""
    name = re.sub(r"^output_norms\.(\d+)", r"norm\1", name)
    return "backbone." + re.sub(r"^layers\.(\d+)\.downsample", _moved(-1), name)


def _timm(name: str) -> str:
    name = re.sub(r"^norm(\d)", r"output_norms.\1", name.removeprefix("backbone."))
    return re.sub(r"^layers\.(\d+)\.downsample", _moved(1), name)


def _moved(by: int) -> Any:
    return lambda match: f"layers.{int(match[1]) + by}.downsample"


def _theirs(array: np.ndarray) -> np.ndarray:
    """Kernels (k, k, C, O) or (C, O) as PyTorch has them, (O, C, k, k)."""
    if array.ndim == 2:
        array = array[None, None]
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def _ours(array: np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(array.transpose(2, 3, 1, 0).reshape(shape) if array.ndim == 4 else array)


def _checked(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of a state dict in float32. Raises S3Error where it has another shape, or no floating-point numbers."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise S3Error(f"tensor {name} of the state dict holds {array.dtype}, where weights are floating-point numbers")
    if array.shape != shape:
        raise S3Error(f"tensor {name} of the state dict is {array.shape}, the network needs {shape}")
    with np.errstate(over="ignore"):  # becomes infinite, which `check_finite` tells
        return array.astype(np.float32, copy=False)
