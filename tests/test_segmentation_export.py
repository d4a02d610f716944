"""Segmentation networks in other tools: StableHLO and ONNX that answer with logits of pixels, of a size one chooses."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from onnx_answers import onnx_answers
from PIL import Image
from test_segmentation_upernet import noisy
from test_standalone import command, make

from s3_jax.config import ModelConfig
from s3_jax.errors import S3Error
from s3_jax.networks import standalone
from s3_jax.networks.export import LONGEST, Size, export_onnx, export_stablehlo, size_of
from s3_jax.networks.standalone import Standalone
from s3_jax.segmentation.inference import predict
from s3_jax.segmentation.resizing import resized
from s3_jax.segmentation.standalone import SegmentationSpec
from s3_jax.segmentation.upernet import UperNet
from s3_jax.space import Architecture, Block, Stage

CLASSES = ("road", "wall", "sky")
# A window that pads its map, a shifted one, and one that covers its map.
ARCHITECTURE = Architecture((Stage(8, (Block(3, 1.0, 32), Block(2, 2.0, 32))), Stage(16, (Block(2, 1.0, 64),))))
SPEC = SegmentationSpec(
    ARCHITECTURE, 16, 2, CLASSES, channels=8, auxiliary_channels=6, test_scale=(40, 22), test_multiple=4
)
LYING, ODD = (24, 40), (21, 33)  # pixels; patches do not tile the second


def images_of(size: Size) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, *size, 3)).astype(np.float32)


@nnx.jit
def pixel_logits(network: UperNet, images: jax.Array) -> jax.Array:
    return resized(network(images), images.shape[1:3])


@pytest.fixture(scope="module")
def model() -> Standalone:
    """One that finds each class as often as others."""
    network = noisy(SPEC.build())
    network.decode.classifier.bias[...] -= pixel_logits(network, images_of(LYING)).mean((0, 1, 2))
    return Standalone(network, SPEC)


@pytest.fixture(scope="module")
def expected(model) -> dict[Size, np.ndarray]:
    return {size: np.asarray(pixel_logits(model.network, images_of(size))) for size in (LYING, ODD)}


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> jax.export.Exported:
    """At the size that nobody chose."""
    folder = tmp_path_factory.mktemp("exported")
    export_stablehlo(model, folder / "model.stablehlo")
    return read(folder)


def read(folder: Path) -> jax.export.Exported:
    return jax.export.deserialize((folder / "model.stablehlo").read_bytes())


def test_stablehlo_answers_as_the_network_for_any_batch(exported, expected):
    images = images_of(LYING)
    for batch in (images, images[:1]):
        answers = exported.call(batch)
        assert answers.shape == (len(batch), *LYING, len(CLASSES))
        assert answers.dtype == np.float32
        np.testing.assert_allclose(answers, expected[LYING][: len(batch)], atol=2e-6)


def test_stablehlo_finds_the_classes_that_prediction_finds(model, exported, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (*LYING, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    ((_, _, classes),) = predict(model, [tmp_path / "image.png"])
    images = np.float32((pixels / 255 - SPEC.mean) / SPEC.std)[None]
    assert set(np.unique(classes)) == {0, 1, 2}
    np.testing.assert_array_equal(exported.call(images)[0].argmax(-1), classes)


# A network that was made where there is a GPU computes in another order.
@pytest.mark.parametrize(("size", "platform"), [(LYING, "cpu"), (ODD, "cuda")])
def test_onnx_answers_as_the_network_in_a_process_without_jax(model, expected, tmp_path, size, platform):
    sizes = {"num_classes": len(CLASSES), "channels": 8, "auxiliary_channels": 6}
    network = UperNet(ARCHITECTURE, model=ModelConfig(16, 2), **sizes, platform=platform, rngs=nnx.Rngs(0))
    nnx.update(network, nnx.state(model.network))
    for answers in onnx_answers(Standalone(network, SPEC), images_of(size), tmp_path, size):
        np.testing.assert_allclose(answers, expected[size][: len(answers)], atol=1e-5)


def test_the_command_exports_at_the_size_it_is_given(model, expected, tmp_path):
    standalone.save(tmp_path / "network", model)
    flags = (f"--model={tmp_path / 'network'}", f"--out={tmp_path / 'out'}")
    done = command("export.py", *flags, "--formats=stablehlo", "--size=21,33")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(read(tmp_path / "out").call(images_of(ODD)), expected[ODD], atol=2e-6)


def test_the_command_refuses_a_size_that_is_none(tmp_path):
    done = command("export.py", "--model=nothing", f"--out={tmp_path / 'out'}", "--size=512")
    assert done.returncode == 2
    message = "export: size '512': expected HEIGHT,WIDTH in pixels, whole numbers from 1 to 16,384\n"
    assert done.stderr == message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [
        *("", "512", "512,", "512,0", "0,512", "-1,512", "512,512,3", "1e3,512", "512x512", "a,b", "12.5,8"),
        *(f"1,{LONGEST + 1}", "9" * 5000 + ",1"),
    ],
)
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(S3Error, match="expected HEIGHT,WIDTH in pixels"):
        size_of(text)


def test_sizes_are_height_and_width():
    assert size_of("512,2048") == (512, 2048)
    assert size_of(f"1,{LONGEST}") == (1, LONGEST)


def test_sizes_of_exports_that_nobody_chose():
    assert SPEC.export_size == LYING  # 22 brought up to a multiple of 4
    assert SegmentationSpec(ARCHITECTURE).export_size == (512, 2048)
    assert make().spec.export_size == (8, 8)


def test_classifiers_are_exported_at_another_size_if_they_take_it(tmp_path):
    images, classifier = images_of((10, 6)), make()
    export_stablehlo(classifier, tmp_path / "model.stablehlo", (10, 6))
    logits = nnx.jit(lambda network: network(images))(classifier.network)
    np.testing.assert_allclose(read(tmp_path).call(images), logits, atol=1e-5)
    for write in (export_stablehlo, export_onnx):
        with pytest.raises(S3Error, match="takes images of its own size alone, 8 x 8"):
            write(make("isotropic"), tmp_path / "none", (10, 6))
    assert not (tmp_path / "none").exists()
