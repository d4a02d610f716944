"""A small Cascade Mask R-CNN and batches for it, on a backbone of a few lines: its programs compile in seconds."""

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from s3_jax.config import ModelConfig
from s3_jax.detection.cascade import CascadeMaskRCNN
from s3_jax.detection.config import HeadConfig
from s3_jax.space import Architecture, Block, Stage
from s3_jax.task import Variables, variables_of

DIMS, CLASSES, CANVAS = (5, 6, 7, 8), 3, (64, 96)
HEAD = HeadConfig(
    channels=6,
    fc_channels=12,
    anchor_scale=4.0,
    train_candidates=24,
    train_proposals=20,
    test_candidates=16,
    test_proposals=14,
    rpn_samples=64,
    box_samples=24,
    score_threshold=0.2,
    class_candidates=15,
    detections=8,
)
ARCHITECTURE = Architecture(tuple(Stage(dim, (Block(2, 1.0, 32),)) for dim in DIMS))


class Backbone(nnx.Module):
    """Means of squares of the image's pixels, with random channels made of them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.kernels = nnx.List([nnx.Param(jnp.asarray(rng.normal(size=(3, dim)), jnp.float32)) for dim in DIMS])

    def features(self, x, subnet=None, *, max_drop_path=0.0, key=None):
        """Maps of strides 4, 8, 16 and 32."""
        return [jnp.tanh(_means(x, 4 * 2**i) @ kernel[...]) for i, kernel in enumerate(self.kernels)]


def _means(x, side):
    height, width = (-(-length // side) for length in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (0, height * side - x.shape[1]), (0, width * side - x.shape[2]), (0, 0)))
    return x.reshape(len(x), height, side, width, side, -1).mean((2, 4)) * side


def network(head: HeadConfig = HEAD, *, seed: int = 0, batch_axis: str | None = None) -> CascadeMaskRCNN:
    """With random weights that make answers differ, also scales, biases and running statistics."""
    model = ModelConfig(image_size=64, patch_size=4)
    sizes = {"model": model, "num_classes": CLASSES, "head": head, "batch_axis": batch_axis}
    made = nnx.eval_shape(lambda: CascadeMaskRCNN(ARCHITECTURE, rngs=nnx.Rngs(0), **sizes))
    rng = np.random.default_rng(seed)
    made.backbone = Backbone(rng)

    def filled(path, leaf):
        """Kernels keep activations near 1; scales and variances are positive."""
        name, fan_in = jax.tree_util.keystr(path), prod(leaf.shape[:-1])
        if "regressor" in name and "kernel" in name:
            fan_in = leaf.shape[0]
        noise = rng.normal(size=leaf.shape) * (0.1 if "rpn" in name and "deltas" in name else 1)  # near the anchors
        positive = "scale" in name or "variance" in name
        return jnp.asarray(
            np.exp(0.2 * noise) if positive else 0.2 * noise if leaf.ndim == 1 else 1.4 * noise / fan_in**0.5
        )

    for variables in variables_of(made):
        variables.pop("backbone", None)
        nnx.update(made, jax.tree_util.tree_map_with_path(filled, variables))
    return made


def with_transformer(made: CascadeMaskRCNN) -> CascadeMaskRCNN:
    """The same heads on a backbone whose weights have names, and no values."""
    model = ModelConfig(image_size=64, patch_size=4)
    sizes = {"model": model, "num_classes": CLASSES, "head": made.head}
    whole = nnx.eval_shape(lambda: CascadeMaskRCNN(ARCHITECTURE, rngs=nnx.Rngs(0), **sizes))
    for variables in variables_of(whole):
        nnx.update(whole, jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), variables))
    for variables in variables_of(made):
        nnx.update(whole, {name: each for name, each in variables.items() if name != "backbone"})
    return whole


def batch(count: int = 2, rows: int = 4, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Images of several sizes on the canvas, each with one to three objects; masks are ellipses."""
    rng = np.random.default_rng(seed)
    made = {
        "image": rng.normal(size=(count, *CANVAS, 3)).astype(np.float32),
        "size": np.stack([rng.integers(40, 65, count), rng.integers(50, 97, count)], 1).astype(np.int32),
        "boxes": np.zeros((count, rows, 4), np.float32),
        "labels": np.full((count, rows), -1, np.int32),
        "masks": np.zeros((count, rows, 112, 112), np.uint8),
        "weight": np.ones(count, np.float32),
    }
    y, x = (np.indices((112, 112)) - 55.5) / 55
    for image in range(count):
        for row in range(1 + image % 3):
            height, width = made["size"][image]
            sides = rng.uniform(10, 30, 2)
            low = rng.uniform(0, [width - sides[0], height - sides[1]])
            made["boxes"][image, row] = [*low, *(low + sides)]
            made["labels"][image, row] = rng.integers(CLASSES)
            made["masks"][image, row] = 255 * (x**2 + y**2 < 1)
    return made


def losses(definition, variables: Variables, batch, key, subnet=None):
    """Terms of the losses, and statistics after them."""
    own = nnx.merge(definition, nnx.State(variables.params), nnx.State(variables.stats))
    terms = own.losses(batch, subnet, key, 0.0)
    return terms, variables_of(own).stats


def training(definition, variables: Variables, batch, key):
    """Terms of the losses, gradient of their sum, and statistics after them."""

    def loss(params):
        terms, stats = losses(definition, Variables(params, variables.stats), batch, key)
        values = [total / jnp.maximum(count, 1) for total, count in terms.values()]
        return sum(values, jnp.zeros(())), (terms, stats)

    gradient, (terms, stats) = jax.grad(loss, has_aux=True)(variables.params)
    return terms, gradient, stats
