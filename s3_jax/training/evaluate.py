"""Errors of many subnets on images that stay on the device; each architecture is evaluated once and noted at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax

from s3_jax.cost import Evaluated
from s3_jax.data.dataset import Subset
from s3_jax.data.input import eval_batches
from s3_jax.errors import Interrupted, S3Error
from s3_jax.paths import AnyPath
from s3_jax.space import Architecture
from s3_jax.standalone import AnyArchitecture
from s3_jax.training.devices import put_batch, put_replicated
from s3_jax.training.networks import Network
from s3_jax.training.programs import evaluation_of
from s3_jax.training.records import JsonLines, read_json_lines, whole_lines
from s3_jax.training.run import Run
from s3_jax.training.steps import Batch


def device_batches(run: Run, subset: Subset) -> Iterable[Batch]:
    """Evaluation batches of `subset` on the mesh, one after the other."""
    batches = eval_batches(
        subset,
        data=run.config.data,
        image_size=run.config.model.image_size,
        batch_size=run.config.run.eval_batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return (put_batch(run.mesh, batch) for batch in batches)


def error_of_subnets(run: Run, network: Network, subset: Subset) -> Callable[[Architecture], float]:
    """A function from an architecture to its top-1 error in percent on `subset`: one program, images resident."""
    step = evaluation_of(network.definition, run.mesh)
    batches = list(device_batches(run, subset))

    def error(architecture: Architecture) -> float:
        """The error of one subnet, in percent."""
        mask = put_replicated(run.mesh, network.mask(architecture))
        with run.clock.compiling(step, "the evaluation of subnets"):
            return _error(step(network.params, batch, mask) for batch in batches)

    return error


def error_of_network(run: Run, network: Network, subset: Subset, architecture: AnyArchitecture) -> float:
    """Top-1 error in percent of one architecture on `subset`, whose images pass through the device once."""
    step = evaluation_of(network.definition, run.mesh)
    mask = put_replicated(run.mesh, network.mask(architecture))
    with run.clock.compiling(step, "the evaluation of the network"):
        return _error(step(network.params, batch, mask) for batch in device_batches(run, subset))


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
        if evaluated.cost != self._run.cost(evaluated.architecture) or not 0 <= evaluated.error <= 100:
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
            known = Evaluated(architecture, self._run.cost(architecture), self._error_of(architecture))
            if jax.process_index() == 0:
                self._lines.append(known.to_json())
            self._known[architecture] = known
        return self._known[architecture]

    def flush(self) -> None:
        """Write the lines that wait; see `JsonLines`."""
        self._lines.flush()


def _error(counts: Iterable[dict[str, jax.Array]]) -> float:
    # All batches are under way before the first is waited for.
    fetched = jax.device_get(list(counts))
    images = sum(float(count["images"]) for count in fetched)
    if not images:
        raise S3Error("there is no readable image to evaluate on; look at data.holdout_fraction and the test split")
    return 100.0 * (1.0 - sum(float(count["correct"]) for count in fetched) / images)
