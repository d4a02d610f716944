"""Compile a run's programs for accelerators that are not there: what they need, before a pod is paid for.

    python scripts/compile_ahead.py --config=configs/imagenet_s3.py --topology=v5e:4x4
    python scripts/compile_ahead.py --config=configs/imagenet_s3.py --topology=v5e:4x4 --architecture=s3_b

    python scripts/compile_ahead.py --config=configs/ade20k_upernet_s3_t.py --topology=v5e:4x4 --num_classes=150

Compiles the sandwich update and the evaluation of the configuration's first space; or, with --architecture (the name of
a published one, or a JSON file such as a run's search/best.json), the update that retrains it; or, of a configuration
that trains the one network of `config.backbone`, the update that does. Exit code 2 where one does not fit, with the
overshoot. Needs libtpu on a machine without a TPU: pip install "jax[tpu]".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # of this process: the chips that are compiled for are not there

from absl import app, flags
from jax.sharding import Mesh
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from s3_jax.command_flags import parse_flags
from s3_jax.config import Config, config_of, room_of
from s3_jax.errors import S3Error
from s3_jax.finetune import start_without_weights, target_architecture
from s3_jax.networks import zoo
from s3_jax.profiling import ahead
from s3_jax.profiling.collectives import Collective

_CONFIG = config_flags.DEFINE_config_file("config", "configs/imagenet_s3.py", "Configuration file.")
_TOPOLOGY = flags.DEFINE_string("topology", "v5e:4x4", "Chips, as v5e:4x4.")
_ARCHITECTURE = flags.DEFINE_string("architecture", None, "Name of a published architecture, or a JSON file.")
_CLASSES = flags.DEFINE_integer("num_classes", 1000, "Of the data set.", lower_bound=1)
_IN_PROCESS = flags.DEFINE_bool("in_process", False, "Compile in this process; otherwise in one whose end is told.")
_JSON = flags.DEFINE_bool("json", False, "Print one line of JSON for each program.")


def as_record(result: ahead.Compiled) -> dict[str, Any]:
    """One line of JSON."""
    return result._asdict() | {"collectives": [each._asdict() for each in result.collectives]}


def table_of(results: list[ahead.Compiled], mesh_size: int, limit: int) -> Table:
    """What each program needs on one chip: a column for each."""
    title = f"{_TOPOLOGY.value}: {mesh_size} chips of {limit / ahead.GIB:.0f} GiB; figures of one chip"
    table = Table("", *(result.name for result in results), title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("memory, GiB", *(f"{result.memory / ahead.GIB:.2f}" for result in results))
    table.add_row("  of these arguments", *(f"{result.arguments / ahead.GIB:.2f}" for result in results))
    table.add_row("multiply-adds, G", *(f"{result.macs / 1e9:,.3g}" for result in results))
    table.add_row("  more, done again", *(f"{result.recomputed / 1e9:,.3g}" for result in results))
    table.add_row("memory traffic, GB", *(f"{result.bytes_accessed / 1e9:,.3g}" for result in results))
    traffic = ("\n".join(map(sent, result.collectives)) for result in results)
    table.add_row("sent to other chips, MiB", *(text or "nothing" for text in traffic))
    table.add_row("compiled in, s", *(f"{result.seconds:.0f}" for result in results))
    return table


def sent(collective: Collective) -> str:
    """One kind of collective operation."""
    return f"{collective.kind} {collective.executions} x, {collective.bytes / 2**20:,.1f}"


def main(arguments: list[str]) -> int:
    """Compile and print. Returns the exit code."""
    del arguments
    return compile_and_print() if _IN_PROCESS.value else run_guarded([sys.executable, *sys.argv, "--in_process"])


def programs_of(config: Config, mesh: Mesh) -> Iterator[ahead.Program]:
    """The programs of a configuration, for a data set of which the number of classes alone is known."""
    task = room_of(config.task).without_images(config, tuple(map(str, range(_CLASSES.value))))
    if _ARCHITECTURE.value:
        return ahead.retraining_programs(config, task, zoo.read_architecture(_ARCHITECTURE.value), mesh)
    if config.backbone.is_given:
        architecture = target_architecture(start_without_weights(config.backbone), config)
        return ahead.transfer_programs(config, task, architecture, mesh)
    return ahead.supernet_programs(config, task, mesh)


def run_guarded(command: list[str]) -> int:
    """Run a command; where a signal ends it, as libtpu does by its own failed checks, say so. Returns the exit code."""
    with tempfile.TemporaryFile("w+") as said:
        code = subprocess.run(command, stderr=said).returncode
        said.seek(0)
        lines = said.read().splitlines()
    if code >= 0:
        print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)
        return code
    reason = next((line for line in lines if "Check failed" in line), lines[-1] if lines else "it said nothing")
    print(
        f"compile_ahead: the compiler gave up on this program (signal {-code}): {reason.strip()}\nThat is a fault of "
        "libtpu, not of the settings; another design may pass: model.every_width=False, or a flag for it in "
        "LIBTPU_INIT_ARGS",
        file=sys.stderr,
    )
    return 2


def compile_and_print() -> int:
    """What the command does. Returns the exit code."""
    try:
        config, limit = config_of(_CONFIG.value.to_dict()), ahead.hbm_bytes(_TOPOLOGY.value)
        mesh = ahead.make_topology(_TOPOLOGY.value)
        results = []
        for program in programs_of(config, mesh):
            results.append(ahead.compile_ahead(program))
            if _JSON.value:
                print(json.dumps(as_record(results[-1])), flush=True)
            ahead.check_fits(results[-1], limit)
    except S3Error as error:
        print(f"compile_ahead: {error}", file=sys.stderr)
        return 2
    if not _JSON.value:
        Console().print(table_of(results, mesh.size, limit))
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
