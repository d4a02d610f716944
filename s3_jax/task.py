"""What a task is: all that depends on what the networks of a run are asked; everything else is common to all tasks.

A task is a value that follows the protocol `Task`: a frozen dataclass in a room of its own, such as `classification`.
Training, evaluation, the phases of the method and fine-tuning take it as it is and know nothing of its kind.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from flax import nnx
from jax import Array

from s3_jax.config import Config, config_class, room_of
from s3_jax.cost import Cost
from s3_jax.data.splits import Splits, Subset
from s3_jax.data.stream import Examples
from s3_jax.errors import S3Error
from s3_jax.models.families import Structure
from s3_jax.models.subnet import Params, SubnetMask, copy_overlap, slice_weights
from s3_jax.space import Architecture, SearchSpace

# Of one device's part of a batch: for each term of the loss its sum over the examples, and the count it is divided by.
Terms = dict[str, tuple[Array, Array]]
Line = dict[str, Any]
Metrics = dict[str, float]


class Variables(NamedTuple):
    """What a network holds, as nested dicts: what is trained, and the running statistics of batch normalisation."""

    params: Params
    stats: Params


def open_task(config: Config) -> Task:
    """The task of a configuration, with its data. Raises S3Error where there is no such task, or its data do not fit.

    config.task: the package that has the task; its function `open_task` is given the whole configuration.
    """
    room, kind = room_of(config.task), config_class(config.task)
    if not isinstance(config, kind):  # made by hand
        raise S3Error(
            f"config.task = {config.task!r}: its settings are a {kind.__module__}.{kind.__name__}, and these are a "
            f"{type(config).__name__}; make that one, as s3_jax.config.config_of does"
        )
    return room.open_task(config)


def variables_of(network: nnx.Module) -> Variables:
    """What a network holds, as nested dicts."""
    params, stats = nnx.state(network, nnx.Param, nnx.BatchStat)
    return Variables(nnx.to_pure_dict(params), nnx.to_pure_dict(stats))


def check_finite(finite: np.ndarray) -> None:
    """Raises S3Error where the answers to some images (B,) are not finite: ranks of such would mean nothing."""
    bad = int((~finite).sum())
    if bad:
        raise S3Error(
            f"the network's answers to {bad} of {len(finite)} images are not finite: its weights are far too large, or "
            "its preprocessing (mean, std) is none"
        )


class Task(Protocol):
    """The functions in which tasks differ. A batch is a dict of arrays with a leading example axis, see `stream`.

    Classes that name this as their base need to write only what is abstract here; without it they cannot be made.
    """

    score_name: ClassVar[str] = "score"  # what 100 - error is called where a run is reported
    error_name: ClassVar[str] = "error"
    splits: Splits  # the data, and what they are used for

    def record(self) -> dict[str, Any]:
        """What a result says of its data, as JSON, with the record of the splits."""
        return self.splits.record()

    def bound(self) -> dict[str, Any]:
        """What else of the data must be the same when a run is taken up again."""
        return {}

    def start(self) -> dict[str, Any]:
        """What tells the weights apart that trainings begin with; nothing where those are random."""
        return {}

    @abstractmethod
    def examples(self, subset: Subset, *, training: bool) -> Examples:
        """The examples of a subset."""

    @abstractmethod
    def network(
        self, structure: Structure, rngs: nnx.Rngs, *, batch_axis: str | None = None, platform: str | None = None
    ) -> nnx.Module:
        """The network of an architecture, or the supernet of a space, with random weights.

        batch_axis: the mesh axis over which `jax.shard_map` splits a batch. platform: of the devices, as JAX calls it.
        """

    def initial(self, structure: Structure, key: Array, tell: Callable[[str], None]) -> Variables:
        """What a training begins with, on the host or one device; `tell` says to the user what is not random of it."""
        return variables_of(self.network(structure, nnx.Rngs(params=key)))

    def spec(self, architecture: Any, about: Any) -> Any:
        """What the network of an architecture is by itself, as a `networks.standalone.Spec`, for its folder.

        about: where its weights are from, a `networks.standalone.About`. Raises S3Error where the task has none.
        """
        raise S3Error(f"{type(self).__name__} has no networks by themselves: it needs the function spec of a task")

    def begin_with(self, network: Any, start: Any, tell: Callable[[str], None]) -> None:
        """Give a network, in place, the weights of another that fit: a `networks.standalone.Standalone`.

        `tell` says to the user what is kept. Raises S3Error where none do.
        """
        raise S3Error(f"{type(self).__name__} begins with random weights: it needs the function begin_with of a task")

    def sliced(self, params: Params, space: SearchSpace, architecture: Architecture) -> Params:
        """The weights of an architecture's network, cut out of those of a supernet; see `slice_weights`."""
        return slice_weights(params, space, architecture)

    def overlapped(self, source: Params, target: Params) -> Params:
        """`target`, a supernet's weights, with what it shares with those of another space; see `copy_overlap`.

        A network of both spaces, cut out of either, is the same afterwards.
        """
        return copy_overlap(source, target)

    @abstractmethod
    def terms(
        self, network: Any, batch: dict[str, Array], subnet: SubnetMask | None, key: Array, max_drop_path: float
    ) -> Terms:
        """The loss of a network in training on one device's part of a batch; see `Terms`.

        Examples of weight 0 count nowhere. Statistics that the network keeps are updated in place.
        """

    @abstractmethod
    def predict(self, network: Any, batch: dict[str, Array], subnet: SubnetMask | None) -> dict[str, Array]:
        """What a network says of a batch, and what else of it a score needs: arrays with a leading example axis."""

    @abstractmethod
    def lines(self, subset: Subset, rows: Sequence[int], predicted: dict[str, np.ndarray]) -> list[Line]:
        """A JSON record for each example, from predictions for these rows of a subset.

        Raises S3Error where a network's answers are not finite.
        """

    @abstractmethod
    def score(self, lines: Sequence[Line]) -> Metrics:
        """The metrics of all examples, from their records alone."""

    @abstractmethod
    def error(self, metrics: Metrics) -> float:
        """What E-T Error and search minimise, in percent from 0 to 100."""

    def in_words(self, metrics: Metrics) -> str:
        """The main metrics, for a line."""
        return ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())

    def score_in_words(self, score: float) -> str:
        """100 - error alone, in percent, for a line."""
        return f"{self.score_name} {score:.2f} %"

    def names(self) -> dict[str, str]:
        """What its score and its error are called, as the files of a run have it for the report."""
        return {"score_name": self.score_name, "error_name": self.error_name}

    @abstractmethod
    def cost(self, architecture: Any) -> Cost:
        """Parameters and multiply-adds of the whole network of an architecture."""
