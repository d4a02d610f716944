"""Masks of every kind that is read, what their pixels mean, and those that are refused."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from s3_jax.data.sources import BadImage
from s3_jax.errors import S3Error
from s3_jax.segmentation.class_table import IGNORED, ClassTable, meaning_of
from s3_jax.segmentation.folders import class_map

VALUES = np.array([[0, 1, 2], [3, 255, 1]], np.uint8)
CLASSES = [[0, 1, 2], [3, IGNORED, 1]]
RED, GREEN, BLUE, GREY, VOID = (255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9), (0, 0, 0)
PALETTE = {0: RED, 1: GREEN, 2: BLUE, 3: GREY, 255: VOID}
PLAIN = ClassTable(("a", "b", "c", "d"))
COLOURED = ClassTable(("a", "b", "c", "d", "void"), (RED, GREEN, BLUE, GREY, VOID), (0, 1, 2, 3, 255))


def opened(image: Image.Image, kind: str = "PNG", **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def read(image: Image.Image, table: ClassTable = PLAIN, **settings: object) -> list[list[int]]:
    classes = class_map(image, "masks/0.png", meaning_of(table, **settings))
    assert classes.dtype == np.uint8
    return classes.tolist()


def with_palette(values: np.ndarray = VALUES) -> Image.Image:
    image = Image.fromarray(values).convert("P")
    flat = np.full((256, 3), 77, np.uint8)
    for value, colour in PALETTE.items():
        flat[value] = colour
    image.putpalette(flat.tobytes())
    image.putdata(values.ravel().tolist())
    return image


def coloured(values: np.ndarray = VALUES) -> np.ndarray:
    return np.array([[PALETTE[int(value)] for value in row] for row in values], np.uint8)


def png(depth: int, colour_type: int, rows: list[bytes], width: int, palette: bytes = b"") -> Image.Image:
    """A PNG of rows as they lie in the file: Pillow writes no grey of 2 or 4 bits, and no pixel beyond its palette."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    colours = chunk(b"PLTE", palette) if palette else b""
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + colours + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return Image.open(io.BytesIO(whole))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_the_values_of_grey_count(kind: str) -> None:
    assert read(opened(Image.fromarray(VALUES), kind)) == CLASSES


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("table", [PLAIN, COLOURED])
def test_the_indices_of_a_palette_count_and_not_its_colours(kind: str, table: ClassTable) -> None:
    mask = opened(with_palette(), kind)
    assert mask.mode == "P"
    assert read(mask, table) == CLASSES


def test_a_palette_in_another_order_than_the_tables_colours_is_still_an_index_which_is_told(caplog) -> None:
    swapped = ClassTable(COLOURED.names, (GREEN, RED, BLUE, GREY, VOID), COLOURED.values)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert read(opened(with_palette()), COLOURED) == CLASSES
        assert not caplog.text
        assert read(opened(with_palette()), swapped) == CLASSES
    assert "masks/0.png has colours of the class table in its palette, at the numbers of other classes" in caplog.text
    assert read(opened(Image.fromarray(coloured())), swapped) == [[1, 0, 2], [3, IGNORED, 0]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_the_colours_of_rgb_count(kind: str) -> None:
    mask = opened(Image.fromarray(coloured()), kind)
    assert mask.mode == "RGB"
    assert read(mask, COLOURED) == CLASSES


def test_alpha_does_not_count() -> None:
    alpha = np.array([[0, 255, 7], [0, 0, 255]], np.uint8)
    assert read(opened(Image.fromarray(np.dstack([coloured(), alpha]))), COLOURED) == CLASSES
    assert read(opened(Image.fromarray(np.dstack([VALUES, alpha])))) == CLASSES  # mode LA


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_read_whole(kind: str) -> None:
    table = ClassTable(("a", "b", "c"), None, (0, 1, 1000))
    mask = opened(Image.fromarray(np.array([[0, 1000], [255, 1]], np.uint16)), kind)
    assert mask.mode.startswith("I")
    assert read(mask, table) == [[0, 2], [IGNORED, 1]]
    assert read(opened(Image.fromarray(np.array([[0, 1000]], np.int32)), "TIFF"), table) == [[0, 2]]
    with pytest.raises(S3Error, match=r"has the value 256 at 1 pixels, but .* have other values of 0 to 1000"):
        read(opened(Image.fromarray(np.array([[0, 256]], np.uint16)), kind), table)  # and not 0, as its low byte is


def test_grey_and_palettes_of_a_few_bits_are_not_spread_over_a_byte() -> None:
    assert read(png(2, 0, [bytes([0b00011011])], 4)) == [[0, 1, 2, 3]]
    assert read(png(4, 0, [bytes([0x01, 0x23])], 4)) == [[0, 1, 2, 3]]
    assert read(png(1, 0, [bytes([0b01100000])], 4)) == [[0, 1, 1, 0]]
    assert read(opened(with_palette(VALUES % 4), bits=2)) == (VALUES % 4).tolist()


def test_a_zero_that_is_ignored_and_255_that_stays() -> None:
    assert read(opened(Image.fromarray(VALUES)), zero_is_ignored=True) == [[255, 0, 1], [2, 255, 0]]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000"])
def test_lossy_masks_are_refused(kind: str) -> None:
    mask = opened(Image.fromarray(coloured()), kind)
    with pytest.raises(S3Error, match=rf"masks/0.png is a file of {kind}, which is lossy: .*; make masks anew as PNG"):
        read(mask, COLOURED)


def test_a_jpeg_in_a_tiff_is_refused() -> None:
    with pytest.raises(S3Error, match="has jpeg compression, which is lossy"):
        read(opened(Image.new("L", (16, 16)), "TIFF", compression="jpeg"))
    assert read(opened(Image.fromarray(VALUES), "TIFF", compression="tiff_lzw")) == CLASSES


def test_formats_that_change_values_are_refused() -> None:
    with pytest.raises(S3Error, match=r"is a file of GIF; make masks anew as PNG \(or TIFF, BMP\)"):
        read(opened(Image.fromarray(VALUES), "GIF"))  # Pillow has written the value 255 as 4
    with pytest.raises(S3Error, match="is a file of PPM; make masks anew as PNG"):
        read(Image.open(io.BytesIO(b"P5 2 1 3\n\x01\x02")))
    with pytest.raises(S3Error, match="is a mask of mode F; expected a palette, grey of whole numbers, or RGB"):
        read(opened(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))
    with pytest.raises(S3Error, match="has 16 bits for each of several channels"):
        read(png(16, 2, [bytes(6)], 1), COLOURED)


def test_rgb_needs_colours_in_the_table() -> None:
    with pytest.raises(
        S3Error, match=r"masks/0.png is a mask of colours \(RGB\), and the class table lists none: write"
    ):
        read(opened(Image.fromarray(coloured())))


def test_a_colour_of_no_class_is_refused_with_its_pixels() -> None:
    pixels = coloured()
    pixels[0, :2] = (1, 2, 3)
    told = r"masks/0.png has the colour \(1, 2, 3\) at 2 pixels, which the class table does not list: .* number 255"
    with pytest.raises(S3Error, match=told):
        read(opened(Image.fromarray(pixels)), COLOURED)
    pixels[1, 0] = (3, 2, 1)
    with pytest.raises(S3Error, match=r"\(1, 2, 3\) at 2 pixels \(and 1 other colours\)"):
        read(opened(Image.fromarray(pixels)), COLOURED)


def test_a_value_of_no_class_is_refused_with_its_pixels() -> None:
    two = ClassTable(("a", "b"))
    told = (
        r"masks/0.png has the value 2 at 1 pixels \(and 1 other values\), but the 2 classes of the class table have "
        "the values 0 to 1, and ignored are 255: add its class"
    )
    with pytest.raises(S3Error, match=told):
        read(opened(Image.fromarray(VALUES)), two)
    with pytest.raises(S3Error, match=r"the value 3 at 1 pixels, .* values 1 to 2, and ignored are 0, 255"):
        read(opened(Image.fromarray(VALUES)), two, zero_is_ignored=True)


def test_a_damaged_mask_is_a_bad_image() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 4, (64, 64), np.uint8)).save(buffer, "PNG")
    with pytest.raises(BadImage, match="damaged image"):
        read(Image.open(io.BytesIO(buffer.getvalue()[:500])))


def test_a_pixel_beyond_its_palette_is_read_by_its_number() -> None:
    """A palette of two colours, and the values 2, 3 and 255 beside them."""
    mask = png(8, 3, [bytes(row) for row in VALUES.tolist()], 3, palette=bytes((*RED, *GREEN)))
    assert len(mask.getpalette()) == 6
    assert read(mask, COLOURED) == CLASSES
