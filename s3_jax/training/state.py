"""What a training needs to go on after a stop, and how it is made: parameters, optimizer, learning-rate schedule."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from s3_jax.config import TrainConfig
from s3_jax.models.subnet import Params
from s3_jax.task import Variables


class TrainState(NamedTuple):
    """Update count, float32 parameters as a nested dict, running statistics, optimizer state, and averaged parameters.

    There are no averages (None) where none are asked for, and no statistics (an empty dict) without batch
    normalisation.
    """

    step: Array
    params: Params
    stats: Params
    optimizer: optax.OptState
    ema: Params | None

    @property
    def eval_variables(self) -> Variables:
        """What evaluation uses: the averaged parameters where there are some."""
        return Variables(self.params if self.ema is None else self.ema, self.stats)


def learning_rate(config: TrainConfig, steps_per_epoch: float, num_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then what `config.schedule` says.

    A cosine or a line to the minimal rate at `num_steps` updates, or a tenth of the rate after each of `drop_epochs`.
    """
    warmup = min(round(config.warmup_epochs * steps_per_epoch), num_steps - 1)
    if config.schedule == "steps":
        return _warmed_up(_falling_in_steps(config, steps_per_epoch), warmup)
    if config.schedule == "linear":
        return _warmed_up(optax.linear_schedule(config.learning_rate, config.min_learning_rate, num_steps), warmup)
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else config.learning_rate, config.learning_rate, warmup, num_steps, config.min_learning_rate
    )


def _falling_in_steps(config: TrainConfig, steps_per_epoch: float) -> optax.Schedule:
    drops = {round(epoch * steps_per_epoch): 0.1 for epoch in config.drop_epochs}
    stairs = optax.piecewise_constant_schedule(config.learning_rate, drops)
    return lambda step: jnp.maximum(stairs(step), config.min_learning_rate)


def _warmed_up(schedule: optax.Schedule, warmup: int) -> optax.Schedule:
    """A schedule of which the first `warmup` updates have a growing share."""
    return lambda step: schedule(step) * jnp.minimum(1.0, step / warmup) if warmup else schedule(step)


def optimizer(config: TrainConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW; norms, biases and bias tables are decayed only where the configuration says so."""
    decayed = None if config.decay_norms_and_biases else kernels_only
    adamw = optax.adamw(schedule, b2=config.beta2, weight_decay=config.weight_decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm > 0 else adamw


def kernels_only(params: Params) -> Any:
    """True for the kernels of linear layers, False for norms, biases and bias tables; a tree like `params`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def init_state(variables: Variables, *, transformation: optax.GradientTransformation, ema_decay: float) -> TrainState:
    """The state before the first update."""
    params, stats = variables
    ema = jax.tree.map(jnp.copy, params) if ema_decay > 0 else None
    return TrainState(jnp.zeros((), jnp.int32), params, stats, transformation.init(params), ema)
