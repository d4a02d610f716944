"""Maps of attention over an image, as in the paper's Fig. 4 (a) to (e). All are drawn inside `theme.applied()`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from s3_jax.analysis.attention import BlockAttention
from s3_jax.analysis.keys import Keys, top_keys, window_limits
from s3_jax.report import theme

NUMBERED = 5  # keys with the largest weights that maps number
_MARGIN = 2  # tokens around a window that its map shows
_LEAST_PANEL, _TOKEN_INCHES = 1.75, 0.115  # a panel's side, in inches, and what a token needs for its number
_LINE_INCHES = 7.0  # that the longest line of text needs
_COLOURS = "inferno"
_OUTLINE = [withStroke(linewidth=1.8, foreground="#000000")]


class View(NamedTuple):
    """A square part of an image, in pixels."""

    top: float
    left: float
    side: float


def block_figure(pixels: np.ndarray, block: BlockAttention, query: tuple[int, int]) -> Figure:
    """Where a token looks in each head of a block: the image with all windows, the heads' mean, and each head.

    pixels: uint8 (S, S, 3). query: row and column of a pixel of the token.
    """
    row, column = token = token_of(block, query)
    heads = block.weights[row, column]  # (heads, side^2)
    view = _view(block, token, pixels.shape[0])
    figure, panels = _grid(2 + len(heads), _panel_side(view, block.stride), rest=0.75)
    _draw_image(panels[0], pixels, query)
    _draw_limits(panels[0], block, pixels.shape[0])
    _draw_view(panels[0], view, theme.light("space-1"))
    _draw_map(panels[1], pixels, block, token, heads.mean(0), view)
    panels[1].set_title("Mean of heads")
    for number, (axes, weights) in enumerate(zip(panels[2:], heads, strict=True), 1):
        _draw_map(axes, pixels, block, token, weights, view)
        axes.set_title(f"Head {number}")
    _describe(figure, block, token)
    _explain(figure)
    return figure


def overview_figure(pixels: np.ndarray, blocks: Sequence[BlockAttention], query: tuple[int, int]) -> Figure:
    """Fig. 4 (a) to (e): the image, and where a token looks in each block, in the mean of its heads.

    pixels: uint8 (S, S, 3). query: row and column of a pixel of the token.
    """
    views = [_view(block, token_of(block, query), pixels.shape[0]) for block in blocks]
    sides = [_panel_side(view, block.stride) for view, block in zip(views, blocks, strict=True)]
    figure, panels = _grid(1 + len(blocks), max(sides), rest=0.4)
    _draw_image(panels[0], pixels, query)
    for axes, block, view in zip(panels[1:], blocks, views, strict=True):
        token = token_of(block, query)
        _draw_map(axes, pixels, block, token, block.weights[token].mean(0), view)
        colour = theme.space_colour(int(block.name.partition(".")[0]) - 1)
        _draw_view(panels[0], view, colour)
        axes.set_title(f"Block {block.name}", color=colour)
    _explain(figure)
    return figure


def token_of(block: BlockAttention, query: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the token that a pixel belongs to."""
    return query[0] // block.stride, query[1] // block.stride


def _grid(count: int, side: float, *, rest: float) -> tuple[Figure, list[Axes]]:
    """`count` square panels of `side` inches, in rows that the last one fills best; `rest` inches are for text."""
    columns = min(range(4, 8), key=lambda width: (-count % width, -width)) if count > 4 else count
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * (side + 0.12), rows * (side + 0.36) + rest), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    return figure, panels[:count]


def _panel_side(view: View, stride: int) -> float:
    return max(_LEAST_PANEL, _TOKEN_INCHES * view.side / stride)


def _view(block: BlockAttention, token: tuple[int, int], size: int) -> View:
    """What a map shows of an image of `size` pixels: the keys of a token, and some tokens around them."""
    keys = block.keys
    places = keys.places[token][keys.attended[token]]
    low, high = places.min(0), places.max(0) + 1
    side = min(size, block.stride * (int((high - low).max()) + 2 * _MARGIN))
    middle = block.stride * (low + high) / 2
    top, left = np.clip(middle - side / 2, 0, size - side).tolist()
    return View(top, left, side)


def _draw_image(axes: Axes, pixels: np.ndarray, query: tuple[int, int]) -> None:
    """The image, with its pixels counted at its edges, and the query."""
    axes.set_axis_on()
    axes.imshow(pixels, extent=_extent(pixels.shape[:2], 1))
    axes.set_title("Input")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=2, labelsize=7, pad=1.5)
    ticks = np.linspace(0, pixels.shape[0], 5).astype(int)[:-1]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.plot(query[1] + 0.5, query[0] + 0.5, "+", ms=8, mew=1.6, color="#ffffff", path_effects=_OUTLINE)


def _draw_limits(axes: Axes, block: BlockAttention, size: int) -> None:
    """The limits of all windows."""
    for length, shift, draw in zip(block.size, block.windows.shift, (axes.axhline, axes.axvline), strict=True):
        for limit in window_limits(length, block.windows.side, shift):
            draw(limit * block.stride, color="#ffffff", lw=0.5, alpha=0.8)
    axes.set_xlim(0, size)
    axes.set_ylim(size, 0)


def _draw_view(axes: Axes, view: View, colour: str) -> None:
    box = Rectangle((view.left, view.top), view.side, view.side, fill=False, ec=colour, lw=1.6, path_effects=_OUTLINE)
    box.set_clip_on(False)
    axes.add_patch(box)


def _draw_map(
    axes: Axes, pixels: np.ndarray, block: BlockAttention, token: tuple[int, int], weights: np.ndarray, view: View
) -> None:
    """A token's weights (side^2,) over the image, with its window's limits, itself, and its top keys by number."""
    keys, stride = block.keys, block.stride
    grey = np.repeat((pixels @ np.array([0.299, 0.587, 0.114]))[..., None] * (0.7 / 255), 3, axis=-1)
    axes.imshow(grey, extent=_extent(pixels.shape[:2], 1))
    axes.imshow(
        _coloured(keys, block.size, token, weights), extent=_extent(block.size, stride), interpolation="nearest"
    )
    _draw_limits(axes, block, pixels.shape[0])
    places = keys.places[token][keys.attended[token]]
    top, left = places.min(0) * stride
    height, width = (np.ptp(places, axis=0) + 1) * stride
    axes.add_patch(Rectangle((left, top), width, height, fill=False, ec="#ffffff", lw=1.4, clip_on=False))
    axes.set_xlim(view.left, view.left + view.side)
    axes.set_ylim(view.top + view.side, view.top)
    _draw_numbers(axes, block, token, weights)
    muted = theme.light("muted")
    axes.text(
        0.5,
        -0.03,
        _note(block, token, weights),
        transform=axes.transAxes,
        ha="center",
        va="top",
        fontsize=7,
        color=muted,
    )


def _coloured(keys: Keys, size: tuple[int, int], token: tuple[int, int], weights: np.ndarray) -> np.ndarray:
    """The map of a token's weights as colours (H, W, 4), relative to the largest; other tokens are transparent."""
    chosen = keys.attended[token]
    share = weights[chosen] / max(weights[chosen].max(), np.finfo(np.float32).tiny)
    colours = colormaps[_COLOURS](share)
    colours[:, 3] = 0.2 + 0.75 * share
    out = np.zeros((*size, 4))
    out[tuple(keys.places[token][chosen].T)] = colours
    return out


def _draw_numbers(axes: Axes, block: BlockAttention, token: tuple[int, int], weights: np.ndarray) -> None:
    """The query as +, and 1 to 5 on the keys with the largest weights, beside the + where it is one of them."""
    places = _top_places(block.keys, token, weights)
    for number, place in enumerate(places, 1):
        y, x = ((index + (0.74 if place == token else 0.5)) * block.stride for index in place)
        axes.text(x, y, str(number), **_NUMBER_STYLE)
    y, x = ((index + (0.3 if token in places else 0.5)) * block.stride for index in token)
    axes.plot(x, y, "+", ms=6, mew=1.4, color="#ffffff", path_effects=_OUTLINE)


def _top_places(keys: Keys, token: tuple[int, int], weights: np.ndarray) -> list[tuple[int, ...]]:
    """Row and column of the keys with the largest weights (side^2,), the largest first."""
    own = Keys(*(each[token][None, None] for each in keys))
    order, valid = (each[0, 0, 0] for each in top_keys(weights[None, None, None], own, NUMBERED))
    return [tuple(place) for place in keys.places[token][order[valid]].tolist()]


def _note(block: BlockAttention, token: tuple[int, int], weights: np.ndarray) -> str:
    """The largest weight, and what goes to tokens beyond the map."""
    chosen = block.keys.attended[token]
    beyond = 100 * float(weights[~_within(block, token)].sum())
    return f"largest {100 * weights[chosen].max():.1f} %" + (f", padding {beyond:.0f} %" if beyond >= 0.5 else "")


def _within(block: BlockAttention, token: tuple[int, int]) -> np.ndarray:
    """Which tokens of a token's window are of the map, and not of its padding."""
    return (block.keys.places[token] < np.array(block.size)).all(-1)


_NUMBER_STYLE: dict[str, Any] = {
    "ha": "center",
    "va": "center",
    "fontsize": 6.5,
    "fontweight": "bold",
    "color": "#ffffff",
    "path_effects": [withStroke(linewidth=1.4, foreground="#000000")],
}


def _extent(size: Sequence[int], stride: int) -> tuple[float, float, float, float]:
    return 0, size[1] * stride, size[0] * stride, 0


def _describe(figure: Figure, block: BlockAttention, token: tuple[int, int]) -> None:
    (rows, columns), side = block.windows.shift, block.windows.side
    shift = f"shifted by {rows}" if rows == columns else f"shifted by {rows} down and {columns} right"
    windows = f"Block {block.name}: windows of {side} x {side} tokens of {block.stride} pixels, "
    parts = (
        windows + (shift if rows or columns else "not shifted"),
        f"query at token row {token[0]}, column {token[1]}",
    )
    figure.suptitle((";\n" if _is_narrow(figure) else "; ").join(parts), x=0.01, ha="left", fontsize=9.5)


def _explain(figure: Figure) -> None:
    parts = (
        "+ query",
        "1 to 5: the keys with the largest weights",
        "brightness: weight, relative to the panel's largest",
    )
    text = ("\n" if _is_narrow(figure) else "; ").join(parts)
    figure.supxlabel(text, fontsize=8, color=theme.light("muted"))


def _is_narrow(figure: Figure) -> bool:
    return figure.get_size_inches()[0] < _LINE_INCHES
