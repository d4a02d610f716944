"""What scripts/attention.py does: figures and tables of a network's attention in images."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from s3_jax.analysis.attention import BlockAttention, attention_of, block_names, chosen_blocks, read_input
from s3_jax.analysis.box_plots import distances_figure
from s3_jax.analysis.distances import TokenDistances, boxes_csv, boxes_of, distances_of, tokens_csv
from s3_jax.analysis.maps import block_figure, overview_figure
from s3_jax.data.pictures import name_of
from s3_jax.errors import S3Error
from s3_jax.networks.standalone import Standalone
from s3_jax.paths import AnyPath, printable
from s3_jax.progress import progress_bar
from s3_jax.report import theme
from s3_jax.writing import write_whole


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is drawn."""

    blocks: tuple[str, ...]  # whose maps, as "3.4"
    query: tuple[int, int]  # row and column of a pixel
    maps: int  # of how many images

    @classmethod
    def of_flags(cls, model: Standalone, blocks: Sequence[str], query: Sequence[str], maps: int) -> Choice:
        """The choice that a user has written, "" and [] for what is left open. Raises S3Error where it is none."""
        names = chosen_blocks(blocks, block_names(model))
        return cls(tuple(names), _pixel(query, model.spec.image_size), maps)


def _pixel(query: Sequence[str], size: int) -> tuple[int, int]:
    try:
        row, column = map(int, query or (size // 2, size // 2))
    except ValueError:
        raise S3Error(f"--query={','.join(query)}: expected row and column of a pixel, as 100,60") from None
    if not (0 <= row < size and 0 <= column < size):
        raise S3Error(
            f"--query={row},{column} lies outside of the image that the network takes, {size} x {size} pixels: "
            f"rows and columns are from 0 to {size - 1}"
        )
    return row, column


def draw(model: Standalone, paths: Sequence[AnyPath], out: AnyPath, choice: Choice) -> int:
    """Write the figures and tables, and print where they are. Returns the exit code, 2 where a file is no image.

    Raises S3Error where none is an image, for weights that are not finite, and where a file cannot be written.
    """
    look, found, drawn, code = attention_of(model), [], 0, 0
    with progress_bar(Console(stderr=True), "images", len(paths)) as advance:
        for number, path in enumerate(paths):
            try:
                image, pixels = read_input(path, model)
            except S3Error as error:
                print(f"attention: {printable(error)}", file=sys.stderr)
                code = 2
                continue
            blocks = look(image)
            found += [distances_of(str(path), block) for block in blocks]
            if drawn < choice.maps:
                _write_maps(pixels, blocks, choice, out / name_of(path, number, len(paths)))
                drawn += 1
            advance(number + 1, "")
    if found:
        _write_distances(found, out)
    return code


def _write_maps(pixels: np.ndarray, blocks: Sequence[BlockAttention], choice: Choice, begin: AnyPath) -> None:
    """The maps of one image, in files whose names begin alike."""
    chosen = [block for block in blocks if block.name in choice.blocks]
    with theme.applied():
        for kind, figure in _maps(pixels, chosen, choice.query):
            _write_figure(figure, begin.with_name(f"{begin.name}_{kind}"))


def _maps(pixels: np.ndarray, blocks: Sequence[BlockAttention], query: tuple[int, int]) -> Iterator[tuple[str, Figure]]:
    yield "overview", overview_figure(pixels, blocks, query)
    for block in blocks:
        yield f"block_{block.name}", block_figure(pixels, block, query)


def _write_distances(found: Sequence[TokenDistances], out: AnyPath) -> None:
    boxes = boxes_of(found)
    with theme.applied():
        images = len({each.image for each in found})
        _write_figure(distances_figure(boxes, images), out / "distances")
    for name, content in (("distances.csv", boxes_csv(boxes)), ("distances_by_token.csv", tokens_csv(found))):
        write_whole(out / name, content)
        print(out / name)


def _write_figure(figure: Figure, begin: AnyPath) -> None:
    """A figure as PNG and SVG."""
    for suffix, content in ((".png", theme.png(figure)), (".svg", _svg(figure))):
        path = begin.with_name(begin.name + suffix)
        write_whole(path, content)
        print(path)


def _svg(figure: Figure) -> bytes:
    """The figure as an SVG file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata=dict.fromkeys(("Creator", "Date")))
    return buffer.getvalue()
