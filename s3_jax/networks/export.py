"""Networks for other tools: StableHLO and ONNX, each with its weights and a free batch size."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export

from s3_jax.errors import S3Error
from s3_jax.networks.standalone import Standalone
from s3_jax.paths import AnyPath
from s3_jax.writing import write_whole

PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(model: Standalone, path: AnyPath) -> None:
    """Write a network as jax.export serialises it: images float32 (B, S, S, 3), normalised, to logits (B, classes).

    `jax.export.deserialize(path.read_bytes()).call(images)` runs it, without this package.
    """
    (batch,) = export.symbolic_shape("batch")
    size = model.spec.image_size
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    serialized = export.export(jax.jit(_function(model)), platforms=PLATFORMS)(images).serialize()
    write_whole(path, bytes(serialized))


def export_onnx(model: Standalone, path: AnyPath) -> None:
    """Write a network as ONNX, of the same input and output. Raises S3Error where jax2onnx is missing, or fails."""
    try:
        from jax2onnx import to_onnx
    except ImportError as error:
        raise S3Error(f"ONNX needs an extra that is not installed ({error}): pip install -e .[onnx]") from error
    size = model.spec.image_size
    try:
        converted = to_onnx(_function(model), inputs=[("B", size, size, 3)])
    except (AttributeError, NotImplementedError) as error:  # it reaches into JAX, and releases of JAX move things
        raise S3Error(
            f"jax2onnx could not convert this network under JAX {jax.__version__}: {error}; under JAX 0.10 it does"
        ) from error
    write_whole(path, converted.SerializeToString())


def _function(model: Standalone) -> Callable[[jax.Array], jax.Array]:
    """The network as a function of images alone."""
    definition, state = nnx.split(model.network)
    return lambda images: nnx.merge(definition, state)(images)
