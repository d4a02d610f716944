"""How long the programs of a run take here: every figure is the median of repeated runs after a warm-up."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s3_jax.config import Config
from s3_jax.data.splits import nothing
from s3_jax.data.stream import train_batches
from s3_jax.errors import S3Error
from s3_jax.models.families import Structure
from s3_jax.models.subnet import SubnetMask, subnet_mask
from s3_jax.profiling.executed import executed
from s3_jax.space import Architecture, SearchSpace, largest, map_sizes, sample
from s3_jax.task import Task, Variables, open_task
from s3_jax.training.devices import make_mesh
from s3_jax.training.networks import define, fixed_subnets, random_variables, trained_subnets
from s3_jax.training.programs import Length, evaluation_of, shapes_of, terms_of, training_of
from s3_jax.training.steps import Batch

NUM_SUBNETS = 8  # random ones that a measurement goes through, the same in every call
STEPS_PER_EPOCH = 1000  # of the learning rate's schedule, which costs the same whatever it is

PRODUCT_SIDE = 2048  # of the matrices whose product tells how many multiply-adds a second are possible

# Dense bfloat16 operations per second of one chip, as their makers state them; by the beginning of JAX's device_kind.
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
}

Figures = dict[str, float]


class Bench:
    """A configuration's space, and examples of noise, to measure `batch` of them at a time on one device."""

    def __init__(
        self, config: Config, task: Task, batch: int, repeats: int, architecture: Architecture | None = None
    ) -> None:
        self.config, self.task, self.batch, self.repeats = config, task, batch, repeats
        self.architecture = architecture
        model, space = config.model, config.space.build()
        self.space: SearchSpace = space.clamped(map_sizes(model.image_size, model.patch_size, len(space.stages)))
        rng = np.random.default_rng(0)
        self.subnets = [sample(self.space, rng) for _ in range(NUM_SUBNETS)]
        self.key = jax.random.key(0)

    def sandwich(self) -> Figures:
        """Seconds of a whole update: four gradients and the optimizer."""
        length, mesh = Length(10 * STEPS_PER_EPOCH, STEPS_PER_EPOCH), make_mesh(1)
        training = training_of(self.task, self.space, self.config.train, length, mesh)
        state = training.begin(self._variables(self.space))
        batch, pairs = self._batch(training=True), itertools.cycle(itertools.pairwise(self.subnets))

        def step() -> dict[str, jax.Array]:
            """One update with the next pair of random subnets."""
            nonlocal state
            masks = trained_subnets(self.space, next(pairs))
            state, metrics = training.update(state, batch, masks, self.key)
            return metrics

        fixed, random = (map(self._macs, subnets) for subnets in (fixed_subnets(self.space), self.subnets))
        macs = 3 * self.batch * (sum(fixed) + 2 * statistics.mean(random))
        return self._with_peak(self._median_of(step), macs)

    def training(self) -> Figures:
        """Seconds of an update of one network on a batch of the configuration's data, and what it executes.

        The share of products is of the time that as many multiply-adds take in one large product of matrices here.
        """
        config, task, architecture = self.config, open_task(self.config), self.architecture
        if architecture is None:
            raise S3Error("--what=training is of one network: give it as config.backbone, or with --architecture")
        length = Length(10 * STEPS_PER_EPOCH, STEPS_PER_EPOCH)
        training = training_of(task, architecture, config.train, length, make_mesh(1))
        state = training.begin(jax.jit(partial(random_variables, task, architecture))(self.key))
        batches = self._train_batches(task)
        batch = jax.device_put(next(batches))
        batches.close()
        work = executed(
            training.update, *jax.eval_shape(lambda: (state, batch)), None, jax.eval_shape(lambda: self.key)
        )

        def step() -> dict[str, jax.Array]:
            """One more update on the same batch."""
            nonlocal state
            state, metrics = training.update(state, batch, None, self.key)
            return metrics

        seconds, macs = self._median_of(step), work.macs + work.recomputed
        ideal = macs * seconds_per_mac(config.model.dtype, self.repeats)
        return {"step_s": seconds, "gmacs": macs / 1e9, "share_of_products": ideal / seconds}

    def gradient(self) -> Figures:
        """Seconds of one gradient: of the smallest and the largest subnet, and of random ones."""
        program = jax.jit(self._gradient())
        variables, batch, figures = self._variables(self.space), self._batch(training=True), {}
        for name, subnet in zip(("smallest", "largest"), fixed_subnets(self.space), strict=True):
            figures[f"{name}_s"] = self._median_of(partial(program, variables, batch, self._mask(subnet), self.key))
        masks = itertools.cycle(map(self._mask, self.subnets))
        return figures | {"random_s": self._median_of(lambda: program(variables, batch, next(masks), self.key))}

    def forward(self) -> Figures:
        """Seconds in which a random subnet answers a batch: what E-T Error and search consist of."""
        program = evaluation_of(self.task, define(self.task, self.space), make_mesh(1))
        variables, batch = self._variables(self.space), self._batch(training=False)
        masks = itertools.cycle(map(self._mask, self.subnets))
        macs = self.batch * statistics.mean(map(self._macs, self.subnets))
        return self._with_peak(self._median_of(lambda: program(variables, batch, next(masks))), macs)

    def inference(self) -> Figures:
        """Images per second of a stand-alone network, the largest of the space where none is given."""
        chosen = self.architecture or largest(self.space)
        program = evaluation_of(self.task, define(self.task, chosen), make_mesh(1))
        variables, batch = self._variables(chosen), self._batch(training=False)
        seconds = self._median_of(lambda: program(variables, batch, None))
        figures = self._with_peak(seconds, self.batch * self._macs(chosen))
        return figures | {"images_per_s": self.batch / seconds}

    def work(self) -> Figures:
        """Multiply-adds that the four gradients of `repeats` updates execute, over what their subnets need.

        A gradient needs three forward passes; products that a backward pass does again are told apart. No device.
        """
        rng, key = np.random.default_rng(0), jax.eval_shape(lambda: self.key)
        variables, batch = shapes_of(self.task, self.space), jax.eval_shape(lambda: self._batch(training=True))
        gradient = self._gradient()
        fixed = [executed(gradient, variables, batch, self._mask(subnet), key) for subnet in fixed_subnets(self.space)]
        ratios, again = [], []
        for _ in range(self.repeats):
            random = [sample(self.space, rng), sample(self.space, rng)]
            works = [*fixed, *(executed(gradient, variables, batch, self._mask(subnet), key) for subnet in random)]
            needed = 3 * self.batch * sum(map(self._macs, (*fixed_subnets(self.space), *random)))
            ratios.append(sum(work.macs for work in works) / needed)
            again.append(sum(work.recomputed for work in works) / needed)
        return {"executed_over_needed": statistics.mean(ratios), "recomputed_over_needed": statistics.mean(again)}

    def input(self) -> Figures:
        """Images per second of the training input, from encoded files to batches, and per processor second."""
        config, task = self.config, open_task(self.config)
        if config.data.num_workers:
            raise S3Error("--what=input counts this process's time: give --config.data.num_workers=0")
        batches = self._train_batches(task)
        next(batches)
        processor, wall = time.process_time(), time.perf_counter()
        for _ in range(self.repeats):
            next(batches)
        images = self.repeats * self.batch
        batches.close()
        return {
            "images_per_s": images / (time.perf_counter() - wall),
            "images_per_processor_s": images / (time.process_time() - processor),
        }

    def _train_batches(self, task: Task) -> Generator[Batch, None, None]:
        examples, settings = task.examples(task.splits.train, training=True), self.config.data
        skip_bad = settings.on_bad_image == "skip"
        return train_batches(examples, batch_size=self.batch, seed=self.config.seed, skip_bad=skip_bad)

    def _gradient(self) -> Callable[..., Any]:
        """A function (variables, batch, mask, key) to the gradient of one subnet's loss, and the loss."""
        terms = terms_of(self.task, self.space, self.config.train.drop_path)

        def loss(params: Any, variables: Any, batch: Batch, mask: SubnetMask, key: jax.Array) -> jax.Array:
            """The sum of the terms of the loss."""
            found, _ = terms(variables._replace(params=params), batch, mask, key)
            return sum((total / count for total, count in found.values()), jnp.zeros(()))

        return lambda variables, *others: jax.value_and_grad(loss)(variables.params, variables, *others)

    def _variables(self, structure: Structure) -> Variables:
        return jax.jit(partial(random_variables, self.task, structure))(self.key)

    def _mask(self, architecture: Architecture) -> SubnetMask:
        return subnet_mask(self.space, architecture)

    def _batch(self, *, training: bool) -> Batch:
        """Noise from 0 to 1 in the shapes of the task's examples; whole numbers are 0."""
        rng, blank = np.random.default_rng(0), self.task.examples(nothing(), training=training).blank()
        batch = {"weight": np.ones(self.batch, np.float32)}
        for name, array in blank.items():
            shape = (self.batch, *array.shape)
            floating = np.issubdtype(array.dtype, np.floating)
            batch[name] = rng.random(shape, np.float32) if floating else np.zeros(shape, array.dtype)
        return jax.device_put(batch)

    def _macs(self, architecture: Architecture) -> int:
        return self.task.cost(architecture).macs

    def _median_of(self, run: Callable[[], Any]) -> float:
        """Median seconds over the repeats, each of which goes through the subnets the same way."""
        return median_seconds(run, self.repeats)

    def _with_peak(self, seconds: float, macs: float) -> Figures:
        """A step's time, and on a known accelerator the share of its peak that the subnets' own operations make."""
        kind = jax.devices()[0].device_kind
        peaks = [peak for prefix, peak in PEAKS.items() if kind.startswith(prefix)]
        return {"step_s": seconds} | ({"share_of_peak": 2 * macs / seconds / peaks[0]} if peaks else {})


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """The median time of a call, after one that is not counted."""
    jax.block_until_ready(run())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def seconds_per_mac(dtype: str, repeats: int) -> float:
    """What a multiply-add of a large product of matrices of a type takes on this device: the median of some."""
    x = jax.random.normal(jax.random.key(0), (PRODUCT_SIDE, PRODUCT_SIDE)).astype(dtype)
    product = jax.jit(jnp.matmul)
    return median_seconds(lambda: product(x, x), repeats) / PRODUCT_SIDE**3


def figures_of(bench: Bench, what: str) -> Figures:
    """The figures of one of WHAT. Raises S3Error for another."""
    if what not in WHAT:
        raise S3Error(f"--what={what}: choose one of {', '.join(WHAT)}")
    return WHAT[what](bench)


WHAT: Mapping[str, Callable[[Bench], Figures]] = {
    "sandwich": Bench.sandwich,
    "training": Bench.training,
    "gradient": Bench.gradient,
    "forward": Bench.forward,
    "inference": Bench.inference,
    "input": Bench.input,
    "work": Bench.work,
}
