"""UperNet on S3-S, ADE20K: the recipe of configs/ade20k_upernet_s3_t.py.

    python -m s3_jax.main --config=configs/ade20k_upernet_s3_s.py --workdir=runs/ade20k_s3_s \
        --config.data.path=ADEChallengeData2016 --config.data.classes=CLASSES.txt --config.backbone.weights=S3-S.pth

The paper reports a mIoU of 48.04 %, 49.31 % with scales and flips. Not run by us.
"""

import runpy
from pathlib import Path

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = runpy.run_path(str(Path(__file__).with_name("ade20k_upernet_s3_t.py")))["get_config"]()
    config.backbone.model = "s3_s"
    return config
