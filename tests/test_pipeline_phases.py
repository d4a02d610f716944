"""Which images, weights and budgets every phase of a run is given: on images alone, in seconds, with nothing trained.

Training and measuring are replaced by what notes its arguments, see `recorded_pipeline`.
"""

from functools import partial

import jax
import numpy as np
import pytest
from recorded_pipeline import RETRAINED, Recorder, error_of, rows, tiny, weights_of

from s3_jax.arms import ARMS, Context, NextSpace
from s3_jax.classification.dataset import ImageData, open_data
from s3_jax.classification.pretrained import fitted
from s3_jax.cost import cost
from s3_jax.errors import Interrupted
from s3_jax.models.subnet import Params, copy_network, copy_overlap, slice_weights
from s3_jax.networks import standalone, zoo
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.standalone import Standalone
from s3_jax.search import SearchState
from s3_jax.space import Architecture, SearchSpace, largest, sample


@pytest.fixture
def recorder(monkeypatch, tmp_path) -> Recorder:
    return Recorder(monkeypatch, tmp_path / "run")


@pytest.fixture(scope="module")
def data() -> ImageData:
    return open_data(tiny().data, seed=0)


def assert_equal(actual: Params, expected: Params) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_supernets_are_trained_on_train_without_the_images_that_errors_are_measured_on(recorder, data) -> None:
    recorder.run(tiny())
    trained = {rows(fit.subset) for fit in recorder.fits if fit.phase.startswith("space_")}
    searched = {rows(each.subset) for each in recorder.measured if each.architecture is None}
    assert trained == {rows(data.splits.train)}
    assert searched == {rows(data.splits.holdout)}
    ((split, train),), ((measured_split, held),) = trained, searched
    assert split == measured_split == "train"
    assert not set(train) & set(held)
    assert sorted((*train, *held)) == list(range(len(data.splits.train.source)))
    assert {fit.phase for fit in recorder.fits} == {"space_0", "space_1", RETRAINED}
    assert {each.phase for each in recorder.measured if each.architecture is None} == {"space_0", "space_1"}


def test_networks_are_measured_on_the_test_split_alone(recorder, data) -> None:
    result = recorder.run(tiny())
    tested = [each for each in recorder.measured if each.architecture is not None]
    assert {rows(each.subset) for each in tested} == {rows(data.splits.test)}
    assert data.splits.test.split == "test"
    best = [SearchState.from_json(recorder.read(f"space_{index}/search/state.json")) for index in (0, 1)]
    winners = [min(state.evaluated, key=lambda one: one.error).architecture for state in best]
    expected = {("space_0", winners[0]), ("space_1", winners[1]), (RETRAINED, winners[1])}
    assert {(each.phase, each.architecture) for each in tested} == expected
    for row, winner in zip(result["spaces"], winners, strict=True):
        assert row["best"]["test_accuracy_inherited"] == 100 - error_of(winner)
    assert result["winner"]["test_accuracy"] == 100 - error_of(winners[1]) / 2
    assert result["winner"]["architecture"] == winners[1].to_json()


def test_a_holdout_split_of_its_own_leaves_all_of_train_to_training(recorder) -> None:
    recorder.run(tiny(data__holdout_split="test"))
    (trained,) = {rows(fit.subset) for fit in recorder.fits}
    assert trained[0] == "train"
    assert trained[1] == tuple(range(len(trained[1])))
    assert {each.subset.split for each in recorder.measured} == {"test"}


def test_retraining_takes_all_of_train_and_its_own_settings(recorder, data) -> None:
    config = tiny()
    recorder.run(config)
    (retrained,) = [fit for fit in recorder.fits if fit.phase == RETRAINED]
    assert rows(retrained.subset) == ("train", tuple(range(len(data.splits.train.source))))
    assert retrained.config == config.retrain.train != config.train
    assert {fit.config for fit in recorder.fits if fit.phase != RETRAINED} == {config.train}
    assert retrained.structure.to_json() == recorder.read("space_1/search/best.json")["architecture"]
    assert retrained.structure.to_json() == recorder.read(f"{RETRAINED}/architecture.json")


@pytest.mark.parametrize("from_supernet", [True, False])
def test_retraining_begins_with_inherited_weights_or_from_scratch_as_asked(recorder, from_supernet) -> None:
    recorder.run(tiny(retrain__from_supernet=from_supernet))
    space = SearchSpace.from_json(recorder.read("space_1/space.json")["space"])
    best = Architecture.from_json(recorder.read("space_1/search/best.json")["architecture"])
    inherited = slice_weights(weights_of("space_1", space), space, best)
    scratch = weights_of(f"fresh {RETRAINED}", best)
    assert_equal(recorder.begin_of(RETRAINED), inherited if from_supernet else scratch)


@pytest.mark.parametrize("init_from_previous", [True, False])
def test_a_space_begins_with_the_weights_of_the_one_before_or_its_own_as_asked(recorder, init_from_previous) -> None:
    recorder.run(tiny(evolution__init_from_previous=init_from_previous))
    first, second = (SearchSpace.from_json(recorder.read(f"space_{index}/space.json")["space"]) for index in (0, 1))
    fresh = weights_of("fresh space_1", second)
    expected = copy_overlap(weights_of("space_0", first), fresh) if init_from_previous else fresh
    assert_equal(recorder.begin_of("space_1"), expected)
    assert_equal(recorder.begin_of("space_0"), weights_of("fresh space_0", first))


@pytest.mark.parametrize("init_from_previous", [True, False])
def test_every_space_and_the_winner_begin_with_a_networks_weights_as_asked(
    recorder, tmp_path, init_from_previous
) -> None:
    """What the space before has comes first, where it is asked for; the winner is not to inherit here."""
    spec = ClassifierSpec(largest(tiny().space.build()), 8, 2, tuple("0123456789"), (0.3,) * 3, (0.38,) * 3)
    (tmp_path / "network").mkdir()
    standalone.save(tmp_path / "network", Standalone(spec.build(), spec))
    changes = {"evolution__init_from_previous": init_from_previous, "retrain__from_supernet": False}
    recorder.run(tiny(train__init_from=str(tmp_path / "network"), **changes))

    def begun(phase: str, space: SearchSpace) -> Params:
        """Random weights of a phase with the network's."""
        network = fitted(zoo.load(tmp_path / "network"), space, (4, 2), 2, spec.class_names)
        return copy_network(network, weights_of(f"fresh {phase}", space))

    first, second = (SearchSpace.from_json(recorder.read(f"space_{index}/space.json")["space"]) for index in (0, 1))
    assert_equal(recorder.begin_of("space_0"), begun("space_0", first))
    expected = begun("space_1", second)
    expected = copy_overlap(weights_of("space_0", first), expected) if init_from_previous else expected
    assert_equal(recorder.begin_of("space_1"), expected)
    best = Architecture.from_json(recorder.read("space_1/search/best.json")["architecture"])
    assert_equal(recorder.begin_of(RETRAINED), slice_weights(begun(RETRAINED, second), second, best))


def test_every_best_is_retrained_where_so_asked(recorder) -> None:
    result = recorder.run(tiny(retrain__all_spaces=True))
    assert {fit.phase for fit in recorder.fits} == {"space_0", "space_1", "retrain/best_A", RETRAINED}
    spaces = [SearchSpace.from_json(recorder.read(f"space_{index}/space.json")["space"]) for index in (0, 1)]
    for index, name in enumerate("AB"):
        best = Architecture.from_json(recorder.read(f"space_{index}/search/best.json")["architecture"])
        inherited = slice_weights(weights_of(f"space_{index}", spaces[index]), spaces[index], best)
        assert_equal(recorder.begin_of(f"retrain/best_{name}"), inherited)
        assert result["spaces"][index]["best"]["test_accuracy"] is not None


@pytest.fixture(scope="module")
def middle() -> float:
    """About the middle of the multiply-adds of the tiny space's networks."""
    cost_of, space, rng = partial(cost, image_size=8, patch_size=2, num_classes=10), tiny().space.build(), np.random
    return float(np.median([cost_of(sample(space, rng.default_rng(seed))).macs for seed in range(200)]))


def sampled_and_searched(recorder: Recorder) -> tuple[list[int], list[int]]:
    """Multiply-adds of the architectures behind the first space's E-T Error, and of those that its search evaluated."""
    errors = set(recorder.read("space_0/et_error.json")["sampled_errors"])
    sampled = [each.cost.macs for each in recorder.evaluated(0) if each.error in errors]
    state = SearchState.from_json(recorder.read("space_0/search/state.json"))
    return sampled, [each.cost.macs for each in state.evaluated]


def test_samples_are_drawn_under_the_budget_of_evolution_and_not_that_of_the_search(recorder, middle) -> None:
    recorder.run(tiny(evolution__budget__max_macs=middle, search__population=12))
    sampled, searched = sampled_and_searched(recorder)
    assert max(sampled) < middle < max(searched)
    assert recorder.read("space_0/et_error.json")["space"]["num_samples"] == 30  # none is left out


def test_an_evolved_space_lacks_the_choices_that_nothing_under_the_budget_has(recorder, middle, monkeypatch) -> None:
    """The space that a user gives is refused instead. Here widths grow far beyond what the budget admits."""

    def widen(space: SearchSpace, context: Context) -> NextSpace:
        wide = space.replace(0, "embed_dim", (8, 16, 512)).replace(1, "embed_dim", (16, 1024))
        return NextSpace(wide, tuple(None if count is None else 0 for count in context.steps), [])

    monkeypatch.setitem(ARMS, "measured", widen)
    recorder.run(tiny(evolution__budget__max_macs=middle))
    next_space, told = recorder.read("space_1/space.json"), recorder.read("space_0/et_error.json")
    assert [stage["embed_dim"] for stage in next_space["space"]["stages"]] == [[8, 16], [16]]
    assert [one["next_choices"] for one in told["dimensions"] if one["dimension"] == "embed_dim"] == [[8, 16], [16]]
    why = "left out of the next space: none of 30 architectures drawn under evolution.budget can measure them"
    for notes in (next_space["notes"], told["notes"]):
        assert f"stage 1 embed_dim: 512 {why}" in notes
        assert f"stage 2 embed_dim: 1024 {why}" in notes


def test_the_search_is_under_its_own_budget_and_not_that_of_evolution(recorder, middle) -> None:
    recorder.run(tiny(search__budget__max_macs=middle, search__population=12))
    sampled, searched = sampled_and_searched(recorder)
    assert max(searched) < middle < max(sampled)
    assert recorder.read("space_0/et_error.json")["space"]["num_samples"] == 30


@pytest.mark.parametrize("stops", [(3, 20, 4), (31,)])
def test_a_run_taken_up_again_draws_the_same_samples_searches_and_holdout(monkeypatch, tmp_path, stops) -> None:
    alone = Recorder(monkeypatch, tmp_path / "alone")
    expected = alone.run(tiny())
    again = Recorder(monkeypatch, tmp_path / "again")
    for stop_after in stops:
        with pytest.raises(Interrupted):
            again.run(tiny(), stop_after)
    assert again.run(tiny()) == expected
    for index in (0, 1):
        assert again.evaluated(index) == alone.evaluated(index)
        for name in ("space.json", "et_error.json", "search/state.json"):
            assert again.read(f"space_{index}/{name}") == alone.read(f"space_{index}/{name}")
    searched = {rows(each.subset) for each in again.measured if each.architecture is None}
    assert len([each for each in again.measured if each.architecture is None]) > 2
    assert searched == {rows(each.subset) for each in alone.measured if each.architecture is None}
    assert len({rows(fit.subset) for fit in again.fits if fit.phase.startswith("space_")}) == 1


def test_the_seed_alone_decides_on_samples_and_holdout(monkeypatch, tmp_path) -> None:
    runs = [Recorder(monkeypatch, tmp_path / name) for name in ("first", "again", "other")]
    for recorder, seed in zip(runs, (1, 1, 2), strict=True):
        recorder.run(tiny(seed=seed))
    held = [{rows(each.subset) for each in one.measured if each.architecture is None} for one in runs]
    assert held[0] == held[1] != held[2]
    assert runs[0].evaluated(0) == runs[1].evaluated(0) != runs[2].evaluated(0)
    searched = [SearchState.from_json(one.read("space_0/search/state.json")).evaluated for one in runs]
    assert searched[0] == searched[1]
    assert searched[0][0] != searched[2][0]
