"""The four-stage window transformer: a stand-alone network of an architecture, or the supernet of a space.

Both are `S3Transformer` and both compute their blocks with the same pure functions. A network's blocks may differ in
shape, so they are a list and are unrolled. A supernet's are alike, so their weights are stacked on a leading depth axis
and scanned, or on a CPU unrolled; a `SubnetMask`, an argument like any other, says which run, how wide, and in which
windows.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from s3_jax.errors import S3Error
from s3_jax.models.attention import Windows, window_attention, windows_of_block
from s3_jax.models.block import residual_block
from s3_jax.models.heads import OverHeads, execution_on
from s3_jax.models.layers import (
    ActiveCount,
    Attention,
    LayerNorm,
    Linear,
    Mlp,
    active_mask,
    layer_norm,
    linear,
    masked,
    mlp,
    pad_to_multiple,
    patch_embed,
    product,
)
from s3_jax.models.subnet import SubnetMask, drop_path_rates, subnet_mask
from s3_jax.models.supernet import run_subnet_stage
from s3_jax.space import Architecture, Block, SearchSpace, hidden_dim, largest, map_sizes


class TransformerBlock(nnx.Module):
    """Weights of a pre-norm transformer block; the supernet's have a leading depth axis."""

    def __init__(self, dim: int, choice: Block, *, std: float, rngs: nnx.Rngs) -> None:
        self.norm1 = LayerNorm((dim,))
        self.attention = Attention(dim, choice.heads, choice.window, std=std, rngs=rngs)
        self.norm2 = LayerNorm((dim,))
        self.mlp = Mlp(dim, hidden_dim(dim, choice.mlp_ratio), std=std, rngs=rngs)


class BlockInput(NamedTuple):
    """A block of a network and what goes into it: where it is, its weights, its map (B, H, W, C) and its windows."""

    stage: int  # from 0
    place: int  # in its stage, from 0
    block: TransformerBlock
    x: Array
    windows: Windows


class TransformerStage(nnx.Module):
    """Weights of the blocks of one stage: a list, or in a supernet one stacked block."""

    def __init__(self, blocks: list[TransformerBlock], *, stacked: bool) -> None:
        self.blocks: Any = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks) if stacked else nnx.List(blocks)


class PatchMerging(nnx.Module):
    """Weights that turn the four tokens of a 2x2 patch (4, C_in) into one (C_out)."""

    def __init__(self, dim: int, out: int, *, std: float, rngs: nnx.Rngs) -> None:
        self.norm = LayerNorm((4, dim))
        self.reduction = Linear((4, dim, out), inputs=2, bias=False, std=std, rngs=rngs)


class S3Transformer(nnx.Module):
    """A window transformer for images, built at an `Architecture`, or at a `SearchSpace` whose supernet it then is.

    Windows never exceed the map of their stage at `image_size`. No parameter depends on the size of the input.
    num_classes: of the classifier and its norm; 0: there is none, for `features` alone.
    dtype: of the computation; parameters, softmax and norm statistics are float32. kernel_std: deviation of the initial
    weights (0: 1 / sqrt(fan-in)). remat: recompute a network's blocks in the backward pass (no supernet needs it).
    every_width: compile a supernet's blocks for every embed_dim of the space, not only for the largest with masks.
    output_norms: a norm on each of the maps of `features`. batch_axis: the mesh axis over which the images are split,
    where the network is called within `jax.shard_map`. platform: of the devices it runs on, as JAX calls it, to which
    the order of the computation is suited (None: those of this process). Raises S3Error where patches do not tile the
    image.
    """

    def __init__(
        self,
        structure: Architecture | SearchSpace,
        *,
        image_size: int = 224,
        patch_size: int = 4,
        num_classes: int = 1000,
        channels: int = 3,
        dtype: str = "float32",
        kernel_std: float = 0.02,
        remat: bool = False,
        every_width: bool = False,
        output_norms: bool = False,
        batch_axis: str | None = None,
        platform: str | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        sides = map_sizes(image_size, patch_size, len(structure.stages))
        clamped = structure.clamped(sides)
        self.space = clamped if isinstance(clamped, SearchSpace) else None
        self.architecture = largest(clamped) if isinstance(clamped, SearchSpace) else clamped
        self.dtype, self.remat, self.every_width, self.batch_axis = dtype, remat, every_width, batch_axis
        self.execution = execution_on(platform or jax.default_backend())
        dims = [stage.embed_dim for stage in self.architecture.stages]
        self.patch = Linear((patch_size, patch_size, channels, dims[0]), inputs=3, std=kernel_std, rngs=rngs)
        self.patch_norm = LayerNorm((dims[0],))
        stages = []
        for dim, stage in zip(dims, self.architecture.stages, strict=True):
            blocks = [TransformerBlock(dim, choice, std=kernel_std, rngs=rngs) for choice in stage.blocks]
            stages.append(TransformerStage(blocks, stacked=self.space is not None))
        self.stages = nnx.List(stages)
        self.merges = nnx.List([PatchMerging(dim, out, std=kernel_std, rngs=rngs) for dim, out in pairwise(dims)])
        if num_classes:
            self.norm = LayerNorm((dims[-1],))
            self.head = Linear((dims[-1], num_classes), std=kernel_std, rngs=rngs)
        if output_norms:
            self.output_norms = nnx.List([LayerNorm((dim,)) for dim in dims])

    def mask(self, architecture: Architecture) -> SubnetMask:
        """The mask that makes this supernet compute `architecture`. Raises S3Error where it is not in the space."""
        if self.space is None:
            raise S3Error("this network was built at an architecture: only a supernet, built at a space, has subnets")
        return subnet_mask(self.space, architecture)

    def __call__(
        self, x: Array, subnet: SubnetMask | None = None, *, max_drop_path: float = 0.0, key: Array | None = None
    ) -> Array:
        """Class logits (B, classes), float32, of images (B, H, W, channels); `subnet` picks the subnet of a supernet.

        Stochastic depth is on where `key` is given, rising from 0 at the first block to `max_drop_path` at the last.
        """
        subnet = self._subnet(subnet)
        maps = self._maps(x, subnet, dense=False, max_drop_path=max_drop_path, key=key)
        last = layer_norm(self.norm, maps[-1], subnet.stages[-1].embed_dim if subnet else None)
        return linear(self.head, last.mean((1, 2)).astype(jnp.float32))

    def features(
        self,
        x: Array,
        subnet: SubnetMask | None = None,
        *,
        dense: bool = True,
        max_drop_path: float = 0.0,
        key: Array | None = None,
    ) -> list[Array]:
        """The stages' maps (B, H / s, W / s, C) at strides s = 4, 8, 16, 32 for patch size 4, any H and W.

        dense: windows stay as they are at the training resolution, smaller maps are padded to them (as Swin's detection
        code does); otherwise a window never exceeds the map.
        """
        subnet = self._subnet(subnet)
        maps = self._maps(x, subnet, dense=dense, max_drop_path=max_drop_path, key=key)
        if not hasattr(self, "output_norms"):
            return maps
        counts = [stage.embed_dim if subnet else None for stage in (subnet.stages if subnet else maps)]  # type: ignore[union-attr]
        return [layer_norm(norm, x, count) for norm, x, count in zip(self.output_norms, maps, counts, strict=True)]

    def block_inputs(self, x: Array, *, dense: bool = False) -> list[BlockInput]:
        """What goes into each block of a network, from the first to the last, for images (B, H, W, channels).

        dense: as for `features`. Raises S3Error for a supernet, whose blocks are not computed one by one.
        """
        if self.space is not None:
            raise S3Error("a supernet's blocks cannot be looked at: build a network at one of its architectures")
        seen: list[BlockInput] = []
        self._maps(x, None, dense=dense, max_drop_path=0.0, key=None, seen=seen)
        return seen

    def _subnet(self, subnet: SubnetMask | None) -> SubnetMask | None:
        if self.space is None and subnet is not None:
            raise S3Error("this network was built at an architecture and takes no subnet; build it at a space")
        return self.mask(self.architecture) if self.space is not None and subnet is None else subnet

    def _maps(
        self,
        x: Array,
        subnet: SubnetMask | None,
        *,
        dense: bool,
        max_drop_path: float,
        key: Array | None,
        seen: list[BlockInput] | None = None,
    ) -> list[Array]:
        count = subnet.stages[0].embed_dim if subnet else None
        x = patch_embed(self.patch, x.astype(self.dtype))
        mask = active_mask(x.shape[-1], count, x.dtype)
        x = layer_norm(self.patch_norm, masked(x, mask), count)
        rates = self._rates(subnet, max_drop_path)
        maps = []
        for i, stage in enumerate(self.stages):
            stage_key = None if key is None else jax.random.fold_in(key, i)
            x = self._run_stage(i, stage, x, subnet, rates[i], stage_key, dense, seen)
            maps.append(x)
            if i < len(self.merges):
                counts = (subnet.stages[i].embed_dim, subnet.stages[i + 1].embed_dim) if subnet else (None, None)
                x = patch_merging(self.merges[i], x, *counts)
        return maps

    def _rates(self, subnet: SubnetMask | None, max_rate: float) -> list[Array]:
        if subnet is not None:
            return drop_path_rates(subnet, max_rate)
        depths = [stage.depth for stage in self.architecture.stages]
        rates = jnp.linspace(0.0, max_rate, sum(depths))
        return jnp.split(rates, np.cumsum(depths)[:-1].tolist())

    def _run_stage(
        self,
        i: int,
        stage: TransformerStage,
        x: Array,
        subnet: SubnetMask | None,
        rates: Array,
        key: Array | None,
        dense: bool,
        seen: list[BlockInput] | None,
    ) -> Array:
        limit = None if dense else min(x.shape[1:3])
        if self.space is not None and subnet is not None:
            space, mask = self.space.stages[i], subnet.stages[i]
            run = partial(run_subnet_stage, limit=limit, every_width=self.every_width, batch_axis=self.batch_axis)
            return run(stage.blocks, x, mask, space, rates, key, execution=self.execution)
        for j, (block, choice) in enumerate(zip(stage.blocks, self.architecture.stages[i].blocks, strict=True)):
            windows = windows_of_block(choice.window, x.shape[1], x.shape[2], j, limit)
            if seen is not None:
                seen.append(BlockInput(i, j, block, x, windows))
            over_heads = self.execution.over_heads
            step = partial(run_block, windows=windows, over_heads=over_heads, batch_axis=self.batch_axis)
            block_key = None if key is None else jax.random.fold_in(key, j)
            x = (jax.checkpoint(step) if self.remat else step)(block, x, rate=rates[j], key=block_key)
        return x


def run_block(
    block: TransformerBlock,
    x: Array,
    *,
    windows: Windows,
    over_heads: OverHeads,
    rate: Array,
    key: Array | None,
    batch_axis: str | None = None,
) -> Array:
    """A network's block, (B, H, W, C) to the same, with all of its weights."""
    return residual_block(
        lambda x: window_attention(block.attention, layer_norm(block.norm1, x), windows, over_heads),
        lambda x: mlp(block.mlp, layer_norm(block.norm2, x)),
        x,
        rate,
        key,
        batch_axis,
    )


def patch_merging(merge: PatchMerging, x: Array, inputs: ActiveCount = None, outputs: ActiveCount = None) -> Array:
    """2x2 patches (B, H, W, C_in) to tokens (B, ceil(H / 2), ceil(W / 2), C_out): concatenate, norm, project."""
    x = pad_to_multiple(x, (2, 2))
    quarters = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    normed = layer_norm(merge.norm, jnp.stack(quarters, axis=-2), inputs)
    kernel = merge.reduction.kernel[...]
    out = product(normed.reshape(*normed.shape[:3], -1), kernel.reshape(-1, kernel.shape[-1]))
    return masked(out, active_mask(out.shape[-1], outputs, x.dtype))
