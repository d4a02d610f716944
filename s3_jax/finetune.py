"""Training of a network that has weights already, at another resolution or on other classes: one resumable run."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from s3_jax.classification.task import Classification
from s3_jax.config import Config
from s3_jax.errors import S3Error
from s3_jax.models.families import family_of
from s3_jax.networks import standalone
from s3_jax.networks.classes import match
from s3_jax.networks.convert import load_weights, to_state_dict
from s3_jax.networks.standalone import About, Spec, Standalone
from s3_jax.paths import AnyPath
from s3_jax.progress import say
from s3_jax.remaining import Phase
from s3_jax.task import Variables, open_task, variables_of
from s3_jax.training.devices import put_replicated
from s3_jax.training.evaluate import error_of_network
from s3_jax.training.fit import fit, num_updates
from s3_jax.training.loop import StopRequest
from s3_jax.training.networks import merged
from s3_jax.training.records import read_json, read_record
from s3_jax.training.run import Run
from s3_jax.training.start import opened_workdir, record_start, start_run

PHASE = "finetune"


def finetune(
    start: Standalone, config: Config, workdir: AnyPath, *, from_scratch: bool, console: Console, stop: StopRequest
) -> dict[str, Any]:
    """Train `start` on the data of `config`, and write its network's folder `workdir/network`. Returns the result.

    Bias tables and position embeddings are resized to the configuration's image size; the classifier is new where the
    classes are others. from_scratch: the same training from random weights, to compare with. Raises S3Error for
    settings that do not fit; Interrupted once it has saved on request.
    """
    if config.train.init_from:
        raise S3Error("config.train.init_from is where a search begins; fine-tuning begins with --model: leave it out")
    with opened_workdir(workdir, config):
        _check_same_start(workdir, start.spec, from_scratch)
        if (workdir / "result.json").exists():
            say(console, f"This run is finished: there is nothing to do. Its result is in {workdir / 'result.json'}")
            return read_record(
                workdir / "result.json", lambda record: {"test_accuracy": record["test_accuracy"]} | record
            )
        task = _task(config)
        return _run(start, start_run(config, task, workdir, console, stop), task, from_scratch)


def _run(start: Standalone, run: Run, task: Classification, from_scratch: bool) -> dict[str, Any]:
    config, workdir = run.config, run.workdir
    try:
        spec = target_spec(start.spec, config, task)
        record_start(run)
        updates = num_updates(config.train, task.splits.train_and_holdout)
        run.clock.follow([Phase(PHASE, "fine-tuning", "an update", updates)])
        run.write_json("start.json", _start_record(start.spec, from_scratch))
        network = fit(
            run,
            PHASE,
            spec.architecture,
            config.train,
            task.splits.train_and_holdout,
            lambda: _initial(run, start, spec, from_scratch),
        )
        accuracy = 100.0 - error_of_network(run, network, task.splits.test, spec.architecture)
    finally:
        run.metrics.close()
    spec = dataclasses.replace(spec, about=_about(start.spec, config, task, accuracy, from_scratch))
    if jax.process_index() == 0:
        standalone.save(workdir / "network", Standalone(merged(network.definition, network.variables), spec))
    result = {
        "test_accuracy": accuracy,
        "params": spec.cost.params,
        "macs": spec.cost.macs,
        "dataset": task.record(),
    }
    run.write_json("result.json", result)
    return result


def _task(config: Config) -> Classification:
    """The task of a configuration, which must be classification: other networks are trained by `main`."""
    task = open_task(config)
    if not isinstance(task, Classification):
        raise S3Error(f"config.task = {config.task!r}: this trains classifiers; python -m s3_jax.main trains others")
    return task


def target_spec(start: Spec, config: Config, task: Classification) -> Spec:
    """The specification of the network that is trained: with the data's classes, at the configuration's image size.

    Raises S3Error where it has other patches, or cannot take images of that size.
    """
    size = config.model.image_size
    if config.model.patch_size != start.patch_size:
        raise S3Error(
            f"config.model.patch_size = {config.model.patch_size}, but the network has patches of {start.patch_size}; "
            "give that"
        )
    target = dataclasses.replace(
        start,
        architecture=family_of(start.architecture).scaled(start.architecture, start.image_size, size),
        image_size=size,
        class_names=task.class_names,
        mean=task.data.mean,
        std=task.data.std,
        eval_crop=task.data.eval_crop,
    )
    nnx.eval_shape(lambda: standalone.build(target))  # refuses what cannot be built before anything is written
    return target


def kept_classifier(start: tuple[str, ...], data: tuple[str, ...]) -> np.ndarray | None:
    """The network's class for each of the data's, where a classifier for the one serves the other; None where not.

    They have the same names, in whatever order, or the network knows its as many classes by number alone: so the
    published models keep theirs on ImageNet.
    """
    try:
        return match(start, data) if len(start) == len(data) else None
    except S3Error:
        return None


def _initial(run: Run, start: Standalone, spec: Spec, from_scratch: bool) -> Variables:
    """What to begin with, on every device."""
    network = standalone.build(spec, rngs=nnx.Rngs(params=run.key(PHASE)))
    if not from_scratch:
        classes = kept_classifier(start.spec.class_names, spec.class_names)
        say(run.clock.console, f"The classifier is {'new: the classes are others' if classes is None else 'kept'}.")
        tensors = to_state_dict(start.network)
        if classes is not None:
            tensors |= {name: tensor[classes] for name, tensor in tensors.items() if name.startswith("head.")}
        load_weights(network, tensors, resize=True, reset_head=classes is None)
    return put_replicated(run.mesh, variables_of(network))


def _start_record(spec: Spec, from_scratch: bool) -> dict[str, Any]:
    return {"from_scratch": from_scratch, "start": spec.to_json()}


def _check_same_start(workdir: AnyPath, spec: Spec, from_scratch: bool) -> None:
    path = workdir / "start.json"
    if path.exists() and read_json(path) != _start_record(spec, from_scratch):
        raise S3Error(
            f"{workdir} holds a training that began with another network; give that one, or another --workdir"
        )


def _about(start: Spec, config: Config, task: Classification, accuracy: float, from_scratch: bool) -> About:
    train, before = config.train, "" if from_scratch else f"; before that: {start.about.recipe or 'not recorded'}"
    return About(
        data=f"{task.record()['name']}, split {task.splits.train_and_holdout.split}",
        recipe=f"{train.epochs:g} epochs in batches of {train.batch_size}, AdamW, peak {train.learning_rate:g}, "
        f"{config.model.image_size} px{before}",
        accuracy=f"top-1 {accuracy:.2f} % on split {task.splits.test.split}",
        licence=start.about.licence,
    )
