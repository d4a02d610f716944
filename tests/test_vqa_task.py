"""Visual question answering as a task: one training from beginning to end, its network in all commands, and devices."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from vqa_sets import warnings_told, write_set

from s3_jax.config import config_of, default_config
from s3_jax.data.splits import whole
from s3_jax.errors import Interrupted, S3Error
from s3_jax.finetune import transfer
from s3_jax.networks import zoo
from s3_jax.networks.export import export_onnx, export_stablehlo
from s3_jax.networks.files import read_state_dict
from s3_jax.training.loop import StopRequest
from s3_jax.vqa import commands, inference
from s3_jax.vqa.dataset import open_split
from s3_jax.vqa.task import open_task

pytest.importorskip("tokenizers")
TIMEOUT = 600


def settings(folder):
    config = default_config("s3_jax.vqa")
    config.model.update(image_size=16, patch_size=2, kernel_std=0.0)
    config.backbone.update(depth=(1, 1), embed_dim=(8, 16), window=(2, 2), mlp_ratio=(1.0,) * 2, qkv_dim=(32, 32))
    config.data.update(
        source="vqa_json",
        path=str(folder),
        least_occurrences=2,
        questions_per_image=2,
        canvases=((20, 20),),
        test_scale=(20, 16),
    )
    config.augment.update(short_sides=(12, 16), long_side=20)
    config.bert.update(layers=1, width=16, heads=2, hidden=16, dropout=0.1, tokens=10, positions=12)
    config.head.update(hidden=16, dropout=0.2)
    config.train.update(epochs=2.0, batch_size=4, warmup_epochs=0.0, learning_rate=3e-3, drop_path=0.1)
    config.run.update(eval_batch_size=4, checkpoint_every=3, log_every=2, tensorboard=False)
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the questions in `set`, and a finished training in `run`."""
    folder = tmp_path_factory.mktemp("vqa")
    write_set(folder / "set", "train", images=12)
    write_set(folder / "set", "test", first=101)
    transfer(
        config_of(settings(folder / "set").to_dict()), folder / "run", console=Console(quiet=True), stop=StopRequest()
    )
    return folder


def result_of(folder):
    return json.loads((folder / "run" / "result.json").read_text())


def test_a_training_ends_with_the_accuracy_of_its_network(trained):
    result, model = result_of(trained), zoo.load(trained / "run" / "network")
    assert result["score_name"] == "VQA accuracy"
    assert set(result["metrics"]) == {"accuracy", "accuracy/other", "accuracy/yes/no"}
    assert result["test_accuracy"] == pytest.approx(result["metrics"]["accuracy"])
    assert result["dataset"]["splits"]["train"] == {"split": "train", "images": 11, "of": 12}
    params = sum(leaf.size for leaf in jax.tree.leaves(jax.tree.map(np.asarray, model.spec.state_dict(model.network))))
    statistics = 2 * model.spec.bert.width
    assert params == result["params"] + statistics
    assert model.spec.class_names == open_task(config_of(settings(trained / "set").to_dict())).images.answers


def test_the_same_questions_are_measured_by_evaluate_and_their_answers_written(trained, tmp_path):
    model = zoo.load(trained / "run" / "network")
    given = {"path": str(trained / "set"), "split": "test", "batch": 5}
    measured = commands.evaluate(model, commands.EvaluateOptions(**given, results=str(tmp_path / "results.json")))
    assert {name: measured.record[name] for name in result_of(trained)["metrics"]} == pytest.approx(
        result_of(trained)["metrics"]
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert measured.record["questions"] == len(results) == 12
    assert [each["question_id"] for each in results] == sorted(
        number for image in range(101, 107) for number in (10 * image, 10 * image + 1)
    )
    assert {each["answer"] for each in results} <= set(model.spec.class_names)
    (trained / "set" / "annotations_test.json").rename(tmp_path / "kept.json")
    try:
        options = commands.EvaluateOptions(**given, results=str(tmp_path / "again.json"))
        assert "no annotations" in commands.evaluate(model, options).words
        assert json.loads((tmp_path / "again.json").read_text()) == results
        with pytest.raises(S3Error, match=r"there is no file .*annotations_test.json: .* with --results=FILE"):
            commands.evaluate(model, commands.EvaluateOptions(**given))
    finally:
        (tmp_path / "kept.json").rename(trained / "set" / "annotations_test.json")


def test_questions_of_a_damaged_image_are_not_counted(trained, tmp_path):
    shutil.copytree(trained / "set", tmp_path / "set")
    damaged = next(
        path for path in (tmp_path / "set").rglob("*") if path.suffix in (".jpg", ".png") and "101" in path.name
    )
    damaged.write_bytes(damaged.read_bytes()[:100])
    options = commands.EvaluateOptions(path=str(tmp_path / "set"), split="test", batch=5, skip_bad_images=True)
    assert commands.evaluate(zoo.load(trained / "run" / "network"), options).record["questions"] == 10


def test_a_file_of_answers_that_lacks_some_is_told(trained, tmp_path, monkeypatch):
    told = warnings_told(monkeypatch)
    shutil.copytree(trained / "set", tmp_path / "set")
    pictures = tmp_path / "set" / "images" / "test"
    (pictures / f"{101:012}.jpg").write_bytes(b"")
    (pictures / f"{102:012}.jpg").unlink()
    results = tmp_path / "results.json"
    options = commands.EvaluateOptions(
        path=str(tmp_path / "set"), split="test", batch=5, skip_bad_images=True, results=str(results)
    )
    commands.evaluate(zoo.load(trained / "run" / "network"), options)
    assert len(json.loads(results.read_text())) == 8
    assert [text for text in told if "no answer in it" in text] == [
        f"{results}: 4 of 12 questions have no answer in it, as their images were left out: a challenge's server "
        "refuses such a file"
    ]


def of_other_answers(right):
    """A change to a set: all people give one answer to the questions about colours, and another to the rest."""

    def change(questions, annotations):
        for record in annotations:
            answer = right if record["answer_type"] == "other" else "zebra"
            record.update(multiple_choice_answer=answer, answers=[answer] * 3)

    return change


def test_answers_that_a_network_does_not_have_are_told_and_where_it_has_none_refused(trained, tmp_path, monkeypatch):
    told = warnings_told(monkeypatch)
    model = zoo.load(trained / "run" / "network")
    write_set(tmp_path, "some", first=101, change=of_other_answers("red"))
    write_set(tmp_path, "none", first=201, change=of_other_answers("lion"))
    commands.evaluate(model, commands.EvaluateOptions(path=str(tmp_path), split="some"))
    count = len(model.spec.class_names)
    assert told[0] == f"some: 6 of 12 questions have no answer among the network's {count}"
    assert told[1].endswith("an answer given by all of them counts 66.67 %")
    with pytest.raises(S3Error, match=rf"none of 12 questions has an answer among the network's {count}; .*'lion'"):
        commands.evaluate(model, commands.EvaluateOptions(path=str(tmp_path), split="none"))


def test_a_file_of_answers_that_cannot_be_written_is_refused_before_measuring(trained, tmp_path, monkeypatch):
    model = zoo.load(trained / "run" / "network")
    monkeypatch.setattr(inference, "answers_of", lambda *given, **named: pytest.fail("it was measured"))
    (tmp_path / "file").write_text("")
    for results, message in (
        (tmp_path, "is a folder: give a file"),
        (tmp_path / "file" / "x", "cannot be written"),
    ):
        options = commands.EvaluateOptions(path=str(trained / "set"), split="test", results=str(results))
        with pytest.raises(S3Error, match=rf"--results={results} {message}"):
            commands.evaluate(model, options)


def test_a_question_is_answered_and_what_is_no_image_named(trained, tmp_path, capsys):
    model = zoo.load(trained / "run" / "network")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    (tmp_path / "bad.png").write_bytes(b"")
    paths = [tmp_path / "red.png", tmp_path / "bad.png"]
    options = commands.PredictOptions(question="Is it red?")
    assert commands.predict(model, paths, options, as_json=True) == 2
    said = capsys.readouterr()
    assert said.err == f"predict: {tmp_path}/bad.png: not an image: the file is empty\n"
    record = json.loads(said.out)
    scores = list(record["answers"].values())
    assert scores == sorted(scores, reverse=True)
    assert (record["question"], len(scores)) == ("Is it red?", min(5, len(model.spec.class_names)))
    assert commands.predict(model, paths[:1], options, as_json=False) == 0
    best = next(iter(record["answers"]))
    assert capsys.readouterr().out.startswith(f"{tmp_path}/red.png: {best} ")
    for nothing in ("", "  ?"):
        with pytest.raises(S3Error, match=r'ask one with --question="\.\.\."'):
            commands.PredictOptions(question=nothing)


def test_a_question_that_is_no_text_is_refused():
    with pytest.raises(S3Error, match=r'--question="what \\xff is" is not valid Unicode'):
        commands.PredictOptions(question=os.fsdecode(b"what \xff is"))


def test_exports_answer_as_the_network(trained, tmp_path):
    model = zoo.load(trained / "run" / "network")
    task = inference.task_of(model)
    source = open_split(commands.EvaluateOptions(path=str(trained / "set")).data_config(), "test")
    examples = [task.examples(whole(source, "test"), training=False).example(row, None) for row in range(12)]
    of_canvas = [each for each in examples if each["image"].shape[:2] == model.spec.export_size][:3]
    arrays = [np.stack([each[name] for each in of_canvas]) for name in ("image", "size", "words")]
    expected = jax.jit(model.network.__call__)(*arrays)[:, 0]
    arrays[2] = arrays[2][:, 0]
    export_stablehlo(model, tmp_path / "model.stablehlo")
    exported = jax.export.deserialize((tmp_path / "model.stablehlo").read_bytes())
    np.testing.assert_allclose(exported.call(*arrays), expected, atol=1e-5)
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e .[test]")
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed: pip install -e .[test]")
    try:
        export_onnx(model, tmp_path / "model.onnx")
    except S3Error as error:
        if jax.__version__.startswith("0.10."):
            raise
        pytest.skip(f"not our fault, and told to users: {error}")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for count in (1, 3):
        given = {each.name: array[:count] for each, array in zip(session.get_inputs(), arrays, strict=True)}
        np.testing.assert_allclose(session.run(None, given)[0], expected[:count], atol=1e-5)


class StopsAtOnce(StopRequest):
    """A request to stop that is there as soon as it is asked for."""

    def asked(self):
        return True


def test_a_training_that_was_stopped_goes_on_to_the_same_network(trained, tmp_path):
    config = config_of(settings(trained / "set").to_dict())
    with pytest.raises(Interrupted):
        transfer(config, tmp_path, console=Console(quiet=True), stop=StopsAtOnce())
    result = transfer(config, tmp_path, console=Console(quiet=True), stop=StopRequest())
    assert result["metrics"] == result_of(trained)["metrics"]
    # Not the files' bytes: safetensors writes what a file says of itself in any order.
    first, second = (
        read_state_dict(folder / "network" / "weights.safetensors") for folder in (tmp_path, trained / "run")
    )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor, second[name])
    (trained / "answers.txt").write_text("yes\nno\n")
    other = settings(trained / "set")
    other.data.answers_file = str(trained / "answers.txt")
    with pytest.raises(S3Error, match="answers_file"):
        transfer(config_of(other.to_dict()), tmp_path, console=Console(quiet=True), stop=StopRequest())


def test_four_devices_do_what_one_does():
    flags = f"--xla_force_host_platform_device_count=4 {os.environ.get('XLA_FLAGS', '')}"
    program = [sys.executable, str(Path(__file__).with_name("vqa_device_programs.py"))]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout)
    assert set(differences) == {"loss", "gradient", "statistics"}
    assert max(differences.values()) <= 1e-5, differences
