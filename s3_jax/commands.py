"""What tasks do in predict.py and evaluate.py, and with which flags of their own.

A task's package has a module `commands` with the functions `predict` and `evaluate`, and for each a frozen dataclass of
what they can be told, `PredictOptions` and `EvaluateOptions`: a field is a flag of its name.

    batch: Annotated[int, Flag("Images at a time.", least=1)] = 16

Flags are declared and checked before anything else is loaded: nothing here, nor at the top of such a module, may import
JAX or what takes seconds.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import tempfile
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NamedTuple

from absl import flags

from s3_jax.buckets import BucketPath
from s3_jax.command_flags import parse_flags
from s3_jax.config import Config, room_of
from s3_jax.errors import S3Error
from s3_jax.networks.record import read_record, task_of
from s3_jax.paths import printable, user_path

_EXAMPLE = f"as {Config.task}.commands has them"
# By the type of an option's default.
_DECLARED_BY: dict[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    bool: flags.DEFINE_bool,
    type(None): flags.DEFINE_bool,  # yes, no, or as the network has it
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    tuple: flags.DEFINE_list,
}


class Flag(NamedTuple):
    """What --help says of an option, and the least number that it may be."""

    help: str
    least: float | None = None


class Option(NamedTuple):
    """A field of a class of options."""

    default: Any
    flag: Flag


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """The images that a network is measured on, as far as all tasks have it."""

    path: Annotated[str, Flag("Folder of the data set.")] = ""
    split: Annotated[str, Flag("Which images.")] = "val"
    batch: Annotated[int, Flag("Images at a time.", least=1)] = 64
    skip_bad_images: Annotated[bool, Flag("Leave out images that cannot be read, instead of ending.")] = False

    @property
    def on_bad_image(self) -> str:
        """The same as `skip_bad_images`, as settings of data have it."""
        return "skip" if self.skip_bad_images else "error"


class Measured(NamedTuple):
    """What evaluation has found: a record for JSON, and the same in words."""

    record: dict[str, Any]
    words: str


class Part(NamedTuple):
    """A task's own part of a command: its function, and the class of its options."""

    function: Callable[..., Any]
    options: type


def part_of(task: str, command: str) -> Part:
    """The part that a task has in a command. Raises S3Error where it has none, with what to write."""
    module = _module_of(task)
    names = (command, f"{command.capitalize()}Options")
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise S3Error(f"{command}.py does nothing for task {task}: write {' and '.join(missing)} in {module.__name__}")
    return Part(*(getattr(module, name) for name in names))


def _module_of(task: str) -> ModuleType:
    room_of(task)
    name = f"{task}.commands"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # it is there, and imports another one that is not
            raise
        wanted = "predict, PredictOptions, evaluate and EvaluateOptions"
        raise S3Error(f"the package {task} has no module {name}: write {wanted} in it, {_EXAMPLE}") from error


def options_of(part: Part) -> Any:
    """The options that the flags give. Raises S3Error where they are none."""
    values = {name: flags.FLAGS[name].value for name in _options(part.options)}
    return part.options(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def parse(command: str, arguments: list[str]) -> list[str]:
    """Parse a command's flags, with those of the model's task, and check these: a parser for `app.run`.

    Where the task cannot be told, all tasks' flags are known: opening the model will fail for the same reason, and tell
    it. Ends the program with 2 for a flag or a value that the task does not have.
    """
    try:
        task = _task_of_model(arguments)
        own = {task: part_of(task, command)} if task else {}
        others = {name: part for name, part in _parts(command).items() if name not in own}
        _declare(own, arguments[0])
        _declare(others, __name__ if own else arguments[0])  # --help shows those of the program's own module
        rest = parse_flags(arguments)
        for name, part in own.items():
            _refuse_foreign(name, part, others)
            options_of(part)
    except S3Error as error:
        print(f"{command}: {error}", file=sys.stderr)
        sys.exit(2)
    return rest


def _task_of_model(arguments: list[str]) -> str | None:
    """The task of the model that --model names; None where it cannot be told."""
    given = flags.FlagValues()
    for name in ("model", "weights"):
        flags.DEFINE_string(name, None, "", flag_values=given)
    try:
        given(arguments, known_only=True)
        if given.weights:  # which published models have, and folders have not
            return Config.task
        if given.model is None:
            return None
        task = task_of(read_record(user_path(given.model)))
        room_of(task)
    except (flags.Error, S3Error):
        return None
    return task


def _parts(command: str) -> dict[str, Part]:
    """The parts that the tasks of this package have in a command."""
    parts = {}
    for module in sorted(Path(__file__).parent.glob("*/commands.py")):
        task = f"{__package__}.{module.parent.name}"
        try:
            parts[task] = part_of(task, command)
        except S3Error:  # not written yet
            continue
    return parts


def _options(kind: type) -> dict[str, Option]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: Option(field.default, _flag(hints[field.name])) for field in dataclasses.fields(kind)}


def _flag(hint: Any) -> Flag:
    return next((note for note in getattr(hint, "__metadata__", ()) if isinstance(note, Flag)), Flag(""))


def _declare(parts: Mapping[str, Part], module: str) -> None:
    """Flags for the options of several tasks but for those that are declared, in a module's part of --help."""
    options = {task.rpartition(".")[2]: _options(part.options) for task, part in parts.items()}
    for name in dict.fromkeys(name for each in options.values() for name in each):
        if name in flags.FLAGS:
            continue
        meanings: dict[Option, list[str]] = {}
        for task in (task for task, each in options.items() if name in each):
            meanings.setdefault(options[task][name], []).append(task)
        of_all = sum(map(len, meanings.values())) == len(options)
        _declare_one(name, meanings, module, of_all)


def _declare_one(name: str, meanings: Mapping[Option, list[str]], module: str, of_all: bool) -> None:
    """A flag, with the tasks that have it by what it means to them.

    Where it means several things, it only has to be parsed, and to be told in --help: no task is called with it.
    """
    first, *others = meanings
    default, help = first.default, first.flag.help
    differ = any(other.default != default for other in others)
    if others or not of_all:
        told = {option: f" (default: {option.default!r})" if differ else "" for option in meanings}
        help = " ".join(
            f"{', '.join(tasks).capitalize()}: {option.flag.help}{told[option]}" for option, tasks in meanings.items()
        )
    bounds = {} if first.flag.least is None else {"lower_bound": first.flag.least}
    default = None if differ else list(default) if isinstance(default, tuple) else default
    _DECLARED_BY[type(first.default)](name, default, help, module_name=module, **bounds)


def _refuse_foreign(task: str, own: Part, others: Mapping[str, Part]) -> None:
    known = _options(own.options)
    foreign = {name for part in others.values() for name in _options(part.options)} - set(known)
    given = [f"--{name}" for name in sorted(foreign) if flags.FLAGS[name].present]
    if given:
        raise S3Error(
            f"the model is of task {task}, which has no {', '.join(given)}; its own flags are "
            f"{', '.join(f'--{name}' for name in known)}"
        )


def metric_rows(metrics: Mapping[str, float]) -> str:
    """A line for each metric, in percent; names in a column."""
    width = max(map(len, map(printable, metrics)))
    return "\n".join(f"{printable(name):{width}}  {value:6.2f} %" for name, value in metrics.items())


def check_results(results: str) -> None:
    """Raises S3Error where no file can be written there: what is measured would be lost with it."""
    if not results:
        return
    path = user_path(results)
    if path.is_dir():
        raise S3Error(f"--results={printable(results)} is a folder: give a file in it, such as results.json")
    if isinstance(path, BucketPath):  # whether it takes an object shows when that is written
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise S3Error(
            f"--results={printable(results)} cannot be written: {error.strerror or error}; give a file in a folder "
            "that you may write to"
        ) from error
