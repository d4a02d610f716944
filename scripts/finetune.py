"""Train a network that has weights already: at another resolution, or on your own classes.

    python scripts/finetune.py --config=configs/finetune_384.py --model=s3_b --weights=S3-B.pth \
        --workdir=runs/s3_b_384 --config.data.path=IMAGENET
    python scripts/finetune.py --config=configs/image_folder.py --model=runs/mine/network --workdir=runs/finer \
        --config.data.path=FOLDER

--model, --weights, --class_names: as for predict.py; weights without a classifier will do. The configuration's fields
model.image_size, data, augment, train and run count. The network is then in WORKDIR/network. The same command goes on
with a training that was stopped. --from_scratch: the same training from random weights, to compare with.
"""

from __future__ import annotations

import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console
from rich.text import Text

from s3_jax.command_flags import parse_flags
from s3_jax.config import config_of
from s3_jax.errors import Interrupted, S3Error
from s3_jax.finetune import Start, finetune
from s3_jax.networks import zoo
from s3_jax.paths import print_any_name, printable, user_path
from s3_jax.training.devices import keep_compiled_programs, keep_freed_memory, start_processes
from s3_jax.training.loop import StopRequest

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file; its fields can be given as flags.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the training.", required=True)
_MODEL = flags.DEFINE_string("model", None, "Published model, or folder of a network.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "File or hf-hub:owner/name of a published model's weights.")
_NAMES = flags.DEFINE_string("class_names", "", "File with the name of a class of the weights in each line.")
_FROM_SCRATCH = flags.DEFINE_bool("from_scratch", False, "Begin with random weights instead.")


def main(arguments: list[str]) -> int:
    """Train. Returns the exit code, as s3_jax.main does."""
    del arguments
    logging.set_verbosity(logging.WARNING)
    print_any_name()
    console = Console()
    try:
        keep_compiled_programs()
        start_processes()
        keep_freed_memory()
        console.quiet = jax.process_index() != 0
        stop = StopRequest()
        stop.listen()
        config = config_of(_CONFIG.value.to_dict())
        workdir = user_path(_WORKDIR.value)
        start = zoo.open_model(_MODEL.value, _WEIGHTS.value, _NAMES.value, new_head=True)
        begun = Start(start, start.spec.architecture, _FROM_SCRATCH.value)
        result = finetune(begun, config, workdir, console=console, stop=stop)
        network = printable(workdir / "network")
        console.print(Text(f"{result['in_words']} on the test split; network: {network}"), soft_wrap=True)
    except Interrupted as stopped:
        print(stopped)
        return 143
    except (S3Error, OSError, ImportError, SyntaxError) as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    app.run(main, flags_parser=parse_flags)
