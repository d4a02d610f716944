"""Visual question answering as a task: binary cross-entropy with soft scores, the official accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from s3_jax.config import ModelConfig
from s3_jax.cost import Cost
from s3_jax.data.canvases import check_canvases
from s3_jax.data.splits import Splits, Subset, nothing
from s3_jax.errors import S3Error
from s3_jax.mapping import from_record
from s3_jax.models.families import Structure
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.models.subnet import Params, SubnetMask
from s3_jax.networks.files import read_state_dict
from s3_jax.networks.hub import fetch
from s3_jax.networks.standalone import About, Standalone
from s3_jax.space import Architecture, SearchSpace
from s3_jax.task import Line, Metrics, Task, Terms, check_finite
from s3_jax.vqa.config import AnswerHeadConfig, BertConfig, VqaAugmentConfig, VqaConfig, VqaDataConfig
from s3_jax.vqa.convert import load_bert
from s3_jax.vqa.cost import vqa_cost
from s3_jax.vqa.dataset import VqaData, open_data
from s3_jax.vqa.examples import AskedExamples
from s3_jax.vqa.metrics import accuracy, metrics_of
from s3_jax.vqa.network import VqaNetwork, slice_network
from s3_jax.vqa.questions import Question
from s3_jax.vqa.standalone import VqaSpec, begin_with
from s3_jax.vqa.words import SPECIAL, Words


@dataclasses.dataclass(frozen=True, eq=False)
class QuestionAnswering(Task):
    """One of many answers to a question about an image."""

    score_name: ClassVar[str] = "VQA accuracy"
    error_name: ClassVar[str] = "100 - VQA accuracy"

    model: ModelConfig
    bert: BertConfig
    head: AnswerHeadConfig
    images: VqaData
    data: VqaDataConfig
    augment: VqaAugmentConfig
    splits: Splits = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", self.images.splits)

    def record(self) -> dict[str, Any]:
        """The data set, and the use of its splits."""
        return self.images.record()

    def bound(self) -> dict[str, Any]:
        """The answers and the vocabulary, in the order of their numbers."""
        return {"class_names": list(self.images.answers), "vocabulary": list(self.images.words.vocabulary)}

    def examples(self, subset: Subset, *, training: bool) -> AskedExamples:
        """The images of a subset with the questions about them."""
        augment = self.augment if training else None
        return AskedExamples(subset, self.data, self.images.words, self.images.answers, augment=augment)

    def network(
        self, structure: Structure, rngs: nnx.Rngs, *, batch_axis: str | None = None, platform: str | None = None
    ) -> VqaNetwork:
        """BERT and a head on a window transformer.

        Raises S3Error for a plain transformer, and for canvases that its maps do not tile.
        """
        if isinstance(structure, IsotropicArchitecture):
            raise S3Error("a plain transformer has no maps of several sizes: give an S3 or a Swin")
        stride = self.model.patch_size * 2 ** (len(structure.stages) - 1)
        check_canvases(self.data.canvases, (self.data.test_scale,), stride)
        return VqaNetwork(
            structure,
            model=self.model,
            bert=self.bert,
            head=self.head,
            vocabulary_size=len(self.images.words.vocabulary),
            padding=self.images.words.padding,
            num_answers=len(self.images.answers),
            batch_axis=batch_axis,
            platform=platform,
            rngs=rngs,
        )

    def spec(self, architecture: Any, about: About) -> VqaSpec:
        """What the network of an architecture is by itself."""
        return VqaSpec(
            architecture,
            self.model.image_size,
            self.model.patch_size,
            self.images.answers,
            self.data.mean,
            self.data.std,
            about,
            self.images.words.vocabulary,
            dataclasses.replace(self.bert, weights=""),
            self.head,
            self.data.test_scale,
            self.data.canvases,
        )

    def begin_with(self, network: VqaNetwork, start: Standalone, tell: Callable[[str], None]) -> None:
        """Give a network, in place, the backbone of another, of a network of this task also what fits of the rest.

        The encoder is kept where it has the same vocabulary and sizes, the head where it has the same answers too; over
        them come the weights of config.bert.weights. Bias tables are resized. Raises S3Error where nothing fits.
        """
        begin_with(network, self.spec(start.spec.architecture, About()), start, tell)
        if self.bert.weights:
            layers = read_bert(network, self.bert.weights)
            tell(f"the first {self.bert.layers} of {layers} layers of {self.bert.weights} in the encoder")

    def sliced(self, params: Params, space: SearchSpace, architecture: Architecture) -> Params:
        """The weights of an architecture's network, cut out of those of a supernet."""
        return slice_network(params, space, architecture)

    def terms(
        self, network: Any, batch: dict[str, Array], subnet: SubnetMask | None, key: Array, max_drop_path: float
    ) -> Terms:
        """Binary cross-entropy of the answers with "scores" (B, Q, A), summed over answers, a mean over questions."""
        inputs = (batch["image"], batch["size"], batch["words"], batch["weight"])
        logits = network.in_training(*inputs, subnet, max_drop_path=max_drop_path, key=key)
        counts = batch["asked"] * batch["weight"][:, None]
        return {"answers": ((binary_cross_entropy(logits, batch["scores"]) * counts).sum(), counts.sum())}

    def predict(self, network: Any, batch: dict[str, Array], subnet: SubnetMask | None) -> dict[str, Array]:
        """The number of the likeliest "answer" (B, Q), and whether logits are "finite" (B,)."""
        logits = network(batch["image"], batch["size"], batch["words"], subnet)
        return {"answer": logits.argmax(-1), "finite": jnp.isfinite(logits).all((1, 2))}

    def lines(self, subset: Subset, rows: Sequence[int], predicted: dict[str, np.ndarray]) -> list[Line]:
        """Image and questions of each example, with answers and their accuracy. Raises S3Error where none is finite."""
        check_finite(predicted["finite"])
        return [
            self._line(subset.source.asked[int(subset.indices[row])][1], numbers)
            for row, numbers in zip(rows, predicted["answer"].tolist(), strict=True)
        ]

    def _line(self, questions: Sequence[Question], numbers: Sequence[int]) -> Line:
        answered = [
            {
                "question_id": question.id,
                "answer": self.images.answers[number],
                "answer_type": question.kind,
                "accuracy": accuracy(self.images.answers[number], question.answers) if question.answers else None,
            }
            for question, number in zip(questions, numbers, strict=False)
        ]
        return {"image_id": questions[0].image_id, "questions": answered}

    def score(self, lines: Sequence[Line]) -> Metrics:
        """Accuracy in percent, of all questions and of those of each type of answer."""
        return metrics_of(question for line in lines for question in line["questions"])

    def error(self, metrics: Metrics) -> float:
        """What is missing to an accuracy of 100 %."""
        return 100.0 - metrics["accuracy"]

    def in_words(self, metrics: Metrics) -> str:
        """The accuracy, and that of each type of answer."""
        kinds = [
            f"{name.removeprefix('accuracy/')} {value:.2f} %" for name, value in metrics.items() if name != "accuracy"
        ]
        return f"VQA accuracy {metrics['accuracy']:.2f} %" + (f" ({', '.join(kinds)})" if kinds else "")

    def cost(self, architecture: Any) -> Cost:
        """Parameters of the whole network, and multiply-adds of one question about an image of `data.test_scale`."""
        return vqa_cost(
            architecture,
            (min(self.data.test_scale), max(self.data.test_scale)),
            image_size=self.model.image_size,
            patch_size=self.model.patch_size,
            bert=self.bert,
            head=self.head,
            vocabulary_size=len(self.images.words.vocabulary),
            num_answers=len(self.images.answers),
        )


def binary_cross_entropy(logits: Array, scores: Array) -> Array:
    """Binary cross-entropy of logits (..., A) with scores in [0, 1], summed over the answers."""
    return (jax.nn.softplus(logits) - scores * logits).sum(-1)


def read_bert(network: VqaNetwork, weights: str) -> int:
    """Give a network the weights of BERT of a file or the hub; see `load_bert`. Raises S3Error with their name."""
    tensors = read_state_dict(fetch(weights))
    try:
        return load_bert(network, tensors)
    except S3Error as error:
        raise S3Error(f"config.bert.weights = {weights}: {error}") from error


def of_answers(config: VqaConfig, answers: Sequence[str], vocabulary: Sequence[str]) -> QuestionAnswering:
    """The task of these answers and words without images of its own: to make programs, or to measure on others."""
    words = Words(tuple(vocabulary), config.bert.tokens)
    images = VqaData("", "", tuple(answers), words, Splits(nothing(), nothing(), nothing(), nothing()))
    return QuestionAnswering(config.model, config.bert, config.head, images, config.data, config.augment)


def without_images(config: VqaConfig, answers: Sequence[str]) -> QuestionAnswering:
    """The task of these answers with as many words as BERT's own vocabulary has, for programs compiled ahead."""
    return of_answers(config, answers, (*SPECIAL, *map(str, range(len(SPECIAL), BERT_WORDS))))


BERT_WORDS = 30_522  # of bert-base-uncased


def recorded_task(settings: Mapping[str, Any], dataset: Mapping[str, Any]) -> QuestionAnswering:
    """The task of a run's records, without its images: what its networks are depends on these settings alone.

    settings: of `config.json`, whatever version wrote it; dataset: of `environment.json`. Raises S3Error or KeyError
    for records that are none.
    """
    of_images = ("mean", "std", "test_scale", "canvases")
    bert = from_record(BertConfig, settings.get("bert", {}), "config.bert")
    config = VqaConfig(
        model=from_record(ModelConfig, settings.get("model", {}), "config.model"),
        bert=dataclasses.replace(bert, weights=""),
        head=from_record(AnswerHeadConfig, settings.get("head", {}), "config.head"),
        data=from_record(VqaDataConfig, settings.get("data", {}), "config.data", *of_images),
    )
    return of_answers(config, dataset["class_names"], dataset["vocabulary"])


def open_task(config: VqaConfig) -> QuestionAnswering:
    """Visual question answering on a configuration's images. Raises S3Error where they do not fit."""
    if config.train.init_from:
        raise S3Error(
            "config.train.init_from: supernets of visual question answering begin at random; leave it out, or train "
            "one network, that of config.backbone.model"
        )
    scales = (config.data.test_scale, (config.augment.long_side, config.augment.short_sides[1]))
    # A model tells its stages only when it is opened: its canvases are checked where its network is made.
    stages = len(config.backbone.depth) or len(config.space.depth)
    stride = 1 if config.backbone.model else config.model.patch_size * 2 ** (stages - 1)
    check_canvases(config.data.canvases, scales, stride)
    images = open_data(config.data, config.bert.tokens, config.seed)
    return QuestionAnswering(config.model, config.bert, config.head, images, config.data, config.augment)
