"""How long the programs of a run take here: every figure is the median of repeated runs after a warm-up."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from s3_jax.config import Config
from s3_jax.cost import cost
from s3_jax.data.dataset import open_data
from s3_jax.data.input import train_batches
from s3_jax.errors import S3Error
from s3_jax.models.subnet import SubnetMask, subnet_mask
from s3_jax.space import Architecture, SearchSpace, largest, map_sizes, sample
from s3_jax.training.devices import make_mesh
from s3_jax.training.executed import executed
from s3_jax.training.networks import define, fixed_subnets, initial_params, trained_subnets
from s3_jax.training.programs import training_of
from s3_jax.training.steps import Batch, Loss, eval_step, loss_of

NUM_SUBNETS = 8  # random ones that a measurement goes through, the same in every call
STEPS_PER_EPOCH = 1000  # of the learning rate's schedule, which costs the same whatever it is

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
    """A configuration's space and synthetic images, to measure `batch` images at a time on one device."""

    def __init__(
        self, config: Config, batch: int, num_classes: int, repeats: int, architecture: Architecture | None = None
    ) -> None:
        self.config, self.batch, self.num_classes, self.repeats = config, batch, num_classes, repeats
        self.architecture = architecture
        model, space = config.model, config.space.build()
        self.space: SearchSpace = space.clamped(map_sizes(model.image_size, model.patch_size, len(space.stages)))
        rng = np.random.default_rng(0)
        self.subnets = [sample(self.space, rng) for _ in range(NUM_SUBNETS)]
        self.image = rng.standard_normal((batch, model.image_size, model.image_size, 3), np.float32)
        self.key = jax.random.key(0)

    def sandwich(self) -> Figures:
        """Seconds of a whole update: four gradients and the optimizer."""
        params = self._params()
        training = training_of(
            self.space,
            params,
            self.config.model,
            self.num_classes,
            self.config.train,
            make_mesh(1),
            steps_per_epoch=STEPS_PER_EPOCH,
            num_steps=10 * STEPS_PER_EPOCH,
            shard_parameters=False,
        )
        state = training.begin(params)
        batch, pairs = self._batch(), itertools.cycle(itertools.pairwise(self.subnets))

        def step() -> dict[str, jax.Array]:
            """One update with the next pair of random subnets."""
            nonlocal state
            masks = trained_subnets(self.space, next(pairs))
            state, metrics = training.update(state, batch, masks, self.key)
            return metrics

        fixed, random = (map(self._macs, subnets) for subnets in (fixed_subnets(self.space), self.subnets))
        macs = 3 * self.batch * (sum(fixed) + 2 * statistics.mean(random))
        return self._with_peak("step_s", self._median(step), macs)

    def gradient(self) -> Figures:
        """Seconds of one gradient: of the smallest and the largest subnet, and of random ones."""
        program = jax.jit(jax.value_and_grad(self._loss()))
        params, batch, figures = self._params(), self._batch() | {"total": float(self.batch)}, {}
        for name, subnet in zip(("smallest", "largest"), fixed_subnets(self.space), strict=True):
            figures[f"{name}_s"] = self._median(partial(program, params, batch, self._mask(subnet), self.key))
        masks = itertools.cycle(map(self._mask, self.subnets))
        return figures | {"random_s": self._median(lambda: program(params, batch, next(masks), self.key))}

    def forward(self) -> Figures:
        """Seconds in which a random subnet answers a batch: what E-T Error and search consist of."""
        program = jax.jit(partial(eval_step, definition=define(self.space, self.config.model, self.num_classes)))
        params, batch, masks = self._params(), self._labelled(), itertools.cycle(map(self._mask, self.subnets))
        macs = self.batch * statistics.mean(map(self._macs, self.subnets))
        return self._with_peak("step_s", self._median(lambda: program(params, batch, next(masks))), macs)

    def inference(self) -> Figures:
        """Images per second of a stand-alone network, the largest of the space where none is given."""
        chosen, model = self.architecture or largest(self.space), self.config.model
        params = jax.jit(partial(initial_params, chosen, model, self.num_classes))(self.key)
        program = jax.jit(partial(eval_step, subnet=None, definition=define(chosen, model, self.num_classes)))
        seconds = self._median(partial(program, params, self._labelled()))
        figures = self._with_peak("step_s", seconds, self.batch * self._macs(chosen))
        return figures | {"images_per_s": self.batch / seconds}

    def work(self) -> Figures:
        """Multiply-adds that the four gradients of `repeats` updates execute, over what their subnets need.

        A gradient needs three forward passes; products that a backward pass does again are told apart. No device.
        """
        rng, key = np.random.default_rng(0), jax.eval_shape(lambda: self.key)
        params = jax.eval_shape(partial(initial_params, self.space, self.config.model, self.num_classes, self.key))
        batch = jax.eval_shape(lambda: {**self._batch(), "total": 1.0})
        gradient = jax.value_and_grad(self._loss())
        fixed = [executed(gradient, params, batch, self._mask(subnet), key) for subnet in fixed_subnets(self.space)]
        ratios, again = [], []
        for _ in range(self.repeats):
            random = [sample(self.space, rng), sample(self.space, rng)]
            works = [*fixed, *(executed(gradient, params, batch, self._mask(subnet), key) for subnet in random)]
            needed = 3 * self.batch * sum(map(self._macs, (*fixed_subnets(self.space), *random)))
            ratios.append(sum(work.macs for work in works) / needed)
            again.append(sum(work.recomputed for work in works) / needed)
        return {"executed_over_needed": statistics.mean(ratios), "recomputed_over_needed": statistics.mean(again)}

    def input(self) -> Figures:
        """Images per second of the training input, from encoded files to batches, and per processor second."""
        config = self.config
        data = open_data(config.data, seed=config.seed)
        batches = train_batches(
            data.train,
            data=config.data,
            augment=config.augment,
            image_size=config.model.image_size,
            num_classes=data.num_classes,
            batch_size=self.batch,
            seed=config.seed,
        )
        if config.data.num_workers:
            raise S3Error("--what=input counts this process's time: give --config.data.num_workers=0")
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

    def _loss(self) -> Loss:
        return loss_of(define(self.space, self.config.model, self.num_classes), self.config.train.drop_path)

    def _params(self) -> dict[str, Any]:
        return jax.jit(partial(initial_params, self.space, self.config.model, self.num_classes))(self.key)

    def _mask(self, architecture: Architecture) -> SubnetMask:
        return subnet_mask(self.space, architecture)

    def _batch(self) -> Batch:
        labels = np.arange(self.batch) % self.num_classes
        return jax.device_put({"image": self.image, "target": np.eye(self.num_classes, dtype=np.float32)[labels]})

    def _labelled(self) -> Batch:
        labels = np.arange(self.batch) % self.num_classes
        return jax.device_put({"image": self.image, "label": labels, "weight": np.ones(self.batch, np.float32)})

    def _macs(self, architecture: Architecture) -> int:
        model = self.config.model
        return cost(
            architecture, image_size=model.image_size, patch_size=model.patch_size, num_classes=self.num_classes
        ).macs

    def _median(self, run: Callable[[], Any]) -> float:
        """Median seconds over the repeats, each of which goes through the subnets the same way."""
        jax.block_until_ready(run())
        seconds = []
        for _ in range(self.repeats):
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    def _with_peak(self, name: str, seconds: float, macs: float) -> Figures:
        """The figure, and on a known accelerator the share of its peak that the subnets' own operations make."""
        kind = jax.devices()[0].device_kind
        peaks = [peak for prefix, peak in PEAKS.items() if kind.startswith(prefix)]
        return {name: seconds} | ({"share_of_peak": 2 * macs / seconds / peaks[0]} if peaks else {})


def measure(bench: Bench, what: str) -> Figures:
    """The figures of one of WHAT. Raises S3Error for another."""
    if what not in WHAT:
        raise S3Error(f"--what={what}: choose one of {', '.join(WHAT)}")
    return WHAT[what](bench)


WHAT: Mapping[str, Callable[[Bench], Figures]] = {
    "sandwich": Bench.sandwich,
    "gradient": Bench.gradient,
    "forward": Bench.forward,
    "inference": Bench.inference,
    "input": Bench.input,
    "work": Bench.work,
}
