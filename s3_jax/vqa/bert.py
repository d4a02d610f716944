"""BERT (Devlin et al., 2019): embeddings of words, and post-norm transformer layers over any tokens; as SOHO has them.

Weights in modules, and the pure functions that compute with them. Parity with `transformers` is tested.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from s3_jax.models.layers import LayerNorm, Linear, gelu, layer_norm, linear, truncated_normal
from s3_jax.vqa.config import BertConfig
from s3_jax.vqa.dropout import Passing, dropout

EPSILON = 1e-12  # of the norms
STD = 0.02  # of the embeddings' initial values
TYPES = 2  # of sentences; questions are of the first
_MASKED = -1e4  # what is added to the logits of keys that do not count


class Embeddings(nnx.Module):
    """Weights of words' embeddings: a table each of words, positions and types of sentence, and a norm."""

    def __init__(self, vocabulary_size: int, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        def table(rows: int) -> nnx.Param:
            """A table of `rows` vectors. They are no kernels: weight decay leaves them alone."""
            return nnx.Param(truncated_normal(rngs.params(), (rows, config.width), 1, STD))

        self.words = table(vocabulary_size)
        self.positions = table(config.positions)
        self.types = table(TYPES)
        self.norm = LayerNorm((config.width,))


class EncoderLayer(nnx.Module):
    """Weights of a layer. qkv: queries, keys and values of all heads (C, 3 C)."""

    def __init__(self, config: BertConfig, *, std: float, rngs: nnx.Rngs) -> None:
        width = config.width
        self.qkv = Linear((width, 3 * width), std=std, rngs=rngs)
        self.output = Linear((width, width), std=std, rngs=rngs)
        self.norm1 = LayerNorm((width,))
        self.fc1 = Linear((width, config.hidden), std=std, rngs=rngs)
        self.fc2 = Linear((config.hidden, width), std=std, rngs=rngs)
        self.norm2 = LayerNorm((width,))


def embedded(weights: Embeddings, words: Array, rate: float, passing: Passing | None, dtype: str) -> Array:
    """Numbers of words (B, ..., L) to their embeddings (B, ..., L, C), in `dtype`."""
    found = jnp.take(weights.words[...], words, axis=0)
    found = found + weights.positions[: words.shape[-1]] + weights.types[0]
    return dropout(layer_norm(weights.norm, found.astype(dtype), epsilon=EPSILON), rate, passing)


def encoded(
    layers: list[EncoderLayer],
    x: Array,
    counts: Array,
    *,
    heads: int,
    rate: float,
    passing: Passing | None,
    remat: bool = False,
) -> Array:
    """Tokens (B, N, C) through all layers. counts: bool (B, N), whether a token is there for the others to see.

    remat: recompute each layer in the backward pass.
    """
    bias = jnp.where(counts, 0.0, _MASKED)[:, None, None, :]
    for number, layer in enumerate(layers):
        step = partial(_layer, heads=heads, rate=rate, passing=passing and passing.at(number))
        x = (jax.checkpoint(step) if remat else step)(layer, x, bias)
    return x


def _layer(layer: EncoderLayer, x: Array, bias: Array, *, heads: int, rate: float, passing: Passing | None) -> Array:
    """One layer: the norms come after what is added, as in the first transformers."""
    attention, first, second = (passing and passing.at(place) for place in range(3))
    attended = linear(layer.output, _attend(linear(layer.qkv, x), bias, heads, rate, attention))
    x = layer_norm(layer.norm1, x + dropout(attended, rate, first), epsilon=EPSILON)
    found = linear(layer.fc2, gelu(linear(layer.fc1, x)))
    return layer_norm(layer.norm2, x + dropout(found, rate, second), epsilon=EPSILON)


def _attend(qkv: Array, bias: Array, heads: int, rate: float, passing: Passing | None) -> Array:
    """Attention of every token to all that count: (B, N, 3 C) to (B, N, C); the softmax is float32."""
    batch, length, _ = qkv.shape
    query, key, value = jnp.moveaxis(qkv.reshape(batch, length, 3, heads, -1), 2, 0)
    logits = jnp.einsum("bnhd,bmhd->bhnm", query * query.shape[-1] ** -0.5, key).astype(jnp.float32)
    weights = dropout(jax.nn.softmax(logits + bias, axis=-1).astype(value.dtype), rate, passing)
    return jnp.einsum("bhnm,bmhd->bnhd", weights, value).reshape(batch, length, -1)
