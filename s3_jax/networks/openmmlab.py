"""Weights of heads on a backbone under the names of OpenMMLab (mmsegmentation, mmdetection), and back.

The backbone has the names of Swin's official releases for segmentation and detection, whose files can be read; a task
says what its heads are called. Every tensor is accounted for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from s3_jax.networks import convert
from s3_jax.networks.files import StateDict

Shape = tuple[int, ...]


class Heads(NamedTuple):
    """How the heads' tensors are called and laid out there.

    renamed: patterns of a path, joined by dots, and what replaces them, one after another. theirs: (path, array) to
    the array as PyTorch has it; ours: (path, array, our shape) to what it was.
    """

    renamed: Sequence[tuple[str, str]]
    theirs: Callable[[convert.ParameterPath, np.ndarray], np.ndarray]
    ours: Callable[[convert.ParameterPath, np.ndarray, Shape], np.ndarray]


def to_state_dict(network: Any, heads: Heads) -> StateDict:
    """A network's weights and running statistics under OpenMMLab's names and in its shapes, float32."""
    backbone = {_official(name): tensor for name, tensor in convert.to_state_dict(network.backbone).items()}
    own = {
        _name(path, heads): heads.theirs(path, np.asarray(leaf))
        for path, leaf in convert.beside_backbone(network).items()
    }
    return backbone | own


def load_weights(network: Any, tensors: Mapping[str, np.ndarray], heads: Heads) -> None:
    """Give a network the weights of a state dict under OpenMMLab's names, in place.

    Raises S3Error, and changes nothing, where a tensor is missing, in surplus or misshapen, or has values that are no
    finite numbers.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not convert.is_buffer(name)}
    own = {_name(path, heads): (path, leaf.shape) for path, leaf in convert.beside_backbone(network).items()}
    shapes = {name: _their_shape(heads, *place) for name, place in own.items()}
    shapes |= {_official(name): shape for name, shape in convert.state_dict_shapes(network.backbone).items()}
    convert.check_names(kept, shapes)
    arrays = {name: convert.checked(name, kept[name], shape) for name, shape in shapes.items()}
    convert.check_finite(arrays)
    loaded = {path: jnp.asarray(heads.ours(path, arrays[name], shape)) for name, (path, shape) in own.items()}
    backbone = {_timm(name): array for name, array in arrays.items() if name not in own}
    convert.load_weights(network.backbone, backbone, resize=False, reset_head=False)
    nnx.update(network, traverse_util.unflatten_dict(loaded))


def _their_shape(heads: Heads, path: convert.ParameterPath, shape: Shape) -> Shape:
    return np.shape(heads.theirs(path, np.broadcast_to(np.float32(0), shape)))


def _name(path: convert.ParameterPath, heads: Heads) -> str:
    name = ".".join(map(str, path))
    for pattern, replacement in heads.renamed:
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
