"""The whole method on the digits, as small as it can be: seconds of compute, for tests of the pipeline and devices."""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config()
    config.model.update(image_size=8, patch_size=2, kernel_std=0.0)
    config.space.update(
        depth=((1, 2), (1,)),
        embed_dim=((8, 16),) * 2,
        window=((2,),) * 2,
        mlp_ratio=((1.0,), (1.0, 2.0)),
        qkv_dim=((32, 64), (32,)),
    )
    config.data.update(
        source="digits", holdout_fraction=0.2, mean=(0.3, 0.3, 0.3), std=(0.38, 0.38, 0.38), eval_crop=1.0
    )
    config.augment.update(
        random_resized_crop=False,
        pad_crop=1,
        horizontal_flip=0.0,
        rand_augment_layers=0,
        random_erasing=0.0,
        mixup=0.0,
        cutmix=0.0,
    )
    train = {"epochs": 0.4, "batch_size": 64, "warmup_epochs": 0.1, "drop_path": 0.1, "learning_rate": 2e-3}
    config.train.update(train)
    config.retrain.train.update(train)
    config.evolution.update(
        num_spaces=2,
        # With seed 0 the samples hold every choice of every dimension.
        num_samples=8,
        top_k=3,
        num_bootstrap=20,
        # After so little training errors differ by tens of points: a smaller threshold would move every choice.
        tau=3.0,
        rounding="toward_zero",
        step_embed_dim=8,
        step_window=2,
        step_qkv_dim=32,
    )
    config.search.update(population=4, generations=2, top=2, mutations=2, crossovers=2)
    config.run.update(eval_batch_size=256, checkpoint_every=2, log_every=2)
    return config
