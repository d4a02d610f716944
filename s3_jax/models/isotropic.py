"""The plain vision transformer (ViT, DeiT): one width, one resolution, a class token, absolute position embeddings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from s3_jax.cost import Cost
from s3_jax.errors import S3Error
from s3_jax.models.block import residual_block
from s3_jax.models.layers import LayerNorm, Linear, Mlp, layer_norm, linear, mlp, patch_embed, product
from s3_jax.models.layers import truncated_normal as draw

EPSILON = 1e-6  # of its layer norms
MLP_RATIO = 4


@dataclasses.dataclass(frozen=True)
class IsotropicArchitecture:
    """One width, a number of blocks and of heads; the MLP has four times the width (ViT, Table 1; DeiT, Table 1).

    Raises S3Error where the heads do not divide the width.
    """

    embed_dim: int
    depth: int
    heads: int

    def __post_init__(self) -> None:
        if min(self.embed_dim, self.depth, self.heads) < 1 or self.embed_dim % self.heads:
            raise S3Error(
                f"a width of {self.embed_dim} cannot be divided among {self.heads} heads ({self.depth} blocks)"
            )

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain numbers."""
        return {"isotropic": dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> IsotropicArchitecture:
        """The architecture of a record that `to_json` made. Raises S3Error where the record is not one."""
        try:
            return cls(**{name: int(value) for name, value in record["isotropic"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise S3Error(
                f"not a record of a plain transformer: {error!r}; expected isotropic with embed_dim, depth and heads"
            ) from error


def isotropic_cost(
    architecture: IsotropicArchitecture, *, image_size: int, patch_size: int, num_classes: int, in_channels: int = 3
) -> Cost:
    """Exact cost on one image (image_size, image_size, in_channels); sizes in pixels. Counted as `cost.cost` does.

    Raises S3Error where the patches do not tile the image.
    """
    if image_size % patch_size:
        raise S3Error(f"images of {image_size} pixels cannot be cut into patches of {patch_size}")
    width, patches = architecture.embed_dim, (image_size // patch_size) ** 2
    tokens, inputs, hidden = 1 + patches, patch_size**2 * in_channels, MLP_RATIO * width
    products = 4 * width * width + 2 * width * hidden  # weights of a block's linear layers
    block = Cost(
        products + 3 * width + width + hidden + width + 4 * width,  # their biases, two norms
        tokens * products + 2 * tokens * tokens * width,
    )
    embedding = inputs * width + width + width + tokens * width  # patches, the class token, positions
    head = width * num_classes
    return Cost(
        embedding + architecture.depth * block.params + 2 * width + head + num_classes,
        patches * inputs * width + architecture.depth * block.macs + head,
    )


class IsotropicAttention(nnx.Module):
    """Weights of attention between all tokens: qkv (C, 3, heads, D), proj (heads, D, C)."""

    def __init__(self, dim: int, heads: int, *, std: float, rngs: nnx.Rngs) -> None:
        self.qkv = Linear((dim, 3, heads, dim // heads), std=std, rngs=rngs)
        self.proj = Linear((heads, dim // heads, dim), inputs=2, std=std, rngs=rngs)


class IsotropicBlock(nnx.Module):
    """Weights of a pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, *, std: float, rngs: nnx.Rngs) -> None:
        self.norm1 = LayerNorm((dim,))
        self.attention = IsotropicAttention(dim, heads, std=std, rngs=rngs)
        self.norm2 = LayerNorm((dim,))
        self.mlp = Mlp(dim, MLP_RATIO * dim, std=std, rngs=rngs)


class IsotropicTransformer(nnx.Module):
    """A plain vision transformer for images of one size.

    dtype: of the computation; parameters, softmax and norm statistics are float32. remat: recompute blocks in the
    backward pass. batch_axis: as for `S3Transformer`. Raises S3Error where patches do not tile the image.
    """

    def __init__(
        self,
        architecture: IsotropicArchitecture,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        num_classes: int = 1000,
        channels: int = 3,
        dtype: str = "float32",
        kernel_std: float = 0.02,
        remat: bool = False,
        batch_axis: str | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        if image_size % patch_size:
            raise S3Error(f"images of {image_size} pixels cannot be cut into patches of {patch_size}")
        self.architecture, self.image_size, self.dtype = architecture, image_size, dtype
        self.remat, self.batch_axis = remat, batch_axis
        dim, tokens = architecture.embed_dim, (image_size // patch_size) ** 2
        self.patch = Linear((patch_size, patch_size, channels, dim), inputs=3, std=kernel_std, rngs=rngs)
        self.class_token = nnx.Param(draw(rngs.params(), (dim,), 1, 0.02))
        self.position = nnx.Param(draw(rngs.params(), (1 + tokens, dim), 1, 0.02))
        make = partial(IsotropicBlock, dim, architecture.heads, std=kernel_std, rngs=rngs)
        self.blocks = nnx.List([make() for _ in range(architecture.depth)])
        self.norm = LayerNorm((dim,))
        self.head = Linear((dim, num_classes), std=kernel_std, rngs=rngs)

    def __call__(self, x: Array, subnet: None = None, *, max_drop_path: float = 0.0, key: Array | None = None) -> Array:
        """Class logits (B, classes), float32, of images (B, H, W, channels), whose size is `image_size`.

        It has no subnets: the argument is there for those who call networks of either kind. Stochastic depth is on
        where `key` is given, rising from 0 at the first block to `max_drop_path` at the last.
        """
        token = layer_norm(self.norm, self.tokens(x, max_drop_path=max_drop_path, key=key)[:, 0], epsilon=EPSILON)
        return linear(self.head, token.astype(jnp.float32))

    def tokens(self, x: Array, *, max_drop_path: float = 0.0, key: Array | None = None) -> Array:
        """What the last block makes of the class token and the patches: (B, 1 + N, C), before the norm."""
        if x.shape[1:3] != (self.image_size, self.image_size):
            raise S3Error(f"this network takes images of {self.image_size} pixels, not of {x.shape[1]} x {x.shape[2]}")
        patches = patch_embed(self.patch, x.astype(self.dtype))
        patches = patches.reshape(x.shape[0], -1, patches.shape[-1])
        first = jnp.broadcast_to(self.class_token[...].astype(patches.dtype), (x.shape[0], 1, patches.shape[-1]))
        x = jnp.concatenate([first, patches], axis=1) + self.position[...].astype(patches.dtype)
        rates = jnp.linspace(0.0, max_drop_path, len(self.blocks))
        run = partial(run_block, batch_axis=self.batch_axis)
        step = jax.checkpoint(run) if self.remat else run
        for j, block in enumerate(self.blocks):
            x = step(block, x, rates[j], None if key is None else jax.random.fold_in(key, j))
        return x


def run_block(
    block: IsotropicBlock, x: Array, rate: Array, key: Array | None, *, batch_axis: str | None = None
) -> Array:
    """A block of a plain transformer, (B, N, C) to the same."""
    return residual_block(
        lambda x: attention(block.attention, layer_norm(block.norm1, x, epsilon=EPSILON)),
        lambda x: mlp(block.mlp, layer_norm(block.norm2, x, epsilon=EPSILON)),
        x,
        rate,
        key,
        batch_axis,
    )


def attention(weights: IsotropicAttention, x: Array) -> Array:
    """Multi-head self-attention between all tokens: (B, N, C) to (B, N, C)."""
    kernel = weights.qkv.kernel[...]
    qkv = product(x, kernel.reshape(kernel.shape[0], -1)).reshape(*x.shape[:2], *kernel.shape[1:])
    qkv = qkv + weights.qkv.bias[...].astype(qkv.dtype)
    query, key, value = (qkv[:, :, i].swapaxes(1, 2) for i in range(3))  # (B, heads, N, D)
    scale = 1.0 / math.sqrt(query.shape[-1])
    logits = jnp.einsum("bhnd,bhmd->bhnm", query * scale, key).astype(jnp.float32)
    attended = jnp.einsum("bhnm,bhmd->bhnd", jax.nn.softmax(logits).astype(value.dtype), value)
    merged = attended.swapaxes(1, 2).reshape(x.shape)
    proj = weights.proj.kernel[...]
    return product(merged, proj.reshape(-1, proj.shape[-1])) + weights.proj.bias[...].astype(x.dtype)
