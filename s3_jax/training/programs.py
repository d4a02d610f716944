"""The programs of a training and an evaluation over a mesh: a run executes them, `profiling` times or compiles them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from s3_jax.config import TrainConfig
from s3_jax.models.families import Structure
from s3_jax.models.subnet import SubnetMask
from s3_jax.task import Task, Variables, variables_of
from s3_jax.training.devices import axis_of, platform_of, replicated, state_layout
from s3_jax.training.networks import define, merged, random_variables
from s3_jax.training.state import TrainState, init_state, learning_rate, optimizer
from s3_jax.training.steps import Batch, TermsOf, train_step


class Length(NamedTuple):
    """How long a training is, in updates; an epoch need not be a whole number of them."""

    num_steps: int
    steps_per_epoch: float


class Training(NamedTuple):
    """The programs of one training. `begin` and `update` are jitted; the others describe the state they pass on."""

    begin: Callable[..., TrainState]  # from variables
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]  # from state (donated), batch, subnets and key
    shapes: TrainState
    layout: Any  # a sharding for every array of the state


def training_of(
    task: Task, structure: Structure, config: TrainConfig, length: Length, mesh: Mesh, *, shard: bool = False
) -> Training:
    """The programs that train the network of an architecture, or the supernet of a space, on a mesh.

    shard: split parameters, optimizer state and averages over the devices.
    """
    schedule = learning_rate(config, length.steps_per_epoch, length.num_steps)
    transformation = optimizer(config, schedule)
    begin = partial(init_state, transformation=transformation, ema_decay=config.ema_decay)
    shapes = jax.eval_shape(begin, shapes_of(task, structure))
    layout = state_layout(mesh, shapes, shard=shard)
    update = partial(
        train_step,
        terms=terms_of(task, structure, config.drop_path, axis_of(mesh), platform_of(mesh)),
        transformation=transformation,
        schedule=schedule,
        accumulation_steps=config.accumulation_steps,
        ema_decay=config.ema_decay,
        layout=layout,
    )
    compiled = jax.jit(update, donate_argnums=0, out_shardings=(layout, replicated(mesh)))
    return Training(jax.jit(begin, out_shardings=layout), compiled, shapes, layout)


def shapes_of(task: Task, structure: Structure) -> Variables:
    """Shapes and types of a network's variables."""
    return jax.eval_shape(lambda: random_variables(task, structure, jax.random.key(0)))


def terms_of(
    task: Task, structure: Structure, max_drop_path: float, batch_axis: str | None = None, platform: str | None = None
) -> TermsOf:
    """The loss of a network, or of the subnet that a mask makes of a supernet, as `train_step` takes it."""
    definition = define(task, structure, batch_axis, platform)

    def terms(variables: Variables, batch: Batch, subnet: SubnetMask | None, key: jax.Array) -> tuple[Any, Any]:
        """The terms, and the statistics after them."""
        network = merged(definition, variables)
        found = task.terms(network, batch, subnet, key, max_drop_path)
        return found, variables_of(network).stats

    return terms


def evaluation_of(task: Task, definition: nnx.GraphDef, mesh: Mesh) -> Callable[..., dict[str, jax.Array]]:
    """The program (variables, batch, subnet) to predictions of a network, or of any subnet, whole on each device."""

    def predict(variables: Variables, batch: Batch, subnet: SubnetMask | None) -> dict[str, jax.Array]:
        """What the task asks of the network, and which examples count."""
        return task.predict(merged(definition, variables), batch, subnet) | {"weight": batch["weight"]}

    return jax.jit(predict, out_shardings=replicated(mesh))
