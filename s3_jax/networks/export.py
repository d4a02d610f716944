"""Networks for other tools: StableHLO and ONNX, each with its weights and a free batch size.

Images are float32 (B, H, W, 3), normalised, of a height and width that are chosen here, `spec.export_size` if none are;
what else a network takes follows, as `spec.export_inputs` has it. The answers are `spec.as_function`'s: logits
(B, classes) of a classifier, (B, H, W, classes) of a segmentation network, boxes, scores, labels and masks of a
detector.
"""

from __future__ import annotations

import re

import jax
from jax import export

from s3_jax.errors import S3Error
from s3_jax.networks.standalone import Input, Standalone
from s3_jax.paths import AnyPath
from s3_jax.writing import write_whole

PLATFORMS = ("cpu", "cuda", "tpu")
LONGEST = 16_384  # pixels of a side

Size = tuple[int, int]  # height and width


def size_of(text: str) -> Size:
    """Height and width, as in "512,2048". Raises S3Error for another text, and for sides that no image has."""
    sides = tuple(map(int, text.split(","))) if re.fullmatch(r"\d{1,9},\d{1,9}", text, re.ASCII) else ()
    if not sides or not all(1 <= side <= LONGEST for side in sides):
        raise S3Error(f"size {text!r}: expected HEIGHT,WIDTH in pixels, whole numbers from 1 to {LONGEST:,}")
    return sides[0], sides[1]


def export_stablehlo(model: Standalone, path: AnyPath, size: Size | None = None) -> None:
    """Write a network as jax.export serialises it. Raises S3Error where it takes no images of this size.

    `jax.export.deserialize(path.read_bytes()).call(images)` runs it, without this package.
    """
    (batch,) = export.symbolic_shape("batch")
    size = size or model.spec.export_size
    function = model.spec.as_function(model.network, size)
    inputs = [jax.ShapeDtypeStruct((batch, *each.shape), each.dtype) for each in model.spec.export_inputs(size)]
    serialized = export.export(jax.jit(function), platforms=PLATFORMS)(*inputs).serialize()
    write_whole(path, bytes(serialized))


def export_onnx(model: Standalone, path: AnyPath, size: Size | None = None) -> None:
    """Write a network as ONNX, of the same input and output.

    Raises S3Error where jax2onnx is missing, or fails, and where the network takes no images of this size.
    """
    if model.spec.NO_ONNX:
        raise S3Error(f"{model.spec.NO_ONNX}; leave it out: --formats=safetensors,stablehlo")
    try:
        from jax2onnx import to_onnx
    except ImportError as error:
        raise S3Error(f"ONNX needs an extra that is not installed ({error}): pip install -e .[onnx]") from error
    size = size or model.spec.export_size
    function = model.spec.as_function(model.network, size)
    try:
        converted = to_onnx(function, inputs=[_named(each) for each in model.spec.export_inputs(size)])
    except (AttributeError, NotImplementedError) as error:  # it reaches into JAX, and releases of JAX move things
        raise S3Error(
            f"jax2onnx could not convert this network under JAX {jax.__version__}: {error}; under JAX 0.10 it does"
        ) from error
    write_whole(path, converted.SerializeToString())


def _named(each: Input) -> jax.ShapeDtypeStruct:
    """An input with a name for its batch size, as jax2onnx takes it."""
    return jax.ShapeDtypeStruct(("B", *each.shape), each.dtype)
