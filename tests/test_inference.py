"""What a network is worth on a data set whose classes lie in another order, and what it says of files that are none."""

import dataclasses
import os
import shutil

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from test_standalone import HALF, make

from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.classification.dataset import open_split
from s3_jax.classification.inference import accuracy, predict
from s3_jax.data.image_folder import list_images
from s3_jax.errors import S3Error
from s3_jax.networks import standalone, zoo
from s3_jax.networks.standalone import Standalone

CLASSES = tuple(map(str, range(12)))


def colour_of(label: int) -> np.ndarray:
    """Twelve colours."""
    return np.array([10 * label + 20, 128, 128], np.uint8)


def colour_network(class_names=CLASSES) -> Standalone:
    """Answers with the class whose colour an image has."""
    model = make("isotropic")
    spec = dataclasses.replace(model.spec, class_names=class_names, image_size=2, patch_size=2)
    return Standalone(Nearest(), spec)


class Nearest(nnx.Module):
    """Reads the mean of red: class k has the logit 2 k r - k^2, largest where r is nearest to k."""

    def __call__(self, x, subnet=None):
        red = (x[..., 0].mean((1, 2)) * 0.5 + 0.5) * 255
        label = np.arange(12.0)
        nearest = (red[:, None] - 20) / 10
        return 2 * label * nearest - label**2


def write_images(folder, names, count=2):
    """`count` images of each class, whose colour is that of the class's place in `names`."""
    for label, name in enumerate(names):
        (folder / "test" / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.broadcast_to(colour_of(label), (4, 4, 3))
            Image.fromarray(pixels).save(folder / "test" / name / f"{number}.png")


def measure(model, folder):
    config = ClassificationDataConfig(source="image_folder", path=str(folder), mean=HALF, std=HALF, eval_crop=1.0)
    data = open_split(config, "test")
    return accuracy(model, data.images, config, class_names=data.class_names, batch_size=5)


def test_folders_that_sort_in_another_order_are_matched_by_name(tmp_path):
    """0, 1, 10, 11, 2, ...: matched by place, the same network is right about four of twelve."""
    write_images(tmp_path, CLASSES)
    found = measure(colour_network(), tmp_path)
    assert (found.top1, found.images) == (100.0, 24)


def test_a_part_of_the_networks_classes_is_measured_among_all_of_them(tmp_path):
    write_images(tmp_path, CLASSES)
    for name in CLASSES[:9]:
        shutil.rmtree(tmp_path / "test" / name)
    assert measure(colour_network(), tmp_path).top1 == 100.0


def test_folders_of_other_names_are_refused(tmp_path):
    write_images(tmp_path, ("Red", "blue", *CLASSES[2:]))
    with pytest.raises(S3Error, match=r"Only in the data: Red\. Only in the network: red$"):
        measure(colour_network(("red", "blue", *CLASSES[2:])), tmp_path)


def test_a_label_beyond_the_names_is_refused(tmp_path):
    write_images(tmp_path, CLASSES)
    config = ClassificationDataConfig(source="image_folder", path=str(tmp_path))
    test = open_split(config, "test").images
    with pytest.raises(S3Error, match="the data has a label 2, but 2 classes"):
        accuracy(colour_network(), test, config, class_names=CLASSES[:2], batch_size=5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_finite_are_no_ranks(value, tmp_path):
    """NaN everywhere ranks class 0 first, which most images of a set may have."""
    model = make()
    model.network.head.bias[...] = model.network.head.bias[...].at[3].set(value)
    write_images(tmp_path, map(str, range(10)))
    with pytest.raises(S3Error, match=r"answers to [1-5] of [1-5] images are not finite"):
        measure(model, tmp_path)
    with pytest.raises(S3Error, match="answers to 1 of 1 images are not finite"):
        predict(model, [tmp_path / "test" / "0" / "0.png"])
    with pytest.raises(S3Error, match=r"^tensor head\.fc\.bias: 1 of 10 values are NaN or infinite"):
        standalone.save(tmp_path / "network", model)
    assert not (tmp_path / "network").exists()


def test_a_folder_is_read_at_any_depth_without_what_is_hidden_or_no_file(tmp_path):
    for name in ("b.PNG", "a/2021/c.jfif.png", "a/z.jpg", ".hidden.png", "._a.jpg", ".git/d.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "000.thumbs.jpg").mkdir()
    names = [str(path.relative_to(tmp_path)) for path in list_images([str(tmp_path)])]
    assert names == ["b.PNG", "a/z.jpg", "a/2021/c.jfif.png"]
    with pytest.raises(S3Error, match=r"no image in .*thumbs"):
        list_images([str(tmp_path / "000.thumbs.jpg")])


def test_what_is_no_image_is_told_and_the_rest_is_answered(tmp_path):
    good = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    for name in ("a.png", "c.png", "e.png"):
        good.save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:30])
    paths = list_images([str(tmp_path)])
    for batch_size in (1, 2, 16):
        predictions, problems = predict(make(), paths, batch_size=batch_size)
        assert [os.path.basename(found.path) for found in predictions] == ["a.png", "c.png", "e.png"]
        assert [problem.partition(": ")[0] for problem in problems] == [str(paths[1]), str(paths[3])]
        assert "not an image: the file is empty" in problems[0]
        assert "0x" not in "".join(problems)
    assert predict(make(), [paths[1]]) == ([], problems[:1])
    assert len(predict(make(), [paths[0], paths[0]])[0]) == 2


def test_a_home_folder_is_expanded_where_networks_and_images_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    standalone.save(tmp_path / "network", make())
    assert zoo.open_model("~/network").spec == zoo.load("~/network").spec == make().spec
    with pytest.raises(S3Error, match=f"there is no file {tmp_path}/w.pth"):
        zoo.open_model("s3_t", "~/w.pth")
    (tmp_path / "a.png").write_bytes(b"")
    assert list_images(["~/a.png"]) == [tmp_path / "a.png"]
    (tmp_path / "best.json").write_text("\ufeff{}", encoding="utf-8")
    with pytest.raises(S3Error, match="not an architecture record"):
        zoo.read_architecture("~/best.json")
