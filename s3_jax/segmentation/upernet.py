"""UperNet (Xiao et al., 2018) on the four maps of a window transformer, as the paper's Table 3 has it.

A network of an architecture or the supernet of a space: the heads take the maps at the space's largest widths, in which
a subnet's channels beyond its own are zero.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from s3_jax.config import ModelConfig
from s3_jax.errors import S3Error
from s3_jax.models.layers import Linear, linear
from s3_jax.models.subnet import Params, SubnetMask, copy_overlap, slice_weights
from s3_jax.models.transformer import S3Transformer
from s3_jax.segmentation.layers import (
    ConvolutionNorm,
    Passing,
    channel_dropout,
    convolved,
    convolved_together,
)
from s3_jax.segmentation.resizing import Size, pooled, resized
from s3_jax.space import Architecture, SearchSpace, largest

POOLS = (1, 2, 3, 6)  # sides of the maps that the pyramid pools to (Zhao et al., 2017)


class Logits(NamedTuple):
    """What the two heads say of each place: (B, h, w, classes) at stride 4, and at the stride of the last stage but
    one."""

    decode: Array
    auxiliary: Array


class DecodeHead(nnx.Module):
    """Weights of pyramid pooling on the last map, of the pyramid of all maps, and of what joins them."""

    def __init__(self, dims: list[int], channels: int, num_classes: int, *, std: float, rngs: nnx.Rngs) -> None:
        def make(inputs: int, side: int) -> ConvolutionNorm:
            """A convolution to this head's channels."""
            return ConvolutionNorm(inputs, channels, side=side, rngs=rngs)

        self.pools = nnx.List([make(dims[-1], 1) for _ in POOLS])
        self.bottleneck = make(dims[-1] + len(POOLS) * channels, 3)
        self.laterals = nnx.List([make(dim, 1) for dim in dims[:-1]])
        self.smoothers = nnx.List([make(channels, 3) for _ in dims[:-1]])
        self.fusion = make(len(dims) * channels, 3)
        self.classifier = Linear((channels, num_classes), std=std, rngs=rngs)


class AuxiliaryHead(nnx.Module):
    """Weights of a small head on the last map but one, which helps training and is no part of evaluation."""

    def __init__(self, dim: int, channels: int, num_classes: int, *, std: float, rngs: nnx.Rngs) -> None:
        self.convolution = ConvolutionNorm(dim, channels, side=3, rngs=rngs)
        self.classifier = Linear((channels, num_classes), std=std, rngs=rngs)


class UperNet(nnx.Module):
    """A network that tells the class of each place of an image.

    channels, auxiliary_channels: of the heads. dropout: share of channels that training leaves out before the
    classifiers. classifier_std: deviation of their initial weights, 0 for 1 / sqrt(fan-in). batch_axis, platform: as
    for `S3Transformer`. Windows are those of `model.image_size`, whatever the size of the images.
    """

    def __init__(
        self,
        structure: Architecture | SearchSpace,
        *,
        model: ModelConfig,
        num_classes: int,
        channels: int = 512,
        auxiliary_channels: int = 256,
        dropout: float = 0.1,
        classifier_std: float = 0.01,
        batch_axis: str | None = None,
        platform: str | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.backbone = S3Transformer(
            structure,
            **dataclasses.asdict(model),  # its fields are settings of transformers
            num_classes=0,
            output_norms=True,
            batch_axis=batch_axis,
            platform=platform,
            rngs=rngs,
        )
        if len(structure.stages) < 2:
            raise S3Error("UperNet needs the maps of two stages or more: give an architecture, or a space, of as many")
        dims = [stage.embed_dim for stage in self.backbone.architecture.stages]
        self.decode = DecodeHead(dims, channels, num_classes, std=classifier_std, rngs=rngs)
        self.auxiliary = AuxiliaryHead(dims[-2], auxiliary_channels, num_classes, std=classifier_std, rngs=rngs)
        self.dropout, self.batch_axis = dropout, batch_axis
        self.by_products = (platform or jax.default_backend()) == "cpu"

    def __call__(self, x: Array, subnet: SubnetMask | None = None) -> Array:
        """Logits (B, ceil(H / 4), ceil(W / 4), classes), float32, for patches of 4, of images (B, H, W, 3)."""
        return self._decoded(self.backbone.features(x, subnet), Passing(self.by_products))

    def in_training(
        self, x: Array, weight: Array, subnet: SubnetMask | None = None, *, max_drop_path: float = 0.0, key: Array
    ) -> Logits:
        """The logits of both heads in training, which updates running statistics in place.

        weight (B,): examples of weight 0 are in no statistics. key: of stochastic depth and of dropout.
        """
        depth_key, first, second = jax.random.split(key, 3)
        depth = depth_key if max_drop_path > 0 else None
        maps = self.backbone.features(x, subnet, max_drop_path=max_drop_path, key=depth)
        decode, auxiliary = (Passing(self.by_products, weight, each, self.batch_axis) for each in (first, second))
        return Logits(self._decoded(maps, decode), self._auxiliary(maps[-2], auxiliary))

    def _decoded(self, maps: list[Array], passing: Passing) -> Array:
        head, top = self.decode, maps[-1]
        pools = [convolved(pool, pooled(top, side), passing) for pool, side in zip(head.pools, POOLS, strict=True)]
        levels = [convolved(lateral, x, passing) for lateral, x in zip(head.laterals, maps, strict=False)]
        levels.append(convolved_together(head.bottleneck, [top, *pools], _size(top), passing))
        for index in range(len(levels) - 1, 0, -1):
            below = levels[index - 1]
            levels[index - 1] = below + resized(levels[index], _size(below))
        smooth = [convolved(each, x, passing) for each, x in zip(head.smoothers, levels, strict=False)]
        fused = convolved_together(head.fusion, [*smooth, levels[-1]], _size(levels[0]), passing)
        return self._classified(head.classifier, fused, passing)

    def _auxiliary(self, x: Array, passing: Passing) -> Array:
        return self._classified(self.auxiliary.classifier, convolved(self.auxiliary.convolution, x, passing), passing)

    def _classified(self, classifier: Linear, x: Array, passing: Passing) -> Array:
        return linear(classifier, channel_dropout(x, self.dropout, passing)).astype(jnp.float32)


def slice_upernet(params: Params, space: SearchSpace, architecture: Architecture) -> Params:
    """Weights of the network `architecture`, cut out of the supernet's: as `slice_weights`, and the heads' inputs."""
    dims, widest = ([stage.embed_dim for stage in each.stages] for each in (architecture, largest(space)))
    decode, auxiliary = dict(params["decode"]), dict(params["auxiliary"])
    decode["laterals"] = {
        index: _of_inputs(lateral, slice(dims[index])) for index, lateral in decode["laterals"].items()
    }
    decode["pools"] = {index: _of_inputs(pool, slice(dims[-1])) for index, pool in decode["pools"].items()}
    inputs = decode["bottleneck"]["convolution"]["kernel"].shape[2]
    kept = np.r_[0 : dims[-1], widest[-1] : inputs]  # the last map's channels, and all of the pools'
    decode["bottleneck"] = _of_inputs(decode["bottleneck"], kept)
    auxiliary["convolution"] = _of_inputs(auxiliary["convolution"], slice(dims[-2]))
    backbone = slice_weights(params["backbone"], space, architecture)
    return {"backbone": backbone, "decode": decode, "auxiliary": auxiliary}


def overlapped_upernet(source: Params, target: Params) -> Params:
    """`copy_overlap` of two supernets' weights; of the bottleneck the last map's inputs, and those of the pools."""
    copied = copy_overlap(source, target)
    old, new = (each["decode"]["bottleneck"]["convolution"]["kernel"] for each in (source, target))
    of_pools = len(POOLS) * new.shape[-1]
    shared = min(old.shape[2], new.shape[2]) - of_pools
    kernel = new.at[:, :, :shared].set(old[:, :, :shared]).at[:, :, -of_pools:].set(old[:, :, -of_pools:])
    bottleneck = copied["decode"]["bottleneck"] | {"convolution": {"kernel": kernel}}
    return copied | {"decode": copied["decode"] | {"bottleneck": bottleneck}}


def _of_inputs(layer: Params, inputs: Any) -> Params:
    """A `ConvolutionNorm` of some of its input channels."""
    return layer | {"convolution": {"kernel": layer["convolution"]["kernel"][:, :, inputs]}}


def _size(x: Array) -> Size:
    """Height and width of a map (B, H, W, C)."""
    return x.shape[1], x.shape[2]
