"""Evaluation of networks and of many subnets; each architecture is evaluated once and noted at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from flax import nnx
from jax.sharding import Mesh

from s3_jax.cost import Evaluated
from s3_jax.data.splits import Subset
from s3_jax.data.stream import Examples, eval_batches, eval_plan
from s3_jax.errors import Interrupted, S3Error
from s3_jax.models.families import Structure
from s3_jax.paths import AnyPath
from s3_jax.progress import Advance
from s3_jax.space import Architecture, SearchSpace
from s3_jax.task import Line, Metrics, Task, Variables, variables_of
from s3_jax.training.devices import gathered, make_mesh, put_batch, put_replicated
from s3_jax.training.networks import Trained, define, fixed_subnets
from s3_jax.training.programs import evaluation_of
from s3_jax.training.records import JsonLines, read_json_lines, whole_lines
from s3_jax.training.run import Run
from s3_jax.training.state import TrainState
from s3_jax.training.steps import Batch

# A program that predicts, see `evaluation_of`.
Predict = Callable[..., dict[str, jax.Array]]
# More would only wait on the devices, each with its images.
BATCHES_IN_FLIGHT = 8
_OF_NETWORK = "the evaluation of the network"


class Placed(NamedTuple):
    """A batch on the devices, and the rows of the subset that its examples are of."""

    batch: Batch
    rows: Sequence[int]


def device_batches(run: Run, subset: Subset) -> Iterator[Placed]:
    """Evaluation batches of `subset` on the mesh, one after the other."""
    data = run.config.data
    return placed_batches(
        run.task.examples(subset, training=False),
        run.mesh,
        run.config.run.eval_batch_size,
        num_workers=data.num_workers,
        skip_bad=data.on_bad_image == "skip",
    )


def placed_batches(
    examples: Examples, mesh: Mesh, batch_size: int, *, num_workers: int = 0, skip_bad: bool = False
) -> Iterator[Placed]:
    """Every example once, in batches on a mesh; batch_size: over all processes."""
    batches = eval_batches(
        examples,
        batch_size=batch_size,
        num_workers=num_workers,
        skip_bad=skip_bad,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    for batch, planned in zip(batches, eval_plan(examples, batch_size), strict=True):
        yield Placed(put_batch(mesh, batch), planned.rows)


def lines_of(task: Task, subset: Subset, predict: Callable[[Batch], Any], batches: Iterable[Placed]) -> list[Line]:
    """The task's record of every example that counts; some batches are under way before the first is waited for."""
    lines: list[Line] = []
    waiting: deque[tuple[Any, Sequence[int]]] = deque()

    def take() -> None:
        """Wait for the oldest batch."""
        arrays, rows = waiting.popleft()
        fetched = jax.device_get(arrays)
        places = np.flatnonzero(fetched.pop("weight")).tolist()
        kept = {name: array[places] for name, array in fetched.items()}
        lines.extend(task.lines(subset, [rows[place] for place in places], kept))

    for placed in batches:
        waiting.append((predict(placed.batch), placed.rows))
        if len(waiting) > BATCHES_IN_FLIGHT:
            take()
    while waiting:
        take()
    return lines


def lines_of_network(
    task: Task,
    network: Any,
    examples: Examples,
    *,
    batch_size: int,
    skip_bad: bool,
    num_workers: int,
    progress: Advance,
) -> list[Line]:
    """The task's record of every example that counts, as a network by itself has it, on all devices.

    progress: as `progress.progress_bar` yields it. Raises S3Error where no example could be read.
    """
    mesh = make_mesh()
    step = evaluation_of(task, nnx.split(network)[0], mesh)
    variables, size = put_replicated(mesh, variables_of(network)), -(-batch_size // mesh.size) * mesh.size
    batches = placed_batches(examples, mesh, size, num_workers=num_workers, skip_bad=skip_bad)
    lines = lines_of(task, examples.subset, lambda batch: step(variables, batch, None), counted(batches, progress))
    check_read(examples.subset, lines)
    return lines


def counted(batches: Iterable[Placed], progress: Advance) -> Iterator[Placed]:
    """The same batches; tells how many images they had so far."""
    images = 0
    for placed in batches:
        yield placed
        images += int(placed.batch["weight"].sum())
        progress(images, "")


def check_read(subset: Subset, lines: Sequence[Line]) -> None:
    """Tells once that examples of a subset were left out. Raises S3Error where none is left to measure by."""
    if not lines:
        raise S3Error(
            f"none of the {len(subset):,} images of split {subset.split!r} could be read, so there is nothing to "
            "measure by; the warnings before this say what is wrong with each"
        )
    if len(lines) < len(subset):
        _tell_left_out(subset.split, len(subset) - len(lines), len(subset))


@cache
def _tell_left_out(split: str, count: int, of: int) -> None:
    logging.warning("%s of %s images of split %r were left out of what is measured", f"{count:,}", f"{of:,}", split)


def error_of_subnets(run: Run, network: Trained, subset: Subset) -> Callable[[Architecture], float]:
    """A function from an architecture to its error in percent on `subset`: one program, examples resident."""
    step, batches = _program(run, network), list(device_batches(run, subset))

    def error(architecture: Architecture) -> float:
        """The error of one subnet, in percent."""
        return _error(run, step, network, subset, batches, architecture, "the evaluation of subnets")

    return error


def error_of_network(run: Run, network: Trained, subset: Subset, architecture: Any) -> float:
    """Error in percent of one architecture on `subset`, whose examples pass through the device once."""
    step, batches = _program(run, network), device_batches(run, subset)
    return _error(run, step, network, subset, batches, architecture, _OF_NETWORK)


def metrics_of_network(run: Run, network: Trained, subset: Subset) -> Metrics:
    """The metrics of a network that is no supernet on `subset`, whose examples pass through the device once."""
    step, batches = _program(run, network), device_batches(run, subset)
    return _metrics(run, step, network.variables, None, subset, batches, _OF_NETWORK)


def evaluation_on_holdout(run: Run, structure: Structure) -> Callable[[TrainState], dict[str, float]]:
    """A function from the state of a training to the metrics on the holdout, by names that begin with "holdout_".

    Of a supernet those of the smallest and the largest subnet. The images stay on the devices.
    """
    network, subset = Trained(define(run.task, structure), Variables({}, {}), structure), run.task.splits.holdout
    step, batches = _program(run, network), list(device_batches(run, subset))
    subnets = {"": structure}
    if isinstance(structure, SearchSpace):
        subnets = dict(zip(("smallest_", "largest_"), fixed_subnets(structure), strict=True))

    def evaluate(state: TrainState) -> dict[str, float]:
        """The metrics of a state."""
        variables = gathered(run.mesh, state.eval_variables)
        found: Metrics = {}
        for prefix, architecture in subnets.items():
            mask = put_replicated(run.mesh, network.mask(architecture))
            metrics = _metrics(run, step, variables, mask, subset, batches, "the evaluation during training")
            found |= {f"holdout_{prefix}{name}": value for name, value in metrics.items()}
        return found

    return evaluate


def _program(run: Run, network: Trained) -> Predict:
    if network.definition not in run.evaluations:
        run.evaluations[network.definition] = evaluation_of(run.task, network.definition, run.mesh)
    return run.evaluations[network.definition]


def _error(
    run: Run,
    step: Predict,
    network: Trained,
    subset: Subset,
    batches: Iterable[Placed],
    architecture: Any,
    what: str,
) -> float:
    mask = put_replicated(run.mesh, network.mask(architecture))
    return run.task.error(_metrics(run, step, network.variables, mask, subset, batches, what))


def _metrics(
    run: Run, step: Predict, variables: Variables, mask: Any, subset: Subset, batches: Iterable[Placed], what: str
) -> Metrics:
    with run.clock.compiling(step, what):
        lines = lines_of(run.task, subset, lambda batch: step(variables, batch, mask), batches)
    check_read(subset, lines)
    return run.task.score(lines)


class EvaluationRecord:
    """The architectures evaluated in one space: read from `path`, asked of `error_of` where new, appended at once.

    In a bucket new lines wait for a while: `flush` comes before anything is written that rests on them. What is damaged
    of `path` is left out, and evaluated again when it is asked for.
    """

    def __init__(self, run: Run, path: AnyPath, error_of: Callable[[], Callable[[Architecture], float]]) -> None:
        self._run, self._lines, self._make_error_of = run, JsonLines(path), error_of
        self._error_of: Callable[[Architecture], float] | None = None
        records = read_json_lines(path, self._parse)
        self._known = {record.architecture: record for record in records}
        if jax.process_index() == 0 and whole_lines(path) > len(self._known):
            self._lines.replace(record.to_json() for record in self._known.values())

    def _parse(self, record: Any) -> Evaluated:
        evaluated = Evaluated.from_json(record)
        if evaluated.cost != self._run.task.cost(evaluated.architecture) or not 0 <= evaluated.error <= 100:
            raise S3Error("its parameters, MACs or error cannot be those of its architecture")
        return evaluated

    def has(self, architecture: Architecture) -> bool:
        """Whether it is evaluated already."""
        return architecture in self._known

    def __call__(self, architecture: Architecture) -> Evaluated:
        """The evaluated architecture. Raises Interrupted where the run was asked to stop."""
        if architecture not in self._known:
            if self._run.stop.asked():
                self.flush()
                raise Interrupted(f"stopped after {len(self._known)} evaluated architectures; the same command goes on")
            self._error_of = self._error_of or self._make_error_of()
            known = Evaluated(architecture, self._run.task.cost(architecture), self._error_of(architecture))
            if jax.process_index() == 0:
                self._lines.append(known.to_json())
            self._known[architecture] = known
        return self._known[architecture]

    def flush(self) -> None:
        """Write the lines that wait; see `JsonLines`."""
        self._lines.flush()
