"""UperNet on S3-T, ADE20K: the recipe with which Swin and S3 are measured (paper Sec. 4.3, Table 3).

    python -m s3_jax.main --config=configs/ade20k_upernet_s3_t.py --workdir=runs/ade20k_s3_t \
        --config.data.path=ADEChallengeData2016 --config.data.classes=CLASSES.txt --config.backbone.weights=S3-T.pth

CLASSES.txt: the names of the 150 classes, one a line. 160,000 updates of 16 crops of 512 px: a multi-GPU host or a TPU
slice; not run by us. The paper reports a mIoU of 44.87 %, 46.27 % with scales and flips. Where it differs from
mmsegmentation 0.11: batch statistics are of the whole batch and not of a device's; biases are not decayed; test sizes
are multiples of 32, in the run's own result too: for the published protocol begin with --config.data.test_multiple=1,
which compiles a program for each of hundreds of sizes.
"""

import ml_collections

from s3_jax.config import default_config

UPDATES, WARMUP, IMAGES, BATCH = 160_000, 1_500, 20_210, 16


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config("s3_jax.segmentation")
    config.backbone.model = "s3_t"
    config.model.update(dtype="bfloat16")
    config.data.update(
        source="mask_folder",
        train_split="training",
        test_split="validation",
        zero_is_ignored=True,
        holdout_fraction=0.01,
        num_workers=16,
        test_multiple=32,
    )
    config.train.update(
        epochs=UPDATES * BATCH / IMAGES,
        warmup_epochs=WARMUP * BATCH / IMAGES,
        batch_size=BATCH,
        learning_rate=6e-5,
        min_learning_rate=0.0,
        schedule="linear",
        weight_decay=0.01,
        drop_path=0.3,
    )
    config.run.update(eval_batch_size=16, checkpoint_every=4000)
    return config
