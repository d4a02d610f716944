"""The settings that visual question answering has of its own: questions about images, the text encoder and the head.

`main` asks for them before anything else is loaded, so nothing here may import JAX or what takes seconds.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from s3_jax.config import Config, DataConfig
from s3_jax.errors import S3Error
from s3_jax.limits import (
    SIDE,
    BelowOne,
    Canvases,
    Count,
    Limit,
    Scale,
    SettingError,
    Side,
    check_fields,
    increasing,
    one_of,
    whole,
)

SOURCES = ("easy_vqa", "vqa_json")


def _is_pattern(value: object) -> bool:
    """Whether a path can be made of a pattern."""
    try:
        return isinstance(value, str) and bool(value.format(split="train", image_id=1))
    except (AttributeError, IndexError, KeyError, ValueError):
        return False


Pattern = Annotated[
    str, Limit("a path below data.path, in which {split} and {image_id}, as {image_id:012}, may stand", _is_pattern)
]


@dataclasses.dataclass(frozen=True)
class VqaDataConfig(DataConfig):
    """Where the questions, their answers and the images are, and at which size images are seen.

    easy_vqa: the pictures and questions of the package of this name, splits "train" and "test". vqa_json: files as VQA
    v2 has them; in the three patterns {split} stands for the name of a split and {image_id} for the number of an image.
    """

    source: Annotated[str, one_of(*SOURCES)] = "easy_vqa"
    questions_file: Pattern = "questions_{split}.json"
    annotations_file: Pattern = "annotations_{split}.json"
    image_file: Pattern = "images/{split}/{image_id:012}.jpg"
    answers_file: str = ""  # an answer a line, the classes of the network; "": made of the training split's
    least_occurrences: Count = 9  # questions whose most frequent answer one must be to be a class
    vocabulary_file: str = ""  # a token a line, as BERT's vocab.txt; "": made of the training split's questions
    questions_per_image: Count = 1  # most questions of an example, which share the work on their image
    canvases: Canvases = ((64, 64),)
    test_scale: Scale = (64, 64)  # what images are resized to fit into
    shuffled_images: bool = False  # a control: each training image is taken for another one's


@dataclasses.dataclass(frozen=True)
class VqaAugmentConfig:
    """Training augmentation: an image is resized so that its shorter side has a length drawn between these two, or less
    where its longer side would exceed the other limit. No flips: questions ask for left and right."""

    short_sides: Annotated[tuple[int, int], increasing(SIDE)] = (64, 64)
    long_side: Side = 64

    def __post_init__(self) -> None:
        check_fields(self, "augment")


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The encoder of words and places of the image; the defaults are SOHO's, of BERT-base with 3 of its 12 layers."""

    layers: Count = 3
    width: Annotated[int, whole(4, 16384)] = 768
    heads: Count = 12
    hidden: Count = 3072
    dropout: BelowOne = 0.1
    tokens: Annotated[int, whole(3, 512)] = 16  # of a question, with [CLS] and [SEP]; longer ones are cut
    positions: Count = 512  # of words that the position embeddings are for
    # Weights of BERT, a file or hf-hub:owner/name; only where the backbone begins with weights too. "": random.
    weights: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "bert")
        if self.width % self.heads or self.width % 4:
            expected = "expected a multiple of heads and of 4 (sines and cosines of two axes)"
            raise SettingError("bert", f"width = {self.width} and heads = {self.heads}: {expected}")
        if self.tokens > self.positions:
            raise SettingError("bert", f"tokens = {self.tokens}: expected at most positions = {self.positions}")


@dataclasses.dataclass(frozen=True)
class AnswerHeadConfig:
    """The classifier of answers on [CLS]; the defaults are SOHO's."""

    hidden: Count = 3072
    dropout: BelowOne = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "head")


@dataclasses.dataclass(frozen=True)
class VqaConfig(Config):
    """All settings of a run of visual question answering."""

    task: str = "s3_jax.vqa"
    data: VqaDataConfig = VqaDataConfig()
    augment: VqaAugmentConfig = VqaAugmentConfig()
    bert: BertConfig = BertConfig()
    head: AnswerHeadConfig = AnswerHeadConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        begins_with_weights = self.backbone.model and not self.backbone.from_scratch
        if self.bert.weights and not begins_with_weights:
            raise S3Error(
                f"config.bert.weights = {self.bert.weights!r}: a backbone that begins at random makes nothing of them; "
                "give config.backbone.model with its weights too, or leave them out"
            )
