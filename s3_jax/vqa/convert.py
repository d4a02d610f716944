"""A network's weights under BERT's and timm's names, and BERT's own weights; every tensor is accounted for.

The text encoder has the names of `transformers`' BertModel, whose files can be read; the backbone has timm's, behind
"backbone."; what joins them, and the head, have ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from s3_jax.errors import S3Error
from s3_jax.networks import convert
from s3_jax.networks.files import StateDict
from s3_jax.vqa.network import VqaNetwork

_BERT = ("words", "layers")  # the parts of a network that are BERT's
_NAMES = (
    (r"^words\.words$", "bert.embeddings.word_embeddings.weight"),
    (r"^words\.positions$", "bert.embeddings.position_embeddings.weight"),
    (r"^words\.types$", "bert.embeddings.token_type_embeddings.weight"),
    (r"^words\.norm\.", "bert.embeddings.LayerNorm."),
    (r"^layers\.(\d+)\.", r"bert.encoder.layer.\1."),
    (r"\.(query|key|value)\.", r".attention.self.\1."),
    (r"(layer\.\d+)\.output\.", r"\1.attention.output.dense."),
    (r"(layer\.\d+)\.norm1\.", r"\1.attention.output.LayerNorm."),
    (r"(layer\.\d+)\.fc1\.", r"\1.intermediate.dense."),
    (r"(layer\.\d+)\.fc2\.", r"\1.output.dense."),
    (r"(layer\.\d+)\.norm2\.", r"\1.output.LayerNorm."),
    (r"\.batch_norm\.mean$", ".batch_norm.running_mean"),
    (r"\.batch_norm\.variance$", ".batch_norm.running_var"),
    (r"\.(kernel|scale)$", ".weight"),
)
_PARTS = ("query", "key", "value")
# What BERT's files have beside the encoder: heads of its own training, and what is on [CLS].
_UNUSED = re.compile(r"^(cls\.|bert\.pooler\.|bert\.embeddings\.position_ids$)")
_LAYER = re.compile(r"^bert\.encoder\.layer\.(\d+)\.")


def to_state_dict(network: VqaNetwork) -> StateDict:
    """A network's weights and running statistics, in PyTorch's shapes, float32."""
    backbone = {f"backbone.{name}": tensor for name, tensor in convert.to_state_dict(network.backbone).items()}
    own = _split(
        {".".join(map(str, path)): np.asarray(leaf) for path, leaf in convert.beside_backbone(network).items()}
    )
    return backbone | {_official(name): _theirs(name, array) for name, array in own.items()}


def load_weights(network: VqaNetwork, tensors: Mapping[str, np.ndarray]) -> None:
    """Give a network the weights of a state dict that `to_state_dict` made of another, in place.

    Raises S3Error, and changes nothing, where a tensor is missing, in surplus or misshapen, or has values that are no
    finite numbers.
    """
    prefix = "backbone."
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    loaded = _loaded(convert.beside_backbone(network), own)
    backbone = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
    convert.load_weights(network.backbone, backbone, resize=False, reset_head=False)
    nnx.update(network, loaded)


def load_bert(network: VqaNetwork, tensors: Mapping[str, np.ndarray]) -> int:
    """Give a network's text encoder BERT's weights, in place. Returns how many layers the file has.

    Layers beyond the network's are left out, and so are BERT's pooler and the heads it was trained with. Raises
    S3Error, and changes nothing, where a tensor is missing, in surplus or misshapen, or the vocabulary is of another
    size.
    """
    kept = {_prefixed(_as_now(name)): tensor for name, tensor in tensors.items() if not convert.is_buffer(name)}
    kept = {name: tensor for name, tensor in kept.items() if not _UNUSED.match(name)}
    layers = 1 + max((int(found[1]) for found in map(_LAYER.match, kept) if found), default=-1)
    _check_vocabulary(kept, network.words.words.shape)
    surplus = {name for name in kept if (found := _LAYER.match(name)) and int(found[1]) >= len(network.layers)}
    wanted = {path: leaf for path, leaf in convert.beside_backbone(network).items() if path[0] in _BERT}
    nnx.update(network, _loaded(wanted, {name: each for name, each in kept.items() if name not in surplus}))
    return layers


def _check_vocabulary(tensors: Mapping[str, np.ndarray], expected: tuple[int, ...]) -> None:
    table = tensors.get("bert.embeddings.word_embeddings.weight")
    if table is not None and table.ndim == 2 and len(table) != expected[0]:
        raise S3Error(
            f"the weights have embeddings of {len(table):,} words, and the vocabulary has {expected[0]:,}: give the "
            "vocabulary that belongs to the weights, with config.data.vocabulary_file"
        )


def _as_now(name: str) -> str:
    """Early files call a norm's scale and bias gamma and beta."""
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name))


def _prefixed(name: str) -> str:
    """Files of the model without heads leave "bert." out."""
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def _split(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With queries, keys and values apart, as BERT has them."""
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if ".qkv." not in name:
            found[name] = array
            continue
        for part, cut in zip(_PARTS, np.split(array, 3, axis=-1), strict=True):
            found[name.replace(".qkv.", f".{part}.")] = cut
    return found


def _loaded(wanted: Mapping[convert.ParameterPath, Any], tensors: Mapping[str, np.ndarray]) -> Any:
    """The leaves of these paths, nested, of a state dict. Raises S3Error where it is not theirs."""
    shapes = _split(
        {".".join(map(str, path)): np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in wanted.items()}
    )
    names = {_official(name): name for name in shapes}
    convert.check_names(tensors, names)
    checked = {
        each: convert.checked(each, tensors[each], _theirs(name, shapes[name]).shape) for each, name in names.items()
    }
    convert.check_finite(checked)
    ours = {name: _theirs(name, checked[each]) for each, name in names.items()}
    leaves = {path: _joined(".".join(map(str, path)), ours.__getitem__) for path in wanted}
    return traverse_util.unflatten_dict({path: jnp.asarray(array) for path, array in leaves.items()})


def _joined(name: str, part_of: Callable[[str], np.ndarray]) -> np.ndarray:
    """The reverse of `_split` for one leaf."""
    if ".qkv." not in name:
        return part_of(name)
    return np.concatenate([part_of(name.replace(".qkv.", f".{part}.")) for part in _PARTS], axis=-1)


def _official(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _theirs(name: str, array: np.ndarray) -> np.ndarray:
    """A kernel (C, O) as PyTorch has it, (O, C), or the reverse."""
    return array.T if name.endswith(".kernel") else array
