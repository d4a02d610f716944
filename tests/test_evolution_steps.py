"""Every dimension moves by its own step, and a slope's standard error is the deviation over its resamples, by hand."""

import itertools

import numpy as np
import pytest

from s3_jax.cost import Cost, Evaluated
from s3_jax.et_error import DimensionMeasure, ETError, SpaceMeasure
from s3_jax.evolution import EvolutionConfig, evolve
from s3_jax.slopes import fit_slopes
from s3_jax.space import Architecture, Block, SearchSpace, Stage, StageSpace

SPACE = SearchSpace((StageSpace((3, 4), (320, 352), (9, 10), (3.0, 3.5), (320, 352)),) * 2)
STEPS = {"step_depth": 2, "step_embed_dim": 48, "step_window": 3, "step_mlp_ratio": 0.25, "step_qkv_dim": 96}


def every_uniform_stage(stage: StageSpace, slope: float) -> list[tuple[Stage, float]]:
    """Stages whose blocks are alike, and errors that grow by `slope` with the place of every choice."""
    stages = []
    for places in itertools.product((0, 1), repeat=5):
        depth, width, window, ratio, qkv = (
            getattr(stage, name)[place]
            for name, place in zip(("depth", "embed_dim", "window", "mlp_ratio", "qkv_dim"), places, strict=True)
        )
        stages.append((Stage(width, (Block(window, ratio, qkv),) * depth), slope * sum(places)))
    return stages


@pytest.mark.parametrize(("slope", "sign"), [(-5.0, 1), (5.0, -1)])
def test_every_dimension_of_a_stage_moves_by_its_own_step_and_by_its_own_slope(slope, sign) -> None:
    """In stage 1 every slope is +-5, one step of tau = 5; in stage 2 it is 0."""
    first, second = every_uniform_stage(SPACE.stages[0], slope), every_uniform_stage(SPACE.stages[1], 0.0)
    samples = [
        Evaluated(Architecture((one, other)), Cost(1, 1), 50 + more)
        for (one, more), (other, _) in itertools.product(first, second)
    ]
    config = EvolutionConfig(top_k=2000, tau=5.0, num_bootstrap=0, **STEPS)
    found = evolve(SPACE, samples, config, map_sizes=(20, 20), seed=0).space
    depth, width, window, ratio, qkv = (
        tuple(choice + sign * step for choice in choices)
        for choices, step in zip(((3, 4), (320, 352), (9, 10), (3.0, 3.5), (320, 352)), STEPS.values(), strict=True)
    )
    assert found.stages == (StageSpace(depth, width, window, ratio, qkv), SPACE.stages[1])


def test_a_standard_error_is_the_deviation_of_a_sample_of_slopes() -> None:
    """Slopes 1, 2 and 6 over two choices: mean 3, deviation sqrt((4 + 1 + 9) / 2) = sqrt(7); a NaN is left out."""
    measures = (ETError(10.0, 10.0, 4, 4), ETError(13.0, 13.0, 4, 4))
    dimension = DimensionMeasure(0, "depth", (1, 2), measures)
    resampled = {(0, "depth"): np.array([[0.0, 1.0], [5.0, 7.0], [1.0, 7.0], [np.nan, 3.0]])}
    measured = SpaceMeasure(measures[0], (dimension,), (), ())
    config = EvolutionConfig()
    (slope,), notes = fit_slopes([measured], [resampled], slope_unit=config.slope_unit, step_of=config.step)
    assert slope is not None
    assert (slope.slope, slope.intercept) == (3.0, 10.0)
    assert slope.standard_error == pytest.approx(np.sqrt(7))
    assert notes[0] == "stage 1 depth: 1 of 4 resamples lack a choice and are left out"
    assert notes[1].startswith("the slopes are those of one training")
    assert len(notes) == 2
