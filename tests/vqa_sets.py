"""Small sets of questions about images, as VQA v2 has them."""

import json

from PIL import Image

from s3_jax.vqa.config import VqaDataConfig

COLOURS = ("red", "green", "blue")


def write_set(folder, split, *, images=6, size=(20, 16), first=1, change=lambda questions, annotations: None):
    """Images of one colour with two questions about each, as VQA v2 has them."""
    questions, annotations = [], []
    (folder / "images" / split).mkdir(parents=True)
    for number in range(first, first + images):
        colour = COLOURS[number % 3]
        shape = size if number % 2 else size[::-1]
        Image.new("RGB", shape, colour).save(folder / "images" / split / f"{number:012}.jpg")
        for kind, text, right, wrong in (
            ("other", f"What colour is it, number {number}?", colour, "grey"),
            ("yes/no", "Is it red?", "yes" if colour == "red" else "no", "maybe"),
        ):
            asked = {"question_id": 10 * number + (kind == "other"), "image_id": number}
            answers = [right] * 8 + [wrong] * 2
            given = [{"answer": each, "answer_confidence": "yes", "answer_id": n} for n, each in enumerate(answers, 1)]
            questions.append(asked | {"question": text})
            annotations.append(asked | {"multiple_choice_answer": right, "answer_type": kind, "answers": given})
    change(questions, annotations)
    for name, records in (("questions", questions), ("annotations", annotations)):
        (folder / f"{name}_{split}.json").write_text(json.dumps({"info": {}, name: records}))


def data_config(folder, **settings):
    """Settings of data for such a set."""
    given = {"least_occurrences": 1, "canvases": ((64, 64),), "holdout_fraction": 0.34} | settings
    return VqaDataConfig(source="vqa_json", path=str(folder), **given)


def warnings_told(monkeypatch):
    """A list of the warnings from now on, in words."""
    texts = []
    monkeypatch.setattr("absl.logging.warning", lambda text, *values: texts.append(text % values))
    return texts
