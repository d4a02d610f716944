"""Stand-alone networks out of a run's folder: weights cut out of a supernet, or those of the retrained winner."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, TypeVar

import jax
from flax import nnx

from s3_jax.config import Config, ModelConfig, RetrainConfig, TrainConfig, config_class
from s3_jax.cost import Evaluated
from s3_jax.errors import S3Error
from s3_jax.evolution import space_name
from s3_jax.mapping import from_mapping
from s3_jax.models.families import Structure, family_of
from s3_jax.models.subnet import Params, slice_weights
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.standalone import About, Standalone
from s3_jax.paths import AnyPath
from s3_jax.space import Architecture, SearchSpace
from s3_jax.task import variables_of
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.devices import make_mesh, replicated
from s3_jax.training.records import read_json_lines, read_record

T = TypeVar("T")


def extract(workdir: AnyPath, architecture: Architecture | None = None, *, retrained: bool = False) -> Standalone:
    """A subnet of the last supernet that a run has trained, the best one found where `architecture` is None.

    retrained: with the weights of its retraining instead of those it inherits from the supernet. Raises S3Error where
    the folder is no run, has not come that far, or the architecture is not in its space.
    """
    config, dataset = _settings(workdir)
    index = _last_searched(workdir)
    folder = workdir / f"space_{index}"
    space = read_record(folder / "space.json", lambda record: SearchSpace.from_json(record["space"]))
    best = read_record(folder / "search" / "best.json", Evaluated.from_json)
    chosen = architecture or best.architecture
    if retrained:
        if chosen != best.architecture:
            raise S3Error("only the best architecture of a space is retrained; leave out the other one, or --retrained")
        phase = f"retrain/best_{space_name(index)}"
        params = _restore(workdir, phase, chosen, config, dataset["num_classes"])
    else:
        supernet = _restore(workdir, f"space_{index}", space, config, dataset["num_classes"])
        params = slice_weights(supernet, space, chosen)
    spec = _spec(workdir, config, dataset, chosen, index, retrained)
    network = nnx.eval_shape(partial(spec.build, dtype=config.model.dtype))
    nnx.update(network, params)
    return Standalone(network, spec)


def _settings(workdir: AnyPath) -> tuple[Config, dict[str, Any]]:
    """Those settings of a run that its networks need, whatever version wrote them, and the record of its data.

    A field that the record lacks has its default, as for a run that goes on; one that is not known here is left out.
    """
    paths = workdir / "config.json", workdir / "environment.json"
    if not all(path.is_file() for path in paths):
        raise S3Error(f"{workdir} is not the folder of a run: it has no config.json and environment.json")
    task = read_record(paths[0], lambda record: record.get("task", Config.task), "put it back from a copy")
    if task != Config.task:
        raise S3Error(f"{workdir} is a run of the task {task}: networks are taken out of runs of {Config.task} alone")
    config = read_record(paths[0], _needed, "put it back from a copy")
    return config, read_record(paths[1], lambda record: _checked_dataset(record["dataset"]), "put it back from a copy")


# Of the data: how an image becomes the input of a network.
_OF_IMAGES = ("mean", "std", "eval_crop")
# What the model card says of a training.
_OF_A_TRAINING = ("epochs", "batch_size", "init_from", "init_weights")


def _needed(settings: dict[str, Any]) -> Config:
    retrain = settings.get("retrain", {})
    kind = config_class(Config.task)
    return kind(
        model=_known(ModelConfig, settings.get("model", {}), "config.model"),
        data=_known(type(kind().data), settings.get("data", {}), "config.data", *_OF_IMAGES),
        train=_known(TrainConfig, settings.get("train", {}), "config.train", *_OF_A_TRAINING),
        retrain=RetrainConfig(
            from_supernet=retrain.get("from_supernet", RetrainConfig().from_supernet),
            train=_known(TrainConfig, retrain.get("train", {}), "config.retrain.train", *_OF_A_TRAINING),
        ),
    )


def _known(kind: type[T], values: dict[str, Any], where: str, *names: str) -> T:
    """A dataclass of what it knows of a record's fields, or only of those named."""
    known = names or {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return from_mapping(kind, {name: value for name, value in values.items() if name in known}, where)


def _checked_dataset(dataset: dict[str, Any]) -> dict[str, Any]:
    """What is asked of the record of the data."""
    asked = {"name": dataset["name"], "num_classes": int(dataset["num_classes"])}
    splits = {use: {"split": dataset["splits"][use]["split"]} for use in ("train", "holdout", "test")}
    return dataset | asked | {"splits": splits}


def _last_searched(workdir: AnyPath) -> int:
    """The number of the last space whose search is done."""
    done = [int(path.parts[-3].removeprefix("space_")) for path in workdir.glob("space_*/search/best.json")]
    if not done:
        raise S3Error(f"{workdir}: no search of this run is done; the same command that started it goes on with it")
    return max(done)


def _restore(workdir: AnyPath, phase: str, structure: Structure, config: Config, num_classes: int) -> Params:
    """The weights that a phase has trained, on one device."""
    folder = workdir / phase / "checkpoints"
    if not folder.is_dir():
        raise S3Error(f"there is no {folder}: {phase} of this run is not done, or its checkpoints were removed")
    sizes = {"image_size": config.model.image_size, "patch_size": config.model.patch_size, "num_classes": num_classes}
    make = partial(family_of(structure).make, structure, **sizes)
    shapes = jax.eval_shape(lambda: variables_of(make(rngs=nnx.Rngs(0))))
    checkpoints = Checkpoints(folder, structure.to_json(), keep=config.run.keep_checkpoints)
    variables = checkpoints.restore_variables(shapes, replicated(make_mesh(1)))
    checkpoints.close()
    if variables is None:
        raise S3Error(f"there is no complete checkpoint in {folder}: {phase} of this run is not done")
    return variables.params


def _spec(
    workdir: AnyPath, config: Config, dataset: dict[str, Any], chosen: Architecture, index: int, retrained: bool
) -> ClassifierSpec:
    names = dataset.get("class_names") or [str(number) for number in range(dataset["num_classes"])]
    train = config.retrain.train if retrained else config.train
    source = config.train.init_from
    recipe = "retrained from scratch" if not source else "retrained"
    if config.retrain.from_supernet:
        recipe = "retrained, starting from the supernet"
    if not retrained:
        recipe = f"weights inherited from the supernet of space {space_name(index)} (sandwich rule)"
    return ClassifierSpec(
        chosen,
        config.model.image_size,
        config.model.patch_size,
        tuple(names),
        **{name: getattr(config.data, name) for name in _OF_IMAGES},
        about=About(
            data=f"{dataset['name']}, split {dataset['splits']['train']['split']}",
            recipe=f"{recipe}, {train.epochs:g} epochs in batches of {train.batch_size}"
            + (f"; before that: weights of {source}, where they overlap" if source else ""),
            accuracy=_accuracy(workdir, dataset, chosen, index, retrained),
        ),
    )


def _accuracy(workdir: AnyPath, dataset: dict[str, Any], chosen: Architecture, index: int, retrained: bool) -> str:
    """What the run has measured of a network, in words; "" where it has not."""
    result = workdir / f"retrain/best_{space_name(index)}" / "result.json"
    if retrained:
        if not result.exists():
            return ""
        shared = (dataset.get("overlap") or {}).get("holdout_test")
        seen = f", of which the search had seen {shared:,} images" if shared else ""
        measured = read_record(result, lambda record: float(record["test_accuracy"]))
        return f"top-1 {measured:.2f} % on split {dataset['splits']['test']['split']}{seen}"
    records = read_json_lines(workdir / f"space_{index}" / "evaluated.jsonl", Evaluated.from_json)
    errors = [record.error for record in records if record.architecture == chosen]
    held = f"images of {dataset['splits']['holdout']['split']} that were held out of training"
    return f"top-1 {100 - errors[0]:.2f} % on {held}" if errors else ""
