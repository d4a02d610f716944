"""What measures a space: supernets, the architectures sampled for each, their errors, and the next space.

A space has `evolution.trainings` supernets. The first, `space_0`, is the one that is searched and retrained from; every
further one, `space_0/training_1` and so on, is measured and left. Each has random weights, an order of the images and
samples of its own, all drawn from the run's seed and the phase's name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from s3_jax.config import Config, TrainConfig
from s3_jax.cost import Evaluated, check_budget, sample_within
from s3_jax.errors import S3Error
from s3_jax.et_error import check_sampled, et_error, measurable
from s3_jax.evolution import evolve, merge_windows, space_name
from s3_jax.measured_run import measured_steps
from s3_jax.remaining import Phase
from s3_jax.space import Architecture, SearchSpace
from s3_jax.task import Variables
from s3_jax.training.evaluate import EvaluationRecord, error_of_subnets
from s3_jax.training.fit import fit, initial_variables, num_updates
from s3_jax.training.networks import Trained
from s3_jax.training.records import read_record
from s3_jax.training.run import Run

# The architectures sampled for every training of a space.
Samples = tuple[tuple[Architecture, ...], ...]


def phase_of(index: int, training: int = 0) -> str:
    """The phase, and the folder, of a training of a space's supernet."""
    return f"space_{index}/training_{training}" if training else f"space_{index}"


def training_of_supernet(config: Config, training: int) -> TrainConfig:
    """How a supernet is trained: every one after the first for `evolution.training_share` of epochs and warm-up."""
    settings, share = config.train, config.evolution.training_share
    if not training or share == 1:
        return settings
    return dataclasses.replace(settings, epochs=share * settings.epochs, warmup_epochs=share * settings.warmup_epochs)


def plan_of_space(run: Run, index: int) -> list[Phase]:
    """The phases that measure a space, in the order in which they come, and how much work each is."""
    config, splits, plan = run.config, run.task.splits, []
    title, samples = f"space {index + 1} of {config.evolution.num_spaces}", config.evolution.num_samples
    for training in range(config.evolution.trainings):
        name, of = phase_of(index, training), f", training {training + 1}" if training else ""
        updates = num_updates(training_of_supernet(config, training), splits.train)
        plan += [
            Phase(name, f"{title}, supernet{of}", "the supernet's training", updates),
            Phase(f"{name}/samples", f"{title}, E-T Error{of}", "evaluation", samples),
        ]
    if splits.judge is not None:
        plan.append(Phase(f"{phase_of(index)}/judged", f"{title}, E-T Error on judging images", "evaluation", samples))
    return plan


def load_space(run: Run, index: int) -> SearchSpace:
    """A space as its file has it; the first is written where it is not there yet. Raises S3Error for a damaged file."""
    name = f"space_{index}/space.json"
    if not run.has(name):  # only of the first: any other was written when the space before it was measured
        space, notes = merge_windows(run.config.space.build(), run.map_sizes)
        _write_space(run, index, space, notes)
        return space
    return read_record(run.workdir / name, lambda record: SearchSpace.from_json(record["space"]))


def draw_samples(run: Run, index: int, space: SearchSpace) -> Samples:
    """The architectures that measure a space: they do not depend on weights, so they are checked before any training.

    Raises S3Error where the budget admits none, or where some choice of the space is in none of a training's.
    """
    with _advice_for_a_bound_folder(run, bound=index > 0):
        drawn = tuple(_draw(run, phase_of(index, each), space) for each in range(run.config.evolution.trainings))
        for samples in drawn:
            check_sampled(space, samples)
        return drawn


def supernet(run: Run, index: int, space: SearchSpace, training: int = 0) -> Trained:
    """The trained supernet of a space: trained from its last checkpoint on, or only read."""
    phase = phase_of(index, training)

    def initial() -> Variables:
        """What the task begins with, over it the weights of the space before, as set."""
        fresh = initial_variables(run, phase, space)
        if not run.config.evolution.init_from_previous or index == 0:
            return fresh
        before = supernet(run, index - 1, load_space(run, index - 1), training)
        return fresh._replace(params=run.task.overlapped(before.params, fresh.params))

    settings = training_of_supernet(run.config, training)
    if not training:
        return fit(run, phase, space, settings, run.task.splits.train, initial)
    return fit(run, phase, space, settings, run.task.splits.train, initial, own_order=True)


def measure(
    run: Run, index: int, space: SearchSpace, samples: Samples, network: Trained, record: EvaluationRecord
) -> None:
    """Evaluate the sampled architectures and write what follows from them: the E-T Error and the next space.

    network, record: of the first training.
    """
    settings, phase = run.config.evolution, phase_of(index)
    evaluated = _evaluate(run, f"{phase}/samples", samples[0], record)
    further = [_further(run, index, space, training, samples[training]) for training in range(1, len(samples))]
    judged = _judge(run, index, samples[0], network)
    last = index + 1 == settings.num_spaces
    with _advice_for_a_bound_folder(run):
        evolution = evolve(
            space,
            evaluated,
            settings,
            map_sizes=run.map_sizes,
            seed=run.config.seed,
            further=further,
            measured=next(iter(measured_steps(run.config)[index : index + 1]), None),
            rng=run.rng(f"{phase}/arm"),
            fits=lambda grown: _fits(run, index + 1, grown),
            record_only=last,
        )
        for budget in () if last else (settings.budget, run.config.search.budget):
            check_budget(evolution.space, budget, run.task.cost)
        if not last:
            evolution = evolution.within(*_measurable(run, index + 1, evolution.space))
    if not last:
        _write_space(run, index + 1, evolution.space, list(evolution.notes))
    run.write_json(f"{phase}/et_error.json", evolution.to_json() | {"judged": judged})


def _draw(run: Run, phase: str, space: SearchSpace) -> tuple[Architecture, ...]:
    settings, rng = run.config.evolution, run.rng(f"{phase}/samples")
    draw = partial(sample_within, space, rng, settings.budget, run.task.cost, run.config.search.max_attempts)
    return tuple(draw() for _ in range(settings.num_samples))


def _fits(run: Run, index: int, space: SearchSpace) -> bool:
    """Whether space `index` could be measured."""
    try:
        draw_samples(run, index, space.clamped(run.map_sizes))
    except S3Error:
        return False
    return True


def _measurable(run: Run, index: int, space: SearchSpace) -> tuple[SearchSpace, str]:
    """An evolved space without the choices that hardly any architecture under the budget has, and why they go.

    None of the samples that are to measure the space has such a choice, so it could have no E-T Error. The space that a
    user gives is refused instead: there is time to change it.
    """
    settings, number = run.config.evolution, 0
    while number < settings.trainings:
        kept = measurable(space, _draw(run, phase_of(index, number), space))
        # The samples of a smaller space are others, for the trainings before too.
        number, space = (number + 1, kept) if kept == space else (0, kept)
    return space, f"none of {settings.num_samples} architectures drawn under evolution.budget can measure them"


def _further(
    run: Run, index: int, space: SearchSpace, training: int, samples: Sequence[Architecture]
) -> list[Evaluated]:
    """The samples of a further training, for which its supernet is trained unless all of them are evaluated already."""
    phase = phase_of(index, training)
    path, held = run.workdir / phase / "evaluated.jsonl", run.task.splits.holdout
    trained = cache(lambda: supernet(run, index, space, training))
    record = EvaluationRecord(run, path, lambda: error_of_subnets(run, trained(), held))
    if not all(map(record.has, samples)):
        trained()  # before the samples' progress begins
    return _evaluate(run, f"{phase}/samples", samples, record)


def _judge(run: Run, index: int, samples: Sequence[Architecture], network: Trained) -> dict[str, Any] | None:
    """The E-T Error of the samples on the judging images, by which nothing is chosen; None where there are none."""
    judge, phase, settings = run.task.splits.judge, phase_of(index), run.config.evolution
    if judge is None:
        return None
    record = EvaluationRecord(run, run.workdir / phase / "judged.jsonl", lambda: error_of_subnets(run, network, judge))
    errors = [one.error for one in _evaluate(run, f"{phase}/judged", samples, record)]
    return et_error(errors, settings.top_k).to_json() | {"sampled_errors": errors}


def _evaluate(run: Run, title: str, architectures: Sequence[Architecture], record: EvaluationRecord) -> list[Evaluated]:
    evaluated, distinct = [], set(architectures)
    count = sum(map(record.has, distinct))  # those that are known take no time
    with run.clock.phase(title, len(distinct), count) as advance:
        for architecture in architectures:
            count += not record.has(architecture)
            evaluated.append(record(architecture))
            advance(count, f"error {evaluated[-1].error:.2f} %")
    record.flush()
    return evaluated


@contextmanager
def _advice_for_a_bound_folder(run: Run, *, bound: bool = True) -> Iterator[None]:
    """Advice to change settings, where the folder keeps those that it has."""
    try:
        yield
    except S3Error as error:
        if not bound:
            raise
        raise S3Error(
            f"{error}. This was found by the space that has evolved. {run.workdir} keeps the settings that it was "
            "started with: give others with another --workdir"
        ) from error


def _write_space(run: Run, index: int, space: SearchSpace, notes: list[str]) -> None:
    record = {"iteration": index, "name": space_name(index), "space": space.to_json(), "size": space.size()}
    run.write_json(f"space_{index}/space.json", record | {"notes": notes})
