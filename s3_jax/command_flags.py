"""The flags of commands: a mistake in them ends a command as any other mistake does."""

from __future__ import annotations

import sys
from pathlib import Path

import ml_collections
from absl import flags

from s3_jax.errors import S3Error
from s3_jax.paths import printable, user_path


def parse_flags(arguments: list[str]) -> list[str]:
    """Parse a program's flags, and return what is none: a parser for `app.run`.

    Ends the program with 2, after a line for each mistake on standard error, for a flag that there is not, and for a
    value that a flag cannot have. One for a setting of --config that does not exist is told with those that do.
    """
    mistakes = _mistakes_in_settings(arguments) if "config" in flags.FLAGS else []
    try:
        if not mistakes:
            return flags.FLAGS(arguments)
    except flags.Error as error:
        mistakes = [f"{' '.join(str(error).split())} (--help lists flags)"]  # absl's messages have several lines
    except (S3Error, OSError) as error:
        mistakes = [f"the configuration file could not be loaded: {error}"]
    program = Path(arguments[0]).stem
    for mistake in mistakes:
        print(f"{'s3_jax' if program == 'main' else program}: {printable(mistake)}", file=sys.stderr)
    sys.exit(2)


def _mistakes_in_settings(arguments: list[str]) -> list[str]:
    """What is wrong with --config and with flags of its fields, as far as it shows before they are parsed."""
    file = _file_of_settings(arguments)
    path = file.split(":")[0]  # behind a colon there is what the file is called with
    if file and not user_path(path).is_file():
        return [f"there is no configuration file {path}"]
    settings = settings_of_file(file)
    if settings is None:
        return []
    told = [message for argument in arguments[1:] if (message := _wrong_setting(argument, settings))]
    return told or _tuples_given_twice(arguments, settings)


def _file_of_settings(arguments: list[str]) -> str:
    """What --config gives, "" where it is not there."""
    path = ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            path = value if equals else following
    return path


def settings_of_file(path: str) -> ml_collections.ConfigDict | None:
    """What the file of --config returns: a task's own settings are known from it, without its libraries.

    None where it cannot be had, for whatever reason: parsing the flags will fail for the same one, and tell it.
    """
    try:
        settings = flags.FLAGS["config"].parser.parse(path)
    except Exception:
        return None
    return settings if isinstance(settings, ml_collections.ConfigDict) else None


def _wrong_setting(argument: str, known: ml_collections.ConfigDict) -> str | None:
    where, name = "config", _name(argument)
    for part in name.split(".")[1:] if name.startswith("config.") else ():
        if not isinstance(known, ml_collections.ConfigDict) or part not in known:
            fields = ", ".join(known) if isinstance(known, ml_collections.ConfigDict) else "none"
            return f"{where} has no field {part!r} (in {argument}); its fields are {fields}"
        known, where = known[part], f"{where}.{part}"
    if name.startswith("config.") and isinstance(known, ml_collections.ConfigDict):
        return f"{where} is a block of settings (in {argument}); give its fields, as --{where}.{next(iter(known))}=..."
    return None


def _tuples_given_twice(arguments: list[str], settings: ml_collections.ConfigDict) -> list[str]:
    """Of one value given twice the last counts, as everywhere; two tuples the flags' library would join."""
    names = [name for argument in arguments[1:] if (name := _name(argument)).startswith("config.")]
    twice = sorted({name for name in names if names.count(name) > 1})
    return [
        f"--{name} is given twice, which would be one tuple of both; give it once"
        for name in twice
        if isinstance(_value(settings, name), tuple)
    ]


def _value(settings: ml_collections.ConfigDict, name: str) -> object:
    found: object = settings
    for part in name.split(".")[1:]:
        found = found[part]  # type: ignore[index]
    return found


def _name(argument: str) -> str:
    return argument.lstrip("-").partition("=")[0]
