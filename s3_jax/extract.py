"""Stand-alone networks out of a run's folder: weights cut out of a supernet, or those of the retrained winner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from flax import nnx

from s3_jax.config import Config, TrainConfig, from_mapping
from s3_jax.cost import Evaluated
from s3_jax.errors import S3Error
from s3_jax.models.subnet import Params, slice_weights
from s3_jax.pipeline import space_name
from s3_jax.space import Architecture, SearchSpace
from s3_jax.standalone import About, Spec, Standalone
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.devices import make_mesh
from s3_jax.training.networks import Structure, define, initial_params
from s3_jax.training.programs import training_of
from s3_jax.training.records import read_json, read_json_lines


def extract(workdir: Path, architecture: Architecture | None = None, *, retrained: bool = False) -> Standalone:
    """A subnet of the last supernet that a run has trained, the best one found where `architecture` is None.

    retrained: with the weights of its retraining instead of those it inherits from the supernet. Raises S3Error where
    the folder is no run, has not come that far, or the architecture is not in its space.
    """
    config, dataset = _settings(workdir)
    index = _last_searched(workdir)
    space = SearchSpace.from_json(read_json(workdir / f"space_{index}" / "space.json")["space"])
    best = Evaluated.from_json(read_json(workdir / f"space_{index}" / "search" / "best.json"))
    chosen = architecture or best.architecture
    if retrained:
        if chosen != best.architecture:
            raise S3Error("only the best architecture of a space is retrained; leave out the other one, or --retrained")
        phase = f"retrain/best_{space_name(index)}"
        params = _restore(workdir, phase, chosen, config, config.retrain.train, dataset["num_classes"])
    else:
        supernet = _restore(workdir, f"space_{index}", space, config, config.train, dataset["num_classes"])
        params = slice_weights(supernet, space, chosen)
    network = nnx.merge(define(chosen, config.model, dataset["num_classes"]), params)
    return Standalone(network, _spec(workdir, config, dataset, chosen, index, retrained))


def _settings(workdir: Path) -> tuple[Config, dict[str, Any]]:
    """The settings of a run and the record of its data."""
    paths = workdir / "config.json", workdir / "environment.json"
    if not all(path.is_file() for path in paths):
        raise S3Error(f"{workdir} is not the folder of a run: it has no config.json and environment.json")
    settings, environment = map(read_json, paths)
    return from_mapping(Config, settings), environment["dataset"]


def _last_searched(workdir: Path) -> int:
    """The number of the last space whose search is done."""
    done = [int(path.parts[-3].removeprefix("space_")) for path in workdir.glob("space_*/search/best.json")]
    if not done:
        raise S3Error(f"{workdir}: no search of this run is done; the same command that started it goes on with it")
    return max(done)


def _restore(
    workdir: Path, phase: str, structure: Structure, config: Config, train: TrainConfig, num_classes: int
) -> Params:
    """The weights that a phase has trained, on one device."""
    folder = workdir / phase / "checkpoints"
    if not folder.is_dir():
        raise S3Error(f"there is no {folder}: {phase} of this run is not done, or its checkpoints were removed")
    shapes = jax.eval_shape(lambda: initial_params(structure, config.model, num_classes, jax.random.key(0)))
    # Lengths do not matter: nothing is trained.
    training = training_of(
        structure,
        shapes,
        config.model,
        num_classes,
        train,
        make_mesh(1),
        steps_per_epoch=1,
        num_steps=2,
        shard_parameters=False,
    )
    checkpoints = Checkpoints(folder, structure.to_json(), keep=config.run.keep_checkpoints)
    state = checkpoints.restore(training.shapes, training.layout)
    checkpoints.close()
    if state is None:
        raise S3Error(f"there is no complete checkpoint in {folder}: {phase} of this run is not done")
    return state.eval_params


def _spec(
    workdir: Path, config: Config, dataset: dict[str, Any], chosen: Architecture, index: int, retrained: bool
) -> Spec:
    names = dataset.get("class_names") or [str(number) for number in range(dataset["num_classes"])]
    train = config.retrain.train if retrained else config.train
    recipe = "retrained, starting from the supernet" if config.retrain.from_supernet else "retrained from scratch"
    if not retrained:
        recipe = f"weights inherited from the supernet of space {space_name(index)} (sandwich rule)"
    return Spec(
        chosen,
        config.model.image_size,
        config.model.patch_size,
        tuple(names),
        config.data.mean,
        config.data.std,
        config.data.eval_crop,
        About(
            data=f"{dataset['name']}, split {dataset['splits']['train']['split']}",
            recipe=f"{recipe}, {train.epochs:g} epochs in batches of {train.batch_size}",
            accuracy=_accuracy(workdir, dataset, chosen, index, retrained),
        ),
    )


def _accuracy(workdir: Path, dataset: dict[str, Any], chosen: Architecture, index: int, retrained: bool) -> str:
    """What the run has measured of a network, in words; "" where it has not."""
    result = workdir / f"retrain/best_{space_name(index)}" / "result.json"
    if retrained:
        if not result.exists():
            return ""
        measured = read_json(result)["test_accuracy"]
        return f"top-1 {measured:.2f} % on split {dataset['splits']['test']['split']}"
    records = map(Evaluated.from_json, read_json_lines(workdir / f"space_{index}" / "evaluated.jsonl"))
    errors = [record.error for record in records if record.architecture == chosen]
    held = f"images of {dataset['splits']['holdout']['split']} that were held out of training"
    return f"top-1 {100 - errors[0]:.2f} % on {held}" if errors else ""
