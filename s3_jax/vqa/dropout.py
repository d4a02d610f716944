"""How a batch passes through the text encoder and the head, and their dropout."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array


@dataclasses.dataclass(frozen=True)
class Passing:
    """Of a batch in training: its weights and its randomness. What evaluation passes on is None instead.

    weight: (B,), examples of weight 0 are in no statistics. key: of dropout. batch_axis: the mesh axis over which
    `jax.shard_map` splits the examples.
    """

    weight: Array
    key: Array
    batch_axis: str | None = None

    def at(self, place: int) -> Passing:
        """The same for one of several places, whose draws are apart."""
        return dataclasses.replace(self, key=jax.random.fold_in(self.key, place))


def dropout(x: Array, rate: float, passing: Passing | None) -> Array:
    """Entries of x (B, ...) set to 0 with chance `rate`, and the others divided by 1 - rate; x itself in evaluation.

    What is drawn for an example depends on its number in the whole batch alone, so several devices, each of which
    draws for its own, drop what one would.
    """
    if passing is None or not rate:
        return x
    count = x.shape[0]
    first = jax.lax.axis_index(passing.batch_axis) * count if passing.batch_axis else 0
    keys = jax.vmap(lambda number: jax.random.fold_in(passing.key, number))(first + jnp.arange(count))
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1.0 - rate), 0).astype(x.dtype)
