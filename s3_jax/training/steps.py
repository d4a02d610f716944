"""Pure steps: the sandwich or plain update of a training, and the count of correct answers of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from s3_jax.models.subnet import Params, SubnetMask
from s3_jax.training.devices import replicated, summed_over_devices
from s3_jax.training.state import TrainState

Batch = dict[str, Any]
Loss = Callable[[Params, Batch, Array], Array]
SubnetLoss = Callable[[Params, Batch, SubnetMask, Array], Array]


def soft_cross_entropy(logits: Array, target: Array, total: Array) -> Array:
    """Cross-entropy of (B, classes) logits to soft labels (B, classes), summed over images and divided by `total`."""
    return -(target * jax.nn.log_softmax(logits)).sum() / total


def network_loss(definition: nnx.GraphDef, max_drop_path: float) -> Loss:
    """The loss of a network on a batch of image (B, H, W, 3), target (B, classes) and total (); the key drops paths."""
    masked = subnet_loss(definition, max_drop_path)
    return lambda params, batch, key: masked(params, batch, None, key)  # type: ignore[arg-type]


def subnet_loss(definition: nnx.GraphDef, max_drop_path: float) -> SubnetLoss:
    """The loss of the subnet that a mask makes of a supernet, on a batch as for `network_loss`."""

    def loss(params: Params, batch: Batch, subnet: SubnetMask, key: Array) -> Array:
        """Cross-entropy on this part of a batch, over the total of the whole."""
        network = nnx.merge(definition, params)
        drop_key = key if max_drop_path > 0 else None
        logits = network(batch["image"], subnet, max_drop_path=max_drop_path, key=drop_key)
        return soft_cross_entropy(logits, batch["target"], batch["total"])

    return loss


def train_step(
    state: TrainState,
    batch: Batch,
    subnets: SubnetMask | None,
    key: Array,
    *,
    losses: Sequence[Loss],
    subnet_loss: SubnetLoss,
    transformation: optax.GradientTransformation,
    schedule: optax.Schedule,
    accumulation_steps: int,
    ema_decay: float,
    layout: Any = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One update with the averaged gradients of `losses` and of the masked `subnets` (leading axis; None: none).

    batch: image (B, H, W, 3), target (B, classes); rows of zeros in target do not count. Randomness comes from `key`
    and the update count. layout: the sharding of every array of the state, where there are several devices; parameters
    are made whole on each once for all networks, and their gradient is laid out as they are. Returns the new state and
    loss (), subnet_losses (K,), grad_norm (), learning_rate (), bad_images (), where K counts the losses first and the
    subnets after them.
    """
    key = jax.random.fold_in(key, state.step)
    total = jnp.maximum(batch["target"].sum(), 1.0)
    images = {"image": batch["image"], "target": batch["target"]}
    gradients: Callable[..., tuple[Params, Array]] = partial(accumulate, losses, subnet_loss, accumulation_steps)
    weights = state.params
    if layout is not None:
        mesh = layout.step.mesh
        gradients = summed_over_devices(gradients, mesh, layout.params)
        weights = jax.lax.with_sharding_constraint(weights, replicated(mesh))
    gradient, values = gradients(weights, images, total, subnets, key)
    updates, optimizer = transformation.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = None if state.ema is None else optax.incremental_update(params, state.ema, 1.0 - ema_decay)
    metrics = {
        "loss": values.mean(),
        "subnet_losses": values,
        "grad_norm": optax.tree.norm(gradient),
        "learning_rate": schedule(state.step),
        "bad_images": (batch["target"].sum(-1) == 0).sum(),
    }
    return TrainState(state.step + 1, params, optimizer, ema), metrics


def split_batch(batch: Batch, parts: int) -> Batch:
    """(B, ...) arrays as (parts, B / parts, ...); every part takes its images evenly from all devices."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch)


def accumulate(
    losses: Sequence[Loss],
    subnet_loss: SubnetLoss,
    num_parts: int,
    params: Params,
    images: Batch,
    total: Array,
    subnets: SubnetMask | None,
    key: Array,
) -> tuple[Params, Array]:
    """Gradient, summed over parts of the images and averaged over losses and subnets, and their values (K,).

    num_parts: into how many the images are cut. images: image (B, H, W, 3), target (B, classes). One network and one
    part are computed at a time, into one accumulator: the memory is that of a single pass.
    """
    parts = split_batch(images, num_parts)
    num_subnets = len(jax.tree.leaves(subnets)[0]) if subnets is not None else 0
    count = len(losses) + num_subnets

    def add(gradient: Params, turn: tuple[Array, Array, SubnetMask | None], *, loss: Callable) -> tuple[Params, Array]:
        """The gradient so far with that of one network on one part of the batch."""
        part, member, subnet = turn
        batch = jax.tree.map(lambda x: x[part], parts) | {"total": total}
        turn_key = jax.random.fold_in(jax.random.fold_in(key, member), part)
        # The barrier keeps a compiler from computing several networks at once, which would need memory for all.
        weights, gradient = jax.lax.optimization_barrier((params, gradient))
        inputs = (weights, batch, turn_key) if subnet is None else (weights, batch, subnet, turn_key)
        value, more = jax.value_and_grad(loss)(*inputs)
        return jax.tree.map(lambda a, b: a + b / count, gradient, more), value

    gradient, values = jax.tree.map(jnp.zeros_like, params), []
    every_part = jnp.arange(num_parts)
    for member, loss in enumerate(losses):
        turns = (every_part, jnp.full(num_parts, member), None)
        gradient, value = jax.lax.scan(partial(add, loss=loss), gradient, turns)
        values.append(value.sum(keepdims=True))
    if subnets is not None:
        members = jnp.repeat(jnp.arange(num_subnets), num_parts)
        masks = jax.tree.map(lambda x: jnp.asarray(x)[members], subnets)
        turns = (jnp.tile(every_part, num_subnets), len(losses) + members, masks)
        gradient, value = jax.lax.scan(partial(add, loss=subnet_loss), gradient, turns)
        values.append(value.reshape(num_subnets, num_parts).sum(1))
    return gradient, jnp.concatenate(values)


def eval_step(params: Params, batch: Batch, subnet: SubnetMask | None, *, definition: nnx.GraphDef) -> dict[str, Array]:
    """Correct answers and images counted of a batch of image (B, H, W, 3), label (B,) and weight (B,), 0 or 1."""
    logits = nnx.merge(definition, params)(batch["image"], subnet)
    correct = (logits.argmax(-1) == batch["label"]) * batch["weight"]
    return {"correct": correct.sum(), "images": batch["weight"].sum()}
