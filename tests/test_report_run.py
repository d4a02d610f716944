"""A run folder for the report's tests, made by the method itself from made-up errors; and tests of reading one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3_jax.cost import Evaluated, cost
from s3_jax.errors import S3Error
from s3_jax.et_error import DimensionMeasure, ETError
from s3_jax.evolution import DimensionEvolution, EvolutionConfig, evolve
from s3_jax.report.facts import facts
from s3_jax.report.records import read_run
from s3_jax.slopes import Slope
from s3_jax.space import Architecture, SearchSpace, StageSpace, map_sizes, sample

IMAGE_SIZE, PATCH_SIZE, NUM_CLASSES = 64, 1, 10
SPLITS = {
    "train": {"split": "train", "images": 45_000, "of": 50_000},
    "holdout": {"split": "train", "images": 5_000, "of": 50_000},
    "test": {"split": "test", "images": 10_000, "of": 10_000},
}
ENVIRONMENT = {
    "python": "3.11.9",
    "packages": {"s3_jax": "0.1.0", "jax": "0.10.2", "flax": "0.12.8"},
    "devices": {"platform": "cpu", "kind": "cpu", "count": 1},
    "git_revision": "1732a47b0c1d2e3f40516273849aabbccddeeff0",
    "git_changes": False,
    "command": ["main.py", "--config=configs/cifar10.py"],
}


def start_space(num_stages: int = 4) -> SearchSpace:
    stage = StageSpace((2, 3, 4), (64, 80, 96), (7, 14), (3.0, 3.5, 4.0), (64, 96, 128))
    return SearchSpace((stage,) * num_stages)


def write_run(
    workdir: Path, *, space: SearchSpace | None = None, num_spaces: int = 3, num_samples: int = 60, seed: int = 0
) -> dict[str, Any]:
    """Write a finished run whose errors follow a made-up law; return its result.json."""
    rng = np.random.default_rng(seed)
    space, notes = space or start_space(), []
    sides = map_sizes(IMAGE_SIZE, PATCH_SIZE, len(space.stages))
    settings = EvolutionConfig(num_spaces=num_spaces, step_embed_dim=16, step_qkv_dim=32, num_bootstrap=50)
    rows, losses = [], []
    for k in range(num_spaces):
        space = space.clamped(sides)
        name, folder = _name(k), workdir / f"space_{k}"
        record = {"iteration": k, "name": name, "space": space.to_json(), "size": space.size(), "notes": notes}
        write_json(folder / "space.json", record)
        evaluated = [_evaluated(sample(space, rng), k, rng) for _ in range(num_samples)]
        evolution = evolve(space, evaluated, settings, map_sizes=sides, seed=seed)
        write_json(folder / "et_error.json", evolution.to_json())
        (folder / "evaluated.jsonl").write_text("".join(json.dumps(one.to_json()) + "\n" for one in evaluated))
        best = min(evaluated, key=lambda one: one.error).to_json()
        write_json(folder / "search" / "best.json", best)
        write_json(folder / "search" / "state.json", {"evaluated": [one.to_json() for one in evaluated]})
        retrained = 100.0 - best["error"] + 1.5 if k == num_spaces - 1 else None
        accuracies = {"test_accuracy_inherited": 99.6 - best["error"], "test_accuracy": retrained}
        rows.append({"name": name, "size": space.size(), "et_error": evolution.to_json()["space"]})
        rows[-1]["best"] = best | accuracies
        losses += _losses(f"space_{k}", 2.2 - 0.2 * k, rng)
        space, notes = evolution.space, list(evolution.notes)
    losses += _losses(f"retrain/best_{_name(num_spaces - 1)}", 1.6, rng)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in losses))
    return _write_result(workdir, rows, seed)


def write_json(path: Path, record: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def stop_in_space_c(workdir: Path) -> None:
    """Take away what a finished run has and one that was stopped while training space C's supernet has not."""
    (workdir / "result.json").unlink()
    (workdir / "space_2" / "et_error.json").unlink()
    shutil.rmtree(workdir / "space_2" / "search")


def _write_result(workdir: Path, rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    kept = ("architecture", "params", "macs", "test_accuracy")
    winner = {"space": rows[-1]["name"]} | {key: rows[-1]["best"][key] for key in kept}
    dataset = {"source": "tfds", "name": "cifar10", "num_classes": NUM_CLASSES, "splits": SPLITS}
    result = {"seed": seed, "dataset": dataset, "spaces": rows, "winner": winner}
    evolution = {"num_spaces": len(rows), "tau": 0.4, "slope_unit": "index", "rounding": "floor"}
    search = {"budget": {"max_params": 0.0, "max_macs": 2.5e9}}
    config = {"seed": seed, "data": {"source": "tfds", "name": "cifar10"}, "evolution": evolution, "search": search}
    write_json(workdir / "config.json", config)
    write_json(workdir / "environment.json", ENVIRONMENT)
    write_json(workdir / "result.json", result)
    return result


def _name(k: int) -> str:
    return chr(ord("A") + k)


def _evaluated(architecture: Architecture, k: int, rng: np.random.Generator) -> Evaluated:
    """Deeper third stages and shallower first ones are better, as are wider late stages; the rest is weak or noise."""
    gain = 0.0
    for i, stage in enumerate(architecture.stages):
        gain += (-0.45, -0.3, 0.8, 0.1)[i % 4] * stage.depth + 0.01 * (i - 1) * stage.embed_dim
        gain += (i - 1) * float(np.mean([block.mlp_ratio for block in stage.blocks]))
        gain += 0.02 * (i - 1.5) * float(np.mean([block.window for block in stage.blocks]))
    error = 28 - gain * 4 / len(architecture.stages) + (0, 1.6, 4.2)[k % 3] + rng.normal(0, 0.5)
    counted = cost(architecture, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, num_classes=NUM_CLASSES)
    return Evaluated(architecture, counted, round(float(np.clip(error, 0.5, 99)), 4))


def _losses(phase: str, start: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    steps = range(50, 3001, 50)
    losses = [start * (0.35 + 0.65 * np.exp(-step / 900)) + rng.normal(0, 0.02) for step in steps]
    return [
        {"phase": phase, "step": step, "loss": float(loss), "seconds_per_step": 0.25, "bad_images": 0}
        for step, loss in zip(steps, losses, strict=True)
    ]


def slope_record(slope: float | None, standard_error: float | None) -> DimensionEvolution:
    measure = DimensionMeasure(0, "depth", (1, 2), (ETError(9.0, 9.0, 5, 5), ETError(8.0, 8.0, 5, 5)))
    line = None if slope is None else Slope(slope, 9.0, standard_error, None, None, ())
    return DimensionEvolution(measure, line, -1, (2, 3))


def test_a_finished_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = write_run(tmp_path)
    run = read_run(tmp_path)
    assert run.finished
    assert run.result == result
    assert [space.name for space in run.spaces] == ["A", "B", "C"]
    for space in run.spaces:
        folder = tmp_path / f"space_{space.index}"
        record = read_json(folder / "et_error.json")
        assert space.space.to_json() == SearchSpace.from_json(read_json(folder / "space.json")["space"]).to_json()
        assert space.best is not None
        assert space.best.to_json() == read_json(folder / "search" / "best.json")
        searched = read_json(folder / "search" / "state.json")["evaluated"]
        assert list(space.searched_errors) == [one["error"] for one in searched]
        assert space.errors is not None
        assert list(space.errors.sampled_errors) == record["sampled_errors"]
        for written in record["dimensions"]:
            read = space.dimension(written["stage"], written["dimension"])
            assert read is not None
            assert read.to_json() == written


@pytest.mark.parametrize(
    ("slope", "standard_error", "noise"),
    [
        (0.4, 0.2, True),
        (-0.4, 0.2, True),
        (-0.41, 0.2, False),
        (0.0, 0.0, True),
        (0.1, None, False),
        (None, None, False),
    ],
)
def test_a_slope_within_two_standard_errors_of_zero_is_noise(
    slope: float | None, standard_error: float | None, noise: bool
) -> None:
    assert slope_record(slope, standard_error).is_noise is noise


def test_a_stopped_run_has_the_rows_that_it_has_come_to(tmp_path: Path) -> None:
    result = write_run(tmp_path)
    stop_in_space_c(tmp_path)
    write_json(tmp_path / "retrain" / "best_B" / "result.json", {"test_accuracy": 91.25, "split": "test"})
    run = read_run(tmp_path)
    assert not run.finished
    assert (run.result["seed"], run.result["winner"]) == (0, None)
    a, b, c = run.result["spaces"]
    assert a["et_error"] == result["spaces"][0]["et_error"]
    assert a["best"] == read_json(tmp_path / "space_0" / "search" / "best.json")
    assert b["best"]["test_accuracy"] == 91.25
    assert (c["name"], c["size"], c["et_error"], c["best"]) == ("C", result["spaces"][2]["size"], None, None)


def test_torn_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"phase": "x", "step": 1, "loss": 2}\n{"pha\n7\n\n{"phase": "x", "step"')
    run = read_run(tmp_path)
    assert [line["step"] for line in run.metrics] == [1]
    assert run.notes == ("metrics.jsonl: 3 unreadable lines left out",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *[(name, content) for name in ("result.json", "config.json") for content in ("{", "[]")],
        *[("result.json", content) for content in ('{"spaces": [7]}', '{"spaces": [{"best": {"architecture": 7}}]}')],
        *[("space_1/search/best.json", content) for content in ("{", "[]", '{"error": 7}')],
        *[
            ("space_0/et_error.json", content)
            for content in ("", '{"space": {}}', '{"space": 1, "sampled_errors": []}')
        ],
        *[("space_1/search/state.json", content) for content in ("{", "[]", "{}", '{"evaluated": [{}]}')],
        *[("space_1/space.json", content) for content in ("{", "[]", '{"space": {}}', '{"space": {"stages": []}}')],
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    write_run(tmp_path, num_spaces=2)
    (tmp_path / name).write_text(content)
    with pytest.raises(S3Error, match=name):
        read_run(tmp_path)


def test_a_missing_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(S3Error, match="nowhere is not a folder"):
        read_run(tmp_path / "nowhere")


def test_the_facts_say_what_judging_images_are_for(tmp_path: Path) -> None:
    result = write_run(tmp_path, space=start_space(1), num_spaces=1)
    result["dataset"]["splits"] |= {"judge": {"split": "train", "images": 500, "of": 50000}}
    write_json(tmp_path / "result.json", result)
    told = dict(facts(read_run(tmp_path)))
    assert told["Judging images"] == "500 of the 50,000 in train: E-T Errors by which nothing is chosen"
