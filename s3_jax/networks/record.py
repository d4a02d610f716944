"""The record in a network's folder, as far as it can be read without the libraries that networks need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3_jax.config import Config
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, read_user_json
from s3_jax.writing import unsealed

RECORD = "architecture.json"
VERSION = 1  # of the record


def read_record(folder: AnyPath) -> Any:
    """What stands in a folder's record. Raises S3Error where there is none, or it is damaged."""
    return unsealed(read_user_json(folder / RECORD))


def task_of(record: Any) -> str:
    """The task of a record's network, as config.task names it. Raises S3Error for a record that is none of ours."""
    if not isinstance(record, Mapping):
        raise S3Error(f"not the record of a stand-alone network, but a {type(record).__name__}")
    version, task = record.get("version", VERSION), record.get("task", Config.task)  # 0.1.0 wrote neither
    if version != VERSION:
        raise S3Error(f"not the record of a stand-alone network of this version: it is of version {version!r}")
    if not isinstance(task, str):
        raise S3Error(f"task = {task!r}: expected the name of a package")
    return task
