"""The answers that a network chooses among, and how right each of them is."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, printable, read_text
from s3_jax.vqa.metrics import normalized, trimmed
from s3_jax.vqa.questions import Question

_SHARE = 0.3  # of the score, that each person gives who has said the answer


@functools.lru_cache(maxsize=2**17)
def compared(answer: str) -> str:
    """An answer as the metric compares it with others. A data set has few that differ, each of them many times."""
    return normalized(trimmed(answer))


def frequent_answers(questions: Iterable[Question], least: int) -> tuple[str, ...]:
    """The answers that are the likeliest of at least so many questions, normalised, the most frequent first.

    Equally frequent ones are in alphabetical order. Raises S3Error where there are none.
    """
    counts = Counter(compared(question.likeliest) for question in questions)
    found = sorted((-count, answer) for answer, count in counts.items() if count >= least and answer)
    if not found:
        most = max(counts.values(), default=0)
        raise S3Error(
            f"data.least_occurrences = {least}: no answer of the training split is so frequent, the most frequent one "
            f"is that of {most:,} questions; give a smaller number, or data.answers_file"
        )
    return tuple(answer for _, answer in found)


def read_answers(path: AnyPath) -> tuple[str, ...]:
    """The answers of a file, one a line. Raises S3Error for an empty line, and where two are the same to the metric."""
    lines = [line.strip() for line in read_text(path).rstrip().split("\n")]
    if "" in lines:
        raise S3Error(f"{printable(path)}: line {lines.index('') + 1} is empty; expected an answer in each line")
    found = tuple(map(compared, lines))
    twice = [line for line, answer in zip(lines, found, strict=True) if found.count(answer) > 1 or not answer]
    if twice:
        raise S3Error(
            f"{printable(path)}: the answer {twice[0]!r} is nothing, or the same as another, once it is normalised as "
            "the metric does it; leave one out"
        )
    return found


def soft_scores(given: Sequence[str], places: Mapping[str, int]) -> np.ndarray:
    """How right each answer is, float32 (A,): min(1, 0.3 n) where n people gave it.

    places: the number of each answer. They are compared as the metric compares them.
    """
    scores = np.zeros(len(places), np.float32)
    for answer, count in Counter(map(compared, given)).items():
        if answer in places:
            scores[places[answer]] = min(1.0, _SHARE * count)
    return scores


def count_unknown(questions: Iterable[Question], places: Mapping[str, int]) -> int:
    """How many questions have no answer that a network could choose."""
    return sum(not any(compared(answer) in places for answer in set(question.answers)) for question in questions)
