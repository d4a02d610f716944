"""Published models by name: S3 and Swin, points of one family, and the plain transformers of the paper's Table 1."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

from flax import nnx

from s3_jax.cost import Cost
from s3_jax.errors import S3Error
from s3_jax.models.families import AnyNetwork, family_of
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.models.layers import Linear
from s3_jax.networks import standalone
from s3_jax.networks.classes import is_numbered
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.convert import load_weights, to_timm
from s3_jax.networks.files import StateDict, read_state_dict
from s3_jax.networks.hub import fetch
from s3_jax.networks.standalone import Standalone
from s3_jax.paths import AnyPath, read_text, read_user_json, user_path
from s3_jax.space import Architecture, Block, Stage, map_sizes

KERNEL_STD = 0.02  # of random weights


def _windowed(
    widths: tuple[int, ...], depths: tuple[int, ...], windows: tuple[int, ...], image_size: int = 224
) -> ClassifierSpec:
    stages = zip(widths, depths, windows, strict=True)
    blocks = (Stage(width, (Block(window, 4.0, width),) * depth) for width, depth, window in stages)
    return ClassifierSpec(Architecture(tuple(blocks)), image_size, eval_crop=0.9 if image_size == 224 else 1.0)


def _isotropic(width: int, heads: int, **preprocessing: Any) -> ClassifierSpec:
    return ClassifierSpec(IsotropicArchitecture(width, 12, heads), patch_size=16, **preprocessing)


_WIDTHS = (96, 192, 384, 768)
_HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # of the ViTs' weights; all others have ImageNet's
# S3 as released; Swin: Liu et al. 2021, Sec. 3.3; ViT and DeiT: their Tables 1; preprocessing as timm has it. At 384 px
# the paper does not say which windows it fine-tunes with: here they cover the same part of the map as at 224, as
# Swin's do, 12 for 7 and 24 for 14, and the multiply-adds are then those of the paper's Table 1 (33 and 46 G).
MODELS: dict[str, ClassifierSpec] = {
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
    "vit_s16": _isotropic(384, 6, **_HALVES),
    "vit_b16": _isotropic(768, 12, **_HALVES),
}


def names() -> tuple[str, ...]:
    """The names of the published models."""
    return tuple(MODELS)


def with_stages() -> tuple[str, ...]:
    """The names of those that have stages and windows, as the networks of search spaces have."""
    return tuple(name for name, each in MODELS.items() if family_of(each.architecture).has_stages)


def spec(name: str, *, image_size: int | None = None, num_classes: int = 1000) -> ClassifierSpec:
    """What a published model is, for images of `image_size` pixels (None: those it is made for).

    Raises S3Error for a name that is none, with those that are.
    """
    if name not in MODELS:
        raise S3Error(f"no published model is called {name!r}; there are {', '.join(MODELS)}")
    classes = tuple(str(index) for index in range(num_classes))
    found = MODELS[name]
    return dataclasses.replace(found, image_size=image_size or found.image_size, class_names=classes)


def architecture(name: str) -> Architecture:
    """The architecture of a published model of the S3 family. Raises S3Error for other names."""
    found = spec(name).architecture
    if not isinstance(found, Architecture):
        others = ", ".join(with_stages())
        raise S3Error(f"{name} is a plain transformer, which has no stages and windows; those that have: {others}")
    return found


def read_architecture(text: str) -> Architecture:
    """A published architecture by name, or that of a JSON file, by itself or in a record like search/best.json.

    Raises S3Error where it is neither.
    """
    path = user_path(text)
    if path.is_dir():
        raise S3Error(f"{path} is no JSON file: it is a folder")
    if not path.exists() and (path.suffix or len(path.parts) > 1):
        raise S3Error(f"there is no file {path}")
    if not path.exists():
        return architecture(text)
    record = read_user_json(path)
    return Architecture.from_json(record.get("architecture", record) if isinstance(record, dict) else record)


def cost_of(name: str, *, image_size: int | None = None, num_classes: int = 1000) -> Cost:
    """Parameters and MACs of a published model on one image. Raises S3Error as `create` does."""
    return spec(name, image_size=image_size, num_classes=num_classes).cost


def create(
    name: str,
    *,
    image_size: int | None = None,
    num_classes: int = 1000,
    dtype: str = "float32",
    rngs: nnx.Rngs | None = None,
) -> AnyNetwork:
    """A published model with random weights (seed 0 where `rngs` is not given), for images of `image_size` pixels.

    Raises S3Error for an unknown name, or a size that its patches do not tile.
    """
    return spec(name, image_size=image_size, num_classes=num_classes).build(dtype=dtype, rngs=rngs)


def load(path: str | AnyPath, *, dtype: str = "float32") -> Standalone:
    """The network of a folder that `extract_subnet.py` or `finetune.py` wrote. Raises S3Error where it is none."""
    return standalone.load(user_path(path), dtype=dtype)


def pretrained(
    name: str,
    weights: str,
    *,
    image_size: int | None = None,
    num_classes: int | None = None,
    dtype: str = "float32",
    resize: bool = False,
    reset_head: bool = False,
    rngs: nnx.Rngs | None = None,
) -> Standalone:
    """A published model with the weights of a file (timm's or the official release's), or of `hf-hub:owner/name`.

    num_classes: of the classifier, None for as many as the weights have. resize, reset_head: as
    `networks.convert.load_weights` has them. Raises S3Error where the weights are not this model's, and names the model
    they look like.
    """
    tensors = _tensors(weights)
    found = spec(name, image_size=image_size, num_classes=num_classes or _num_classes(tensors) or 1000)
    return _with_weights(name, found, weights, tensors, dtype=dtype, resize=resize, reset_head=reset_head, rngs=rngs)


def _with_weights(
    name: str,
    found: ClassifierSpec,
    weights: str,
    tensors: StateDict,
    *,
    dtype: str = "float32",
    resize: bool = False,
    reset_head: bool = False,
    rngs: nnx.Rngs | None = None,
) -> Standalone:
    # No random weights are made for those that are read, which would take longer than reading.
    network = nnx.eval_shape(partial(found.build, dtype=dtype))
    try:
        load_weights(network, tensors, resize=resize, reset_head=reset_head)
    except S3Error as error:
        raise S3Error(f"{weights} does not fit {name}: {error}{_likeness(tensors, name)}") from error
    if reset_head:
        network.head = Linear(network.head.kernel.shape, std=KERNEL_STD, rngs=rngs or nnx.Rngs(0))
    return Standalone(network, found)


def open_model(model: str, weights: str = "", class_names: str = "", *, new_head: bool = False) -> Standalone:
    """A published model by name with weights of a file or the hub, or the network of a folder.

    class_names: a file with the name of a class in each line, for networks that know theirs by number alone. new_head:
    weights without a classifier get a random one, instead of being refused. Raises S3Error where there is neither
    model nor folder, the weights are not given, or the names are not as many as the classes.
    """
    if model in MODELS:
        opened = _published(model, weights, new_head)
    elif not user_path(model).is_dir():
        raise S3Error(
            f"{model} is neither the folder of a network nor a published model; those are {', '.join(MODELS)}"
        )
    elif weights:
        raise S3Error(f"{model} is the folder of a network, which has its own weights; leave out --weights={weights}")
    else:
        opened = load(model)
    return _named(opened, class_names) if class_names else opened


def _published(model: str, weights: str, new_head: bool) -> Standalone:
    if not weights:
        raise S3Error(
            f"{model} is a published model: give its weights, a file or hf-hub:owner/name, with "
            "--weights (of s3_jax.main: --config.backbone.weights)"
        )
    tensors = _tensors(weights)
    num_classes = _num_classes(tensors)
    if num_classes is None and not new_head:
        raise S3Error(f"{weights} has no classifier, so it cannot name classes: scripts/finetune.py trains one")
    found = spec(model, num_classes=num_classes or 1000)
    return _with_weights(model, found, weights, tensors, reset_head=num_classes is None)


def _named(model: Standalone, file: str) -> Standalone:
    """A model whose classes have the names in a file."""
    names = tuple(line.strip() for line in read_text(user_path(file)).rstrip().split("\n"))
    known = model.spec.class_names
    if "" in names:
        raise S3Error(f"{file}: line {names.index('') + 1} is empty; expected the name of a class in each line")
    if len(names) != len(known):
        raise S3Error(f"{file} has {len(names)} names, the network has {len(known)} classes")
    if not is_numbered(known) and names != known:
        raise S3Error(
            f"{file} has other names than the network, which knows its classes ({known[0]}, ...): leave it out"
        )
    return dataclasses.replace(model, spec=dataclasses.replace(model.spec, class_names=names))


def _tensors(weights: str) -> StateDict:
    """The tensors of a file or of the hub, under timm's names."""
    tensors = read_state_dict(fetch(weights))
    try:
        return to_timm(tensors)
    except S3Error as error:
        raise S3Error(f"{weights}: {error}") from error


def _num_classes(tensors: StateDict) -> int | None:
    """How many classes the classifier of a state dict under timm's names has; None where it has none."""
    names = ("head.fc.weight", "head.weight", "head.fc.bias", "head.bias")
    found = [tensors[name] for name in names if name in tensors]
    return len(found[0]) if found and found[0].ndim else None


def _likeness(tensors: StateDict, but: str) -> str:
    """Which published model the tensors are of, as their names and shapes tell, if it is another than `but`."""
    like = [name for name, each in MODELS.items() if _outline(each) == _outline_of(tensors)]
    return f". It looks like {like[0]}" if like and but not in like else ""


def _outline(found: ClassifierSpec) -> tuple[Any, ...]:
    """Width, blocks and window of every stage; of a plain transformer width and blocks."""
    if isinstance(found.architecture, IsotropicArchitecture):
        return ((found.architecture.embed_dim, found.architecture.depth, None),)
    stages = found.architecture.stages
    clamped = found.architecture.clamped(map_sizes(found.image_size, found.patch_size, len(stages)))
    return tuple((stage.embed_dim, len(stage.blocks), stage.blocks[0].window) for stage in clamped.stages)


def _outline_of(tensors: StateDict) -> tuple[Any, ...]:
    """The same, read from a state dict under timm's names."""
    first = "blocks.0.norm1.weight"
    widths = {name.removesuffix(first): tensor.size for name, tensor in tensors.items() if name.endswith(first)}
    stages = []
    for prefix, width in sorted(widths.items()):
        blocks = {name.removeprefix(prefix).split(".")[1] for name in tensors if name.startswith(f"{prefix}blocks.")}
        table = tensors.get(f"{prefix}blocks.0.attn.relative_position_bias_table")
        stages.append((width, len(blocks), None if table is None else (math.isqrt(len(table)) + 1) // 2))
    return tuple(stages)
