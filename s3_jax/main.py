"""The command line: `python -m s3_jax.main --config=configs/digits.py --workdir=runs/digits [--config.field=value]`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

# Nothing here may import JAX or anything else that takes seconds: `main` does, once it has said so.
from s3_jax import __version__
from s3_jax.command_flags import parse_flags
from s3_jax.config import Config, config_of
from s3_jax.errors import Interrupted, S3Error
from s3_jax.paths import AnyPath, print_any_name, printable, user_path
from s3_jax.progress import say

if TYPE_CHECKING:
    from s3_jax.training.loop import StopRequest

EXIT_FAILED = 1  # another process of the run is gone
EXIT_MISTAKE = 2
EXIT_STOPPED = 143  # what a shell reports of a process that ended on SIGTERM

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file; its fields can be given as flags.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: its records, checkpoints and report.")

# What a command does with its settings, its folder, the screen, and what tells that it is to stop.
Work = Callable[[Config, AnyPath, Console, "StopRequest"], None]


def main(arguments: list[str]) -> int:
    """Do the run, or what is left of it. Returns the exit code as `carry_out` does."""
    return carry_out(arguments, _run)


def carry_out(arguments: list[str], work: Work) -> int:
    """Do `work` with the settings of the flags. Returns 0, 1, 2 for a mistake, 143 for a stop on request."""
    print_any_name()
    console = Console(stderr=False, quiet=False)
    say(console, f"s3_jax {__version__}: loading libraries and data ...")
    import jax

    from s3_jax.training.loop import StopRequest

    try:
        if len(arguments) > 1:
            raise S3Error(f"unexpected arguments {arguments[1:]}; every one is a flag; --help lists them")
        _prepare()
        console.quiet = jax.process_index() != 0
        stop = StopRequest()
        stop.listen()
        workdir = user_path(str(_WORKDIR.value))
        work(_settings(), workdir, console, stop)
    except Interrupted as stopped:
        say(console, str(stopped))
        return EXIT_STOPPED
    except S3Error as error:
        print(f"s3_jax: {printable(error)}", file=sys.stderr)
        return EXIT_MISTAKE
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        _leave(jax.process_index(), error)
    except OSError as error:
        print(
            f"s3_jax: {printable(error)}. What was written before is whole: put that right, and the same command goes "
            "on",
            file=sys.stderr,
        )
        return EXIT_MISTAKE
    return 0


def _prepare() -> None:
    from s3_jax.training.devices import keep_compiled_programs, keep_freed_memory, start_processes

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    keep_compiled_programs()
    start_processes()
    keep_freed_memory()


def _settings() -> Config:
    try:
        settings = _CONFIG.value.to_dict()
    except (OSError, ImportError, SyntaxError) as error:
        raise S3Error(f"the configuration file could not be loaded: {error}") from error
    return config_of(settings)


def _run(config: Config, workdir: AnyPath, console: Console, stop: StopRequest) -> None:
    import jax

    from s3_jax.finetune import transfer
    from s3_jax.pipeline import run_pipeline

    if config.backbone.is_given:
        result = transfer(config, workdir, console=console, stop=stop)
        say(console, f"{result['in_words']} on the test split; network: {printable(workdir / 'network')}")
        return
    result = run_pipeline(config, workdir, console=console, stop=stop)
    from s3_jax.report.tables import result_table  # and with it matplotlib
    from s3_jax.report.write import write_report

    say(console, result_table(result))
    if jax.process_index() == 0:
        say(console, f"Report: {write_report(workdir)}")


def _leave(index: int, error: Exception) -> NoReturn:
    """End a process that cannot work with the others any more, at once: an ordinary exit would wait for them."""
    print(
        f"s3_jax: process {index} ends: it lost touch with the other processes, of which one has "
        f"probably failed (see its log), or failed itself: {error}. What was written before is whole: start all of "
        "them again with the same command",
        file=sys.stderr,
        flush=True,
    )
    os._exit(EXIT_FAILED)


def entry() -> None:
    """Parse the flags and run `main`."""
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    entry()
