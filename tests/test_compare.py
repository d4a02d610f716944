"""Comparisons: their names, their runs and their table, with networks of ours; timm's are in test_compare_timm.py."""

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_config
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Console

from s3_jax.classification import inference
from s3_jax.classification.dataset import open_split
from s3_jax.comparison import published
from s3_jax.comparison.ours import Ours
from s3_jax.comparison.plan import Plan, folder_of, plan_of
from s3_jax.comparison.running import run_comparison
from s3_jax.comparison.table import screen_table, trained_row
from s3_jax.config import Config, config_of
from s3_jax.errors import Interrupted, S3Error
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.networks import standalone, zoo
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.convert import params_of
from s3_jax.networks.standalone import Standalone
from s3_jax.report.published_figure import published as table_1
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import read_json

ROOT = Path(__file__).parent.parent
# They compile quickly.
PLAIN, OTHER = IsotropicArchitecture(8, 1, 2), IsotropicArchitecture(16, 1, 2)


class StopAfter(StopRequest):
    """Asks for a stop at its n-th question, and at none with 0."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self.left = questions

    def asked(self) -> bool:
        self.left -= 1
        return self.left == 0


def config(**changes: Any) -> Config:
    """The tiny configuration of the pipeline's tests; changes: of fields by dotted names, dots as two underscores."""
    made = tiny_config.get_config()
    made.run.update(tensorboard=False, checkpoint_every=100)
    for name, value in changes.items():
        made.update_from_flattened_dict({name.replace("__", "."): value})
    return config_of(made.to_dict())


def save(folder: Path, architecture: Any, seed: int = 1, patch_size: int = 4) -> None:
    """The folder of a network for the digits."""
    look = {"mean": (0.3,) * 3, "std": (0.38,) * 3, "eval_crop": 1.0}
    spec = ClassifierSpec(architecture, 8, patch_size, tuple("0123456789"), **look)
    standalone.save(folder, Standalone(spec.build(rngs=nnx.Rngs(seed)), spec))


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Comparisons let go of their programs after each training; here the next one reads them from a folder."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two networks; their patches differ."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "plain", PLAIN)
    save(tmp_path / "other", OTHER, patch_size=8)
    return tmp_path


def compare(plan: Plan, workdir: Path, stop_after: int = 0) -> str:
    """Do a comparison. Returns what the screen has shown."""
    screen = io.StringIO()
    run_comparison(plan, workdir, console=Console(file=screen, width=200), stop=StopAfter(stop_after))
    return screen.getvalue()


def times(workdir: Path) -> dict[Path, int]:
    """When the files of all trainings were written, but for those that lock them."""
    files = [path for path in workdir.glob("seed_*/*/**/*") if path.is_file() and path.name != ".lock"]
    return {path: path.stat().st_mtime_ns for path in files}


def test_the_table_is_what_the_results_of_the_trainings_say(home: Path) -> None:
    plan = plan_of(config(), "other,plain", "plain", "2")
    said = compare(plan, home / "out")
    record = read_json(home / "out" / "compare.json")
    assert [row["model"] for row in record["models"]] == ["other", "plain", "plain"]
    for row, model in zip(record["models"], plan.trained, strict=False):
        results = [read_json(folder_of(home / "out", seed, model) / "result.json") for seed in (0, 1)]
        assert row["top1_of_seeds"] == [result["metrics"]["top1"] for result in results]
        assert row["top5_of_seeds"] == [result["metrics"]["top5"] for result in results]
        assert row["top1"] == pytest.approx(np.mean(row["top1_of_seeds"]))
        assert row["top5"] == pytest.approx(np.mean(row["top5_of_seeds"]))
        assert (row["params"], row["macs"]) == (results[0]["params"], results[0]["macs"])
        assert (row["seeds"], row["made"]) == ([0, 1], "trained from scratch under this recipe")
        assert f"{row['top1']:.2f}" in said
        trained = zoo.load(folder_of(home / "out", 1, model) / "network").spec
        assert (trained.architecture, trained.patch_size) == {"other": (OTHER, 8), "plain": (PLAIN, 4)}[model.name]
    given = record["models"][2]
    assert (given["made"], given["seeds"], given["paper_imagenet_top1"]) == ("evaluated with plain", [], None)
    assert given["top1"] == own_accuracy(home / "plain").top1
    rows = list(csv.DictReader(io.StringIO((home / "out" / "compare.csv").read_text())))
    for cells, row in zip(rows, record["models"], strict=True):
        assert (cells["model"], float(cells["top1"]), int(cells["macs"])) == (row["model"], row["top1"], row["macs"])
        assert [float(each) for each in cells["top1_of_seeds"].split()] == row["top1_of_seeds"]


def own_accuracy(folder: Path) -> inference.Accuracy:
    data = config().data
    split = open_split(data, "test")  # type: ignore[arg-type]
    how = {"class_names": split.class_names, "batch_size": 64}
    return inference.accuracy(zoo.load(folder), split.images, data, **how)  # type: ignore[arg-type]


def test_what_is_finished_is_kept_and_models_and_seeds_are_added(home: Path) -> None:
    compare(plan_of(config(), "plain", "", "1"), home / "out")
    for models, seeds, number in (("other,plain", "1", 2), ("plain", "2", 2), ("plain,other", "1", 2)):
        before = times(home / "out")
        compare(plan_of(config(), models, "", seeds), home / "out")
        kept = times(home / "out")
        assert before == {path: kept[path] for path in before}
        record = read_json(home / "out" / "compare.json")
        assert sum(len(row["seeds"]) for row in record["models"]) == number
    finished = {"/".join(path.parts[-3:-1]) for path in kept if path.name == "result.json"}
    assert finished == {"seed_0/plain", "seed_1/plain", "seed_0/other"}
    assert before == kept  # all was there


def test_stopped_again_and_again_it_ends_as_if_it_had_not_been(home: Path) -> None:
    plan = plan_of(config(), "plain", "", "1")
    compare(plan, home / "whole")
    stops = 0
    while True:
        try:
            compare(plan, home / "stopped", stop_after=4)
            break
        except Interrupted:
            stops += 1
            assert not (home / "stopped" / "compare.json").exists()
    assert stops == 2
    for name in ("compare.csv", "seed_0/plain/result.json"):
        assert (home / "stopped" / name).read_bytes() == (home / "whole" / name).read_bytes()
    stopped, whole = (zoo.load(home / name / "seed_0/plain/network") for name in ("stopped", "whole"))
    jax.tree.map(np.testing.assert_array_equal, params_of(stopped.network), params_of(whole.network))


def test_weights_are_measured_once_and_again_where_they_are_others(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    real = inference.accuracy

    def noted(model: Standalone, *rest: Any, **how: Any) -> inference.Accuracy:
        measured.append("plain" if model.spec.architecture == PLAIN else "other")
        return real(model, *rest, **how)

    monkeypatch.setattr(inference, "accuracy", noted)
    plan = plan_of(config(), "", "other,plain", "1")
    compare(plan, home / "out")
    compare(plan, home / "out")
    assert measured == ["other", "plain"]
    save(home / "plain", PLAIN, seed=2)
    compare(plan, home / "out")
    assert measured == ["other", "plain", "plain"]
    assert read_json(home / "out" / "compare.json")["models"][1]["top1"] == own_accuracy(home / "plain").top1


def test_another_recipe_or_network_is_refused_before_any_training(home: Path) -> None:
    compare(plan_of(config(), "plain", "", "1"), home / "out")
    other = plan_of(config(train__epochs=0.3), "other,plain", "", "1")
    with pytest.raises(S3Error, match=r"config\.train\.epochs: 0\.4 there, 0\.3 now"):
        compare(other, home / "out")
    save(home / "plain", IsotropicArchitecture(8, 2, 2))
    with pytest.raises(S3Error, match="holds a training that began with another network"):
        compare(plan_of(config(), "other,plain", "", "1"), home / "out")
    assert not (home / "out" / "seed_0" / "other").exists()
    (home / "run").mkdir()
    (home / "run" / "config.json").write_text("{}")
    with pytest.raises(S3Error, match="holds a run, not a comparison"):
        compare(other, home / "run")


def test_a_model_that_cannot_be_is_refused_before_any_training(home: Path) -> None:
    with pytest.raises(S3Error, match="--models, deit_s: images of 8 pixels cannot be cut into patches of 16"):
        compare(plan_of(config(), "other,deit_s", "", "1"), home / "out")
    save(home / "letters", PLAIN)
    record = home / "letters" / standalone.RECORD
    changed = json.loads(record.read_text()) | {"class_names": list("abcdefghij")}
    record.write_text(json.dumps({key: value for key, value in changed.items() if key != "crc32"}))
    with pytest.raises(S3Error, match="--evaluate, letters: the classes of the data are not the network's"):
        compare(plan_of(config(), "other", "letters", "1"), home / "out")
    assert not (home / "out" / "seed_0").exists()


def test_a_training_that_fails_keeps_no_other_from_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Ours.train

    def train(self: Ours, *rest: Any, **how: Any) -> dict[str, Any]:
        if self.name == "other":
            raise S3Error("the loss is not finite")
        return real(self, *rest, **how)

    monkeypatch.setattr(Ours, "train", train)
    with pytest.raises(S3Error, match="1 of 2 trainings failed, the others are shown: other, seed 0: the loss is not"):
        compare(plan_of(config(), "other,plain", "", "1"), home / "out")
    record = read_json(home / "out" / "compare.json")
    assert [row["model"] for row in record["models"]] == ["plain"]
    assert record["failed"] == {"other, seed 0": "the loss is not finite"}


@pytest.mark.parametrize(
    ("models", "evaluate", "seeds", "message"),
    [
        ("", "", "1", "there is nothing to compare: name models in --models, or weights in --evaluate"),
        ("s3_q", "", "1", "--models: there is no model 's3_q'. Expected a published model, of s3_t, s3_s"),
        (
            "t2t_vit_14",
            "",
            "1",
            "t2t_vit_14: of the paper's Table 1 the T2T-ViTs and BoTNet-S1-110 are neither in timm",
        ),
        ("timm:BoTNet-S1-110", "", "1", "neither in timm nor here"),
        ("plain", "t2t-vit-24=w.pth", "1", "neither in timm nor here"),
        ("plain,plain", "", "1", "--models names plain twice"),
        ("plain,./plain/", "", "1", "--models names plain twice"),
        ("other", "plain,plain", "1", "--evaluate names plain twice"),
        ("s3_t=w.pth", "", "1", "--evaluate=s3_t=w.pth measures weights as they are"),
        ("", "s3_t", "1", "--evaluate has s3_t without weights: give them as s3_t=FILE or s3_t=hf-hub:owner/name"),
        ("", "no_folder", "1", "--evaluate: there is no model 'no_folder'"),
        ("plain", "", "0", "--seeds=0: expected how many seeds"),
    ],
)
def test_names_that_are_none_are_told_with_those_that_are(
    home: Path, models: str, evaluate: str, seeds: str, message: str
) -> None:
    with pytest.raises(S3Error) as caught:
        plan_of(config(), models, evaluate, seeds)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_that_fit_no_comparison_are_refused(home: Path) -> None:
    for changes, message in (
        ({"train__init_from": "plain"}, "a comparison trains from scratch"),
        ({"backbone__model": "plain"}, "config.backbone names one network"),
    ):
        with pytest.raises(S3Error, match=message):
            plan_of(config(**changes), "plain", "", "1")
    with pytest.raises(S3Error, match="a comparison is of classifiers"):
        plan_of(Config(task="another.task"), "plain", "", "1")


def test_without_timm_its_models_are_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(S3Error, match=r"models of timm's need PyTorch and timm.*pip install -e \.\[parity\]"):
        plan_of(config(), "timm:resnet50", "", "1")


def test_every_row_of_table_1_is_a_models_or_nowhere() -> None:
    rows = {row["model"]: float(row["accuracy"]) for row in table_1()}
    nowhere = rows.keys() - published.ROWS.values()
    assert nowhere == {"T2T-ViT-14", "T2T-ViT-24", "BoTNet-S1-110"}
    for name in nowhere:
        with pytest.raises(S3Error):
            published.check_somewhere(name)
    assert set(zoo.names()) <= published.ROWS.keys()
    for name, row in published.ROWS.items():
        assert published.published_top1(name) == rows[row]
        published.check_somewhere(name)
    assert published.published_top1("timm:resnet50.a1_in1k") == rows["ResNet50"]
    assert published.published_top1("runs/mine/network") is None


def test_the_published_accuracy_stands_beside_ours(home: Path) -> None:
    result = {"params": 28_000_000, "macs": 4_700_000_000, "metrics": {"top1": 50.0, "top5": 75.0}}
    row = trained_row("s3_t", 224, {0: result}, num_classes=10)
    assert row.to_json()["paper_imagenet_top1"] == 82.1
    assert trained_row("s3_t", 224, {0: result}, num_classes=5).to_json()["top5"] is None
    screen = io.StringIO()
    Console(file=screen, width=120).print(screen_table([row, dataclasses.replace(row, model="[b]mine")], "digits"))
    assert "82.1" in screen.getvalue()
    assert "[b]mine" in screen.getvalue()
    assert "Table 1, on ImageNet, by other recipes" in screen.getvalue()


def test_a_mistake_gets_one_paragraph_and_leaves_nothing(tmp_path: Path) -> None:
    flags = [f"--config={ROOT / 'tests' / 'tiny_config.py'}", f"--workdir={tmp_path / 'out'}"]
    program = [sys.executable, str(ROOT / "scripts" / "compare.py"), *flags, "--models=t2t_vit_14"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("s3_jax: t2t_vit_14: of the paper's Table 1")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_rooms_modules_load_without_timm() -> None:
    """As the check of the package needs it, whatever is installed here."""
    blocked = "import sys; sys.modules.update(torch=None, timm=None); import s3_jax.comparison.timm_training"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", blocked], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
