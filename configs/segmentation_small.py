"""UperNet on digit scenes, which are drawn as they are needed: minutes on two CPU cores."""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config("s3_jax.segmentation")
    config.model.update(image_size=48, patch_size=2, kernel_std=0.0)
    config.head.update(channels=64, auxiliary_channels=32)
    config.data.update(test_split="test", holdout_split="holdout", train_split="train", test_scale=(48, 48))
    config.augment.update(scale=(48, 48), ratio=(1.0, 1.0), crop=48, largest_class=1.0, horizontal_flip=0.0)
    config.train.update(epochs=4.6, batch_size=16, warmup_epochs=0.3, learning_rate=2e-3, drop_path=0.0)
    config.run.update(eval_batch_size=50, checkpoint_every=300, log_every=20)
    return config
