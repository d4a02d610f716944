"""SOHO's network for visual question answering (Huang et al., 2021) on a window transformer, as the paper's Table 4 has
it: places of the image and words of the question in one BERT, whose [CLS] chooses an answer.

A network of an architecture or the supernet of a space: what follows the backbone takes its last map at the space's
largest width, in which a subnet's channels beyond its own are zero.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from s3_jax.config import ModelConfig
from s3_jax.models.batch_norm import BatchNorm, batch_norm
from s3_jax.models.layers import LayerNorm, Linear, layer_norm, linear, product
from s3_jax.models.subnet import Params, SubnetMask, slice_weights
from s3_jax.models.transformer import S3Transformer
from s3_jax.space import Architecture, SearchSpace
from s3_jax.vqa.bert import EPSILON, Embeddings, EncoderLayer, embedded, encoded
from s3_jax.vqa.config import AnswerHeadConfig, BertConfig
from s3_jax.vqa.dropout import Passing, dropout
from s3_jax.vqa.places import places_of, pooled, positions_of


class VisualEmbeddings(nnx.Module):
    """Weights that make tokens of the backbone's last map: its norm, a projection with batch normalisation, a norm."""

    def __init__(self, dim: int, width: int, *, std: float, rngs: nnx.Rngs) -> None:
        self.map_norm = LayerNorm((dim,))
        self.projection = Linear((dim, width), bias=False, std=std, rngs=rngs)
        self.batch_norm = BatchNorm(width)
        self.norm = LayerNorm((width,))


class AnswerHead(nnx.Module):
    """Weights of the classifier of answers."""

    def __init__(self, width: int, hidden: int, num_answers: int, *, std: float, rngs: nnx.Rngs) -> None:
        self.fc1 = Linear((width, hidden), std=std, rngs=rngs)
        self.fc2 = Linear((hidden, num_answers), std=std, rngs=rngs)


class VqaNetwork(nnx.Module):
    """A network that answers questions about images.

    padding: the number of [PAD]. batch_axis, platform: as for `S3Transformer`. Windows of the backbone are those of
    `model.image_size`, whatever the size of the images; the first norm is of its last map, the others have none.
    """

    def __init__(
        self,
        structure: Architecture | SearchSpace,
        *,
        model: ModelConfig,
        bert: BertConfig,
        head: AnswerHeadConfig,
        vocabulary_size: int,
        padding: int,
        num_answers: int,
        batch_axis: str | None = None,
        platform: str | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.backbone = S3Transformer(
            structure,
            **dataclasses.asdict(model),  # its fields are settings of transformers
            num_classes=0,
            batch_axis=batch_axis,
            platform=platform,
            rngs=rngs,
        )
        stages, std = self.backbone.architecture.stages, model.kernel_std
        self.visual = VisualEmbeddings(stages[-1].embed_dim, bert.width, std=std, rngs=rngs)
        self.words = Embeddings(vocabulary_size, bert, rngs=rngs)
        self.layers = nnx.List([EncoderLayer(bert, std=std, rngs=rngs) for _ in range(bert.layers)])
        self.head = AnswerHead(bert.width, head.hidden, num_answers, std=std, rngs=rngs)
        self.bert, self.head_dropout, self.padding = bert, head.dropout, padding
        self.dtype, self.remat, self.batch_axis = model.dtype, model.remat, batch_axis
        self.stride = model.patch_size * 2 ** (len(stages) - 1)  # of the backbone's last map, in pixels

    def __call__(self, images: Array, sizes: Array, words: Array, subnet: SubnetMask | None = None) -> Array:
        """Logits of the answers (B, Q, A), float32.

        images: float32 (B, H, W, 3), normalised, at the top left of their canvases and 0 beyond. sizes: int32 (B, 2),
        heights and widths of the images there, in pixels. words: int32 (B, Q, L), the tokens of Q questions about each.
        """
        return self._answers(self.backbone.features(images, subnet)[-1], sizes, words, subnet, None)

    def in_training(
        self,
        images: Array,
        sizes: Array,
        words: Array,
        weight: Array,
        subnet: SubnetMask | None = None,
        *,
        max_drop_path: float = 0.0,
        key: Array,
    ) -> Array:
        """The same in training, which updates running statistics in place.

        weight (B,): examples of weight 0 are in no statistics. key: of stochastic depth and of dropout.
        """
        depth_key, key = jax.random.split(key)
        depth = depth_key if max_drop_path > 0 else None
        last = self.backbone.features(images, subnet, max_drop_path=max_drop_path, key=depth)[-1]
        return self._answers(last, sizes, words, subnet, Passing(weight, key, self.batch_axis))

    def _answers(
        self, last: Array, sizes: Array, words: Array, subnet: SubnetMask | None, passing: Passing | None
    ) -> Array:
        seen, there = self._visual_tokens(last, sizes, subnet, passing)
        read = embedded(self.words, words, self.bert.dropout, passing and passing.at(0), self.dtype)
        # Questions about one image share its tokens: they are examples of their own from here on, one after the other.
        batch, count, length, width = read.shape
        tokens = jnp.concatenate([read.reshape(-1, length, width), _for_each(seen, count)], axis=1)
        counts = jnp.concatenate([(words != self.padding).reshape(-1, length), _for_each(there, count)], axis=1)
        settings = {"heads": self.bert.heads, "rate": self.bert.dropout, "remat": self.remat}
        x = encoded(list(self.layers), tokens, counts, passing=passing and passing.at(1), **settings)  # type: ignore[arg-type]
        hidden = jax.nn.relu(linear(self.head.fc1, x[:, 0]))
        hidden = dropout(hidden, self.head_dropout, passing and passing.at(2))
        return linear(self.head.fc2, hidden).astype(jnp.float32).reshape(batch, count, -1)

    def _visual_tokens(
        self, last: Array, sizes: Array, subnet: SubnetMask | None, passing: Passing | None
    ) -> tuple[Array, Array]:
        """The last map (B, h, w, C) as tokens (B, N, width), and which of them are there (B, N)."""
        normed = layer_norm(self.visual.map_norm, last, subnet.stages[-1].embed_dim if subnet else None)
        cells = pooled(normed, places_of(sizes, (last.shape[1], last.shape[2]), self.stride))
        batch, height, width = cells.shape[:3]
        there = places_of(sizes, (height, width), 2 * self.stride)
        weight = None if passing is None else there * passing.weight[:, None, None]
        x = product(cells, self.visual.projection.kernel[...])
        x = batch_norm(self.visual.batch_norm, x, weight, self.batch_axis)
        x = x + positions_of(sizes, (height, width), 2 * self.stride, x.shape[-1]).astype(x.dtype)
        x = layer_norm(self.visual.norm, x, epsilon=EPSILON)
        return x.reshape(batch, height * width, -1), there.reshape(batch, -1)


def _for_each(x: Array, count: int) -> Array:
    """(B, ...) to (B * count, ...): what an image has, for each of the questions about it."""
    return jnp.broadcast_to(x[:, None], (x.shape[0], count, *x.shape[1:])).reshape(-1, *x.shape[1:])


def slice_network(params: Params, space: SearchSpace, architecture: Architecture) -> Params:
    """Weights of the network `architecture`, cut out of the supernet's: as `slice_weights`, and what takes its map."""
    dim, visual = architecture.stages[-1].embed_dim, params["visual"]
    cut = {
        "map_norm": {name: leaf[:dim] for name, leaf in visual["map_norm"].items()},
        "projection": {"kernel": visual["projection"]["kernel"][:dim]},
    }
    return params | {"backbone": slice_weights(params["backbone"], space, architecture), "visual": visual | cut}
