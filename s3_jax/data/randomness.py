"""Randomness that is derived, never carried: a generator for every use and place, from the run's seed."""

from __future__ import annotations

import numpy as np

# What a number is drawn for. None is 0: numpy takes trailing zeros of a seed for absent.
HOLDOUT, ORDER, EXAMPLE, MIX, JUDGE = 1, 2, 3, 4, 5


def generator(seed: int, use: int, *place: int) -> np.random.Generator:
    """The generator of one use (HOLDOUT, ORDER, ...) at one place, e.g. a position in the stream or a step."""
    return np.random.default_rng((seed, use, *place))
