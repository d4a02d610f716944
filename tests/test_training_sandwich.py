"""Sandwich steps of a real supernet: sliced losses == masked ones, one trace for all subnets, mixed precision."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from rich.console import Console

from s3_jax.classification.config import ClassificationConfig, ClassificationDataConfig
from s3_jax.classification.task import Classification, open_task
from s3_jax.config import ModelConfig, RunConfig, TrainConfig
from s3_jax.models.subnet import slice_weights, subnet_mask
from s3_jax.space import SearchSpace, StageSpace, largest, smallest
from s3_jax.task import Variables
from s3_jax.training.clock import Clock
from s3_jax.training.devices import make_mesh
from s3_jax.training.evaluate import error_of_subnets, evaluation_on_holdout
from s3_jax.training.fit import fit, initial_variables, random_subnets
from s3_jax.training.loop import StopRequest
from s3_jax.training.networks import Trained, define, fixed_subnets, merged, trained_subnets
from s3_jax.training.programs import terms_of
from s3_jax.training.records import Metrics
from s3_jax.training.run import Run
from s3_jax.training.state import init_state

DROP_PATH = 0.3
SPACE = SearchSpace(
    (StageSpace((1, 2), (8, 16), (2, 4), (1.0, 2.0), (32, 64)), StageSpace((1,), (8, 16), (2,), (1.0,), (32,)))
)
# For the tests that compile whole updates, which takes as long as there are stages.
ONE_STAGE = SearchSpace(SPACE.stages[:1])


def open_run(folder: Path, dtype: str = "float32") -> Run:
    settings = RunConfig(tensorboard=False, num_devices=1)
    model = ModelConfig(image_size=8, patch_size=2, kernel_std=0.0, dtype=dtype)
    config = ClassificationConfig(model=model, data=ClassificationDataConfig(source="digits"), run=settings)
    metrics = Metrics(folder, settings, active=False)
    clock = Clock(Console(quiet=True))
    return Run(config, folder, make_mesh(1), open_task(config), metrics, StopRequest(), clock)


def build_network(run: Run) -> Trained:
    return Trained(define(run.task, SPACE), initial_variables(run, "space_0", SPACE), SPACE)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return open_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def supernet(run) -> Trained:
    return build_network(run)


@pytest.fixture(scope="module")
def batch() -> dict[str, jax.Array]:
    target = jax.nn.one_hot(jnp.arange(8) % 10, 10)
    return {"image": jax.random.normal(jax.random.key(1), (8, 8, 8, 3)), "target": target, "weight": jnp.ones(8)}


@pytest.mark.parametrize("fixed", [0, 1])
def test_masked_training_is_that_of_sliced_weights(run, supernet, batch, fixed):
    """Value and gradient of the smallest and the largest subnet, stochastic depth drawn alike."""
    architecture = fixed_subnets(SPACE)[fixed]
    key, mask = jax.random.key(2), supernet.mask(architecture)
    alone, whole = (terms_of(run.task, structure, DROP_PATH) for structure in (architecture, SPACE))

    def sliced(params):
        weights = slice_weights(params, SPACE, architecture)
        return alone(Variables(weights, {}), batch, None, key)[0]["cross_entropy"][0]

    def masked(params):
        return whole(Variables(params, {}), batch, mask, key)[0]["cross_entropy"][0]

    value, gradient = jax.jit(jax.value_and_grad(sliced))(supernet.params)
    expected, expected_gradient = jax.jit(jax.value_and_grad(masked))(supernet.params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5 * float(value))
    jax.tree.map(close, gradient, expected_gradient)


def test_an_update_trains_the_smallest_the_largest_and_the_random_subnets(run):
    random = random_subnets(run, "space_0", SPACE, 0)
    masks = trained_subnets(SPACE, random)
    for index, architecture in enumerate((smallest(SPACE), largest(SPACE), *random)):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], masks)
        jax.tree.map(np.testing.assert_array_equal, one, subnet_mask(SPACE, architecture))
    assert {len(leaf) for leaf in jax.tree.leaves(masks)} == {4}


def test_random_subnets_are_a_function_of_seed_phase_and_step(run):
    first = random_subnets(run, "space_0", SPACE, 3)
    assert len(first) == 2
    assert first == random_subnets(run, "space_0", SPACE, 3)
    others = [random_subnets(run, "space_0", SPACE, step) for step in range(20)]
    assert len(set(others)) > 15
    assert random_subnets(run, "space_1", SPACE, 3) != first
    assert random_subnets(run, "retrain", largest(SPACE), 3) == ()


def test_one_trace_serves_the_updates_of_many_random_subnets(run, monkeypatch):
    """Of `fit` itself, in bfloat16: parameters, averages and optimizer state stay float32 all the way to the disk."""
    traces = []

    whole = Classification.terms

    def counted(task, network, batch, subnet, *others):
        traces.append(subnet)
        return whole(task, network, batch, subnet, *others)

    monkeypatch.setattr(Classification, "terms", counted)
    half = open_run(run.workdir, "bfloat16")
    config = TrainConfig(batch_size=8, epochs=8 * 8 / len(run.task.splits.train), accumulation_steps=2, ema_decay=0.9)
    trained = fit(half, "space_0", ONE_STAGE, config, run.task.splits.train)
    subnets = {subnet for step in range(8) for subnet in random_subnets(half, "space_0", ONE_STAGE, step)}
    assert len(subnets) > 8
    assert len(traces) == 2  # the first only counts what the terms of both parts of a batch are divided by
    saved = jax.tree.leaves(checkpoint(run.workdir / "space_0" / "checkpoints"))
    assert {np.asarray(leaf).dtype for leaf in saved} == {np.dtype("float32"), np.dtype("int32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(trained.params)} == {jnp.dtype("float32")}
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), trained.params, initial_variables(half, "space_0", ONE_STAGE).params
    )
    assert np.isfinite(jax.tree.leaves(moved)).all()
    assert moved["head"]["kernel"] > 0


def test_evaluations_during_training_are_of_the_averaged_weights_on_the_holdout(run, supernet):
    """As E-T Error and search measure the same subnets afterwards."""
    other = jax.tree.map(lambda leaf: 0.5 * leaf[::-1], supernet.params)
    begin = partial(init_state, transformation=optax.sgd(0.1), ema_decay=0.5)
    found = evaluation_on_holdout(run, SPACE)(begin(supernet.variables)._replace(params=other))
    averaged = error_of_subnets(run, supernet, run.task.splits.holdout)
    for name, architecture in zip(("smallest", "largest"), fixed_subnets(SPACE), strict=True):
        assert found[f"holdout_{name}_error"] == averaged(architecture)
        assert found[f"holdout_{name}_top5"] >= found[f"holdout_{name}_top1"]
    others = dataclasses.replace(supernet, variables=Variables(other, {}))
    trained = error_of_subnets(run, others, run.task.splits.holdout)
    assert [trained(each) for each in fixed_subnets(SPACE)] != [averaged(each) for each in fixed_subnets(SPACE)]


def checkpoint(folder: Path) -> dict:
    """The state in a folder of checkpoints, read by orbax alone."""
    manager = ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(step_prefix="step"))
    items = {name: ocp.args.StandardRestore() for name in ("params", "ema", "rest")}
    state = manager.restore(manager.latest_step(), args=ocp.args.Composite(**items))
    manager.close()
    return dict(state.items())


def test_half_precision_computes_in_bfloat16_and_answers_in_float32(run, supernet, batch):
    network = build_network(open_run(run.workdir, "bfloat16"))
    jax.tree.map(np.testing.assert_array_equal, network.params, supernet.params)
    mask = network.mask(smallest(SPACE))

    def answer(definition, variables, image):
        return merged(definition, variables)(image, mask)

    half = jax.jit(partial(answer, network.definition))(network.variables, batch["image"])
    full = jax.jit(partial(answer, supernet.definition))(supernet.variables, batch["image"])
    assert half.dtype == full.dtype == jnp.float32
    assert 0 < float(jnp.abs(half - full).max()) < 0.05 * float(jnp.abs(full).max())
    program = str(jax.make_jaxpr(partial(answer, network.definition))(network.variables, batch["image"]))
    products = [line.split("=")[0] for line in program.splitlines() if "= dot_general" in line]
    assert len(products) > 10
    assert ["f32" in result for result in products] == [False] * (len(products) - 1) + [True]  # the head alone
