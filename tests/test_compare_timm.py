"""timm's models in comparisons: trained as ours are, measured, taken up again. They need the extra parity."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from test_compare import StopAfter, compare, config, times

from s3_jax.classification.dataset import open_split
from s3_jax.comparison.plan import plan_of
from s3_jax.comparison.timm_model import TimmModel
from s3_jax.config import Config
from s3_jax.errors import Interrupted, S3Error
from s3_jax.finetune import Start, finetune
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.networks import zoo
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.convert import to_state_dict
from s3_jax.networks.files import read_state_dict, write_safetensors
from s3_jax.networks.standalone import Standalone
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import read_json, read_json_lines

WHY = "timm's models need PyTorch and timm: pip install -e .[parity]"
torch = pytest.importorskip("torch", reason=WHY)
timm = pytest.importorskip("timm", reason=WHY)

PLAIN = IsotropicArchitecture(16, 2, 2)
CLASSES = tuple("0123456789")
MODEL = "timm:test_vit"  # timm's own smallest, 0.3 M parameters
# Everything that an update can have.
RECIPE = {
    "train__drop_path": 0.0,
    "train__clip_norm": 0.5,
    "train__ema_decay": 0.9,
    "train__accumulation_steps": 2,
    "train__weight_decay": 0.5,
    "augment__mixup": 0.8,
    "run__log_every": 1,
}


def losses(workdir: Path) -> list[list[float]]:
    """Loss, norm of the gradient and learning rate of every update."""
    lines = read_json_lines(workdir / "metrics.jsonl")
    return [[line[name] for name in ("loss", "grad_norm", "learning_rate")] for line in lines]


def train(model: TimmModel, settings: Config, workdir: Path, questions: int = 0) -> dict[str, Any]:
    return model.train(settings, workdir, console=Console(quiet=True), stop=StopAfter(questions))  # type: ignore[arg-type]


def test_one_network_is_trained_alike_by_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights, images and recipe give the same losses, gradients, rates and, in the end, weights."""
    settings = config(**RECIPE)
    spec = ClassifierSpec(PLAIN, 8, 2, CLASSES)
    begun = Standalone(spec.build(rngs=nnx.Rngs(3)), spec)
    tensors = {name: torch.tensor(tensor) for name, tensor in to_state_dict(begun.network).items()}

    def build(self: TimmModel, settings: Config, num_classes: int) -> Any:
        """timm's network of the same architecture with the same weights."""
        how = {"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2}
        network = timm.models.VisionTransformer(**how, num_classes=num_classes)
        network.load_state_dict(tensors)
        return network

    monkeypatch.setattr(TimmModel, "build", build)
    theirs = train(TimmModel(MODEL), settings, tmp_path / "theirs")
    start = Start(begun, PLAIN, from_scratch=False)
    ours = finetune(start, settings, tmp_path / "ours", console=Console(quiet=True), stop=StopRequest())
    assert len(losses(tmp_path / "ours")) == 9
    np.testing.assert_allclose(losses(tmp_path / "theirs"), losses(tmp_path / "ours"), rtol=2e-4)
    assert theirs["test_accuracy"] == pytest.approx(ours["test_accuracy"], abs=0.6)  # of 359 images two
    assert (theirs["params"], theirs["macs"]) == (ours["params"], ours["macs"])
    ended = to_state_dict(zoo.load(tmp_path / "ours" / "network").network)
    for name, tensor in read_state_dict(tmp_path / "theirs" / "network" / "weights.safetensors").items():
        np.testing.assert_allclose(tensor, ended[name], atol=2e-5, err_msg=name)
        moved = np.abs(tensor - tensors[name].numpy()).max()
        assert moved > 1e-4 or name == "head.bias", name


def test_costs_are_counted_as_ours_are() -> None:
    settings = config(model__image_size=224, train__drop_path=0.1)
    names = tuple(map(str, range(1000)))
    for theirs, ours in (("deit_small_patch16_224", "deit_s"), ("swin_s3_tiny_224", "s3_t")):
        found, expected = TimmModel(f"timm:{theirs}").cost(settings, names), zoo.cost_of(ours)  # type: ignore[arg-type]
        assert found.params == expected.params
        assert found.macs == pytest.approx(expected.macs, rel=0.02)
    resnet = TimmModel("timm:resnet50").cost(settings, names)  # type: ignore[arg-type]
    assert (resnet.params, round(resnet.macs / 1e9, 1)) == (25_557_032, 4.1)  # as its paper has them


def test_stopped_a_training_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    changes = {"model__image_size": 32, "train__drop_path": 0.3, "train__ema_decay": 0.9}
    plan = plan_of(config(**changes), f"{MODEL},timm:resnet10t", "", "1")
    said = compare(plan, tmp_path / "whole")
    assert "training 2 of 2: timm:resnet10t, seed 0" in said
    stops = 0
    while True:
        try:
            compare(plan, tmp_path / "stopped", stop_after=5)
            break
        except Interrupted:
            stops += 1
    assert stops == 3
    names = ["compare.csv", *(f"seed_0/timm_{name}/network/weights.safetensors" for name in ("test_vit", "resnet10t"))]
    for name in names:
        there = [tmp_path / folder / name for folder in ("stopped", "whole")]
        if name.endswith("csv"):
            assert there[0].read_bytes() == there[1].read_bytes()
        else:
            stopped, whole = map(read_state_dict, there)
            assert all(np.array_equal(stopped[key], whole[key]) for key in stopped.keys() | whole.keys())
    before = times(tmp_path / "whole")
    compare(plan, tmp_path / "whole")
    assert times(tmp_path / "whole") == before
    result = read_json(tmp_path / "whole" / "seed_0" / "timm_resnet10t" / "result.json")
    assert result["libraries"]["timm"] == timm.__version__
    assert read_json(tmp_path / "whole" / "compare.json")["models"][1]["top1"] == result["metrics"]["top1"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    settings = config(model__image_size=32)
    with pytest.raises(Interrupted):
        train(TimmModel(MODEL), settings, tmp_path, questions=3)
    path = tmp_path / "finetune" / "checkpoints" / "torch.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(S3Error, match=r"torch\.pt is damaged: .*; remove it, and the training begins again"):
        train(TimmModel(MODEL), settings, tmp_path)
    path.unlink()
    assert train(TimmModel(MODEL), settings, tmp_path)["metrics"]["top1"] > 0


def test_given_weights_are_measured_by_our_input_and_match_timms_own_answers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=10)
    for parameter in network.parameters():  # so that answers differ from image to image
        torch.nn.init.normal_(parameter, std=0.2)
    weights = {f"module.{name}": tensor.numpy() for name, tensor in network.state_dict().items()}
    write_safetensors(tmp_path / "w.safetensors", weights, {})
    compare(plan_of(config(), "", f"{MODEL}={tmp_path / 'w.safetensors'}", "1"), tmp_path / "out")
    row = read_json(tmp_path / "out" / "compare.json")["models"][0]
    split = open_split(config().data, "test")  # type: ignore[arg-type]
    known = timm.get_pretrained_cfg("test_vit")
    transform = timm.data.create_transform(
        known.input_size, interpolation="bicubic", crop_pct=known.crop_pct, mean=known.mean, std=known.std
    )
    images, labels = zip(*(split.images.source[int(index)] for index in split.images.indices), strict=True)
    with torch.no_grad():
        answers = network.eval()(torch.stack([transform(image.convert("RGB")) for image in images])).argmax(-1).numpy()
    assert row["image_size"] == known.input_size[-1]
    assert row["top1"] == pytest.approx(100 * np.mean(answers == np.array(labels)), abs=0.6)  # of 359 images two


def test_what_cannot_be_is_told_before_any_training(tmp_path: Path) -> None:
    for name, changes, message in (
        ("timm:resnet5O", {}, "has no model 'resnet5O'. Of Table 1 there are timm:resnet50, timm:resnet152"),
        ("timm:vgg11", {}, "timm:vgg11 cannot be made with num_classes=10, drop_path_rate=0.1: "),
        (MODEL, {"model__image_size": 9}, "timm:test_vit takes no images of 9 pixels: "),
    ):
        with pytest.raises(S3Error) as caught:
            compare(plan_of(config(**changes), name, "", "1"), tmp_path / "out")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    network = timm.create_model("test_vit", num_classes=10)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    for changed, message in (
        ({"norm.weight": np.ones(3, np.float32)}, r"norm.weight has the shape (3,), expected (64,)"),
        ({"extra": np.ones(3, np.float32)}, "it has a surplus extra"),
        ({"norm.weight": np.full(64, np.nan, np.float32)}, "tensor norm.weight: 64 of 64 values are NaN"),
    ):
        write_safetensors(tmp_path / "w.safetensors", weights | changed, {})
        with pytest.raises(S3Error) as caught:
            compare(plan_of(config(), "", f"{MODEL}={tmp_path / 'w.safetensors'}", "1"), tmp_path / "out")
        assert message in str(caught.value)
    del weights["head.weight"]
    write_safetensors(tmp_path / "w.safetensors", weights, {})
    with pytest.raises(S3Error, match=r"has no classifier, which timm would call head\.weight"):
        TimmModel(MODEL).open(str(tmp_path / "w.safetensors"))
    assert not list((tmp_path / "out").glob("seed_*"))
