"""RoIAlign (He et al., 2017): the mean of a map in each bin of a RoI, of as many samples as the RoI is large.

As mmdetection and torchvision with aligned=True and sampling_ratio=0: ceil(size / side) samples a bin and axis, each
interpolated between four places. A bin's mean is linear in the map, and the product of one weight for each row and one
for each column. Of these weights `axis_weights` is a closed form for any number of samples: their number has no bound
and nothing is approximated. Two functions sum the map by them, and `roi_align_on` says which suits a kind of device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from s3_jax.detection.boxes import FINEST_SIDE, level_of

CHUNK = 64  # RoIs at once; of what is made of all 512 of an image, half a gigabyte would have to be kept
# What a place costs on a CPU that is gathered, and in the backward pass scattered, in places that are multiplied.
PLACE = 120
FINEST_STRIDE = 4  # pixels between places of the first map; that of each map is twice the one before

# (maps of one image (H, W, C), finest first; boxes (R, 4); bins a side) to (R, side, side, C).
RoiAlign = Callable[[Sequence[Array], Array, int], Array]


class Samples(NamedTuple):
    """Where a RoI's samples are on one axis, in places of the map: `number` in each bin, `step` apart, from `start`."""

    start: Array
    step: Array
    number: Array


def samples_of(low: Array, high: Array, side: int) -> Samples:
    """Samples of RoIs from `low` to `high` (...), in places of the map: its first place is at 0, not at a half."""
    size = high - low
    whole = jnp.round(size / side)
    # Not the ceiling of a quotient, which XLA may compute as a product with 1 / side: 49 / 7 would have 8 samples.
    count = jnp.maximum(whole + (size > whole * side), 0)
    step = jnp.where(count > 0, size / (side * jnp.maximum(count, 1)), 1)
    return Samples(low + step / 2, step, count)


def axis_weights(samples: Samples, side: int, places: Array, size: Array | int) -> Array:
    """What each place (N,) of an axis of `size` places counts in the mean of each bin: (side, N).

    samples: of one RoI, each (). A sample between two places is shared by them; up to one place beyond the map it
    counts for the outermost, further away for none, and still counts in the mean.
    """
    start, step, count = samples
    first = start + jnp.arange(side)[:, None] * (count * step)  # of each bin
    offset = first - places  # small numbers, whose rounding is small too
    before, here = (_samples_before(end - offset, step, count) for end in (-1, 0))
    after = jnp.clip(jnp.floor((1 - offset) / step) + 1, 0, count)  # with one on the very edge of the map
    left, right = here - before, after - here
    # Samples in an interval are an arithmetic series: their number times the first, and the steps between them.
    shares_left = left * (1 + offset + before * step) + step * left * (left - 1) / 2
    shares_right = right * (1 - offset - here * step) - step * right * (right - 1) / 2
    total = jnp.where(places == 0, left, shares_left) + jnp.where(places == size - 1, right, shares_right)
    return total / jnp.maximum(count, 1)


@partial(jax.jit, static_argnums=2)  # the stages' RoIs are as many, and are traced once
def by_products(maps: Sequence[Array], boxes: Array, side: int) -> Array:
    """RoIAlign as products with every map, whose weights are zero but for one: for a TPU, which gathers slowly.

    maps: of one image, (H, W, C), finest first, strides 4, 8, 16 ...; boxes: (R, 4) in pixels, of which each is
    looked up in the map of its level. Returns (R, side, side, C), zeros for boxes without an area. Boxes have no
    gradient.
    """
    sizes = [(x.shape[0], x.shape[1]) for x in maps]
    heights, widths = (jnp.asarray(axis) for axis in zip(*sizes, strict=True))
    tallest, widest = (max(axis) for axis in zip(*sizes, strict=True))

    def of_one(box: Array, level: Array) -> Array:
        """(side, side, C)"""
        columns, rows = _samples_on(box, level, side)
        vertical = axis_weights(rows, side, jnp.arange(tallest), heights[level])
        horizontal = axis_weights(columns, side, jnp.arange(widest), widths[level])
        each = [_product_with(x, vertical * (level == number), horizontal) for number, x in enumerate(maps)]
        return sum(each[1:], each[0]).astype(maps[0].dtype)

    return _in_chunks(of_one, boxes, level_of(boxes, len(maps)))


@partial(jax.jit, static_argnums=2)
def by_places(maps: Sequence[Array], boxes: Array, side: int) -> Array:
    """RoIAlign as products with those places of the map that a RoI covers, gathered: for GPUs and CPUs.

    Arguments and result as of `by_products`.
    """
    flat = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in maps])
    sizes = [(x.shape[0], x.shape[1]) for x in maps]
    heights, widths = (jnp.asarray(axis) for axis in zip(*sizes, strict=True))
    begins = jnp.cumsum(heights * widths) - heights * widths
    most = most_places(sizes)

    def of_one(box: Array, level: Array) -> Array:
        """(side, side, C)"""
        height, width = heights[level], widths[level]
        columns, rows = _samples_on(box, level, side)
        row, column, exists = _covered(rows, columns, (height, width), side, most)
        vertical = axis_weights(rows, side, row, height) * exists
        horizontal = axis_weights(columns, side, column, width)
        weights = (vertical[:, None] * horizontal[None]).reshape(side * side, most)
        found = flat[jnp.where(exists, begins[level] + row * width + column, 0)]
        return _product("bt,tc->bc", weights, found).astype(flat.dtype).reshape(side, side, -1)

    return _in_chunks(of_one, boxes, level_of(boxes, len(maps)))


def roi_align_on(platform: str) -> RoiAlign:
    """The RoIAlign for devices of a platform, as JAX calls it (`jax.Device.platform`); numbers are the same."""
    special: dict[str, RoiAlign] = {"tpu": by_products, "cpu": by_either}
    return special.get(platform, by_places)


def by_either(maps: Sequence[Array], boxes: Array, side: int) -> Array:
    """RoIAlign in the way that takes a CPU less time: of small maps by products.

    Of canvases of 128 px products and their gradient take a fifth of the time, or a tenth for the masks' RoIs.
    """
    sizes = [(x.shape[0], x.shape[1]) for x in maps]
    products = side * sum(height * width for height, width in sizes)
    chosen = by_products if products < PLACE * most_places(sizes) else by_places
    return chosen(maps, boxes, side)


def most_places(sizes: Sequence[tuple[int, int]]) -> int:
    """The most places of a map that a RoI can cover, of maps of these heights and widths, finest first.

    A RoI of every map but the last has an area of less than (2 * 56 / 4)^2 places, else a coarser map would be its own:
    where it is long, it is thin. Of the last map a RoI may cover all.
    """
    area = (2 * FINEST_SIDE // FINEST_STRIDE) ** 2 + 1  # one more, for rounding
    return max([_most_of_area(size, area) for size in sizes[:-1]] + [sizes[-1][0] * sizes[-1][1]])


def _most_of_area(size: tuple[int, int], area: int) -> int:
    """The same for one map. Samples along s places, s of any fraction, lie between floor(s) + 3 places at most."""
    height, width = size
    tall = [height] + [min(area // wide + 3, height) for wide in range(1, width + 1)]
    return max(min(wide + 3, width) * rows for wide, rows in enumerate(tall))


def _samples_on(box: Array, level: Array | int, side: int) -> tuple[Samples, Samples]:
    """A RoI's samples along columns (x) and along rows (y) of its map."""
    scale = 1 / (FINEST_STRIDE * 2.0**level)
    left, top, right, bottom = box * scale - 0.5
    return samples_of(left, right, side), samples_of(top, bottom, side)


def _product_with(x: Array, vertical: Array, horizontal: Array) -> Array:
    """(side, side, C) of a map (H, W, C) by weights (side, H or more) and (side, W or more)."""
    height, width, _ = x.shape
    tall = _product("ph,hwc->pwc", vertical[:, :height], x).astype(x.dtype)
    return _product("qw,pwc->pqc", horizontal[:, :width], tall)


def _covered(
    rows: Samples, columns: Samples, size: tuple[Array, Array], side: int, most: int
) -> tuple[Array, Array, Array]:
    """Rows and columns of the places that a RoI covers, (most,) each, and which of them exist."""
    (top, height), (left, width) = (_span(each, side, end) for each, end in zip((rows, columns), size, strict=True))
    down, along = jnp.divmod(jnp.arange(most), width)
    return top + down, left + along, down < height


def _span(samples: Samples, side: int, size: Array) -> tuple[Array, Array]:
    """The first place that samples of a RoI are between, and how many there are up to the last, at least one."""
    last = samples.start + (side * samples.number - 1) * samples.step
    low, high = (jnp.clip(jnp.floor(each), 0, size - 1).astype(int) for each in (samples.start, last + 1))
    return low, jnp.maximum(high - low + 1, 1)


def _samples_before(distance: Array, step: Array, count: Array) -> Array:
    """How many samples of a bin lie less than a distance behind its first."""
    return jnp.clip(jnp.ceil(distance / step), 0, count)


def _in_chunks(of_one: Callable[[Array, Array], Array], boxes: Array, levels: Array) -> Array:
    """The function of every box and level; the backward pass makes weights again instead of keeping them."""
    again = jax.checkpoint(lambda each: of_one(*each))
    return jax.lax.map(again, (jax.lax.stop_gradient(boxes), levels), batch_size=min(CHUNK, len(boxes)))


def _product(subscripts: str, weights: Array, values: Array) -> Array:
    """A product in the values' type, with sums in float32: GPUs and TPUs would round float32 before they multiply."""
    return jnp.einsum(
        subscripts,
        weights.astype(values.dtype),
        values,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
