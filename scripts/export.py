"""Take a network away into other tools: safetensors, StableHLO and ONNX, with a model card.

    python scripts/export.py --model=runs/digits/network --out=exported
    python scripts/export.py --model=s3_t --weights=S3-T.pth --out=exported --formats=safetensors,stablehlo
    python scripts/export.py --model=runs/mine/network --out=exported --size=512,512

--model, --weights, --class_names: as for predict.py. --formats: any of safetensors (with architecture.json), stablehlo,
onnx (extra onnx). Inputs are images float32 (batch, height, width, 3), normalised as architecture.json tells; the batch
size is free. --size: their height and width, those that the network was trained on, or for a segmentation network those
of a lying image that it is tested on, if not given. Outputs are logits: (batch, classes), or for a segmentation network
(batch, height, width, classes), of the image's pixels. Of a detector the image fills a canvas, the first of its own
without --size, and the outputs are boxes (batch, K, 4), scores and labels (batch, K), -1 where nothing is, and masks of
the boxes (batch, K, 28, 28); there is no ONNX file of one, and none is tried without --formats. A network for visual
question answering takes the images' sizes on their canvas and a question's tokens as well: see docs/vqa.md.
"""

from __future__ import annotations

import logging
import sys

from absl import app, flags

from s3_jax.command_flags import parse_flags
from s3_jax.errors import S3Error
from s3_jax.networks import standalone, zoo
from s3_jax.networks.export import export_onnx, export_stablehlo, size_of
from s3_jax.paths import print_any_name, user_path

FORMATS = ("safetensors", "stablehlo", "onnx")
_MODEL = flags.DEFINE_string("model", None, "Published model, or folder of a network.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "File or hf-hub:owner/name of a published model's weights.")
_NAMES = flags.DEFINE_string("class_names", "", "File with the name of a class in each line.")
_OUT = flags.DEFINE_string("out", None, "Folder to write to.", required=True)
_FORMATS = flags.DEFINE_list("formats", None, "Which to write; if not given, all that the network can have.")
_SIZE = flags.DEFINE_string("size", None, "HEIGHT,WIDTH of images in pixels; without, the network's own.")


def main(arguments: list[str]) -> int:
    """Write every format. Returns the exit code."""
    del arguments
    print_any_name()
    for name in ("jax2onnx", "onnx_ir"):  # hundreds of lines, of no use to who exports
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        out = user_path(_OUT.value)
        given = list(FORMATS) if _FORMATS.value is None else _FORMATS.value
        unknown = sorted(set(given) - set(FORMATS))
        if unknown or not given:
            raise S3Error(f"--formats has {repr(unknown[0]) if unknown else 'none'}; choose of {', '.join(FORMATS)}")
        size = None if _SIZE.value is None else size_of(_SIZE.value)
        model = zoo.open_model(_MODEL.value, _WEIGHTS.value, _NAMES.value)
        unasked = _FORMATS.value is None and model.spec.NO_ONNX  # what nobody asked for is no reason to end
        formats = [name for name in given if name != "onnx" or not unasked]
        if "onnx" in formats:
            export_onnx(model, out / "model.onnx", size)
        if "stablehlo" in formats:
            export_stablehlo(model, out / "model.stablehlo", size)
        if "safetensors" in formats:
            standalone.save(out, model)
        else:
            standalone.save_card(out, model.spec)
    except S3Error as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    print(f"{', '.join(formats)}: {out}")
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
