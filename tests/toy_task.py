"""A task of one's own: regression of an image's mean colour. What toy_config.py runs in test_task.py."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from s3_jax.cost import cost
from s3_jax.data.sources import MemoryImages
from s3_jax.data.splits import Splits, Subset
from s3_jax.data.stream import Examples
from s3_jax.models import S3Transformer
from s3_jax.task import Task

SIZES = {"image_size": 8, "patch_size": 2, "num_classes": 3}


@dataclasses.dataclass(frozen=True)
class Colours(Examples):
    subset: Subset

    def blank(self, group=None):
        return {"image": np.zeros((8, 8, 3), np.float32), "colour": np.zeros(3, np.float32)}

    def example(self, row, rng):
        image = np.asarray(self.subset.source[self.subset.indices[row]][0], np.float32) / 255
        image = image if rng is None else image + rng.normal(0, 0.1, 3).astype(np.float32)
        return {"image": image, "colour": image.mean((0, 1))}


@dataclasses.dataclass(frozen=True, eq=False)
class MeanColour(Task):
    splits: Splits

    def examples(self, subset, *, training):
        return Colours(subset)

    def network(self, structure, rngs, **devices):
        return S3Transformer(structure, **SIZES, **devices, kernel_std=0.0, rngs=rngs)

    def terms(self, network, batch, subnet, key, max_drop_path):
        wrong = network(batch["image"], subnet, max_drop_path=max_drop_path, key=key) - batch["colour"]
        return {"square": ((wrong**2).sum(-1) @ batch["weight"], batch["weight"].sum())}

    def predict(self, network, batch, subnet):
        return {"wrong": jnp.abs(network(batch["image"], subnet) - batch["colour"]).mean(-1)}

    def lines(self, subset, rows, predicted):
        return [{"row": row, "wrong": float(wrong)} for row, wrong in zip(rows, predicted["wrong"], strict=True)]

    def score(self, lines):
        return {"wrong": float(np.mean([line["wrong"] for line in lines]))}

    def error(self, metrics):
        return 100 * min(metrics["wrong"], 1.0)

    def cost(self, architecture):
        return cost(architecture, **SIZES)


def open_task(config):
    images = np.random.default_rng(config.seed).integers(256, size=(200, 1, 1, 3), dtype=np.uint8)
    source = MemoryImages(np.broadcast_to(images, (200, 8, 8, 3)).copy(), np.zeros(200, np.int64), "colours")
    train, whole, holdout = (
        Subset(source, np.array(part), "train") for part in (range(120), range(160), range(120, 160))
    )
    return MeanColour(Splits(train, whole, holdout, Subset(source, np.arange(160, 200), "test")))
