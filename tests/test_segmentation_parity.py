"""UperNet on S3-T against PyTorch: numbers of the peer's in every run, and the peer itself where there is one.

    S3_JAX_PEER_PYTHON=PYTHON pytest tests/test_segmentation_parity.py

is given an interpreter that has torch 2.13, and runs ../shared/bench/torch_upernet.py on equal weights and images. With
S3_JAX_WRITE_GOLDEN=1 too, it writes the peer's numbers to golden_upernet.json anew.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from flax import nnx

from s3_jax.config import ModelConfig
from s3_jax.networks import zoo
from s3_jax.segmentation.convert import load_weights, to_state_dict
from s3_jax.segmentation.resizing import resized
from s3_jax.segmentation.upernet import UperNet
from s3_jax.task import variables_of

GOLDEN = Path(__file__).with_name("golden_upernet.json")
BENCH = Path(__file__).parents[2] / "shared" / "bench"
PYTHON = os.environ.get("S3_JAX_PEER_PYTHON", sys.executable)
TIMEOUT = 600  # seconds
CLASSES, STAGES = 8, 4
# (images, height, width); where there are several images, they are trained on as well.
CASES = {"golden": (2, 58, 75), "ragged": (2, 200, 333), "square": (1, 512, 512), "lying": (1, 800, 1344)}
PLACES = ((0, 17, 59), (0, 40, 75))  # rows and columns of the golden logits, which are those of 60 x 76 pixels
KEPT = 4  # channels of the golden statistics

# Our names, which are mmsegmentation's, as the peer's.
_RENAMED = (
    (r"^backbone\.patch_embed\.proj", "backbone.patch"),
    (r"^backbone\.patch_embed\.norm", "backbone.norm"),
    (r"^backbone\.norm(\d)", r"backbone.out.\1"),
    (r"^backbone\.layers\.(\d)\.downsample\.norm", r"backbone.merge_norm.\1"),
    (r"^backbone\.layers\.(\d)\.downsample\.reduction", r"backbone.merge.\1"),
    (r"^backbone\.layers\.(\d)\.blocks\.", r"backbone.stages.\1."),
    (r"\.norm([12])\.", r".n\1."),
    (r"\.attn\.relative_position_bias_table", ".table"),
    (r"\.(attn|mlp)\.", "."),
    (r"^decode_head\.psp_modules\.(\d)\.1\.", r"pools.\1."),
    (r"^decode_head\.bottleneck\.", "bottleneck."),
    (r"^decode_head\.lateral_convs\.", "lateral."),
    (r"^decode_head\.fpn_convs\.", "smooth."),
    (r"^decode_head\.fpn_bottleneck\.", "fuse."),
    (r"^decode_head\.conv_seg", "out"),
    (r"^auxiliary_head\.convs\.0\.", "aux."),
    (r"^auxiliary_head\.conv_seg", "aux_out"),
    (r"\.conv\.", ".0."),
    (r"\.bn\.", ".1."),
)

# Given the folder of torch_upernet.py, a file of weights and images, and a file for the results.
PEER = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, torch, torch_upernet as peer

given, found = dict(np.load(sys.argv[2])), {}
weights = {name[8:]: torch.from_numpy(array) for name, array in given.items() if name.startswith("weights/")}
peer.F.dropout2d = lambda x, *others: x
network = peer.UperNet(len(weights["out.bias"]))
missing, surplus = network.load_state_dict(weights, strict=False)
assert not surplus, surplus
assert all(name.endswith((".index", "num_batches_tracked")) for name in missing), missing
with torch.no_grad():
    for case in [name[7:] for name in given if name.startswith("images/")]:
        x = torch.from_numpy(given["images/" + case]).permute(0, 3, 1, 2)
        x = peer.F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))  # as Swin's code has it before the patches
        network.load_state_dict(weights, strict=False)
        network.eval()
        results = {"map" + str(place): each for place, each in enumerate(network.backbone(x))}
        results["logits"] = network(x)[0]
        if len(x) > 1:
            network.train()
            results["decode"], results["auxiliary"] = network(x)
        results = {name: each.permute(0, 2, 3, 1) for name, each in results.items()}
        if len(x) > 1:
            results |= {name: each for name, each in network.state_dict().items() if "running_" in name}
        found |= {case + "/" + name: each.clone().numpy() for name, each in results.items()}
np.savez(sys.argv[3], **found)
"""


def peer_name(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def seeded_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """By numpy's generator and the tensor's name alone; variances are positive and far enough from 1 to be seen."""
    tensor = parity.seeded_tensor(name.replace(".bn.", ".norm."), shape)
    return np.exp(3 * tensor) if name.endswith("running_var") else tensor


def seeded_images(case: str) -> np.ndarray:
    return np.random.default_rng(CASES[case]).standard_normal((*CASES[case], 3), np.float32)


@pytest.fixture(scope="module")
def network() -> UperNet:
    sizes = {"model": ModelConfig(), "num_classes": CLASSES, "dropout": 0.0}
    network = nnx.eval_shape(lambda: UperNet(zoo.architecture("s3_t"), rngs=nnx.Rngs(0), **sizes))
    for variables in variables_of(network):  # their shapes are asked for, and take no memory
        nnx.update(network, jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), variables))
    shapes = {name: tensor.shape for name, tensor in to_state_dict(network).items()}
    load_weights(network, {name: seeded_tensor(name, shape) for name, shape in shapes.items()})
    return network


def our_answers(network: UperNet, case: str) -> dict[str, np.ndarray]:
    """What the peer answers: maps and logits of evaluation, and those of training with the statistics after it."""
    images = seeded_images(case)
    trained, weight, key = nnx.clone(network), jnp.ones(len(images)), jax.random.key(0)

    @nnx.jit  # one program, in which the maps are computed once
    def run(network, x):
        maps, logits = network.backbone.features(x), {"logits": network(x)}
        if len(x) > 1:
            logits |= network.in_training(x, weight, key=key)._asdict()
        return maps, logits

    maps, logits = run(trained, images)
    answers = {f"map{place}": each for place, each in enumerate(maps)}
    answers |= {name: enlarged(each, images) for name, each in logits.items()}
    if len(images) > 1:
        state = to_state_dict(trained)
        answers |= {peer_name(name): each for name, each in state.items() if "running_" in name}
    return {name: np.asarray(each) for name, each in answers.items()}


def enlarged(logits, images):
    """To the size of the images, brought up to whole patches, as the peer's are."""
    height, width = (-(-side // 4) * 4 for side in images.shape[1:3])
    return resized(logits, (height, width))


def kept(answers: dict[str, np.ndarray]) -> dict[str, list]:
    """Of a case's answers what goes into the golden file."""
    chosen = {name: answers[name][:, *PLACES] for name in ("logits", "decode", "auxiliary")}
    chosen |= {name: each[:KEPT] for name, each in answers.items() if "running_" in name}
    return {name: each.astype(np.float64).round(6).tolist() for name, each in chosen.items()}


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name, each in theirs.items():
        np.testing.assert_allclose(ours[name], each, atol=1e-4, rtol=0, err_msg=name)


def test_answers_are_the_peers(network):
    """PyTorch's own numbers, in evaluation and in training, of seeded weights and images."""
    assert_same(kept(our_answers(network, "golden")), json.loads(GOLDEN.read_text()))


def peer_answers(network: UperNet, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Of every case, by the names of `our_answers`."""
    weights = {f"weights/{peer_name(name)}": tensor for name, tensor in to_state_dict(network).items()}
    np.savez(folder / "given.npz", **weights, **{f"images/{case}": seeded_images(case) for case in CASES})
    program = [PYTHON, "-c", PEER, str(BENCH), str(folder / "given.npz"), str(folder / "found.npz")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    answers: dict[str, dict[str, np.ndarray]] = {case: {} for case in CASES}
    with np.load(folder / "found.npz") as found:
        for path in found:
            case, name = path.split("/")
            answers[case][name] = found[path]
    return answers


def lacking() -> str:
    """Why the peer cannot run; empty where it can."""
    if not (BENCH / "torch_upernet.py").is_file():
        return f"there is no {BENCH / 'torch_upernet.py'}"
    if subprocess.run([PYTHON, "-c", "import torch"], capture_output=True).returncode:
        return f"{PYTHON} has no torch: name an interpreter that has in S3_JAX_PEER_PYTHON"
    return ""


def test_the_peer_answers_the_same(network, tmp_path):
    """Dense maps, logits of evaluation and of both heads in training, and every running statistic."""
    if reason := lacking():
        pytest.skip(reason)
    theirs = peer_answers(network, tmp_path)
    if os.environ.get("S3_JAX_WRITE_GOLDEN"):
        lines = [f"{json.dumps(name)}: {json.dumps(each)}" for name, each in kept(theirs["golden"]).items()]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert_same(kept(theirs["golden"]), json.loads(GOLDEN.read_text()))
    for case, answers in theirs.items():
        ours = our_answers(network, case)
        for name, each in answers.items():
            if "running_" not in name:
                print(f"{case} {name}: {np.abs(ours[name] - each).max():.1e} of {np.abs(each).max():.1f}")
        statistics = [np.abs(ours[name] - each).max() for name, each in answers.items() if "running_" in name]
        print(f"{case} statistics: {max(statistics, default=0):.1e}")
        assert_same(ours, answers)
