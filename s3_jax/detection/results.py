"""What was found in images, as COCO's results have it, and the records of images with it.

A record, one line of JSON, is {"image": {"id", "file_name", "height", "width"}, "results": [...], "annotations":
[...]}: an image, what was found in it, and what is there. Both lists are in COCO's form, with the ids of the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from s3_jax.detection.masks import as_json, checked_run_lengths, run_lengths
from s3_jax.detection.objects import Categories, Line, RunLengths
from s3_jax.errors import S3Error, listed

_KEYS = ("image", "results", "annotations")
_IMAGE = ("id", "height", "width")
_RESULT = ("image_id", "category_id", "bbox", "score", "segmentation")
_ANNOTATION = ("image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
# Decimals that are written: a thousandth of a pixel, and of scores what float32 can tell apart below 1.
_OF_BOXES, _OF_SCORES = 3, 7


def results_of(
    image: Line,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    masks: Iterable[np.ndarray | RunLengths],
    categories: Categories,
) -> list[Line]:
    """What was found in an image, as COCO's results have it.

    image: its record. boxes: (N, 4), left, top, right, bottom in pixels of the original. scores: (N,). labels: (N,),
    0..C-1. masks: N, each bool (H, W) of the original's size, or run lengths of it.
    """
    corners = boxes.astype(np.float64)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return [
        {
            "image_id": image["id"],
            "category_id": categories.ids[int(label)],
            "bbox": np.round(box, _OF_BOXES).tolist(),
            "score": round(float(score), _OF_SCORES),
            "segmentation": as_json(run_lengths(mask) if isinstance(mask, np.ndarray) else mask),
        }
        for box, score, label, mask in zip(sides, scores, labels, masks, strict=True)
    ]


def line_of(image: Line, results: Sequence[Line], annotations: Sequence[Line]) -> Line:
    """The record of an image; a line of a file of predictions."""
    return dict(zip(_KEYS, (dict(image), list(results), list(annotations)), strict=True))


def all_results(lines: Iterable[Line]) -> list[Line]:
    """The results of all images: dumped as JSON, COCO's results file, which test servers and other programs read."""
    return [result for line in lines for result in line["results"]]


def check_lines(lines: Sequence[Line], categories: Categories) -> None:
    """Raises S3Error for what is no record of an image, for an image that occurs twice, unknown categories, and masks
    that are none of their image: pycocotools would read beyond them."""
    seen: set[Any] = set()
    for number, line in enumerate(lines):
        place = f"record {number} of images"
        _check_keys(line, _KEYS, place)
        _check_keys(line["image"], _IMAGE, f"{place}, its image")
        if line["image"]["id"] in seen:
            raise S3Error(f"{place}: the image {line['image']['id']} occurs twice; leave one of them out")
        seen.add(line["image"]["id"])
        for what, keys in (("results", _RESULT), ("annotations", _ANNOTATION)):
            for entry in line[what]:
                _check_entry(entry, keys, line["image"], categories, f"{place}, among its {what}")


def _check_entry(entry: Any, keys: Sequence[str], image: Line, categories: Categories, place: str) -> None:
    _check_keys(entry, keys, place)
    if entry["image_id"] != image["id"]:
        raise S3Error(f"{place} is one of the image {entry['image_id']!r}, and the record's image is {image['id']!r}")
    if entry["category_id"] not in categories.ids:
        known = listed(map(str, categories.ids))
        raise S3Error(f"{place} is one of the unknown category {entry['category_id']!r}; the data have {known}")
    box, score = entry["bbox"], entry.get("score", 0.0)
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(isinstance(number, (int, float)) for number in [*box, score])
    ):
        raise S3Error(f"{place} is one with the bbox {str(box)[:80]} and the score {score!r}; expected numbers")
    if checked_run_lengths(entry["segmentation"], image["height"], image["width"]) is None:
        raise S3Error(f"{place} is a mask that is none of {image['height']} x {image['width']} pixels as run lengths")


def _check_keys(entry: Any, keys: Sequence[str], place: str) -> None:
    missing = [key for key in keys if not isinstance(entry, Mapping) or key not in entry]
    if missing:
        raise S3Error(f"{place}, lacks {listed(map(repr, missing))}; expected {', '.join(keys)}")
