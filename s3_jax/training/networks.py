"""Networks and the update that trains them, made of settings alone: for a run, a benchmark, or a compiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import optax
from flax import nnx

from s3_jax.config import ModelConfig, TrainConfig
from s3_jax.isotropic import IsotropicArchitecture
from s3_jax.models.isotropic import IsotropicTransformer
from s3_jax.models.subnet import Params, SubnetMask, stack_masks, subnet_mask
from s3_jax.models.transformer import S3Transformer
from s3_jax.space import Architecture, SearchSpace, largest, smallest
from s3_jax.standalone import AnyArchitecture
from s3_jax.training.devices import axis_of, platform_of
from s3_jax.training.state import TrainState
from s3_jax.training.steps import Batch, loss_of, train_step

Structure = AnyArchitecture | SearchSpace
Update = Callable[[TrainState, Batch, SubnetMask | None, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


@dataclass(frozen=True)
class Network:
    """A network's definition and parameters, and what it is of: an architecture, or a space whose supernet it is.

    The space's windows are clamped to the maps.
    """

    definition: nnx.GraphDef
    params: Params
    structure: Structure

    def mask(self, architecture: AnyArchitecture) -> SubnetMask | None:
        """The subnet argument that makes this network compute `architecture`."""
        if not isinstance(self.structure, SearchSpace) or isinstance(architecture, IsotropicArchitecture):
            return None
        return subnet_mask(self.structure, architecture)


@cache
def define(
    structure: Structure,
    model: ModelConfig,
    num_classes: int,
    batch_axis: str | None = None,
    platform: str | None = None,
) -> nnx.GraphDef:
    """The definition of the network of an architecture, or of the supernet of a space; batch_axis, platform: theirs."""
    make = partial(_make, structure, model, num_classes, batch_axis=batch_axis, platform=platform)
    return nnx.split(nnx.eval_shape(lambda: make(jax.random.key(0))))[0]


def initial_params(structure: Structure, model: ModelConfig, num_classes: int, key: jax.Array) -> Params:
    """Its initial parameters as a nested dict."""
    return nnx.to_pure_dict(nnx.state(_make(structure, model, num_classes, key)))


def fixed_subnets(space: SearchSpace) -> tuple[Architecture, Architecture]:
    """The subnets that every update of a supernet trains: the smallest and the largest."""
    return smallest(space), largest(space)


def trained_subnets(structure: Structure, random: Sequence[Architecture]) -> SubnetMask | None:
    """The subnets of a supernet's update, stacked masks: the fixed ones and the random ones. None for a network."""
    if not isinstance(structure, SearchSpace):
        return None
    return stack_masks([subnet_mask(structure, each) for each in (*fixed_subnets(structure), *random)])


def update_of(
    structure: Structure,
    model: ModelConfig,
    num_classes: int,
    config: TrainConfig,
    transformation: optax.GradientTransformation,
    schedule: optax.Schedule,
    layout: Any = None,
) -> Update:
    """The pure update (state, batch, subnets, key) -> (state, metrics) of a training: see `train_step`."""
    mesh = None if layout is None else layout.step.mesh
    batch_axis, platform = (None, None) if mesh is None else (axis_of(mesh), platform_of(mesh))
    return partial(
        train_step,
        loss=loss_of(define(structure, model, num_classes, batch_axis, platform), config.drop_path),
        transformation=transformation,
        schedule=schedule,
        accumulation_steps=config.accumulation_steps,
        ema_decay=config.ema_decay,
        layout=layout,
    )


def _make(
    structure: Structure,
    model: ModelConfig,
    num_classes: int,
    key: jax.Array,
    *,
    batch_axis: str | None = None,
    platform: str | None = None,
) -> S3Transformer | IsotropicTransformer:
    settings: dict[str, Any] = {
        "image_size": model.image_size,
        "patch_size": model.patch_size,
        "num_classes": num_classes,
        "dtype": model.dtype,
        "kernel_std": model.kernel_std,
        "remat": model.remat,
        "batch_axis": batch_axis,
        "rngs": nnx.Rngs(params=key),
    }
    if isinstance(structure, IsotropicArchitecture):
        return IsotropicTransformer(structure, **settings)
    return S3Transformer(structure, every_width=model.every_width, platform=platform, **settings)
