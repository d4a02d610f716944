"""What a comparison consists of: models to train under a recipe, their seeds, and weights to measure as they are."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from s3_jax.classification.config import ClassificationConfig
from s3_jax.comparison.model import Model
from s3_jax.comparison.ours import Ours
from s3_jax.comparison.published import TIMM, check_somewhere
from s3_jax.comparison.timm_model import TimmModel
from s3_jax.config import Config
from s3_jax.errors import S3Error
from s3_jax.networks import zoo
from s3_jax.paths import AnyPath, user_path
from s3_jax.study.plan import seeds_of


@dataclasses.dataclass(frozen=True)
class Given:
    """A model with weights that are measured as they are; weights: "" for a folder's own."""

    model: Model
    weights: str

    @property
    def file(self) -> str:
        """The name of its record."""
        return safe_name(f"{self.model.name}={self.weights}") + ".json"

    @property
    def source(self) -> str:
        """Where the weights are from, as the user gave it."""
        return self.weights or self.model.name


@dataclasses.dataclass(frozen=True)
class Plan:
    """The trainings and measurements of a comparison."""

    config: ClassificationConfig
    seeds: tuple[int, ...]
    trained: tuple[Model, ...]
    given: tuple[Given, ...]

    @property
    def trainings(self) -> tuple[tuple[int, Model], ...]:
        """In the order in which they are done: seed by seed, so that a table of all models is there early."""
        return tuple((seed, model) for seed in self.seeds for model in self.trained)

    def settings(self, seed: int, model: Model) -> ClassificationConfig:
        """Those of one training."""
        return dataclasses.replace(model.settings(self.config), seed=seed)


def folder_of(workdir: AnyPath, seed: int, model: Model) -> AnyPath:
    """Where one training is, in a comparison's folder."""
    return workdir / f"seed_{seed}" / safe_name(model.name)


def safe_name(name: str) -> str:
    """A name as that of a file: what is no letter, digit, dot or minus becomes an underscore."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.") or "_"


def plan_of(config: Config, models: str, evaluate: str, seeds: str) -> Plan:
    """The plan of a command's flags, which have names with commas between.

    Raises S3Error for a name that is none, with those that are, and for settings that fit no comparison.
    """
    if not isinstance(config, ClassificationConfig):
        raise S3Error(f"config.task = {config.task!r}: a comparison is of classifiers, under {Config.task}")
    if config.backbone.is_given:
        raise S3Error("config.backbone names one network, and a comparison has --models; leave it out")
    if config.train.init_from:
        raise S3Error("config.train.init_from: a comparison trains from scratch; leave it out")
    trained = tuple(_model("--models", _without_weights(name)) for name in _names(models))
    given = tuple(map(_given, _names(evaluate)))
    if not trained and not given:
        raise S3Error("there is nothing to compare: name models in --models, or weights in --evaluate")
    _check_names("--models", (safe_name(model.name) for model in trained))
    _check_names("--evaluate", (each.file for each in given))
    return Plan(config, seeds_of(config, seeds), trained, given)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _without_weights(item: str) -> str:
    if "=" in item and not user_path(item).is_dir():
        raise S3Error(
            f"--models has {item}, but it trains from scratch: --evaluate={item} measures weights as they are"
        )
    return item


def _given(item: str) -> Given:
    name, _, weights = (item, "", "") if user_path(item).is_dir() else item.partition("=")
    model = _model("--evaluate", name)
    if not weights and (name in zoo.names() or name.startswith(TIMM)):
        raise S3Error(f"--evaluate has {name} without weights: give them as {name}=FILE or {name}=hf-hub:owner/name")
    return Given(model, weights)


def _model(flag: str, name: str) -> Model:
    check_somewhere(name)
    if name.startswith(TIMM):
        return TimmModel(name)
    if name not in zoo.names() and not user_path(name).is_dir():
        raise S3Error(
            f"{flag}: there is no model {name!r}. Expected a published model, of {', '.join(zoo.names())}; the folder "
            f"of a network; or a name of timm's, as {TIMM}resnet50"
        )
    return Ours(name)


def _check_names(flag: str, names: Iterable[str]) -> None:
    """Raises S3Error where two would have one folder."""
    found: set[str] = set()
    for name in names:
        if name in found:
            raise S3Error(f"{flag} names {name.removesuffix('.json')} twice; name it once (--seeds repeats trainings)")
        found.add(name)
