"""Which rows of the paper's Table 1 the models of a comparison are, and which rows nobody has here."""

from __future__ import annotations

import re

from s3_jax.errors import S3Error
from s3_jax.report.published_figure import published

TIMM = "timm:"  # begins the name of a model of timm's

# The rows of Table 1 by the names that models are given by; timm's without their tags of weights.
ROWS = {
    "s3_t": "S3-T",
    "s3_s": "S3-S",
    "s3_b": "S3-B",
    "s3_s_384": "S3-S-384",
    "s3_b_384": "S3-B-384",
    "swin_t": "Swin-T",
    "swin_s": "Swin-S",
    "swin_b": "Swin-B",
    "deit_s": "DeiT-S",
    "deit_b": "DeiT-B",
    "vit_s16": "ViT-S/16",
    "vit_b16": "ViT-B/16",
    "timm:resnet50": "ResNet50",
    "timm:resnet152": "ResNet152",
    "timm:regnety_040": "RegNetY-4GF",
    "timm:regnety_160": "RegNetY-16GF",
    "timm:efficientnet_b4": "EfficientNet-B4",
    "timm:tf_efficientnet_b4": "EfficientNet-B4",
    "timm:efficientnet_b7": "EfficientNet-B7",
    "timm:tf_efficientnet_b7": "EfficientNet-B7",
    "timm:swin_s3_tiny_224": "S3-T",
    "timm:swin_s3_small_224": "S3-S",
    "timm:swin_s3_base_224": "S3-B",
    "timm:swin_tiny_patch4_window7_224": "Swin-T",
    "timm:swin_small_patch4_window7_224": "Swin-S",
    "timm:swin_base_patch4_window7_224": "Swin-B",
    "timm:swin_base_patch4_window12_384": "Swin-B-384",
    "timm:deit_small_patch16_224": "DeiT-S",
    "timm:deit_base_patch16_224": "DeiT-B",
    "timm:vit_small_patch16_224": "ViT-S/16",
    "timm:vit_base_patch16_224": "ViT-B/16",
}
# As their names begin, in small letters and digits alone.
_NOWHERE = ("t2tvit", "botnets1")


def published_top1(name: str) -> float | None:
    """The top-1 accuracy in percent that Table 1 gives a model on ImageNet; None where it has no such row."""
    row = ROWS.get(name.partition(".")[0] if name.startswith(TIMM) else name)
    accuracies = {each["model"]: float(each["accuracy"]) for each in published()}
    return None if row is None else accuracies[row]


def check_somewhere(name: str) -> None:
    """Raises S3Error for the rows of Table 1 that are neither models of this package nor of timm."""
    plain = re.sub(r"[^a-z0-9]", "", name.removeprefix(TIMM).lower())
    if plain.startswith(_NOWHERE):
        raise S3Error(
            f"{name}: of the paper's Table 1 the T2T-ViTs and BoTNet-S1-110 are neither in timm nor here, so they "
            "cannot be compared; leave it out. What comes nearest to the second in timm is timm:botnet26t_256"
        )
