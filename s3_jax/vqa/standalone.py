"""What a network for visual question answering is by itself: its parts, words and answers, and how it sees images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array

from s3_jax.config import ModelConfig
from s3_jax.cost import Cost
from s3_jax.data.canvases import canvas_of
from s3_jax.data.rescaling import Size
from s3_jax.errors import S3Error
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.networks.convert import begin_backbone
from s3_jax.networks.files import StateDict
from s3_jax.networks.standalone import Input, Spec, Standalone
from s3_jax.vqa import convert
from s3_jax.vqa.config import AnswerHeadConfig, BertConfig
from s3_jax.vqa.cost import vqa_cost
from s3_jax.vqa.network import VqaNetwork
from s3_jax.vqa.words import Words


@dataclasses.dataclass(frozen=True)
class VqaSpec(Spec):
    """Everything about a network for visual question answering but its weights; `class_names` are the answers."""

    TASK: ClassVar[str] = "s3_jax.vqa"
    NAMES: ClassVar[str] = "BERT's (transformers), and in the backbone timm's"
    SCORE: ClassVar[str] = "VQA accuracy"
    ANSWER: ClassVar[str] = (
        "logits = model.network(images, sizes, words)  # (B, H, W, 3), normalised with model.spec.mean and .std"
    )

    vocabulary: tuple[str, ...] = ()
    bert: BertConfig = dataclasses.field(default_factory=BertConfig)
    head: AnswerHeadConfig = dataclasses.field(default_factory=AnswerHeadConfig)
    test_scale: tuple[int, int] = (1000, 600)  # longer and shorter side that images are resized to fit into
    canvases: tuple[tuple[int, int], ...] = ((608, 1024), (1024, 608))  # heights and widths

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "canvases", tuple(tuple(canvas) for canvas in self.canvases))
        if isinstance(self.architecture, IsotropicArchitecture):
            raise S3Error("a plain transformer has no maps of several sizes, the last of which is pooled here")
        pairs = (self.test_scale, *self.canvases)
        if not self.canvases or not all(len(pair) == 2 and all(map(_is_length, pair)) for pair in pairs):
            raise S3Error("test_scale and canvases: expected pairs of whole numbers above 0")
        self.words  # noqa: B018 - refuses what is no vocabulary

    @property
    def words(self) -> Words:
        """The tokenizer."""
        return Words(self.vocabulary, self.bert.tokens)

    @property
    def cost(self) -> Cost:
        """Parameters, and MACs of one question about an image of `test_scale`; see `vqa_cost`."""
        return vqa_cost(
            self.architecture,  # type: ignore[arg-type]
            (min(self.test_scale), max(self.test_scale)),
            image_size=self.image_size,
            patch_size=self.patch_size,
            bert=self.bert,
            head=self.head,
            vocabulary_size=len(self.vocabulary),
            num_answers=len(self.class_names),
        )

    def build(self, *, dtype: str = "float32", rngs: nnx.Rngs | None = None) -> VqaNetwork:
        """The network with random weights (seed 0 where `rngs` is not given).

        Raises S3Error where patches do not tile `image_size`.
        """
        return VqaNetwork(
            self.architecture,  # type: ignore[arg-type]
            model=ModelConfig(self.image_size, self.patch_size, dtype),
            bert=self.bert,
            head=self.head,
            vocabulary_size=len(self.vocabulary),
            padding=self.words.padding,
            num_answers=len(self.class_names),
            rngs=rngs or nnx.Rngs(0),
        )

    def state_dict(self, network: VqaNetwork) -> StateDict:
        """A network's weights under BERT's and timm's names."""
        return convert.to_state_dict(network)

    def set_weights(self, network: VqaNetwork, tensors: StateDict) -> None:
        """Give a network such weights, in place. Raises S3Error where they are not its own."""
        convert.load_weights(network, tensors)

    @property
    def export_size(self) -> Size:
        """That of the canvas on which a lying image of `test_scale` is seen."""
        return canvas_of((min(self.test_scale), max(self.test_scale)), self.canvases)

    def export_inputs(self, size: Size) -> tuple[Input, ...]:
        """Images, their sizes on the canvas, and the tokens of a question about each."""
        return (Input((*size, 3), jnp.float32), Input((2,), jnp.int32), Input((self.bert.tokens,), jnp.int32))

    def as_function(self, network: VqaNetwork, size: Size) -> Callable[..., Array]:
        """Images (B, H, W, 3), sizes (B, 2) and words (B, L) to logits of the answers (B, A)."""
        definition, state = nnx.split(network)

        def logits(images: Array, sizes: Array, words: Array) -> Array:
            """One question about each image."""
            return nnx.merge(definition, state)(images, sizes, words[:, None])[:, 0]

        return logits

    def card_rows(self) -> list[tuple[str, str]]:
        """How images and questions are seen, in words."""
        long, short = max(self.test_scale), min(self.test_scale)
        bert = self.bert
        return [
            ("task", f"visual question answering, {bert.layers} layers of BERT, {bert.width} channels"),
            ("question", f"{bert.tokens} tokens of a vocabulary of {len(self.vocabulary):,}; multiply-adds are of one"),
            ("image", f"as large as fits into {long} x {short} px, bilinear, at the top left of a canvas"),
        ]


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def begin_with(network: VqaNetwork, spec: VqaSpec, start: Standalone, tell: Callable[[str], None]) -> None:
    """Give a network of a specification, in place, the weights of another that fit; see `begin_with` of the task."""
    if isinstance(start.spec.architecture, IsotropicArchitecture):
        raise S3Error("a plain transformer has no maps of several sizes: give an S3 or a Swin")
    begin_backbone(network.backbone, start.network, without=("norm.", "head.", "output_norms."), own_norms=False)
    if not isinstance(start.spec, VqaSpec):
        tell("the weights of a network of another task in the backbone; all else is random")
        return
    same_words = (spec.vocabulary, _sizes_of(spec.bert)) == (start.spec.vocabulary, _sizes_of(start.spec.bert))
    answers = ((each.class_names, each.head.hidden) for each in (spec, start.spec))
    same_answers = same_words and len(set(answers)) == 1
    if same_words:
        parts = ("visual", "words", "layers") + ("head",) * same_answers
        nnx.update(network, nnx.state(start.network, lambda path, value: bool(path) and path[0] in parts))
    encoder, head = ("kept" if same else "random" for same in (same_words, same_answers))
    tell(f"the backbone of a network that answers questions; the encoder is {encoder}, the head {head}")


def _sizes_of(bert: BertConfig) -> BertConfig:
    """What of the encoder's settings its weights depend on."""
    return dataclasses.replace(bert, tokens=3, dropout=0.0, weights="")
