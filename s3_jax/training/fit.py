"""Training of a network or supernet in a phase of a run, from its last checkpoint on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import closing
from functools import partial

import jax

from s3_jax.config import TrainConfig
from s3_jax.data.dataset import Subset
from s3_jax.data.input import train_batches
from s3_jax.models.subnet import stack_masks
from s3_jax.space import Architecture, SearchSpace, sample
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.devices import put_batch, put_replicated, replicated
from s3_jax.training.loop import Schedule, train
from s3_jax.training.networks import Network, Structure, define, fixed_subnets, initial_params, num_sliced
from s3_jax.training.programs import training_of
from s3_jax.training.run import Run
from s3_jax.training.state import TrainState
from s3_jax.training.steps import Batch

NUM_RANDOM_SUBNETS = 2


def build_network(run: Run, phase: str, structure: Structure) -> Network:
    """The network of an architecture or the supernet of a space with the initial weights of `phase`."""
    model, num_classes = run.config.model, run.data.num_classes
    make = jax.jit(partial(initial_params, structure, model, num_classes), out_shardings=replicated(run.mesh))
    return Network(define(structure, model, num_classes), make(run.key(phase)), structure)


def fit(run: Run, phase: str, network: Network, config: TrainConfig, subset: Subset) -> Network:
    """Train `network` on `subset` in the folder `phase` of the run, or take what a finished training left there.

    A supernet gets the sandwich rule.
    """
    num_steps = max(1, round(config.epochs * len(subset) / config.batch_size))
    training = training_of(
        network.structure,
        network.params,
        run.config.model,
        run.data.num_classes,
        config,
        run.mesh,
        steps_per_epoch=len(subset) / config.batch_size,
        num_steps=num_steps,
        shard_parameters=run.config.run.shard_parameters,
    )
    subject, keep = network.structure.to_json(), run.config.run.keep_checkpoints
    checkpoints = Checkpoints(run.workdir / phase / "checkpoints", subject, keep=keep)
    state = checkpoints.restore(training.shapes, training.layout)
    if state is None:
        state = training.begin(network.params)
    if int(state.step) < num_steps:
        timing = Schedule(num_steps, run.config.run.checkpoint_every, run.config.run.log_every)
        state = _train(run, phase, network, config, subset, state, training.update, timing, checkpoints)
    checkpoints.close()
    return dataclasses.replace(network, params=jax.device_put(state.eval_params, replicated(run.mesh)))


def random_subnets(run: Run, phase: str, network: Network, step: int) -> tuple[Architecture, ...]:
    """The subnets that one update draws besides the largest and the smallest; none where it is no supernet."""
    rng, space = run.rng(phase, step), network.structure
    return tuple(sample(space, rng) for _ in range(NUM_RANDOM_SUBNETS)) if isinstance(space, SearchSpace) else ()


def _train(
    run: Run,
    phase: str,
    network: Network,
    config: TrainConfig,
    subset: Subset,
    state: TrainState,
    compiled: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    timing: Schedule,
    checkpoints: Checkpoints,
) -> TrainState:
    key = jax.jit(lambda: run.key(phase), out_shardings=replicated(run.mesh))()
    space, count = network.structure, num_sliced(run.config.model)
    fixed = fixed_subnets(space) if isinstance(space, SearchSpace) else ()

    def update(state: TrainState, batch: Batch, step: int) -> tuple[TrainState, dict[str, jax.Array]]:
        """One update with the random subnets of its step."""
        masked = (*fixed[count:], *random_subnets(run, phase, network, step))
        masks = [mask for architecture in masked if (mask := network.mask(architecture))]
        stacked = put_replicated(run.mesh, stack_masks(masks)) if masks else None
        return compiled(state, put_batch(run.mesh, batch), stacked, key)

    def name_subnet(step: int, index: int) -> str:
        """What the message about a loss that is not finite calls it."""
        names = ("the smallest subnet", "the largest subnet") if fixed else ("the network",)
        return (*names, *map(str, random_subnets(run, phase, network, step)))[index]

    batches = train_batches(
        subset,
        data=run.config.data,
        augment=run.config.augment,
        image_size=run.config.model.image_size,
        num_classes=run.data.num_classes,
        batch_size=config.batch_size,
        seed=run.config.seed,
        start_step=int(state.step),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    with closing(batches):
        return train(
            phase,
            state,
            batches,
            update,
            schedule=timing,
            checkpoints=checkpoints,
            metrics=run.metrics,
            stop=run.stop,
            console=run.console,
            name_subnet=name_subnet,
        )
