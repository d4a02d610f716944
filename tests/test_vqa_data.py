"""Questions about images: files in the form of VQA v2, answers and words that are made of them, and examples."""

import pickle

import numpy as np
import pytest
from vqa_sets import data_config, warnings_told, write_set

from s3_jax.config import config_of, default_config
from s3_jax.data.splits import Subset, whole
from s3_jax.data.stream import eval_batches, train_batches
from s3_jax.errors import S3Error
from s3_jax.vqa.answers import frequent_answers, read_answers, soft_scores
from s3_jax.vqa.config import VqaAugmentConfig, VqaDataConfig
from s3_jax.vqa.dataset import hold_out, open_data, open_split, shuffled
from s3_jax.vqa.examples import AskedExamples
from s3_jax.vqa.images import asked_images
from s3_jax.vqa.questions import Question, read_questions
from s3_jax.vqa.task import open_task
from s3_jax.vqa.words import CLASSIFY, PAD, SEPARATE, SPECIAL, Words, read_vocabulary, vocabulary_of

pytest.importorskip("tokenizers")


@pytest.fixture
def folder(tmp_path):
    write_set(tmp_path, "train")
    write_set(tmp_path, "test", first=101)
    return tmp_path


def test_questions_come_with_the_answers_of_ten_people(folder):
    found = read_questions(folder / "questions_train.json", folder / "annotations_train.json")
    assert len(found) == 12
    expected = Question(11, 1, "What colour is it, number 1?", ("green",) * 8 + ("grey",) * 2, "green", "other")
    assert found[0] == expected
    assert read_questions(folder / "questions_train.json", None)[0] == expected._replace(
        answers=(), likeliest="", kind=""
    )


def test_examples_share_an_image_evenly():
    questions = [Question(number, image, f"question {number}") for number, image in enumerate([7, 5, 7, 7, 7, 7])]
    source = asked_images(questions, {5: "five.jpg", 7: "seven.jpg"}, 3)
    assert [(source.name(index), [q.id for q in source.asked[index][1]]) for index in range(len(source))] == [
        ("seven.jpg", [0, 2, 3]),
        ("seven.jpg", [4, 5]),
        ("five.jpg", [1]),
    ]
    assert source.identities[0] == source.identities[1] != source.identities[2]
    assert [len(each) for _, each in asked_images(questions, {5: "", 7: ""}, 1).asked] == [1] * 6


def test_answers_are_those_of_many_questions_and_scores_by_how_many_people_gave_them(tmp_path):
    likeliest = ["yes"] * 3 + ["Two", "2", "the red", "red", "blue"]
    questions = [Question(n, n, "?", (), answer) for n, answer in enumerate(likeliest)]
    assert frequent_answers(questions, 2) == ("yes", "2", "red")
    places = {"yes": 0, "2": 1, "red": 2}
    given = ["yes", "2", "two", "Red.", "red", "red", "a red", "blue", "blue", "blue"]
    np.testing.assert_allclose(soft_scores(given, places), [0.3, 0.6, 1.0])
    (tmp_path / "answers.txt").write_text("yes\nTwo\nred\n")
    assert read_answers(tmp_path / "answers.txt") == ("yes", "2", "red")


def test_the_vocabulary_is_a_function_of_the_questions():
    texts = ["What is it?", "Is it Rød, or is it red?", "it"]
    found = vocabulary_of(texts)
    assert found[:12] == (*SPECIAL, "it", "is", "?", ",", "or", "red", "rød")
    assert found == vocabulary_of(texts)
    letters = sorted(set("whatisit?isitrød,orisitred?it"))
    assert set(letters) | {f"##{letter}" for letter in letters} <= set(found)
    words = Words(found, 8)
    tokens = [found[number] for number in words("Is it horrid?")]
    assert tokens == [CLASSIFY, "is", "it", "h", "##o", "##r", "##r", SEPARATE]
    assert [found[number] for number in words("it")] == [CLASSIFY, "it", SEPARATE] + [PAD] * 5
    assert [found[number] for number in words("zebra")][1] == "[UNK]"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(words))("is it"), words("is it"))
    with pytest.raises(S3Error, match=r"the question 'is \\ud800' is not valid Unicode"):
        words("is \ud800")


def test_a_vocabulary_is_read_as_bert_has_it(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "play", "##ing", ""]))
    words = Words(read_vocabulary(tmp_path / "vocab.txt"), 6)
    assert words("Playing").tolist() == [2, 5, 6, 3, 0, 0]
    for text, message in (("[PAD]\n[UNK]\na", "no token \\[CLS\\]"), ("\n".join([*SPECIAL, "a", "a"]), "'a' twice")):
        (tmp_path / "bad.txt").write_text(text)
        with pytest.raises(S3Error, match=f"bad.txt: the vocabulary has .*{message}"):
            read_vocabulary(tmp_path / "bad.txt")


def test_an_image_lies_on_the_canvas_that_holds_it_and_a_batch_has_one(folder):
    settings = data_config(folder, canvases=((32, 40), (40, 32)), test_scale=(40, 30), questions_per_image=2)
    source = open_split(settings, "train")
    words = Words(vocabulary_of(q.text for q in source.questions), 8)
    examples = AskedExamples(whole(source, "train"), settings, words, ("yes", "no"))
    (example,) = [examples.example(row, None) for row in range(len(source)) if source.name(row).endswith("01.jpg")]
    assert example["image"].shape == (32, 40, 3)
    assert example["size"].tolist() == [30, 38]  # 16 x 20 pixels, as large as fits into 30 x 40
    assert example["image"][:30, :38].all()
    assert not example["image"][30:].any()
    assert not example["image"][:, 38:].any()
    assert example["asked"].tolist() == [1, 1]
    augment = VqaAugmentConfig(short_sides=(20, 30), long_side=40)
    training = AskedExamples(examples.subset, settings, words, ("yes", "no"), augment=augment)
    batches = train_batches(training, batch_size=3, seed=0)
    seen = [next(batches) for _ in range(4)]
    batches.close()
    assert {batch["image"].shape[1:3] for batch in seen} == {(32, 40), (40, 32)}
    shorter = {int(size.min()) for batch in seen for size in batch["size"]}
    assert len(shorter) > 3
    assert shorter <= set(range(20, 31))
    assert {tuple(each["scores"].shape) for each in seen} == {(3, 2, 2)}
    evaluated = list(eval_batches(examples, batch_size=4))
    assert [int(batch["weight"].sum()) for batch in evaluated] == [3, 3]
    assert "scores" not in evaluated[0]


def test_images_that_are_held_out_are_in_no_example_that_is_trained_on(folder):
    data = open_data(data_config(folder), 8, seed=0)
    train, holdout = data.splits.train, data.splits.holdout
    assert (len(train), len(holdout), len(data.splits.train_and_holdout)) == (8, 4, 12)
    assert train.shared_with(holdout) == 0
    assert data.answers[0] == "no"
    with pytest.raises(S3Error, match=r"data.holdout_fraction = 0.01 of 6 training images holds out 0"):
        hold_out(train, data_config(folder, holdout_fraction=0.01), 0)


def test_shuffled_images_are_all_another_one(folder):
    data = data_config(folder)
    source = open_split(data, "train")
    mixed = shuffled(source, 0)
    assert not (mixed.identities == source.identities).any()
    assert sorted(mixed.identities) == sorted(source.identities)
    assert mixed.questions == source.questions
    opened = open_data(data_config(folder, shuffled_images=True), 8, seed=0)
    assert opened.splits.train.source.taken_for is not None
    assert opened.splits.test.source.taken_for is None


@pytest.mark.parametrize(("people", "expected"), [(1, ()), (2, ("2", "33.33")), (3, ("3", "66.67")), (4, ())])
def test_answers_of_so_few_people_that_none_is_wholly_right_are_told_once(tmp_path, monkeypatch, people, expected):
    told = warnings_told(monkeypatch)

    def few(questions, annotations):
        for record in annotations:
            record["answers"] = record["answers"][:people]

    write_set(tmp_path, "train", change=few)
    write_set(tmp_path, "test", first=101, change=few)
    open_data(data_config(tmp_path), 8, seed=0)
    text = "24 of 24 questions have %s answers each where the official accuracy expects 10: an answer given by all of "
    assert told == ([text % expected[0] + f"them counts {expected[1]} %"] if expected else [])


def test_a_training_that_could_learn_no_answer_is_refused(folder):
    (folder / "answers.txt").write_text("desk\nchair\n")
    with pytest.raises(
        S3Error,
        match=r"train: none of 12 questions has an answer among the network's 2; the first of these is 'desk', and the "
        r"answer to question_id 11 is 'green': data.answers_file needs answers to these questions",
    ):
        open_data(data_config(folder, answers_file=str(folder / "answers.txt")), 8, seed=0)


def test_most_frequent_answers_that_nobody_gave_are_refused(tmp_path):
    def other(questions, annotations):
        for record in annotations:
            record["multiple_choice_answer"] = "zebra"

    write_set(tmp_path, "train", change=other)
    write_set(tmp_path, "test", first=101)
    with pytest.raises(S3Error, match=r"first of these is 'zebra', .* is 'green': each \"multiple_choice_answer\""):
        open_data(data_config(tmp_path), 8, seed=0)


def test_a_vocabulary_of_other_words_than_the_questions_is_told_and_one_of_none_refused(folder, monkeypatch):
    told = warnings_told(monkeypatch)
    path = folder / "vocab.txt"
    settings = data_config(folder, vocabulary_file=str(path))
    path.write_text("\n".join([*SPECIAL, "is", "it", "red", "?", ","]))
    open_data(settings, 8, seed=0)  # of 9 words of the two questions about an image: "is it" twice, and "red"
    assert told == []
    path.write_text("\n".join([*SPECIAL, "is", "colour"]))
    open_data(settings, 8, seed=0)
    assert told == [f"{path} has no token for 66.7 % of the words of the training questions; they become [UNK]"]
    path.write_text("\n".join([*SPECIAL, "Farbe", "?", ","]))
    with pytest.raises(S3Error, match=r"vocab.txt: it has none of the 54 words of the training questions, the first"):
        open_data(settings, 8, seed=0)


def test_answers_outside_the_vocabulary_are_counted(folder, monkeypatch):
    told = warnings_told(monkeypatch)
    (folder / "answers.txt").write_text("yes\nno\n")
    open_data(data_config(folder, answers_file=str(folder / "answers.txt")), 8, seed=0)
    assert told == [
        "train: 6 of 12 questions have no answer among the network's 2",
        "test: 6 of 12 questions have no answer among the network's 2",
    ]


@pytest.mark.parametrize(
    ("block", "settings", "message"),
    [
        ("data", {"least_occurrences": 50}, r"data.least_occurrences = 50: no answer .* is that of 4 questions"),
        ("data", {"path": ""}, "data.path is empty"),
        ("data", {"test_split": "dev"}, r"there is no file .*questions_dev.json: set data.questions_file"),
        ("data", {"test_split": "train"}, "data.test_split = 'train' and data.train_split = 'train' share 6 images"),
        ("data", {"cache_in_memory": True}, "data.cache_in_memory: the images of questions are read anew"),
        ("data", {"image_file": "{x}.jpg"}, r"data.image_file = '\{x\}.jpg': expected a path below data.path"),
        ("data", {"test_scale": (65, 64)}, "no canvas holds an image of 64 x 65 pixels"),
        ("data", {"canvases": ((40, 64),)}, "data.canvases: 40 x 64 pixels do not fit .* stride of 32"),
        ("data", {"source": "easy_vqa", "test_split": "val"}, "easy-VQA has no split 'val'"),
        ("bert", {"heads": 5}, "bert.width = 768 and heads = 5: expected a multiple"),
        ("bert", {"weights": "bert.safetensors"}, "config.bert.weights = 'bert.safetensors': a backbone that begins"),
        ("train", {"init_from": "s3_t"}, "config.train.init_from: supernets of visual question answering begin at"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder, block, settings, message):
    config = default_config("s3_jax.vqa")
    config.data.update(source="vqa_json", path=str(folder), least_occurrences=1)
    config[block].update(settings)
    with pytest.raises(S3Error, match=message):
        open_task(config_of(config.to_dict()))


def test_easy_vqa_is_a_source_of_its_own():
    pytest.importorskip("easy_vqa")
    source = open_split(VqaDataConfig(questions_per_image=4), "test")
    subset = Subset(source, np.arange(len(source)), "test")
    assert len(source.questions) == 9673
    assert len(np.unique(source.identities)) == 1000
    assert all(len(questions) <= 4 for _, questions in source.asked)
    yes = sum(question.likeliest == "yes" for question in source.questions)
    assert yes / len(source.questions) == pytest.approx(0.3733, abs=1e-4)
    image, questions = subset.source[0]
    assert (image.size, questions[0].answers) == ((64, 64), (questions[0].likeliest,) * 10)
