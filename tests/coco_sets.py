"""Small data sets in COCO's form, made for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Ids that are neither contiguous nor in order, as COCO's own have gaps.
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}]


def rectangle(left: float, top: float, width: float, height: float) -> list[float]:
    """A rectangle as a polygon."""
    return [left, top, left + width, top, left + width, top + height, left, top + height]


def annotation(number: int, image: int, category: int, box: Sequence[float], **more: Any) -> dict[str, Any]:
    """An annotation whose mask is its box, unless `more` says otherwise."""
    there = {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "iscrowd": 0}
    return there | {"area": box[2] * box[3], "segmentation": [rectangle(*box)]} | more


def images_of(*sizes: tuple[int, int]) -> list[dict[str, Any]]:
    """Images 100, 101, ... of these heights and widths."""
    return [
        {"id": 100 + number, "file_name": f"{number}.png", "height": height, "width": width}
        for number, (height, width) in enumerate(sizes)
    ]


def content_of(images: Sequence[Any], annotations: Sequence[Any], categories: Any = CATEGORIES) -> dict[str, Any]:
    """What a file of annotations holds."""
    return {"images": list(images), "annotations": list(annotations), "categories": categories}


def write_set(folder: Path, splits: Mapping[str, Any], *, with_images: bool = True) -> str:
    """Write a data set; each split's file has the given content, text as it is. Its path."""
    for split, content in splits.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        (folder / "annotations").mkdir(exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "annotations" / f"instances_{split}.json").write_text(text)
        for image in content["images"] if with_images and isinstance(content, dict) else ():
            pixels = np.full((image["height"], image["width"], 3), 99, np.uint8)
            Image.fromarray(pixels).save(folder / split / image["file_name"])
    return str(folder)
