"""What ONNX Runtime says of images, in a process without JAX."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from s3_jax.errors import S3Error
from s3_jax.networks.export import Size, export_onnx
from s3_jax.networks.standalone import Standalone

PROGRAM = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx")
images = numpy.load(sys.argv[1] + "/images.npy")
for count in (1, len(images)):
    (logits,) = session.run(None, {session.get_inputs()[0].name: images[:count]})
    numpy.save(f"{sys.argv[1]}/logits_{count}.npy", logits)
assert "jax" not in sys.modules
"""


def onnx_answers(model: Standalone, images: np.ndarray, folder: Path, size: Size | None = None) -> list[np.ndarray]:
    """The logits of the first image, and of all. Skips the test without ONNX, or where JAX is too new for it."""
    for name in ("jax2onnx", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install -e .[test]")
    try:
        export_onnx(model, folder / "model.onnx", size)
    except S3Error as error:
        if jax.__version__.startswith("0.10."):
            raise
        pytest.skip(f"not our fault, and told to users: {error}")
    np.save(folder / "images.npy", images)
    subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], check=True)
    return [np.load(folder / f"logits_{count}.npy") for count in (1, len(images))]
