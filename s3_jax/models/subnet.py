"""A subnet of a supernet: as masks that are arguments of one compiled program, or as weights sliced out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from s3_jax.errors import S3Error
from s3_jax.space import HEAD_DIM, Architecture, SearchSpace, Stage, StageSpace, hidden_dim, largest

Params = dict[str, Any]
ArrayLike = Array | np.ndarray


class StageMask(NamedTuple):
    """What is active in one stage, of at most D blocks: counts from the front of every axis."""

    embed_dim: ArrayLike  # () channels
    active: ArrayLike  # (D,) whether the block is there
    window: ArrayLike  # (D,) index into the stage's choices of window
    heads: ArrayLike  # (D,)
    hidden: ArrayLike  # (D,) units of the MLP


class SubnetMask(NamedTuple):
    """A subnet as a pytree of small arrays, a traced argument of the supernet's programs."""

    stages: tuple[StageMask, ...]


def subnet_mask(space: SearchSpace, architecture: Architecture) -> SubnetMask:
    """The mask that makes the supernet of `space` compute `architecture`. Raises S3Error where that is not in it."""
    if not space.contains(architecture):
        raise S3Error(f"the architecture is not in the space: {architecture} is no point of {space}")
    return SubnetMask(tuple(_stage_mask(s, a) for s, a in zip(space.stages, architecture.stages, strict=True)))


def stack_masks(masks: Sequence[SubnetMask]) -> SubnetMask:
    """Several subnets as one mask whose arrays have a leading axis, for `jax.lax.scan` over them."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *masks)


def drop_path_rates(mask: SubnetMask, max_rate: float) -> list[Array]:
    """Stochastic-depth rates per stage (D,): from 0 at the subnet's first block to `max_rate` at its last."""
    depths = [len(stage.active) for stage in mask.stages]
    active = jnp.concatenate([jnp.asarray(stage.active, jnp.float32) for stage in mask.stages])
    rates = max_rate * (jnp.cumsum(active) - 1.0) / jnp.maximum(active.sum() - 1.0, 1.0)
    return jnp.split(jnp.maximum(rates, 0.0), np.cumsum(depths)[:-1].tolist())


def slice_weights(params: Params, space: SearchSpace, architecture: Architecture) -> Params:
    """Weights of the stand-alone network `architecture`, cut out of the supernet's `params` (the front of each axis).

    `space` has its windows clamped to the maps. Raises S3Error where the architecture is not in it.
    """
    if not space.contains(architecture):
        raise S3Error(f"the architecture is not in the space: {architecture} is no point of {space}")
    dims = [stage.embed_dim for stage in architecture.stages]
    sliced: Params = {
        "patch": _channels(params["patch"], dims[0]),
        "patch_norm": _channels(params["patch_norm"], dims[0]),
        "stages": {},
    }
    if "head" in params:  # not where the maps alone are made use of
        sliced["norm"] = _channels(params["norm"], dims[-1])
        sliced["head"] = {"kernel": params["head"]["kernel"][: dims[-1]], "bias": params["head"]["bias"]}
    if "merges" in params:  # not where there is but one stage
        sliced["merges"] = {}
    for i, stage in enumerate(architecture.stages):
        stacked = params["stages"][i]["blocks"]
        blocks = {
            j: _slice_block(jax.tree.map(lambda leaf, j=j: leaf[j], stacked), stage, j) for j in range(stage.depth)
        }
        sliced["stages"][i] = {"blocks": blocks}
    for i, merge in params.get("merges", {}).items():
        kernel = merge["reduction"]["kernel"][:, : dims[i], : dims[i + 1]]
        sliced["merges"][i] = {"norm": _channels(merge["norm"], dims[i]), "reduction": {"kernel": kernel}}
    if "output_norms" in params:
        sliced["output_norms"] = {i: _channels(norm, dims[i]) for i, norm in params["output_norms"].items()}
    return sliced


def copy_overlap(source: Params, target: Params) -> Params:
    """`target` with every weight that both supernets have replaced by that of `source`; shapes are those of `target`.

    Both are pure dicts of one structure, which may be those of networks as well; axes overlap from the front, bias
    tables from their centre.
    """

    def copy(path: tuple[Any, ...], new: Array, old: Array) -> Array:
        """One weight of `target` with what `source` has of it."""
        starts = [0] * new.ndim, [0] * new.ndim
        shared = [min(a, b) for a, b in zip(new.shape, old.shape, strict=True)]
        if "bias_table" in jax.tree_util.keystr(path):
            for axis in (-3, -2):
                starts[0][axis] = (new.shape[axis] - shared[axis]) // 2
                starts[1][axis] = (old.shape[axis] - shared[axis]) // 2
        part = jax.lax.slice(old, starts[1], [a + b for a, b in zip(starts[1], shared, strict=True)])
        return jax.lax.dynamic_update_slice(new, part.astype(new.dtype), starts[0])

    return jax.tree_util.tree_map_with_path(copy, target, source)


def copy_network(network: Params, supernet: Params) -> Params:
    """`supernet` with every weight that it shares with a stand-alone network replaced by the network's.

    The reverse of `slice_weights`: blocks overlap by their place in their stage, axes as in `copy_overlap`. What
    `network` lacks, blocks or a head, is as it was; its blocks beyond the supernet's are left out. Both have as many
    stages.
    """
    stages: Params = {i: {"blocks": _unstacked(stage["blocks"])} for i, stage in supernet["stages"].items()}
    listed = supernet | {"stages": stages}
    copied = copy_overlap(_completed(network, listed), listed)
    stacked = {
        i: {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *stage["blocks"].values())}
        for i, stage in copied["stages"].items()
    }
    return copied | {"stages": stacked}


def _unstacked(blocks: Params) -> dict[int, Params]:
    """The blocks of a supernet's stage by their place."""
    depth = jax.tree.leaves(blocks)[0].shape[0]
    return {j: jax.tree.map(lambda leaf, j=j: leaf[j], blocks) for j in range(depth)}


def _completed(tree: Any, like: Any) -> Any:
    """`tree` with the entries of `like` where it has none, and without those that `like` has not."""
    if not isinstance(like, dict):
        return tree
    return {name: _completed(tree[name], entry) if name in tree else entry for name, entry in like.items()}


def _stage_mask(space: StageSpace, stage: Stage) -> StageMask:
    padding = (largest(SearchSpace((space,))).stages[0].blocks[0],) * (max(space.depth) - stage.depth)
    blocks = stage.blocks + padding
    return StageMask(
        embed_dim=np.array(stage.embed_dim, np.int32),
        active=np.arange(len(blocks)) < stage.depth,
        window=np.array([space.window.index(block.window) for block in blocks], np.int32),
        heads=np.array([block.heads for block in blocks], np.int32),
        hidden=np.array([hidden_dim(stage.embed_dim, block.mlp_ratio) for block in blocks], np.int32),
    )


def _channels(tree: Params, count: int) -> Params:
    return jax.tree.map(lambda leaf: leaf[..., :count], tree)


def _slice_block(block: Params, stage: Stage, index: int) -> Params:
    choice, dim = stage.blocks[index], stage.embed_dim
    heads, hidden = choice.heads, hidden_dim(dim, choice.mlp_ratio)
    qkv, proj, table = (block["attention"][name] for name in ("qkv", "proj", "bias_table"))
    margin = (table.shape[0] + 1) // 2 - choice.window
    span = slice(margin, margin + 2 * choice.window - 1)
    fc1, fc2 = block["mlp"]["fc1"], block["mlp"]["fc2"]
    assert qkv["kernel"].shape[-1] == HEAD_DIM
    return {
        "norm1": _channels(block["norm1"], dim),
        "attention": {
            "qkv": {"kernel": qkv["kernel"][:dim, :, :heads], "bias": qkv["bias"][:, :heads]},
            "proj": {"kernel": proj["kernel"][:heads, :, :dim], "bias": proj["bias"][:dim]},
            "bias_table": table[span, span, :heads],
        },
        "norm2": _channels(block["norm2"], dim),
        "mlp": {
            "fc1": {"kernel": fc1["kernel"][:dim, :hidden], "bias": fc1["bias"][:hidden]},
            "fc2": {"kernel": fc2["kernel"][:hidden, :dim], "bias": fc2["bias"][:dim]},
        },
    }
