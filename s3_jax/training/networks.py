"""Networks and their variables, made of a task and a structure alone: for a run, a benchmark, or a compiler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from s3_jax.models.families import Structure
from s3_jax.models.subnet import Params, SubnetMask, stack_masks, subnet_mask
from s3_jax.space import Architecture, SearchSpace, largest, smallest
from s3_jax.task import Task, Variables, variables_of


@dataclass(frozen=True)
class Trained:
    """A network's definition and variables, and what it is of: an architecture, or a space whose supernet it is.

    The space's windows are clamped to the maps.
    """

    definition: nnx.GraphDef
    variables: Variables
    structure: Structure

    @property
    def params(self) -> Params:
        """What was trained of it."""
        return self.variables.params

    def mask(self, architecture: Any) -> SubnetMask | None:
        """The subnet argument that makes this network compute `architecture`."""
        return subnet_mask(self.structure, architecture) if isinstance(self.structure, SearchSpace) else None


def define(
    task: Task, structure: Structure, batch_axis: str | None = None, platform: str | None = None
) -> nnx.GraphDef:
    """The definition of the network of an architecture, or of the supernet of a space; see `Task.network`."""

    def make() -> nnx.Module:
        """The network; only its structure is looked at."""
        return task.network(structure, nnx.Rngs(0), batch_axis=batch_axis, platform=platform)

    return nnx.split(nnx.eval_shape(make))[0]


def random_variables(task: Task, structure: Structure, key: jax.Array) -> Variables:
    """Random parameters, and statistics as they are before any training."""
    return variables_of(task.network(structure, nnx.Rngs(params=key)))


def merged(definition: nnx.GraphDef, variables: Variables) -> Any:
    """The network of a definition with these variables, which may be updated in place where it is traced."""
    return nnx.merge(definition, _union(variables.params, variables.stats), copy=True)


def _union(first: Any, second: Any) -> Any:
    """One nested dict of the entries of two that share none of their leaves."""
    if not isinstance(first, dict):
        return first
    own = {name: _union(value, second.get(name, {})) for name, value in first.items()}
    return own | {name: value for name, value in second.items() if name not in first}


def fixed_subnets(space: SearchSpace) -> tuple[Architecture, Architecture]:
    """The subnets that every update of a supernet trains: the smallest and the largest."""
    return smallest(space), largest(space)


def trained_subnets(structure: Structure, random: Sequence[Architecture]) -> SubnetMask | None:
    """The subnets of a supernet's update, stacked masks: the fixed ones and the random ones. None for a network."""
    if not isinstance(structure, SearchSpace):
        return None
    return stack_masks([subnet_mask(structure, each) for each in (*fixed_subnets(structure), *random)])
