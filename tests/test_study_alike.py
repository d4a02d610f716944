"""Networks of a search trained alike: on what, measured on what, resumed, refused; trainings are made up."""

import io
import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from recorded_pipeline import Recorder, error_of, tiny
from rich.console import Console

from s3_jax.cost import Cost, cost
from s3_jax.errors import S3Error
from s3_jax.space import Architecture, map_sizes
from s3_jax.study import alike, best, ranking
from s3_jax.study.best import compare_bests
from s3_jax.study.best_report import bests_table, write_bests
from s3_jax.study.ranking import rank
from s3_jax.study.ranking_report import correlations_table, write_ranking
from s3_jax.study.uniform import swin_like
from s3_jax.task import Variables, open_task
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import read_json


class Beside:
    """A finished search, and what is done beside it; trainings and errors are made up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.search, self.workdir = Recorder(monkeypatch, folder / "search"), folder / "beside"
        self.search.run(tiny())
        self.asked = Recorder(monkeypatch, self.workdir)
        monkeypatch.setattr(ranking, "NUM_RESAMPLES", 20)  # SciPy's correlations take half a millisecond each
        monkeypatch.setattr(alike, "fit", self.asked.fit)
        monkeypatch.setattr(alike, "restored", lambda *_: Variables(self.supernet, {}))
        monkeypatch.setattr(alike, "error_of_network", self.error_of_network)
        for module in (ranking, best):
            monkeypatch.setattr(module, "error_of_subnets", self.asked.error_of_subnets)
        self.supernet = self.search.begin_of("space_1")

    def error_of_network(self, run: Any, network: Any, subset: Any, architecture: Architecture) -> float:
        """Made up: another one for every phase."""
        self.asked.error_of_network(run, network, subset, architecture)
        return error_of(architecture) / 2 + len(network.definition) / 100

    def rank(self, config: Any = None, **asked: Any) -> ranking.Ranking:
        asked = {"space": "", "architectures": 4, "seeds": 2} | asked
        return self._do(lambda *where, **how: rank(*where, **asked, **how), config)

    def compare(self, config: Any = None, seeds: int = 2) -> list[best.Outcome]:
        return self._do(lambda *where, **how: compare_bests(*where, seeds=seeds, **how), config)

    def _do(self, work: Callable, config: Any) -> Any:
        how = {"console": Console(quiet=True), "stop": StopRequest()}
        return work(config or tiny(), self.search.workdir, self.workdir, **how)


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Beside:
    return Beside(monkeypatch, tmp_path)


def shown(table: Any) -> str:
    screen = io.StringIO()
    Console(file=screen, width=100).print(table)
    return screen.getvalue()


def test_networks_are_ranked_on_images_that_train_none_of_them(beside: Beside) -> None:
    found = beside.rank()
    assert found.space == "B"
    assert len({network.inherited.architecture for network in found.networks}) == 4
    splits = open_task(tiny()).splits
    held = set(map(int, splits.holdout.indices))
    for fit in beside.asked.fits:
        assert fit.own_order
        assert fit.subset.split == splits.train.split
        assert not held & set(map(int, fit.subset.indices))
    assert {measured.subset.split for measured in beside.asked.measured} == {splits.holdout.split}


def test_fine_tuning_begins_with_what_is_inherited_and_is_shorter_and_gentler(beside: Beside) -> None:
    beside.rank(architectures=3)
    fits = {fit.phase: fit for fit in beside.asked.fits}
    assert len(fits) == 3 * 2 * 2
    scratch, finetuned = fits["space_1/network_0/scratch_0"], fits["space_1/network_0/finetuned_0"]
    assert finetuned.config.epochs == pytest.approx(0.2 * scratch.config.epochs)
    assert finetuned.config.learning_rate == pytest.approx(0.1 * scratch.config.learning_rate)
    task, space = open_task(tiny()), alike.searched_spaces(beside.search.workdir)[1].space
    inherited = task.sliced(beside.supernet, space, scratch.structure)
    jax.tree.map(np.testing.assert_array_equal, finetuned.begin, jax.device_get(inherited))
    first, second = (jax.tree.leaves(fits[f"space_1/network_0/scratch_{seed}"].begin) for seed in (0, 1))
    assert any((a != b).any() for a, b in zip(first, second, strict=True))


def test_a_ranking_is_taken_up_again_and_added_to(beside: Beside) -> None:
    before = beside.rank(architectures=3)
    beside.asked.fits.clear()
    assert beside.rank(architectures=3) == before
    assert not beside.asked.fits
    more = beside.rank(architectures=4, seeds=3)
    assert more.networks[0].inherited == before.networks[0].inherited
    assert more.networks[0].scratch[:2] == before.networks[0].scratch
    assert len(beside.asked.fits) == 4 * 2 * 3 - 3 * 2 * 2


def test_what_a_ranking_writes(beside: Beside) -> None:
    found = beside.rank()
    assert read_json(beside.workdir / "ranking.json")["networks"][0]["scratch"] == list(found.networks[0].scratch)
    folder = write_ranking(found, beside.workdir)
    assert {path.name for path in folder.iterdir()} == {"ranks.png", "networks.png", "networks.csv"}
    assert len((folder / "networks.csv").read_text().splitlines()) == 5
    assert "the ceiling" in shown(correlations_table(found))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"space": "C"}, "--space=C: the spaces of this search are A, B"),
        ({"architectures": 2}, "--architectures=2: expected 3 to "),
        ({"architectures": 10**9}, "as many as space B has"),
        ({"seeds": 1}, "--seeds=1: expected 2 or more"),
    ],
)
def test_what_cannot_be_ranked_is_refused(beside: Beside, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(S3Error, match=said):
        beside.rank(**asked)
    assert not beside.asked.fits


def test_a_search_with_other_settings_is_refused_but_for_how_networks_are_retrained(beside: Beside) -> None:
    with pytest.raises(S3Error, match=r"config\.train\.learning_rate: 0\.002 there, 0\.5 now"):
        beside.rank(tiny(train__learning_rate=0.5))
    with pytest.raises(S3Error, match=r"config\.seed: 0 there, 7 now"):
        beside.rank(tiny(seed=7))
    assert beside.rank(tiny(retrain__train__epochs=0.9)).space == "B"
    with pytest.raises(S3Error, match=r"config\.retrain\.train\.epochs: 0\.9 there, 0\.7 now"):
        beside.rank()


def test_a_search_that_is_none_or_the_folder_itself_is_refused(beside: Beside, tmp_path: Path) -> None:
    beside.workdir = beside.search.workdir
    with pytest.raises(S3Error, match="is the folder of the search itself"):
        beside.rank()
    beside.search.workdir = tmp_path / "nothing"
    with pytest.raises(S3Error, match="expected the folder of a finished search"):
        beside.rank()


def test_bests_are_trained_alike_and_tested_once_for_every_seed(beside: Beside) -> None:
    outcomes = beside.compare()
    names = [one.contestant.name for one in outcomes]
    assert names == ["best_A", "best_B", "random_search", "swin_like"]
    assert sorted(fit.phase for fit in beside.asked.fits) == sorted(f"{n}/seed_{s}" for n in names for s in (0, 1))
    splits = open_task(tiny()).splits
    assert {fit.subset.split for fit in beside.asked.fits} == {splits.train_and_holdout.split}
    assert len({(fit.config, fit.own_order) for fit in beside.asked.fits}) == 1
    tested = [one for one in beside.asked.measured if one.subset.split == splits.test.split]
    assert len(tested) == 8
    best_b = read_json(beside.search.workdir / "space_1" / "search" / "best.json")
    assert outcomes[1].contestant.architecture == Architecture.from_json(best_b["architecture"])
    assert [one.difference is None for one in outcomes] == [False, True, False, False]


def test_random_search_evaluates_as_many_as_the_search_of_the_first_space(beside: Beside) -> None:
    outcomes = beside.compare(seeds=1)
    lines = (beside.workdir / "random_search" / "evaluated.jsonl").read_text().splitlines()
    evaluated = read_json(beside.search.workdir / "space_0" / "search" / "state.json")["evaluated"]
    errors = [json.loads(line)["error"] for line in lines]
    assert 0 < len(errors) <= len(evaluated)  # fewer lines where one was drawn twice
    assert outcomes[2].contestant.inherited == min(errors)
    beside.asked.fits.clear()
    assert beside.compare(seeds=1) == outcomes
    assert not beside.asked.fits


def test_what_a_comparison_of_bests_writes(beside: Beside) -> None:
    outcomes = beside.compare()
    folder = write_bests(outcomes, "accuracy", beside.workdir)
    assert {path.name for path in folder.iterdir()} == {"scores.png", "networks.csv"}
    assert len((folder / "networks.csv").read_text().splitlines()) == 5
    table = shown(bests_table(outcomes, "accuracy"))
    assert "Swin-like, at B's cost" in table
    assert "means of 2 seeds" in table
    assert "not known" in shown(bests_table(beside.compare(seeds=1), "accuracy"))
    with pytest.raises(S3Error, match="--seeds=0"):
        beside.compare(seeds=0)


@pytest.mark.parametrize("sides", [(8, 4, 2, 1), (4, 2)])
def test_a_swin_like_network_has_its_own_cost_as_the_nearest(sides: tuple[int, ...]) -> None:
    """The network that is found for a cost costs about that, and the one for its own cost is itself."""
    patch = 8 // sides[0]
    assert map_sizes(8, patch, len(sides)) == sides
    cost_of = partial(cost, image_size=8, patch_size=patch, num_classes=10)
    found = swin_like(Cost(100_000, 2_000_000), cost_of, sides)
    assert swin_like(cost_of(found), cost_of, sides) == found
    widths = [stage.embed_dim for stage in found.stages]
    assert all(second == 2 * first for first, second in itertools.pairwise(widths))
    blocks = [block for stage in found.stages for block in stage.blocks]
    assert {block.mlp_ratio for block in blocks} == {4.0}
    assert all(block.window <= sides[place] for place, stage in enumerate(found.stages) for block in stage.blocks)
