"""Training of a PyTorch network under our recipe: a second update, inside the one loop and a run like any other.

The batches, their order and augmentation, the number of updates, the learning rates, the loop with its records, stops
and messages are those of our own networks; AdamW, clipping, averages and the loss are PyTorch's of the same definition
(`tests/test_compare_timm.py` trains one network by both). What remains each library's own are the initial weights,
where stochastic depth is, and which kernels decay: with timm all but norms, biases and what its model exempts.
`run.evaluate_every`, `shard_parameters` and `num_devices` have no effect here.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s3_jax.classification.config import ClassificationConfig
from s3_jax.config import TrainConfig
from s3_jax.data.stream import Examples
from s3_jax.errors import S3Error, first_line
from s3_jax.finetune import PHASE, begin, result_of
from s3_jax.networks.files import write_safetensors
from s3_jax.paths import AnyPath
from s3_jax.progress import Advance
from s3_jax.task import Metrics, Task
from s3_jax.training.devices import make_mesh
from s3_jax.training.evaluate import check_read, counted, lines_of, placed_batches
from s3_jax.training.fit import batches_of
from s3_jax.training.loop import Schedule, train
from s3_jax.training.run import Run
from s3_jax.training.state import learning_rate
from s3_jax.training.steps import Batch
from s3_jax.writing import write_whole

if TYPE_CHECKING:
    import torch
    from torch import nn

    from s3_jax.comparison.timm_model import TimmModel


class TorchState(NamedTuple):
    """The update count, and what PyTorch changes in place: the network, AdamW, and averaged parameters if asked for."""

    step: int
    network: nn.Module
    optimizer: torch.optim.Optimizer
    ema: list[torch.Tensor] | None


def device() -> torch.device:
    """Where PyTorch computes: the first GPU it can use, or the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_timm(model: TimmModel, run: Run) -> dict[str, Any]:
    """Train a model of timm's in a run, from its last checkpoint on. Returns the result.

    Its weights are then in `network/weights.safetensors`, under timm's names. Raises S3Error where several processes
    are at work.
    """
    from s3_jax.comparison.timm_model import cost_of

    config, task = run.config, run.task
    assert isinstance(config, ClassificationConfig)
    if jax.process_count() > 1:
        raise S3Error(f"{model.name}: models of timm's are trained by one process; start the comparison on one host")
    network = model.build(config, task.num_classes)  # type: ignore[attr-defined]
    cost = cost_of(network, model.name, config.model.image_size)
    num_steps = begin(run, model.start())
    checkpoints = TorchCheckpoints(run.workdir / PHASE / "checkpoints" / "torch.pt")
    state = checkpoints.restore(first_state(network.to(device()), config.train))
    if state.step < num_steps:
        state = _train(run, state, num_steps, checkpoints)
    _use_averages(state)
    test = task.examples(task.splits.test, training=False)
    metrics, _ = metrics_of_timm(network, task, test, config, half=_half(config))
    tensors = {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}
    write_safetensors(run.workdir / "network" / "weights.safetensors", tensors, {"format": "pt"})
    return result_of(task, metrics, cost) | {"libraries": _versions()}


def first_state(network: nn.Module, config: TrainConfig) -> TorchState:
    """The state before the first update."""
    import torch
    from timm.optim import param_groups_weight_decay

    groups: Any = network.parameters()
    if not config.decay_norms_and_biases:
        exempt: set[str] = getattr(network, "no_weight_decay", set)()
        groups = param_groups_weight_decay(network, config.weight_decay, no_weight_decay_list=exempt)
    betas, decay = (0.9, config.beta2), config.weight_decay
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=1e-8, weight_decay=decay)
    ema = [parameter.detach().clone() for parameter in network.parameters()] if config.ema_decay else None
    return TorchState(0, network, optimizer, ema)


def update_of(run: Run, schedule: optax.Schedule) -> Callable[[TorchState, Batch, int], tuple[TorchState, dict]]:
    """The update of a training: state, batch and its number to the state and the metrics of `steps.train_step`."""
    import torch

    config = run.config.train

    def update(state: TorchState, batch: Batch, step: int) -> tuple[TorchState, dict[str, Any]]:
        """One update; stochastic depth draws from a seed of its own, so a resumed training draws the same."""
        torch.manual_seed(int(run.rng(f"{PHASE}/torch", step).integers(2**63)))
        rate = float(schedule(step))
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.network.train()
        state.optimizer.zero_grad()
        loss = accumulate(state.network, batch, config.accumulation_steps, half=_half(run.config))
        norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm or math.inf)
        state.optimizer.step()
        if state.ema is not None:
            with torch.no_grad():
                torch._foreach_lerp_(state.ema, list(state.network.parameters()), 1.0 - config.ema_decay)
        return state._replace(step=step + 1), _metrics(loss, float(norm), rate, batch)

    return update


def accumulate(network: nn.Module, batch: Batch, parts: int, *, half: bool) -> float:
    """Add the gradient of the loss to the network's, one part of the batch after the other. Returns the loss.

    The loss is that of `Classification.terms`: the cross-entropy with soft labels over the sum of labels that count.
    half: compute in bfloat16 where PyTorch's autocast does.
    """
    import torch

    place, loss = next(network.parameters()).device, 0.0
    target = torch.from_numpy(batch["target"] * batch["weight"][:, None]).to(place)
    count = max(float(target.sum()), 1.0)
    images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2)
    for part in range(parts):  # as `steps.split_batch` has them
        with torch.autocast(place.type, torch.bfloat16, enabled=half):
            logits = network(images[part::parts].to(place))
        share = -(target[part::parts] * logits.float().log_softmax(-1)).sum() / count
        share.backward()
        loss += float(share.detach())
    return loss


def metrics_of_timm(
    network: nn.Module,
    task: Task,
    examples: Examples,
    config: ClassificationConfig,
    *,
    half: bool,
    progress: Advance | None = None,
) -> tuple[Metrics, int]:
    """The task's metrics of a PyTorch network on the batches that ours are evaluated on, and how many images count."""
    import torch

    network.eval()
    place = next(network.parameters()).device

    @torch.no_grad()
    def predict(batch: Batch) -> dict[str, Any]:
        """What the task makes of the logits, as of those of its own networks."""
        images = torch.tensor(np.asarray(batch["image"])).permute(0, 3, 1, 2).to(place)
        with torch.autocast(place.type, torch.bfloat16, enabled=half):
            logits = network(images)
        answers = jnp.asarray(logits.float().cpu().numpy())
        return task.predict(lambda image, subnet: answers, batch, None) | {"weight": batch["weight"]}

    batches = placed_batches(
        examples,
        make_mesh(1),
        config.run.eval_batch_size,
        num_workers=config.data.num_workers,
        skip_bad=config.data.on_bad_image == "skip",
    )
    lines = lines_of(task, examples.subset, predict, counted(batches, progress or (lambda count, what: None)))
    check_read(examples.subset, lines)
    return task.score(lines), len(lines)


class TorchCheckpoints:
    """One file with the last state, written whole or not at all."""

    def __init__(self, path: AnyPath) -> None:
        self._path = path

    def save(self, state: TorchState) -> None:
        """Replace the state that is there. Raises S3Error where the disk refuses it."""
        import torch

        content = io.BytesIO()
        kept = {"network": state.network.state_dict(), "optimizer": state.optimizer.state_dict(), "ema": state.ema}
        torch.save({"step": state.step} | kept, content)
        write_whole(self._path, content.getvalue())

    def close(self) -> None:
        """Nothing waits to be written."""

    def restore(self, state: TorchState) -> TorchState:
        """The state that is there, in the place of the first one; the first where there is none yet.

        Raises S3Error where the file is damaged.
        """
        import torch

        if not self._path.exists():
            return state
        content = io.BytesIO(self._path.read_bytes())
        try:
            with zipfile.ZipFile(content) as archive:
                if bad := archive.testzip():
                    raise ValueError(f"the checksum of {bad} is another")
            content.seek(0)
            kept = torch.load(content, map_location=device(), weights_only=True)
            state.network.load_state_dict(kept["network"])
            state.optimizer.load_state_dict(kept["optimizer"])
            return state._replace(step=int(kept["step"]), ema=kept["ema"])
        except Exception as error:  # PyTorch raises what it likes
            raise S3Error(
                f"{self._path} is damaged: {first_line(error)}; remove it, and the training begins again"
            ) from error


def _train(run: Run, state: TorchState, num_steps: int, checkpoints: TorchCheckpoints) -> TorchState:
    config, settings, subset = run.config.train, run.config.run, run.task.splits.train_and_holdout
    schedule = learning_rate(config, len(subset) / config.batch_size, num_steps)
    batches = batches_of(run, subset, config.batch_size, run.config.seed, state.step)
    with closing(batches):
        return train(
            PHASE,
            state,
            batches,
            update_of(run, schedule),
            schedule=Schedule(num_steps, settings.checkpoint_every, settings.log_every),
            checkpoints=checkpoints,
            metrics=run.metrics,
            stop=run.stop,
            clock=run.clock,
            name_subnet=lambda step, index: "the network",
        )


def _metrics(loss: float, norm: float, rate: float, batch: Batch) -> dict[str, Any]:
    losses = np.array([loss])
    return {
        "loss": losses.mean(),
        "subnet_losses": losses,
        "terms": {"cross_entropy": losses},
        "grad_norm": np.asarray(norm),
        "learning_rate": np.asarray(rate),
        "bad_images": (batch["weight"] == 0).sum(),
    }


def _use_averages(state: TorchState) -> None:
    import torch

    if state.ema is not None:
        with torch.no_grad():
            torch._foreach_copy_(list(state.network.parameters()), state.ema)


def _half(config: Any) -> bool:
    return config.model.dtype == "bfloat16"


def _versions() -> dict[str, str]:
    import timm
    import torch

    return {"torch": str(torch.__version__), "timm": timm.__version__}
