"""The whole method on some thousands of your own images, begun with a network that is trained already.

    python -m s3_jax.main --config=configs/image_folder_pretrained.py --workdir=runs/mine --config.data.path=FOLDER \
        --config.train.init_from=s3_t --config.train.init_weights=swin_s3_tiny.safetensors

init_from: s3_t or swin_t with a file of their weights or hf-hub:owner/name, or the folder of a network of your own
without init_weights. The space lies around S3-T, of which every network is a part: its widths are S3-T's and two thirds
of them, its stages as deep or shallower, so that the largest network is S3-T itself. At 64 px it takes 0.37 G
multiply-adds.

On two CPU cores 2,000 images of 5 classes took 29 minutes in all, with some other work beside it (2026-11-26; 64.2 %
from a network of one epoch). Twice the images take twice as long; larger ones (--config.model.image_size=128, with
--config.search.budget.max_macs=1e9) four times, for which an accelerator is better. For a network of your own, set the
space around it: what is larger than the network begins at random.
"""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config()
    config.model.update(image_size=64)
    config.space.update(
        depth=((1, 2), (1, 2), (2, 4, 6), (1, 2)),
        embed_dim=((64, 96), (128, 192), (256, 384), (512, 768)),
        window=((4, 7), (4, 7), (4,), (2,)),
        mlp_ratio=((3.0, 3.5, 4.0),) * 4,
        qkv_dim=((64, 96), (128, 192), (256, 384), (512, 768)),
    )
    config.data.update(source="image_folder", holdout_fraction=0.15, on_bad_image="skip", cache_in_memory=True)
    config.augment.update(crop_scale=(0.5, 1.0), rand_augment_layers=0, random_erasing=0.0, mixup=0.0, cutmix=0.0)
    train = {"epochs": 2.0, "batch_size": 32, "warmup_epochs": 0.3, "drop_path": 0.0, "learning_rate": 2e-4}
    config.train.update(train)
    config.evolution.update(
        num_spaces=2,
        num_samples=60,
        top_k=10,
        tau=1.0,
        rounding="toward_zero",
        step_embed_dim=32,
        step_window=3,
        step_qkv_dim=32,
    )
    config.search.update(population=16, generations=3, top=5, mutations=8, crossovers=8)
    config.search.budget.max_macs = 250e6
    # Spaces are measured by architectures under the same limit, so that none is better by growing alone (Eq. 5).
    config.evolution.budget.max_macs = config.search.budget.get_ref("max_macs").identity()
    config.retrain.train.update(train, epochs=4.0)
    config.run.update(eval_batch_size=128, checkpoint_every=100, log_every=10)
    return config
