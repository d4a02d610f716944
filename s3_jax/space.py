"""Search spaces and architectures: frozen, hashable values with JSON both ways, and the moves between them.

A `SearchSpace` is what the paper calls A = S_1 x ... x S_D (Eq. 6): for each stage and each dimension an ordered tuple
of choices. An `Architecture` is one point of it. `depth` and `embed_dim` are chosen once for a stage; `window`,
`mlp_ratio` and `qkv_dim` once for each block.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from s3_jax.errors import S3Error

HEAD_DIM = 32
STAGE_DIMENSIONS = ("depth", "embed_dim")
BLOCK_DIMENSIONS = ("window", "mlp_ratio", "qkv_dim")
DIMENSIONS = STAGE_DIMENSIONS + BLOCK_DIMENSIONS

Choice = int | float


@dataclasses.dataclass(frozen=True)
class Block:
    """One transformer block: window side in tokens, MLP hidden width over embedding width, Q-K-V width in channels."""

    window: int
    mlp_ratio: float
    qkv_dim: int

    @property
    def heads(self) -> int:
        """Number of attention heads; the head dimension is fixed at 32."""
        return self.qkv_dim // HEAD_DIM


@dataclasses.dataclass(frozen=True)
class Stage:
    """Blocks of one embedding dimension on one token map."""

    embed_dim: int
    blocks: tuple[Block, ...]

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One point of a search space: cache key, JSON record and model configuration at once."""

    stages: tuple[Stage, ...]

    def clamped(self, map_sizes: Sequence[int]) -> Architecture:
        """The architecture with windows no larger than their stage's map (sides as `map_sizes` gives)."""
        stages = []
        for stage, side in zip(self.stages, map_sizes, strict=True):
            blocks = tuple(dataclasses.replace(block, window=min(block.window, side)) for block in stage.blocks)
            stages.append(Stage(stage.embed_dim, blocks))
        return Architecture(tuple(stages))

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain lists and numbers."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Architecture:
        """The architecture of a record that `to_json` made. Raises S3Error where the record is not one."""
        try:
            stages = tuple(_stage_from_json(stage) for stage in record["stages"])
        except (KeyError, TypeError, ValueError) as error:
            raise S3Error(
                f"not an architecture record: {error!r}; expected stages of embed_dim and blocks, "
                "each block with window, mlp_ratio and qkv_dim"
            ) from error
        _check_stages(stages)
        return cls(stages)


@dataclasses.dataclass(frozen=True)
class StageSpace:
    """The choices of one stage, each a strictly increasing tuple; other sequences are taken as tuples."""

    depth: tuple[int, ...]
    embed_dim: tuple[int, ...]
    window: tuple[int, ...]
    mlp_ratio: tuple[float, ...]
    qkv_dim: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in DIMENSIONS:
            choices = self.choices(name)
            if not isinstance(choices, Iterable):
                raise S3Error(f"{name} = {choices!r}: expected a tuple of choices; for a single one write ({choices},)")
            object.__setattr__(self, name, tuple(choices))

    def choices(self, dimension: str) -> tuple[Choice, ...]:
        """The choices of one of DIMENSIONS."""
        return getattr(self, dimension)


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Choices for every stage and dimension. Raises S3Error for a space of which no network can be built."""

    stages: tuple[StageSpace, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        if not self.stages:
            raise S3Error("a search space needs at least one stage")
        for index, stage in enumerate(self.stages):
            for dimension in DIMENSIONS:
                _check_choices(f"stage {index + 1} {dimension}", dimension, stage.choices(dimension))
            _check_hidden(index, stage.embed_dim[0], stage.mlp_ratio[0])

    def size(self) -> int:
        """Number of distinct architectures |A| (Eq. 2), an exact integer."""
        total = 1
        for stage in self.stages:
            block = len(stage.window) * len(stage.mlp_ratio) * len(stage.qkv_dim)
            total *= len(stage.embed_dim) * sum(block**depth for depth in stage.depth)
        return total

    def contains(self, architecture: Architecture) -> bool:
        """Whether every choice of the architecture is one of the space's."""
        return len(architecture.stages) == len(self.stages) and all(
            _stage_contains(space, stage) for space, stage in zip(self.stages, architecture.stages, strict=True)
        )

    def replace(self, stage: int, dimension: str, choices: Sequence[Choice]) -> SearchSpace:
        """The space with other choices in one dimension of stage `stage` (counted from 0)."""
        change: dict[str, Any] = {dimension: choices}
        changed = dataclasses.replace(self.stages[stage], **change)
        return SearchSpace((*self.stages[:stage], changed, *self.stages[stage + 1 :]))

    def clamped(self, map_sizes: Sequence[int]) -> SearchSpace:
        """The space with windows no larger than their stage's map, choices that act alike merged.

        map_sizes: side of each stage's token map, as `map_sizes` gives.
        """
        stages = [
            dataclasses.replace(stage, window=tuple(sorted({min(window, side) for window in stage.window})))
            for stage, side in zip(self.stages, map_sizes, strict=True)
        ]
        return SearchSpace(tuple(stages))

    def to_json(self) -> dict[str, Any]:
        """The space as plain lists and numbers."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> SearchSpace:
        """The space of a record that `to_json` made. Raises S3Error where the record is not one."""
        try:
            stages = tuple(
                StageSpace(**{name: tuple(stage[name]) for name in DIMENSIONS}) for stage in record["stages"]
            )
        except (KeyError, TypeError) as error:
            raise S3Error(
                f"not a search-space record: {error!r}; expected stages of {', '.join(DIMENSIONS)}"
            ) from error
        return cls(stages)


def map_sizes(image_size: int, patch_size: int, num_stages: int) -> tuple[int, ...]:
    """Side of each stage's token map: image_size / patch_size, then halved (rounding up) from stage to stage.

    Raises S3Error where the patches do not tile the image.
    """
    if patch_size < 1 or image_size < patch_size or image_size % patch_size:
        raise S3Error(
            f"an image of {image_size} px cannot be cut into patches of {patch_size} px; "
            f"choose an image_size that is a positive multiple of patch_size"
        )
    sides = [image_size // patch_size]
    for _ in range(num_stages - 1):
        sides.append((sides[-1] + 1) // 2)
    return tuple(sides)


def hidden_dim(embed_dim: int, mlp_ratio: float) -> int:
    """Width of the MLP's hidden layer in channels."""
    return int(embed_dim * mlp_ratio)


def largest(space: SearchSpace) -> Architecture:
    """The architecture with the last choice of every dimension; the supernet's own shape."""
    return _uniform(space, -1)


def smallest(space: SearchSpace) -> Architecture:
    """The architecture with the first choice of every dimension."""
    return _uniform(space, 0)


def sample(space: SearchSpace, rng: np.random.Generator) -> Architecture:
    """An architecture drawn uniformly over the choices of every dimension."""
    return Architecture(tuple(_sample_stage(stage, rng) for stage in space.stages))


def mutate(
    space: SearchSpace,
    parent: Architecture,
    rng: np.random.Generator,
    *,
    probability: float,
    stage_probability: float,
) -> Architecture:
    """A copy of `parent`, each block choice redrawn with `probability`, depth and embed_dim with `stage_probability`.

    A stage that grows gets freshly drawn blocks; one that shrinks loses its last ones.
    """
    stages = []
    for choices, stage in zip(space.stages, parent.stages, strict=True):
        depth, embed_dim = stage.depth, stage.embed_dim
        if rng.random() < stage_probability:
            depth = _pick(choices.depth, rng)
        if rng.random() < stage_probability:
            embed_dim = _pick(choices.embed_dim, rng)
        kept = [_mutate_block(choices, block, rng, probability) for block in stage.blocks[:depth]]
        new = [_sample_block(choices, rng) for _ in range(depth - len(kept))]
        stages.append(Stage(embed_dim, tuple(kept + new)))
    return Architecture(tuple(stages))


def cross(first: Architecture, second: Architecture, rng: np.random.Generator) -> Architecture:
    """A child that takes every choice from one parent or the other with equal chance.

    A block that only the deeper parent has is that parent's, so parents of unequal depth are never cut short.
    """
    stages = []
    for pair in zip(first.stages, second.stages, strict=True):
        depth = pair[rng.integers(2)].depth
        embed_dim = pair[rng.integers(2)].embed_dim
        blocks = [_cross_block([stage.blocks[j] for stage in pair if stage.depth > j], rng) for j in range(depth)]
        stages.append(Stage(embed_dim, tuple(blocks)))
    return Architecture(tuple(stages))


def _stage_from_json(record: Mapping[str, Any]) -> Stage:
    blocks = tuple(Block(b["window"], float(b["mlp_ratio"]), b["qkv_dim"]) for b in record["blocks"])
    return Stage(record["embed_dim"], blocks)


def _check_stages(stages: Sequence[Stage]) -> None:
    if not stages:
        raise S3Error("an architecture needs at least one stage")
    for index, stage in enumerate(stages):
        for name in STAGE_DIMENSIONS:
            _check_choices(f"stage {index + 1} {name}", name, (getattr(stage, name),))
        for block, name in itertools.product(stage.blocks, BLOCK_DIMENSIONS):
            _check_choices(f"stage {index + 1} {name}", name, (getattr(block, name),))
        _check_hidden(index, stage.embed_dim, min(block.mlp_ratio for block in stage.blocks))


def _check_hidden(index: int, embed_dim: int, mlp_ratio: float) -> None:
    if hidden_dim(embed_dim, mlp_ratio) < 1:
        raise S3Error(
            f"stage {index + 1}: an mlp_ratio of {mlp_ratio} on an embed_dim of {embed_dim} leaves the MLP no hidden "
            "unit; make one of them larger"
        )


def _check_choices(where: str, dimension: str, choices: tuple[Choice, ...]) -> None:
    if not choices:
        raise S3Error(f"{where}: the list of choices is empty; give at least one choice")
    kind: tuple[type, ...] = (int, float) if dimension == "mlp_ratio" else (int,)
    for choice in choices:
        if isinstance(choice, bool) or not isinstance(choice, kind) or not 0 < choice < math.inf:
            what = "numbers" if dimension == "mlp_ratio" else "whole numbers"
            raise S3Error(f"{where}: the choice {choice!r} cannot be built; choices are {what} above 0")
        if dimension == "qkv_dim" and choice % HEAD_DIM:
            nearest = max(HEAD_DIM, round(choice / HEAD_DIM) * HEAD_DIM)
            raise S3Error(
                f"{where}: {choice} is not a multiple of the head dimension {HEAD_DIM}, so it has no whole number "
                f"of heads; the nearest that works is {nearest}"
            )
    if any(a >= b for a, b in itertools.pairwise(choices)):
        raise S3Error(f"{where}: choices must be strictly increasing, got {choices}; try {tuple(sorted(set(choices)))}")


def _stage_contains(space: StageSpace, stage: Stage) -> bool:
    return (
        stage.depth in space.depth
        and stage.embed_dim in space.embed_dim
        and all(getattr(block, name) in space.choices(name) for block in stage.blocks for name in BLOCK_DIMENSIONS)
    )


def _uniform(space: SearchSpace, index: int) -> Architecture:
    stages = []
    for stage in space.stages:
        block = Block(stage.window[index], float(stage.mlp_ratio[index]), stage.qkv_dim[index])
        stages.append(Stage(stage.embed_dim[index], (block,) * stage.depth[index]))
    return Architecture(tuple(stages))


def _pick(choices: Sequence[Any], rng: np.random.Generator) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _sample_stage(stage: StageSpace, rng: np.random.Generator) -> Stage:
    depth = _pick(stage.depth, rng)
    return Stage(_pick(stage.embed_dim, rng), tuple(_sample_block(stage, rng) for _ in range(depth)))


def _sample_block(stage: StageSpace, rng: np.random.Generator) -> Block:
    return Block(_pick(stage.window, rng), float(_pick(stage.mlp_ratio, rng)), _pick(stage.qkv_dim, rng))


def _mutate_block(stage: StageSpace, block: Block, rng: np.random.Generator, probability: float) -> Block:
    fresh = _sample_block(stage, rng)
    redrawn = {name: getattr(fresh, name) for name in BLOCK_DIMENSIONS if rng.random() < probability}
    return dataclasses.replace(block, **redrawn)


def _cross_block(parents: Sequence[Block], rng: np.random.Generator) -> Block:
    return Block(*(getattr(_pick(parents, rng), name) for name in BLOCK_DIMENSIONS))
