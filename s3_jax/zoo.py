"""Published models by name: S3 and Swin, points of one family, and the plain transformers of the paper's Table 1."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

from flax import nnx

from s3_jax.cost import Cost, cost
from s3_jax.errors import S3Error
from s3_jax.isotropic import IsotropicArchitecture, isotropic_cost
from s3_jax.models import S3Transformer
from s3_jax.models.isotropic import IsotropicTransformer
from s3_jax.models.layers import Linear
from s3_jax.space import Architecture, Block, Stage, map_sizes
from s3_jax.weights.convert import load_weights, official_to_timm
from s3_jax.weights.files import StateDict, read_state_dict
from s3_jax.weights.hub import fetch

Network = S3Transformer | IsotropicTransformer
KERNEL_STD = 0.02  # of random weights


class Model(NamedTuple):
    """A published model: its architecture, the image size it is made for and its patches, in pixels."""

    architecture: Architecture | IsotropicArchitecture
    image_size: int
    patch_size: int


def _windowed(
    widths: tuple[int, ...], depths: tuple[int, ...], windows: tuple[int, ...], image_size: int = 224
) -> Model:
    stages = zip(widths, depths, windows, strict=True)
    blocks = (Stage(width, (Block(window, 4.0, width),) * depth) for width, depth, window in stages)
    return Model(Architecture(tuple(blocks)), image_size, 4)


def _isotropic(width: int, heads: int) -> Model:
    return Model(IsotropicArchitecture(width, 12, heads), 224, 16)


_WIDTHS = (96, 192, 384, 768)
# S3 as released; Swin: Liu et al. 2021, Sec. 3.3; ViT and DeiT: their Tables 1. At 384 px the paper does not say which
# windows it fine-tunes with: here they cover the same part of the map as at 224, 12 for 7 and 24 for 14, as Swin's do.
MODELS: dict[str, Model] = {
    "s3_t": _windowed(_WIDTHS, (2, 2, 6, 2), (7, 7, 14, 7)),
    "s3_s": _windowed(_WIDTHS, (2, 2, 18, 2), (14, 14, 14, 7)),
    "s3_b": _windowed(_WIDTHS, (2, 2, 30, 2), (7, 7, 14, 7)),
    "s3_s_384": _windowed(_WIDTHS, (2, 2, 18, 2), (24, 24, 24, 12), 384),
    "s3_b_384": _windowed(_WIDTHS, (2, 2, 30, 2), (12, 12, 24, 12), 384),
    "swin_t": _windowed(_WIDTHS, (2, 2, 6, 2), (7, 7, 7, 7)),
    "swin_s": _windowed(_WIDTHS, (2, 2, 18, 2), (7, 7, 7, 7)),
    "swin_b": _windowed((128, 256, 512, 1024), (2, 2, 18, 2), (7, 7, 7, 7)),
    "deit_s": _isotropic(384, 6),
    "deit_b": _isotropic(768, 12),
    "vit_s16": _isotropic(384, 6),
    "vit_b16": _isotropic(768, 12),
}


def names() -> tuple[str, ...]:
    """The names of the published models."""
    return tuple(MODELS)


def model(name: str) -> Model:
    """A published model. Raises S3Error for a name that is none, with those that are."""
    if name not in MODELS:
        raise S3Error(f"no published model is called {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]


def architecture(name: str) -> Architecture:
    """The architecture of a published model of the S3 family. Raises S3Error for other names."""
    found = model(name).architecture
    if not isinstance(found, Architecture):
        family = ", ".join(key for key, each in MODELS.items() if isinstance(each.architecture, Architecture))
        raise S3Error(f"{name} is a plain transformer, which has no stages and windows; those that have: {family}")
    return found


def create(
    name: str,
    *,
    image_size: int | None = None,
    num_classes: int = 1000,
    dtype: str = "float32",
    rngs: nnx.Rngs | None = None,
) -> Network:
    """A published model with random weights, for images of `image_size` pixels (None: those it is made for).

    Raises S3Error for an unknown name, or a size that its patches do not tile.
    """
    found = model(name)
    return build(
        found.architecture, image_size or found.image_size, found.patch_size, num_classes, dtype=dtype, rngs=rngs
    )


def build(
    architecture: Architecture | IsotropicArchitecture,
    image_size: int,
    patch_size: int,
    num_classes: int,
    *,
    dtype: str = "float32",
    rngs: nnx.Rngs | None = None,
) -> Network:
    """The network of an architecture of either kind, with random weights (seed 0 where `rngs` is not given)."""
    settings: dict[str, Any] = {"image_size": image_size, "patch_size": patch_size, "num_classes": num_classes}
    settings |= {"dtype": dtype, "rngs": rngs or nnx.Rngs(0)}
    if isinstance(architecture, IsotropicArchitecture):
        return IsotropicTransformer(architecture, **settings)
    return S3Transformer(architecture, **settings)


def pretrained(
    name: str,
    weights: str,
    *,
    image_size: int | None = None,
    num_classes: int = 1000,
    dtype: str = "float32",
    resize: bool = False,
    reset_head: bool = False,
    rngs: nnx.Rngs | None = None,
) -> Network:
    """A published model with the weights of a file (timm's or the official release's), or of `hf-hub:owner/name`.

    resize, reset_head: as `weights.convert.load_weights` has them. Raises S3Error where the weights are not this
    model's, and names the model they look like.
    """
    # No random weights are made for those that are read, which would take longer than reading.
    network = nnx.eval_shape(partial(create, name, image_size=image_size, num_classes=num_classes, dtype=dtype))
    tensors = read_state_dict(fetch(weights))
    try:
        load_weights(network, tensors, resize=resize, reset_head=reset_head)
    except S3Error as error:
        raise S3Error(f"{weights} does not fit {name}: {error}{_likeness(tensors, name)}") from error
    if reset_head:
        network.head = Linear(network.head.kernel.shape, std=KERNEL_STD, rngs=rngs or nnx.Rngs(0))
    return network


def _likeness(tensors: StateDict, but: str) -> str:
    """Which published model the tensors are of, as their names and shapes tell, if it is another than `but`."""
    found = official_to_timm(tensors)
    like = [name for name, each in MODELS.items() if _outline(each) == _outline_of(found)]
    return f". It looks like {like[0]}" if like and but not in like else ""


def _outline(found: Model) -> tuple[Any, ...]:
    """Width, blocks and window of every stage; of a plain transformer width and blocks."""
    if isinstance(found.architecture, IsotropicArchitecture):
        return ((found.architecture.embed_dim, found.architecture.depth, None),)
    stages = found.architecture.stages
    clamped = found.architecture.clamped(map_sizes(found.image_size, found.patch_size, len(stages)))
    return tuple((stage.embed_dim, stage.depth, stage.blocks[0].window) for stage in clamped.stages)


def _outline_of(tensors: StateDict) -> tuple[Any, ...]:
    """The same, read from a state dict under timm's names."""
    widths = {
        name.removesuffix("blocks.0.norm1.weight"): tensor.size
        for name, tensor in tensors.items()
        if name.endswith("blocks.0.norm1.weight")
    }
    stages = []
    for prefix, width in sorted(widths.items()):
        depth = len(
            {name.removeprefix(prefix).split(".")[1] for name in tensors if name.startswith(f"{prefix}blocks.")}
        )
        table = tensors.get(f"{prefix}blocks.0.attn.relative_position_bias_table")
        stages.append((width, depth, None if table is None else (math.isqrt(len(table)) + 1) // 2))
    return tuple(stages)


def cost_of(name: str, *, image_size: int | None = None, num_classes: int = 1000) -> Cost:
    """Parameters and MACs of a published model on one image. Raises S3Error as `create` does."""
    found = model(name)
    sizes = {
        "image_size": image_size or found.image_size,
        "patch_size": found.patch_size,
        "num_classes": num_classes,
    }
    if isinstance(found.architecture, IsotropicArchitecture):
        return isotropic_cost(found.architecture, **sizes)
    return cost(found.architecture, **sizes)
