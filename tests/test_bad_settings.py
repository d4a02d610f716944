"""Bad settings: refused by name, before anything is trained or written. `-s` shows a table."""

import copy
import shutil
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import tiny_config
from bad_inputs import AS_MAIN, Tally
from rich.console import Console

from s3_jax import measuring, pipeline
from s3_jax.classification import task
from s3_jax.classification.dataset import open_data
from s3_jax.config import config_of
from s3_jax.mapping import to_mapping
from s3_jax.training import start
from s3_jax.training.loop import StopRequest

open_data_once = cache(open_data)


class Reached(Exception):
    """The run has come to its first training."""


# Values that a setting cannot have, or with which no run can end; besides those of a wrong type.
BAD = {
    "seed": (-1,),
    "model.image_size": (0, -8, 7),
    "model.patch_size": (0, -1, 3),
    "model.dtype": ("float16", "int32", "half", ""),
    "model.kernel_std": (-0.02,),
    "space.depth": (((0, 1),), ((),), (), ((2, 1),)),
    "space.embed_dim": (((-8,),), ((8, 8),)),
    "space.window": (((0,),),),
    "space.mlp_ratio": (((0.0,),), ((0.01,),)),
    "space.qkv_dim": (((33,),), ((0,),)),
    "data.source": ("nowhere", ""),
    "data.train_split": ("", "nothing", "test"),
    "data.test_split": ("", "nothing", "train"),
    "data.holdout_split": ("nothing", "train"),
    "data.holdout_fraction": (0.0, 1.0, -0.5, 2.0),
    "data.judge_fraction": (-0.1, 1.0, 0.9),
    "data.num_workers": (-1,),
    "data.on_bad_image": ("ignore", ""),
    "data.std": ((0.0, 0.0, 0.0), (-0.2, -0.2, -0.2)),
    "data.eval_crop": (0.0, -0.9),
    "augment.crop_scale": ((0.0, 0.0), (1.0, 0.5), (-0.1, 1.0)),
    "augment.crop_ratio": ((0.0, 1.0), (2.0, 1.0)),
    "augment.pad_crop": (-1,),
    "augment.horizontal_flip": (-0.1, 1.5),
    "augment.color_jitter": (-1.0,),
    "augment.rand_augment_layers": (-1,),
    "augment.rand_augment_magnitude_std": (-1.0,),
    "augment.random_erasing": (-0.1, 1.5),
    "augment.mixup": (-1.0,),
    "augment.cutmix": (-1.0,),
    "augment.mix_switch": (-0.1, 1.5),
    "augment.label_smoothing": (-0.1, 1.5),
    **{
        f"{training}.{name}": values
        for training in ("train", "retrain.train")
        for name, values in {
            "epochs": (0.0, -5.0),
            "batch_size": (0, -64),
            "learning_rate": (-1.0,),
            "min_learning_rate": (-1.0,),
            "warmup_epochs": (-1.0,),
            "weight_decay": (-0.1,),
            "beta2": (1.0, -0.1),
            "clip_norm": (-1.0,),
            "accumulation_steps": (0, -1, 7),
            "ema_decay": (1.0, -0.1),
            "drop_path": (1.0, -0.1),
        }.items()
    },
    "evolution.num_spaces": (0, -1),
    "evolution.num_samples": (0, -1, 1),
    "evolution.top_k": (0,),
    "evolution.budget.max_params": (-1.0, 10.0),
    "evolution.budget.max_macs": (-1.0, 10.0),
    "evolution.num_bootstrap": (-1,),
    "evolution.slope_unit": ("indices",),
    "evolution.rounding": ("up",),
    "evolution.tau": (0.0, -1.0),
    "evolution.step_depth": (0, -1),
    "evolution.step_embed_dim": (0,),
    "evolution.step_window": (0,),
    "evolution.step_mlp_ratio": (0.0,),
    "evolution.step_qkv_dim": (0, 48),
    "evolution.max_space_size": (0.0, 3.0),
    "evolution.trainings": (0, -1, 1001),
    "evolution.training_share": (0.0, -0.5, 1.5),
    "evolution.min_z": (-1.0,),
    "evolution.arm": ("best", "", "random"),
    "evolution.measured_run": ("runs/nothing",),
    "search.population": (0, 3),
    "search.generations": (0,),
    "search.top": (0,),
    "search.mutations": (-1,),
    "search.crossovers": (-1,),
    "search.mutation_probability": (-0.1, 1.5),
    "search.stage_mutation_probability": (-0.1, 1.5),
    "search.max_attempts": (0,),
    "search.budget.max_params": (-1.0, 10.0),
    "search.budget.max_macs": (-1.0, 10.0),
    "run.eval_batch_size": (0, -1),
    "run.checkpoint_every": (0, -1),
    "run.keep_checkpoints": (-1, 0),
    "run.log_every": (0, -1),
    "run.num_devices": (-1, 99),
    "run.evaluate_every": (-1,),
    "task": ("", ".x", "s3_jax.nothing", "s3_jax.cost"),
}
OF_ANOTHER_TYPE: dict[type, tuple[Any, ...]] = {
    int: ("3", None, 1.5, True, (1,)),
    float: ("3", None, True, (1.0,), float("nan")),
    bool: ("yes", None, 1),
    str: (3, None, ("x",)),
    tuple: ("x", None, 3, ({"x": 1},), float("nan")),
}


def settings(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name."""
    for name, value in tree.items():
        yield from settings(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]


def with_setting(tree: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(tree)
    *path, last = name.split(".")
    part = changed
    for step in path:
        part = part[step]
    part[last] = value
    return changed


def bad_settings(kind: str, known: dict[str, Any]) -> list[tuple[str, Any]]:
    if kind == "settings of a wrong type":
        return [(name, value) for name, old in known.items() for value in OF_ANOTHER_TYPE[_kind(old)]]
    if kind == "settings out of range":
        return [(name, value) for name, values in BAD.items() for value in values]
    return [(name[:-1], 1) for name in known if name[:-1] not in known]


@pytest.mark.parametrize("kind", ["settings of a wrong type", "settings out of range", "settings that there are not"])
def test_settings_are_refused_by_name_before_anything_is_trained_or_written(kind, monkeypatch, tmp_path) -> None:
    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    monkeypatch.setattr(measuring, "fit", reached)
    monkeypatch.setattr(task, "open_data", open_data_once)
    monkeypatch.setattr(start, "environment", dict)
    whole, workdir, tally = (
        to_mapping(config_of(tiny_config.get_config().to_dict())),
        tmp_path / "run",
        Tally(kind),
    )
    known = dict(settings(whole))
    assert set(BAD) <= set(known)
    for name, value in bad_settings(kind, known):
        mapping = with_setting(whole, name, value)
        described = f"{name} = {value!r}"
        words = [f"{value:g}" if isinstance(value, float) else str(value)]
        names = (name.split(".")[-1], *(word for word in words if len(word) > 1))
        tally.judge(described, partial(_try, mapping, workdir), lambda _: "accepted", AS_MAIN, names=names)
        if workdir.exists() and list(workdir.iterdir()):
            tally.faults.append(f"{described}: the folder is bound to settings that cannot be")
        shutil.rmtree(workdir, ignore_errors=True)
    tally.check()


def _kind(value: Any) -> type:
    return tuple if isinstance(value, list) else type(value)


def _try(mapping: dict[str, Any], workdir: Path) -> None:
    """As far as to the first training."""
    try:
        pipeline.run_pipeline(config_of(mapping), workdir, console=Console(quiet=True), stop=StopRequest())
    except Reached:
        shutil.rmtree(workdir)
