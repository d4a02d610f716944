"""Pure steps: the sandwich or plain update of a training, and the count of correct answers of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
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
# (parameters, batch, subnet or None, key) to a scalar.
Loss = Callable[[Params, Batch, SubnetMask | None, Array], Array]


def soft_cross_entropy(logits: Array, target: Array, total: Array) -> Array:
    """Cross-entropy of (B, classes) logits to soft labels (B, classes), summed over images and divided by `total`."""
    return -(target * jax.nn.log_softmax(logits)).sum() / total


def loss_of(definition: nnx.GraphDef, max_drop_path: float) -> Loss:
    """The loss of a network, or of the subnet that a mask makes of a supernet.

    Its batch has image (B, H, W, 3), target (B, classes) and total (); its key drops paths.
    """

    def loss(params: Params, batch: Batch, subnet: SubnetMask | None, key: Array) -> Array:
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
    loss: Loss,
    transformation: optax.GradientTransformation,
    schedule: optax.Schedule,
    accumulation_steps: int,
    ema_decay: float,
    layout: Any = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One update with the gradient of `loss`, averaged over `subnets` (K on a leading axis; None: a network, K = 1).

    batch: image (B, H, W, 3), target (B, classes); rows of zeros in target do not count. Randomness comes from `key`
    and the update count. layout: the sharding of every array of the state, where there are several devices; parameters
    are made whole on each once for all networks, and their gradient is laid out as they are. Returns the new state and
    loss (), subnet_losses (K,), grad_norm (), learning_rate () and bad_images ().
    """
    key = jax.random.fold_in(key, state.step)
    total = jnp.maximum(batch["target"].sum(), 1.0)
    images = {"image": batch["image"], "target": batch["target"]}
    gradients: Callable[..., tuple[Params, Array]] = partial(accumulate, loss, accumulation_steps)
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
    loss: Loss, num_parts: int, params: Params, images: Batch, total: Array, subnets: SubnetMask | None, key: Array
) -> tuple[Params, Array]:
    """Gradient, summed over parts of the images and averaged over subnets, and the subnets' losses (K,).

    num_parts: into how many the images are cut. images: image (B, H, W, 3), target (B, classes). subnets: as in
    `train_step`. One subnet and one part are computed at a time, by one program, into one accumulator: the memory is
    that of a single pass.
    """
    parts = split_batch(images, num_parts)
    count = 1 if subnets is None else len(jax.tree.leaves(subnets)[0])

    def add(gradient: Params, turn: tuple[Array, Array, SubnetMask | None]) -> tuple[Params, Array]:
        """The gradient so far with that of one subnet on one part of the batch."""
        part, member, subnet = turn
        batch = jax.tree.map(lambda x: x[part], parts) | {"total": total}
        turn_key = jax.random.fold_in(jax.random.fold_in(key, member), part)
        value, more = jax.value_and_grad(loss)(params, batch, subnet, turn_key)
        return jax.tree.map(lambda a, b: a + b / count, gradient, more), value

    members = jnp.repeat(jnp.arange(count), num_parts)
    masks = jax.tree.map(lambda x: jnp.asarray(x)[members], subnets)
    turns = (jnp.tile(jnp.arange(num_parts), count), members, masks)
    gradient, values = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), turns)
    return gradient, values.reshape(count, num_parts).sum(1)


def eval_step(params: Params, batch: Batch, subnet: SubnetMask | None, *, definition: nnx.GraphDef) -> dict[str, Array]:
    """Correct answers and images counted of a batch of image (B, H, W, 3), label (B,) and weight (B,), 0 or 1."""
    logits = nnx.merge(definition, params)(batch["image"], subnet)
    correct = (logits.argmax(-1) == batch["label"]) * batch["weight"]
    return {"correct": correct.sum(), "images": batch["weight"].sum()}
