"""What attention.py draws and writes is what was computed, and its mistakes are told in one line."""

import csv
import io
import re

import attention
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from flax import nnx
from PIL import Image
from test_standalone import WINDOWED, make

from s3_jax.analysis import command
from s3_jax.analysis.attention import BlockAttention, chosen_blocks, read_input
from s3_jax.analysis.box_plots import distances_figure
from s3_jax.analysis.command import Choice
from s3_jax.analysis.distances import boxes_of, distances_of, tokens_csv
from s3_jax.analysis.maps import block_figure, overview_figure
from s3_jax.errors import S3Error
from s3_jax.models.attention import Windows
from s3_jax.networks import standalone
from s3_jax.networks.standalone import Standalone
from s3_jax.report import theme
from s3_jax.segmentation.standalone import SegmentationSpec

NAMES = ["1.1", "1.2", "2.1", "2.2", "2.3"]


def made_up(name: str = "1.2", *, side: int = 4, shift: int = 2, size: int = 8, heads: int = 3) -> BlockAttention:
    """A block with random weights, of which those of each token's own key are largest."""
    windows = Windows(side, (shift, shift))
    weights = np.random.default_rng(0).random((size, size, heads, side**2)).astype(np.float32)
    block = BlockAttention(name, 4, windows, weights)
    rows, columns = np.indices((size, size))
    own = (block.keys.places == np.stack([rows, columns], -1)[:, :, None]).all(-1)
    weights += own[:, :, None]
    weights /= weights.sum(-1, keepdims=True)
    return block


def test_maps_have_a_panel_for_the_image_the_mean_and_each_head() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with theme.applied():
        figure = block_figure(pixels, made_up(), (17, 9))
        png, svg = theme.png(figure), command._svg(figure)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["Input", "Mean of heads", "Head 1", "Head 2", "Head 3"]
    assert figure.get_suptitle() == (
        "Block 1.2: windows of 4 x 4 tokens of 4 pixels, shifted by 2; query at token row 4, column 2"
    )
    numbers = [text.get_text() for text in figure.axes[2].texts]
    assert numbers[:5] == ["1", "2", "3", "4", "5"]
    assert Image.open(io.BytesIO(png)).size[0] > 1000
    assert b"<svg" in svg
    assert b"var(--" not in svg


def test_numbers_and_colours_lie_on_the_keys() -> None:
    """The query, row 4 and column 2, is its own top key; windows rolled by 2 are rows 2 to 5 and columns 2 to 5."""
    block = made_up()
    with theme.applied():
        figure = block_figure(np.zeros((32, 32, 3), np.uint8), block, (17, 9))
        axes = figure.axes[2]
        first = axes.texts[0]
    assert (first.get_position()[0] // 4, first.get_position()[1] // 4) == (2, 4)
    colours = axes.images[1].get_array()
    assert np.argwhere(colours[..., 3] > 0).min(0).tolist() == [2, 2]
    assert np.argwhere(colours[..., 3] > 0).max(0).tolist() == [5, 5]
    assert np.unravel_index(colours[..., 3].argmax(), (8, 8)) == (4, 2)
    lines = {
        round(float(line.get_xdata()[0]))
        for line in axes.lines
        if len(set(line.get_xdata())) == 1 and line.get_lw() < 1
    }
    assert lines == {8, 24}  # columns 2 and 6, in pixels
    for text in axes.texts[:5]:
        x, y = text.get_position()
        assert min(x, y) >= 8
        assert max(x, y) <= 24


@pytest.mark.parametrize("heads", [1, 2, 12, 24])
def test_any_number_of_heads_can_be_drawn(heads: int) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    with theme.applied():
        theme.png(block_figure(pixels, made_up(heads=heads, shift=0), (0, 31)))
        theme.png(overview_figure(pixels, [made_up(), made_up("2.1", side=2, shift=1)], (31, 0)))


def test_boxes_and_tables_have_the_same_distances() -> None:
    blocks = [made_up("1.1", shift=0), made_up("2.1", side=2, shift=1)]
    found = [distances_of(image, block) for image in ("a.png", "b.png") for block in blocks]
    boxes = boxes_of(found)
    assert [(box.block, box.top, box.unit) for box in boxes[:4]] == [
        ("1.1", 5, "tokens"),
        ("1.1", 5, "pixels"),
        ("1.1", 10, "tokens"),
        ("1.1", 10, "pixels"),
    ]
    assert boxes[0].count == 2 * 8 * 8 * 3
    rows = list(csv.DictReader(io.StringIO(tokens_csv(found))))
    assert len(rows) == 2 * 2 * 8 * 8 * 3
    values = [float(row["top_5_tokens"]) for row in rows if row["block"] == "1.1"]
    assert boxes[0].median == pytest.approx(np.median(values), abs=1e-3)
    assert boxes[0].mean == pytest.approx(np.mean(values), abs=1e-3)
    assert boxes[1].median == 4 * boxes[0].median
    place = next(row for row in rows if (row["row"], row["column"], row["head"]) == ("3", "5", "2"))
    assert float(place["top_10_tokens"]) == pytest.approx(found[0].tops[1][3, 5, 1], abs=1e-3)
    with theme.applied():
        figure = distances_figure(boxes, 2)
        theme.png(figure)
    assert [axes.get_title() for axes in figure.axes] == ["Top-5 keys", "Top-10 keys", "", ""]
    assert figure.axes[2].get_ylabel() == "Mean distance (pixels of the input)"


def test_blocks_are_those_of_the_list_or_the_ends_of_stages() -> None:
    assert chosen_blocks([], NAMES) == ["1.1", "1.2", "2.1", "2.3"]
    assert chosen_blocks(["2.2", " 1.1"], NAMES) == ["1.1", "2.2"]
    assert chosen_blocks([], ["1.1"]) == ["1.1"]
    for wrong in ("3.1", "2.4", "x", "", "1"):
        with pytest.raises(S3Error, match=re.escape(f"no block {wrong!r}; it has 1.1 to 1.2, 2.1 to 2.3")):
            chosen_blocks([wrong], NAMES)


def test_a_query_outside_of_the_image_is_refused() -> None:
    model = make()
    assert Choice.of_flags(model, [], [], 1) == Choice(("1.1", "1.2", "2.1"), (4, 4), 1)
    assert Choice.of_flags(model, ["2.1"], ["0", "7"], 0).query == (0, 7)
    for wrong in (["8", "0"], ["0", "-1"]):
        with pytest.raises(S3Error, match=r"lies outside of .* 8 x 8 pixels: rows and columns are from 0 to 7"):
            Choice.of_flags(model, [], wrong, 1)
    for wrong in (["8"], ["a", "b"], ["1", "2", "3"], ["0.5", "1"]):
        with pytest.raises(S3Error, match="expected row and column of a pixel"):
            Choice.of_flags(model, [], wrong, 1)


def test_pixels_are_those_that_the_network_sees(tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image, seen = read_input(tmp_path / "a.png", make())
    np.testing.assert_array_equal(seen, pixels)
    assert image.dtype == np.float32


def segmenter() -> Standalone:
    """A segmentation network, whose first windows pad their map."""
    spec = SegmentationSpec(WINDOWED, 16, 4, ("sky", "road"), channels=8, auxiliary_channels=8, test_scale=(32, 16))
    return Standalone(spec.build(rngs=nnx.Rngs(1)), spec)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command in this process, in a folder with images and networks: its exit code."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "bad.png").write_bytes(b"no image\n")
    for name, model in (("windowed", make()), ("plain", make("isotropic")), ("segmentation", segmenter())):
        standalone.save(tmp_path / name, model)
    monkeypatch.chdir(tmp_path)

    def start(*arguments: str, **given) -> int:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS(["attention.py", "--model=x", "--out=x"])
        with flagsaver.flagsaver(**{"model": "windowed", "out": "out", **given}):
            return attention.main(["attention.py", *arguments])

    return start


@pytest.mark.parametrize("model", ["windowed", "segmentation"])
def test_a_folder_of_images_gives_maps_distances_and_tables(model, run, tmp_path, capsys) -> None:
    assert run("images", "bad.png", model=model, blocks=["1.1"], maps=1) == 2
    out, err = capsys.readouterr()
    assert "attention: bad.png: not an image" in err
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [
        *("0000_a_block_1.1.png", "0000_a_block_1.1.svg", "0000_a_overview.png", "0000_a_overview.svg"),
        *("distances.csv", "distances.png", "distances.svg", "distances_by_token.csv"),
    ]
    assert sorted(out.split()) == [f"out/{name}" for name in written]
    first = (tmp_path / "out" / "0000_a_overview.svg").read_bytes()
    assert run("images", model=model, blocks=["1.1"], maps=1) == 0
    assert (tmp_path / "out" / "0000_a_overview.svg").read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        ((), {}, "give images, or a folder of them"),
        (("nowhere.png",), {}, "there is no file or folder nowhere.png"),
        (("images",), {"blocks": ["4.1"]}, "the network has no block '4.1'; it has 1.1 to 1.2, 2.1 (stage.block)"),
        (("images",), {"query": ["9", "9"]}, "--query=9,9 lies outside of the image that the network takes"),
        (("images",), {"model": "plain"}, "a plain transformer has neither stages nor windows"),
        (("images",), {"model": "s3_t"}, "give its weights"),
        (("images",), {"out": "bad.png"}, "cannot write bad.png"),
        (("bad.png",), {}, "bad.png: not an image"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, given, message, run, tmp_path, capsys) -> None:
    assert run(*arguments, **given) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("attention: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()
