"""A run as one call of Python, for notebooks and programs that go on afterwards; the command line is `main`."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import ml_collections
from rich.console import Console

from s3_jax.config import Config, config_of
from s3_jax.errors import S3Error
from s3_jax.finetune import transfer
from s3_jax.paths import user_path
from s3_jax.pipeline import run_pipeline
from s3_jax.training.devices import keep_compiled_programs, keep_freed_memory
from s3_jax.training.loop import StopRequest


def read_config(path: str | Path) -> ml_collections.ConfigDict:
    """The settings of a configuration file, such as `configs/digits.py`, to be changed and run.

    Raises S3Error where there is no such file, or it has no `get_config`.
    """
    file = user_path(path)
    if not file.is_file():
        raise S3Error(f"there is no configuration file {file}")
    get_config = runpy.run_path(str(file)).get("get_config")
    if get_config is None:
        raise S3Error(f"{file} is no configuration file: it has no function get_config, as those in configs/ have")
    return get_config()


def run(config: Config | ml_collections.ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Do a run, or what is left of it, in `workdir`. Returns its result, as `result.json` has it.

    config: as `default_config` makes it and as configuration files return it, or a `Config` of its task. Raises
    S3Error for a mistake in the settings, the data or the folder. An interrupt (Ctrl-C, a notebook's stop button)
    saves and raises Interrupted, and the same call goes on; a second one interrupts at once.
    """
    keep_compiled_programs()
    keep_freed_memory()
    settings = config if isinstance(config, Config) else config_of(config.to_dict())
    stop = StopRequest()
    with stop.listening():
        start = transfer if settings.backbone.is_given else run_pipeline
        return start(settings, user_path(workdir), console=Console(), stop=stop)
