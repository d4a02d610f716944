"""The families of networks that everything else treats alike; what differs between them is said here alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from s3_jax.cost import Cost, cost
from s3_jax.models.isotropic import IsotropicArchitecture, IsotropicTransformer, isotropic_cost
from s3_jax.models.transformer import S3Transformer
from s3_jax.space import Architecture, SearchSpace

AnyArchitecture = Architecture | IsotropicArchitecture
# What a network is built of: an architecture, or a space whose supernet it then is.
Structure = AnyArchitecture | SearchSpace
AnyNetwork = S3Transformer | IsotropicTransformer


@dataclasses.dataclass(frozen=True)
class Family:
    """What a family of networks can do with its architectures."""

    make: Callable[..., Any]  # (structure, settings of either network by name) to a network
    cost: Callable[..., Cost]  # (architecture, image_size, patch_size, num_classes by name)
    parse: Callable[[Mapping[str, Any]], Any]  # the reverse of an architecture's `to_json`
    scaled: Callable[[Any, int, int], Any]  # (architecture, old image size, new) to the architecture for the new one
    describe: Callable[[Any], str]  # in words, for a model card
    has_stages: bool  # and windows: such networks share weights with the supernets of search spaces
    timm_classifier: str  # timm's name of the last layer


def family_of(value: Structure | AnyNetwork) -> Family:
    """The family of an architecture, a space or a network."""
    return PLAIN if isinstance(value, IsotropicArchitecture | IsotropicTransformer) else WINDOWED


def architecture_from_json(record: Mapping[str, Any]) -> Any:
    """The architecture of a record that `to_json` of any family made. Raises S3Error where it is none."""
    return (PLAIN if "isotropic" in record else WINDOWED).parse(record)


def _make_plain(
    architecture: IsotropicArchitecture, *, every_width: bool = False, platform: str | None = None, **settings: Any
) -> IsotropicTransformer:
    """A plain transformer, which has no use for the settings of supernets."""
    return IsotropicTransformer(architecture, **settings)


def _windows_scaled(architecture: Architecture, old: int, new: int) -> Architecture:
    """With windows that cover the same part of the map: from 224 to 384 pixels 7 becomes 12, and 14 becomes 24."""
    stages = []
    for stage in architecture.stages:
        blocks = (dataclasses.replace(b, window=max(1, round(b.window * new / old))) for b in stage.blocks)
        stages.append(dataclasses.replace(stage, blocks=tuple(blocks)))
    return Architecture(tuple(stages))


def _describe_windowed(architecture: Architecture) -> str:
    stages = architecture.stages
    parts = {
        "widths": [str(stage.embed_dim) for stage in stages],
        "blocks": [str(stage.depth) for stage in stages],
        "heads": [_range(block.heads for block in stage.blocks) for stage in stages],
        "windows": [_range(block.window for block in stage.blocks) for stage in stages],
    }
    return "; ".join(f"{name} {', '.join(values)}" for name, values in parts.items())


def _range(values: Iterable[int]) -> str:
    low, *others = sorted(set(values))
    return f"{low} to {others[-1]}" if others else str(low)


def _describe_plain(architecture: IsotropicArchitecture) -> str:
    width, depth, heads = architecture.embed_dim, architecture.depth, architecture.heads
    return f"plain transformer, width {width}, {depth} blocks of {heads} heads"


WINDOWED = Family(
    make=S3Transformer,
    cost=cost,
    parse=Architecture.from_json,
    scaled=_windows_scaled,
    describe=_describe_windowed,
    has_stages=True,
    timm_classifier="head.fc.",
)
PLAIN = Family(
    make=_make_plain,
    cost=isotropic_cost,
    parse=IsotropicArchitecture.from_json,
    scaled=lambda architecture, old, new: architecture,
    describe=_describe_plain,
    has_stages=False,
    timm_classifier="head.",
)
