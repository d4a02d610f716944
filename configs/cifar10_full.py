"""The whole method on CIFAR-10 with a long training and DeiT's augmentation, for an accelerator.

    python -m s3_jax.main --config=configs/cifar10_full.py --workdir=runs/cifar10_full --config.data.path=PREPARED

PREPARED as in configs/cifar10.py. Three supernets of 300 epochs: hours on one accelerator, days on a CPU. This project
has not run it to the end, so it promises no accuracy.
"""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config()
    config.model.update(image_size=32, patch_size=2, dtype="bfloat16")
    config.space.update(
        depth=((2, 3, 4),) * 4,
        embed_dim=((160, 192, 224),) * 4,
        window=((4, 8),) * 4,
        mlp_ratio=((3.0, 3.5, 4.0),) * 4,
        qkv_dim=((160, 192, 224),) * 4,
    )
    config.data.update(
        source="tfds",
        name="cifar10",
        holdout_fraction=0.1,
        cache_in_memory=True,
        num_workers=8,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.247, 0.2435, 0.2616),
        eval_crop=1.0,
    )
    config.augment.update(random_resized_crop=False, pad_crop=4)
    train = {"batch_size": 512, "epochs": 300.0, "warmup_epochs": 10.0, "drop_path": 0.1}
    config.train.update(train)
    config.evolution.update(step_embed_dim=32, step_window=4, step_qkv_dim=32)
    config.search.budget.max_macs = 0.6e9
    # Spaces are measured by architectures under the same limit, so that none is better by growing alone (Eq. 5).
    config.evolution.budget.max_macs = config.search.budget.get_ref("max_macs").identity()
    config.retrain.train.update(train)
    return config
