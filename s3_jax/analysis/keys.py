"""Which keys the tokens of a map attend to, and how far away they are."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from s3_jax.models.attention import Windows, partition, shift_regions, unpartition


class Keys(NamedTuple):
    """The tokens of each token's window, in the order of `attention_weights`, for a map of H x W tokens."""

    places: np.ndarray  # (H, W, side^2, 2) row and column in the map as it was before padding and rolling
    attended: np.ndarray  # (H, W, side^2) bool: neither padding nor of a part that rolling has brought beside it


@lru_cache(maxsize=64)
def window_keys(size: tuple[int, int], windows: Windows) -> Keys:
    """The keys of each token of a map of `size` (H, W) that is cut into windows.

    Places beyond the map are of tokens that pad it.
    """
    (height, width), (side, shift) = size, windows
    padded = (height + -height % side, width + -width % side)
    grid = np.stack(np.meshgrid(*map(np.arange, padded), indexing="ij"), axis=-1)
    rolled = np.roll(grid, (-shift[0], -shift[1]), (0, 1))
    tokens = np.asarray(partition(jnp.asarray(rolled)[None], side))[0]  # (windows, side^2, 2)
    regions = shift_regions(padded, windows)
    together = regions[:, :, None] == regions[:, None, :]
    seen = np.broadcast_to(tokens[:, None], (*together.shape, 2))
    places = _on_map(seen.reshape(*together.shape[:2], -1), padded, shift)[:height, :width]
    places = places.reshape(height, width, -1, 2)
    within = (places < np.array(size)).all(-1)
    return Keys(places, within & _on_map(together, padded, shift)[:height, :width])


def _on_map(values: np.ndarray, padded: tuple[int, int], shift: tuple[int, int]) -> np.ndarray:
    """Values of the rolled map's windows (windows, side^2, N) as the map that was rolled: (H, W, N)."""
    return np.roll(np.asarray(unpartition(jnp.asarray(values)[None], padded))[0], shift, (0, 1))


def top_keys(weights: np.ndarray, keys: Keys, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The keys that each token attends to most: indices (H, W, heads, K) of the window's, and whether they are any.

    weights: (H, W, heads, side^2). K is `count`, or the window's number of tokens where that is less. Padding and
    keys of other parts of a rolled map are none: a token that has fewer keys than K has them all, at the front.
    """
    attended = keys.attended[:, :, None]
    order = np.argsort(np.where(attended, -weights, np.inf), axis=-1, kind="stable")[..., :count]
    return order, np.take_along_axis(np.broadcast_to(attended, weights.shape), order, axis=-1)


def key_distances(keys: Keys) -> np.ndarray:
    """From each token to each of its window's, in tokens, from centre to centre: (H, W, side^2)."""
    height, width = keys.places.shape[:2]
    own = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1)
    return np.linalg.norm(keys.places - own[:, :, None], axis=-1)


def mean_top_distance(weights: np.ndarray, keys: Keys, count: int) -> np.ndarray:
    """The mean distance, in tokens, of each token to the `count` keys it attends to most: (H, W, heads).

    weights: (H, W, heads, side^2). The token itself is among its keys, at distance 0. See `top_keys` for tokens that
    have fewer keys. The paper's Fig. 4 (f) and (g).
    """
    order, valid = top_keys(weights, keys, count)
    apart = np.broadcast_to(key_distances(keys)[:, :, None], weights.shape)
    found = np.take_along_axis(apart, order, axis=-1)
    return (found * valid).sum(-1) / valid.sum(-1)


def mean_key_distance(keys: Keys) -> float:
    """The mean distance, in tokens, over all tokens and all of their keys: that of attention without preference."""
    apart = (key_distances(keys) * keys.attended).sum(-1) / keys.attended.sum(-1)
    return float(apart.mean())


def window_limits(length: int, side: int, shift: int) -> list[int]:
    """Before which rows (or columns) of a map of `length` tokens windows end, without the map's own edges."""
    return [limit for limit in range(shift, length, side) if limit]
