"""Training batches of examples of several shapes: each batch is of one, and every example has its turn."""

from collections import Counter

import numpy as np
import pytest

from s3_jax.data.stream import Examples, train_batches

SIDES = (2, 3, 5)


class Shapes(Examples):
    """Examples that are squares of as many pixels as their group says."""

    def __init__(self, sides, repeats=1):
        self.subset, self.sides, self.repeats = range(len(sides)), sides, repeats

    def group(self, row):
        return self.sides[row]

    def blank(self, group=None):
        return {"square": np.zeros((group, group), np.float32), "row": np.zeros((), np.int32), "drawn": np.zeros(())}

    def example(self, row, rng):
        side = self.sides[row]
        return {"square": np.ones((side, side), np.float32), "row": np.int32(row), "drawn": rng.random()}


def batches(sides, count, **settings):
    stream = train_batches(Shapes(sides, settings.pop("repeats", 1)), **{"batch_size": 4, "seed": 0} | settings)
    found = [next(stream) for _ in range(count)]
    stream.close()
    return found


def mixed_sides():
    """70 examples: 40, 24 and 6 of a side, in no order."""
    return np.random.default_rng(0).permutation(np.repeat(SIDES, (40, 24, 6))).tolist()


def test_a_batch_is_of_one_shape_and_shapes_take_turns_in_proportion():
    sides = mixed_sides()
    found = batches(sides, 35)  # two epochs
    shapes = [batch["square"].shape[1] for batch in found]
    assert all(sides[row] == shape for batch, shape in zip(found, shapes, strict=True) for row in batch["row"])
    assert Counter(shapes) == {2: 20, 3: 12, 5: 3}
    for begin in range(25):  # evenly spread, so that no shape is left for the end
        window = Counter(shapes[begin : begin + 10])
        assert abs(window[2] - 10 * 40 / 70) <= 1.01
        assert abs(window[3] - 10 * 24 / 70) <= 1.01


def test_every_example_is_seen_once_in_an_epoch_of_its_shape():
    sides = mixed_sides()
    for side, count in zip(SIDES, (40, 24, 6), strict=True):
        rows = np.concatenate([batch["row"] for batch in batches(sides, 70) if batch["square"].shape[1] == side])
        for begin in range(0, len(rows) - count + 1, count):
            assert len(set(rows[begin : begin + count])) == count
        assert rows[:count].tolist() != rows[count : 2 * count].tolist()  # a new order in each


@pytest.mark.parametrize("settings", [{}, {"num_workers": 1}])
def test_starting_at_a_step_equals_skipping_to_it(settings):
    sides = mixed_sides()
    for early, late in zip(batches(sides, 12)[7:], batches(sides, 5, start_step=7, **settings), strict=True):
        assert early.keys() == late.keys()
        for name in early:
            np.testing.assert_array_equal(early[name], late[name])


def test_processes_have_slices_of_a_batch_of_one_shape():
    sides = mixed_sides()
    whole = batches(sides, 9)
    parts = [batches(sides, 9, process_index=index, process_count=2) for index in (0, 1)]
    for together, *each in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(together["row"], np.concatenate([part["row"] for part in each]))


def test_draws_of_different_shapes_are_never_the_same():
    drawn = np.concatenate([batch["drawn"] for batch in batches(mixed_sides(), 20)])
    assert len(np.unique(drawn)) == 80
