"""Sources, augmentation and the per-host input pipeline."""

from s3_jax.data.dataset import ImageData, Subset, open_data, open_split
from s3_jax.data.input import Batch, eval_batches, train_batches

__all__ = ["Batch", "ImageData", "Subset", "eval_batches", "open_data", "open_split", "train_batches"]
