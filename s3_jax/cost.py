"""Exact parameter and multiply-add counts of an architecture, budgets on them, and sampling under a budget."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import numpy as np

from s3_jax.errors import S3Error
from s3_jax.limits import Limit, check_fields, number
from s3_jax.space import Architecture, Block, SearchSpace, hidden_dim, map_sizes, sample, smallest


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a network costs: parameters, and MACs (multiply-adds) of one image; norms, biases and softmax are none."""

    params: int
    macs: int


CostOf = Callable[[Architecture], Cost]

_BUDGET = Limit("a number above 0, or 0 for none", number(0).holds)


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits that an architecture must stay strictly below; 0 is no limit. Raises S3Error for what is no limit."""

    max_params: Annotated[float, _BUDGET] = 0.0  # parameters
    max_macs: Annotated[float, _BUDGET] = 0.0  # multiply-adds of one image at model.image_size

    def __post_init__(self) -> None:
        check_fields(self, "budget")

    def admits(self, cost: Cost) -> bool:
        """Whether g(a) < c (Eq. 5): the cost is strictly below every limit that is set."""
        return (not self.max_params or cost.params < self.max_params) and (
            not self.max_macs or cost.macs < self.max_macs
        )

    def describe(self) -> str:
        """The limits in words, as "under 28.3 M parameters and 4.5 G MACs"."""
        limits = _in_words(self.max_params, self.max_macs, self)
        return f"under {limits}" if limits else "under any cost"


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """An architecture, its cost, and its error in percent. Raises S3Error for an error that is not finite."""

    architecture: Architecture
    cost: Cost
    error: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.error):
            raise S3Error(f"the error of an evaluated architecture is {self.error}; expected a percentage")

    def to_json(self) -> dict[str, Any]:
        """A line of `evaluated.jsonl`."""
        return {
            "architecture": self.architecture.to_json(),
            "params": self.cost.params,
            "macs": self.cost.macs,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Evaluated:
        """The value of a record that `to_json` made. Raises S3Error where the record is not one."""
        try:
            counted = Cost(int(record["params"]), int(record["macs"]))
            return cls(Architecture.from_json(record["architecture"]), counted, float(record["error"]))
        except (KeyError, TypeError, ValueError) as error:
            raise S3Error(
                f"not a record of an evaluated architecture: {error!r}; expected architecture, params, macs and error"
            ) from error


def cost(
    architecture: Architecture, *, image_size: int, patch_size: int, num_classes: int, in_channels: int = 3
) -> Cost:
    """Exact cost of the stand-alone network on one image (image_size, image_size, in_channels), sizes in pixels.

    Counted are convolution, linear layers and the two attention products, on padded windows where windows do not tile
    the map. Raises S3Error where the patches do not tile the image.
    """
    stages = architecture.stages
    sides = map_sizes(image_size, patch_size, len(stages))
    parts = [_patch_embedding(patch_size**2 * in_channels, stages[0].embed_dim, sides[0])]
    for stage, side in zip(stages, sides, strict=True):
        parts += [_block(stage.embed_dim, block, side) for block in stage.blocks]
    for (stage, following), side in zip(itertools.pairwise(stages), sides[1:], strict=True):
        parts.append(_patch_merging(stage.embed_dim, following.embed_dim, side**2))
    return _total([*parts, _head(stages[-1].embed_dim, num_classes)])


def dense_cost(
    architecture: Architecture, size: tuple[int, int], *, image_size: int, patch_size: int, in_channels: int = 3
) -> Cost:
    """Exact cost of the network's maps, each with a norm, of an image of `size` (height, width); no classifier.

    Windows are those of `image_size` and are never clamped to the map. Counted as for `cost`, but projections to
    queries, keys and values and back on padded windows too, as in the counts published for detection and segmentation.
    """
    clamped = architecture.clamped(map_sizes(image_size, patch_size, len(architecture.stages)))
    maps = dense_map_sizes(size, patch_size, len(clamped.stages))
    width = clamped.stages[0].embed_dim
    parts = [_linear(patch_size**2 * in_channels, width, math.prod(maps[0])), _norm(width)]
    for stage, sides in zip(clamped.stages, maps, strict=True):
        parts += [_dense_block(stage.embed_dim, block, sides) for block in stage.blocks]
        parts.append(_norm(stage.embed_dim))
    for (stage, following), sides in zip(itertools.pairwise(clamped.stages), maps[1:], strict=True):
        parts.append(_patch_merging(stage.embed_dim, following.embed_dim, math.prod(sides)))
    return _total(parts)


def dense_map_sizes(size: tuple[int, int], patch_size: int, num_stages: int) -> list[tuple[int, int]]:
    """Height and width of each stage's map of an image of `size` pixels, which need not be tiled by patches."""
    height, width = (-(-length // patch_size) for length in size)
    return [(-(-height // 2**index), -(-width // 2**index)) for index in range(num_stages)]


def cheapest(space: SearchSpace, cost_of: CostOf) -> Cost:
    """The lowest parameter count and the lowest MAC count of a space, not always of one and the same network.

    Every dimension but the window costs more with a larger choice. A larger window costs more parameters, but may save
    MACs where it tiles the map with less padding, so every window of a stage is tried.
    """
    params = cost_of(smallest(space)).params
    for index, stage in enumerate(space.stages):
        narrowed = [space.replace(index, "window", (window,)) for window in stage.window]
        space = min(narrowed, key=lambda candidate: cost_of(smallest(candidate)).macs)
    return Cost(params, cost_of(smallest(space)).macs)


def check_budget(space: SearchSpace, budget: Budget, cost_of: CostOf) -> None:
    """Raises S3Error, naming the budget and the cheapest network, if no network of the space is under the budget."""
    lowest = cheapest(space, cost_of)
    if not budget.admits(lowest):
        raise S3Error(f"no network of the space is {budget.describe()}; {_advice(lowest, budget)}")


def sample_within(
    space: SearchSpace, rng: np.random.Generator, budget: Budget, cost_of: CostOf, max_attempts: int
) -> Architecture:
    """An architecture drawn uniformly over the choices, redrawn until it is under the budget.

    Raises S3Error after `max_attempts` draws, naming the budget and the cheapest network.
    """
    for _ in range(max_attempts):
        architecture = sample(space, rng)
        if budget.admits(cost_of(architecture)):
            return architecture
    raise S3Error(f"0 of {max_attempts:,} samples {budget.describe()}; {_advice(cheapest(space, cost_of), budget)}")


def _total(parts: Iterable[Cost]) -> Cost:
    parts = list(parts)
    return Cost(sum(part.params for part in parts), sum(part.macs for part in parts))


def _linear(inputs: int, outputs: int, tokens: int, *, bias: bool = True) -> Cost:
    return Cost((inputs + bias) * outputs, tokens * inputs * outputs)


def _norm(width: int) -> Cost:
    return Cost(2 * width, 0)


def _patch_embedding(patch_values: int, width: int, side: int) -> Cost:
    return _total([_linear(patch_values, width, side**2), _norm(width)])


# Thousands of drawn architectures are counted against a budget, and they consist of a few hundred different blocks.
@functools.lru_cache(maxsize=4096)
def _block(width: int, block: Block, side: int) -> Cost:
    window = min(block.window, side)
    padded_side = math.ceil(side / window) * window
    return _block_on(width, block, window, side**2, side**2, padded_side**2)


@functools.lru_cache(maxsize=4096)
def _dense_block(width: int, block: Block, sides: tuple[int, int]) -> Cost:
    padded = math.prod(math.ceil(side / block.window) * block.window for side in sides)
    return _block_on(width, block, block.window, math.prod(sides), padded, padded)


def _block_on(width: int, block: Block, window: int, tokens: int, projected: int, padded_tokens: int) -> Cost:
    """A block of so many tokens, of which `projected` pass the linear layers of attention."""
    bias_table = (2 * window - 1) ** 2 * block.heads
    hidden = hidden_dim(width, block.mlp_ratio)
    return _total(
        [
            _norm(width),
            _linear(width, 3 * block.qkv_dim, projected),
            # Every token meets the window**2 keys of its window twice: in Q K^T and in the sum over V.
            Cost(bias_table, 2 * padded_tokens * window**2 * block.qkv_dim),
            _linear(block.qkv_dim, width, projected),
            _norm(width),
            _linear(width, hidden, tokens),
            _linear(hidden, width, tokens),
        ]
    )


def _patch_merging(width: int, following_width: int, following_tokens: int) -> Cost:
    # An odd map is padded to an even one, so the map that follows has already half of its sides, rounded up.
    return _total([_norm(4 * width), _linear(4 * width, following_width, following_tokens, bias=False)])


def _head(width: int, num_classes: int) -> Cost:
    return _total([_norm(width), _linear(width, num_classes, 1)])


def _advice(lowest: Cost, budget: Budget) -> str:
    found = f"the smallest network has {_in_words(lowest.params, lowest.macs, budget)}"
    if budget.admits(lowest):
        return f"{found}, so the budget is tight but not out of reach: raise it, or max_attempts"
    return f"{found}: raise the budget, or give the space smaller choices"


def _in_words(params: float, macs: float, budget: Budget) -> str:
    """The counts that the budget limits, as "28.3 M parameters and 4.5 G MACs"."""
    counts = [(params, "parameters", budget.max_params), (macs, "MACs", budget.max_macs)]
    return " and ".join(f"{_short(count)} {what}" for count, what, limit in counts if limit)


def _short(count: float) -> str:
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.4g} {prefix}"
    return f"{count:.4g}"
