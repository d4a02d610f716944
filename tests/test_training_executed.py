"""Executed work: hand-worked products, the branch that is taken, dead code, and a whole network against its cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.classification.task import of_classes
from s3_jax.config import ModelConfig
from s3_jax.cost import cost
from s3_jax.errors import S3Error
from s3_jax.models.subnet import subnet_mask
from s3_jax.profiling.executed import Work, executed
from s3_jax.space import Architecture, SearchSpace, StageSpace, hidden_dim, sample
from s3_jax.training.programs import shapes_of, terms_of

SPACE = SearchSpace((StageSpace((1, 2), (16, 32), (2, 4), (1.0, 2.0), (32, 64)),) * 2)
MODEL = ModelConfig(image_size=16, patch_size=2, every_width=True)
NAMES, BATCH = "abcde", 3
CLASSES = len(NAMES)
TASK = of_classes(MODEL, NAMES)


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, np.float32)


def test_a_product_has_rows_times_inner_times_columns():
    assert executed(jnp.matmul, shape(2, 3), shape(3, 5)) == Work(30)


def test_a_look_up_and_its_gradient_multiply_nothing():
    def program(table, rows, kernel):
        return jax.grad(lambda table: (jnp.take(table, rows, axis=0) @ kernel).sum())(table)

    rows = jax.ShapeDtypeStruct((3,), np.int32)
    assert executed(program, shape(7, 4), rows, shape(4, 5)) == Work(3 * 4 * 5)


def test_what_nothing_is_made_of_is_left_out_though_devices_would_have_to_sum_it():
    """As in the pass of a network with batch normalisation that only the examples are counted in."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))

    def on_each(x, kernel):
        def turn(_, row):
            summed = jax.lax.psum(row @ kernel, "data")
            return None, (row.sum(), jnp.cos(summed))

        (counts, _) = jax.lax.scan(turn, None, x)[1]
        return counts

    whole = jax.sharding.PartitionSpec()
    program = jax.shard_map(on_each, mesh=mesh, in_specs=(whole, whole), out_specs=whole, check_vma=False)
    assert executed(program, shape(3, 2, 4), shape(4, 5)) == Work(0)


def test_a_scan_counts_every_turn_and_a_conditional_the_branch_taken():
    def program(x, weights, active):
        def step(x, turn):
            kernel, is_active = turn
            return jax.lax.cond(is_active, lambda x: x @ kernel, lambda x: x, x), None

        return jax.lax.scan(step, x, (weights, active))[0]

    active = np.array([True, False, True])
    assert executed(program, shape(2, 4), shape(3, 4, 4), active) == Work(2 * 2 * 4 * 4)
    with pytest.raises(S3Error, match="does not follow from the known arguments"):
        executed(program, shape(2, 4), shape(3, 4, 4), jax.ShapeDtypeStruct((3,), np.bool_))


def test_a_while_loop_is_refused_where_it_has_products_however_deep():
    def program(x, kernel):
        multiply = jax.jit(lambda x: x @ kernel)
        return jax.lax.while_loop(lambda x: x.sum() < 1, multiply, x)

    with pytest.raises(S3Error, match="use a scan"):
        executed(program, shape(2, 4), shape(4, 4))
    assert executed(lambda x: jax.lax.while_loop(lambda x: x.sum() < 1, jnp.cos, x), shape(2, 4)) == Work(0)


def test_a_result_that_nobody_uses_costs_nothing():
    def program(a, b):
        unused = jax.jit(lambda a, b: (a @ b, a.sum()))(a, b)
        return unused[1]

    assert executed(program, shape(2, 3), shape(3, 5)) == Work(0)


def test_what_a_backward_pass_does_again_is_counted_apart():
    def loss(x, kernel):
        return jax.checkpoint(lambda x: jnp.sin(jnp.sin(x @ kernel) @ kernel))(x).sum()

    gradient = executed(jax.value_and_grad(loss), shape(2, 4), shape(4, 4))
    # Two products forward, one for x in each of the two backward; then both again, for the sines after them.
    assert gradient == Work(macs=4 * 32, recomputed=2 * 32)


def test_what_devices_do_on_their_parts_is_counted_for_all_of_them():
    mesh = jax.sharding.AbstractMesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def part(images, kernel, index):
        number = jax.lax.axis_index("data")
        product = jax.lax.switch(index, [lambda x: x[:, :1], lambda x: x @ kernel @ kernel[:, :1]], images)
        return jax.lax.psum((product + number).sum(), "data")

    whole, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("data")
    run = jax.shard_map(part, mesh=mesh, in_specs=(split, whole, whole), out_specs=whole, check_vma=False)
    images, kernel = shape(8, 3), shape(3, 3)
    assert executed(run, images, kernel, np.array(1)) == Work(8 * 3 * 3 + 8 * 3)
    assert executed(run, images, kernel, np.array(0)) == Work(0)


@pytest.fixture(scope="module")
def arguments():
    batch = {"image": shape(BATCH, 16, 16, 3), "target": shape(BATCH, CLASSES), "weight": shape(BATCH)}
    return shapes_of(TASK, SPACE), batch, jax.eval_shape(lambda: jax.random.key(0))


def gradient_of(terms):
    """The gradient of the sum of a loss's one term with respect to the parameters."""

    def total(params, variables, *others):
        ((total, _),) = terms(variables._replace(params=params), *others)[0].values()
        return total

    return lambda variables, *others: jax.value_and_grad(total)(variables.params, variables, *others)


def too_wide(architecture: Architecture) -> int:
    """Multiply-adds of an image that are computed though the subnet does not need them, by hand."""
    extra = 0
    for side, space, stage in zip((8, 4), SPACE.stages, architecture.stages, strict=True):
        for block in stage.blocks:
            channels = 4 * (max(space.qkv_dim) - 32 * block.heads)  # of queries, keys, values and the projection
            widest = hidden_dim(stage.embed_dim, max(space.mlp_ratio))
            units = 2 * (widest - hidden_dim(stage.embed_dim, block.mlp_ratio))
            extra += side**2 * stage.embed_dim * (channels + units)
    first, second = (stage.embed_dim for stage in architecture.stages)
    # What is not in blocks is computed at its largest: patches, the one merge, and the classifier.
    return extra + 64 * 12 * (32 - first) + 16 * 4 * (32 * 32 - first * second) + CLASSES * (32 - second)


def attention(architecture: Architecture) -> int:
    """Multiply-adds of an image in logits, and in the sums of values that they weigh, by hand."""
    stages = zip((8, 4), architecture.stages, strict=True)
    return sum(2 * side**2 * b.window**2 * 32 * b.heads for side, stage in stages for b in stage.blocks)


def bias_sums(architecture: Architecture) -> int:
    """Those of the gradient of the position bias: a product with ones over all windows, which has no forward pass."""
    stages = zip((8, 4), architecture.stages, strict=True)
    return sum(side**2 * b.window**2 * b.heads for side, stage in stages for b in stage.blocks)


@pytest.mark.parametrize("seed", range(4))
def test_a_stand_alone_network_executes_its_cost_and_a_masked_one_that_of_its_variants(seed, arguments):
    variables, batch, key = arguments
    architecture = sample(SPACE, np.random.default_rng(seed))
    needed = BATCH * cost(architecture, image_size=16, patch_size=2, num_classes=CLASSES).macs
    forward = terms_of(TASK, architecture, 0.0)
    assert executed(forward, shapes_of(TASK, architecture), batch, None, key) == Work(needed)

    masked = terms_of(TASK, SPACE, 0.0)
    work = executed(masked, variables, batch, subnet_mask(SPACE, architecture), key)
    assert work == Work(needed + BATCH * too_wide(architecture))
    gradient = executed(gradient_of(masked), variables, batch, subnet_mask(SPACE, architecture), key)
    images, table = 64 * 2 * 2 * 3 * 32, bias_sums(architecture)
    assert gradient.macs == 3 * work.macs + BATCH * (table - images)  # images have no gradient
    assert gradient.recomputed == BATCH * attention(architecture)


@pytest.mark.parametrize("seed", range(2))
def test_what_rematerialisation_does_again_is_told_apart(seed, arguments):
    """Of blocks: the forward pass but for its last product, and attention once more where that goes back."""
    _, batch, key = arguments
    architecture = sample(SPACE, np.random.default_rng(seed))
    kept, again = (
        executed(
            gradient_of(terms_of(dataclasses.replace(TASK, model=model), architecture, 0.0)),
            *(shapes_of(TASK, architecture), batch, None, key),
        )
        for model in (MODEL, dataclasses.replace(MODEL, remat=True))
    )
    assert again.macs == kept.macs
    assert kept.recomputed == BATCH * attention(architecture)
    first, second = (stage.embed_dim for stage in architecture.stages)
    outside = 64 * 12 * first + 16 * 4 * first * second + CLASSES * second
    blocks = cost(architecture, image_size=16, patch_size=2, num_classes=CLASSES).macs - outside
    last = sum(
        side**2 * stage.embed_dim * hidden_dim(stage.embed_dim, block.mlp_ratio)
        for side, stage in zip((8, 4), architecture.stages, strict=True)
        for block in stage.blocks
    )
    assert again.recomputed - kept.recomputed == BATCH * (blocks - last)
