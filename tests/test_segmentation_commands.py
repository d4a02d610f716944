"""What predict.py and evaluate.py do with segmentation networks: pictures, and metrics on images with masks."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from s3_jax.data.splits import Subset
from s3_jax.errors import S3Error
from s3_jax.networks.standalone import Standalone, spec_of
from s3_jax.segmentation import commands, inference
from s3_jax.segmentation.dataset import open_split
from s3_jax.segmentation.standalone import SegmentationSpec
from s3_jax.space import Architecture, Block, Stage
from s3_jax.task import Metrics

CLASSES = ("sky", "road", "car")


def segmenter() -> Standalone:
    architecture = Architecture((Stage(8, (Block(2, 1.0, 32),)), Stage(16, (Block(2, 1.0, 32),))))
    sizes = {"channels": 8, "auxiliary_channels": 8, "test_scale": (32, 16)}
    spec = SegmentationSpec(architecture, 16, 4, CLASSES, **sizes)
    return Standalone(spec.build(rngs=nnx.Rngs(1)), spec)


def write_masks(folder: Path) -> None:
    """Two images of noise with masks of noise, split val."""
    rng = np.random.default_rng(0)
    for kind in ("images", "annotations"):
        (folder / kind / "val").mkdir(parents=True)
        for name in ("0", "1"):
            pixels = rng.integers(0, 256, (20, 30, 3)) if kind == "images" else rng.integers(0, 3, (20, 30))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / "val" / f"{name}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES))


def test_pictures_of_a_segmentation_network_and_what_is_no_image(tmp_path: Path, capsys) -> None:
    model, options = segmenter(), commands.PredictOptions(out=str(tmp_path / "out"))
    (tmp_path / "bad.png").write_bytes(b"")
    write_masks(tmp_path / "set")
    paths = [tmp_path / "set/images/val/0.png", tmp_path / "bad.png"]
    assert commands.predict(model, paths, options, as_json=True) == 2
    said = capsys.readouterr()
    assert said.err == f"predict: {tmp_path}/bad.png: not an image: the file is empty\n"
    (record,) = map(json.loads, said.out.splitlines())
    assert record["overlay"] == str(tmp_path / "out" / "0000_0_overlay.png")
    ((_, _, classes),) = inference.predict(model, paths[:1])
    with Image.open(tmp_path / "out" / "0000_0_classes.png") as mask:
        np.testing.assert_array_equal(mask, classes)
    counts = np.bincount(classes.ravel())
    assert record["classes"] == {CLASSES[n]: counts[n] / counts.sum() for n in np.argsort(-counts) if counts[n]}
    assert list(record["classes"].values()) == sorted(record["classes"].values(), reverse=True)
    assert commands.predict(model, paths[:1], options, as_json=False) == 0
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in record["classes"].items())
    assert capsys.readouterr().out == f"{paths[0]}: {shares}; {tmp_path}/out/0_overlay.png\n"


def test_a_segmentation_network_is_measured_at_one_scale_or_several(tmp_path: Path, monkeypatch) -> None:
    model, given = segmenter(), {"path": str(tmp_path / "set"), "batch": 2}
    write_masks(tmp_path / "set")
    once = commands.evaluate(model, commands.EvaluateOptions(**given))
    data = commands.EvaluateOptions(**given).data_config()
    expected, _ = inference.evaluate(
        model, open_split(data, "val").splits.test, data, batch_size=1, progress=lambda count, what: None
    )
    names = {"data": "set", "split": "val", "images": 2}
    assert list(once.record) == [*names, *expected]
    assert {name: once.record[name] for name in names} == names
    assert {name: once.record[name] for name in expected} == pytest.approx(expected)
    assert once.words.splitlines()[0] == f"miou            {expected['miou']:6.2f} %"

    def scaled(model: Standalone, subset: Subset, data: object, **ways: object) -> tuple[Metrics, int]:
        assert (ways["scales"], ways["flip"]) == ([0.5, 1.0], True)
        return {"miou": 1.0}, 2

    monkeypatch.setattr(inference, "evaluate_scaled", scaled)
    several = commands.EvaluateOptions(**given, scales=("0.5", "1"), flip=True)
    assert commands.evaluate(model, several).record["miou"] == 1.0
    mirrored = commands.EvaluateOptions(**given, flip=True)
    assert mirrored.factors() == [1.0]  # and so not ignored where no scale is given
    assert commands.EvaluateOptions(**given).factors() == []
    (tmp_path / "others.txt").write_text("sky\nroad\nbus")
    with pytest.raises(
        S3Error, match="class 3 of 3 is 'car' to the network and 'bus' in the data: --class_table is to list"
    ):
        commands.evaluate(model, commands.EvaluateOptions(**given, class_table=str(tmp_path / "others.txt")))


@pytest.mark.parametrize("scales", [(), ("1", "0.5")])
def test_a_damaged_image_is_named_or_left_out_and_not_counted(tmp_path: Path, scales: tuple[str, ...]) -> None:
    model, given = segmenter(), {"path": str(tmp_path), "batch": 2, "scales": scales}
    write_masks(tmp_path)
    damaged = tmp_path / "images" / "val" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:400])
    with pytest.raises(S3Error, match=r"1\.png.*--skip_bad_images"):
        commands.evaluate(model, commands.EvaluateOptions(**given))
    left = commands.evaluate(model, commands.EvaluateOptions(**given, skip_bad_images=True))
    assert left.record["images"] == 1
    for kind in ("images", "annotations"):
        (tmp_path / kind / "val" / "1.png").unlink()
    alone = commands.evaluate(model, commands.EvaluateOptions(**given))
    assert left.record == pytest.approx(alone.record | {"data": left.record["data"]}, nan_ok=True)


@pytest.mark.parametrize("scales", [(), ("1", "0.5")])
def test_answers_that_are_not_finite_are_refused_at_one_scale_and_several(tmp_path: Path, scales) -> None:
    model = segmenter()
    model.network.decode.classifier.bias[...] = np.float32(np.nan)
    write_masks(tmp_path)
    with pytest.raises(S3Error, match="finite"):
        commands.evaluate(model, commands.EvaluateOptions(path=str(tmp_path), batch=2, scales=scales))


def test_masks_mean_to_a_network_what_they_meant_where_it_was_trained(tmp_path: Path) -> None:
    """Without the flag as the network's record says, in which older ones have no word of it."""
    write_masks(tmp_path)
    model = segmenter()
    trained = Standalone(model.network, dataclasses.replace(model.spec, zero_is_ignored=True))
    given = {"path": str(tmp_path), "batch": 2}
    for path in (tmp_path / "annotations" / "val").iterdir():  # 0 is no class any more, and so there is a value 3
        Image.fromarray(np.asarray(Image.open(path)) + 1).save(path)
    own = commands.evaluate(trained, commands.EvaluateOptions(**given)).record
    assert own == commands.evaluate(model, commands.EvaluateOptions(**given, zero_is_ignored=True)).record
    with pytest.raises(S3Error, match="has the value 3"):
        commands.evaluate(model, commands.EvaluateOptions(**given))
    with pytest.raises(S3Error, match="has the value 3"):
        commands.evaluate(trained, commands.EvaluateOptions(**given, zero_is_ignored=False))
    record = trained.spec.to_json()
    assert spec_of(record) == trained.spec
    del record["zero_is_ignored"]
    assert spec_of(record) == model.spec
