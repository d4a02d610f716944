"""Questions about images as a source of examples: files of images, and in each example some questions about one."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence

import numpy as np
from absl import logging
from PIL import Image

from s3_jax.data.rescaling import Size
from s3_jax.data.sources import open_file
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, any_path, expanded, printable
from s3_jax.vqa.config import VqaDataConfig
from s3_jax.vqa.questions import Question, read_questions


@dataclasses.dataclass(frozen=True, eq=False)
class AskedImages:
    """The examples of one split, by number: an image, and at most so many questions about it as an example may have.

    A source as `data.splits.Source` has it. Only paths and texts are held.
    """

    paths: Sequence[str]  # of the images
    asked: Sequence[tuple[int, tuple[Question, ...]]]  # of each example the number of its image, and the questions
    taken_for: np.ndarray | None = None  # a control: (images,) the image that is seen in place of each
    left_out: int = 0  # questions of the split that are in no example, as their images are not there

    def __len__(self) -> int:
        return len(self.asked)

    def __getitem__(self, index: int) -> tuple[Image.Image, tuple[Question, ...]]:
        """An image, read but not decoded, and the questions. Raises BadImage."""
        return self._open(self._seen(index)), self.asked[index][1]

    def name(self, index: int) -> str:
        """The image's path."""
        return printable(self.paths[self._seen(index)])

    def size(self, index: int) -> Size:
        """Height and width of the image in pixels. Raises BadImage."""
        return self._size(self._seen(index))

    @functools.cached_property
    def identities(self) -> np.ndarray:
        """int64 (N,): hashes of the images' real paths: examples with other questions about an image have its own."""
        hashes = np.fromiter((hash(os.path.realpath(path)) for path in self.paths), np.int64, len(self.paths))
        return hashes[[self._seen(index) for index in range(len(self))]]

    @property
    def questions(self) -> list[Question]:
        """All questions, in the order of the examples."""
        return [question for _, questions in self.asked for question in questions]

    def _seen(self, index: int) -> int:
        image = self.asked[index][0]
        return image if self.taken_for is None else int(self.taken_for[image])

    def _open(self, image: int) -> Image.Image:
        return open_file(any_path(self.paths[image]))

    @functools.cached_property
    def _sizes(self) -> dict[int, Size]:
        return {}

    def _size(self, image: int) -> Size:
        if image not in self._sizes:
            opened = self._open(image)
            self._sizes[image] = opened.height, opened.width
        return self._sizes[image]


def asked_images(questions: Sequence[Question], paths: dict[int, str], most: int) -> AskedImages:
    """Examples of at most so many questions each, all of an image's in as few as that takes and of even sizes.

    paths: of the images by their ids. Examples are in the order of their images' first questions.
    """
    by_image: dict[int, list[Question]] = {}
    for question in questions:
        by_image.setdefault(question.image_id, []).append(question)
    asked = []
    for number, own in enumerate(by_image.values()):
        parts = np.array_split(np.arange(len(own)), -(-len(own) // most))
        asked += [(number, tuple(own[place] for place in part)) for part in parts]
    return AskedImages([paths[image] for image in by_image], asked)


def files_of(config: VqaDataConfig, split: str) -> tuple[AnyPath, AnyPath]:
    """The paths of a split's questions and of their annotations. Raises S3Error where data.path is empty."""
    folder = expanded(config.path)
    if not folder:
        raise S3Error("data.path is empty: give the folder of the questions, their annotations and the images")
    questions, annotations = (
        any_path(os.path.join(folder, pattern.format(split=split, image_id=0)))
        for pattern in (config.questions_file, config.annotations_file)
    )
    return questions, annotations


def open_vqa_json(config: VqaDataConfig, split: str, *, without_annotations: bool = False) -> AskedImages:
    """The questions of a split's files, see `VqaDataConfig`.

    without_annotations: where there is no file of annotations, as of a challenge's test split, the answers are not
    known. Raises S3Error where a file is missing or is none, and where a question has no image, unless
    data.on_bad_image = "skip" leaves such questions out.
    """
    questions, annotations = files_of(config, split)
    for path, field in ((questions, "questions_file"), (annotations, "annotations_file")):
        if not path.is_file() and not (without_annotations and field == "annotations_file"):
            raise S3Error(
                f"there is no file {printable(path)}: set data.{field} (evaluate.py: "
                f"--{field.removesuffix('_file')}), in which {{split}} is the split's name, here {split!r}"
            )
    found = read_questions(questions, annotations if annotations.is_file() else None)
    images = {question.image_id for question in found}
    folder = expanded(config.path)
    paths = {
        image: os.path.join(folder, config.image_file.format(split=split, image_id=image)) for image in sorted(images)
    }
    missing = {image for image, path in paths.items() if not any_path(path).is_file()}
    kept = [question for question in found if question.image_id not in missing]
    if missing:
        _tell_missing(config, found, kept, printable(paths[min(missing)]))
    return dataclasses.replace(asked_images(kept, paths, config.questions_per_image), left_out=len(found) - len(kept))


def _tell_missing(config: VqaDataConfig, found: list[Question], kept: list[Question], first: str) -> None:
    """Raises S3Error where questions without image may not be left out, or no others are left."""
    count = f"{len(found) - len(kept):,} of {len(found):,} questions are about images that are not there"
    if config.on_bad_image == "skip" and kept:
        logging.warning("%s, and are left out; the first image is %s", count, first)
        return
    # Where no question has its image, there is nothing left to go on with once such questions are left out.
    leave_out = ", or leave such questions out with data.on_bad_image='skip' (--skip_bad_images)" if kept else ""
    raise S3Error(
        f"{count}, the first image is {first}: set data.image_file (evaluate.py: --images) to how images are called"
        f"{leave_out}"
    )


def open_easy_vqa(split: str, most: int) -> AskedImages:
    """The pictures and questions of the package easy-vqa; its splits are "train" and "test".

    Each question has one right answer, which stands for those of ten people. Raises S3Error where the package is not
    installed, and for another split.
    """
    try:
        import easy_vqa
    except ImportError as error:
        raise S3Error(f"data.source = 'easy_vqa' needs an extra ({error}): pip install -e .[vqa]") from error
    if split not in ("train", "test"):
        raise S3Error(f"easy-VQA has no split {split!r}; its splits are 'train' and 'test'")
    texts, answers, images = getattr(easy_vqa, f"get_{split}_questions")()
    paths = getattr(easy_vqa, f"get_{split}_image_paths")()
    questions = [
        Question(number, image, text, (answer,) * 10, answer, _kind(answer))
        for number, (text, answer, image) in enumerate(zip(texts, answers, images, strict=True))
    ]
    return asked_images(questions, paths, most)


def _kind(answer: str) -> str:
    return "yes/no" if answer in ("yes", "no") else "other"
