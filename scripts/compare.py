"""Models beside each other, as the paper's Table 1 has them: on one data set, trained under one recipe, in one table.

    python scripts/compare.py --config=configs/digits.py --workdir=compare/digits --seeds=3 \
        --models=runs/digits/network,timm:resnet18 [--config.field=value]
    python scripts/compare.py --config=configs/finetune_384.py --config.data.path=IMAGENET --workdir=compare/imagenet \
        --evaluate=s3_t=S3-T.pth,runs/mine/network,timm:resnet50=FILE

--models: trained from random weights, for each of so many seeds from config.seed on, by the configuration's fields
model.image_size, data, augment, train and run: published models (scripts/models.py lists them), folders of networks,
of which the architecture is taken, and timm's models after "timm:". --evaluate: weights that are measured as they are,
with the preprocessing that their model has: a folder of a network, or a name with =FILE or =hf-hub:owner/name.

timm's need PyTorch and timm (pip install -e .[parity]). They are trained by PyTorch, on the same batches in the same
order, with the same learning rates, loss and AdamW; the initial weights and the place of stochastic depth are timm's,
and they are trained on one device. ResNet, RegNet, EfficientNet and BoTNets like botnet26t_256 are there; of Table 1
T2T-ViT and BoTNet-S1-110 are not, neither in timm nor here.

WORKDIR gets compare.csv and compare.json; each training has a folder of its own, as WORKDIR/seed_0/s3_t, and the same
command goes on with what was stopped. Finished trainings are kept where models or seeds are added.
"""

from __future__ import annotations

import os
import sys

from absl import app, flags

from s3_jax import main as command_line
from s3_jax.command_flags import parse_flags

_MODELS = flags.DEFINE_string("models", "", "To train: published models, folders, timm:NAME, with commas between.")
_EVALUATE = flags.DEFINE_string("evaluate", "", "To measure: NAME=WEIGHTS or folders of networks, with commas between.")
_SEEDS = flags.DEFINE_string("seeds", "1", "How many trainings of each model, with seeds from config.seed on.")


def main(arguments: list[str]) -> int:
    """Do the comparison, or what is left of it. Returns the exit code, as s3_jax.main does."""
    if "timm:" in _MODELS.value + _EVALUATE.value:
        # JAX would take most of a GPU's memory before PyTorch asks for some.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    def work(config, workdir, console, stop) -> None:
        """The comparison; its libraries take seconds to load."""
        from s3_jax.comparison.plan import plan_of
        from s3_jax.comparison.running import run_comparison

        plan = plan_of(config, _MODELS.value, _EVALUATE.value, _SEEDS.value)
        run_comparison(plan, workdir, console=console, stop=stop)

    return command_line.carry_out(arguments, work)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    sys.exit(app.run(main, flags_parser=parse_flags))
