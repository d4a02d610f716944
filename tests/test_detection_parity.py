"""RoIAlign, its gradient and suppression against torchvision's operators, which mmdetection's agree with.

    S3_JAX_PEER_PYTHON=PYTHON pytest tests/test_detection_parity.py

PYTHON has PyTorch and torchvision (the extra parity); without it the interpreter of the tests is asked.
"""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from test_detection_roi_align import boxes_of, expected, maps_of

from s3_jax.detection.nms import non_maximum_suppression
from s3_jax.detection.roi_align import by_places, by_products

PYTHON = os.environ.get("S3_JAX_PEER_PYTHON", sys.executable)
SIDES, THRESHOLDS = (7, 14), (0.3, 0.5, 0.7)

PEER = """
import sys, numpy, torch, torchvision
given, found = dict(numpy.load(sys.argv[1])), {}
boxes, scores = torch.from_numpy(given["boxes"]), torch.from_numpy(given["scores"])
for threshold in map(float, given["thresholds"]):
    found[f"kept/{threshold}"] = torchvision.ops.nms(boxes, scores, threshold).numpy()
for side in map(int, given["sides"]):
    for level in range(4):
        x = torch.from_numpy(given[f"map/{level}"]).permute(2, 0, 1)[None].requires_grad_()
        own = torch.from_numpy(given[f"own/{level}"])
        out = torchvision.ops.roi_align(x, [own], side, 1 / (4 * 2**level), sampling_ratio=-1, aligned=True)
        out.backward(torch.from_numpy(given[f"cotangent/{side}/{level}"]).permute(0, 3, 1, 2))
        found[f"aligned/{side}/{level}"] = out.detach().permute(0, 2, 3, 1).numpy()
        found[f"gradient/{side}/{level}"] = x.grad[0].permute(1, 2, 0).numpy()
numpy.savez(sys.argv[2], **found)
"""


def crowd(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that overlap each other by any share, and their scores."""
    rng = np.random.default_rng(seed)
    low, sides = rng.uniform(0, 60, (count, 2)), rng.uniform(10, 60, (count, 2))
    return np.concatenate([low, low + sides], axis=1).astype(np.float32), rng.random(count, np.float32)


@pytest.fixture(scope="module")
def levels() -> list[np.ndarray]:
    """The rows of `boxes_of` that are looked up in each map."""
    boxes, found = boxes_of(1, 128), []

    def align(x: np.ndarray, own: np.ndarray, side: int, scale: float) -> np.ndarray:
        found.append(own)
        return np.zeros((len(own), side, side, x.shape[-1]), np.float32)

    expected(maps_of(0), boxes, 1, align)
    return found


@pytest.fixture(scope="module")
def theirs(levels, tmp_path_factory) -> dict[str, np.ndarray]:
    if subprocess.run([PYTHON, "-c", "import torchvision"], capture_output=True).returncode:
        pytest.skip(f"{PYTHON} has no torchvision: name an interpreter that has in S3_JAX_PEER_PYTHON")
    folder, given = tmp_path_factory.mktemp("peer"), {"thresholds": THRESHOLDS, "sides": SIDES}
    given |= {f"map/{level}": x for level, x in enumerate(maps_of(0))}
    given |= {f"own/{level}": own for level, own in enumerate(levels)}
    given |= {
        f"cotangent/{side}/{level}": cotangent(side, len(own)) for side in SIDES for level, own in enumerate(levels)
    }
    given["boxes"], given["scores"] = crowd(0, 400)
    np.savez(folder / "given.npz", **given)
    done = subprocess.run(
        [PYTHON, "-c", PEER, str(folder / "given.npz"), str(folder / "found.npz")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "found.npz"))


def cotangent(side: int, count: int) -> np.ndarray:
    return np.random.default_rng(side).standard_normal((count, side, side, 2), np.float32)


@pytest.mark.parametrize("form", [by_places, by_products])
@pytest.mark.parametrize("side", SIDES)
def test_roi_align_and_its_gradient_are_torchvisions(form, side, levels, theirs):
    maps = maps_of(0)

    @jax.jit
    def both(maps, boxes, cotangent):
        aligned, pull_back = jax.vjp(lambda maps: form(maps, boxes, side), maps)
        return aligned, pull_back(cotangent)[0]

    for level, own in enumerate(levels):
        aligned, gradient = both(maps, own, cotangent(side, len(own)))
        np.testing.assert_allclose(aligned, theirs[f"aligned/{side}/{level}"], atol=1e-4, rtol=0)
        wanted = theirs[f"gradient/{side}/{level}"]
        np.testing.assert_allclose(gradient[level], wanted, atol=1e-4, rtol=1e-4)
        largest = np.abs(gradient[level] - wanted).max()
        print(f"{form.__name__} {side} {level}: {largest:.1e} of {np.abs(wanted).max():.1f}")
        assert not any(np.asarray(each).any() for other, each in enumerate(gradient) if other != level)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_what_is_kept_is_what_torchvision_keeps(threshold, theirs):
    boxes, scores = crowd(0, 400)
    kept = non_maximum_suppression(boxes, scores, np.ones(400, bool), threshold, 400)
    ours = np.asarray(kept.row)[np.asarray(kept.valid)]
    assert 10 < len(ours) < 390
    assert ours.tolist() == theirs[f"kept/{threshold}"].tolist()
