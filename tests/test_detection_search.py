"""A search of detectors from beginning to end, and what the commands do with a network that is taken out of it."""

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from rich.console import Console
from small_detector import IDS, NAMES, SIDE, settings, write_squares

from s3_jax.config import Config, config_of
from s3_jax.cost import Evaluated
from s3_jax.detection import commands, inference
from s3_jax.detection.task import open_task
from s3_jax.errors import S3Error
from s3_jax.networks import standalone, zoo
from s3_jax.networks.export import export_onnx, export_stablehlo
from s3_jax.networks.extract import extract
from s3_jax.networks.standalone import Standalone
from s3_jax.pipeline import run_pipeline
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import read_json, read_json_lines


class Search(NamedTuple):
    """A finished run."""

    data: Path
    workdir: Path
    config: Config
    result: dict[str, Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Search:
    folder = tmp_path_factory.mktemp("search")
    write_squares(folder / "data")
    config = config_of(settings(folder / "data").to_dict())
    console = Console(width=200, file=io.StringIO())
    result = run_pipeline(config, folder / "run", console=console, stop=StopRequest())
    return Search(folder / "data", folder / "run", config, result)


@pytest.fixture(scope="module")
def model(finished, tmp_path_factory) -> Standalone:
    """The retrained winner, read from its folder."""
    folder = tmp_path_factory.mktemp("network")
    standalone.save(folder, extract(finished.workdir, retrained=True))
    return zoo.load(folder)


def options(finished, **more):
    return commands.EvaluateOptions(**{"path": str(finished.data), "split": "test", "batch": 6} | more)


def test_a_search_measures_by_what_is_missing_to_a_box_ap_of_100_percent(finished):
    record = read_json(finished.workdir / "result.json")
    assert (record["score_name"], record["error_name"]) == ("box AP", "100 - box AP")
    evaluated = read_json_lines(finished.workdir / "space_0" / "evaluated.jsonl", Evaluated.from_json)
    errors = [each.error for each in evaluated]
    assert len({each.architecture for each in evaluated}) == len(errors) >= 4
    assert all(0 <= error <= 100 for error in errors)
    assert min(errors) < 100  # so that networks are told apart at all
    task = open_task(finished.config)
    assert all(each.cost == task.cost(each.architecture) for each in evaluated)
    splits = read_json(finished.workdir / "environment.json")["dataset"]["splits"]
    assert [splits[use]["images"] for use in ("train", "holdout", "test")] == [
        len(task.splits.train),
        4,
        6,
    ]
    assert len(task.splits.train_and_holdout) == 14  # of 16, two of which have no object


def test_networks_taken_out_of_it_answer_as_the_run_has_measured(finished):
    evaluated = read_json_lines(finished.workdir / "space_0" / "evaluated.jsonl", Evaluated.from_json)
    other = min(evaluated, key=lambda one: one.cost.params)
    task = open_task(finished.config)
    model = extract(finished.workdir, other.architecture)
    assert model.spec.cost == other.cost
    lines = inference.lines_of_split(
        model, task.splits.holdout, finished.config.data, batch_size=6, progress=lambda count, what: None
    )
    assert task.error(task.score(lines)) == pytest.approx(other.error, abs=0.05)


def test_the_folder_of_a_network_answers_as_the_run_has_measured_it(finished, model, tmp_path):
    score = finished.result["winner"]["test_accuracy"]
    measured = commands.evaluate(model, options(finished, results=str(tmp_path / "found.json")))
    assert measured.record["box/ap"] == pytest.approx(score, abs=0.05)
    assert measured.record["images"] == 6
    assert model.spec.about.accuracy == f"box AP {score:.2f} % on split test"
    assert (model.spec.class_names, model.spec.category_ids) == (NAMES, IDS)
    heading, first, *_, last = measured.words.splitlines()
    assert heading.split() == ["box", "%", "mask", "%"]
    assert first.split() == ["ap", f"{measured.record['box/ap']:.2f}", f"{measured.record['mask/ap']:.2f}"]
    assert last.startswith("square")  # of the other class there is no object, and so no row
    truth = COCO(str(finished.data / "annotations" / "instances_test.json"))
    results = json.loads((tmp_path / "found.json").read_text())
    assert len(truth.loadRes(results).getImgIds()) == 6
    assert {result["category_id"] for result in results} <= set(IDS)


def test_pictures_of_what_is_found_and_what_is_no_image(finished, model, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"")
    paths = [finished.data / "test" / "0.png", tmp_path / "bad.png"]
    asked = commands.PredictOptions(out=str(tmp_path / "out"), least_score=0.0)
    assert commands.predict(model, paths, asked, as_json=True) == 2
    said = capsys.readouterr()
    assert said.err == f"predict: {tmp_path}/bad.png: not an image: the file is empty\n"
    (record,) = map(json.loads, said.out.splitlines())
    assert record["image"] == {"id": 0, "file_name": str(paths[0]), "height": SIDE, "width": SIDE}
    scores = [result["score"] for result in record["results"]]
    assert scores == sorted(scores, reverse=True)
    with Image.open(record["overlay"]) as picture, Image.open(paths[0]) as image:
        factor = picture.width // image.width
        assert (picture.width, picture.height) == (factor * SIDE, factor * SIDE)
        drawn = np.asarray(picture.convert("RGB"))[::factor, ::factor]
        assert np.any(drawn != np.asarray(image))
    strict = commands.PredictOptions(out=str(tmp_path / "out"), least_score=1.0)
    assert commands.predict(model, paths[:1], strict, as_json=False) == 0
    assert capsys.readouterr().out == f"{paths[0]}: nothing; {tmp_path}/out/0_objects.png\n"


def test_answers_that_are_no_numbers_are_refused(finished, model):
    broken = Standalone(model.spec.build(), model.spec)
    broken.network.box_heads[1].classifier.bias[...] *= np.nan
    broken.network.box_heads[1].classifier.bias[...] += np.nan
    with pytest.raises(S3Error, match="answers to 1 of 1 images are not finite"):
        list(inference.predict(broken, [finished.data / "test" / "0.png"]))


def test_data_of_other_categories_and_flags_that_are_none_are_refused(finished, model):
    other = standalone.Standalone(
        model.network, model.spec.__class__.from_json(model.spec.to_json() | {"category_ids": [1, 2]})
    )
    with pytest.raises(
        S3Error, match="the network's categories are 1 other, 2 square, and the data's 4 other, 7 square"
    ):
        commands.evaluate(other, options(finished))
    with pytest.raises(S3Error, match="a detector answers with pictures: give a folder for them with --out"):
        commands.PredictOptions()
    with pytest.raises(S3Error, match=r"--least_score=1\.5: expected a number from 0 to 1"):
        commands.PredictOptions(out="out", least_score=1.5)


def test_stablehlo_answers_as_the_network_for_any_batch(model, tmp_path):
    export_stablehlo(model, tmp_path / "model.stablehlo")
    exported = jax.export.deserialize((tmp_path / "model.stablehlo").read_bytes())
    images = np.random.default_rng(0).normal(size=(3, SIDE, SIDE, 3)).astype(np.float32)
    boxes, scores, labels, masks = exported.call(images)
    expected = jax.jit(model.spec.as_function(model.network, (SIDE, SIDE)))(images)
    for found, wanted in zip((boxes, scores, labels, masks), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert exported.call(images[:1])[0].shape == (1, *boxes.shape[1:])
    with pytest.raises(S3Error, match="40 x 32 pixels do not fit a network whose coarsest map has a stride of 32"):
        export_stablehlo(model, tmp_path / "none", (40, SIDE))
    with pytest.raises(
        S3Error, match=r"a detector cannot be converted to ONNX: .*; leave it out: --formats=safetensors,"
    ):
        export_onnx(model, tmp_path / "none")
