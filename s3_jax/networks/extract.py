"""Stand-alone networks out of a run's folder: weights cut out of a supernet, or those of the retrained winner."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from s3_jax.config import Config, ModelConfig, RetrainConfig, TrainConfig, config_of, room_of
from s3_jax.cost import Evaluated
from s3_jax.errors import S3Error
from s3_jax.evolution import space_name
from s3_jax.mapping import from_record
from s3_jax.models.families import Structure
from s3_jax.networks.standalone import About, Standalone
from s3_jax.paths import AnyPath
from s3_jax.space import Architecture, SearchSpace
from s3_jax.task import Task, Variables, open_task
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.devices import make_mesh, replicated
from s3_jax.training.networks import merged
from s3_jax.training.programs import shapes_of
from s3_jax.training.records import read_json_lines, read_record
from s3_jax.training.start import START

_ADVICE = "put it back from a copy"


@dataclasses.dataclass(frozen=True)
class _Source:
    """The run that a network is taken out of, and in which of its spaces: from the supernet, or as it was retrained."""

    workdir: AnyPath
    config: Config  # what all tasks share of it, as far as networks need it
    task: Task
    dataset: dict[str, Any]  # the record of its data
    index: int
    retrained: bool

    @property
    def phase(self) -> str:
        """The training whose weights are taken."""
        return f"retrain/best_{space_name(self.index)}" if self.retrained else f"space_{self.index}"


def extract(workdir: AnyPath, architecture: Architecture | None = None, *, retrained: bool = False) -> Standalone:
    """A subnet of the last supernet that a run has trained, the best one found where `architecture` is None.

    retrained: with the weights of its retraining instead of those it inherits from the supernet. Raises S3Error where
    the folder is no run, has not come that far, or the architecture is not in its space; where the task has no networks
    by themselves; and, of a task whose package has no `recorded_task`, where its data are gone.
    """
    config, task, dataset = _settings(workdir)
    index = _last_searched(workdir)
    folder = workdir / f"space_{index}"
    space = read_record(folder / "space.json", lambda record: SearchSpace.from_json(record["space"]))
    best = read_record(folder / "search" / "best.json", Evaluated.from_json)
    chosen = architecture or best.architecture
    if retrained and chosen != best.architecture:
        raise S3Error("only the best architecture of a space is retrained; leave out the other one, or --retrained")
    source = _Source(workdir, config, task, dataset, index, retrained)
    spec = task.spec(chosen, _about(source, chosen))
    variables = restored(workdir, source.phase, task, chosen if retrained else space, make_mesh(1))
    if not retrained:
        variables = variables._replace(params=task.sliced(variables.params, space, chosen))
    network = nnx.eval_shape(partial(spec.build, dtype=config.model.dtype))
    return Standalone(merged(nnx.split(network)[0], variables), spec)


def _settings(workdir: AnyPath) -> tuple[Config, Task, dict[str, Any]]:
    """Those settings of a run that its networks need, whatever version wrote them, its task, and its data's record.

    A field that the record lacks has its default, as for a run that goes on; one that is not known here is left out.
    """
    settings, environment = workdir / "config.json", workdir / "environment.json"
    if not settings.is_file() or not environment.is_file():
        raise S3Error(f"{workdir} is not the folder of a run: it has no config.json and environment.json")
    config = read_record(settings, _needed, _ADVICE)
    dataset = read_record(environment, lambda record: _checked_dataset(record["dataset"]), _ADVICE)
    return config, _task(settings, config.task, dataset), dataset


def _task(settings: AnyPath, name: str, dataset: dict[str, Any]) -> Task:
    """The task of a run's config.json: without data where its package can do without, otherwise with them."""
    recorded_task = getattr(room_of(name), "recorded_task", None)
    if recorded_task is not None:
        return read_record(settings, lambda record: recorded_task(record, dataset), _ADVICE)
    not_settings = ("version", *START)
    record = read_record(settings, lambda record: {k: v for k, v in record.items() if k not in not_settings}, _ADVICE)
    return open_task(config_of(record))


# What the model card says of a training.
_OF_A_TRAINING = ("epochs", "batch_size", "init_from", "init_weights")


def _needed(settings: dict[str, Any]) -> Config:
    retrain = settings.get("retrain", {})
    return Config(
        task=settings.get("task", Config.task),
        model=from_record(ModelConfig, settings.get("model", {}), "config.model"),
        train=from_record(TrainConfig, settings.get("train", {}), "config.train", *_OF_A_TRAINING),
        retrain=RetrainConfig(
            from_supernet=retrain.get("from_supernet", RetrainConfig().from_supernet),
            train=from_record(TrainConfig, retrain.get("train", {}), "config.retrain.train", *_OF_A_TRAINING),
        ),
    )


def _checked_dataset(dataset: dict[str, Any]) -> dict[str, Any]:
    """What is asked of the record of the data."""
    splits = {use: {"split": dataset["splits"][use]["split"]} for use in ("train", "holdout", "test")}
    return dataset | {"splits": splits}


def _last_searched(workdir: AnyPath) -> int:
    """The number of the last space whose search is done."""
    folders = (path.parts[-3] for path in workdir.glob("space_*/search/best.json"))
    done = [int(found[1]) for found in map(re.compile(r"space_(\d+)").fullmatch, folders) if found]
    if not done and (workdir / "network").is_dir():
        raise S3Error(f"{workdir} is the run of one network, which is in {workdir / 'network'} already")
    if not done:
        raise S3Error(f"{workdir}: no search of this run is done; the same command that started it goes on with it")
    return max(done)


def restored(workdir: AnyPath, phase: str, task: Task, structure: Structure, mesh: Mesh) -> Variables:
    """What a phase of a run has trained, on every device of a mesh. Raises S3Error where it is not there."""
    folder = workdir / phase / "checkpoints"
    if not folder.is_dir():
        raise S3Error(f"there is no {folder}: {phase} of this run is not done, or its checkpoints were removed")
    checkpoints = Checkpoints(folder, structure.to_json())
    variables = checkpoints.restore_variables(shapes_of(task, structure), replicated(mesh))
    checkpoints.close()
    if variables is None:
        raise S3Error(f"there is no complete checkpoint in {folder}: {phase} of this run is not done")
    return variables


def _about(source: _Source, chosen: Architecture) -> About:
    """What the model card says of where a network's weights are from."""
    config, dataset = source.config, source.dataset
    train = config.retrain.train if source.retrained else config.train
    begun_with = config.train.init_from
    recipe = "retrained from scratch" if not begun_with else "retrained"
    if config.retrain.from_supernet:
        recipe = "retrained, starting from the supernet"
    if not source.retrained:
        recipe = f"weights inherited from the supernet of space {space_name(source.index)} (sandwich rule)"
    named = f"{dataset['name']}, " if "name" in dataset else ""
    return About(
        data=f"{named}split {dataset['splits']['train']['split']}",
        recipe=f"{recipe}, {train.epochs:g} epochs in batches of {train.batch_size}"
        + (f"; before that: weights of {begun_with}, where they overlap" if begun_with else ""),
        accuracy=_measured(source, chosen),
    )


def _measured(source: _Source, chosen: Architecture) -> str:
    """What the run has measured of a network, in words; "" where it has not."""
    splits = source.dataset["splits"]
    if source.retrained:
        result = source.workdir / source.phase / "result.json"
        if not result.exists():
            return ""
        shared = (source.dataset.get("overlap") or {}).get("holdout_test")
        seen = f", of which the search had seen {shared:,} images" if shared else ""
        score = read_record(result, lambda record: float(record["test_accuracy"]))
        return f"{source.task.score_in_words(score)} on split {splits['test']['split']}{seen}"
    records = read_json_lines(source.workdir / source.phase / "evaluated.jsonl", Evaluated.from_json)
    errors = [record.error for record in records if record.architecture == chosen]
    held = f"images of {splits['holdout']['split']} that were held out of training"
    return f"{source.task.score_in_words(100 - errors[0])} on {held}" if errors else ""
