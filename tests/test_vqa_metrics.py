"""The accuracy of VQA v2: worked by hand, and against another implementation of the official rules."""

import itertools
import json
import random

import pytest

from s3_jax.vqa.metrics import CONTRACTIONS, DIGITS, accuracy, metrics_of, normalized
from s3_jax.vqa.task import QuestionAnswering


@pytest.mark.parametrize(("matching", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_as_many_of_ten_people_as_this_make_an_answer_so_right(matching, expected):
    given = ["red"] * matching + [f"other {number}" for number in range(10 - matching)]
    assert accuracy("red", given) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A red, white and blue Flag", "red white and blue flag"),  # a comma before a space vanishes
        ("red,white", "red white"),  # and otherwise becomes one
        ("1,000", "1000"),  # between digits it vanishes
        ("1,000 red/white", "1000 redwhite"),  # and with it all punctuation
        ("yes/no", "yes no"),
        ("2.5 m.", "2.5 m"),  # a period stays where a digit follows
        ("5.", "5"),  # and goes where none does, also behind a digit: the look behind is misspelt
        ("." * 40, "." * 8),  # the first 32 alone
        ("none", "0"),
        ("Two of TEN", "2 of 10"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("they'dve", "they'd've"),
        ("somebody'd", "somebodyd"),
        ("Im", "im"),  # words are in small letters by then, and the table's are not
        ("the", ""),
        ("it's: ok'", "it's: ok'"),  # colons and apostrophes are no punctuation
    ],
)
def test_normalisation_by_hand(answer, expected):
    assert normalized(answer) == expected


def test_where_all_ten_are_the_same_nothing_is_normalised():
    assert accuracy("2", ["two"] * 10) == 0
    assert accuracy("two", ["two"] * 10) == 1
    assert accuracy("2", ["two"] * 9 + ["Two"]) == 1
    assert accuracy(" two\n", ["two\t"] * 10) == 1  # but for the space around


# Another implementation: letter by letter, and person by person as the official code goes through records.
MARKS = set(';/[]"{}()=+\\_-><@`,?!')
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def other_normalized(text):
    number_with_comma = any(
        a.isdecimal() and b == "," and c.isdecimal() for a, b, c in zip(text, text[1:], text[2:], strict=False)
    )
    beside_space = {a for a, b in itertools.pairwise(text) if b == " "} | {
        b for a, b in itertools.pairwise(text) if a == " "
    }
    out = ""
    for letter in text:
        if letter in MARKS:
            out += "" if number_with_comma or letter in beside_space else " "
        else:
            out += letter
    kept, removed = "", 0
    for place, letter in enumerate(out):
        followed = place + 1 < len(out) and out[place + 1].isdecimal()
        if letter == "." and not followed and removed < 32:
            removed += 1
        else:
            kept += letter
    words = []
    for word in kept.lower().split():
        word = "0" if word == "none" else str(WORDS.index(word)) if word in WORDS else word
        if word not in ("a", "an", "the"):
            words.append(CONTRACTIONS.get(word, word))
    return " ".join(words)


def other_accuracy(answer, given):
    records = [
        {"answer": text.replace("\n", " ").replace("\t", " ").strip(), "answer_id": number}
        for number, text in enumerate(given, 1)
    ]
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    if len({record["answer"] for record in records}) > 1:
        for record in records:
            record["answer"] = other_normalized(record["answer"])
        answer = other_normalized(answer)
    each = []
    for record in records:
        others = [other for other in records if other != record]
        each.append(min(1.0, sum(other["answer"] == answer for other in others) / 3))
    return sum(each) / len(each)


def generated(rng):
    """A text that is full of what normalisation does something to."""
    words = [
        *DIGITS,
        *CONTRACTIONS,
        "a",
        "an",
        "the",
        "red",
        "Red",
        "12",
        "1,000",
        "3.5",
        "x.",
        "yes",
        "No",
        "it's",
        "é",
    ]
    glue = [" ", " ", " ", *sorted(MARKS), ", ", " -", ".", "..", "\n", "\t", "'", ":", "." * 40]
    return "".join(rng.choice(words) + rng.choice(glue) for _ in range(rng.randint(1, 4)))[: rng.randint(1, 60)]


def test_thirteen_thousand_generated_answers_are_those_of_another_implementation():
    rng = random.Random(0)
    texts = [generated(rng) for _ in range(13_000)]
    assert [normalized(text) for text in texts] == [other_normalized(text) for text in texts]
    assert len(set(texts)) > 10_000
    accuracies = []
    for start in range(0, len(texts), 4):
        few = texts[start : start + 4]
        copies = rng.randint(0, 10)
        given = [few[0]] * copies + rng.choices(few[1:], k=10 - copies)
        accuracies.append(accuracy(few[0], given))
        assert accuracies[-1] == pytest.approx(other_accuracy(few[0], given), abs=1e-12)
    assert len({round(each, 2) for each in accuracies}) == 5


def test_metrics_are_means_over_all_questions_and_over_those_of_each_type():
    kinds = ["yes/no", "other", "yes/no", ""]
    answers = [
        {"accuracy": value, "answer_type": kind} for value, kind in zip((1.0, 0.3, 0.5, 0.2), kinds, strict=True)
    ]
    lines = json.loads(json.dumps([{"questions": answers[:3]}, {"questions": answers[3:]}]))
    expected = {"accuracy": 50.0, "accuracy/other": 30.0, "accuracy/yes/no": 75.0}
    assert metrics_of(answers) == pytest.approx(expected)
    assert QuestionAnswering.score(None, lines) == pytest.approx(expected)
    assert QuestionAnswering.in_words(None, expected) == "VQA accuracy 50.00 % (other 30.00 %, yes/no 75.00 %)"
