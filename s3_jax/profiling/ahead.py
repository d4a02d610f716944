"""A run's programs compiled for accelerators that are not there: memory, work and traffic before a pod is paid for."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from s3_jax.config import Config, TrainConfig
from s3_jax.data.splits import nothing
from s3_jax.errors import S3Error, first_line
from s3_jax.models.families import AnyArchitecture, Structure
from s3_jax.models.subnet import subnet_mask
from s3_jax.profiling.collectives import Collective, collectives
from s3_jax.profiling.executed import executed
from s3_jax.space import Architecture, SearchSpace, map_sizes, sample
from s3_jax.task import Task
from s3_jax.training.devices import check_batch_size, mesh_of, platform_of, replicated, split
from s3_jax.training.fit import NUM_RANDOM_SUBNETS
from s3_jax.training.networks import define, trained_subnets
from s3_jax.training.programs import Length, evaluation_of, shapes_of, training_of

GIB = 2**30
# Memory of one chip in GiB, as Google states it, by the beginning of a topology's name.
HBM_GIB = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}
# Set for libtpu before it is loaded: that there is no metadata server to ask, nor another host.
_NO_DEVICE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no device is taken, so there is nothing to lock
}
# A v4 chip's two cores are one device to JAX, as on the machines themselves, only where libtpu is told so.
_OPTIONS = {"v4": {"chip_config_name": "megacore"}}
NUM_DRAWS = 8  # of random subnets, over which the work of a masked program is averaged
STEPS_PER_EPOCH = 1000  # of the learning rate's schedule, which costs the same whatever it is


class Program(NamedTuple):
    """A jitted function and shapes of its arguments, laid out on a mesh."""

    name: str
    jitted: Any  # what jax.jit returns
    arguments: tuple[Any, ...]
    chips: int
    draws: tuple[Any, ...]  # values of the third argument, the masks, for some random subnets; () where it has none


class Compiled(NamedTuple):
    """What a program needs on each chip."""

    name: str
    seconds: float  # of compilation
    memory: int  # bytes: arguments and results, less what they share, temporary arrays and the program itself
    arguments: int  # bytes of these
    macs: float  # multiply-adds of one chip, averaged over random subnets where there are some
    recomputed: float  # more of them, done again in a backward pass
    bytes_accessed: float  # of HBM, by the compiler's own estimate, in which a loop's body may count once
    collectives: list[Collective]


def make_topology(name: str) -> Mesh:
    """A mesh over chips this machine has not, as `v5e:4x4`. Raises S3Error for unknown ones, and without libtpu."""
    os.environ.update({variable: os.environ.get(variable, value) for variable, value in _NO_DEVICE.items()})
    try:
        described = topologies.get_topology_desc(name, platform="tpu", **_OPTIONS.get(name.split(":")[0], {}))
    except Exception as error:  # libtpu raises what it likes
        raise S3Error(
            f"--topology={name}: {first_line(error)}; names are like v5e:4x4, v6e:4x4, v4:2x2x4, and compiling for "
            'them needs libtpu: pip install "jax[tpu]"'
        ) from error
    return mesh_of(described.devices)


def hbm_bytes(topology: str) -> int:
    """Memory of one chip. Raises S3Error for a kind of chip whose memory is not known here."""
    kind = topology.split(":")[0]
    if kind not in HBM_GIB:
        raise S3Error(f"--topology={topology}: the memory of {kind} is not known; known are {', '.join(HBM_GIB)}")
    return HBM_GIB[kind] * GIB


def supernet_programs(config: Config, task: Task, mesh: Mesh) -> Iterator[Program]:
    """The sandwich update in the configuration's first space, and the evaluation of a subnet."""
    model, space = config.model, config.space.build()
    space = space.clamped(map_sizes(model.image_size, model.patch_size, len(space.stages)))
    yield _training("sandwich", config, task, space, config.train, mesh)
    yield _evaluation("evaluation", config, task, space, mesh)


def retraining_programs(config: Config, task: Task, architecture: Architecture, mesh: Mesh) -> Iterator[Program]:
    """The update that retrains an architecture."""
    yield _training("retraining", config, task, architecture, config.retrain.train, mesh)


def transfer_programs(config: Config, task: Task, architecture: AnyArchitecture, mesh: Mesh) -> Iterator[Program]:
    """The update that trains one network on a task, as `finetune.transfer` does."""
    yield _training("training", config, task, architecture, config.train, mesh)


def compile_ahead(program: Program) -> Compiled:
    """Compile a program for its mesh. Raises S3Error where it does not fit, with the overshoot."""
    start = time.perf_counter()
    lowered = program.jitted.lower(*program.arguments)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not (overshoot := read_overshoot(str(error))):
            raise
        raise S3Error(_too_big(program.name, overshoot)) from error
    seconds = time.perf_counter() - start
    memory, (macs, recomputed) = compiled.memory_analysis(), _work(program)
    whole = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(
        program.name,
        seconds,
        whole + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        memory.argument_size_in_bytes,
        macs,
        recomputed,
        compiled.cost_analysis().get("bytes accessed", 0.0),
        collectives(compiled.as_text()),
    )


def read_overshoot(message: str) -> str | None:
    """By how much a program is too big, as libtpu's error says it; None where the error is another one."""
    if said := re.search(r"Exceeded hbm capacity by ([\d.]+\w)", message):
        return said[1]
    if sizes := re.search(r"\(([\d.]+)G\) exceeds available HBM \(([\d.]+)G\)", message):
        return f"{float(sizes[1]) - float(sizes[2]):.2f}G"
    return None


def check_fits(result: Compiled, limit: int) -> None:
    """Raises S3Error where a program needs more than `limit` bytes on a chip, with the overshoot."""
    if result.memory > limit:
        raise S3Error(_too_big(result.name, f"{(result.memory - limit) / GIB:.2f} GiB"))


def _too_big(name: str, overshoot: str) -> str:
    return (
        f"{name} does not fit: it needs {overshoot} more than a chip has; give fewer images per chip (more chips, or "
        "accumulation_steps), run.shard_parameters=True, or for a single network model.remat=True"
    )


def _training(name: str, config: Config, task: Task, structure: Structure, train: TrainConfig, mesh: Mesh) -> Program:
    check_batch_size(mesh, train.batch_size, train.accumulation_steps, f"the batch size of {name}")
    length = Length(10 * STEPS_PER_EPOCH, STEPS_PER_EPOCH)
    training = training_of(task, structure, train, length, mesh, shard=config.run.shard_parameters)
    state = jax.tree.map(_shape, training.shapes, training.layout)
    batch = _batch(task, mesh, train.batch_size, training=True)
    draws = ()
    if isinstance(structure, SearchSpace):
        draws = _draws(structure, partial(trained_subnets, structure))
    key = _shape(jax.eval_shape(lambda: jax.random.key(0)), replicated(mesh))
    return Program(name, training.update, (state, batch, _masks_shape(mesh, draws), key), mesh.size, draws)


def _evaluation(name: str, config: Config, task: Task, space: SearchSpace, mesh: Mesh) -> Program:
    size = config.run.eval_batch_size
    check_batch_size(mesh, size, 1, "config.run.eval_batch_size")
    batch = _batch(task, mesh, size, training=False)
    draws = _draws(space, lambda random: subnet_mask(space, random[0]))
    laid_out = jax.tree.map(partial(_shape, sharding=replicated(mesh)), shapes_of(task, space))
    program = evaluation_of(task, define(task, space, platform=platform_of(mesh)), mesh)
    return Program(name, program, (laid_out, batch, _masks_shape(mesh, draws)), mesh.size, draws)


def _draws(space: SearchSpace, mask_of: Callable[[list[Architecture]], Any]) -> tuple[Any, ...]:
    """The masks of some updates or evaluations, each of as many random subnets as an update draws."""
    rng = np.random.default_rng(0)
    return tuple(mask_of([sample(space, rng) for _ in range(NUM_RANDOM_SUBNETS)]) for _ in range(NUM_DRAWS))


def _masks_shape(mesh: Mesh, draws: tuple[Any, ...]) -> Any:
    return jax.tree.map(partial(_shape, sharding=replicated(mesh)), draws[0]) if draws else None


def _batch(task: Task, mesh: Mesh, size: int, *, training: bool) -> dict[str, jax.ShapeDtypeStruct]:
    arrays = task.examples(nothing(), training=training).blank() | {"weight": np.zeros((), np.float32)}
    return {
        name: jax.ShapeDtypeStruct((size, *array.shape), array.dtype, sharding=split(mesh))
        for name, array in arrays.items()
    }


def _shape(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)


def _work(program: Program) -> tuple[float, float]:
    """Multiply-adds of one chip, and more of them that are done again; the batch is divided over the chips."""
    before, after = program.arguments[:2], program.arguments[3:]
    draws = program.draws or (program.arguments[2],)
    works = [executed(program.jitted, *before, draw, *after) for draw in draws]
    macs, recomputed = (statistics.mean(column) for column in zip(*works, strict=True))
    return macs / program.chips, recomputed / program.chips
