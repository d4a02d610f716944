"""Segmentation as a task: examples, losses, metrics, and answers at any size; a transfer from beginning to end."""

import dataclasses
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from rich.console import Console
from sklearn.metrics import confusion_matrix

from s3_jax.config import config_of, default_config
from s3_jax.data.splits import Subset, hold_out
from s3_jax.data.stream import eval_batches, eval_plan, train_batches
from s3_jax.errors import S3Error
from s3_jax.finetune import transfer
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.networks import zoo
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.standalone import About, Standalone
from s3_jax.segmentation import inference
from s3_jax.segmentation.class_table import IGNORED
from s3_jax.segmentation.config import SegmentationAugmentConfig, SegmentationDataConfig
from s3_jax.segmentation.examples import Canvas, MaskedImages
from s3_jax.segmentation.metrics import counts_of, metrics_of_counts, summed
from s3_jax.segmentation.resizing import resize_matrix
from s3_jax.segmentation.standalone import SegmentationSpec
from s3_jax.segmentation.task import enlarged, of_classes, open_task, pixel_cross_entropy
from s3_jax.space import Architecture, Block, Stage
from s3_jax.training.loop import StopRequest

NAMES = ("ground", "sky", "tree")


class Pictures:
    """Images of given class maps, grey by their class; a source as `data.stream.Source` has it."""

    def __init__(self, *maps):
        self.maps, self.identities_are = maps, range(len(maps))

    def __len__(self):
        return len(self.maps)

    def __getitem__(self, index):
        grey = np.repeat(np.minimum(self.maps[index] * 60, 255)[..., None], 3, -1).astype(np.uint8)
        return Image.fromarray(grey), self.maps[index]

    def name(self, index):
        return f"picture {index}"

    def size(self, index):
        return self.maps[index].shape

    @property
    def identities(self):
        return np.array(self.identities_are)


def subset_of(*maps):
    return Subset(Pictures(*maps), np.arange(len(maps)), "test")


def random_map(height, width, seed=0):
    classes = np.random.default_rng(seed).integers(0, 3, size=(height, width), dtype=np.uint8)
    classes[0, 0] = IGNORED
    return classes


def examples(*maps, augment=None, crop=8, stride=2, **data):
    settings = SegmentationDataConfig(**{"test_scale": (16, 16), **data})
    return MaskedImages(subset_of(*maps), settings, crop, stride, augment=augment)


def config(**train):
    settings = default_config("s3_jax.segmentation")
    settings.model.update(image_size=16, patch_size=4)
    settings.backbone.update(depth=(1, 1), embed_dim=(8, 16), window=(2, 2), mlp_ratio=(1.0,) * 2, qkv_dim=(32, 32))
    settings.head.update(channels=8, auxiliary_channels=8)
    settings.data.update(holdout_split="holdout", test_scale=(16, 16), scene_size=16, scene_count=64)
    settings.augment.update(scale=(16, 16), ratio=(1.0, 1.0), crop=16, largest_class=1.0)
    settings.train.update({"epochs": 1.0, "batch_size": 16, "warmup_epochs": 0.0, "drop_path": 0.1} | train)
    settings.run.update(eval_batch_size=100, checkpoint_every=2, log_every=2, tensorboard=False)
    return settings


def test_metrics_are_those_of_scikit_learns_confusion_matrix():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, size=(3, 9, 7)).astype(np.uint8)  # class 4 is predicted alone, class 5 nowhere
    predicted = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(0, 5, size=labels.shape)).astype(np.uint8)
    labels[0, :2] = IGNORED
    names = tuple("abcdef")
    lines = json.loads(json.dumps([counts_of(*pair, 6) for pair in zip(predicted, labels, strict=True)]))
    found = metrics_of_counts(summed(lines, 6), names)
    counted = labels != IGNORED
    matrix = confusion_matrix(labels[counted], predicted[counted], labels=range(6)).astype(float)
    right, rows, columns = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    overlap = 100 * right[:5] / (rows + columns - right)[:5]
    assert found["miou"] == pytest.approx(overlap.mean())
    assert found["pixel_accuracy"] == pytest.approx(100 * right.sum() / matrix.sum())
    assert found["class_accuracy"] == pytest.approx((100 * right[:4] / rows[:4]).mean())
    each = {name: value for name, value in found.items() if name.startswith("iou/")}
    assert each == pytest.approx({f"iou/{name}": value for name, value in zip("abcde", overlap, strict=True)})
    assert each["iou/e"] == 0


def test_masks_of_which_nothing_counts_are_no_measure_and_absent_classes_are_told(caplog):
    ignored, zeros = np.full((4, 4), IGNORED, np.uint8), np.zeros((4, 4), np.uint8)
    with pytest.raises(S3Error, match="no pixel of the masks counts"):
        metrics_of_counts(summed([counts_of(zeros, ignored, 2)], 2), "ab")
    with caplog.at_level(logging.WARNING, logger="absl"):
        for _ in range(2):
            metrics_of_counts(summed([counts_of(zeros, zeros, 3)], 3), ("here", "far", "gone"))
    assert caplog.text.count("no pixel is in the masks that are measured by: far, gone") == 1


def test_images_of_many_sizes_come_in_batches_of_one_canvas_and_each_once():
    maps = [random_map(*size) for size in ((12, 16), (16, 12), (12, 16), (9, 16), (12, 16))]
    several = examples(*maps, test_multiple=4)
    plan = eval_plan(several, 2)
    assert [(batch.group, list(batch.rows)) for batch in plan] == [
        (Canvas((12, 16), (12, 16)), [0, 2]),
        (Canvas((12, 16), (12, 16)), [3, 4]),
        (Canvas((16, 12), (16, 12)), [1]),
    ]
    batches = list(eval_batches(several, batch_size=2))
    for batch, planned in zip(batches, plan, strict=True):
        assert batch["image"].shape == (2, *planned.group.image, 3)
        assert batch["weight"].tolist() == [1.0] * len(planned.rows) + [0.0] * (2 - len(planned.rows))
        for label, row in zip(batch["label"], planned.rows, strict=False):
            height, width = maps[row].shape
            np.testing.assert_array_equal(label[:height, :width], maps[row])
            assert (label[height:] == IGNORED).all()


def test_answers_come_back_to_the_originals_pixels():
    """An image of 12 x 18 seen at 8 x 12 by maps of stride 2: resized to what was seen and then to the original."""
    example = examples(random_map(12, 18), test_scale=(12, 8), test_multiple=1).example(0, None)
    assert example["image"].shape == (8, 12, 3)
    logits = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    rows, columns = (resize_matrix(new, old) @ resize_matrix(new // 2, new) for new, old in ((8, 12), (12, 18)))
    expected = np.einsum("hH,wW,HWc->hwc", rows, columns, logits)
    found = enlarged(logits[None], example["rows"][None], example["columns"][None])[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_crop_in_which_no_pixel_counts_has_no_weight():
    nothing, something = np.full((8, 8), IGNORED, np.uint8), random_map(8, 8)
    augment = SegmentationAugmentConfig(scale=(8, 8), ratio=(1.0, 1.0), crop=8)
    batches = train_batches(examples(nothing, something, augment=augment), batch_size=2, seed=0)
    assert sorted(next(batches)["weight"].tolist()) == [0.0, 1.0]
    batches.close()


def test_padding_is_zero_after_normalisation_and_does_not_count():
    augment = SegmentationAugmentConfig(scale=(6, 6), ratio=(1.0, 1.0), crop=8, photometric=False)
    example = examples(random_map(6, 6), augment=augment).example(0, np.random.default_rng(0))
    assert not example["image"][6:].any()
    assert not example["image"][:, 6:].any()
    assert (example["label"][6:] == IGNORED).all()
    assert example["image"][:6, :6].all()


def test_the_loss_is_the_mean_over_all_pixels_of_those_that_count():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(2, 2, 2, 3)).astype(np.float32), np.stack([random_map(4, 4, s) for s in (1, 2)])
    matrix = resize_matrix(2, 4)
    wide = np.einsum("hH,wW,bHWc->bhwc", matrix, matrix, logits)
    chances = np.exp(wide) / np.exp(wide).sum(-1, keepdims=True)
    expected = 0.0
    for row, column in np.ndindex(4, 4):
        if label[0, row, column] != IGNORED:
            expected -= np.log(chances[0, row, column, label[0, row, column]])
    found = pixel_cross_entropy(jnp.asarray(logits), jnp.asarray(label), jnp.asarray([1.0, 0.0]))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


class Stub(nnx.Module):
    """Logits of a place from its own four pixels: the same at any scale of an image of one colour, and mirrored."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.diag(jnp.array([-1.0, 0.0, 1.0])))

    def __call__(self, x, subnet=None):
        return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) @ self.kernel[...]


def test_scales_and_flips_of_a_network_that_minds_neither_change_nothing():
    task = of_classes(config_of(config().to_dict()), NAMES)
    task = dataclasses.replace(task, model=dataclasses.replace(task.model, patch_size=2))
    flat = np.full((16, 16), 1, np.uint8)
    halves = flat.copy()
    halves[:, 8:] = 4
    run = inference._predicting(Standalone(Stub(), None))
    for classes, scales in ((flat, (0.5, 1.0, 1.5)), (halves, (1.0,))):
        subset = subset_of(classes)
        once = inference.probabilities(run, task, subset, 0, (1.0,), flip=False)
        often = inference.probabilities(run, task, subset, 0, scales, flip=True)
        np.testing.assert_allclose(often, once, atol=1e-5)
        assert once.shape == (16, 16, 3)
    assert not np.allclose(once, once[:, ::-1], atol=0.1)  # so a flip that is not undone would be seen


def test_an_image_smaller_than_its_canvas_is_answered_at_its_own_pixels(tmp_path):
    """12 x 18 pixels on a canvas of 16 x 24: what is beyond the image is in no answer, mirrored or not."""
    sizes = {"test_scale": (18, 12), "test_multiple": 8}
    architecture = Architecture((Stage(8, (Block(2, 1.0, 32),)), Stage(16, (Block(2, 1.0, 32),))))
    spec = SegmentationSpec(architecture, 16, 2, NAMES, **sizes)
    model = Standalone(Stub(), spec)
    task, classes = inference.task_of(model), np.zeros((12, 18), np.uint8)
    classes[:, 9:] = 2
    subset, run = subset_of(classes), inference._predicting(model)
    once = inference.probabilities(run, task, subset, 0, (1.0,), flip=False)
    mirrored = inference.probabilities(run, task, subset_of(classes[:, ::-1]), 0, (1.0,), flip=False)[:, ::-1]
    both = inference.probabilities(run, task, subset, 0, (1.0,), flip=True)
    assert once.shape == (12, 18, 3)
    np.testing.assert_allclose(both, (once + mirrored) / 2, atol=1e-5)
    metrics, _ = inference.evaluate_scaled(model, subset, task.data, scales=(1.0,), progress=lambda count, what: None)
    assert np.isfinite(metrics["miou"])
    subset.source[0][0].save(tmp_path / "image.png")
    ((_, pixels, found),) = inference.predict(model, [tmp_path / "image.png"])
    assert pixels.shape[:2] == found.shape == (12, 18)
    np.testing.assert_array_equal(found, once.argmax(-1))


def test_networks_without_several_maps_are_refused():
    task = of_classes(config_of(config().to_dict()), NAMES)
    alone = Architecture((Stage(8, (Block(2, 1.0, 32),)),))
    with pytest.raises(S3Error, match="UperNet needs the maps of two stages or more"):
        nnx.eval_shape(lambda: task.network(alone, nnx.Rngs(0)))
    with pytest.raises(S3Error, match="UperNet needs maps of several sizes, which a plain transformer lacks"):
        task.network(IsotropicArchitecture(8, 1, 2), nnx.Rngs(0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"test_split": "train"}, "data.test_split = 'train' and data.train_split = 'train' share 64 images"),
        ({"holdout_split": "", "holdout_fraction": 0.001}, "data.holdout_fraction = 0.001 of 64 .* holds out 0"),
        ({"test_split": "tset"}, "the digit scenes have no split 'tset'"),
        ({"cache_in_memory": True}, "data.cache_in_memory: images with masks are read anew each time"),
        ({"source": "mask_folder", "path": "/nowhere"}, "there is no /nowhere/classes.txt"),
    ],
)
def test_data_that_do_not_fit_are_refused(data, message):
    settings = config()
    settings.data.update(data)
    with pytest.raises(S3Error, match=message):
        open_task(config_of(settings.to_dict()))


def test_weights_for_supernets_are_refused_and_not_passed_over():
    with pytest.raises(S3Error, match=r"config.train.init_from: supernets of segmentation begin at random"):
        open_task(config_of(config(init_from="s3_t").to_dict()))


def test_an_image_that_is_held_out_under_another_name_is_not_trained_on():
    """Ten names of five images: of two names that are held out, both names of each image are gone from training."""
    whole = subset_of(*[random_map(8, 8)] * 10)
    whole.source.identities_are = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    train, held = hold_out(whole, 0.2, 0)
    assert len(held) == 2
    assert not train.shared_with(held)
    assert len(train) == 10 - 2 * len(np.unique(whole.source.identities[held.indices]))


def test_one_network_is_trained_from_a_classifiers_weights_and_measured_again_from_its_folder(tmp_path, capsys):
    architecture = Architecture((Stage(8, (Block(2, 1.0, 32),)), Stage(16, (Block(2, 1.0, 32),))))
    spec = ClassifierSpec(architecture, 16, 4, NAMES)
    classifier = Standalone(spec.build(rngs=nnx.Rngs(5)), spec)
    task = of_classes(config_of(config().to_dict()), NAMES)
    begun = task.network(architecture, nnx.Rngs(0))
    random_head = np.asarray(begun.decode.classifier.kernel[...])
    task.begin_with(begun, classifier, lambda what: None)
    np.testing.assert_array_equal(begun.backbone.patch.kernel[...], classifier.network.patch.kernel[...])
    np.testing.assert_array_equal(begun.decode.classifier.kernel[...], random_head)

    settings = config_of(config().to_dict())
    result = transfer(settings, tmp_path, console=Console(quiet=True), stop=StopRequest())
    assert result["params"] == sum(leaf.size for leaf in jax.tree.leaves(nnx.state(begun_like(settings), nnx.Param)))
    found = zoo.load(tmp_path / "network")
    data = SegmentationDataConfig(scene_size=16)
    measured, count = inference.evaluate(
        found, open_task(settings).splits.test, data, batch_size=100, progress=lambda count, what: None
    )
    assert count == result["dataset"]["splits"]["test"]["images"]
    assert measured == pytest.approx(result["metrics"])
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)).save(image)
    ((path, pixels, classes),) = inference.predict(found, [image])
    assert (path, pixels.shape, classes.shape) == (image, (20, 30, 3), (20, 30))
    again = task_with_its_classes(found).network(architecture, nnx.Rngs(1))
    task_with_its_classes(found).begin_with(again, found, lambda what: None)
    np.testing.assert_array_equal(again.decode.fusion.norm.mean[...], found.network.decode.fusion.norm.mean[...])


def begun_like(settings):
    task = open_task(settings)
    return nnx.eval_shape(lambda: task.network(settings.backbone.architecture(), nnx.Rngs(0)))


def task_with_its_classes(model):
    task = inference.task_of(model)
    assert task.spec(model.spec.architecture, About()).class_names == model.spec.class_names
    return task
