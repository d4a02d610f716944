"""Decoding: what files of every depth and kind come out as, and which are refused with which reason."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from absl import logging
from PIL import Image

from s3_jax.data import sources
from s3_jax.data.sources import BadImage, decode, open_encoded

LEVELS = np.arange(256).reshape(16, 16)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, **options: object) -> bytes:
    return encode(Image.fromarray(values), "TIFF", **options)


def pgm(white: int) -> bytes:
    return b"P5 16 16 %d\n" % white + of_white(white).astype(">u2").tobytes()


def of_white(white: float) -> np.ndarray:
    """The 256 levels of grey where `white` is the lightest."""
    return np.rint(LEVELS * (white / 255)) if white > 1 else LEVELS / 255


def decoded(encoded: bytes) -> np.ndarray:
    return np.asarray(decode(open_encoded(encoded)))


DEEP_GREY = {
    "pgm of 16 bits": pgm(65535),
    "pgm of 12 bits": pgm(4095),
    "pgm of 10 bits": pgm(1023),
    "ascii pgm of 12 bits": b"P2 16 16 4095\n" + b" ".join(b"%d" % value for value in of_white(4095).ravel()),
    "pfm": b"Pf 16 16 -1.0\n" + (LEVELS[::-1] / 255).astype("<f4").tobytes(),  # from below
    "tiff of 32 bits": tiff(of_white(65535).astype(np.int32)),
    "tiff of floats": tiff(of_white(1).astype(np.float32)),
    "tiff of 16 bits": tiff(of_white(65535).astype(np.uint16)),
    "tiff of 12 bits that says so": tiff(of_white(4095).astype(np.uint16), tiffinfo={281: 4095}),
    "tiff whose tag gives its lightest pixel": tiff(of_white(65535).astype(np.uint16), tiffinfo={281: 65000}),
    "tiff of 16 bits, 0 is white": tiff(of_white(65535)[::-1, ::-1].astype(np.uint16), tiffinfo={262: 0}),
    "png of 16 bits": encode(Image.fromarray(of_white(65535).astype(np.uint16)), "PNG"),
}


@pytest.mark.parametrize("name", DEEP_GREY)
def test_deep_grey_keeps_its_256_levels(name: str) -> None:
    pixels = decoded(DEEP_GREY[name])
    assert (pixels == pixels[..., :1]).all()
    assert np.abs(pixels[..., 0].astype(int) - LEVELS).max() <= 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (LEVELS * 1000, "from 0 to 255000, where white is taken for 65535"),
        (LEVELS - 100, "from -100 to 155"),
        (LEVELS, "from 0 to 255"),
        ((LEVELS / 2).astype(np.float32), "from 0 to 127.5, where white is taken for 1"),
        (np.where(LEVELS == 9, np.nan, LEVELS / 255).astype(np.float32), "nan"),
    ],
    ids=["more than 16 bits", "negative", "bytes in 32 bits", "floats beyond 1", "not a number"],
)
def test_grey_whose_white_cannot_be_known_is_refused(values: np.ndarray, reason: str) -> None:
    with pytest.raises(BadImage, match=f"grey of unknown scale: its values go .*{reason}"):
        decoded(tiff(values.astype(np.int32) if values.dtype == np.int64 else values))


def test_a_dark_pgm_is_no_riddle() -> None:
    assert decoded(b"P5 2 1 65535\n" + np.array([0, 200], ">u2").tobytes())[0, :, 0].tolist() == [0, 1]


def test_twelve_bits_that_do_not_say_so_are_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logging, "warning", said.append)
    sources._warn_of_dark_grey.cache_clear()
    for _ in range(2):
        assert decoded(tiff(of_white(4095).astype(np.uint16))).max() <= 16
    decoded(tiff(of_white(65535).astype(np.uint16)))
    assert len(said) == 1
    assert "MaxSampleValue = 4095" in said[0]


def png(color_type: int, depth: int, rows: list[bytes], width: int, *before: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, len(rows), depth, color_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), *before, (b"IDAT", data), (b"IEND", b"")]
    body = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize("color_type", [0, 2, 4, 6], ids=["grey", "RGB", "grey and alpha", "RGBA"])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_of_every_depth_keeps_its_levels(color_type: int, depth: int) -> None:
    colors, alphas = {0: (1, 0), 2: (3, 0), 4: (1, 1), 6: (3, 1)}[color_type]
    levels = LEVELS * (257 if depth == 16 else 1)
    samples = np.stack([levels] * colors + [np.full_like(levels, 2**depth - 1)] * alphas, axis=-1)
    rows = [row.astype(">u2" if depth == 16 else "u1").tobytes() for row in samples]
    assert (decoded(png(color_type, depth, rows, 16)) == LEVELS[..., None]).all()


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "CMYK", "YCbCr", "PA", "1", "L", "LA"])
def test_transparency_and_palettes_leave_the_colours(mode: str) -> None:
    color = (204, 102, 51) if mode not in ("1", "L", "LA") else (255,) * 3
    image = Image.new("RGB", (4, 4), color).convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    options = {"transparency": image.getpixel((0, 0))} if mode == "P" else {}
    encoded = encode(image.convert("RGBA") if mode == "PA" else image, kind, **options)
    assert np.abs(decoded(encoded).astype(int) - color).max() <= 2


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt"])
def test_a_png_with_much_text_is_read(kind: bytes) -> None:
    text = b"x" * 2_000_000
    body = {b"zTXt": b"\0\0" + zlib.compress(text), b"iTXt": b"\0\1\0\0\0" + zlib.compress(text), b"tEXt": b"\0" + text}
    encoded = png(0, 8, [bytes(range(16))] * 2, 16, (kind, b"Comment" + body[kind]))
    assert decoded(encoded)[0, :, 0].tolist() == list(range(16))


def test_too_many_pixels_are_counted() -> None:
    with pytest.raises(BadImage, match=r"^too large: 400 of at most 179 million pixels$"):
        open_encoded(b"P5 20000 20000 255\n")


_OPEN_LARGE = """
import sys
from pathlib import Path
from s3_jax.data.sources import open_encoded
print(open_encoded(Path(sys.argv[1]).read_bytes()).size)
"""


def test_an_image_below_the_limit_is_not_warned_of(tmp_path: Path) -> None:
    (tmp_path / "large.pgm").write_bytes(b"P5 12000 10000 255\n")
    command = [sys.executable, "-c", _OPEN_LARGE, str(tmp_path / "large.pgm")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(12000, 10000)"
    assert "bomb" not in done.stderr


def test_reasons_name_no_object_of_the_program() -> None:
    for encoded, reason in (
        (b"", "the file is empty"),
        (b"text", "its format is none that Pillow"),
        (b"P5 0 5 255\n", ""),
    ):
        with pytest.raises(BadImage, match=f"not an image: .*{reason}") as caught:
            open_encoded(encoded)
        assert " at 0x" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_bytes_altered_at_random_are_an_image_or_a_bad_image(kind: str) -> None:
    rng = np.random.default_rng(0)
    whole = encode(Image.fromarray(rng.integers(256, size=(20, 30, 3), dtype=np.uint8)), kind)
    refused = 0
    for _ in range(60):
        altered = bytearray(whole)
        for place in rng.integers(min(len(whole), 300), size=3):
            altered[place] = rng.integers(256)
        try:
            assert decode(open_encoded(bytes(altered))).mode == "RGB"
        except BadImage:
            refused += 1
    assert refused
