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

    Raises S3Error for files that are missing or no such files, for an id that stands twice, an empty question,
    questions without annotation, and one whose annotation is about another image. Annotations without question are left
    out, with a warning.
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
    _refuse_other_images(asked, by_id, annotations)
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


def _refuse_other_images(asked: Sequence[Question], by_id: Mapping[int, Mapping[str, Any]], path: AnyPath) -> None:
    """Where splits number their questions from 1 alike, the images alone tell that annotations are of another split."""
    for question in asked:
        image = by_id[question.id].get("image_id")
        if image not in (None, question.image_id):
            raise S3Error(
                f"{printable(path)}: question_id {question.id} is about image_id {question.image_id}, and its "
                f"annotation about image_id {printable(repr(image)[:80])}: give the annotations of the same split"
            )


def _question(record: Any, path: AnyPath) -> Question:
    number, image = _whole(record, "question_id", path), _whole(record, "image_id", path)
    text = record.get("question")
    if not isinstance(text, str):
        raise S3Error(f'{printable(path)}: question_id {number} has no text: expected "question" with a text')
    if not any(letter.isalnum() for letter in text):
        raise S3Error(f"{printable(path)}: question_id {number} is empty ({text!r}): ask something, or leave it out")
    _refuse_no_unicode(text, number, path)
    return Question(number, image, text)


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text: halves of surrogate pairs, which JSON and flags may bring, it cannot."""
    return printable(text) == text


def _refuse_no_unicode(text: str, number: int, path: AnyPath) -> None:
    if not is_unicode(text):
        raise S3Error(
            f"{printable(path)}: question_id {number}: {text!r} is not valid Unicode (half of a surrogate pair); "
            "write the letter that is meant"
        )


def _whole(record: Any, name: str, path: AnyPath) -> int:
    value = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise S3Error(
            f"{printable(path)}: {name} = {value!r} in {printable(str(record)[:80])}: expected a whole number"
        )
    return value


def _answered(question: Question, record: Mapping[str, Any], path: AnyPath) -> Question:
    answers = _given(record.get("answers"), question.id, path)
    likeliest = record.get("multiple_choice_answer") or _most_frequent(answers)
    if not isinstance(likeliest, str) or not likeliest:
        raise S3Error(
            f'{printable(path)}: question_id {question.id} has no answers: expected "answers" with an "answer" each, '
            'or "multiple_choice_answer"'
        )
    answers = answers or [likeliest]
    for answer in dict.fromkeys((*answers, likeliest)):
        _refuse_no_unicode(answer, question.id, path)
    kind = record.get("answer_type")
    texts = tuple(map(sys.intern, answers)) if len(answers) > 1 else (sys.intern(answers[0]),) * ANSWERS
    return question._replace(answers=texts, likeliest=likeliest, kind=printable(kind) if isinstance(kind, str) else "")


def _given(given: Any, number: int, path: AnyPath) -> list[str]:
    """The answers of people, records or plain texts; none where there are none. An entry is never left out."""
    entries = [] if given is None else given
    if _is_list(entries):
        texts = entries if all(isinstance(each, str) for each in entries) else map(_text, entries)
        found = [text for text in texts if text is not None]
        if len(found) == len(entries):
            return found
    raise S3Error(
        f'{printable(path)}: question_id {number} has "answers" = {printable(repr(given)[:80])}: expected a list that '
        'has {"answer": a text} for each person, or a text for each'
    )


def _text(entry: Any) -> str | None:
    """The answer of a person's record; None where it is no such record."""
    answer = entry.get("answer") if isinstance(entry, Mapping) else None
    return answer if isinstance(answer, str) else None


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _most_frequent(answers: Sequence[str]) -> str | None:
    """Of equally frequent ones the first."""
    return Counter(answers).most_common(1)[0][0] if answers else None
