"""Which questions serve as train, holdout and test, and the answers and words that are made of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from absl import logging

from s3_jax.data.randomness import HOLDOUT, generator
from s3_jax.data.splits import Splits, Subset, check_all_apart, names_of_splits, whole
from s3_jax.errors import S3Error
from s3_jax.paths import printable, user_path
from s3_jax.vqa.answers import count_unknown, frequent_answers, read_answers
from s3_jax.vqa.config import VqaDataConfig
from s3_jax.vqa.images import AskedImages, open_easy_vqa, open_vqa_json
from s3_jax.vqa.words import Words, read_vocabulary, vocabulary_of


@dataclasses.dataclass(frozen=True, eq=False)
class VqaData:
    """A data set of questions about images, and what its examples are used for."""

    source: str
    name: str
    answers: tuple[str, ...]  # normalised, the classes of the network
    words: Words
    splits: Splits

    def record(self) -> dict[str, Any]:
        """What the run's result says of its data: see `Splits.record`; its "images" are examples."""
        about = {"source": self.source, "name": self.name, "num_classes": len(self.answers)}
        return about | {"vocabulary_size": len(self.words.vocabulary)} | self.splits.record()


def open_data(config: VqaDataConfig, tokens: int, seed: int) -> VqaData:
    """The data set of a configuration, with a holdout drawn from `seed`, or `holdout_split`.

    tokens: of a question. Raises S3Error for data that are missing or unfit, and where a split that measures shares
    images with train.
    """
    names = names_of_splits(config)
    opened = {name: whole(open_split(config, name), name) for name in names}
    check_all_apart(opened, config)
    train = opened[config.train_split]
    answers = _answers(config, train.source)
    _tell_unknown(opened, answers)
    words = Words(_vocabulary(config, train.source), tokens)
    if config.shuffled_images:
        train = dataclasses.replace(train, source=shuffled(train.source, seed))
    kept, holdout = (train, opened[config.holdout_split]) if config.holdout_split else hold_out(train, config, seed)
    name = "easy-VQA" if config.source == "easy_vqa" else printable(user_path(config.path).name)
    return VqaData(config.source, name, answers, words, Splits(kept, train, holdout, opened[config.test_split]))


def open_split(config: VqaDataConfig, split: str, *, without_annotations: bool = False) -> AskedImages:
    """One split of a configuration's data set; see `open_vqa_json`."""
    if config.cache_in_memory:
        raise S3Error("data.cache_in_memory: the images of questions are read anew each time; leave it off")
    if config.source == "easy_vqa":
        return open_easy_vqa(split, config.questions_per_image)
    return open_vqa_json(config, split, without_annotations=without_annotations)


def shuffled(source: AskedImages, seed: int) -> AskedImages:
    """The same questions, each image's about another one: what is then learnt is learnt from questions alone."""
    order = generator(seed, HOLDOUT, 1).permutation(len(source.paths))
    taken_for = np.empty(len(order), np.int64)
    taken_for[order] = np.roll(order, 1)
    return dataclasses.replace(source, taken_for=taken_for)


def hold_out(train: Subset, config: VqaDataConfig, seed: int) -> tuple[Subset, Subset]:
    """The split without the questions about a random share of its images, and these; each has one image at least."""
    images = np.unique(train.source.identities)
    count = round(config.holdout_fraction * len(images))
    if not 0 < count < len(images):
        raise S3Error(
            f"data.holdout_fraction = {config.holdout_fraction} of {len(images):,} training images holds out "
            f"{count:,}: training needs some and so does the holdout; choose another fraction, or set "
            "data.holdout_split"
        )
    # Hashes of paths differ between machines: images are taken in the order in which questions first ask about them.
    _, first = np.unique(train.source.identities, return_index=True)
    in_order = train.source.identities[np.sort(first)]
    held = in_order[generator(seed, HOLDOUT).permutation(len(images))[:count]]
    is_held = np.isin(train.source.identities, held)
    kept, holdout = (dataclasses.replace(train, indices=np.flatnonzero(each)) for each in (~is_held, is_held))
    return kept, holdout


def _answers(config: VqaDataConfig, train: AskedImages) -> tuple[str, ...]:
    if config.answers_file:
        return read_answers(user_path(config.answers_file))
    return frequent_answers(train.questions, config.least_occurrences)


def _vocabulary(config: VqaDataConfig, train: AskedImages) -> tuple[str, ...]:
    if config.vocabulary_file:
        return read_vocabulary(user_path(config.vocabulary_file))
    return vocabulary_of(question.text for question in train.questions)


def _tell_unknown(opened: dict[str, Subset], answers: tuple[str, ...]) -> None:
    """Says of how many questions no answer can be chosen; they count, in training towards no answer."""
    places = {answer: number for number, answer in enumerate(answers)}
    for name, subset in opened.items():
        questions = subset.source.questions
        if unknown := count_unknown(questions, places):
            logging.warning(
                "%s: %s of %s questions have no answer among the network's %s",
                *(printable(name), f"{unknown:,}", f"{len(questions):,}", f"{len(answers):,}"),
            )
