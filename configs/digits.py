"""The whole method on scikit-learn's handwritten digits (1,797 images of 8x8 pixels, embedded, no download).

    python -m s3_jax.main --config=configs/digits.py --workdir=runs/digits

Three spaces (two evolutions), a supernet in each, E-T Error, search under a budget, retraining of the winner.
"""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config()
    config.model.update(image_size=8, patch_size=1, kernel_std=0.0)
    config.space.update(
        depth=((1, 2),) * 4,
        embed_dim=((24, 32, 40),) * 4,
        window=((2, 4),) * 4,
        mlp_ratio=((1.0, 1.5, 2.0),) * 4,
        qkv_dim=((32, 64),) * 4,
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
    train = {"epochs": 10.0, "batch_size": 64, "warmup_epochs": 2.0, "drop_path": 0.0, "learning_rate": 3e-3}
    config.train.update(train)
    config.evolution.update(
        num_samples=150,
        top_k=15,
        # With 288 held-out images a slope's standard error is 0.15 to 0.3: smaller slopes must not move a dimension.
        tau=0.5,
        rounding="toward_zero",
        step_embed_dim=8,
        step_window=2,
        step_qkv_dim=32,
        step_mlp_ratio=0.5,
    )
    config.search.update(population=20, generations=5, top=5, mutations=10, crossovers=10)
    config.search.budget.max_macs = 3.0e6
    # Spaces are measured by architectures under the same limit, so that none is better by growing alone (Eq. 5).
    config.evolution.budget.max_macs = config.search.budget.get_ref("max_macs").identity()
    config.retrain.train.update(train, epochs=25.0)
    config.run.update(eval_batch_size=144, checkpoint_every=200, log_every=20)
    return config
