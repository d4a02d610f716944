"""Backward passes that keep what went into a computation, and compute the rest again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

# The name under which a backward pass traces what it computes again.
RECOMPUTED = "recomputed"

# (inputs, settings, which have no gradient) to an array.
Variant = Callable[[Any, Any], Array]
# (inputs, settings, index of the variant) to an array: what `one_of` makes of several variants.
Part = Callable[[Any, Any, Array], Array]


def zeros_of(tree: Any) -> Any:
    """Zeros of the shapes and types of a tree of arrays."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)


def pull_back(variant: Variant, inputs: Any, settings: Any, cotangent: Array) -> Any:
    """The gradient with respect to `inputs`; the variant's own operations, done again, are traced under a name."""
    with jax.named_scope(RECOMPUTED):
        back = jax.vjp(lambda tree: variant(tree, settings), inputs)[1]
    return back(cotangent)[0]


def recomputed(variant: Variant) -> Variant:
    """The same function, whose backward pass keeps what went in and computes the rest again."""
    run = jax.custom_vjp(variant)

    def backward(arguments: tuple[Any, Any], cotangent: Array) -> tuple[Any, None]:
        """The gradient with respect to the inputs."""
        return pull_back(variant, *arguments, cotangent), None

    run.defvjp(lambda *arguments: (variant(*arguments), arguments), backward)
    return run


def one_of(variants: Sequence[Variant]) -> Part:
    """The function (inputs, settings, index) that computes one of `variants`, index 1 the first; 0 gives zeros.

    The backward pass, with respect to `inputs`, computes the variant again. Otherwise every variant would keep what its
    own backward pass needs, zeros for those not picked: on a CPU that took longer than the attention itself.
    """

    @jax.custom_vjp
    def pick(inputs: Any, settings: Any, index: Array) -> Array:
        """The picked variant alone."""
        nothing = jax.eval_shape(variants[0], inputs, settings)
        return jax.lax.switch(index, [lambda *_: zeros_of(nothing), *variants], inputs, settings)

    def backward(arguments: tuple[Any, ...], cotangent: Array) -> tuple[Any, None, None]:
        """The gradient of the picked variant alone."""
        inputs, settings, index = arguments
        pulls: list[Callable[..., Any]] = [lambda *_: zeros_of(inputs)]
        pulls += [partial(pull_back, variant) for variant in variants]
        return jax.lax.switch(index, pulls, inputs, settings, cotangent), None, None

    # Keeps what went in, and nothing that the variant made of it.
    pick.defvjp(lambda *arguments: (pick(*arguments), arguments), backward)
    return pick
