"""The pure update of a training: by the sandwich rule of several subnets, or of a single network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from s3_jax.models.subnet import Params, SubnetMask
from s3_jax.task import Terms, Variables
from s3_jax.training.devices import replicated, summed_over_devices
from s3_jax.training.state import TrainState

Batch = dict[str, Any]
# (variables, batch, subnet or None, key) to the terms of a loss and the statistics after them.
TermsOf = Callable[[Variables, Batch, SubnetMask | None, Array], tuple[Terms, Params]]
# Sums over all parts and devices of what one part counts.
Sum = Callable[[Any], Any]


def train_step(
    state: TrainState,
    batch: Batch,
    subnets: SubnetMask | None,
    key: Array,
    *,
    terms: TermsOf,
    transformation: optax.GradientTransformation,
    schedule: optax.Schedule,
    accumulation_steps: int,
    ema_decay: float,
    layout: Any = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One update with the gradient of the loss, averaged over `subnets` (K on a leading axis; None: a network, K = 1).

    The loss is the sum over `terms`, each its sum over the batch divided by its count. batch: arrays (B, ...); examples
    of "weight" (B,) 0 do not count. Randomness comes from `key` and the update count. layout: the sharding of every
    array of the state, where there are several devices; parameters are made whole on each once for all networks, and
    their gradient is laid out as they are. Returns the new state and loss (), subnet_losses (K,), terms (K,) by name,
    grad_norm (), learning_rate () and bad_images ().
    """
    key = jax.random.fold_in(key, state.step)
    gradients: Callable[..., Any] = partial(accumulate, terms, accumulation_steps)
    weights = state.params
    if layout is not None:
        mesh = layout.step.mesh
        gradients = summed_over_devices(gradients, mesh, layout.params)
        weights = jax.lax.with_sharding_constraint(weights, replicated(mesh))
    gradient, values, stats = gradients(Variables(weights, state.stats), batch, subnets, key)
    updates, optimizer = transformation.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = None if state.ema is None else optax.incremental_update(params, state.ema, 1.0 - ema_decay)
    losses = sum(values.values())
    metrics = {
        "loss": losses.mean(),
        "subnet_losses": losses,
        "terms": values,
        "grad_norm": optax.tree.norm(gradient),
        "learning_rate": schedule(state.step),
        "bad_images": (batch["weight"] == 0).sum(),
    }
    return TrainState(state.step + 1, params, stats, optimizer, ema), metrics


def split_batch(batch: Batch, parts: int) -> Batch:
    """(B, ...) arrays as (parts, B / parts, ...); every part takes its examples evenly from all devices."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch)


def accumulate(
    terms: TermsOf,
    num_parts: int,
    variables: Variables,
    batch: Batch,
    subnets: SubnetMask | None,
    key: Array,
    *,
    over_devices: Sum = lambda x: x,
) -> tuple[Params, dict[str, Array], Params]:
    """Gradient, summed over parts of a batch and averaged over subnets; the subnets' terms (K,); new statistics.

    num_parts: into how many the batch is cut. subnets: as in `train_step`. over_devices: sums over the devices that
    share the batch. One subnet and one part are computed at a time, by one program, into one accumulator: the memory is
    that of a single pass. Statistics are averaged over subnets and parts.
    """
    parts = split_batch(batch, num_parts)
    count = 1 if subnets is None else len(jax.tree.leaves(subnets)[0])
    members = jnp.repeat(jnp.arange(count), num_parts)
    masks = jax.tree.map(lambda x: jnp.asarray(x)[members], subnets)
    turns = (jnp.tile(jnp.arange(num_parts), count), members, masks)

    def terms_in(turn: Any, params: Params) -> tuple[Terms, Params]:
        """The terms of one subnet on one part of the batch."""
        part, member, subnet = turn
        turn_key = jax.random.fold_in(jax.random.fold_in(key, member), part)
        return terms(Variables(params, variables.stats), jax.tree.map(lambda x: x[part], parts), subnet, turn_key)

    counts = _counts(lambda turn: terms_in(turn, variables.params), turns, count) if num_parts > 1 else None

    def add(carry: tuple[Params, Params], turn: Any) -> tuple[tuple[Params, Params], dict[str, Array]]:
        """Gradient and statistics so far with those of one subnet on one part of the batch."""

        def loss(params: Params) -> tuple[Array, tuple[dict[str, Array], Params]]:
            """This part's share of the subnet's loss."""
            found, stats = terms_in(turn, params)
            own = {name: number for name, (_, number) in found.items()} if counts is None else _at(counts, turn[1])
            values = {name: total / _least_one(over_devices(own[name])) for name, (total, _) in found.items()}
            return sum(values.values(), jnp.zeros(())), (values, stats)

        more, (values, stats) = jax.grad(loss, has_aux=True)(variables.params)
        gradient = jax.tree.map(lambda a, b: a + b / count, carry[0], more)
        averaged = jax.tree.map(lambda a, b: a + b / len(members), carry[1], stats)
        return (gradient, averaged), values

    zeros = jax.tree.map(jnp.zeros_like, tuple(variables))
    (gradient, stats), values = jax.lax.scan(add, zeros, turns)
    return gradient, {name: value.reshape(count, num_parts).sum(1) for name, value in values.items()}, stats


def _counts(terms: Callable[[Any], tuple[Terms, Params]], turns: Any, count: int) -> dict[str, Array]:
    """What each subnet's terms are divided by (K,), summed over the parts of the batch.

    Where they follow from the batch alone, the compiler leaves out the network that nothing else is asked of.
    """
    found = jax.lax.map(lambda turn: {name: number for name, (_, number) in terms(turn)[0].items()}, turns)
    return {name: number.reshape(count, -1).sum(1) for name, number in found.items()}


def _at(values: dict[str, Array], index: Array) -> dict[str, Array]:
    return {name: value[index] for name, value in values.items()}


def _least_one(count: Array) -> Array:
    """A batch of examples that do not count has a loss of 0, not of 0 / 0."""
    return jnp.maximum(jax.lax.stop_gradient(count), 1.0)
