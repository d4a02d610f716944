"""The network whose weights a search begins with (config.train.init_from): opened, checked, put into supernets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from s3_jax.config import Config, DataConfig, ModelConfig
from s3_jax.errors import S3Error
from s3_jax.models.families import Structure
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.models.subnet import Params, copy_network
from s3_jax.networks import zoo
from s3_jax.networks.classes import match
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.convert import params_of, to_state_dict
from s3_jax.networks.resize import fit_table, resize_patches
from s3_jax.networks.standalone import Standalone
from s3_jax.space import SearchSpace, map_sizes
from s3_jax.task import Variables


def open_pretrained(config: Config) -> Standalone | None:
    """The network of config.train.init_from; None where there is none.

    Raises S3Error where it is no network with finite weights, a plain transformer, or of another number of stages than
    the space.
    """
    name, weights = config.train.init_from, config.train.init_weights
    if not name:
        return None
    where = f"config.train.init_from = {name!r}"
    if name in zoo.names() and not weights:
        raise S3Error(f"{where} is a published model: give its weights, a file or hf-hub:owner/name, as init_weights")
    if name not in zoo.names() and weights:
        raise S3Error(f"{where} is no published model, so it has its own weights: leave out config.train.init_weights")
    try:
        found = zoo.open_model(name, weights, new_head=True)
    except S3Error as error:
        raise S3Error(f"{where}: {error}") from error
    _check_shares(found.spec, len(config.space.depth), where)
    return found


def _check_shares(spec: ClassifierSpec, num_stages: int, where: str) -> None:
    """Raises S3Error where a network shares no blocks with supernets of so many stages."""
    if isinstance(spec.architecture, IsotropicArchitecture):
        raise S3Error(
            f"{where} is a plain transformer, which shares no weights with a space of stages and windows: give a "
            f"network that a run has found, or one of {', '.join(zoo.with_stages())}"
        )
    stages = len(spec.architecture.stages)
    if stages != num_stages:
        raise S3Error(
            f"{where} has {stages} stages and config.space has {num_stages}: their blocks are on maps of other sizes. "
            "Give a network and a space of as many stages"
        )


def checksum(pretrained: Standalone) -> str:
    """What tells two networks apart: SHA-256 of structure, classes and weights, wherever their files lie."""
    spec = pretrained.spec
    structure = [spec.architecture.to_json(), spec.patch_size, spec.class_names]
    digest = hashlib.sha256(json.dumps(structure).encode())
    for name, tensor in sorted(to_state_dict(pretrained.network).items()):
        digest.update(name.encode() + np.ascontiguousarray(tensor, np.float32).tobytes())
    return digest.hexdigest()


def differences(spec: ClassifierSpec, data: DataConfig) -> str:
    """Where the images of a run are not normalised as those were that its network has been trained on, in words."""
    told = ""
    for name in ("mean", "std"):
        now, then = getattr(data, name), getattr(spec, name)
        if not np.allclose(now, then, atol=5e-4):
            flag = f"--config.data.{name}='{tuple(round(value, 4) for value in then)}'"
            told += f". Warning: config.data.{name} = {now} is not that of the network to begin with; it had {flag}"
    return told


def with_pretrained(
    pretrained: Standalone,
    class_names: Sequence[str],
    model: ModelConfig,
    data: DataConfig,
    structure: Structure,
    random: Variables,
    tell: Callable[[str], None],
) -> Variables:
    """The variables of a space's supernet with the weights of a network; those of an architecture as they are.

    structure: a space with its windows clamped to the maps, or an architecture. Says how much of the supernet is the
    network's, and where images are normalised otherwise.
    """
    if not isinstance(structure, SearchSpace):
        return random
    sides = map_sizes(model.image_size, model.patch_size, len(structure.stages))
    network = fitted(pretrained, structure, sides, model.patch_size, class_names)
    tell(f"weights of config.train.init_from: {shares(network, random.params)}{differences(pretrained.spec, data)}")
    return random._replace(params=jax.jit(copy_network)(network, random.params))


def fitted(
    pretrained: Standalone, space: SearchSpace, sides: Sequence[int], patch_size: int, class_names: Sequence[str]
) -> Params:
    """A network's parameters as the supernet of `space` can take them over.

    Its bias tables have the supernet's sizes (see `fit_table`), its patches this size, its head the data's classes in
    their order; there is no head where these are not among its own.
    """
    params: Params = jax.tree.map(np.asarray, params_of(pretrained.network))
    params["patch"]["kernel"] = resize_patches(params["patch"]["kernel"], patch_size)
    for index, (stage, side) in enumerate(zip(space.stages, sides, strict=True)):
        for block in params["stages"][index]["blocks"].values():
            attention = block["attention"]
            attention["bias_table"] = fit_table(attention["bias_table"], stage.window, side)
    head = params.pop("head")
    try:
        classes = match(pretrained.spec.class_names, class_names)
    except S3Error:
        return params
    return params | {"head": {name: leaf[..., classes] for name, leaf in head.items()}}


def shares(network: Params, supernet: Params) -> str:
    """How many of a supernet's parameters are those of a network that is `fitted` to it, in words, by their parts."""
    ones = jax.tree.map(np.ones_like, network)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), supernet)
    taken = _parts(jax.tree.map(lambda leaf: int(np.asarray(leaf).sum(dtype=np.int64)), copy_network(ones, zeros)))
    size = _parts(jax.tree.map(np.size, supernet))
    each = ", ".join(f"{name} {_percent(taken[name], size[name])}" for name in size)
    total = sum(size.values())
    return f"{_percent(sum(taken.values()), total)} of {total:,} parameters ({each}); the others are random"


def _parts(counts: Params) -> dict[str, int]:
    """Sums by part of the network, every stage for itself."""
    stages = {f"stage {index + 1}": stage for index, stage in counts["stages"].items()}
    parts: dict[str, Any] = {"patch": (counts["patch"], counts["patch_norm"]), **stages}
    parts |= {"merges": counts.get("merges", {}), "norm": counts["norm"], "head": counts["head"]}
    return {name: sum(jax.tree.leaves(part)) for name, part in parts.items() if part}


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.3g} %"
