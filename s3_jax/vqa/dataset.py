"""Which questions serve as train, holdout and test, and the answers and words that are made of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
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
from s3_jax.vqa.metrics import accuracy
from s3_jax.vqa.questions import ANSWERS, Question
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

    tokens: of a question. Raises S3Error for data that are missing or unfit, where a split that measures shares
    images with train, and where training could learn no answer or read no word.
    """
    names = names_of_splits(config)
    opened = {name: whole(open_split(config, name), name) for name in names}
    check_all_apart(opened, config)
    train = opened[config.train_split]
    answers = _answers(config, train.source)
    _tell_answers(opened, answers, config)
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
    texts = [question.text for question in train.questions]
    if not config.vocabulary_file:
        return vocabulary_of(texts)
    vocabulary = read_vocabulary(user_path(config.vocabulary_file))
    _tell_unknown_words(vocabulary, texts, printable(config.vocabulary_file))
    return vocabulary


def _tell_unknown_words(vocabulary: tuple[str, ...], texts: Sequence[str], path: str) -> None:
    """Says where most words of questions are [UNK]. Raises S3Error where all are, so questions are all the same."""
    unknown, count = Words(vocabulary, 3).count_unknown(texts)
    if unknown == count:
        raise S3Error(
            f"data.vocabulary_file = {path}: it has none of the {count:,} words of the training questions, the first "
            f"question is {texts[0]!r}: give one of their language in small letters, as BERT's uncased vocab.txt, or "
            "leave it empty for one that is made of the questions"
        )
    if 2 * unknown > count:
        logging.warning(
            "%s has no token for %.1f %% of the words of the training questions; they become [UNK]",
            *(path, 100 * unknown / count),
        )


def _tell_answers(opened: dict[str, Subset], answers: tuple[str, ...], config: VqaDataConfig) -> None:
    """Raises S3Error where no training question has an answer that can be chosen."""
    if config.answers_file:
        advice = "data.answers_file needs answers to these questions; leave it empty for those that training has"
    else:
        advice = 'each "multiple_choice_answer", of which the network\'s are made, has to be one of "answers"'
    for name, subset in opened.items():
        tell_unknown(name, subset.source.questions, answers, advice if name == config.train_split else "")
    tell_few([question for subset in opened.values() for question in subset.source.questions])


def tell_unknown(split: str, questions: Sequence[Question], answers: Sequence[str], advice: str = "") -> None:
    """Says of how many questions no answer can be chosen; they count, in training towards no answer.

    answers: the network's. Raises S3Error where that is so of all questions and `advice` says what would work.
    """
    unknown = count_unknown(questions, {answer: number for number, answer in enumerate(answers)})
    if unknown == len(questions) and advice:
        raise S3Error(
            f"{printable(split)}: none of {unknown:,} questions has an answer among the network's {len(answers):,}; "
            f"the first of these is {answers[0]!r}, and the answer to question_id {questions[0].id} is "
            f"{questions[0].answers[0]!r}: {advice}"
        )
    if unknown:
        logging.warning(
            "%s: %s of %s questions have no answer among the network's %s",
            *(printable(split), f"{unknown:,}", f"{len(questions):,}", f"{len(answers):,}"),
        )


def tell_few(questions: Sequence[Question]) -> None:
    """Says where questions have answers of so few people that none can be wholly right by the official accuracy."""
    counts = Counter(len(question.answers) for question in questions)
    best = {count: accuracy("yes", ["yes"] * count) for count in sorted(counts) if count}
    few = [count for count, right in best.items() if right < 1.0]
    if few:
        logging.warning(
            "%s of %s questions have %s answers each where the official accuracy expects %s: an answer given by all of "
            "them counts %s %%",
            *(f"{sum(counts[count] for count in few):,}", f"{len(questions):,}", " or ".join(map(str, few)), ANSWERS),
            " or ".join(f"{100 * best[count]:.2f}" for count in few),
        )
