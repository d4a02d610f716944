"""Classification: the task on which spaces are searched, measured and evolved in the paper."""

from s3_jax.classification.dataset import ImageData, open_data, open_split
from s3_jax.classification.task import Classification, of_classes, open_task

__all__ = ["Classification", "ImageData", "of_classes", "open_data", "open_split", "open_task"]
