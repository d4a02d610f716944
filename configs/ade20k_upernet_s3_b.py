"""UperNet on S3-B, ADE20K: the recipe of configs/ade20k_upernet_s3_t.py.

    python -m s3_jax.main --config=configs/ade20k_upernet_s3_b.py --workdir=runs/ade20k_s3_b \
        --config.data.path=ADEChallengeData2016 --config.data.classes=CLASSES.txt --config.backbone.weights=S3-B.pth

The paper has no figure for it. Not run by us.
"""

import runpy
from pathlib import Path

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = runpy.run_path(str(Path(__file__).with_name("ade20k_upernet_s3_t.py")))["get_config"]()
    config.backbone.model = "s3_b"
    return config
