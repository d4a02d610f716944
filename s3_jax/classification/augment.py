"""Training augmentation of one image: DeiT's recipe (Touvron et al., 2021), which the paper follows."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from s3_jax.classification.config import AugmentConfig
from s3_jax.data import rand_augment as ra
from s3_jax.data.augment import centred, color_jitter, pad_crop, quickly_resized, random_crop_box


def augmented(
    image: Image.Image, rng: np.random.Generator, config: AugmentConfig, image_size: int, fill: ra.Fill
) -> np.ndarray:
    """A random view of the image for training, uint8 (image_size, image_size, 3); erasing comes after normalisation.

    fill: colour of what rotations and shifts bring in from outside. Raises BadImage.
    """
    if config.random_resized_crop:
        box = random_crop_box(rng, image.size, config.crop_scale, config.crop_ratio)
        pixels = quickly_resized(image, box, image_size)
    else:
        pixels = centred(image, image_size, crop=1.0)
    if config.pad_crop:
        pixels = pad_crop(pixels, rng, config.pad_crop)
    if rng.random() < config.horizontal_flip:
        pixels = cv2.flip(pixels, 1)  # a fifth of the time of numpy's reversed copy
    if config.color_jitter:
        pixels = color_jitter(pixels, rng, config.color_jitter)
    if config.rand_augment_layers:
        pixels = ra.rand_augment(
            pixels,
            rng,
            layers=config.rand_augment_layers,
            magnitude=config.rand_augment_magnitude,
            magnitude_std=config.rand_augment_magnitude_std,
            fill=fill,
        )
    return pixels
