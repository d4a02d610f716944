"""Detection as a task: records and scores of what is found, specifications, and what networks begin with."""

import dataclasses
import json
import logging

import jax
import numpy as np
import pytest
from coco_sets import annotation, content_of, images_of, write_set
from flax import nnx, traverse_util
from small_detector import HEAD, NAMES, detector, settings, spec

from s3_jax.config import config_of, default_config
from s3_jax.data.splits import Subset
from s3_jax.detection.augment import whole_view
from s3_jax.detection.coco import open_coco
from s3_jax.detection.config import HeadConfig
from s3_jax.detection.mask_targets import TARGET
from s3_jax.detection.masks import bitmap
from s3_jax.detection.objects import Categories, numbered
from s3_jax.detection.standalone import DetectionSpec
from s3_jax.detection.task import Detection, of_categories, open_task, recorded_task
from s3_jax.errors import S3Error
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.standalone import About, Standalone, card, load, save, spec_of
from s3_jax.segmentation.task import of_classes as segmentation_of_classes

ROWS = 5  # detections of an image


def task_on(images, **data) -> tuple[Detection, Subset]:
    config = config_of(settings("/nowhere").to_dict())
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **data))
    return of_categories(config, images.categories), Subset(images, np.arange(len(images)), "test")


def images_with_rectangles(folder):
    """Images larger and smaller than they are seen, the second upright, with objects in a corner and across."""
    boxes = {100: [(0, 0, 40, 60), (70, 30, 50, 40)], 101: [(10, 20, 30, 90), (25, 100, 12, 12)], 102: []}
    found = [
        annotation(number, image, (18, 90)[number % 2], box)
        for image, each in boxes.items()
        for number, box in enumerate(each)
    ]
    content = content_of(images_of((80, 120), (130, 60), (33, 50)), found)
    return open_coco(write_set(folder, {"test": content}), ("test",)).splits["test"]


def truth_as_found(task, subset, rows):
    """What a network would say that finds the truth, on its canvas, with masks as its heads make them."""
    arrays = {
        "boxes": np.zeros((len(rows), ROWS, 4), np.float32),
        "scores": np.zeros((len(rows), ROWS), np.float32),
        "labels": np.full((len(rows), ROWS), -1),
        "masks": np.zeros((len(rows), ROWS, TARGET, TARGET), np.float32),
        "left_out": np.zeros(len(rows), int),
        "finite": np.ones(len(rows), bool),
    }
    for place, row in enumerate(rows):
        _, objects = subset.source[row]
        count = len(objects)
        view = whole_view(*subset.source.size(row), task.data.test_scale)
        arrays["boxes"][place, :count] = view.of(objects.boxes)
        arrays["scores"][place, :count] = 0.9
        arrays["labels"][place, :count] = objects.labels
        arrays["masks"][place, :count] = 1  # rectangles fill their boxes
    return arrays


def test_truth_that_is_found_on_the_canvas_has_a_precision_of_100_percent(tmp_path):
    images = images_with_rectangles(tmp_path)
    task, subset = task_on(images, test_scale=(96, 64), canvases=((64, 96), (96, 64)))
    found = truth_as_found(task, subset, [2, 0, 1])
    lines = json.loads(json.dumps(task.lines(subset, [2, 0, 1], found)))
    assert [line["image"]["id"] for line in lines] == [102, 100, 101]
    metrics = task.score(lines)
    assert (metrics["box/ap"], metrics["mask/ap"]) == (100.0, 100.0)
    assert task.error(metrics) == 0.0
    assert task.in_words(metrics) == "box AP 100.00 %, mask AP 100.00 %"
    masks = [bitmap(result["segmentation"]) for result in lines[1]["results"]]
    assert masks[0].shape == (80, 120)
    assert masks[0][:60, :40].all()
    found["boxes"][..., [0, 2]] += 12  # a shift on the canvas costs precision
    assert task.score(task.lines(subset, [2, 0, 1], found))["box/ap"] < 60


def test_answers_that_are_not_finite_are_refused_and_boxes_without_a_place_told(tmp_path, caplog):
    images = images_with_rectangles(tmp_path)
    task, subset = task_on(images)
    found = truth_as_found(task, subset, [0])
    with caplog.at_level(logging.WARNING, logger="absl"):
        for _ in range(2):
            task.lines(subset, [0], found | {"left_out": np.array([17])})
    assert caplog.text.count("17 boxes of an image scored above head.score_threshold and were not looked at") == 1
    with pytest.raises(S3Error, match="answers to 1 of 1 images are not finite"):
        task.lines(subset, [0], found | {"finite": np.array([False])})


def test_a_specification_is_kept_by_json_and_refuses_what_is_none(tmp_path):
    one = spec(about=About(data="squares"))
    record = json.loads(json.dumps(one.to_json()))
    assert spec_of(record) == one
    assert record["head"]["channels"] == HEAD["channels"]
    assert "| canvases, height x width | 32 x 32; multiply-adds are those of the first |" in card(one)
    assert "found = model.network.detect(images, sizes)" in card(one)
    for changes, message in (
        ({"category_ids": (1,)}, "expected a whole number for each of the 2 classes"),
        ({"category_ids": (1, 1)}, "expected a whole number for each of the 2 classes"),
        ({"canvases": ()}, "one canvas at least"),
        ({"canvases": ((32, 40),)}, "a stride of 32; give both sides as multiples of it, such as 32 x 64"),
        ({"test_scale": (64, 64)}, "no canvas holds an image of 64 x 64 pixels"),
    ):
        with pytest.raises(S3Error, match=message):
            spec(**changes)
    for broken, message in (
        ({"head": 3}, "head = 3: expected its settings by their names"),
        ({"head": {"channel": 3}}, "head has no field 'channel'"),
    ):
        with pytest.raises(S3Error, match=message):
            DetectionSpec.from_json({**record, **broken})
    with pytest.raises(S3Error, match="a plain transformer has no maps of several sizes"):
        dataclasses.replace(one, architecture=IsotropicArchitecture(8, 1, 2))


def test_a_detector_is_kept_in_its_folder(tmp_path):
    model = detector()
    save(tmp_path / "network", model)
    found = load(tmp_path / "network")
    assert found.spec == model.spec
    ours, theirs = (traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(each.network))) for each in (model, found))
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[path])


def heads_of(network):
    state = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(network)))
    return {path: np.asarray(leaf) for path, leaf in state.items() if path[0] != "backbone"}


def begun_with(start, names=NAMES):
    """A new network's heads before and after it has been given another's weights, the network, and what was told."""
    config = config_of(settings("/nowhere").to_dict())
    task, told = of_categories(config, numbered(names)), []
    network = task.network(start.spec.architecture, nnx.Rngs(7))
    before = heads_of(network)
    task.begin_with(network, start, told.append)
    return before, heads_of(network), network, told[0]


def test_a_classifiers_weights_go_to_the_backbone_alone():
    given = ClassifierSpec(spec().architecture, 32, 4, ("a", "b", "c"))
    classifier = Standalone(given.build(rngs=nnx.Rngs(5)), given)
    before, after, network, told = begun_with(classifier)
    np.testing.assert_array_equal(network.backbone.patch.kernel[...], classifier.network.patch.kernel[...])
    for path, leaf in before.items():
        np.testing.assert_array_equal(leaf, after[path])
    assert told == "the weights of another task's network in the backbone; the heads are random"


def test_a_segmentation_network_begins_with_a_detectors_backbone():
    start, told = detector(), []
    segmentation = config_of(default_config("s3_jax.segmentation").to_dict())
    segmentation = dataclasses.replace(segmentation, model=dataclasses.replace(segmentation.model, patch_size=4))
    task = segmentation_of_classes(segmentation, ("a", "b"))
    network = task.network(start.spec.architecture, nnx.Rngs(7))
    task.begin_with(network, start, told.append)
    np.testing.assert_array_equal(network.backbone.patch.kernel[...], start.network.backbone.patch.kernel[...])
    assert told == ["the weights of another task's network in the backbone; the heads are random"]


@pytest.mark.parametrize("same", [True, False])
def test_a_detectors_heads_are_kept_but_for_layers_of_other_classes(same):
    start = detector()
    names = NAMES if same else ("left", "right")
    before, after, network, told = begun_with(start, names)
    given = heads_of(start.network)
    of_classes = {path for path in given if {"classifier", "regressor"} & set(path)}
    assert len(of_classes) == 3 * 6
    for path, leaf in after.items():
        np.testing.assert_array_equal(leaf, before[path] if path in of_classes and not same else given[path])
    np.testing.assert_array_equal(network.backbone.patch.kernel[...], start.network.backbone.patch.kernel[...])
    assert f"{0 if same else 18} of the heads are random".replace("0 of", "none of", same) in told


def test_a_run_is_recorded_well_enough_to_make_its_networks_again():
    config = settings("/nowhere")
    task = of_categories(config_of(config.to_dict()), Categories((4, 7), NAMES))
    record = json.loads(json.dumps(config.to_dict()))
    again = recorded_task(record, json.loads(json.dumps(task.bound())))
    about = About()
    assert again.spec(spec().architecture, about) == task.spec(spec().architecture, about)
    assert again.cost(spec().architecture) == task.spec(spec().architecture, about).cost
    network = nnx.eval_shape(lambda: again.network(spec().architecture, nnx.Rngs(0)))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
    assert count == task.cost(spec().architecture).params


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.init_from": "s3_t"}, "config.train.init_from: supernets of detection begin at random"),
        ({"augment.long_side": 64}, "no canvas holds an image of 32 x 64 pixels"),
        ({"data.test_split": "tset"}, "instances_tset.json"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, changes, message):
    write_set(tmp_path, {split: content_of(images_of((32, 32)), []) for split in ("train", "test")})
    config = settings(tmp_path)
    config.update_from_flattened_dict(changes)
    with pytest.raises(S3Error, match=message):
        open_task(config_of(config.to_dict()))


@pytest.mark.parametrize(
    ("model", "canvas", "message"),
    [
        ({"patch_size": 2}, (32, 32), "needs maps of strides 4, 8, 16 and 32"),
        ({}, (48, 32), "data.canvases: 48 x 32 pixels do not fit a network whose coarsest map has a stride of 32"),
    ],
)
def test_networks_that_do_not_fit_are_refused(model, canvas, message):
    config = settings("/nowhere")
    config.model.update(model)
    config.data.canvases = (canvas,)
    task = of_categories(config_of(config.to_dict()), numbered(NAMES))
    with pytest.raises(S3Error, match=message):
        nnx.eval_shape(lambda: task.network(spec().architecture, nnx.Rngs(0)))


def test_the_heads_settings_are_checked():
    config = default_config("s3_jax.detection").to_dict()
    config["head"]["score_threshold"] = 1.5
    with pytest.raises(S3Error, match=r"config.head.score_threshold = 1\.5: expected a number from 0 to 1"):
        config_of(config)
    assert HeadConfig().channels == 256
