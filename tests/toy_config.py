"""The tiny settings for the task of toy_task.py, which has none of its own."""

import ml_collections
import tiny_config

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config, tiny = default_config("toy_task"), tiny_config.get_config()
    for block in ("model", "space", "train", "retrain", "evolution", "search", "run"):
        config[block].update(tiny[block])
    return config
