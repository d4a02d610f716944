"""The attention weights that a network computes for an image, block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from s3_jax.analysis.keys import Keys, window_keys
from s3_jax.classification.inference import read_image
from s3_jax.errors import S3Error
from s3_jax.models.attention import Windows, attention_weights
from s3_jax.models.layers import layer_norm
from s3_jax.models.transformer import BlockInput, S3Transformer
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.standalone import Standalone
from s3_jax.paths import AnyPath


@dataclasses.dataclass(frozen=True, eq=False)
class BlockAttention:
    """What one block attends to in one image."""

    name: str  # stage and block, from 1: "3.4"
    stride: int  # pixels of the input per token
    windows: Windows
    weights: np.ndarray  # (H, W, heads, side^2), see `attention_weights`

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the block's map, in tokens."""
        return self.weights.shape[0], self.weights.shape[1]

    @property
    def keys(self) -> Keys:
        """The keys that the weights are of."""
        return window_keys(self.size, self.windows)


# Of an image (S, S, 3), normalised, what each block attends to, from the first to the last.
Looking = Callable[[np.ndarray], list[BlockAttention]]


def attention_of(model: Standalone) -> Looking:
    """The function that tells what the blocks of a network attend to in an image, compiled for each size of images.

    Of a segmentation network it is the backbone's attention, with windows as for images of any size. Raises S3Error for
    plain transformers, and where weights are not finite.
    """
    backbone = _transformer(model)
    definition, state = nnx.split(backbone)
    dense = backbone is not model.network

    @jax.jit
    def run(state: Any, images: jax.Array) -> list[Any]:
        """Stage, place in it, windows and weights of each block."""
        seen = nnx.merge(definition, state).block_inputs(images, dense=dense)
        return [(each.stage, each.place, each.windows, weights_of(each)[0]) for each in seen]

    def look(image: np.ndarray) -> list[BlockAttention]:
        """The same of one image (S, S, 3)."""
        found: Any = jax.device_get(run(state, image[None]))
        return [_block(stage, place, each, weights, model.spec.patch_size) for stage, place, each, weights in found]

    return look


def weights_of(given: BlockInput) -> jax.Array:
    """The attention weights of a block, from what goes into it: (B, H, W, heads, side^2)."""
    return attention_weights(given.block.attention, layer_norm(given.block.norm1, given.x), given.windows)


def _transformer(model: Standalone) -> S3Transformer:
    network = getattr(model.network, "backbone", model.network)
    if not isinstance(network, S3Transformer):
        raise S3Error("a plain transformer has neither stages nor windows: give an S3, a Swin or a run's network")
    return network


def _block(stage: Any, place: Any, windows: Windows, weights: np.ndarray, patch_size: int) -> BlockAttention:
    """A block's attention; a compiled program gives whole numbers back as arrays."""
    name, (rows, columns) = f"{int(stage) + 1}.{int(place) + 1}", windows.shift
    if not np.isfinite(weights).all():
        raise S3Error(f"attention weights of block {name} are not finite: the network's weights are damaged")
    plain = Windows(int(windows.side), (int(rows), int(columns)))
    return BlockAttention(name, patch_size * 2 ** int(stage), plain, weights)


def block_names(model: Standalone) -> list[str]:
    """The blocks of a network, stage and block from 1. Raises S3Error for plain transformers."""
    stages = _transformer(model).architecture.stages
    return [f"{i}.{j}" for i, stage in enumerate(stages, 1) for j in range(1, stage.depth + 1)]


def chosen_blocks(text: Sequence[str], names: Sequence[str]) -> list[str]:
    """The blocks that a list names, in the network's order; an empty one: the first and the last of each stage.

    Raises S3Error for a block that is none, with those that are.
    """
    ends: dict[str, list[str]] = {}
    for name in names:
        ends.setdefault(name.partition(".")[0], []).append(name)
    wanted = [each.strip() for each in text] or [block for stage in ends.values() for block in (stage[0], stage[-1])]
    unknown = [each for each in wanted if each not in names]
    if unknown:
        there = ", ".join(" to ".join(dict.fromkeys((stage[0], stage[-1]))) for stage in ends.values())
        raise S3Error(f"the network has no block {unknown[0]!r}; it has {there} (stage.block)")
    return [name for name in names if name in wanted]


def read_input(path: AnyPath, model: Standalone) -> tuple[np.ndarray, np.ndarray]:
    """An image as a network takes it: normalised float32 (S, S, 3), and its pixels uint8 (S, S, 3).

    Segmentation networks, which take images of any size, are given a square of the size they were trained at. Raises
    S3Error where the file is no image.
    """
    spec = model.spec
    if not isinstance(spec, ClassifierSpec):
        spec = ClassifierSpec(spec.architecture, spec.image_size, mean=spec.mean, std=spec.std, eval_crop=1.0)
    image = read_image(path, spec)
    pixels = 255 * (image * np.asarray(spec.std) + np.asarray(spec.mean))
    return image, np.rint(pixels).clip(0, 255).astype(np.uint8)
