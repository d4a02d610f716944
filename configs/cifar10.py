"""The whole method on CIFAR-10 (32 px), small enough for a laptop: three spaces, search, retraining of the winner.

    python -m s3_jax.main --config=configs/cifar10.py --workdir=runs/cifar10 --config.data.path=PREPARED

PREPARED is a folder that TensorFlow Datasets has prepared as array_record (.../cifar10/3.0.2); without it, TFDS
downloads and prepares the set, for which it may want TensorFlow installed. The run takes about 45 minutes on a CPU
core or two (2026-11-27). For real accuracies take configs/cifar10_full.py and an accelerator.
"""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config()
    config.model.update(image_size=32, patch_size=4, kernel_std=0.0)
    config.space.update(
        depth=((1, 2, 3),) * 4,
        embed_dim=((48, 64, 80),) * 4,
        window=((2, 4),) * 4,
        mlp_ratio=((2.0, 2.5, 3.0),) * 4,
        qkv_dim=((32, 64, 96),) * 4,
    )
    config.data.update(
        source="tfds",
        name="cifar10",
        holdout_fraction=0.02,
        cache_in_memory=True,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.247, 0.2435, 0.2616),
        eval_crop=1.0,
    )
    config.augment.update(
        random_resized_crop=False, pad_crop=4, rand_augment_layers=0, random_erasing=0.0, mixup=0.0, cutmix=0.0
    )
    train = {"epochs": 1.25, "batch_size": 128, "warmup_epochs": 0.25, "drop_path": 0.0}
    config.train.update(train)
    config.evolution.update(
        num_samples=200,
        top_k=20,
        # Slopes have standard errors of about 0.12 here: toward zero, tau = 0.4 moves what rests on signal.
        tau=0.4,
        rounding="toward_zero",
        step_embed_dim=16,
        step_window=2,
        step_mlp_ratio=0.5,
        step_qkv_dim=32,
    )
    config.search.update(population=20, generations=4, top=5, mutations=10, crossovers=10)
    config.search.budget.max_macs = 10e6
    # Spaces are measured by architectures under the same limit, so that none is better by growing alone (Eq. 5).
    config.evolution.budget.max_macs = config.search.budget.get_ref("max_macs").identity()
    config.retrain.train.update(train, epochs=4.0)
    config.run.update(eval_batch_size=500, checkpoint_every=200, log_every=20)
    return config
