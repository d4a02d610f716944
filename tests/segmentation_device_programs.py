"""What a subprocess of test_segmentation_layers.py runs, with four forced devices.

Two convolutions with batch normalisation, the second of an enlarged map, and dropout of channels: on one device, and in
`jax.shard_map` over four. Prints as JSON the largest difference of each result, relative to its largest entry.
"""

import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from s3_jax.models.convolution import ConvolutionNorm
from s3_jax.segmentation.layers import Passing, channel_dropout, convolved, convolved_together

BATCH, WEIGHT = 8, np.float32([1, 1, 1, 0, 0, 0, 1, 1])  # of the devices' two each: two, one, none, two count
AXIS = "data"


class Stack(nnx.Module):
    """Two layers."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = ConvolutionNorm(3, 6, side=3, rngs=rngs)
        self.second = ConvolutionNorm(6, 4, side=3, rngs=rngs)

    def __call__(self, x: jax.Array, passing: Passing) -> jax.Array:
        """(B, H, W, 3) to (B, 2 H, 2 W, 4)."""
        size = (2 * x.shape[1], 2 * x.shape[2])
        hidden = convolved(self.first, x, passing)
        return channel_dropout(convolved_together(self.second, [hidden], size, passing), 0.4, passing)


def results(axis: str | None, params: Any, stats: Any, definition: Any, x: Any, weight: Any, cotangent: Any) -> Any:
    """Output, gradient of a weighted sum of it, and running statistics."""

    def loss(params: Any) -> Any:
        """Examples that do not count have no loss either."""
        stack = nnx.merge(definition, params, stats, copy=True)
        output = stack(x, Passing(True, weight, jax.random.key(1), axis))
        after = nnx.to_pure_dict(nnx.state(stack, nnx.BatchStat))
        return (output * cotangent * weight[:, None, None, None]).sum(), (output, after)

    gradient, (output, after) = jax.grad(loss, has_aux=True)(params)
    gradient = nnx.to_pure_dict(gradient)
    return output, jax.lax.psum(gradient, axis) if axis else gradient, after


def main() -> dict[str, float]:
    """The differences by the names of the results."""
    definition, params, stats = nnx.split(Stack(), nnx.Param, nnx.BatchStat)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, 3, 4, 3)) + rng.normal(size=(BATCH, 1, 1, 3)), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(BATCH, 6, 8, 4)), jnp.float32)
    batch = (x, jnp.asarray(WEIGHT), cotangent)

    def run(axis: str | None, *batch: Any) -> Any:
        """The results of a part of the batch."""
        return results(axis, params, stats, definition, *batch)

    mesh, split, whole = Mesh(np.array(jax.devices()), (AXIS,)), PartitionSpec(AXIS), PartitionSpec()
    assert mesh.size == 4
    specs = {"in_specs": (split,) * 3, "out_specs": (split, whole, whole), "check_vma": False}
    one = jax.jit(partial(run, None))(*batch)
    four = jax.jit(jax.shard_map(partial(run, AXIS), mesh=mesh, **specs))(*batch)
    dropped = (np.asarray(one[0]) == 0).all((1, 2))
    assert 0 < dropped.sum() < dropped.size
    names = ("output", "gradient", "statistics")
    return {
        name: max(map(difference, *map(jax.tree.leaves, pair))) for name, *pair in zip(names, one, four, strict=True)
    }


def difference(one: Any, other: Any) -> float:
    """The largest, relative to the largest entry."""
    one, other = np.asarray(one), np.asarray(other)
    return float(np.abs(one - other).max() / np.abs(one).max())


if __name__ == "__main__":
    print(json.dumps(main()))
