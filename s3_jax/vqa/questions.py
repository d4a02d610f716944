"""Questions about images with the answers that people gave, read from files in the form of VQA v2."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from absl import logging

from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, printable, read_user_json

# How often an answer is taken that stands for those of all people, as VQA v2 has ten of them.
ANSWERS = 10


class Question(NamedTuple):
    """A question, and what is known of its answers."""

    id: int
    image_id: int
    text: str
    answers: tuple[str, ...] = ()  # those that people gave; none where they are kept from us
    likeliest: str = ""  # the most frequent of them
    kind: str = ""  # of answer: "yes/no", "number" or "other"; "" where nobody says


def read_questions(questions: AnyPath, annotations: AnyPath | None) -> list[Question]:
    """The questions of a split in the order of their file, with their answers; without annotations (None) without.

    Raises S3Error for files that are missing or no such files, for an id that stands twice, an empty question, and
    questions without annotation. Annotations without question are left out, with a warning.
    """
    asked = [_question(record, questions) for record in _records(questions, "questions")]
    _refuse_twice([question.id for question in asked], "questions", questions)
    if annotations is None:
        return asked
    known = _records(annotations, "annotations")
    ids = [_whole(record, "question_id", annotations) for record in known]
    _refuse_twice(ids, "annotations", annotations)
    by_id = dict(zip(ids, known, strict=True))
    if missing := [question.id for question in asked if question.id not in by_id]:
        raise S3Error(
            f"{printable(annotations)} has no annotation of {len(missing):,} of {len(asked):,} questions, the first is "
            f"question_id {missing[0]}: give the annotations of the same split"
        )
    if surplus := len(by_id) - len(asked):
        logging.warning("%s: left out %s annotations without a question", printable(annotations), f"{surplus:,}")
    return [_answered(question, by_id[question.id], annotations) for question in asked]


def _records(path: AnyPath, name: str) -> list[Any]:
    found = read_user_json(path)
    records = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(records, list) or not records:
        raise S3Error(f"{printable(path)} has no list {name!r}, or an empty one: it is no file of VQA v2's form")
    return records


def _refuse_twice(ids: Sequence[int], name: str, path: AnyPath) -> None:
    twice = [number for number, count in Counter(ids).items() if count > 1]
    if twice:
        more = f", and so have {len(twice) - 1:,} more" if len(twice) > 1 else ""
        raise S3Error(
            f"{printable(path)}: two {name} have question_id {twice[0]}{more}; which is meant cannot be told: give "
            "each question an id of its own"
        )


def _question(record: Any, path: AnyPath) -> Question:
    number, image = _whole(record, "question_id", path), _whole(record, "image_id", path)
    text = record.get("question")
    if not isinstance(text, str):
        raise S3Error(f'{printable(path)}: question_id {number} has no text: expected "question" with a text')
    if not any(letter.isalnum() for letter in text):
        raise S3Error(f"{printable(path)}: question_id {number} is empty ({text!r}): ask something, or leave it out")
    return Question(number, image, text)


def _whole(record: Any, name: str, path: AnyPath) -> int:
    value = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise S3Error(
            f"{printable(path)}: {name} = {value!r} in {printable(str(record)[:80])}: expected a whole number"
        )
    return value


def _answered(question: Question, record: Mapping[str, Any], path: AnyPath) -> Question:
    given = record.get("answers")
    answers: list[Any] = [each.get("answer") for each in given if isinstance(each, Mapping)] if _is_list(given) else []
    likeliest = record.get("multiple_choice_answer") or _most_frequent(answers)
    answers = answers or [likeliest]
    if not all(isinstance(answer, str) for answer in (*answers, likeliest)) or not likeliest:
        raise S3Error(
            f'{printable(path)}: question_id {question.id} has no answers: expected "answers" with an "answer" each, '
            'or "multiple_choice_answer"'
        )
    kind = record.get("answer_type")
    texts = tuple(map(sys.intern, answers)) if len(answers) > 1 else (sys.intern(answers[0]),) * ANSWERS
    return question._replace(answers=texts, likeliest=likeliest, kind=kind if isinstance(kind, str) else "")


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _most_frequent(answers: Sequence[Any]) -> Any:
    """Of equally frequent ones the first."""
    return Counter(map(str, answers)).most_common(1)[0][0] if answers else None
