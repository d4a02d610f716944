"""The programs of a training and an evaluation over a mesh: a run executes them, `ahead` only compiles them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from s3_jax.config import ModelConfig, TrainConfig
from s3_jax.models.subnet import Params
from s3_jax.training.devices import replicated, state_layout
from s3_jax.training.networks import Structure, update_of
from s3_jax.training.state import TrainState, init_state, learning_rate, optimizer
from s3_jax.training.steps import eval_step


class Training(NamedTuple):
    """The programs of one training. `begin` and `update` are jitted; the others describe the state they pass on."""

    begin: Callable[..., TrainState]  # from parameters
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]  # from state (donated), batch, subnets and key
    shapes: TrainState
    layout: Any  # a sharding for every array of the state


def training_of(
    structure: Structure,
    params: Params,
    model: ModelConfig,
    num_classes: int,
    config: TrainConfig,
    mesh: Mesh,
    *,
    steps_per_epoch: float,
    num_steps: int,
    shard_parameters: bool,
) -> Training:
    """The programs that train the network of an architecture, or the supernet of a space, on a mesh.

    params: its parameters, or their shapes.
    """
    schedule = learning_rate(config, steps_per_epoch, num_steps)
    transformation = optimizer(config, schedule)
    begin = partial(init_state, transformation=transformation, ema_decay=config.ema_decay)
    shapes = jax.eval_shape(begin, params)
    layout = state_layout(mesh, shapes, shard=shard_parameters)
    update = update_of(structure, model, num_classes, config, transformation, schedule, layout)
    compiled = jax.jit(update, donate_argnums=0, out_shardings=(layout, replicated(mesh)))
    return Training(jax.jit(begin, out_shardings=layout), compiled, shapes, layout)


@cache
def evaluation_of(definition: nnx.GraphDef, mesh: Mesh) -> Callable[..., dict[str, jax.Array]]:
    """The program that counts the right answers of a network, or of any subnet: see `eval_step`."""
    return jax.jit(partial(eval_step, definition=definition), out_shardings=replicated(mesh))
