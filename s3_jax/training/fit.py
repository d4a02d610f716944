"""Training of a network or supernet in a phase of a run, from its last checkpoint on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

import jax

from s3_jax.config import TrainConfig
from s3_jax.data.dataset import Subset
from s3_jax.data.input import train_batches
from s3_jax.models.subnet import Params
from s3_jax.space import Architecture, SearchSpace, sample
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.devices import gathered, put_batch, put_replicated, replicated
from s3_jax.training.loop import Schedule, train
from s3_jax.training.networks import Network, Structure, define, initial_params, trained_subnets
from s3_jax.training.programs import training_of
from s3_jax.training.run import Run
from s3_jax.training.state import TrainState
from s3_jax.training.steps import Batch

NUM_RANDOM_SUBNETS = 2


def initial_weights(run: Run, phase: str, structure: Structure) -> Params:
    """The weights with which `phase` begins to train an architecture or the supernet of a space, on every device."""
    # Not as one program, which would take XLA as long as half an update: array by array, in a few small ones.
    return put_replicated(run.mesh, initial_params(structure, run.config.model, run.data.num_classes, run.key(phase)))


def num_updates(config: TrainConfig, subset: Subset) -> int:
    """How many updates a training on `subset` has."""
    return max(1, round(config.epochs * len(subset) / config.batch_size))


def fit(
    run: Run,
    phase: str,
    structure: Structure,
    config: TrainConfig,
    subset: Subset,
    initial: Callable[[], Params] | None = None,
) -> Network:
    """Train the network of an architecture, or a supernet by the sandwich rule, on `subset` in the folder `phase`.

    Goes on from the last checkpoint there; a finished training is only read. initial: makes the weights to begin with,
    called where there is no checkpoint; None for `initial_weights`.
    """
    model, num_classes = run.config.model, run.data.num_classes
    num_steps = num_updates(config, subset)
    training = training_of(
        structure,
        jax.eval_shape(partial(initial_params, structure, model, num_classes), run.key(phase)),
        model,
        num_classes,
        config,
        run.mesh,
        steps_per_epoch=len(subset) / config.batch_size,
        num_steps=num_steps,
        shard_parameters=run.config.run.shard_parameters,
    )
    checkpoints = Checkpoints(
        run.workdir / phase / "checkpoints", structure.to_json(), keep=run.config.run.keep_checkpoints
    )
    state = checkpoints.restore(training.shapes, training.layout)
    if state is None:
        state = training.begin(initial() if initial else initial_weights(run, phase, structure))
    if int(state.step) < num_steps:
        timing = Schedule(num_steps, run.config.run.checkpoint_every, run.config.run.log_every)
        state = _train(run, phase, structure, config, subset, state, training.update, timing, checkpoints)
    checkpoints.close()
    params = gathered(run.mesh, state.eval_params)
    return Network(define(structure, model, num_classes), params, structure)


def random_subnets(run: Run, phase: str, structure: Structure, step: int) -> tuple[Architecture, ...]:
    """The subnets that one update draws besides the largest and the smallest; none where it is no supernet."""
    if not isinstance(structure, SearchSpace):
        return ()
    rng = run.rng(phase, step)
    return tuple(sample(structure, rng) for _ in range(NUM_RANDOM_SUBNETS))


def _train(
    run: Run,
    phase: str,
    structure: Structure,
    config: TrainConfig,
    subset: Subset,
    state: TrainState,
    compiled: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    timing: Schedule,
    checkpoints: Checkpoints,
) -> TrainState:
    key = jax.jit(lambda: run.key(phase), out_shardings=replicated(run.mesh))()

    def update(state: TrainState, batch: Batch, step: int) -> tuple[TrainState, dict[str, jax.Array]]:
        """One update with the random subnets of its step."""
        masks = trained_subnets(structure, random_subnets(run, phase, structure, step))
        with run.clock.compiling(compiled, f"the update of {phase}"):
            return compiled(state, put_batch(run.mesh, batch), put_replicated(run.mesh, masks), key)

    def name_subnet(step: int, index: int) -> str:
        """What the message about a loss that is not finite calls it."""
        supernet = isinstance(structure, SearchSpace)
        names = ("the smallest subnet", "the largest subnet") if supernet else ("the network",)
        return (*names, *map(str, random_subnets(run, phase, structure, step)))[index]

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
            clock=run.clock,
            name_subnet=name_subnet,
        )
