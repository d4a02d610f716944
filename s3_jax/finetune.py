"""Training of one network on a task, from the weights of another or from scratch: one resumable run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx
from rich.console import Console

from s3_jax.config import BackboneConfig, Config
from s3_jax.cost import Cost
from s3_jax.errors import S3Error
from s3_jax.models.families import AnyArchitecture, family_of
from s3_jax.networks import standalone, zoo
from s3_jax.networks.standalone import About, Standalone
from s3_jax.paths import AnyPath
from s3_jax.progress import say
from s3_jax.remaining import Phase
from s3_jax.task import Metrics, Task, Variables, open_task, variables_of
from s3_jax.training.devices import put_replicated
from s3_jax.training.evaluate import metrics_of_network
from s3_jax.training.fit import fit, num_updates
from s3_jax.training.loop import StopRequest
from s3_jax.training.networks import merged
from s3_jax.training.records import read_record
from s3_jax.training.run import Run
from s3_jax.training.start import finished, opened_workdir, record_start, start_run

PHASE = "finetune"


class Start(NamedTuple):
    """What a training begins with: a network, of whose weights it may make no use, or an architecture alone."""

    network: Standalone | None  # without weights (None) where none are made use of
    architecture: AnyArchitecture
    from_scratch: bool

    def record(self) -> dict[str, Any]:
        """What tells two starts apart, as JSON."""
        start = self.architecture.to_json() if self.network is None else self.network.spec.to_json()
        return {"from_scratch": self.from_scratch, "start": start}

    @property
    def about(self) -> About:
        """Where the weights are from that it begins with, if there are any."""
        return About() if self.network is None or self.from_scratch else self.network.spec.about


def transfer(config: Config, workdir: AnyPath, *, console: Console, stop: StopRequest) -> dict[str, Any]:
    """Train the network of `config.backbone` on the configuration's task. Returns the result, as `finetune` does.

    Raises S3Error where there is no such network, as well.
    """
    backbone = config.backbone
    if not backbone.model or (backbone.from_scratch and not backbone.weights):
        start = start_without_weights(backbone)
    else:
        network = zoo.open_model(backbone.model, backbone.weights, new_head=True)
        start = Start(network, network.spec.architecture, backbone.from_scratch)
    return finetune(start, config, workdir, console=console, stop=stop)


def start_without_weights(backbone: BackboneConfig) -> Start:
    """The network of `config.backbone` as it is described, of whose weights nothing is read.

    Raises S3Error where there is no such network.
    """
    if not backbone.model:
        return Start(None, backbone.architecture(), from_scratch=True)
    spec = zoo.spec(backbone.model) if backbone.model in zoo.names() else zoo.open_model(backbone.model).spec
    return Start(Standalone(None, spec), spec.architecture, from_scratch=True)


def finetune(start: Start, config: Config, workdir: AnyPath, *, console: Console, stop: StopRequest) -> dict[str, Any]:
    """Train a network on the task of `config`, and write its folder `workdir/network`. Returns the result.

    Windows and what depends on them are scaled to the configuration's image size; what of the weights is kept, the task
    says. Raises S3Error for settings that do not fit; Interrupted once it has saved on request.
    """
    return training(start.record(), config, workdir, lambda run: _train(start, run), console=console, stop=stop)


def training(
    start: Mapping[str, Any],
    config: Config,
    workdir: AnyPath,
    work: Callable[[Run], dict[str, Any]],
    *,
    console: Console,
    stop: StopRequest,
) -> dict[str, Any]:
    """One training in its folder, whatever it trains: taken up where it was stopped. Returns the result.

    start: what tells two beginnings apart, as JSON. work: checks what is left to be checked, calls `begin`, trains and
    returns the result; it is not called where the training is finished. Raises S3Error for settings that do not fit,
    and where the folder is that of another training.
    """
    if config.train.init_from:
        raise S3Error(
            "config.train.init_from is where a search begins; the training of one network begins with --model, or with "
            "config.backbone.model: leave it out"
        )
    with opened_workdir(workdir, config):
        check_same_start(workdir, start)
        if (workdir / "result.json").exists():
            result = read_record(workdir / "result.json", _checked_result)
            say(console, finished(workdir, result))
            return result
        run = start_run(config, open_task(config), workdir, console, stop, retrains=False)
        try:
            result = work(run)
        finally:
            run.metrics.close()
        run.write_json("result.json", result)
        return result


def begin(run: Run, start: Mapping[str, Any]) -> int:
    """Bind the folder to the run, of which all is checked. Returns how many updates its training has."""
    record_start(run)
    updates = num_updates(run.config.train, run.task.splits.train_and_holdout)
    run.clock.follow([Phase(PHASE, "training of one network", "an update", updates)])
    run.write_json("start.json", start)
    return updates


def result_of(task: Task, metrics: Metrics, cost: Cost) -> dict[str, Any]:
    """What `result.json` says of a trained network, from its metrics on the test split."""
    return {
        "test_accuracy": 100.0 - task.error(metrics),
        "metrics": metrics,
        "in_words": task.in_words(metrics),
        "params": cost.params,
        "macs": cost.macs,
        "dataset": task.record(),
        **task.names(),
    }


def _train(start: Start, run: Run) -> dict[str, Any]:
    config, task = run.config, run.task
    architecture = target_architecture(start, config)
    cost = task.spec(architecture, About()).cost
    nnx.eval_shape(lambda: task.network(architecture, nnx.Rngs(0)))  # refuses what cannot be built
    begin(run, start.record())
    subset = task.splits.train_and_holdout
    network = fit(run, PHASE, architecture, config.train, subset, lambda: _initial(run, start, architecture))
    metrics = metrics_of_network(run, network, task.splits.test)
    spec = task.spec(architecture, _about(start, config, task, metrics))
    if jax.process_index() == 0:
        standalone.save(run.workdir / "network", Standalone(merged(network.definition, network.variables), spec))
    return result_of(task, metrics, cost)


def _checked_result(record: dict[str, Any]) -> dict[str, Any]:
    """A result; those of 0.1.0, which had classifiers alone, lack its words."""
    return {"in_words": f"top-1 {float(record['test_accuracy']):.2f} %"} | record


def target_architecture(start: Start, config: Config) -> AnyArchitecture:
    """The architecture that is trained, with windows for the configuration's image size.

    Raises S3Error where the start has other patches.
    """
    if start.network is None:
        return start.architecture
    size, spec = config.model.image_size, start.network.spec
    if config.model.patch_size != spec.patch_size:
        raise S3Error(
            f"config.model.patch_size = {config.model.patch_size}, but the network has patches of {spec.patch_size}; "
            "give that"
        )
    return family_of(start.architecture).scaled(start.architecture, spec.image_size, size)


def _initial(run: Run, start: Start, architecture: AnyArchitecture) -> Variables:
    """What to begin with, on every device."""
    network = run.task.network(architecture, nnx.Rngs(params=run.key(PHASE)))
    if start.network is not None and not start.from_scratch:
        run.task.begin_with(network, start.network, lambda what: say(run.clock.console, what))
    return put_replicated(run.mesh, variables_of(network))


def check_same_start(workdir: AnyPath, now: Mapping[str, Any]) -> None:
    """Raises S3Error where a folder holds a training that began with something else, as `start.json` tells."""
    path = workdir / "start.json"
    # Records of 0.1.0 do not say of which task the network is: there was one.
    if path.exists() and read_record(path, lambda old: old | {"start": now["start"] | old["start"]}) != now:
        raise S3Error(
            f"{workdir} holds a training that began with another network; give that one, or another --workdir"
        )


def _about(start: Start, config: Config, task: Task, metrics: Metrics) -> About:
    train, about = config.train, start.about
    begun_with_weights = start.network is not None and not start.from_scratch
    before = f"; before that: {about.recipe or 'not recorded'}" if begun_with_weights else ""
    return About(
        data=f"{task.record()['name']}, split {task.splits.train_and_holdout.split}",
        recipe=f"{train.epochs:g} epochs in batches of {train.batch_size}, AdamW, peak {train.learning_rate:g}, "
        f"{config.model.image_size} px{before}",
        accuracy=f"{task.in_words(metrics)} on split {task.splits.test.split}",
        licence=about.licence,
    )
