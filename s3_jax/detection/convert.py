"""A network's weights under mmdetection's names, and back; every tensor is accounted for.

The heads have the names of mmdetection's CascadeRCNN with FPN, RPNHead, ConvFCBBoxHead and FCNMaskHead; for the
backbone's see `networks.openmmlab`. Classes, their deltas and the places of a RoI come in the same order there, but
channels before places.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from s3_jax.detection.cascade import CascadeMaskRCNN
from s3_jax.networks import openmmlab
from s3_jax.networks.convert import ParameterPath
from s3_jax.networks.files import StateDict
from s3_jax.networks.openmmlab import Shape

_RENAMED = (
    (r"^pyramid\.laterals\.(\d+)\.", r"neck.lateral_convs.\1.conv."),
    (r"^pyramid\.outputs\.(\d+)\.", r"neck.fpn_convs.\1.conv."),
    (r"^rpn\.convolution\.", "rpn_head.rpn_conv."),
    (r"^rpn\.objectness\.", "rpn_head.rpn_cls."),
    (r"^rpn\.deltas\.", "rpn_head.rpn_reg."),
    (r"^box_heads\.(\d+)\.convolutions\.(\d+)\.convolution\.", r"roi_head.bbox_head.\1.shared_convs.\2.conv."),
    (r"^box_heads\.(\d+)\.convolutions\.(\d+)\.norm\.", r"roi_head.bbox_head.\1.shared_convs.\2.bn."),
    (r"^box_heads\.(\d+)\.fc\.", r"roi_head.bbox_head.\1.shared_fcs.0."),
    (r"^box_heads\.(\d+)\.classifier\.", r"roi_head.bbox_head.\1.fc_cls."),
    (r"^box_heads\.(\d+)\.regressor\.", r"roi_head.bbox_head.\1.fc_reg."),
    (r"^mask_heads\.(\d+)\.convolutions\.(\d+)\.", r"roi_head.mask_head.\1.convs.\2.conv."),
    (r"^mask_heads\.(\d+)\.doubling\.", r"roi_head.mask_head.\1.upsample."),
    (r"^mask_heads\.(\d+)\.classifier\.", r"roi_head.mask_head.\1.conv_logits."),
    (r"\.mean$", ".running_mean"),
    (r"\.variance$", ".running_var"),
    (r"\.(kernel|scale)$", ".weight"),
)


def to_state_dict(network: CascadeMaskRCNN) -> StateDict:
    """A network's weights and running statistics under mmdetection's names and in its shapes, float32."""
    return openmmlab.to_state_dict(network, _HEADS)


def load_weights(network: CascadeMaskRCNN, tensors: Mapping[str, np.ndarray]) -> None:
    """Give a network the weights of a state dict under mmdetection's names, in place.

    Raises S3Error, and changes nothing, where a tensor is missing, in surplus or misshapen, or has values that are no
    finite numbers.
    """
    openmmlab.load_weights(network, tensors, _HEADS)


def _theirs(path: ParameterPath, array: np.ndarray) -> np.ndarray:
    """An array as PyTorch has it: convolutions (O, C, k, k), of which the transposed one (C, O, k, k), and linear
    layers (O, C), the first after a RoI's map with inputs (C, 7, 7), flat."""
    match _layer(path):
        case "doubling":
            return array.transpose(2, 3, 0, 1)
        case "fc":
            return array.transpose(3, 2, 0, 1).reshape(array.shape[-1], -1)
        case "linear":
            return array.reshape(len(array), -1).T
        case "convolution":
            return (array if array.ndim == 4 else array[None, None]).transpose(3, 2, 0, 1)
    return array.reshape(-1)


def _ours(path: ParameterPath, array: np.ndarray, shape: Shape) -> np.ndarray:
    match _layer(path):
        case "doubling":
            return array.transpose(2, 3, 0, 1)
        case "fc":
            height, width, channels, outputs = shape
            return array.reshape(outputs, channels, height, width).transpose(2, 3, 1, 0)
        case "linear":
            return array.T.reshape(shape)
        case "convolution":
            return array.transpose(2, 3, 1, 0).reshape(shape)
    return array.reshape(shape)


def _layer(path: ParameterPath) -> str:
    """Of what kind of layer an array is the kernel; "" for biases and the like."""
    if path[-1] != "kernel":
        return ""
    if path[-2] in ("doubling", "fc"):
        return str(path[-2])
    return "linear" if path[0] == "box_heads" and path[-2] in ("classifier", "regressor") else "convolution"


_HEADS = openmmlab.Heads(_RENAMED, _theirs, _ours)
