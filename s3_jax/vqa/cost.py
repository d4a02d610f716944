"""Exact parameter and multiply-add counts of a network for visual question answering, counted as the paper counts."""

from __future__ import annotations

import math

from s3_jax.cost import Cost, dense_cost, dense_map_sizes
from s3_jax.space import Architecture
from s3_jax.vqa.bert import TYPES
from s3_jax.vqa.config import AnswerHeadConfig, BertConfig


def backbone_cost(architecture: Architecture, size: tuple[int, int], *, image_size: int, patch_size: int) -> Cost:
    """The backbone with a norm on its last map alone, on an image of `size` (height, width)."""
    every = dense_cost(architecture, size, image_size=image_size, patch_size=patch_size)
    unused = sum(2 * stage.embed_dim for stage in architecture.stages[:-1])  # norms of the other maps
    return Cost(every.params - unused, every.macs)


def vqa_cost(
    architecture: Architecture,
    size: tuple[int, int],
    *,
    image_size: int,
    patch_size: int,
    bert: BertConfig,
    head: AnswerHeadConfig,
    vocabulary_size: int,
    num_answers: int,
) -> Cost:
    """Parameters of the whole network, and MACs of one question about an image of `size` (height, width)."""
    backbone = backbone_cost(architecture, size, image_size=image_size, patch_size=patch_size)
    dims, width = [stage.embed_dim for stage in architecture.stages], bert.width
    places = math.prod(-(-side // 2) for side in dense_map_sizes(size, patch_size, len(dims))[-1])
    tokens = places + bert.tokens
    layer = Cost(
        4 * width * width + 2 * width * bert.hidden + 9 * width + bert.hidden,
        tokens * (4 * width * width + 2 * width * bert.hidden) + 2 * tokens**2 * width,
    )
    embeddings = (vocabulary_size + bert.positions + TYPES + 2) * width
    visual = Cost((dims[-1] + 4) * width, places * dims[-1] * width)
    answers = width * head.hidden + head.hidden * num_answers
    return Cost(
        backbone.params + visual.params + embeddings + bert.layers * layer.params + answers + head.hidden + num_answers,
        backbone.macs + visual.macs + bert.layers * layer.macs + answers,
    )
