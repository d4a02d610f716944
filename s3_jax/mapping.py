"""Frozen dataclasses from nested mappings, as configuration files and records have them, and back."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from s3_jax.errors import S3Error
from s3_jax.limits import SettingError

T = TypeVar("T")


class UnknownField(S3Error):
    """A name that is no setting."""


def from_mapping(kind: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """A (nested) dataclass of `kind` from a mapping. Raises S3Error for a key, type or value that does not fit."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise UnknownField(f"{where} has no field {', '.join(map(repr, unknown))}; its fields are {', '.join(fields)}")
    types = typing.get_type_hints(kind)
    values_of = {name: converted(types[name], value, f"{where}.{name}") for name, value in values.items()}
    try:
        return kind(**values_of)
    except SettingError as error:  # a dataclass that is used at two places knows one of them
        raise S3Error(f"{where}.{error.problem}") from error


def from_record(kind: type[T], values: Mapping[str, Any], where: str, *names: str) -> T:
    """A dataclass of what it knows of a record's fields, or only of those named; what the record lacks has its default.

    So a record is read that another version wrote. Raises S3Error for a type or value that does not fit.
    """
    known = names or {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return from_mapping(kind, {name: value for name, value in values.items() if name in known}, where)


def to_mapping(config: Any) -> dict[str, Any]:
    """The settings as nested dicts that JSON keeps unchanged."""
    return _listed(dataclasses.asdict(config))


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (tuple, list)) else value


def converted(kind: Any, value: Any, where: str) -> Any:
    """A value of a field of the type `kind`; lists become tuples. Raises S3Error where it is none."""
    if dataclasses.is_dataclass(kind):
        return from_mapping(typing.cast(type, kind), value, where)
    if typing.get_origin(kind) is tuple:
        return _convert_tuple(typing.get_args(kind), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return _as_float(value, where)
    if type(value) is not kind:
        raise S3Error(f"{where} = {value!r}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _as_float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise S3Error(f"{where} is too large a number") from error


def _convert_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        raise S3Error(f"{where} = {value!r}: expected a tuple")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise S3Error(f"{where} = {value!r}: expected {len(kinds)} values, got {len(value)}")
    return tuple(
        converted(kind, item, f"{where}[{index}]") for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )
