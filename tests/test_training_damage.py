"""Records that a power cut or another hand has damaged: named or left out, never a traceback or another result."""

import json
import types

import pytest

from s3_jax.classification import recorded_task
from s3_jax.config import RunConfig
from s3_jax.cost import Evaluated, cost
from s3_jax.errors import S3Error
from s3_jax.networks.extract import _needed
from s3_jax.space import Architecture, Block, Stage
from s3_jax.training.evaluate import EvaluationRecord
from s3_jax.training.records import Metrics, append_json_line, read_json, read_json_lines, read_record

ZEROS = b"\0" * 50
DAMAGE = [ZEROS, b'{"phase": "space_0", "step"', b"\xff\xfe", b"7", b"[]", b'{"step": 3}']


def cost_of(architecture):
    return cost(architecture, image_size=8, patch_size=2, num_classes=10)


def architecture(width):
    return Architecture((Stage(width, (Block(2, 1.0, 32),)),))


def evaluations(path, error_of):
    stop, task = types.SimpleNamespace(asked=lambda: False), types.SimpleNamespace(cost=cost_of)
    run = types.SimpleNamespace(stop=stop, task=task)
    return EvaluationRecord(run, path, lambda: error_of)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_of_metrics_is_left_out_and_told(tmp_path, damage, caplog):
    metrics, path = Metrics(tmp_path, RunConfig(tensorboard=False), active=True), tmp_path / "metrics.jsonl"
    metrics.write("space_0", 2, {"loss": 2.0})
    path.write_bytes(path.read_bytes() + damage + b"\n")
    metrics.write("space_0", 4, {"loss": 4.0})
    metrics.forget_after("space_0", 9)
    assert [line["step"] for line in read_json_lines(path)] == [2, 4]
    assert path.read_bytes().count(b"\n") == 2
    assert f"line 2 of {path} is damaged and left out" in caplog.text


@pytest.mark.parametrize("damage", [*DAMAGE, b'{"architecture": {"stages": []}, "params": 1, "macs": 1, "error": 5.0}'])
def test_a_damaged_evaluation_is_done_again(tmp_path, damage):
    path, asked = tmp_path / "evaluated.jsonl", []
    first = evaluations(path, lambda one: 50.0)
    whole = [first(architecture(width)) for width in (8, 16, 24)]
    expected = path.read_bytes()
    lines = expected.split(b"\n")
    path.write_bytes(b"\n".join([lines[0], damage, lines[2], b""]))

    def error_of(one):
        asked.append(one)
        return 50.0

    again = evaluations(path, error_of)
    assert [again(architecture(width)) for width in (8, 16, 24)] == whole
    assert asked == [architecture(16)]
    assert sorted(path.read_bytes().split(b"\n")) == sorted(lines)


def test_an_evaluation_whose_numbers_cannot_be_its_own_is_done_again(tmp_path):
    path = tmp_path / "evaluated.jsonl"
    append_json_line(path, Evaluated(architecture(8), cost_of(architecture(16)), 5.0).to_json())
    append_json_line(path, Evaluated(architecture(16), cost_of(architecture(16)), 500.0).to_json())
    record = evaluations(path, lambda one: 50.0)
    assert [record(architecture(width)).error for width in (8, 16)] == [50.0, 50.0]


def test_doubled_evaluations_are_kept_once(tmp_path):
    path = tmp_path / "evaluated.jsonl"
    for _ in range(2):
        append_json_line(path, Evaluated(architecture(8), cost_of(architecture(8)), 5.0).to_json())
    evaluations(path, lambda one: 50.0)
    assert len(read_json_lines(path)) == 1


@pytest.mark.parametrize("content", [b"", ZEROS, b"\xff{}", b"[]", b"{}", b'{"space": {"stages": 3}}', b"null"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, content):
    path = tmp_path / "space.json"
    path.write_bytes(content)
    with pytest.raises(S3Error, match=r"space.json is .*remove it, and its phase is done again"):
        read_record(path, lambda record: [stage["depth"] for stage in record["space"]["stages"]])


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "state.json").write_bytes(b"\xff\xfe")
    with pytest.raises(S3Error, match=r"state.json is not a JSON file"):
        read_json(tmp_path / "state.json")


def test_weights_are_taken_out_of_a_run_of_another_version():
    """Only what networks need is asked for: fields that are unknown, missing or unrelated do not count."""
    settings = {
        "model": {"image_size": 64, "sliced_largest": True},
        "data": {"mean": [0.5, 0.5, 0.5], "source": "webdataset", "std": [0.25, 0.25, 0.25]},
        "train": {"epochs": 3, "lookahead": 5},
        "retrain": {"train": {"ema_decay": 0.9, "epochs": 7}},
        "evolution": {"rule": "unheard of"},
    }
    config = _needed(json.loads(json.dumps(settings)))
    assert (config.model.image_size, config.train.epochs) == (64, 3.0)
    assert (config.retrain.train.epochs, config.retrain.from_supernet) == (7.0, True)
    task = recorded_task(json.loads(json.dumps(settings)), {"num_classes": 3})
    assert (task.model.image_size, task.data.mean, task.class_names) == (64, (0.5, 0.5, 0.5), ("0", "1", "2"))
