"""How far tokens look: the distances of the paper's Fig. 4 (f) and (g), token by token and as boxes, and as CSV."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from s3_jax.analysis.attention import BlockAttention
from s3_jax.analysis.keys import mean_key_distance, mean_top_distance
from s3_jax.paths import printable
from s3_jax.writing import as_csv

TOPS = (5, 10)  # of how many keys distances are means
UNITS = ("tokens", "pixels")
_WHISKERS = (5, 95)  # percentiles


@dataclasses.dataclass(frozen=True, eq=False)
class TokenDistances:
    """For one block and one image, of every token in every head the mean distance to its top keys, in tokens."""

    image: str
    block: str
    stride: int  # pixels of the input per token
    tops: tuple[np.ndarray, ...]  # for each of `TOPS`: float32 (H, W, heads)
    all_keys: float  # mean over tokens and all of their keys


@dataclasses.dataclass(frozen=True)
class Box:
    """A box of a box plot: the tokens of all heads and images in one block, for one of `TOPS` and one of `UNITS`."""

    block: str
    top: int
    unit: str
    count: int
    mean: float
    median: float
    lower_quartile: float
    upper_quartile: float
    percentile_5: float
    percentile_95: float
    all_keys: float  # the mean if there were no preference among a window's keys


def distances_of(image: str, block: BlockAttention) -> TokenDistances:
    """The distances of one block in one image."""
    tops = tuple(mean_top_distance(block.weights, block.keys, top).astype(np.float32) for top in TOPS)
    return TokenDistances(image, block.name, block.stride, tops, mean_key_distance(block.keys))


def boxes_of(found: Sequence[TokenDistances]) -> list[Box]:
    """A box for each block, in the order in which they come, for each of `TOPS` and `UNITS`."""
    boxes = []
    for name in dict.fromkeys(each.block for each in found):
        of_block = [each for each in found if each.block == name]
        for index, top in enumerate(TOPS):
            values = np.concatenate([each.tops[index].ravel() for each in of_block])
            for unit, scale in zip(UNITS, (1, of_block[0].stride), strict=True):
                boxes.append(_box(name, top, unit, scale * values, scale * of_block[0].all_keys))
    return boxes


def _box(block: str, top: int, unit: str, values: np.ndarray, all_keys: float) -> Box:
    low, first, median, third, high = map(float, np.percentile(values, (_WHISKERS[0], 25, 50, 75, _WHISKERS[1])))
    mean = float(values.mean(dtype=np.float64))
    return Box(block, top, unit, values.size, mean, median, first, third, low, high, all_keys)


def boxes_csv(boxes: Sequence[Box]) -> str:
    """The numbers of the box plots, a line for each box."""
    names = [field.name for field in dataclasses.fields(Box)]
    rows = ([_rounded(value) for value in dataclasses.astuple(box)] for box in boxes)
    return as_csv([names, *rows])


def tokens_csv(found: Sequence[TokenDistances]) -> str:
    """A line for each image, block, head (from 1) and token (row and column from 0), with distances in tokens."""
    names = ["image", "block", "head", "row", "column", "pixels_per_token", *(f"top_{top}_tokens" for top in TOPS)]
    return as_csv(itertools.chain([names], *map(_token_rows, found)))


def _token_rows(each: TokenDistances) -> Iterator[list[str]]:
    image, tops = printable(each.image), np.stack(each.tops, axis=-1)
    for row, column, head in np.ndindex(*tops.shape[:-1]):
        values = (f"{value:.3f}" for value in tops[row, column, head].tolist())
        yield [image, each.block, str(head + 1), str(row), str(column), str(each.stride), *values]


def _rounded(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
