"""A file of annotations in COCO's form, read and checked: images, categories, and the objects of each image."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from s3_jax.detection.masks import checked_run_lengths, polygons_of, run_lengths_of_polygons
from s3_jax.detection.objects import Categories, Line, RunLengths
from s3_jax.errors import S3Error, listed
from s3_jax.paths import AnyPath, printable, read_user_json

EMPTY, OUTSIDE, TINY = (
    "boxes without area",
    "boxes outside of their image",
    "boxes of less than a pixel, not trained on",
)
POLYGONS, NO_MASK = "polygons without three points within reach of their image", "objects without a mask"
FLAT = "objects whose polygon is a list of numbers [x, y, ...], where a list of such lists [[x, y, ...]] is expected"
RUNS = "objects whose run lengths are none of a mask of their image's size"
CROWD = "objects whose iscrowd is neither of the numbers 0 and 1"
_LISTS = ("images", "categories", "annotations")
_NUMBER = (int, float)
_LARGEST_AREA = 1e10  # pixels; what has more is of no size, and pycocotools finds it nowhere
_IMAGE = {"id": (int,), "file_name": (str,), "height": (int,), "width": (int,)}
_CATEGORY = {"id": (int,), "name": (str,)}
_ANNOTATION = {"image_id": (int,), "category_id": (int,), "bbox": (list,)}
_IN_WORDS = {int: "a whole number", float: "a number", str: "text", list: "a list"}


@dataclasses.dataclass(frozen=True, eq=False)
class PackedMasks:
    """Polygons of many objects in one array, a tenth of the memory of JSON's lists; run lengths as they are."""

    numbers: np.ndarray  # float64 (K,): x, y, x, y, ... of all polygons
    polygon_starts: np.ndarray  # int64 (P + 1,) among the numbers
    object_starts: np.ndarray  # int64 (N + 1,) among the polygons
    run_lengths: Mapping[int, RunLengths]  # by the number of the object

    def of(self, number: int, height: int, width: int) -> RunLengths:
        """The mask of an object whose image has this height and width."""
        if number in self.run_lengths:
            return self.run_lengths[number]
        first, end = self.object_starts[number : number + 2]
        bounds = self.polygon_starts[first : end + 1]
        polygons = [self.numbers[start:stop] for start, stop in itertools.pairwise(bounds)]
        return run_lengths_of_polygons(polygons, height, width)


@dataclasses.dataclass(frozen=True, eq=False)
class CocoFile:
    """The content of a file; objects are those that can be used, in the order of their images."""

    images: Sequence[Line]  # id, file_name, height, width
    categories: Categories
    starts: np.ndarray  # int64 (I + 1,): the objects of image i are starts[i] to starts[i + 1]
    labels: np.ndarray  # int32 (N,)
    boxes: np.ndarray  # float64 (N, 4): left, top, width, height in pixels
    areas: np.ndarray  # float64 (N,) in pixels, as the file has them; NaN where it has none that can be
    crowds: np.ndarray  # bool (N,)
    masks: PackedMasks  # N
    counts: Counter[str]  # of what was left out, by reason
    annotations: int  # in the file

    @property
    def trained(self) -> np.ndarray:
        """bool (N,): neither crowds nor, as in mmdetection, boxes of less than a pixel."""
        return ~self.crowds & (self.boxes[:, 2:] >= 1).all(axis=1)


def read_coco(path: AnyPath) -> CocoFile:
    """Read a file of annotations, `instances_*.json` or another of its form.

    Left out and counted are boxes without area or outside of their image, polygons of two points, objects of whose mask
    nothing is left, and those of which nobody knows whether they are crowds. Raises S3Error for a file that is no JSON
    or misses a key, numbers that occur twice, names that no file can have, and annotations of images or categories that
    it does not list.
    """
    place = printable(path)
    content = _lists_of(read_user_json(path), place)
    images = _entries(content["images"], _IMAGE, "image", place)
    categories = _categories(content["categories"], place)
    annotations = _entries(content["annotations"], _ANNOTATION, "annotation", place)
    rows = _numbered([image["id"] for image in images], "images", place)
    labels = _numbered(categories.ids, "categories", place)
    _refuse_unknown(annotations, "image", rows, place)
    _refuse_unknown(annotations, "category", labels, place)
    for image in images:
        _check_image(image, place)
    return _packed(images, categories, rows, labels, annotations, place)


def _lists_of(content: Any, place: str) -> dict[str, list[Any]]:
    if not isinstance(content, dict):
        raise S3Error(
            f"{place} holds no annotations: expected an object with the lists {', '.join(_LISTS)}, as in COCO's "
            f"instances_val2017.json, and it is {_spoken(content)}"
        )
    for key in _LISTS:
        if not isinstance(content.get(key), list):
            found = _spoken(content[key]) if key in content else "missing"
            there = "" if key in content else f"; it has {listed(map(str, content))}"
            raise S3Error(f"{place}: the list {key!r} of COCO's form is {found}{there}")
    for key in ("images", "categories"):
        if not content[key]:
            raise S3Error(f"{place} lists no {key}; expected one at least under {key!r}")
    return content


def _entries(
    entries: Sequence[Any], fields: Mapping[str, tuple[type, ...]], what: str, place: str
) -> Sequence[Mapping[str, Any]]:
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise S3Error(f"{place}: {what} number {number} is {_spoken(entry)}; expected an object")
        for key, kinds in fields.items():
            if type(entry.get(key)) not in kinds:
                found = f"{_spoken(entry[key])} as" if key in entry else "no"
                name = f"{what} {entry['id']}" if "id" in entry and key != "id" else f"{what} number {number}"
                raise S3Error(f"{place}: {name} has {found} {key!r}; expected {_IN_WORDS[kinds[0]]}")
    return entries


def _check_image(image: Mapping[str, Any], place: str) -> None:
    if min(image["height"], image["width"]) < 1:
        raise S3Error(f"{place}: image {image['id']} has {image['width']} x {image['height']} pixels; none has so few")
    try:
        os.fsencode(image["file_name"])
    except UnicodeEncodeError as error:  # half of a character of two, as JSON may write it
        raise S3Error(
            f"{place}: image {image['id']} has the file_name '{printable(image['file_name'])}', which is no text "
            "that a file can be named by; write the name that its file has"
        ) from error


def _categories(entries: Sequence[Any], place: str) -> Categories:
    """By their numbers; the names are the file's own."""
    checked = sorted(_entries(entries, _CATEGORY, "category", place), key=lambda entry: entry["id"])
    names = [printable(entry["name"]) for entry in checked]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise S3Error(f"{place}: several categories have the name {listed(map(repr, twice))}; give each its own")
    return Categories(tuple(entry["id"] for entry in checked), tuple(names))


def _numbered(ids: Sequence[int], what: str, place: str) -> dict[int, int]:
    numbers = {each: number for number, each in enumerate(ids)}
    if len(numbers) < len(ids):
        twice = next(each for number, each in enumerate(ids) if numbers[each] != number)
        raise S3Error(f"{place}: several {what} have the id {twice}; give each its own")
    return numbers


def _refuse_unknown(annotations: Sequence[Mapping[str, Any]], what: str, known: Mapping[int, int], place: str) -> None:
    key = f"{what}_id"
    unknown = [number for number, annotation in enumerate(annotations) if annotation[key] not in known]
    if unknown:
        first = annotations[unknown[0]]
        plural = {"image": "images", "category": "categories"}[what]
        raise S3Error(
            f"{place}: {len(unknown):,} of {len(annotations):,} annotations are of {plural} that it does not list; the "
            f"first is annotation {first.get('id', f'number {unknown[0]}')}, of {what} {first[key]}: list them under "
            f"{plural!r}, or remove the annotations"
        )


def _packed(
    images: Sequence[Any],
    categories: Categories,
    rows: Mapping[int, int],
    labels: Mapping[int, int],
    annotations: Sequence[Mapping[str, Any]],
    place: str,
) -> CocoFile:
    counts: Counter[str] = Counter()
    kept, boxes, masks = [], [], []
    for annotation in sorted(annotations, key=lambda each: rows[each["image_id"]]):
        image = images[rows[annotation["image_id"]]]
        box = _box(annotation, image, place, counts)
        mask = None if box is None else _mask(annotation, image, counts)
        if box is not None and mask is not None and _is_known_crowd(annotation, counts):
            kept.append(annotation)
            boxes.append(box)
            masks.append(mask)
    numbers = np.array([rows[annotation["image_id"]] for annotation in kept], np.int64)
    found = CocoFile(
        images=[{key: image[key] for key in _IMAGE} for image in images],
        categories=categories,
        starts=np.searchsorted(numbers, np.arange(len(images) + 1)),
        labels=np.array([labels[annotation["category_id"]] for annotation in kept], np.int32),
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        areas=np.array([_area(annotation) for annotation in kept], np.float64),
        crowds=np.array([bool(annotation.get("iscrowd")) for annotation in kept], bool),
        masks=_packed_masks(masks),
        counts=counts,
        annotations=len(annotations),
    )
    counts[TINY] += int((~found.trained & ~found.crowds).sum())
    return found


def _box(annotation: Mapping[str, Any], image: Line, place: str, counts: Counter[str]) -> list[float] | None:
    """Left, top, width and height, or None and a count more where there is no such box."""
    box = annotation["bbox"]
    if len(box) != 4 or not all(type(number) in _NUMBER for number in box):
        raise S3Error(
            f"{place}: annotation {annotation.get('id', '')} of image {image['id']} has the bbox {str(box)[:80]}; "
            "expected four numbers: left, top, width and height in pixels"
        )
    left, top, width, height = box
    if not (all(map(_is_finite, box)) and width > 0 and height > 0):
        counts[EMPTY] += 1
    elif min(left + width, image["width"]) <= max(left, 0) or min(top + height, image["height"]) <= max(top, 0):
        counts[OUTSIDE] += 1
    else:
        return box
    return None


def _mask(annotation: Mapping[str, Any], image: Line, counts: Counter[str]) -> list[np.ndarray] | RunLengths | None:
    """Polygons or run lengths, or None and a count more where neither is left."""
    segmentation = annotation.get("segmentation")
    mask: list[np.ndarray] | RunLengths | None
    if isinstance(segmentation, list) and any(type(part) in _NUMBER for part in segmentation):
        counts[FLAT] += 1
        return None
    if isinstance(segmentation, list):
        mask = polygons_of(segmentation, image["height"], image["width"])
        counts[POLYGONS] += len(segmentation) - len(mask)
    else:
        mask = checked_run_lengths(segmentation, image["height"], image["width"])
    counts[RUNS if isinstance(segmentation, dict) else NO_MASK] += not mask
    return mask or None


def _is_known_crowd(annotation: Mapping[str, Any], counts: Counter[str]) -> bool:
    """Whether an annotation says what it is, one object or a crowd; a count more where it does not, as by "0"."""
    told = annotation.get("iscrowd") in (None, 0, 1)
    counts[CROWD] += not told
    return told


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _area(annotation: Mapping[str, Any]) -> float:
    """In pixels; NaN for what is missing or can be no area, which would leave the object out of every size."""
    area: Any = annotation.get("area")
    return float(area) if type(area) in _NUMBER and 0 <= area <= _LARGEST_AREA else math.nan


def _packed_masks(masks: Sequence[list[np.ndarray] | RunLengths]) -> PackedMasks:
    by_object = [mask if isinstance(mask, list) else [] for mask in masks]
    polygons = [polygon for mask in by_object for polygon in mask]
    return PackedMasks(
        numbers=np.concatenate([np.zeros(0), *polygons]),
        polygon_starts=np.cumsum([0, *map(len, polygons)]),
        object_starts=np.cumsum([0, *map(len, by_object)]),
        run_lengths={number: mask for number, mask in enumerate(masks) if isinstance(mask, dict)},
    )


def _spoken(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value):,}"
    return printable(repr(value))[:80]
