"""What a network for visual question answering by itself says: answers to a question about files, and its metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from s3_jax.config import ModelConfig
from s3_jax.data.sources import BadImage
from s3_jax.data.splits import Subset, whole
from s3_jax.networks.standalone import Standalone
from s3_jax.paths import AnyPath, printable
from s3_jax.progress import Advance
from s3_jax.task import Line, check_finite
from s3_jax.training.evaluate import lines_of_network
from s3_jax.vqa.config import VqaConfig, VqaDataConfig
from s3_jax.vqa.images import AskedImages
from s3_jax.vqa.questions import Question
from s3_jax.vqa.task import QuestionAnswering, of_answers


class Answered(NamedTuple):
    """The likeliest answers to a question about a file, the likeliest first, and what the network gives them."""

    path: AnyPath
    answers: list[str]
    scores: list[float]  # from 0 to 1, sigmoids of the logits


def task_of(model: Standalone, data: VqaDataConfig | None = None) -> QuestionAnswering:
    """The task that a network is of; images are normalised and sized as it needs them."""
    spec = model.spec
    sizes = {"mean": spec.mean, "std": spec.std, "test_scale": spec.test_scale, "canvases": spec.canvases}
    config = VqaConfig(
        model=ModelConfig(spec.image_size, spec.patch_size),
        bert=spec.bert,
        head=spec.head,
        data=dataclasses.replace(data or VqaDataConfig(), **sizes),
    )
    return of_answers(config, spec.class_names, spec.vocabulary)


def predict(model: Standalone, paths: Sequence[AnyPath], question: str, most: int = 5) -> Iterator[Answered | str]:
    """Of every file its likeliest answers to a question, or what is wrong with it.

    One image after another, at the size that the network is tested at. Raises S3Error where its answers are not finite.
    """
    task = task_of(model)
    asked = [(number, (Question(number, number, question),)) for number in range(len(paths))]
    source = AskedImages([str(path) for path in paths], asked)
    examples = task.examples(whole(source, "files"), training=False)
    definition, state = nnx.split(model.network)
    run = jax.jit(lambda state, *arrays: jax.nn.sigmoid(nnx.merge(definition, state)(*arrays)[0, 0]))
    for index, path in enumerate(paths):
        try:
            example = examples.example(index, None)
        except BadImage as error:
            yield printable(f"{path}: {error}")
            continue
        scores = np.asarray(run(state, *(jnp.asarray(example[name])[None] for name in ("image", "size", "words"))))
        check_finite(np.array([np.isfinite(scores).all()]))
        best = np.argsort(-scores, kind="stable")[:most]
        yield Answered(path, [model.spec.class_names[place] for place in best], scores[best].tolist())


def answers_of(
    model: Standalone, subset: Subset, data: VqaDataConfig, *, batch_size: int, progress: Advance
) -> tuple[QuestionAnswering, list[Line]]:
    """A network's answers to the questions of a data set, a record of each example, and the task that scores them."""
    task = task_of(model, data)
    lines = lines_of_network(
        task,
        model.network,
        task.examples(subset, training=False),
        batch_size=batch_size,
        skip_bad=data.on_bad_image == "skip",
        num_workers=data.num_workers,
        progress=progress,
    )
    return task, lines


def results_of(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Answers in the form of VQA's challenge server: "question_id" and "answer" of each question, by id."""
    answers = {each["question_id"]: each["answer"] for line in lines for each in line["questions"]}
    return [{"question_id": number, "answer": answers[number]} for number in sorted(answers)]
