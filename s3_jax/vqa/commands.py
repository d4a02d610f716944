"""What predict.py and evaluate.py do with networks for visual question answering: answers, and their accuracy."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from rich.console import Console

from s3_jax.commands import DataOptions, Flag, Measured, metric_rows
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, printable, user_path
from s3_jax.progress import progress_bar
from s3_jax.vqa.config import VqaDataConfig
from s3_jax.writing import write_whole

if TYPE_CHECKING:
    from s3_jax.networks.standalone import Standalone


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """What is asked about each image. Raises S3Error where nothing is."""

    question: Annotated[str, Flag("What to ask about each image.")] = ""

    def __post_init__(self) -> None:
        if not any(letter.isalnum() for letter in self.question):
            raise S3Error('this network answers questions: ask one with --question="..."')


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

    Without annotations, as of a challenge's test split, the answers alone. Raises S3Error for data that are missing.
    """
    from s3_jax.data.splits import whole
    from s3_jax.vqa import inference
    from s3_jax.vqa.dataset import open_split

    config = options.data_config()
    source = open_split(config, options.split, without_annotations=bool(options.results))
    with progress_bar(Console(stderr=True), "images", len(source)) as advance:
        task, lines = inference.answers_of(
            model, whole(source, options.split), config, batch_size=options.batch, progress=advance
        )
    names = {"split": printable(options.split), "questions": sum(len(line["questions"]) for line in lines)}
    written = ""
    if options.results:
        write_whole(user_path(options.results), json.dumps(inference.results_of(lines)) + "\n")
        written = f"the answers are in {printable(options.results)}"
    if not all(question.answers for question in source.questions):
        return Measured(names, f"there are no annotations to measure them by; {written}")
    metrics = task.score(lines)
    return Measured(names | metrics, "\n".join(filter(None, (metric_rows(metrics), written))))
