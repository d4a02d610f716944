"""What evaluate.py says of a detector where there is nothing to measure by, or nowhere to write to."""

import json

import pytest
from coco_sets import content_of
from small_detector import CATEGORIES, detector, write_squares

from s3_jax.detection import commands
from s3_jax.errors import S3Error


@pytest.fixture
def without_objects(tmp_path):
    """A data set whose test images have no annotations, as those of a challenge."""
    write_squares(tmp_path / "data")
    path = tmp_path / "data" / "annotations" / "instances_test.json"
    images = json.loads(path.read_text())["images"]
    path.write_text(json.dumps(content_of(images, [], CATEGORIES)))
    return {"path": str(tmp_path / "data"), "split": "test", "batch": 6}


def test_images_without_any_object_have_no_precision(without_objects):
    expected = "the 6 images of split 'test' that are measured on have no object that counts, so there is no AP"
    with pytest.raises(S3Error, match=expected):
        commands.evaluate(detector(), commands.EvaluateOptions(**without_objects))


def test_what_is_found_in_images_without_annotations_is_written_all_the_same(without_objects, tmp_path):
    path = tmp_path / "found.json"
    measured = commands.evaluate(detector(), commands.EvaluateOptions(**without_objects, results=str(path)))
    assert measured.record == {"data": "data", "split": "test", "images": 6}
    assert measured.words == f"no image has an object that counts, so there is no AP; what is found is in {path}"
    assert {result["image_id"] for result in json.loads(path.read_text())} <= set(range(100, 106))


def test_results_that_would_go_to_a_folder_are_refused_before_anything_is_measured(tmp_path):
    for results, message in ((tmp_path, "is a folder: give a file"), (tmp_path / "found.json", "no file 'nowhere")):
        with pytest.raises(S3Error, match=message):
            commands.evaluate(None, commands.EvaluateOptions(path="nowhere", results=str(results)))
    assert not list(tmp_path.iterdir())
