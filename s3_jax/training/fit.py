"""Training of a network or supernet in a phase of a run, from its last checkpoint on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from flax import nnx

from s3_jax.config import ModelConfig, TrainConfig
from s3_jax.data.dataset import Subset
from s3_jax.data.input import train_batches
from s3_jax.models.subnet import Params, SubnetMask, slice_weights, stack_masks, subnet_mask
from s3_jax.models.transformer import S3Transformer
from s3_jax.space import Architecture, SearchSpace, largest, sample, smallest
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.devices import put_batch, put_replicated, replicated
from s3_jax.training.loop import Schedule, train
from s3_jax.training.run import Run
from s3_jax.training.state import TrainState, init_state, learning_rate, optimizer
from s3_jax.training.steps import Batch, Loss, network_loss, subnet_loss, train_step

NUM_RANDOM_SUBNETS = 2


@dataclass(frozen=True)
class Network:
    """A network's definition and parameters; `space` (windows clamped to the maps) where it is a supernet."""

    definition: nnx.GraphDef
    params: Params
    space: SearchSpace | None = None

    def mask(self, architecture: Architecture) -> SubnetMask | None:
        """The subnet argument that makes this network compute `architecture`."""
        return None if self.space is None else subnet_mask(self.space, architecture)


def build_network(run: Run, phase: str, structure: Architecture | SearchSpace) -> Network:
    """The network of an architecture or the supernet of a space with the initial weights of `phase`."""
    make = partial(_make, structure, run.config.model, run.data.num_classes)
    initial = jax.jit(lambda key: nnx.to_pure_dict(nnx.state(make(key))), out_shardings=replicated(run.mesh))
    space = structure if isinstance(structure, SearchSpace) else None
    return Network(_definition(run, structure), initial(run.key(phase)), space)


def fit(run: Run, phase: str, network: Network, config: TrainConfig, subset: Subset, subject: Any) -> Network:
    """Train `network` on `subset` in the folder `phase` of the run, or take what a finished training left there.

    A supernet gets the sandwich rule. subject: the JSON record of the space or architecture, kept with each checkpoint.
    """
    num_steps = max(1, round(config.epochs * len(subset) / config.batch_size))
    schedule = learning_rate(config, len(subset) / config.batch_size, num_steps)
    transformation = optimizer(config, schedule)
    begin = jax.jit(partial(init_state, transformation=transformation, ema_decay=config.ema_decay))
    checkpoints = Checkpoints(run.workdir / phase / "checkpoints", subject, keep=run.config.run.keep_checkpoints)
    state = checkpoints.restore(jax.eval_shape(begin, network.params), run.mesh)
    if state is None:
        state = jax.jit(begin, out_shardings=replicated(run.mesh))(network.params)
    if int(state.step) < num_steps:
        timing = Schedule(num_steps, run.config.run.checkpoint_every, run.config.run.log_every)
        compiled = jax.jit(
            partial(
                train_step,
                losses=_losses(run, network, config.drop_path),
                subnet_loss=subnet_loss(network.definition, config.drop_path),
                transformation=transformation,
                schedule=schedule,
                accumulation_steps=config.accumulation_steps,
                ema_decay=config.ema_decay,
            ),
            donate_argnums=0,
            out_shardings=replicated(run.mesh),
        )
        state = _train(run, phase, network, config, subset, state, compiled, timing, checkpoints)
    checkpoints.close()
    return Network(network.definition, state.eval_params, network.space)


def random_subnets(run: Run, phase: str, network: Network, step: int) -> tuple[Architecture, ...]:
    """The subnets that one update draws besides the largest and the smallest; none where it is no supernet."""
    rng = run.rng(phase, step)
    return () if network.space is None else tuple(sample(network.space, rng) for _ in range(NUM_RANDOM_SUBNETS))


def _definition(run: Run, structure: Architecture | SearchSpace) -> nnx.GraphDef:
    make = partial(_make, structure, run.config.model, run.data.num_classes)
    return nnx.split(nnx.eval_shape(lambda: make(jax.random.key(0))))[0]


def _losses(run: Run, network: Network, drop_path: float) -> tuple[Loss, ...]:
    """The losses of the network itself; of a supernet those of its largest and smallest subnet.

    Their shapes are known, so their weights are sliced: masked, the smallest would be as dear as the largest.
    """
    space = network.space
    if space is None:
        return (network_loss(network.definition, drop_path),)

    def sliced(architecture: Architecture) -> Loss:
        loss = network_loss(_definition(run, architecture), drop_path)
        return lambda params, batch, key: loss(slice_weights(params, space, architecture), batch, key)

    return sliced(largest(space)), sliced(smallest(space))


def _make(
    structure: Architecture | SearchSpace, config: ModelConfig, num_classes: int, key: jax.Array
) -> S3Transformer:
    return S3Transformer(
        structure,
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=num_classes,
        dtype=config.dtype,
        kernel_std=config.kernel_std,
        remat=config.remat,
        every_width=config.every_width,
        rngs=nnx.Rngs(params=key),
    )


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

    def update(state: TrainState, batch: Batch, step: int) -> tuple[TrainState, dict[str, jax.Array]]:
        masks = [mask for a in random_subnets(run, phase, network, step) if (mask := network.mask(a))]
        stacked = put_replicated(run.mesh, stack_masks(masks)) if masks else None
        return compiled(state, put_batch(run.mesh, batch), stacked, key)

    def name_subnet(step: int, index: int) -> str:
        names = ("the largest subnet", "the smallest subnet") if network.space else ("the network",)
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
