"""Every setting is checked at the door: whatever it is given, taken, or refused by its name."""

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from s3_jax.classification.config import ClassificationConfig
from s3_jax.config import Config, TrainConfig, config_of, default_config
from s3_jax.errors import S3Error
from s3_jax.mapping import to_mapping

WEIRD = (-1, 0, 1, 0.5, -0.0, 1e30, 10**30, 10**400, math.nan, math.inf, -math.inf, True, "nonsense", "", None, (), {})
SUBNORMAL = 5e-324


def leaves(settings: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name)


FIELDS = list(leaves(default_config().to_dict()))


def changed(path: tuple[str, ...], value: object) -> Config:
    settings = default_config().to_dict()
    inner = settings
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return config_of(settings)


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_any_value_is_taken_or_refused_by_its_name(path: tuple[str, ...]) -> None:
    default = to_mapping(ClassificationConfig())
    for name in path:
        default = default[name]
    given: list[Any] = [*WEIRD, SUBNORMAL]
    if isinstance(default, list):  # every value of a tuple, one after the other, and all of them
        given += [(value,) * len(default) for value in given]
        given += [((value,),) * len(default) for value in WEIRD]
        given += [(1, 2, 3, 4, 5), (0.5, 0.1)]
    for value in given:
        refusal, config = None, ClassificationConfig()
        try:
            config = changed(path, value)
        except S3Error as error:
            refusal = str(error)
        assert refusal is None or path[-1] in refusal, (value, refusal)
        assert config_of(to_mapping(config)) == config


def test_every_number_and_word_has_a_limit_or_is_free() -> None:
    """A new field without one must be thought of here."""
    free = {
        "task",
        "backbone.model",
        "backbone.weights",
        "data.path",
        "data.name",
        "data.train_split",
        "data.test_split",
        "data.holdout_split",
        "evolution.measured_run",
        "run.wandb_project",
    }
    free |= {f"{train}.{field}" for train in ("train", "retrain.train") for field in ("init_from", "init_weights")}
    unlimited = set()
    for path in FIELDS:
        kind: Any = ClassificationConfig
        for name in path:
            owner, kind = kind, typing.get_type_hints(kind)[name]
        annotated = typing.get_type_hints(owner, include_extras=True)[path[-1]]
        if kind is not bool and not hasattr(annotated, "__metadata__"):
            unlimited.add(".".join(path))
    assert unlimited == free


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("run.checkpoint_every", 0, "a whole number from 1 on"),
        ("run.log_every", 0, "a whole number from 1 on"),
        ("run.keep_checkpoints", 0, "a whole number from 1 on"),
        ("run.num_devices", -1, "a whole number from 0 on"),
        ("run.eval_batch_size", 2**31, "at most 2,147,483,647"),
        ("train.accumulation_steps", 0, "a whole number from 1 on"),
        ("train.epochs", 0, "a number above 0 and up to 1e\\+06"),
        ("retrain.train.epochs", -5, "a number above 0 and up to 1e\\+06"),
        ("retrain.train.learning_rate", -1, "a number from 0 on"),
        ("train.min_learning_rate", 0.1, "at most learning_rate = 0.001"),
        ("train.ema_decay", 1, "a number from 0 and below 1"),
        ("train.drop_path", 1, "a number from 0 and below 1"),
        ("data.num_workers", -1, "a whole number from 0 to 1,024"),
        ("data.std", (0, 0, 0), "for each value a number above 0 and up to 1"),
        ("data.mean", (123.0, 116.0, 103.0), "for each value a number from 0 to 1"),
        ("data.source", "webdataset", "one of digits, tfds, image_folder"),
        ("augment.crop_scale", (0.5, 0.1), "two values in increasing order, each a number above 0 and up to 1"),
        ("augment.rand_augment_magnitude", 11, "a number from 0 to 10"),
        ("model.dtype", "float16", "one of float32, bfloat16"),
        ("model.dtype", "int32", "one of float32, bfloat16"),
        ("evolution.num_spaces", 0, "a whole number from 1 to 1,000"),
        ("evolution.budget.max_macs", math.inf, "a number above 0, or 0 for none"),
        ("search.budget.max_params", -1, "a number above 0, or 0 for none"),
        ("seed", 2**32, "a whole number from 0 to 4,294,967,295"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_work(field: str, value: object, expected: str) -> None:
    with pytest.raises(S3Error, match=rf"^config\.{field} = .*: expected {expected}$"):
        changed(tuple(field.split(".")), value)


@pytest.mark.parametrize(("word", "meant"), [("bf16", "bfloat16"), ("fp32", "float32"), ("f32", "float32")])
def test_short_names_of_types_stand_for_the_long_ones(word: str, meant: str) -> None:
    config = changed(("model", "dtype"), word)
    assert config.model.dtype == meant
    assert config == changed(("model", "dtype"), meant)


def test_a_dataclass_made_by_hand_is_checked_too() -> None:
    with pytest.raises(S3Error, match=r"^train.epochs = 'many': expected a number above 0"):
        TrainConfig(epochs="many")  # type: ignore[arg-type]
    with pytest.raises(S3Error, match=r"^train.drop_path = 1.0: expected"):
        dataclasses.replace(TrainConfig(), drop_path=1.0)
