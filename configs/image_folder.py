"""The whole method on your own images: a folder with train/<class>/* and test/<class>/*.

    python -m s3_jax.main --config=configs/image_folder.py --workdir=runs/mine --config.data.path=FOLDER

Made for some thousands of images of a few classes on one accelerator, or overnight on a CPU. Change what differs, as
flags or here: data.test_split=val for a folder of that name, model.image_size, the epochs, the budget of the search.
With fewer than 10 images of each class, E-T Errors and their slopes are mostly noise: see their standard errors in the
report.
"""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config()
    config.model.update(image_size=64, kernel_std=0.0)
    config.space.update(
        depth=((1, 2, 3),) * 4,
        embed_dim=((64, 96, 128),) * 4,
        window=((4, 8),) * 4,
        mlp_ratio=((2.0, 2.5, 3.0),) * 4,
        qkv_dim=((64, 96, 128),) * 4,
    )
    config.data.update(source="image_folder", holdout_fraction=0.15, on_bad_image="skip", num_workers=2)
    config.augment.update(crop_scale=(0.3, 1.0), rand_augment_layers=1, mixup=0.0, cutmix=0.0)
    train = {"epochs": 50.0, "batch_size": 128, "warmup_epochs": 3.0, "drop_path": 0.05}
    config.train.update(train)
    # Toward zero, only slopes beyond tau move a dimension; the printed floor moves every one whose slope is negative.
    config.evolution.update(num_samples=300, rounding="toward_zero")
    config.evolution.update(step_embed_dim=32, step_window=4, step_qkv_dim=32)
    config.search.update(generations=10)
    config.search.budget.max_macs = 60e6
    # Spaces are measured by architectures under the same limit, so that none is better by growing alone (Eq. 5).
    config.evolution.budget.max_macs = config.search.budget.get_ref("max_macs").identity()
    config.retrain.train.update(train, epochs=100.0)
    config.run.update(eval_batch_size=256, checkpoint_every=200, log_every=20)
    return config
