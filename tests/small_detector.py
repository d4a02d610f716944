"""A detector as small as it can be, and images whose one object it may find by chance, for tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from coco_sets import annotation, content_of, images_of
from flax import nnx
from ml_collections import ConfigDict
from PIL import Image

from s3_jax.config import default_config
from s3_jax.detection.config import HeadConfig
from s3_jax.detection.standalone import DetectionSpec
from s3_jax.networks.standalone import Standalone
from s3_jax.space import Architecture, Block, Stage

SIDE, SQUARE = 32, 16  # pixels
CATEGORIES = [{"id": 7, "name": "square"}, {"id": 4, "name": "other"}]
IDS, NAMES = (4, 7), ("other", "square")
# Whatever is found counts, so that a network that has learnt little has some precision.
HEAD = {
    "channels": 8,
    "fc_channels": 8,
    "anchor_scale": 4.0,
    "train_candidates": 32,
    "train_proposals": 8,
    "test_candidates": 64,
    "test_proposals": 32,
    "rpn_samples": 8,
    "box_samples": 8,
    "class_candidates": 64,
    "detections": 20,
    "score_threshold": 0.0,
    "classifier_std": 0.0,
}
ARCHITECTURE = Architecture(tuple(Stage(8, (Block(2, 1.0, 32),)) for _ in range(4)))


def write_squares(folder: Path) -> None:
    """Bright squares on dark noise: 16 images to train on, of which two are empty, and 6 to test on."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 6)):
        images, found = images_of(*[(SIDE, SIDE)] * count), []
        (folder / split).mkdir(parents=True)
        for number, image in enumerate(images):
            pixels = rng.integers(0, 60, (SIDE, SIDE, 3))
            left, top = (int(corner) for corner in rng.integers(0, SIDE - SQUARE + 1, 2))
            if split == "test" or number not in (3, 8):
                pixels[top : top + SQUARE, left : left + SQUARE] += 150
                found.append(annotation(number, image["id"], 7, (left, top, SQUARE, SQUARE)))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / split / image["file_name"])
        (folder / "annotations").mkdir(exist_ok=True)
        content = content_of(images, found, CATEGORIES)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def settings(path: Path) -> ConfigDict:
    """Of a search in a small space."""
    config = default_config("s3_jax.detection")
    config.model.update(image_size=SIDE, patch_size=4, kernel_std=0.0)
    config.space.update(
        depth=((1, 2), (1,), (1,), (1,)),
        embed_dim=((8, 16), (8,), (8,), (8,)),
        window=((2,),) * 4,
        mlp_ratio=((1.0,),) * 4,
        qkv_dim=((32,),) * 4,
    )
    config.head.update(HEAD)
    config.data.update(source="coco", path=str(path), holdout_fraction=0.25, max_objects=2)
    config.data.update(test_scale=(SIDE, SIDE), canvases=((SIDE, SIDE),), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    config.augment.update(short_sides=(SIDE,), long_side=SIDE, crop_probability=0.0, crop_short_sides=(SIDE,))
    train = {"epochs": 1.0, "batch_size": 4, "warmup_epochs": 0.0, "learning_rate": 3e-3, "drop_path": 0.0}
    config.train.update(train)
    config.retrain.train.update(train)
    config.evolution.update(num_spaces=1, num_samples=6, top_k=2, num_bootstrap=5)
    config.search.update(population=2, generations=1, top=1, mutations=1, crossovers=0)
    config.run.update(eval_batch_size=6, checkpoint_every=100, log_every=2, evaluate_every=2, tensorboard=False)
    return config


def spec(**changes: object) -> DetectionSpec:
    """What a detector of random weights is."""
    given = {"category_ids": IDS, "head": HeadConfig(**HEAD), "test_scale": (SIDE, SIDE), "canvases": ((SIDE, SIDE),)}
    return DetectionSpec(ARCHITECTURE, SIDE, 4, NAMES, **given | changes)


def detector(**changes: object) -> Standalone:
    """A detector of random weights."""
    return Standalone(spec(**changes).build(rngs=nnx.Rngs(1)), spec(**changes))
