"""The one training loop, of supernets and of single networks."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from s3_jax.errors import Interrupted, S3Error
from s3_jax.training.clock import Clock
from s3_jax.training.records import Metrics
from s3_jax.training.steps import Batch

# Steps whose metrics are fetched only later, so that the host prepares the next ones while the device computes.
STEPS_IN_FLIGHT = 2
EMPTY_UPDATES = 10  # in a row, without an example that counts, after which a training is given up

Result = TypeVar("Result")


class Counted(Protocol):
    """The state of a training, as far as the loop looks at it: how many updates it has had."""

    @property
    def step(self) -> Any:
        """A whole number, or an array of one."""


State = TypeVar("State", bound=Counted)
Saved = TypeVar("Saved", bound=Counted, contravariant=True)


class Keeps(Protocol[Saved]):
    """Where states are saved, as `checkpoints.Checkpoints` does it."""

    def save(self, state: Saved) -> None:
        """Keep a state, perhaps while the training goes on."""

    def close(self) -> None:
        """Wait until all that is being saved is kept."""


class StopRequest:
    """Whether SIGTERM (or Ctrl-C) has asked the run to save and stop. Handlers are set by `listen` or `listening`."""

    def __init__(self) -> None:
        self._asked = False

    def listen(self) -> None:
        """Take over SIGTERM and SIGINT; a second SIGINT interrupts at once."""
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for as long as the context lasts: a program that goes on afterwards gets its own handlers back.

        Outside the main thread, where Python sets no handlers, nothing is listened for.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def asked(self) -> bool:
        """True once any process of the run has been asked; every process must call it equally often."""
        if jax.process_count() == 1:
            return self._asked
        return bool(np.any(multihost_utils.process_allgather(np.array(self._asked))))


@dataclass(frozen=True)
class Schedule:
    """When a training ends, saves and logs, counted in updates."""

    num_steps: int
    checkpoint_every: int
    log_every: int
    evaluate_every: int = 0  # never


def train(
    phase: str,
    state: State,
    batches: Iterator[Batch],
    update: Callable[[State, Batch, int], tuple[State, dict[str, jax.Array]]],
    *,
    schedule: Schedule,
    checkpoints: Keeps[State],
    metrics: Metrics,
    stop: StopRequest,
    clock: Clock,
    name_subnet: Callable[[int, int], str],
    evaluate: Callable[[State], Mapping[str, float]] | None = None,
) -> State:
    """Run `update(state, batch, step)` until `schedule.num_steps`, saving, logging and evaluating on the way.

    `batches` begins at the batch of the state's step. Raises S3Error at a loss that is not finite, naming the step and
    with `name_subnet(step, index)` the subnet, before anything of it is saved, and where nothing is left to train on;
    Interrupted after saving on request.
    """
    step, waiting = int(state.step), deque[tuple[int, dict[str, jax.Array]]]()
    meter = _Meter(phase, schedule, metrics, name_subnet)
    metrics.forget_after(phase, step)
    # Whatever ends the loop, what is being written is written to its end.
    with closing(checkpoints), clock.phase(phase, schedule.num_steps, step) as advance:
        while step < schedule.num_steps:
            meter.waits_for_data(lambda: next(batches))
            state, values = meter.waits_for_devices(update, state, meter.batch, step)
            waiting.append((step, values))
            step += 1
            saves = step % schedule.checkpoint_every == 0 or step == schedule.num_steps
            evaluates = bool(evaluate and schedule.evaluate_every and step % schedule.evaluate_every == 0)
            leaves = (step % schedule.log_every == 0 or jax.process_count() == 1) and stop.asked()
            while len(waiting) > (0 if saves or leaves or evaluates else STEPS_IN_FLIGHT):
                meter.take(*waiting.popleft())
                advance(meter.done, f"loss {meter.loss:.3f}")
            if evaluate and evaluates:
                metrics.write(phase, step, meter.leaves_out(evaluate, state))
            if saves or leaves:
                metrics.flush()  # before: a run that is taken up at this checkpoint writes no line before it again
                checkpoints.save(state)
            if leaves and step < schedule.num_steps:
                raise Interrupted(f"stopped at update {step} of {phase}; saved, the same command goes on from there")
    return state


class _Meter:
    """Averages the metrics of updates between two log lines, and times the wait for data and the devices' work.

    What is left of a step's time the host itself spent; where the devices' part is nearly all, they are the limit.
    """

    def __init__(
        self, phase: str, schedule: Schedule, metrics: Metrics, name_subnet: Callable[[int, int], str]
    ) -> None:
        self.batch: Batch = {}
        self.loss, self.done = float("nan"), 0
        self._phase, self._every, self._metrics, self._name_subnet = phase, schedule.log_every, metrics, name_subnet
        self._last_step = schedule.num_steps - 1
        self._rows: list[dict[str, Any]] = []
        self._empty = 0  # updates in a row without an example that counts
        self._data_seconds, self._device_seconds, self._start = 0.0, 0.0, time.perf_counter()

    def waits_for_data(self, fetch: Callable[[], Batch]) -> None:
        """Take the next batch, and time it."""
        start = time.perf_counter()
        self.batch = fetch()
        self._data_seconds += time.perf_counter() - start

    def waits_for_devices(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Let the devices work, or hand them their work, and time it: on a CPU the second is the first."""
        start = time.perf_counter()
        result = work(*arguments)
        self._device_seconds += time.perf_counter() - start
        return result

    def take(self, step: int, values: dict[str, jax.Array]) -> None:
        """Wait for the metrics of an update, check them, and write a line where one is due."""
        row = self.waits_for_devices(jax.device_get, values)
        self._check_finite(step, row)
        self._check_examples(step, row)
        self.loss, self.done = float(row["loss"]), step + 1
        self._rows.append(row)
        if (step + 1) % self._every == 0 or step == self._last_step:
            self._write(step + 1)

    def _check_finite(self, step: int, row: dict[str, Any]) -> None:
        bad = [(name, index) for name, values in row["terms"].items() for index in np.flatnonzero(~np.isfinite(values))]
        if not bad and np.isfinite(row["grad_norm"]):
            return
        what = "the gradient"
        if bad:
            name, index = bad[0]
            loss = "the loss" if len(row["terms"]) == 1 else f"the loss {name}"
            what = f"{loss} of {self._name_subnet(step, int(index))}"
        raise S3Error(
            f"{what} is not finite at update {step} of {self._phase}; the last checkpoint before it is kept. Lower "
            "train.learning_rate, set train.clip_norm, or compute in float32 (in another workdir)"
        )

    def _check_examples(self, step: int, row: dict[str, Any]) -> None:
        """Weights that nothing trains would end as a network like any other."""
        examples = len(next(iter(self.batch.values()))) * jax.process_count()
        empty = int(row["bad_images"]) == examples
        self._empty = self._empty + 1 if empty else 0
        if self._empty >= min(EMPTY_UPDATES, self._last_step + 1):
            raise S3Error(
                f"the last {self._empty} batches of {self._phase}, up to update {step}, had no example that can be "
                "trained on: all were left out. The warnings before this say why, and data.on_bad_image=error names "
                "the first that is unreadable"
            )

    def _write(self, step: int) -> None:
        now = time.perf_counter()
        values = {f"loss_{i}": float(np.mean(column)) for i, column in enumerate(self._column("subnet_losses").T)}
        self._metrics.write(
            self._phase,
            step,
            {
                "loss": float(self._column("loss").mean()),
                "grad_norm": float(self._column("grad_norm").mean()),
                "learning_rate": float(self._rows[-1]["learning_rate"]),
                "bad_images": int(self._column("bad_images").sum()),
                "seconds_per_step": (now - self._start) / len(self._rows),
                "data_seconds_per_step": self._data_seconds / len(self._rows),
                "device_seconds_per_step": self._device_seconds / len(self._rows),
                **(values if len(values) > 1 else {}),
                **self._terms(),
            },
        )
        self._rows, self._data_seconds, self._device_seconds, self._start = [], 0.0, 0.0, now

    def leaves_out(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Work that is none of the updates', whose time does not count as theirs."""
        start = time.perf_counter()
        result = work(*arguments)
        self._start += time.perf_counter() - start
        return result

    def _column(self, name: str) -> np.ndarray:
        return np.array([row[name] for row in self._rows])

    def _terms(self) -> dict[str, float]:
        """Means of the terms of the loss over subnets and updates; nothing where there is but one, the loss itself."""
        names = self._rows[0]["terms"] if len(self._rows[0]["terms"]) > 1 else ()
        return {f"loss_{name}": float(np.mean([row["terms"][name] for row in self._rows])) for name in names}
