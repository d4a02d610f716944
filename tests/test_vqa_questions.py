"""Files of questions and answers in the form of VQA v2: what is taken, and what is refused in which words."""

import pytest
from vqa_sets import data_config, write_set

from s3_jax.errors import S3Error
from s3_jax.vqa.dataset import open_split
from s3_jax.vqa.questions import read_questions


def test_one_answer_stands_for_those_of_ten_people(tmp_path):
    def alone(questions, annotations):
        for record, answers in zip(annotations, ([{"answer": "red"}], None), strict=False):
            record["answers"] = answers

    write_set(tmp_path, "train", change=alone)
    found = read_questions(tmp_path / "questions_train.json", tmp_path / "annotations_train.json")
    assert [question.answers for question in found[:2]] == [("red",) * 10, ("no",) * 10]


def test_answers_of_people_may_be_plain_texts(tmp_path):
    def plain(questions, annotations):
        for record, answers in zip(annotations, (["grey", "green", "green"], ["maybe"]), strict=False):
            record["answers"] = answers

    write_set(tmp_path, "train", change=plain)
    found = read_questions(tmp_path / "questions_train.json", tmp_path / "annotations_train.json")
    assert [question.answers for question in found[:2]] == [("grey", "green", "green"), ("maybe",) * 10]


def test_a_type_of_answer_that_is_no_unicode_is_escaped(tmp_path):
    """It becomes the name of a metric, which is printed and written."""
    write_set(tmp_path, "train", change=lambda questions, annotations: annotations[0].update(answer_type="a\ud800"))
    found = read_questions(tmp_path / "questions_train.json", tmp_path / "annotations_train.json")
    assert found[0].kind == r"a\ud800"


def twice(questions, annotations):
    questions[1]["question_id"] = questions[0]["question_id"]


def empty(questions, annotations):
    questions[2]["question"] = "  ? "


def no_answer(questions, annotations):
    annotations[0]["answers"], annotations[0]["multiple_choice_answer"] = [], None


def answers(given):
    return lambda questions, annotations: annotations[0].update(answers=given)


def no_unicode(questions, annotations):
    questions[0]["question"] = "what \ud800 is"


def no_unicode_answer(questions, annotations):
    annotations[0]["answers"][3]["answer"] = "gr\ud800n"


def annotations_of_another_split(questions, annotations):
    """As where both splits number their questions from 1."""
    annotations[2]["image_id"] = 102


def no_annotation(questions, annotations):
    del annotations[3:5]


def no_image(questions, annotations):
    for record in (*questions[:2], *annotations[:2]):
        record["image_id"] = 77


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (twice, r"questions_train.json: two questions have question_id 11; which is meant cannot be told"),
        (empty, r"questions_train.json: question_id 21 is empty \('  \? '\): ask something, or leave it out"),
        (no_answer, r"annotations_train.json: question_id 11 has no answers: expected \"answers\""),
        (
            answers("yes"),
            r"question_id 11 has \"answers\" = 'yes': expected a list that has \{\"answer\": a text\} for",
        ),
        (answers([{"answer": "yes"}, {"answer": 3}]), r"question_id 11 has \"answers\" = \[.* 3\}\]: expected a list"),
        (
            answers([{"answer": "yes"}, "no"]),
            r"question_id 11 has \"answers\" = .*: expected a list .* or a text for each",
        ),
        (answers(["yes", None]), r"question_id 11 has \"answers\" = \['yes', None\]: expected a list"),
        (answers({"answer": "yes"}), r"question_id 11 has \"answers\" = \{.*\}: expected a list"),
        (no_unicode, r"questions_train.json: question_id 11: 'what \\ud800 is' is not valid Unicode"),
        (no_unicode_answer, r"annotations_train.json: question_id 11: 'gr\\ud800n' is not valid Unicode"),
        (
            annotations_of_another_split,
            r"annotations_train.json: question_id 21 is about image_id 2, and its annotation about image_id 102: give",
        ),
        (no_annotation, r"annotations_train.json has no annotation of 2 of 12 questions, the first is question_id 20"),
        (no_image, r"2 of 12 questions are about images that are not there, the first image is .*000000000077.jpg"),
        (lambda q, a: q.clear(), r"questions_train.json has no list 'questions', or an empty one"),
        (
            lambda q, a: q[0].update(image_id="x"),
            r"questions_train.json: image_id = 'x' in .*: expected a whole number",
        ),
        (lambda q, a: q[0].update(question=5), r"question_id 11 has no text"),
    ],
)
def test_bad_files_are_refused_in_one_paragraph(tmp_path, change, message):
    write_set(tmp_path, "train", change=change)
    with pytest.raises(S3Error, match=message) as raised:
        open_split(data_config(tmp_path), "train")
    assert "\n" not in str(raised.value)


def test_questions_without_image_can_be_left_out(tmp_path):
    write_set(tmp_path, "train", change=no_image)
    source = open_split(data_config(tmp_path, on_bad_image="skip"), "train")
    assert (len(source), source.left_out) == (10, 2)


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_leaving_questions_out_is_advised_only_where_some_remain(tmp_path, on_bad_image):
    write_set(tmp_path, "train")
    for image in (tmp_path / "images" / "train").iterdir():
        image.unlink()
    with pytest.raises(S3Error, match="12 of 12 questions are about images that are not there") as raised:
        open_split(data_config(tmp_path, on_bad_image=on_bad_image), "train")
    assert "set data.image_file" in str(raised.value)
    assert "skip" not in str(raised.value)


def test_an_annotation_need_not_say_which_image_it_is_about(tmp_path):
    def without_images(questions, annotations):
        for record in annotations:
            del record["image_id"]
        annotations[0]["image_id"] = None

    write_set(tmp_path, "train", change=without_images)
    assert len(open_split(data_config(tmp_path), "train")) == 12
