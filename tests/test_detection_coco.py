"""Data in COCO's form: what is read of it, and what becomes of a file or an image that is not as it should be."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from absl import logging
from coco_sets import annotation, content_of, images_of, rectangle, write_set
from PIL import Image
from pycocotools import mask as coco_mask

from s3_jax.data.sources import BadImage
from s3_jax.detection.coco import CocoImages, open_coco
from s3_jax.detection.coco_json import CROWD as UNKNOWN_CROWD
from s3_jax.detection.coco_json import EMPTY, FLAT, NO_MASK, OUTSIDE, POLYGONS, RUNS, TINY
from s3_jax.detection.evaluation import metrics_of_lines
from s3_jax.detection.masks import bitmap
from s3_jax.detection.results import line_of
from s3_jax.errors import S3Error

COCO_MINI = Path(__file__).parents[2] / "shared/data/coco_mini"
CROWD = {"size": [20, 30], "counts": [10, 5, 585]}  # plain run lengths, column by column


def two_images() -> dict[str, Any]:
    """Image 100 has a car, a dog and a crowd of dogs, image 101 nothing."""
    return content_of(
        images_of((20, 30), (25, 10)),
        [
            annotation(7, 100, 18, (2, 3, 10, 8)),
            annotation(5, 100, 3, (15.5, 4, 8.25, 10)),
            annotation(6, 100, 18, (0, 10, 1, 5), iscrowd=1, segmentation=CROWD, area=5),
        ],
    )


def opened(folder: Path, content: Any, **patterns: str) -> CocoImages:
    return open_coco(write_set(folder, {"val": content}), ("val",), **patterns).splits["val"]


def test_objects_have_contiguous_labels_and_corners_and_crowds_are_for_evaluation_alone(tmp_path: Path) -> None:
    images = opened(tmp_path, two_images())
    assert images.categories.ids == (3, 18, 90)
    assert images.categories.names == ("car", "dog", "toothbrush")
    image, objects = images[0]
    assert image.size == (30, 20)
    assert objects.labels.tolist() == [1, 0]
    assert objects.boxes.tolist() == [[2, 3, 12, 11], [15.5, 4, 23.75, 14]]
    expected = np.zeros((20, 30), np.uint8)
    expected[3:11, 2:12] = 1
    assert (bitmap(objects.masks[0]) == expected).all()
    assert images.size(1) == (25, 10)
    assert len(images[1][1]) == 0
    assert images.object_counts.tolist() == [2, 0]
    assert images.has_objects.tolist() == [True, False]
    assert len(np.unique(images.identities)) == 2
    assert images.name(0).endswith("val/0.png")


def test_the_truth_of_an_image_is_the_files_own_with_ids_that_evaluation_can_use(tmp_path: Path) -> None:
    content = two_images()
    content["annotations"][0]["id"] = content["annotations"][1]["id"] = 0  # which pycocotools takes for none
    del content["annotations"][1]["area"]
    images = opened(tmp_path, content)
    truth = images.truth(0)
    assert json.loads(json.dumps(truth)) == truth
    assert [each["id"] for each in truth] == [1, 2, 3]
    assert [each["category_id"] for each in truth] == [18, 3, 18]
    assert [each["bbox"] for each in truth] == [[2, 3, 10, 8], [15.5, 4, 8.25, 10], [0, 10, 1, 5]]
    assert [each["iscrowd"] for each in truth] == [0, 0, 1]
    assert [each["area"] for each in truth] == [80, coco_mask.area(truth[1]["segmentation"]), 5]
    assert np.flatnonzero(coco_mask.decode(truth[2]["segmentation"]).T.ravel()).tolist() == [10, 11, 12, 13, 14]
    assert images.truth(1) == []
    assert images.image_record(1) == {"id": 101, "file_name": "1.png", "height": 25, "width": 10}


def test_a_mask_is_the_union_of_its_polygons_as_pycocotools_draws_them(tmp_path: Path) -> None:
    polygons = [rectangle(1.3, 2.2, 9.4, 5.5), rectangle(8, 5, 15.7, 12.1), [20, 3, 28, 3, 25, 9.9]]
    content = content_of(images_of((20, 30)), [annotation(1, 100, 3, (1, 2, 27, 15), segmentation=polygons)] * 2)
    images = opened(tmp_path, content)
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 20, 30)))
    assert all((bitmap(mask) == expected).all() for mask in images[0][1].masks)


def test_what_cannot_be_used_is_left_out_counted_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: warnings.append(text % values))
    fine = annotation(1, 100, 3, (2, 3, 10, 8))
    bad = [
        annotation(2, 100, 3, (2, 3, 0, 8)),
        annotation(3, 100, 3, (12, 3, -10, 8)),
        annotation(4, 100, 3, (2, 3, 10, 0.0)),
        annotation(5, 100, 3, (2, 3, float("nan"), 8)),
        annotation(6, 100, 3, (2, 3, float("inf"), 8)),
        annotation(7, 100, 3, (30, 3, 10, 8)),
        annotation(8, 100, 3, (-10, -8, 10, 8)),
        annotation(9, 100, 3, (2, 3, 10, 8), segmentation=[[2, 3, 12, 11]]),
        annotation(10, 100, 3, (2, 3, 10, 8), segmentation=[]),
        annotation(11, 100, 3, (2, 3, 10, 8), segmentation=None),
        annotation(12, 100, 3, (2, 3, 10, 8), segmentation=[[1e9, 1e9, 0, 0, 1e9, 0]]),
        annotation(13, 100, 3, (2, 3, 10, 8), segmentation={"size": [20, 30], "counts": [3, 3]}),
        annotation(14, 100, 3, (2, 3, 10, 8), segmentation={"size": [30, 20], "counts": [0, 600]}),
        annotation(17, 100, 3, (2, 3, 10, 8), bbox=[2, 3, 10**400, 8]),
        annotation(18, 100, 3, (2, 3, 10, 8), segmentation=rectangle(2, 3, 10, 8)),
        annotation(19, 100, 3, (2, 3, 10, 8), iscrowd="0"),
        annotation(20, 100, 3, (2, 3, 10, 8), iscrowd=float("nan")),
    ]
    part = annotation(15, 100, 18, (2, 3, 10, 8), segmentation=[[2, 3, 12, 11], rectangle(2, 3, 10, 8), ["a"] * 6])
    tiny = annotation(16, 100, 18, (2, 3, 0.5, 8))
    images = opened(tmp_path, content_of(images_of((20, 30)), [fine, *bad, part, tiny]))
    assert images.file.counts == {
        **{EMPTY: 6, OUTSIDE: 2, POLYGONS: 4, NO_MASK: 4, RUNS: 2},
        **{FLAT: 1, UNKNOWN_CROWD: 2, TINY: 1},
    }
    assert images[0][1].labels.tolist() == [0, 1]
    assert len(images.truth(0)) == 3  # a box of half a pixel is evaluated
    assert len(warnings) == 8
    assert any(f"left out 6 {EMPTY}" in text for text in warnings)


@pytest.mark.parametrize("area", [-5, -0.5, float("inf"), float("nan"), 10**400, 1e11, True, "80", None])
def test_an_area_that_can_be_none_is_that_of_the_mask(tmp_path: Path, area: Any) -> None:
    content = content_of(images_of((20, 30)), [annotation(1, 100, 3, (2, 3, 10, 8), area=area)])
    images = opened(tmp_path, content)
    assert images.truth(0)[0]["area"] == 80
    (truth,) = images.truth(0)
    result = {"image_id": 100, "category_id": 3, "bbox": truth["bbox"], "score": 0.9}
    line = line_of(images.image_record(0), [result | {"segmentation": truth["segmentation"]}], [truth])
    assert metrics_of_lines([line], images.categories)["box/ap"] == pytest.approx(100)


def test_boxes_are_cut_at_the_images_edges_for_training_alone(tmp_path: Path) -> None:
    content = content_of(images_of((20, 30)), [annotation(1, 100, 3, (-4, 15, 10, 9))])
    images = opened(tmp_path, content)
    assert images[0][1].boxes.tolist() == [[0, 15, 6, 20]]
    assert images.truth(0)[0]["bbox"] == [-4, 15, 10, 9]


def dropped(key: str) -> Callable[[Any], Any]:
    return lambda content: {name: value for name, value in content.items() if name != key}


def changed(what: str, number: int, **fields: Any) -> Callable[[Any], Any]:
    def change(content: Any) -> Any:
        entry = content[what][number]
        content[what][number] = {k: v for k, v in (entry | fields).items() if v is not KeyError}
        return content

    return change


BAD_FILES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no JSON": (lambda content: "{'images': []}", "is no JSON file"),
    "cut": (lambda content: json.dumps(content)[:200], "is no JSON file"),
    "results": (lambda content: "[]", "expected an object with the lists images, categories, annotations"),
    "no images": (dropped("images"), "the list 'images' of COCO's form is missing; it has annotations, categories"),
    "no annotations": (dropped("annotations"), "'annotations' of COCO's form is missing"),
    "no categories": (dropped("categories"), "'categories' of COCO's form is missing"),
    "another type": (lambda content: content | {"images": {}}, "'images' of COCO's form is an object of 0"),
    "no image": (lambda content: content | {"images": []}, "lists no images"),
    "no category": (lambda content: content | {"categories": []}, "lists no categories"),
    "no size": (changed("images", 1, height=KeyError), "image 101 has no 'height'; expected a whole number"),
    "no file": (changed("images", 1, file_name=KeyError), "image 101 has no 'file_name'; expected text"),
    "no name of a file": (changed("images", 1, file_name="\ud800.jpg"), r"image 101 has the file_name '\\ud800\.jpg'"),
    "no pixel": (changed("images", 1, width=0), "image 101 has 0 x 25 pixels"),
    "text for a number": (changed("images", 1, id="101"), "image number 1 has '101' as 'id'"),
    "no name": (changed("categories", 0, name=KeyError), "category 18 has no 'name'"),
    "no box": (changed("annotations", 1, bbox=KeyError), "annotation 5 has no 'bbox'; expected a list"),
    "short box": (changed("annotations", 1, bbox=[1, 2, 3]), r"annotation 5 of image 100 has the bbox \[1, 2, 3\]"),
    "no numbers": (changed("annotations", 1, bbox=[1, 2, 3, "4"]), "expected four numbers"),
    "no entry": (lambda content: content | {"annotations": [3]}, "annotation number 0 is 3; expected an object"),
    "unknown image": (
        changed("annotations", 2, image_id=999),
        "1 of 3 annotations are of images that it does not list; the first is annotation 6, of image 999",
    ),
    "unknown category": (changed("annotations", 2, category_id=1), "annotation 6, of category 1: list them under 'cat"),
    "an image twice": (changed("images", 1, id=100), "several images have the id 100"),
    "a category twice": (changed("categories", 1, id=18), "several categories have the id 18"),
    "a name twice": (changed("categories", 1, name="dog"), "several categories have the name 'dog'"),
    "nothing to use": (
        lambda content: content | {"annotations": [annotation(1, 100, 3, (2, 3, 10, 8), segmentation=[])]},
        r"none of its 1 annotations can be used: 1 objects without a mask; masks are learned too, .* \[\[x, y, x \+ w",
    ),
    "flat polygons": (
        lambda content: content | {"annotations": [annotation(1, 100, 3, (2, 3, 9, 8), segmentation=[1.5] * 6)]},
        r"can be used: 1 objects whose polygon is a list of numbers \[x, y, ...\], where a list of such lists",
    ),
    "text for a crowd": (
        lambda content: content | {"annotations": [annotation(1, 100, 3, (2, 3, 10, 8), iscrowd="0")]},
        "can be used: 1 objects whose iscrowd is neither of the numbers 0 and 1",
    ),
    "another image size": (
        lambda content: content | {"annotations": [annotation(1, 100, 3, (200, 30, 100, 80))]},
        "boxes outside of their image; most boxes lie outside of their images: are the annotations of another image s",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_is_refused_in_one_paragraph_that_names_it(tmp_path: Path, case: str) -> None:
    change, expected = BAD_FILES[case]
    path = write_set(tmp_path, {"val": two_images()})
    content = change(copy.deepcopy(two_images()))
    write_set(tmp_path, {"val": content}, with_images=False)
    with pytest.raises(S3Error, match=expected) as caught:
        open_coco(path, ("val",))
    assert "instances_val.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_has_no_use_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(S3Error, match="1 objects without a mask"):
        opened(tmp_path, content_of(images_of((20, 30)), [annotation(1, 100, 3, (2, 3, 10, 8), segmentation=[])]))
    assert not caplog.records


def test_categories_must_be_those_of_the_other_splits(tmp_path: Path) -> None:
    train, val = two_images(), two_images()
    val["categories"] = [*val["categories"][:2], {"id": 90, "name": "brush"}]
    path = write_set(tmp_path, {"train": train, "val": val})
    expected = "categories of 'train' and 'val' differ.*only in train: 90 toothbrush; only in val: 90 brush"
    with pytest.raises(S3Error, match=expected):
        open_coco(path, ("train", "val"))
    train["categories"].reverse()
    train["categories"][0]["name"] = "brush"
    assert list(open_coco(write_set(tmp_path, {"train": train}), ("train", "val")).splits) == ["train", "val"]


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    path = write_set(tmp_path, {"val": two_images()})
    with pytest.raises(S3Error, match=r"no file .*instances_test.json.*annotations has instances_val.json"):
        open_coco(path, ("test",))
    with pytest.raises(S3Error, match=r"set data.annotations_file \(evaluate.py: --annotations\) and data.images"):
        open_coco(path, ("test",))
    with pytest.raises(S3Error, match=r"no folder .*pictures.*set data.images_folder \(evaluate.py: --images\)"):
        open_coco(path, ("val",), images_folder="pictures")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(S3Error, match=r"none of the 2 images of .* the first is 0\.png: set data\.images_folder"):
        open_coco(path, ("val",), images_folder="pictures")
    with pytest.raises(
        S3Error,
        match=r"no data set is named: give data.path \(evaluate.py: --path\), a folder with <path>/annotations/",
    ):
        open_coco("", ("val",))


def test_a_set_of_another_layout_is_read_by_its_patterns(tmp_path: Path) -> None:
    (tmp_path / "valid" / "sub").mkdir(parents=True)
    content = two_images()
    for image in content["images"]:
        image["file_name"] = f"./sub/{image['file_name']}"
        Image.new("RGB", (image["width"], image["height"])).save(tmp_path / "valid" / image["file_name"])
    (tmp_path / "valid" / "_annotations.coco.json").write_text(json.dumps(content))
    images = open_coco(str(tmp_path), ("valid",), annotations_file="{split}/_annotations.coco.json").splits["valid"]
    assert images[0][0].size == (30, 20)


def test_images_that_are_missing_damaged_or_of_another_size_are_bad_images(tmp_path: Path) -> None:
    content = content_of(images_of((20, 30), (20, 30), (20, 30), (20, 30)), [])
    path = write_set(tmp_path, {"val": content})
    (tmp_path / "val/0.png").unlink()
    (tmp_path / "val/1.png").write_bytes(b"no image")
    Image.new("RGB", (20, 30)).save(tmp_path / "val/2.png")
    images = open_coco(path, ("val",)).splits["val"]
    for number, expected in ((0, "no such file"), (1, "not an image"), (2, "20 x 30 pixels, and its .* 30 x 20")):
        with pytest.raises(BadImage, match=expected):
            images[number]
    assert images[3][0].size == (30, 20)


def test_an_image_that_its_exif_turns_is_told(tmp_path: Path) -> None:
    path = write_set(tmp_path, {"val": content_of(images_of((20, 30)), [])})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 30)).save(tmp_path / "val/0.png", exif=exif)
    with pytest.raises(BadImage, match="EXIF orientation turns it"):
        open_coco(path, ("val",)).splits["val"][0]


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize(
    ("split", "images", "annotations", "crowds"), [("train2017", 208, 1644, 16), ("val2017", 80, 815, 11)]
)
def test_real_coco_is_read_as_its_readme_counts_it(split: str, images: int, annotations: int, crowds: int) -> None:
    data = open_coco(str(COCO_MINI), (split,))
    read = data.splits[split]
    assert (len(read), read.file.annotations, int(read.file.crowds.sum())) == (images, annotations, crowds)
    assert len(data.categories.ids) == 80
    assert (data.categories.ids[0], data.categories.ids[-1]) == (1, 90)
    assert read.file.counts.total() == 0
    assert read.doubts == []
    assert read.object_counts.sum() == annotations - crowds
    assert len(set(read.file.labels.tolist())) == 80
    assert (~read.has_objects).sum() == (2 if split == "train2017" else 0)
    tight = []
    for index in range(10):
        _, objects = read[index]
        for box, mask in zip(objects.boxes, objects.masks, strict=True):
            left, top, width, height = coco_mask.toBbox(mask)
            tight.append(np.allclose(box, [left, top, left + width, top + height], atol=1.5))
    assert np.mean(tight) > 0.9  # not all of COCO's boxes are those of its masks
