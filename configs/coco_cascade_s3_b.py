"""Cascade Mask R-CNN on S3-B, COCO: the recipe of configs/coco_cascade_s3_t.py.

    python -m s3_jax.main --config=configs/coco_cascade_s3_b.py --workdir=runs/coco_s3_b \
        --config.data.path=COCO --config.backbone.weights=S3-B.pth

3x with --config=configs/coco_cascade_s3_b.py:3x.
The paper reports a box AP of 50.8 % and a mask AP of 43.7 % for 1x, 52.5 and 45.4 % for 3x.
The stochastic depth of its 1x is not known; here it is that of 3x. Not run by us.
"""

import runpy
from pathlib import Path

import ml_collections


def get_config(schedule: str = "1x") -> ml_collections.ConfigDict:
    """The settings of a schedule, 1x or 3x."""
    config = runpy.run_path(str(Path(__file__).with_name("coco_cascade_s3_t.py")))["get_config"](schedule)
    config.backbone.model = "s3_b"
    config.train.drop_path = 0.3
    return config
