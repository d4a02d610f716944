"""Training of a network or supernet in a phase of a run, from its last checkpoint on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

import jax

from s3_jax.config import TrainConfig
from s3_jax.data.splits import Subset
from s3_jax.data.stream import Batch, train_batches
from s3_jax.models.families import Structure
from s3_jax.progress import say
from s3_jax.space import Architecture, SearchSpace, sample
from s3_jax.task import Variables
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.devices import gathered, put_batch, put_replicated, replicated
from s3_jax.training.evaluate import evaluation_on_holdout
from s3_jax.training.loop import Schedule, train
from s3_jax.training.networks import Trained, define, trained_subnets
from s3_jax.training.programs import Length, Training, training_of
from s3_jax.training.run import Run
from s3_jax.training.state import TrainState

NUM_RANDOM_SUBNETS = 2


def initial_variables(run: Run, phase: str, structure: Structure) -> Variables:
    """What `phase` begins to train an architecture or the supernet of a space with, on every device; see `Task`."""

    def tell(what: str) -> None:
        """Say what is not random of it."""
        say(run.clock.console, f"{phase} begins with {what}")

    # Not as one program, which would take XLA as long as half an update: array by array, in a few small ones.
    return put_replicated(run.mesh, run.task.initial(structure, run.key(phase), tell))


def num_updates(config: TrainConfig, subset: Subset) -> int:
    """How many updates a training on `subset` has."""
    return max(1, round(config.epochs * len(subset) / config.batch_size))


def fit(
    run: Run,
    phase: str,
    structure: Structure,
    config: TrainConfig,
    subset: Subset,
    initial: Callable[[], Variables] | None = None,
    *,
    own_order: bool = False,
) -> Trained:
    """Train the network of an architecture, or a supernet by the sandwich rule, on `subset` in the folder `phase`.

    Goes on from the last checkpoint there; a finished training is only read. initial: makes what to begin with, called
    where there is no checkpoint; None for `initial_variables`. own_order: the order of the examples and their
    augmentation are the phase's own; otherwise all phases of a run share them.
    """
    num_steps, settings = num_updates(config, subset), run.config.run
    length = Length(num_steps, steps_per_epoch=len(subset) / config.batch_size)
    training = _programs(run, structure, config, length)
    checkpoints = Checkpoints(run.workdir / phase / "checkpoints", structure.to_json(), keep=settings.keep_checkpoints)
    state = checkpoints.restore(training.shapes, training.layout)
    if state is None:
        state = training.begin(initial() if initial else initial_variables(run, phase, structure))
    if int(state.step) < num_steps:
        timing = Schedule(num_steps, settings.checkpoint_every, settings.log_every, settings.evaluate_every)
        seed = int(run.rng(f"{phase}/order").integers(2**32)) if own_order else run.config.seed
        state = _train(run, phase, structure, config, subset, seed, state, training.update, timing, checkpoints)
    checkpoints.close()
    return Trained(define(run.task, structure), gathered(run.mesh, state.eval_variables), structure)


def _programs(run: Run, structure: Structure, config: TrainConfig, length: Length) -> Training:
    """The programs of a training: those of the last one again where structure, settings and length are the same."""
    key = (structure, config, length)
    if key not in run.trainings:
        run.trainings.clear()  # programs are large, and networks are trained one after the other
        shard = run.config.run.shard_parameters
        run.trainings[key] = training_of(run.task, structure, config, length, run.mesh, shard=shard)
    return run.trainings[key]


def batches_of(run: Run, subset: Subset, batch_size: int, seed: int, start_step: int) -> Generator[Batch, None, None]:
    """This process's part of the batches of a training, from the update `start_step` on; to be closed."""
    data = run.config.data
    return train_batches(
        run.task.examples(subset, training=True),
        batch_size=batch_size,
        seed=seed,
        num_workers=data.num_workers,
        skip_bad=data.on_bad_image == "skip",
        start_step=start_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


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
    seed: int,
    state: TrainState,
    compiled: Callable[..., tuple[TrainState, dict[str, Any]]],
    timing: Schedule,
    checkpoints: Checkpoints,
) -> TrainState:
    key = jax.jit(lambda: run.key(phase), out_shardings=replicated(run.mesh))()

    def update(state: TrainState, batch: Batch, step: int) -> tuple[TrainState, dict[str, Any]]:
        """One update with the random subnets of its step."""
        masks = trained_subnets(structure, random_subnets(run, phase, structure, step))
        with run.clock.compiling(compiled, f"the update of {phase}"):
            return compiled(state, put_batch(run.mesh, batch), put_replicated(run.mesh, masks), key)

    def name_subnet(step: int, index: int) -> str:
        """What the message about a loss that is not finite calls it."""
        supernet = isinstance(structure, SearchSpace)
        names = ("the smallest subnet", "the largest subnet") if supernet else ("the network",)
        return (*names, *map(str, random_subnets(run, phase, structure, step)))[index]

    evaluate = None
    if timing.evaluate_every and subset.shared_with(run.task.splits.holdout):
        say(run.clock.console, f"{phase} is not evaluated on the way: it is trained on the images held out before")
    elif timing.evaluate_every:
        evaluate = evaluation_on_holdout(run, structure)
    batches = batches_of(run, subset, config.batch_size, seed, int(state.step))
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
            evaluate=evaluate,
        )
