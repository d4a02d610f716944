"""Average precision from records alone: what is perfect, what is not, what is none, and another evaluator's figures."""

import contextlib
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_sets import annotation, content_of, images_of, write_set
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from s3_jax.detection import results as r
from s3_jax.detection.coco import CocoImages, open_coco
from s3_jax.detection.evaluation import metrics_of_lines, precision_of
from s3_jax.detection.masks import bitmap
from s3_jax.detection.scenes import CATEGORIES, open_scenes
from s3_jax.errors import S3Error

HEADLINES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
Change = Callable[[Any], Any]


def perfect_lines(images: Any, count: int) -> list[r.Line]:
    """Ground truth as detections."""
    lines = []
    for index in range(count):
        _, objects = images[index]
        record, masks = images.image_record(index), [bitmap(mask) > 0 for mask in objects.masks]
        scores = np.linspace(0.9, 0.5, len(objects))
        found = r.results_of(record, objects.boxes, scores, objects.labels, masks, images.categories)
        lines.append(r.line_of(record, found, images.truth(index)))
    return json.loads(json.dumps(lines))


def noisy_lines(count: int, seed: int = 0) -> list[r.Line]:
    """Digit scenes with results that are shifted, renamed, doubled or missing."""
    rng = np.random.default_rng(seed)
    images = open_scenes(("train",), size=128).splits["train"]
    lines = perfect_lines(images, count)
    for line in lines:
        line["results"] = [result for result in line["results"] * 2 if rng.random() < 0.8]
        line["results"] = [changed(result, rng) for result in line["results"]]
    return lines


def changed(result: r.Line, rng: np.random.Generator) -> r.Line:
    shift = rng.integers(-3, 4, size=2)
    mask = np.roll(bitmap(result["segmentation"]), shift[::-1], axis=(0, 1))
    left, top, width, height = result["bbox"]
    category = int(rng.integers(1, 11)) if rng.random() < 0.2 else result["category_id"]
    box = [float(left + shift[0]), float(top + shift[1]), width + float(rng.normal()), height]
    return result | {
        "bbox": box,
        "score": float(rng.random()),
        "category_id": category,
        "segmentation": r.as_json(r.run_lengths(mask)),
    }


@pytest.fixture(scope="module")
def noisy() -> list[r.Line]:
    return noisy_lines(60)


def crowded(folder: Path) -> CocoImages:
    """Small, medium and large objects, a crowd, an image of nothing, and a class of nothing."""
    content = content_of(
        images_of((300, 400), (200, 200)),
        [
            annotation(0, 100, 18, (10, 10, 20, 20)),
            annotation(0, 100, 3, (50, 50, 60, 60)),
            annotation(1, 100, 18, (150, 100, 200, 150)),
            annotation(2, 100, 18, (5, 200, 100, 80), iscrowd=1),
        ],
    )
    return open_coco(write_set(folder, {"val": content}), ("val",)).splits["val"]  # type: ignore[return-value]


def test_ground_truth_fed_as_detections_is_perfect(tmp_path: Path) -> None:
    images = crowded(tmp_path)
    metrics = metrics_of_lines(perfect_lines(images, 2), images.categories)
    for form in ("box", "mask"):
        for name in (*HEADLINES, "ap/car", "ap/dog"):
            assert metrics[f"{form}/{name}"] == pytest.approx(100, abs=1e-9)
        assert f"{form}/ap/toothbrush" not in metrics  # there is none
    scenes = open_scenes(("test",)).splits["test"]
    metrics = metrics_of_lines(perfect_lines(scenes, 30), CATEGORIES)
    assert {round(value, 9) for value in metrics.values()} == {100.0}
    assert "box/ap_large" not in metrics


def test_results_within_a_crowd_are_no_mistakes_and_elsewhere_they_are(tmp_path: Path) -> None:
    images = crowded(tmp_path)
    lines = perfect_lines(images, 2)
    mask = np.zeros((300, 400), bool)
    mask[210:250, 10:60] = True
    box, category = np.array([[10.0, 210, 60, 250]]), images.categories.ids.index(18)
    record = images.image_record(0)
    extra = r.results_of(record, box, np.array([0.99]), np.array([category]), [mask], images.categories)
    lines[0]["results"] += extra
    assert metrics_of_lines(lines, images.categories)["box/ap"] == pytest.approx(100)
    assert metrics_of_lines(lines, images.categories)["mask/ap"] == pytest.approx(100)
    lines[0]["results"][-1]["bbox"] = [300, 10, 50, 40]
    metrics = metrics_of_lines(lines, images.categories)
    assert metrics["box/ap/dog"] < 90
    assert metrics["box/ap/car"] == pytest.approx(100)


def test_nothing_found_is_zero_and_of_nothing_there_is_no_precision(tmp_path: Path) -> None:
    images = crowded(tmp_path)
    lines = [line | {"results": []} for line in perfect_lines(images, 2)]
    metrics = metrics_of_lines(lines, images.categories)
    assert set(metrics.values()) == {0.0}
    assert "box/ap/dog" in metrics
    crowds = [line | {"annotations": [each for each in line["annotations"] if each["iscrowd"]]} for line in lines]
    assert len(crowds[0]["annotations"]) == 1
    for none in (lines[1:], [], crowds):
        with pytest.raises(S3Error, match=f"the {len(none)} images .* have no object that counts, so there is no AP"):
            metrics_of_lines(none, images.categories)


def test_half_of_the_objects_found_by_hand(tmp_path: Path) -> None:
    """Of two dogs one is found: precision 1 up to recall .5, which are 51 of 101 places; the car is missed."""
    images = crowded(tmp_path)
    lines = perfect_lines(images, 2)
    lines[0]["results"] = lines[0]["results"][:1]
    metrics = metrics_of_lines(lines, images.categories)
    assert metrics["box/ap/dog"] == pytest.approx(100 * 51 / 101)
    assert metrics["box/ap"] == pytest.approx(100 * 51 / 101 / 2)
    assert metrics["mask/ap50"] == pytest.approx(100 * 51 / 101 / 2)
    assert metrics["mask/ap_large"] == 0
    assert metrics["mask/ap_small"] == pytest.approx(100)


def reference(lines: list[r.Line], form: str, kinds: tuple[type, type]) -> np.ndarray:
    """The first six statistics in percent, from files as other programs read them."""
    dataset, evaluator = kinds
    truth = {
        "images": [line["image"] for line in lines],
        "categories": CATEGORIES.record(),
        "annotations": [each for line in lines for each in line["annotations"]],
        "info": {},
    }
    found = copy.deepcopy(r.all_results(lines))
    if form == "segm":
        found = [{key: value for key, value in result.items() if key != "bbox"} for result in found]
    with contextlib.redirect_stdout(io.StringIO()):
        there = dataset()
        there.dataset = copy.deepcopy(truth)
        there.createIndex()
        evaluation = evaluator(there, there.loadRes(found), form)
        for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
            step()
    return 100 * np.array(evaluation.stats[:6], np.float64)


def headlines(lines: list[r.Line], form: str) -> np.ndarray:
    metrics = metrics_of_lines(lines, CATEGORIES)
    return np.array([metrics.get(f"{form}/{name}", -100.0) for name in HEADLINES])


@pytest.mark.parametrize(("form", "theirs"), [("box", "bbox"), ("mask", "segm")])
def test_figures_are_those_of_cocos_own_program(noisy: list[r.Line], form: str, theirs: str) -> None:
    expected = reference(noisy, theirs, (COCO, COCOeval))
    assert 10 < expected[0] < 90
    assert np.abs(headlines(noisy, form) - expected).max() < 1e-9


@pytest.mark.parametrize(("form", "theirs"), [("box", "bbox"), ("mask", "segm")])
def test_another_evaluator_agrees(noisy: list[r.Line], form: str, theirs: str) -> None:
    other = pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    expected = reference(noisy, theirs, (other.COCO, other.COCOeval_faster))
    assert np.abs(headlines(noisy, form) - expected).max() < 1e-6


def test_ids_of_zero_and_doubled_ids_change_nothing(noisy: list[r.Line]) -> None:
    lines = copy.deepcopy(noisy[:10])
    expected = metrics_of_lines(lines, CATEGORIES)
    for line in lines:
        for each in line["annotations"]:
            each["id"] = 0
    assert metrics_of_lines(lines, CATEGORIES) == expected


def test_the_average_of_classes_is_that_of_all(noisy: list[r.Line]) -> None:
    precision = precision_of(noisy, CATEGORIES, "mask")
    each = [precision.average(label=label) for label in range(10)]
    assert precision.average() == pytest.approx(np.mean([value for value in each if value is not None]))
    loose, strict = precision.average(threshold=0.5), precision.average(threshold=0.95)
    assert loose is not None
    assert strict is not None
    assert loose > strict


def test_results_are_in_cocos_form(tmp_path: Path) -> None:
    results = json.loads(json.dumps(r.all_results(perfect_lines(crowded(tmp_path), 2))))
    assert {result["category_id"] for result in results} == {3, 18}
    assert {key for result in results for key in result} == {"image_id", "category_id", "bbox", "score", "segmentation"}


def without(*keys: Any) -> Change:
    def change(lines: Any) -> Any:
        place = lines
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]
        return lines

    return change


def with_result(**fields: Any) -> Change:
    def change(lines: Any) -> Any:
        lines[0]["results"][0] |= fields
        return lines

    return change


BAD_LINES: dict[str, tuple[Change, str]] = {
    "no record": (lambda lines: [3], "record 0 of images, lacks 'annotations', 'image', 'results'"),
    "no results": (without(1, "results"), "record 1 of images, lacks 'results'"),
    "no height": (without(0, "image", "height"), "its image, lacks 'height'"),
    "twice": (lambda lines: [lines[0], *lines], "the image 100 occurs twice"),
    "no score": (without(0, "results", 0, "score"), "among its results, lacks 'score'"),
    "no area": (without(0, "annotations", 0, "area"), "among its annotations, lacks 'area'"),
    "another image": (with_result(image_id=101), "is one of the image 101, and the record's image is 100"),
    "unknown category": (with_result(category_id=1), "unknown category 1; the data have 18, 3, 90"),
    "short box": (with_result(bbox=[1, 2, 3]), r"the bbox \[1, 2, 3\]"),
    "text": (with_result(score="high"), "the score 'high'; expected numbers"),
    "another size": (with_result(segmentation={"size": [5, 7], "counts": "0S1"}), "none of 300 x 400 pixels"),
    "cut mask": (with_result(segmentation={"size": [300, 400], "counts": "0S1"}), "none of 300 x 400 pixels"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_records_that_are_none_are_refused_with_their_place(tmp_path: Path, case: str) -> None:
    images = crowded(tmp_path)
    change, expected = BAD_LINES[case]
    lines = change(perfect_lines(images, 2))
    with pytest.raises(S3Error, match=expected):
        metrics_of_lines(lines, images.categories)
