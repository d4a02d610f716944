"""Fine-tuning at 384 px on ImageNet-1k, as the paper does it (Sec. 4.1): 10 epochs, AdamW, constant 1e-5, decay 1e-8.

    python scripts/finetune.py --config=configs/finetune_384.py --model=s3_b --weights=S3-B.pth \
        --workdir=runs/s3_b_384 --config.data.path=IMAGENET

IMAGENET holds train/<class>/* and val/<class>/*. The paper reports 84.5 % (S3-S) and 84.7 % (S3-B); this project has
not run it: it takes days on a multi-GPU host or a pod slice. Batch size and augmentation: the paper does not say; they
are those of its training.
"""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings; those of the space, evolution and search do not count."""
    config = default_config()
    config.model.update(image_size=384, dtype="bfloat16", remat=True)
    config.data.update(source="image_folder", test_split="val", num_workers=16, eval_crop=1.0)
    config.train.update(
        epochs=10.0, learning_rate=1e-5, min_learning_rate=1e-5, warmup_epochs=0.0, weight_decay=1e-8, batch_size=1024
    )
    config.run.update(eval_batch_size=256)
    return config
