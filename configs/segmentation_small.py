"""UperNet on digit scenes, which are drawn as they are needed: five minutes on two CPU cores.

    python -m s3_jax.main --config=configs/segmentation_small.py --workdir=runs/segmentation

One to four handwritten digits on textured noise, 48 px; the class of each pixel is background or the digit whose stroke
it is. The test scenes show handwriting of which no other split has any. The network begins at random.

Seeds 0, 1 and 2 reach a mIoU of 46.2, 40.5 and 44.3 % on the test scenes. The control is training with the classes of
digits drawn at random (--config.data.shuffled_classes=True), which leaves to learn where digits are and not which:
12.9 %, where the background alone gives 8.8. Mean of the ten digits: 41.0, 34.8 and 39.0 %, control 4.5 % (2026-11-26).
"""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config("s3_jax.segmentation")
    config.model.update(image_size=48, patch_size=2)
    config.backbone.update(
        depth=(1, 1, 2, 1),
        embed_dim=(32, 64, 96, 128),
        window=(4, 4, 8, 4),
        mlp_ratio=(4.0,) * 4,
        qkv_dim=(32, 64, 96, 128),
    )
    config.head.update(channels=64, auxiliary_channels=32, classifier_std=0.0)
    config.data.update(holdout_split="holdout", test_scale=(48, 48))
    config.augment.update(scale=(48, 48), ratio=(1.0, 1.0), crop=48, largest_class=1.0, horizontal_flip=0.0)
    config.augment.photometric = False  # digits and ground have colours at random already
    config.train.update(epochs=6.0, batch_size=16, warmup_epochs=0.1, learning_rate=2e-3, drop_path=0.0)
    config.run.update(eval_batch_size=50, checkpoint_every=300, log_every=20)
    return config
