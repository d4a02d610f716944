"""The training loop: resumable bit for bit, logs and saves at the right updates, stops cleanly, refuses bad losses."""

import itertools
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from s3_jax.config import RunConfig
from s3_jax.errors import Interrupted, S3Error
from s3_jax.task import Variables
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.clock import Clock
from s3_jax.training.devices import make_mesh, state_layout
from s3_jax.training.loop import Schedule, StopRequest, train
from s3_jax.training.records import Metrics, read_json_lines
from s3_jax.training.state import TrainState, init_state

SUBJECT = {"stages": []}
MOMENTUM = optax.sgd(0.1, momentum=0.9)


def fresh() -> TrainState:
    return init_state(Variables({"kernel": jnp.ones(3)}, {}), transformation=MOMENTUM, ema_decay=0.5)


@jax.jit
def toy_update(state, x):
    """An update whose result depends on all that went before: momentum, an average, and the batch of the step."""
    gradient = {"kernel": jnp.sin(state.params["kernel"] * x)}
    updates, optimizer = MOMENTUM.update(gradient, state.optimizer)
    params = optax.apply_updates(state.params, updates)
    ema = optax.incremental_update(params, state.ema, 0.5)
    losses = jnp.stack([x[0], x[1]])
    values = {"loss": x.mean(), "subnet_losses": losses, "grad_norm": x[2] + 1, "bad_images": 1}
    values["terms"] = {"first": losses - 1, "second": jnp.ones(2)}
    return TrainState(state.step + 1, params, {}, optimizer, ema), values | {"learning_rate": 0.5 * state.step}


def batches_from(step: int):
    return ({"x": np.array([i, i + 2, i + 1], np.float32)} for i in itertools.count(step))


def run_loop(
    folder: Path, num_steps: int, *, stop=None, update=None, checkpoint_every=4, log_every=3, evaluate=None
) -> TrainState:
    """What `fit` does around the loop, with the toy update."""
    checkpoints = Checkpoints(folder / "checkpoints", SUBJECT)
    metrics = Metrics(folder, RunConfig(tensorboard=False), active=True)
    state = checkpoints.restore(fresh(), state_layout(make_mesh(1), fresh(), shard=False)) or fresh()
    return train(
        "phase",
        state,
        batches_from(int(state.step)),
        update or (lambda state, batch, step: toy_update(state, batch["x"])),
        schedule=Schedule(num_steps, checkpoint_every, log_every, evaluate_every=4),
        checkpoints=checkpoints,
        metrics=metrics,
        stop=stop or StopRequest(),
        clock=Clock(Console(quiet=True)),
        name_subnet=lambda step, index: f"subnet {index} of update {step}",
        evaluate=evaluate,
    )


def log(folder: Path) -> list[dict]:
    timeless = read_json_lines(folder / "metrics.jsonl")
    return [{k: v for k, v in record.items() if "seconds" not in k} for record in timeless]


def saved(folder: Path) -> list[int]:
    return sorted(int(path.name.split("_")[1]) for path in (folder / "checkpoints").iterdir())


def assert_same_state(actual: TrainState, expected: TrainState):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def stop_at(step: int):
    """An update that is asked to stop, as by SIGTERM, while it computes update `step`."""
    stop = StopRequest()

    def update(state, batch, index):
        if index == step:
            stop._ask(signal.SIGTERM, None)
        return toy_update(state, batch["x"])

    return {"stop": stop, "update": update}


def die_at(step: int):
    def update(state, batch, index):
        if index == step:
            raise KeyboardInterrupt
        return toy_update(state, batch["x"])

    return {"update": update}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_loop(folder, 10)


def test_interrupted_it_saves_and_resumed_it_ends_as_if_it_had_not_been(tmp_path, whole):
    with pytest.raises(Interrupted, match="stopped at update 6 of phase; saved"):
        run_loop(tmp_path, 10, **stop_at(5))
    assert saved(tmp_path)[-1] == 6
    assert_same_state(run_loop(tmp_path, 10), whole[1])


def test_cut_off_it_goes_on_from_the_last_checkpoint_with_the_same_log(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        run_loop(tmp_path, 10, checkpoint_every=5, **die_at(9))
    assert saved(tmp_path) == [5]
    assert [record["step"] for record in log(tmp_path)] == [3, 6]  # 6 was never saved: it is done and told again
    assert_same_state(run_loop(tmp_path, 10), whole[1])
    assert [record["step"] for record in log(tmp_path)] == [3, 6, 9, 10]
    assert log(tmp_path)[-2:] == log(whole[0])[-2:]


def test_log_lines_come_at_their_updates_with_averages_since_the_last(whole):
    """The loss of update i is i + 1, its subnets' are i and i + 2, its gradient norm i + 2."""
    lines = log(whole[0])
    assert [line["step"] for line in lines] == [3, 6, 9, 10]
    assert {line["phase"] for line in lines} == {"phase"}
    assert [line["loss"] for line in lines] == [2.0, 5.0, 8.0, 10.0]
    assert [line["loss_0"] for line in lines] == [1.0, 4.0, 7.0, 9.0]
    assert [line["loss_1"] for line in lines] == [3.0, 6.0, 9.0, 11.0]
    assert [line["grad_norm"] for line in lines] == [3.0, 6.0, 9.0, 11.0]
    assert [line["learning_rate"] for line in lines] == [1.0, 2.5, 4.0, 4.5]
    assert [line["loss_first"] for line in lines] == [1.0, 4.0, 7.0, 9.0]
    assert [line["loss_second"] for line in lines] == [1.0] * 4
    assert [line["bad_images"] for line in lines] == [3, 3, 3, 1]


def test_evaluations_come_at_their_updates_and_change_nothing_else(tmp_path, whole):
    evaluated = run_loop(tmp_path, 10, evaluate=lambda state: {"holdout_error": 10.0 * int(state.step)})
    assert_same_state(evaluated, whole[1])
    lines = log(tmp_path)
    found = [(line["step"], line["holdout_error"]) for line in lines if "holdout_error" in line]
    assert found == [(4, 40.0), (8, 80.0)]
    assert [line for line in lines if "loss" in line] == log(whole[0])


def test_checkpoints_come_at_their_updates_and_at_the_end(tmp_path):
    run_loop(tmp_path, 10, checkpoint_every=3)
    assert saved(tmp_path) == [9, 10]  # 3 and 6 went, as two are kept
    run_loop(tmp_path, 10, checkpoint_every=3)
    assert saved(tmp_path) == [9, 10]


@pytest.mark.parametrize(
    ("name", "what"),
    [("terms", "the loss second of subnet 1 of update 6"), ("grad_norm", "the gradient")],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_told_and_never_saved(tmp_path, name, what, value):
    """Update 6 is bad, a checkpoint is due after 8 updates, and the metrics arrive late: only 4 is on the disk."""

    def update(state, batch, step):
        state, values = toy_update(state, batch["x"])
        terms = {"first": jnp.ones(2), "second": jnp.array([1.0, value])}
        bad = {"terms": terms, "grad_norm": jnp.array(value)}
        return state, values | ({name: bad[name]} if step == 6 else {})

    with pytest.raises(S3Error, match=rf"{what} is not finite at update 6 of phase; the last checkpoint"):
        run_loop(tmp_path, 10, update=update)
    checkpoints = Checkpoints(tmp_path / "checkpoints", SUBJECT)
    assert checkpoints.latest_step() == 4
    checkpoints.close()
    assert saved(tmp_path) == [4]


def test_a_bad_loss_is_not_saved_even_where_every_update_is(tmp_path):
    def update(state, batch, step):
        state, values = toy_update(state, batch["x"])
        return state, values | ({"terms": {"only": jnp.array([jnp.nan, 1.0])}} if step == 2 else {})

    with pytest.raises(S3Error, match="the loss of subnet 0 of update 2 is not finite at update 2"):
        run_loop(tmp_path, 10, update=update, checkpoint_every=1)
    checkpoints = Checkpoints(tmp_path / "checkpoints", SUBJECT)
    assert checkpoints.latest_step() == 2
    checkpoints.close()


def test_a_request_to_stop_during_the_last_update_ends_the_training(tmp_path, whole):
    assert_same_state(run_loop(tmp_path, 10, **stop_at(9)), whole[1])
    assert saved(tmp_path)[-1] == 10


def test_signals_ask_to_stop_and_a_second_interrupt_ends_at_once():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = StopRequest()
        assert not stop.asked()
        stop.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_listening_ends_with_its_context_and_other_threads_run_without():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    def interrupted() -> None:
        stop = StopRequest()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.asked()
            raise Interrupted("as a run does that was asked")

    with pytest.raises(Interrupted):
        interrupted()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before

    def listen() -> bool:
        with StopRequest().listening():
            return True

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(listen).result()


def test_the_log_is_json_that_others_can_read(whole):
    for line in (whole[0] / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert record["seconds_per_step"] > 0
        assert record["data_seconds_per_step"] >= 0
        assert record["device_seconds_per_step"] >= 0


def test_a_training_without_any_example_is_given_up(tmp_path):
    """Ten updates in a row without one, or all of a shorter training; one that counts begins the count anew."""

    def without(*counting: int):
        def update(state, batch, step):
            state, values = toy_update(state, batch["x"])
            return state, values | {"bad_images": 2 if step in counting else 3}

        return update

    with pytest.raises(S3Error, match="the last 10 batches of phase, up to update 9, had no example"):
        run_loop(tmp_path / "long", 30, update=without())
    with pytest.raises(S3Error, match="the last 4 batches of phase, up to update 3, had no example"):
        run_loop(tmp_path / "short", 4, update=without())
    assert run_loop(tmp_path / "some", 25, update=without(9, 18)).step == 25
