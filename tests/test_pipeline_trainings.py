"""Several trainings of a space, arms and judging images in the phases of a run, with nothing trained."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_pipeline import Recorder, rows, tiny

from s3_jax.arms import places
from s3_jax.classification.dataset import open_data
from s3_jax.cost import Evaluated
from s3_jax.errors import Interrupted, S3Error
from s3_jax.et_error import et_error
from s3_jax.space import SearchSpace
from s3_jax.training.records import read_json_lines, write_json

# With seed 0 thirty samples of each training hold every choice. A small tau makes dimensions move.
TWO = {"evolution__trainings": 2, "evolution__training_share": 0.5, "evolution__tau": 1.0}
PHASES = {"space_0", "space_0/training_1", "space_1", "space_1/training_1", "retrain/best_B"}


@pytest.fixture
def recorder(monkeypatch, tmp_path) -> Recorder:
    return Recorder(monkeypatch, tmp_path / "run")


def evaluated(recorder: Recorder, phase: str, name: str = "evaluated") -> list[Evaluated]:
    return read_json_lines(recorder.workdir / phase / f"{name}.jsonl", Evaluated.from_json)


def test_every_training_has_weights_an_order_and_samples_of_its_own(recorder) -> None:
    config = tiny(**TWO)
    recorder.run(config)
    data = open_data(config.data, seed=0)
    fits = {fit.phase: fit for fit in recorder.fits}
    assert set(fits) == PHASES
    assert {phase for phase, fit in fits.items() if fit.own_order} == {"space_0/training_1", "space_1/training_1"}
    for index in (0, 1):
        first, other = fits[f"space_{index}"], fits[f"space_{index}/training_1"]
        assert first.structure == other.structure
        assert rows(first.subset) == rows(other.subset) == rows(data.splits.train)
        assert first.config == config.train
        halved = {"epochs": config.train.epochs / 2, "warmup_epochs": config.train.warmup_epochs / 2}
        assert other.config == dataclasses.replace(config.train, **halved)
        assert not np.array_equal(first.begin["head"]["kernel"], other.begin["head"]["kernel"])
        ours, theirs = evaluated(recorder, first.phase), evaluated(recorder, other.phase)
        assert [one.architecture for one in ours[: len(theirs)]] != [one.architecture for one in theirs]
    measured = {(each.phase, rows(each.subset)) for each in recorder.measured if each.architecture is None}
    assert measured == {(phase, rows(data.splits.holdout)) for phase in PHASES - {"retrain/best_B"}}


def test_the_further_training_changes_nothing_of_the_first(monkeypatch, tmp_path) -> None:
    alone, both = Recorder(monkeypatch, tmp_path / "alone"), Recorder(monkeypatch, tmp_path / "both")
    settings = {"evolution__tau": 1e6}  # so that the spaces are the same
    alone.run(tiny(**settings))
    both.run(tiny(**TWO | settings))
    for name in ("space_1/space.json", "space_0/search/state.json", "space_1/search/state.json"):
        one, other = alone.read(name), both.read(name)
        assert {key: one[key] for key in one if key != "notes"} == {key: other[key] for key in one if key != "notes"}
    for index in (0, 1):
        assert alone.evaluated(index) == both.evaluated(index)
        single, mean = alone.read(f"space_{index}/et_error.json"), both.read(f"space_{index}/et_error.json")
        assert single["trainings"] == mean["trainings"][:1]
        assert mean["sampled_errors"][:30] == single["sampled_errors"]
        assert len(mean["sampled_errors"]) == len(mean["sampled_params"]) == len(mean["sampled_macs"]) == 60
        assert {d["training_standard_error"] for d in single["dimensions"]} == {None}
        for dimension in mean["dimensions"]:
            parts = dimension["sampling_standard_error"], dimension["training_standard_error"]
            assert (dimension["slope"] is None) == (parts == (None, None))
            assert dimension["slope"] is None or dimension["slope_standard_error"] == pytest.approx(np.hypot(*parts))


@pytest.mark.parametrize("stops", [(3, 30, 10), (45,)])
def test_a_run_of_two_trainings_taken_up_again_ends_as_if_it_had_not_been(monkeypatch, tmp_path, stops) -> None:
    settings = TWO | {"data__judge_fraction": 0.1}
    alone = Recorder(monkeypatch, tmp_path / "alone")
    expected = alone.run(tiny(**settings))
    again = Recorder(monkeypatch, tmp_path / "again")
    for stop_after in stops:
        with pytest.raises(Interrupted):
            again.run(tiny(**settings), stop_after)
    assert again.run(tiny(**settings)) == expected
    for path in alone.workdir.rglob("*.jsonl"):
        assert (again.workdir / path.relative_to(alone.workdir)).read_bytes() == path.read_bytes(), path
    for index in (0, 1):
        for name in ("space.json", "et_error.json", "search/state.json"):
            assert again.read(f"space_{index}/{name}") == alone.read(f"space_{index}/{name}")


def test_a_training_whose_samples_are_known_is_not_asked_for_again(monkeypatch, tmp_path) -> None:
    recorder = Recorder(monkeypatch, tmp_path / "run")
    expected = recorder.run(tiny(**TWO))
    for name in ("result.json", "space_1/et_error.json"):
        (recorder.workdir / name).unlink()
    recorder.fits.clear()
    assert recorder.run(tiny(**TWO)) == expected
    assert "space_1/training_1" not in {fit.phase for fit in recorder.fits}


def test_judging_images_give_an_error_by_which_nothing_is_chosen(monkeypatch, tmp_path) -> None:
    judged, plain = Recorder(monkeypatch, tmp_path / "judged"), Recorder(monkeypatch, tmp_path / "plain")
    config = tiny(**TWO, data__judge_fraction=0.2)
    result, before = judged.run(config), plain.run(tiny(**TWO))
    splits = open_data(config.data, seed=0).splits
    asked = {each.phase for each in judged.measured if rows(each.subset) == rows(splits.judge)}
    assert asked == {"space_0", "space_1"}
    held = set(splits.judge.indices.tolist())
    for subset in [fit.subset for fit in judged.fits] + [e.subset for e in judged.measured if e.phase not in asked]:
        assert subset.split != "train" or not held & set(subset.indices.tolist())
    retrained = next(fit for fit in judged.fits if fit.phase == "retrain/best_B")
    assert rows(retrained.subset) == rows(splits.train_and_holdout)
    for index, row in enumerate(result["spaces"]):
        record = judged.read(f"space_{index}/et_error.json")["judged"]
        samples = judged.evaluated(index)[: len(set(record["sampled_errors"]))]
        assert {one.architecture for one in evaluated(judged, f"space_{index}", "judged")} == {
            one.architecture for one in samples
        }
        assert record["sampled_errors"] == judged.read(f"space_{index}/et_error.json")["sampled_errors"][:30]
        errors = record.pop("sampled_errors")
        assert row["judged"] == record == et_error(errors, config.evolution.top_k).to_json()
    assert "judge" in result["dataset"]["splits"]
    # The made-up errors are the same on all images, so nothing else of the method may differ.
    assert [row["judged"] for row in before["spaces"]] == [None, None]
    for index in (0, 1):
        assert judged.read(f"space_{index}/space.json") == plain.read(f"space_{index}/space.json")
        assert judged.read(f"space_{index}/search/state.json") == plain.read(f"space_{index}/search/state.json")


def test_judging_images_are_refused_where_a_task_has_none(tmp_path, monkeypatch) -> None:
    recorder = Recorder(monkeypatch, tmp_path / "run")
    monkeypatch.setattr("s3_jax.classification.dataset._with_judge", lambda splits, *_: splits)
    with pytest.raises(
        S3Error, match=r"config.data.judge_fraction = 0.2: the task s3_jax.classification has no judging"
    ):
        recorder.run(tiny(data__judge_fraction=0.2))
    assert not list(recorder.workdir.iterdir())


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A finished run of the arm measured."""
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch, tmp_path_factory.mktemp("measured") / "run")
        recorder.run(tiny(evolution__tau=1.0))
    return recorder.workdir


def run_arm(monkeypatch, folder: Path, arm: str, **changes: Any) -> dict[str, Any]:
    recorder = Recorder(monkeypatch, folder)
    recorder.run(tiny(evolution__tau=1.0, evolution__arm=arm, **changes))
    return {name: recorder.read(name) for name in ("space_0/et_error.json", "space_1/space.json")}


def test_arms_go_by_the_measured_run_of_their_seed(measured, monkeypatch, tmp_path) -> None:
    def sizes(record: dict[str, Any]) -> list[int]:
        return sorted(abs(d["steps"]) for d in record["dimensions"] if d["steps"])

    theirs = json.loads((measured / "space_0/et_error.json").read_text())
    there = {"evolution__measured_run": str(measured)}
    random = run_arm(monkeypatch, tmp_path / "random", "random", **there)
    assert sizes(random["space_0/et_error.json"]) == sizes(theirs) != []
    assert random["space_0/et_error.json"]["arm"] == "random"
    assert run_arm(monkeypatch, tmp_path / "again", "random", **there) == random
    pruned = run_arm(monkeypatch, tmp_path / "prune", "prune", **there)["space_1/space.json"]
    assert pruned["size"] <= json.loads((measured / "space_1/space.json").read_text())["size"]
    still = run_arm(monkeypatch, tmp_path / "still", "still")["space_1/space.json"]
    assert still["space"] == json.loads((measured / "space_0/space.json").read_text())["space"]
    grown = SearchSpace.from_json(run_arm(monkeypatch, tmp_path / "grow", "grow")["space_1/space.json"]["space"])
    for (stage, name), dimension in zip(places(grown), theirs["dimensions"], strict=True):
        assert len(dimension["choices"]) == 1 or max(grown.stages[stage].choices(name)) > max(dimension["choices"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "result.json").unlink(), "no finished run is there; first end the run of this seed"),
        (lambda folder: (folder / "config.json").unlink(), "no finished run is there; first end the run of this seed"),
        (lambda folder: alter(folder, seed=7), r"that run has seed = 7, not 0; give a run of the arm measured"),
        (lambda folder: alter(folder, evolution={"arm": "grow"}), r"that run has evolution.arm = 'grow'; give a run"),
        (lambda folder: alter(folder, evolution={"num_spaces": 1}), r"that run has 1 spaces, fewer than 2"),
        (lambda folder: alter(folder, space={"depth": [[1], [1]]}), r"that run has another space"),
    ],
)
def test_a_measured_run_that_does_not_fit_is_refused_before_anything_is_trained(
    measured, monkeypatch, tmp_path, change, message
) -> None:
    folder = tmp_path / "measured"
    folder.mkdir()
    for path in measured.rglob("*.json"):
        target = folder / path.relative_to(measured)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    change(folder)
    recorder = Recorder(monkeypatch, tmp_path / "run")
    with pytest.raises(S3Error, match=rf"^config.evolution.measured_run = '.*measured': {message}") as refused:
        recorder.run(tiny(evolution__arm="random", evolution__measured_run=str(folder)))
    assert "\n" not in str(refused.value)
    assert not recorder.fits
    assert not list(recorder.workdir.iterdir())


def alter(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / "config.json").read_text())
    del record["crc32"]
    for name, change in changes.items():
        record[name] = record[name] | change if isinstance(change, dict) else change
    write_json(folder / "config.json", record)
