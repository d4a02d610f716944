"""A search of segmentation networks from beginning to end: its words, its report, and the networks taken out of it."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from s3_jax.config import Config, config_of, default_config
from s3_jax.cost import Evaluated
from s3_jax.errors import S3Error
from s3_jax.networks import standalone, zoo
from s3_jax.networks.extract import extract
from s3_jax.networks.standalone import Standalone
from s3_jax.pipeline import run_pipeline
from s3_jax.report import markdown_table, result_table, write_report
from s3_jax.segmentation import inference
from s3_jax.segmentation.task import Segmentation, open_task
from s3_jax.task import Metrics
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import read_json, read_json_lines, write_json
from s3_jax.training.start import start_run

ROOT = Path(__file__).parent.parent
CLASSES = {"ground": (90, 60, 20), "sky": (40, 120, 220), "tree": (10, 140, 30)}
SIDE = 16


def write_scenes(folder: Path) -> None:
    """Skies above grounds, with a tree: grey and noisy images, masks of the classes' colours."""
    rng, colours = np.random.default_rng(0), np.array(list(CLASSES.values()), np.uint8)
    for split, count in (("train", 40), ("test", 12)):
        for number in range(count):
            classes = np.zeros((SIDE, SIDE), np.uint8)
            classes[: rng.integers(4, 12)] = 1
            row, column = rng.integers(0, SIDE - 5, 2)
            classes[row : row + 5, column : column + 5] = 2
            pixels = 60 + 70 * classes[..., None] + rng.integers(-30, 30, (SIDE, SIDE, 3))
            for kind, content in (("images", pixels.astype(np.uint8)), ("annotations", colours[classes])):
                path = folder / kind / split / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)
    lines = (" ".join(map(str, (name, *colour))) for name, colour in CLASSES.items())
    (folder / "classes.txt").write_text("\n".join(lines))


def settings(path: Path) -> Config:
    config = default_config("s3_jax.segmentation")
    config.model.update(image_size=SIDE, patch_size=4, kernel_std=0.0)
    config.space.update(
        depth=((1, 2), (1,)),
        embed_dim=((8, 16), (16, 24)),
        window=((2,), (2,)),
        mlp_ratio=((1.0,), (1.0, 2.0)),
        qkv_dim=((32,), (32, 64)),
    )
    config.head.update(channels=8, auxiliary_channels=8, classifier_std=0.0)
    config.data.update(source="mask_folder", path=str(path), holdout_fraction=0.3, test_scale=(SIDE, SIDE))
    config.data.update(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    config.augment.update(scale=(SIDE, SIDE), ratio=(1.0, 1.0), crop=SIDE, largest_class=1.0)
    train = {"epochs": 3.0, "batch_size": 8, "warmup_epochs": 0.0, "learning_rate": 3e-3, "drop_path": 0.0}
    config.train.update(train)
    config.retrain.train.update(train)
    config.evolution.update(num_spaces=2, num_samples=8, top_k=3, num_bootstrap=20, tau=3.0, rounding="toward_zero")
    config.evolution.update(step_embed_dim=8, step_window=2, step_qkv_dim=32)
    config.search.update(population=4, generations=2, top=2, mutations=2, crossovers=2)
    config.run.update(eval_batch_size=16, checkpoint_every=100, log_every=2, tensorboard=False)
    return config_of(config.to_dict())


class Search(NamedTuple):
    """A finished run."""

    workdir: Path
    config: Config
    result: dict[str, Any]
    said: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Search:
    folder = tmp_path_factory.mktemp("search")
    write_scenes(folder / "data")
    config, workdir = settings(folder / "data"), folder / "run"
    console = Console(width=200, record=True, file=io.StringIO())
    result = run_pipeline(config, workdir, console=console, stop=StopRequest())
    return Search(workdir, config, result, console.export_text())


def on_screen(result: dict[str, Any]) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(result_table(result))
    return console.export_text()


def measured(model: Standalone, finished: Search, split: str) -> Metrics:
    subset = getattr(open_task(finished.config).splits, split)
    data = finished.config.data
    return inference.evaluate(model, subset, data, batch_size=16, progress=lambda count, what: None)[0]


def test_a_runs_files_say_what_is_measured(finished):
    for name in ("result.json", "environment.json"):
        record = read_json(finished.workdir / name)
        assert (record["score_name"], record["error_name"]) == ("mIoU", "100 - mIoU")
    assert not {"score_name", "error_name"} & read_json(finished.workdir / "config.json").keys()


@pytest.mark.parametrize("version", ["before", "after"])
def test_words_of_another_version_are_no_other_run(finished, tmp_path, monkeypatch, version):
    """A run is taken up again whose files lack the names, and where the task has others by now."""
    workdir = Path(shutil.copytree(finished.workdir, tmp_path / "run"))
    if version == "before":
        record = read_json(workdir / "environment.json")
        write_json(workdir / "environment.json", {k: v for k, v in record.items() if not k.endswith("_name")})
    else:
        monkeypatch.setattr(Segmentation, "score_name", "another")
    start_run(finished.config, open_task(finished.config), workdir, Console(quiet=True), StopRequest())


def test_screen_and_markdown_name_the_score(finished):
    shown, score = on_screen(finished.result), finished.result["winner"]["test_accuracy"]
    assert "Test mIoU" in shown
    assert f"Winner: space B, {score:.2f} % test mIoU" in shown
    assert "| Test mIoU inherited (%) | Test mIoU retrained (%) |" in markdown_table(finished.result)
    inherited = finished.result["spaces"][-1]["best"]["test_accuracy_inherited"]
    assert f"{inherited:.2f} % mIoU" in finished.said
    assert not [word for word in ("acc", "top-1", "% right") if word in (shown + finished.said).lower()]


def test_the_report_has_no_word_of_classification(finished):
    page = write_report(finished.workdir).read_text()
    for words in (
        *("Test mIoU of the winner", ">Test mIoU %\ninherited<", ">Test mIoU %\nretrained<", "first test mIoU are"),
        *("whose 100 - mIoU, measured", "100 - mIoU with inherited weights (%)", "test: test mIoU, once for each"),
    ):
        assert words in page
    page = page.replace("test_accuracy", "")
    assert not [word for word in ("accurac", "acc.", "op-1") if word in page]


def test_its_networks_can_be_taken_out_without_its_data(finished, tmp_path):
    """They answer as the run has measured it: once sliced and once retrained, and any other of the space."""
    workdir = Path(shutil.copytree(finished.workdir, tmp_path / "run"))
    config = read_json(workdir / "config.json")
    config["data"]["path"] = "/nowhere"
    write_json(workdir / "config.json", config)
    best = finished.result["spaces"][-1]["best"]
    for retrained, score in ((False, best["test_accuracy_inherited"]), (True, best["test_accuracy"])):
        model = extract(workdir, retrained=retrained)
        assert model.spec.cost.params == best["params"]
        assert measured(model, finished, "test")["miou"] == pytest.approx(score, abs=0.01)
    assert model.spec.about.accuracy == f"mIoU {best['test_accuracy']:.2f} % on split test"
    assert model.spec.class_names == tuple(CLASSES)
    assert model.spec.colours == tuple(CLASSES.values())
    assert (model.spec.mean, model.spec.std) == (finished.config.data.mean, finished.config.data.std)
    assert model.spec.test_scale == (SIDE, SIDE)
    evaluated = read_json_lines(workdir / "space_1" / "evaluated.jsonl", Evaluated.from_json)
    least = min(evaluated, key=lambda one: one.cost.params)
    assert least.cost.params < 0.8 * best["params"]
    other = extract(workdir, least.architecture)
    assert other.spec.cost.params == least.cost.params
    assert measured(other, finished, "holdout")["miou"] == pytest.approx(100 - least.error, abs=0.01)
    assert (
        other.spec.about.accuracy == f"mIoU {100 - least.error:.2f} % on images of train that were held out of training"
    )


def test_the_command_writes_a_network_that_answers_the_same(finished, tmp_path):
    out = tmp_path / "network"
    program = [sys.executable, ROOT / "scripts" / "extract_subnet.py", f"--workdir={finished.workdir}", f"--out={out}"]
    done = subprocess.run([*program, "--retrained"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model = zoo.load(out)
    assert model.spec == extract(finished.workdir, retrained=True).spec
    assert json.loads((out / "architecture.json").read_text())["task"] == "s3_jax.segmentation"
    score = finished.result["winner"]["test_accuracy"]
    assert measured(model, finished, "test")["miou"] == pytest.approx(score, abs=0.01)
    card = (out / standalone.CARD).read_text()
    assert f"| score | mIoU {score:.2f} % on split test |" in card
    assert "accuracy" not in card


def test_a_network_of_another_space_is_refused(finished):
    with pytest.raises(S3Error, match="is not in the space"):
        extract(finished.workdir, zoo.architecture("s3_t"))
