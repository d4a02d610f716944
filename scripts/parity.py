"""Compare our networks with timm's on equal weights and images. Needs the extra parity, in an environment of its own.

    python scripts/parity.py [--models=s3_t,swin_b] [--images=FOLDER] [--write=tests/golden_logits.json]

For every published model: the largest difference of the logits and of each stage's map, on weights drawn from a seed by
the name of each tensor. Those of 384 px are made of the weights for 224 px, once by timm's bicubic resizing and once by
ours. --write keeps some logits for the tests, which need no PyTorch.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from flax import nnx
from rich.console import Console
from rich.table import Table

from s3_jax.classification.inference import read_image
from s3_jax.command_flags import parse_flags
from s3_jax.data.image_folder import list_images
from s3_jax.errors import S3Error
from s3_jax.models import S3Transformer
from s3_jax.networks import zoo
from s3_jax.networks.convert import load_weights
from s3_jax.paths import user_path
from s3_jax.writing import write_whole

TIMM = {
    "s3_t": "swin_s3_tiny_224",
    "s3_s": "swin_s3_small_224",
    "s3_b": "swin_s3_base_224",
    "s3_s_384": "swin_s3_small_224",
    "s3_b_384": "swin_s3_base_224",
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "deit_s": "deit_small_patch16_224",
    "deit_b": "deit_base_patch16_224",
    "vit_s16": "vit_small_patch16_224",
    "vit_b16": "vit_base_patch16_224",
}
KEPT = 8  # logits of an image that the tests compare
_MODELS = flags.DEFINE_list("models", list(TIMM), "Of the published ones.")
_IMAGES = flags.DEFINE_string("images", "", "Folder of images, at any depth: compare what is made of them, too.")
_WRITE = flags.DEFINE_string("write", None, "File for some logits of the models.")


def seeded_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights that depend on a tensor's name alone, of a size at which activations neither vanish nor explode."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if len(shape) == 1:
        return 0.1 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    fan_in = 4 if "table" in name or ("embed" in name and "proj" not in name) else int(np.prod(shape[1:]))
    return noise * np.float32(fan_in**-0.5)


def seeded_images(size: int) -> np.ndarray:
    """Two images (2, size, size, 3)."""
    return np.random.default_rng(size).standard_normal((2, size, size, 3), np.float32)


def our_answers(name: str, tensors: dict[str, np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits and maps of our network on the state dict of the same model for 224 px."""
    network = nnx.eval_shape(lambda: zoo.create(name))
    load_weights(network, tensors, resize=name.endswith("_384"), reset_head=False)
    images = seeded_images(zoo.spec(name).image_size)
    run = nnx.jit(lambda network, x: (network(x), maps_of(network, x)))
    logits, maps = run(network, images)
    return np.asarray(logits), list(map(np.asarray, maps))


def maps_of(network: Any, x: Any) -> list[Any]:
    """The stages' maps (B, H, W, C); of a plain transformer all its tokens (B, N, C) after the last block."""
    return network.features(x, dense=False) if isinstance(network, S3Transformer) else [network.tokens(x)]


def timm_answers(name: str) -> tuple[dict[str, np.ndarray], np.ndarray, list[np.ndarray]]:
    """timm's state dict for 224 px, and what its model answers."""
    import timm
    import torch
    from timm.layers import resize_rel_pos_bias_table_simple

    model = timm.create_model(TIMM[name])
    tensors = {key: seeded_tensor(key, tuple(value.shape)) for key, value in model.state_dict().items()}
    loaded = {key: torch.from_numpy(value) for key, value in tensors.items()}
    size = zoo.spec(name).image_size
    if name.endswith("_384"):
        windows = tuple(stage.blocks[0].window for stage in zoo.architecture(name).stages)
        model = timm.create_model(TIMM[name], img_size=size, window_size=windows)
        for key, value in model.state_dict().items():
            if "bias_table" in key:
                side = round(len(value) ** 0.5)
                window = (side + 1) // 2
                loaded[key] = resize_rel_pos_bias_table_simple(loaded[key], (window, window), tuple(value.shape))
    model.load_state_dict(loaded)
    model.eval()
    images = torch.from_numpy(seeded_images(size)).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = model(images).numpy()
        if "swin" not in TIMM[name]:
            maps = [
                model.forward_intermediates(images, indices=1, output_fmt="NLC", return_prefix_tokens=True, norm=False)
            ]
            last, prefix = maps[0][1][0]
            return tensors, logits, [torch.cat([prefix, last], dim=1).numpy()]
        maps = model.forward_intermediates(images, output_fmt="NCHW", intermediates_only=True)
    return tensors, logits, [each.permute(0, 2, 3, 1).numpy() for each in maps]


def preprocessing_difference(folder: Path) -> tuple[int, float]:
    """How many images there are, and how far the two evaluation transforms lie apart at most, in steps of 255."""
    from PIL import Image
    from timm.data import create_transform

    spec, differences = zoo.spec("s3_t"), []
    transform = create_transform(
        spec.image_size, interpolation="bicubic", crop_pct=spec.eval_crop, mean=spec.mean, std=spec.std
    )
    for path in list_images([str(folder)]):
        theirs = transform(Image.open(path).convert("RGB")).numpy().transpose(1, 2, 0)
        difference = np.abs(read_image(path, spec) - theirs) * np.array(spec.std) * 255
        differences.append(float(difference.max()))
    return len(differences), max(differences)


def main(arguments: list[str]) -> int:
    """Compare, print, and write. Returns the exit code."""
    del arguments
    try:
        compare()
    except S3Error as error:
        print(f"parity: {error}", file=sys.stderr)
        return 2
    return 0


def compare() -> None:
    """Compare, print, and write. Raises S3Error for names and paths that are none."""
    unknown = sorted(set(_MODELS.value) - set(TIMM))
    if unknown:
        raise S3Error(f"--models has {unknown[0]!r}; choose of {', '.join(TIMM)}")
    if _IMAGES.value:
        count, largest = preprocessing_difference(user_path(_IMAGES.value))
        print(f"preprocessing of {count:,} images: largest difference {largest:.1e} of 255")
    rows = Table("model", "logits", "maps", "largest logit", title="Largest difference from timm, float32")
    kept = {}
    for name in _MODELS.value:
        tensors, logits, maps = timm_answers(name)
        ours, our_maps = our_answers(name, tensors)
        differences = [np.abs(a - b).max() for a, b in zip(our_maps, maps, strict=True)]
        rows.add_row(
            name,
            f"{np.abs(ours - logits).max():.1e}",
            " ".join(f"{d:.1e}" for d in differences),
            f"{np.abs(logits).max():.1f}",
        )
        kept[name] = logits[:, :KEPT].tolist()
    Console().print(rows)
    if _WRITE.value:
        write_whole(user_path(_WRITE.value), json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
