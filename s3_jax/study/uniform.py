"""A network as a hand would design it, of a given cost: Swin's pattern, scaled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from s3_jax.cost import Cost, CostOf
from s3_jax.space import HEAD_DIM, Architecture, Block, Stage

# Of four stages: Swin-T's and Swin-S's, and shallower ones of the same kind, with the third stage the deepest.
DEPTHS_OF_FOUR = ((1, 1, 1, 1), (1, 1, 2, 1), (1, 1, 3, 1), (2, 2, 2, 2), (2, 2, 4, 2), (2, 2, 6, 2), (2, 2, 18, 2))
MAX_DEPTH = 12  # of networks with another number of stages, whose stages are equally deep
MLP_RATIO = 4.0
WINDOW = 7
_WIDTH_STEP = 2  # of the first stage
_LARGER = 1.5  # no wider network is looked at once both costs are larger than wanted by this factor


def swin_like(wanted: Cost, cost_of: CostOf, map_sizes: Sequence[int]) -> Architecture:
    """The network closest to the wanted parameters and multiply-adds of those that follow Swin's rules.

    Widths double from stage to stage, every block has a window of 7, an MLP ratio of 4, and a Q-K-V width as near to
    the embedding as whole heads allow. Closest is by the sum of both distances in the logarithm. map_sizes: sides of
    the stages' token maps, which windows are clamped to.
    """
    count = len(map_sizes)
    equally_deep = tuple((depth,) * count for depth in range(1, MAX_DEPTH + 1))
    every = DEPTHS_OF_FOUR if count == 4 else equally_deep
    candidates = itertools.chain.from_iterable(_of_depths(depths, wanted, cost_of, map_sizes) for depths in every)
    return min(candidates, key=lambda one: _distance(cost_of(one), wanted))


def _of_depths(
    depths: Sequence[int], wanted: Cost, cost_of: CostOf, map_sizes: Sequence[int]
) -> Iterator[Architecture]:
    """From the narrowest network on, until they are too large."""
    for width in itertools.count(_WIDTH_STEP, _WIDTH_STEP):
        stages = tuple(_stage(depth, width * 2**place) for place, depth in enumerate(depths))
        architecture = Architecture(stages).clamped(map_sizes)
        yield architecture
        cost = cost_of(architecture)
        if cost.params > _LARGER * wanted.params and cost.macs > _LARGER * wanted.macs:
            return


def _stage(depth: int, width: int) -> Stage:
    heads = max(1, round(width / HEAD_DIM))
    return Stage(width, (Block(window=WINDOW, mlp_ratio=MLP_RATIO, qkv_dim=HEAD_DIM * heads),) * depth)


def _distance(cost: Cost, wanted: Cost) -> float:
    return abs(math.log(cost.params / wanted.params)) + abs(math.log(cost.macs / wanted.macs))
