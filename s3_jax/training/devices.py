"""The mesh a run computes on, and how arrays are laid out over it: batches split, everything else replicated."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from s3_jax.errors import S3Error

DATA_AXIS = "data"
# After so long without a sign of life from a process, the others end. JAX's own default is 100.
HEARTBEAT_SECONDS = 30

# Of glibc's mallopt: its names in malloc.h, and values by which freed memory stays with the process. Requests of any
# size are served from the heap, which grows by at least 64 MiB and never shrinks.
_FREED_MEMORY_STAYS = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 64 * 2**20)}


def start_processes() -> None:
    """Join the other processes of a run, where the environment says that there are some (JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID, or a cluster that JAX recognises when S3_JAX_DISTRIBUTED=1).

    Must come before any other use of JAX. Once a process is lost, the others end within some HEARTBEAT_SECONDS. Raises
    S3Error for an environment that says it by halves.
    """
    if "JAX_COORDINATOR_ADDRESS" in os.environ and "JAX_NUM_PROCESSES" in os.environ:
        try:
            count, index = (int(os.environ[name]) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
        except (KeyError, ValueError) as error:
            raise S3Error(
                "JAX_COORDINATOR_ADDRESS is set, so JAX_NUM_PROCESSES and JAX_PROCESS_ID must be whole numbers, as "
                f"2 and, for the first process, 0 ({error})"
            ) from error
        jax.distributed.initialize(
            os.environ["JAX_COORDINATOR_ADDRESS"], count, index, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    elif os.environ.get("S3_JAX_DISTRIBUTED") == "1":
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS)


def keep_compiled_programs() -> None:
    """Keep compiled programs between processes, so that a run that is taken up again starts at once."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "s3_jax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def keep_freed_memory() -> None:
    """On a CPU, let a program's temporary arrays use the memory that those of the last one have freed.

    Without it, the system hands out fresh pages, filled with zeros, for the hundreds of MiB of every call: a sixth of a
    processor's time in the gradient of a small subnet. Programs then run in the thread that calls them, since glibc
    keeps large blocks for the main thread alone. Where the C library is another one, nothing changes. Must come before
    any other use of JAX but `start_processes`.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and jax.default_backend() == "cpu":
        for parameter, value in _FREED_MEMORY_STAYS.values():
            mallopt(parameter, value)


def make_mesh(num_devices: int = 0) -> Mesh:
    """A mesh of one data axis over the first `num_devices` devices (0: all). Raises S3Error where there are fewer."""
    devices = jax.devices()
    if num_devices > len(devices):
        raise S3Error(
            f"config.run.num_devices = {num_devices}, but there are {len(devices)} {devices[0].platform} devices"
        )
    return mesh_of(devices[: num_devices or len(devices)])


def mesh_of(devices: Sequence[Any]) -> Mesh:
    """A mesh of one data axis over these devices, be they there or only described."""
    return Mesh(np.array(devices), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The layout of parameters, optimizer state, masks and metrics: whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The layout of batches: the leading axis divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def state_layout(mesh: Mesh, state: Any, *, shard: bool) -> Any:
    """A layout for every array of a training's state: whole on every device, or (shard) split over all of them.

    An array is split along the longest axis that the devices divide; one without such an axis stays whole.
    """
    return jax.tree.map(lambda leaf: _split_longest(mesh, leaf.shape) if shard else replicated(mesh), state)


def _split_longest(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    lengths = [length if length % mesh.size == 0 else 0 for length in shape]
    if not any(lengths):
        return replicated(mesh)
    axis = lengths.index(max(lengths))
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))


def platform_of(mesh: Mesh) -> str:
    """What JAX calls the mesh's kind of devices: cpu, gpu or tpu."""
    return mesh.devices.flat[0].platform


def axis_of(mesh: Mesh) -> str | None:
    """The axis over which `summed_over_devices` splits a batch; None for one device, where it splits nothing."""
    return DATA_AXIS if mesh.size > 1 else None


def summed_over_devices(gradients: Callable[..., Any], mesh: Mesh, layout: Any) -> Callable[..., Any]:
    """`gradients` computed by every device for its own examples, and summed over them all once, at the end.

    gradients: a function (variables, batch, *others) to a gradient, values and statistics, as `accumulate` is, which is
    given `over_devices` for the few numbers that sums are divided by. The batch (B, ...) is split, all else is whole on
    every device; statistics are averaged. layout: a sharding for every array of the gradient. Left to the compiler,
    each network's pass, or each of its blocks, would be summed on its own.
    """
    if axis_of(mesh) is None:
        return gradients

    def summed(variables: Any, batch: Any, *others: Any) -> tuple[Any, Any, Any]:
        """What one device computes, then the sums."""
        over_devices = partial(jax.lax.psum, axis_name=DATA_AXIS)
        gradient, values, stats = gradients(variables, batch, *others, over_devices=over_devices)
        means = jax.tree.map(lambda x: jax.lax.pmean(x, DATA_AXIS), stats)
        return jax.tree.map(_sum_to, gradient, layout), jax.tree.map(over_devices, values), means

    def spread(variables: Any, batch: Any, *others: Any) -> tuple[Any, Any, Any]:
        """The same over all devices."""
        whole = PartitionSpec()
        results = (jax.tree.map(lambda sharding: sharding.spec, layout), whole, whole)
        specs = (whole, PartitionSpec(DATA_AXIS), *[whole] * len(others))
        run = jax.shard_map(summed, mesh=mesh, in_specs=specs, out_specs=results, check_vma=False)
        return run(variables, batch, *others)

    return spread


def _sum_to(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """The sum of `x` over all devices: whole on each, or of an array that is split, each its own part."""
    split_axes = [axis for axis, name in enumerate(sharding.spec) if name]
    if not split_axes:
        return jax.lax.psum(x, DATA_AXIS)
    return jax.lax.psum_scatter(x, DATA_AXIS, scatter_dimension=split_axes[0], tiled=True)


def check_batch_size(mesh: Mesh, batch_size: int, parts: int, field: str) -> None:
    """Raises S3Error where a batch cannot be divided over the devices and accumulation steps."""
    unit = mesh.size * parts
    if batch_size < 1 or batch_size % unit:
        nearest = max(unit, round(batch_size / unit) * unit)
        raise S3Error(
            f"{field} = {batch_size} cannot be divided over {mesh.size} devices x accumulation_steps = {parts}; "
            f"the nearest that works is {nearest}"
        )


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's slice of a batch as global arrays on the mesh."""
    sharding = split(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def gathered(mesh: Mesh, tree: Any) -> Any:
    """A pytree of arrays, split or not, whole on every device of the mesh.

    In one program: `jax.device_put` starts a transfer for each array, which processes may begin in different orders,
    and then they wait for each other for ever.
    """
    if all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(tree)):
        return tree
    return jax.jit(lambda whole: whole, out_shardings=replicated(mesh))(tree)


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """A pytree of arrays, alike in every process, whole on every device of the mesh."""
    sharding = replicated(mesh)

    def put(leaf: Any) -> jax.Array:
        """One array, whole on every device."""
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree)
