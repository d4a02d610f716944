"""Write a stand-alone network out of a run: the best architecture it has found, or any other of its space.

    python scripts/extract_subnet.py --workdir=runs/digits --out=runs/digits/network --retrained
    python scripts/extract_subnet.py --workdir=runs/imagenet --architecture=mine.json --out=networks/mine

--architecture: a JSON file such as search/best.json. --retrained: the weights of the winner's retraining instead of
those it inherits from the supernet. The folder holds architecture.json, weights.safetensors and a model card. The run
may be of any task whose networks can be by themselves, as those of this package's tasks can.
"""

from __future__ import annotations

import sys

from absl import app, flags, logging

from s3_jax.command_flags import parse_flags
from s3_jax.errors import S3Error
from s3_jax.networks import standalone, zoo
from s3_jax.networks.extract import extract
from s3_jax.paths import print_any_name, user_path

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for the network.", required=True)
_ARCHITECTURE = flags.DEFINE_string("architecture", "", "JSON file of an architecture, instead of the best one.")
_RETRAINED = flags.DEFINE_bool("retrained", False, "Take the weights of the winner's retraining.")


def main(arguments: list[str]) -> int:
    """Extract and write. Returns the exit code."""
    del arguments
    logging.set_verbosity(logging.WARNING)
    print_any_name()
    try:
        architecture = zoo.read_architecture(_ARCHITECTURE.value) if _ARCHITECTURE.value else None
        model = extract(user_path(_WORKDIR.value), architecture, retrained=_RETRAINED.value)
        out = user_path(_OUT.value)
        standalone.save(out, model)
    except S3Error as error:
        print(f"extract_subnet: {error}", file=sys.stderr)
        return 2
    print(f"{model.spec.cost.params:,} parameters: {out}")
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
