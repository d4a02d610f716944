"""Cascade Mask R-CNN on S3-T, COCO: the recipe with which Swin and S3 are measured (paper Sec. 4.3, Table 2).

    python -m s3_jax.main --config=configs/coco_cascade_s3_t.py --workdir=runs/coco_s3_t \
        --config.data.path=COCO --config.backbone.weights=S3-T.pth

COCO/annotations/instances_{train,val}2017.json and COCO/{train,val}2017/*.jpg. 12 epochs (1x), or 36 (3x) with
--config=configs/coco_cascade_s3_t.py:3x, of 16 images on canvases of 800 x 1344 or 1344 x 800 px: a multi-GPU host or a
TPU slice; not run by us. The paper reports a box AP of 48.4 % and a mask AP of 42.0 % for 1x, 50.5 and 43.8 % for 3x.
Where it differs from mmdetection 2.11: batch statistics are of the whole batch and not of a device's; biases are not
decayed; an upright cut of a lying image is shown as large as its canvas allows. To evaluate during training add
--config.data.holdout_split=val2017 --config.run.evaluate_every=5000.
"""

import ml_collections

from s3_jax.config import default_config
from s3_jax.errors import S3Error

WARMUP, IMAGES, BATCH = 500, 117_266, 16  # updates; images of train2017 that have objects
# Epochs, those after which the rate falls to a tenth, and stochastic depth.
SCHEDULES = {"1x": (12.0, (8.0, 11.0), 0.0), "3x": (36.0, (27.0, 33.0), 0.2)}


def get_config(schedule: str = "1x") -> ml_collections.ConfigDict:
    """The settings of a schedule, 1x or 3x."""
    if schedule not in SCHEDULES:
        raise S3Error(f"--config=FILE:{schedule}: there is no such schedule; take one of {', '.join(SCHEDULES)}")
    epochs, drop_epochs, drop_path = SCHEDULES[schedule]
    config = default_config("s3_jax.detection")
    config.backbone.model = "s3_t"
    config.model.update(dtype="bfloat16")
    config.data.update(
        source="coco", train_split="train2017", test_split="val2017", holdout_fraction=0.01, num_workers=16
    )
    config.train.update(
        epochs=epochs,
        drop_epochs=drop_epochs,
        schedule="steps",
        warmup_epochs=WARMUP * BATCH / IMAGES,
        batch_size=BATCH,
        learning_rate=1e-4,
        min_learning_rate=0.0,
        weight_decay=0.05,
        drop_path=drop_path,
    )
    config.run.update(eval_batch_size=16, checkpoint_every=2000)
    return config
