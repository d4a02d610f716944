"""Average precision of boxes and masks as COCO defines it, by pycocotools, from records of images alone.

A record, one line of JSON, has an image with what was found in it and what is there, so that predictions are evaluated
again without network or data: see `results.line_of`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from s3_jax.detection.objects import Categories, Line
from s3_jax.detection.results import all_results, check_lines
from s3_jax.errors import S3Error

FORMS = {"box": "bbox", "mask": "segm"}  # our names and pycocotools'
# Which objects by the area of their masks in pixels: all, below 32 x 32, below 96 x 96, and above.
SIZES = ("all", "small", "medium", "large")


@dataclasses.dataclass(frozen=True, eq=False)
class Precision:
    """Precision of boxes or of masks with 100 results of an image; -1 where there is nothing to find.

    table: float64 (T, R, C, A): IoU thresholds .50, .55 to .95, recalls 0 to 1, classes, and SIZES.
    """

    table: np.ndarray

    def average(self, *, threshold: float | None = None, label: int | None = None, size: str = "all") -> float | None:
        """Mean precision in percent, at one IoU threshold or over all ten, of one class or over all.

        None where there is no such object.
        """
        table = self.table[..., SIZES.index(size)]
        table = table if label is None else table[..., label]
        table = table if threshold is None else table[round((threshold - 0.5) / 0.05)]
        found = table[table > -1]
        return 100.0 * float(found.mean()) if found.size else None


def metrics_of_lines(lines: Sequence[Line], categories: Categories) -> dict[str, Any]:
    """Average precision in percent of images' records, the same for "box" and "mask".

    "box/ap" over IoU thresholds .50 to .95, "box/ap50", "box/ap75", "box/ap_small", "_medium" and "_large", and of each
    class "box/ap/<name>". Sizes and classes of which no object is there are left out. Raises S3Error for records that
    are none, see `check_lines`, and where no object is there at all.
    """
    check_lines(lines, categories)
    if not any_counted(lines):
        raise S3Error(
            f"the {len(lines):,} images that were measured on have no object that counts, so there is no AP: give "
            "annotations of objects that are no crowds, and images that can be read"
        )
    metrics: dict[str, Any] = {}
    for form in FORMS:
        precision = precision_of(lines, categories, form)
        metrics |= {f"{form}/{name}": value for name, value in _named(precision, categories)}
    return metrics


def any_counted(lines: Sequence[Line]) -> bool:
    """Whether there is an object to find in these records; crowds are none."""
    return any(not annotation["iscrowd"] for line in lines for annotation in line["annotations"])


def precision_of(lines: Sequence[Line], categories: Categories, form: str) -> Precision:
    """Precision of "box" or "mask" over all images of these records."""
    images = [line["image"] for line in lines]
    truth = [annotation for line in lines for annotation in line["annotations"]]
    found = [_result(result, form) for result in all_results(lines)]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells how long each step takes
        sets = [_coco_set(images, categories, annotations) for annotations in (truth, found)]
        evaluation = COCOeval(*sets, FORMS[form])
        evaluation.evaluate()
        evaluation.accumulate()
    return Precision(evaluation.eval["precision"][..., -1])


def _named(precision: Precision, categories: Categories) -> Iterator[tuple[str, float]]:
    yield "ap", precision.average() or 0.0
    yield "ap50", precision.average(threshold=0.5) or 0.0
    yield "ap75", precision.average(threshold=0.75) or 0.0
    others = {f"ap_{size}": precision.average(size=size) for size in SIZES[1:]}
    others |= {f"ap/{name}": precision.average(label=label) for label, name in enumerate(categories.names)}
    yield from ((name, value) for name, value in others.items() if value is not None)


def _result(result: Line, form: str) -> Line:
    """A result as pycocotools has them once they are loaded.

    The area, by which a result that matches nothing is small, medium or large, is that of the form: left to itself
    pycocotools takes the box's for masks too. detectron2 and mmdetection do as here.
    """
    box_area = result["bbox"][2] * result["bbox"][3]
    area = box_area if form == "box" else float(coco_mask.area(result["segmentation"]))
    return {**result, "area": area, "iscrowd": 0}


def _coco_set(images: Sequence[Line], categories: Categories, annotations: Sequence[Mapping[str, Any]]) -> COCO:
    """Numbered anew, from 1 on: pycocotools takes an id of 0 for none, and files have ids twice."""
    numbered = COCO()
    numbered.dataset = {
        "images": images,
        "categories": categories.record(),
        "annotations": [{**each, "id": number} for number, each in enumerate(annotations, start=1)],
    }
    numbered.createIndex()
    return numbered
