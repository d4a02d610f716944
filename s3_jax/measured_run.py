"""What the arm `measured` did in another run, for the arms that are compared with it by as many steps or choices."""

from __future__ import annotations

import json
from typing import Any

from s3_jax.arms import AFTER_MEASURED, MeasuredStep
from s3_jax.config import Config
from s3_jax.errors import S3Error
from s3_jax.mapping import to_mapping
from s3_jax.paths import user_path
from s3_jax.training.records import read_record
from s3_jax.training.start import recorded_settings
from s3_jax.writing import as_json


def measured_steps(config: Config) -> tuple[MeasuredStep, ...]:
    """The steps of every iteration of the run `evolution.measured_run`; none for an arm that goes by no other run.

    Raises S3Error where the folder has no finished run, or one of another seed, space or arm, or of fewer spaces.
    """
    if config.evolution.arm not in AFTER_MEASURED:
        return ()
    folder = user_path(config.evolution.measured_run)
    where = f"config.evolution.measured_run = {str(folder)!r}"
    if not (folder / "config.json").exists() or not (folder / "result.json").exists():
        raise S3Error(
            f"{where}: no finished run is there; first end the run of this seed with evolution.arm = 'measured'"
        )
    differing = _differing(recorded_settings(folder), config)
    if differing:
        raise S3Error(f"{where}: that run has {'; '.join(differing)}; give a run of the arm measured that begins alike")
    files = [folder / f"space_{index}" / "et_error.json" for index in range(config.evolution.num_spaces)]
    return tuple(read_record(path, MeasuredStep.from_json) for path in files)


def _differing(there: dict[str, Any], config: Config) -> list[str]:
    """In what a run is not one that this configuration can go by, in words."""
    here, evolution = json.loads(as_json(to_mapping(config))), there["evolution"]
    found = []
    if evolution.get("arm", "measured") != "measured":
        found.append(f"evolution.arm = {evolution['arm']!r}")
    if there["seed"] != config.seed:
        found.append(f"seed = {there['seed']}, not {config.seed}")
    if evolution["num_spaces"] < config.evolution.num_spaces:
        found.append(f"{evolution['num_spaces']} spaces, fewer than {config.evolution.num_spaces}")
    if there["space"] != here["space"]:
        found.append("another space")
    return found
