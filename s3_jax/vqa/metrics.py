"""The official accuracy of VQA v2, with all that its evaluation code does to answers before it compares them.

Published numbers are of that code (GT-Vision-Lab/VQA, `vqaEval.py`), so what looks like an oversight there is a rule
here: a period is taken away unless a digit follows it, whatever stands before; of periods the first 32 alone; and where
all given answers are the same to the letter, nothing is normalised, neither these nor the answer that is measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from s3_jax.task import Metrics

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
ARTICLES = ("a", "an", "the")
# How contractions are spelt: with any one of the apostrophes left out they are put right.
_SPELT = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    spelt[:place] + spelt[place + 1 :]: spelt
    for spelt in _SPELT.split()
    for place, letter in enumerate(spelt)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # the official table has this one the other way round

_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32


def normalized(answer: str) -> str:
    """An answer as the official evaluation compares it: no punctuation, no articles, numbers up to ten as digits."""
    in_number = _COMMA_IN_NUMBER.search(answer) is not None
    bare = answer
    for mark in PUNCTUATION:
        vanishes = in_number or f"{mark} " in answer or f" {mark}" in answer
        bare = bare.replace(mark, "" if vanishes else " ")
    bare = _PERIOD.sub("", bare, count=_MOST_PERIODS)
    words = (DIGITS.get(word, word) for word in bare.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def trimmed(answer: str) -> str:
    """An answer on one line, without space around it: what is done to it even where it is not normalised."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def accuracy(answer: str, given: Sequence[str]) -> float:
    """The accuracy, from 0 to 1, of an answer where people have given others, ten in VQA v2.

    An answer is as right as the third part of those who gave it too, at most 1, on average over the choices of all
    people but one: 0.3, 0.6, 0.9 and 1 where 1, 2, 3 and 4 or more of ten did. The official code leaves out whoever has
    the same record and not the same place, which is the same where records have an `answer_id`, as VQA's have; without
    one it gives 0 where all agree.
    """
    answer, given = trimmed(answer), [trimmed(each) for each in given]
    if len(set(given)) > 1:
        answer, given = normalized(answer), [normalized(each) for each in given]
    count, matching = len(given), sum(each == answer for each in given)
    without_one_that_matches, without_another = max(matching - 1, 0) / 3, matching / 3
    return (matching * min(1.0, without_one_that_matches) + (count - matching) * min(1.0, without_another)) / count


def metrics_of(answers: Iterable[dict[str, Any]]) -> Metrics:
    """Accuracy in percent of all questions, and of those of each type of answer.

    answers: of each question its "accuracy" and its "answer_type", "" where it has none.
    """
    by_type: dict[str, list[float]] = {}
    for each in answers:
        by_type.setdefault(each["answer_type"], []).append(each["accuracy"])
    every = [value for values in by_type.values() for value in values]
    overall = {"accuracy": 100.0 * sum(every) / len(every)}
    return overall | {
        f"accuracy/{kind}": 100.0 * sum(by_type[kind]) / len(by_type[kind]) for kind in sorted(by_type) if kind
    }
