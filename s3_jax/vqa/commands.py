"""What predict.py and evaluate.py do with networks for visual question answering: answers, and their accuracy."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from absl import logging
from rich.console import Console

from s3_jax.commands import DataOptions, Flag, Measured, check_results, metric_rows
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, printable, user_path
from s3_jax.progress import progress_bar
from s3_jax.vqa.config import VqaDataConfig
from s3_jax.vqa.questions import is_unicode
from s3_jax.writing import write_whole

if TYPE_CHECKING:
    from s3_jax.networks.standalone import Standalone
    from s3_jax.task import Line
    from s3_jax.vqa.images import AskedImages


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """What is asked about each image. Raises S3Error where nothing is, or what is no Unicode text."""

    question: Annotated[str, Flag("What to ask about each image.")] = ""

    def __post_init__(self) -> None:
        if not any(letter.isalnum() for letter in self.question):
            raise S3Error('this network answers questions: ask one with --question="..."')
        if not is_unicode(self.question):
            raise S3Error(
                f'--question="{printable(self.question)}" is not valid Unicode: bytes that are not UTF-8 are shown as '
                "\\x and two digits; type it in a terminal that is set to UTF-8"
            )


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(DataOptions):
    """The questions that a network is measured on, and a file for its answers. Raises S3Error for wrong values."""

    source: Annotated[str, Flag("vqa_json or easy_vqa.")] = "vqa_json"
    questions: Annotated[str, Flag("The file of questions below --path.")] = VqaDataConfig.questions_file
    annotations: Annotated[str, Flag("The file of answers below --path.")] = VqaDataConfig.annotations_file
    images: Annotated[str, Flag("Where an image is below --path.")] = VqaDataConfig.image_file
    results: Annotated[str, Flag("A file to write the answers to, as VQA's challenge server takes them.")] = ""

    def __post_init__(self) -> None:
        self.data_config()

    def data_config(self) -> VqaDataConfig:
        """The data set."""
        return VqaDataConfig(
            source=self.source,
            path=self.path,
            questions_file=self.questions,
            annotations_file=self.annotations,
            image_file=self.images,
            on_bad_image=self.on_bad_image,
        )


def predict(model: Standalone, paths: Sequence[AnyPath], options: PredictOptions, *, as_json: bool) -> int:
    """Print the likeliest answers for each image. Returns the exit code, 2 where a file is no image.

    Raises S3Error where the network's answers are not finite.
    """
    from s3_jax.vqa import inference

    code = 0
    for found in inference.predict(model, paths, options.question):
        if isinstance(found, str):
            print(f"predict: {found}", file=sys.stderr)
            code = 2
            continue
        scored = dict(zip(found.answers, found.scores, strict=True))
        words = ", ".join(f"{printable(answer)} {100 * score:.1f} %" for answer, score in scored.items())
        record = {"path": printable(found.path), "question": options.question, "answers": scored}
        print(json.dumps(record) if as_json else f"{record['path']}: {words}")
    return code


def evaluate(model: Standalone, options: EvaluateOptions) -> Measured:
    """The official accuracy, by type of answer too, and a file of answers where one is asked for.

    Without annotations, as of a challenge's test split, the answers alone. Raises S3Error for data that are missing or
    have no answer that the network has, and for a file of answers that cannot be written, before anything is measured.
    """
    from s3_jax.data.splits import whole
    from s3_jax.vqa import inference
    from s3_jax.vqa.dataset import open_split

    config = options.data_config()
    check_results(options.results)
    source = open_split(config, options.split, without_annotations=True)
    has_answers = _check_answers(model, source, options)
    with progress_bar(Console(stderr=True), "images", len(source)) as advance:
        task, lines = inference.answers_of(
            model, whole(source, options.split), config, batch_size=options.batch, progress=advance
        )
    names = {"split": printable(options.split), "questions": sum(len(line["questions"]) for line in lines)}
    written = _write_results(options.results, source, lines)
    if not has_answers:
        return Measured(names, f"there are no annotations to measure them by; {written}")
    metrics = task.score(lines)
    return Measured(names | metrics, "\n".join(filter(None, (metric_rows(metrics), written))))


def _check_answers(model: Standalone, source: AskedImages, options: EvaluateOptions) -> bool:
    """Whether the data have answers; says which of them count little or nothing. Raises S3Error where none counts."""
    from s3_jax.vqa.dataset import tell_few, tell_unknown
    from s3_jax.vqa.images import files_of

    questions = source.questions
    if all(question.answers for question in questions):
        advice = "measure it on questions of the kind that it was trained on, or train one on these"
        tell_unknown(options.split, questions, model.spec.class_names, advice)
        tell_few(questions)
        return True
    if options.results:
        return False
    raise S3Error(
        f"there is no file {printable(files_of(options.data_config(), options.split)[1])}: say with --annotations "
        "where the answers to the questions are, or have the network's written without them, with --results=FILE"
    )


def _write_results(results: str, source: AskedImages, lines: Sequence[Line]) -> str:
    """Write the answers where a file is given. Returns what to say of it; says which questions it lacks."""
    from s3_jax.vqa.inference import results_of

    if not results:
        return ""
    answers, count = results_of(lines), len(source.questions) + source.left_out
    write_whole(user_path(results), json.dumps(answers) + "\n")
    if missing := count - len(answers):
        logging.warning(
            "%s: %s of %s questions have no answer in it, as their images were left out: a challenge's server refuses "
            "such a file",
            *(printable(results), f"{missing:,}", f"{count:,}"),
        )
    return f"the answers are in {printable(results)}"
