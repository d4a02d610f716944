"""easy-VQA: questions about coloured shapes, from a package, nothing to download."""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config("s3_jax.vqa")
    config.model.update(image_size=64, patch_size=4, kernel_std=0.0)
    config.backbone.update(
        depth=(1, 1, 2, 1),
        embed_dim=(32, 48, 64, 96),
        window=(4, 4, 4, 2),
        mlp_ratio=(2.0,) * 4,
        qkv_dim=(32, 64, 64, 96),
    )
    config.data.update(questions_per_image=12, mean=(0.5,) * 3, std=(0.25,) * 3)
    config.bert.update(layers=2, width=96, heads=4, hidden=192, dropout=0.0, positions=12, tokens=12)
    config.head.update(hidden=192, dropout=0.0)
    config.train.update(
        epochs=6.0,
        batch_size=32,
        warmup_epochs=0.5,
        learning_rate=2e-3,
        weight_decay=0.01,
        drop_path=0.0,
        clip_norm=4.0,
    )
    config.run.update(eval_batch_size=50, checkpoint_every=300, log_every=20)
    return config
