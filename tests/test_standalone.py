"""Networks by themselves: their folders, what they say of images, their exports, and the commands for all that."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from onnx_answers import onnx_answers
from PIL import Image

from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.classification.dataset import open_data
from s3_jax.classification.inference import accuracy, logits_of, predict
from s3_jax.data.image_folder import list_images
from s3_jax.errors import S3Error
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.networks import standalone, zoo
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.convert import params_of
from s3_jax.networks.export import export_stablehlo
from s3_jax.networks.standalone import About, Standalone
from s3_jax.space import Architecture, Block, Stage

ROOT = Path(__file__).parent.parent
DIGITS = tuple(str(number) for number in range(10))
# A window that pads its map, a shifted one, and one that covers its map.
WINDOWED = Architecture((Stage(8, (Block(3, 1.0, 32), Block(2, 2.0, 32))), Stage(16, (Block(2, 1.0, 64),))))
HALF = (0.5, 0.5, 0.5)
ABOUT = About(data="digits, split train", recipe="none", accuracy="top-1 10 % on split test", licence="MIT")


def make(kind: str = "windowed") -> Standalone:
    architecture = WINDOWED if kind == "windowed" else IsotropicArchitecture(8, 2, 2)
    spec = ClassifierSpec(architecture, 8, 2, DIGITS, HALF, HALF, ABOUT, 1.0)
    return Standalone(spec.build(rngs=nnx.Rngs(3)), spec)


@pytest.fixture(scope="module")
def model() -> Standalone:
    return make()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "network"
    standalone.save(path, model)
    return path


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, 8, 8, 3), np.float32)


@pytest.mark.parametrize("kind", ["windowed", "isotropic"])
def test_a_folder_holds_the_whole_network(kind, tmp_path):
    saved = make(kind)
    standalone.save(tmp_path / "network", saved)
    loaded = zoo.load(tmp_path / "network")
    assert loaded.spec == saved.spec
    jax.tree.map(np.testing.assert_array_equal, params_of(loaded.network), params_of(saved.network))
    card = (tmp_path / "network" / "README.md").read_text()
    for text in (f"{saved.spec.cost.params:,}", "digits, split train", "top-1 10 % on split test", "MIT"):
        assert text in card


def test_folders_that_are_none_or_incomplete_are_told(folder, tmp_path):
    with pytest.raises(S3Error, match=r"holds no architecture\.json"):
        zoo.load(tmp_path)
    (tmp_path / "architecture.json").write_text("{}")
    with pytest.raises(S3Error, match="not the record of a stand-alone network"):
        zoo.load(tmp_path)
    (tmp_path / "architecture.json").write_text((folder / "architecture.json").read_text())
    with pytest.raises(S3Error, match=r"there is no file .*weights\.safetensors"):
        zoo.load(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes()[:1000])
    with pytest.raises(S3Error, match="cut short"):
        zoo.load(tmp_path)


def test_predictions_are_the_likeliest_classes_whatever_the_batch(model, tmp_path):
    rng = np.random.default_rng(1)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    paths = list_images([str(tmp_path)])
    assert [path.name for path in paths] == ["0.png", "1.png", "2.png"]
    found, problems = predict(model, paths, top=10, batch_size=2)
    assert not problems
    for prediction in found:
        chances = [chance for _, chance in prediction.classes]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1.0, abs=1e-5)
        assert {name for name, _ in prediction.classes} == set(DIGITS)
    alone = predict(model, paths[1:2], top=10, batch_size=16)[0][0]
    assert [name for name, _ in alone.classes] == [name for name, _ in found[1].classes]
    with pytest.raises(S3Error, match="there is no file or folder"):
        list_images([str(tmp_path / "missing.png")])


def test_accuracy_counts_every_image_once(model):
    """Against the ranks of each image's own label, counted one by one."""
    config = ClassificationDataConfig(source="digits", mean=HALF, std=HALF, eval_crop=1.0)
    test = open_data(config, seed=0).splits.test
    found = accuracy(model, test, config, class_names=DIGITS, batch_size=100)
    pixels = np.stack([np.asarray(test.source[index][0]) for index in test.indices])
    labels = np.array([test.source[index][1] for index in test.indices])
    logits = np.asarray(logits_of(model)((pixels / np.float32(255) - 0.5) / 0.5))
    rank = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(1)
    assert found.images == len(labels) == 359
    assert found.top1 == pytest.approx(100 * (rank < 1).mean(), abs=0.3)
    assert found.top5 == pytest.approx(100 * (rank < 5).mean(), abs=0.3)
    assert 0 < found.top1 < found.top5 < 100


def test_stablehlo_answers_as_the_network_for_any_batch(model, images, tmp_path):
    export_stablehlo(model, tmp_path / "out" / "model.stablehlo")
    exported = jax.export.deserialize((tmp_path / "out" / "model.stablehlo").read_bytes())
    for batch in (images, images[:1]):
        np.testing.assert_allclose(exported.call(batch), model.network(batch), atol=1e-5)


@pytest.mark.parametrize("kind", ["windowed", "isotropic"])
def test_onnx_answers_as_the_network_in_a_process_without_jax(kind, images, tmp_path):
    exported = make(kind)
    for answers in onnx_answers(exported, images, tmp_path):
        np.testing.assert_allclose(answers, exported.network(images[: len(answers)]), atol=1e-4)


def command(script: str, *flags: str) -> subprocess.CompletedProcess:
    program = [sys.executable, str(ROOT / "scripts" / script), *flags]
    return subprocess.run(program, env=dict(os.environ), cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_commands_evaluate_and_export(folder, tmp_path):
    done = command("evaluate.py", f"--model={folder}", "--source=digits", "--split=test", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 359
    done = command("export.py", f"--model={folder}", f"--out={tmp_path / 'out'}", "--formats=safetensors,stablehlo")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("architecture.json", "weights.safetensors", "README.md", "model.stablehlo")
    }


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("predict.py", ["--model=FOLDER", "setup.py"], "setup.py: not an image"),
        ("predict.py", ["--model=s3_t", "LICENSE"], "give its weights"),
        ("evaluate.py", ["--model=nothing", "--source=digits"], "neither the folder of a network nor a published"),
        ("evaluate.py", ["--model=FOLDER", "--source=image_folder", "--path=nowhere"], "no folder 'nowhere/val'"),
        (
            "convert_weights.py",
            ["--model=swin_b", "--weights=FOLDER/weights.safetensors", "--out=OUT"],
            "has no tensor",
        ),
        ("export.py", ["--model=FOLDER", "--out=OUT", "--formats=tflite"], "--formats has 'tflite'"),
        ("export.py", ["--model=FOLDER", "--out=OUT", "--format=onnx"], "Unknown command line flag 'format'"),
        ("predict.py", ["--model=FOLDER/..", "LICENSE"], "but of a run; its network is FOLDER"),
        ("extract_subnet.py", ["--workdir=FOLDER", "--out=OUT"], "is not the folder of a run"),
    ],
)
def test_mistakes_get_a_message_and_leave_nothing(folder, tmp_path, script, flags, message):
    out = tmp_path / "out"
    done = command(script, *(flag.replace("FOLDER", str(folder)).replace("OUT", str(out)) for flag in flags))
    assert done.returncode == 2, done.stdout + done.stderr
    assert message.replace("FOLDER", str(folder)) in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_a_file_in_the_place_of_a_folder_is_told(model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(S3Error, match=r"cannot write to .*file"):
        standalone.save(tmp_path / "file", model)
    assert (tmp_path / "file").read_text() == "in the way"
