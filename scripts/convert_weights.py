"""Write the weights of a network for timm: a safetensors file with its names and shapes, every tensor checked.

    python scripts/convert_weights.py --model=s3_t --weights=S3-T.pth --out=s3_t.safetensors
    python scripts/convert_weights.py --model=runs/mine/network --out=mine.safetensors

--model, --weights: as for predict.py. timm.create_model(name, checkpoint_path="s3_t.safetensors") reads the file where
the architecture is one of timm's.
"""

from __future__ import annotations

import sys

from absl import app, flags

from s3_jax.command_flags import parse_flags
from s3_jax.errors import S3Error
from s3_jax.networks import zoo
from s3_jax.networks.convert import to_state_dict
from s3_jax.networks.files import write_safetensors
from s3_jax.paths import print_any_name, user_path

_MODEL = flags.DEFINE_string("model", None, "Published model, or folder of a network.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "File or hf-hub:owner/name of a published model's weights.")
_OUT = flags.DEFINE_string("out", None, "File to write.", required=True)


def main(arguments: list[str]) -> int:
    """Read, check and write. Returns the exit code."""
    del arguments
    print_any_name()
    try:
        out = user_path(_OUT.value)
        if not out.name or out.is_dir():
            raise S3Error(
                f"--out={_OUT.value} is a folder; give the name of a file to write, such as {out / 'a.safetensors'}"
            )
        tensors = to_state_dict(zoo.open_model(_MODEL.value, _WEIGHTS.value).network)
        write_safetensors(out, tensors, {"format": "pt"})
    except S3Error as error:
        print(f"convert_weights: {error}", file=sys.stderr)
        return 2
    print(f"{len(tensors)} tensors: {out}")
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
