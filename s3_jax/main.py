"""The command line: `python -m s3_jax.main --config=configs/digits.py --workdir=runs/digits [--config.field=value]`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from s3_jax import __version__

# Nothing here may import JAX or anything else that takes seconds: `main` does, once it has said so.
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


def parse(arguments: list[str]) -> list[str]:
    """Parse the flags; one for a setting that does not exist ends the program with the names of those that do."""
    file = _file_of_settings(arguments)
    known = _settings_of_file(file)
    wrong = [message for argument in arguments[1:] if known and (message := _wrong_setting(argument, known))]
    wrong += _given_twice(arguments)
    if file and not user_path(file.split(":")[0]).is_file():
        wrong = [f"there is no configuration file {file.split(':')[0]}"]
    try:
        if not wrong:
            return parse_flags(arguments)
    except (S3Error, OSError) as error:
        wrong = [f"the configuration file could not be loaded: {error}"]
    print("\n".join(f"s3_jax: {printable(message)}" for message in wrong), file=sys.stderr)
    sys.exit(EXIT_MISTAKE)


def _file_of_settings(arguments: list[str]) -> str:
    """What --config gives, "" where it is not there."""
    path = ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            path = value if equals else following
    return path


def _settings_of_file(path: str) -> ml_collections.ConfigDict | None:
    """What the file of --config returns: a task's own settings are known from it, without its libraries.

    None where it cannot be had, for whatever reason: parsing the flags will fail for the same one, and tell it.
    """
    try:
        settings = flags.FLAGS["config"].parser.parse(path)
    except Exception:
        return None
    return settings if isinstance(settings, ml_collections.ConfigDict) else None


def _given_twice(arguments: list[str]) -> list[str]:
    """What is wrong where a setting is given twice: of several values the flags' library would make one tuple."""
    names = [name for each in arguments[1:] if (name := each.lstrip("-").partition("=")[0]).startswith("config.")]
    return [
        f"--{name} is given twice; give it once" for name in sorted({each for each in names if names.count(each) > 1})
    ]


def _wrong_setting(argument: str, known: ml_collections.ConfigDict) -> str | None:
    where, name = "config", argument.lstrip("-").partition("=")[0]
    for part in name.split(".")[1:] if name.startswith("config.") else ():
        if not isinstance(known, ml_collections.ConfigDict) or part not in known:
            fields = ", ".join(known) if isinstance(known, ml_collections.ConfigDict) else "none"
            return f"{where} has no field {part!r} (in {argument}); its fields are {fields}"
        known, where = known[part], f"{where}.{part}"
    if name.startswith("config.") and isinstance(known, ml_collections.ConfigDict):
        return f"{where} is a block of settings (in {argument}); give its fields, as --{where}.{next(iter(known))}=..."
    return None


def entry() -> None:
    """Parse the flags and run `main`."""
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    entry()
