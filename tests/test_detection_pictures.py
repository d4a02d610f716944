"""Pictures of found objects: what lies over what."""

import numpy as np

from s3_jax.detection.pictures import drawn

SIDE = 400


def test_no_boxs_edge_goes_through_a_name():
    """The edge of the first, which is drawn last, at column 100, crosses the place of the second's name."""
    boxes = np.array([[100.0, 100, 300, 300], [90, 150, 200, 350]])
    pixels, none = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), bool)
    both, second = (
        np.asarray(drawn(pixels, boxes[first:], np.arange(2)[first:], [none] * (2 - first), ["zebra", "giraffe"]))
        for first in (0, 1)
    )
    name = slice(134, 149), slice(90, 120)
    assert (second[name] > 0).any()
    np.testing.assert_array_equal(both[name], second[name])
    assert (both[160:290, 100] != second[160:290, 100]).any()  # below it the edge is there
