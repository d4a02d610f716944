"""A network's weights under mmsegmentation's names, and back; every tensor is accounted for.

The heads have the names of mmsegmentation's UPerHead and FCNHead; for the backbone's see `networks.openmmlab`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from s3_jax.networks import openmmlab
from s3_jax.networks.convert import ParameterPath
from s3_jax.networks.files import StateDict
from s3_jax.networks.openmmlab import Shape
from s3_jax.segmentation.upernet import UperNet

_RENAMED = (
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
    return openmmlab.to_state_dict(network, _HEADS)


def load_weights(network: UperNet, tensors: Mapping[str, np.ndarray]) -> None:
    """Give a network the weights of a state dict under mmsegmentation's names, in place.

    Raises S3Error, and changes nothing, where a tensor is missing, in surplus or misshapen, or has values that are no
    finite numbers.
    """
    openmmlab.load_weights(network, tensors, _HEADS)


def _theirs(path: ParameterPath, array: np.ndarray) -> np.ndarray:
    """Kernels (k, k, C, O) or (C, O) as PyTorch has them, (O, C, k, k)."""
    if array.ndim == 2:
        array = array[None, None]
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def _ours(path: ParameterPath, array: np.ndarray, shape: Shape) -> np.ndarray:
    return array.transpose(2, 3, 1, 0).reshape(shape) if array.ndim == 4 else array


_HEADS = openmmlab.Heads(_RENAMED, _theirs, _ours)
