"""Multiply-adds that a program executes, counted from its jaxpr: of a conditional only the branch that is taken.

Which branch that is follows from the concrete arguments (a subnet's mask); all others may be shapes. So the count is of
what runs, not of what is compiled, and takes no device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from s3_jax.errors import S3Error
from s3_jax.models.recompute import RECOMPUTED

# What a backward pass computes again is traced under one of these names; the second is jax.checkpoint's.
_AGAIN = (RECOMPUTED, "rematted_computation")
# Arrays up to this size are computed where their inputs are known; masks and indices are far smaller.
_MAX_KNOWN = 1024
# Operations that differ from device to device, or combine them: their results are not known.
_OF_THE_MESH = ("axis_index", "psum", "psum_invariant", "reduce_scatter", "all_gather")

# What JAX notes as an effect of them, which keeps none of them where the result is not used: XLA leaves them out.
_OF_AN_AXIS = "NamedAxisEffect"

# A value of the program: an array where it is known, None where it depends on arguments given as shapes.
Value = Any


class Work(NamedTuple):
    """Multiply-adds of matrix products and convolutions."""

    macs: int = 0  # without what is recomputed
    recomputed: int = 0

    def plus(self, other: Work) -> Work:
        """The two together."""
        return Work(self.macs + other.macs, self.recomputed + other.recomputed)


def executed(program: Callable[..., Any], *arguments: Any) -> Work:
    """The work of `program(*arguments)`; arguments are pytrees of numpy arrays (known) and jax.ShapeDtypeStruct.

    Raises S3Error where a conditional or a loop with products in it hangs on an argument that is not known.
    """
    closed = jax.make_jaxpr(program)(*arguments)
    known = [leaf if isinstance(leaf, (np.ndarray, np.generic)) else None for leaf in jax.tree.leaves(arguments)]
    return _walk(closed.jaxpr, closed.consts, known, [True] * len(closed.jaxpr.outvars))[1]


def _walk(
    jaxpr: Jaxpr, consts: Sequence[Value], arguments: Sequence[Value], used: Sequence[bool]
) -> tuple[list[Value], Work]:
    """Outputs, as far as they are known, and the work that goes into those that are used."""
    values = dict(zip(jaxpr.constvars, map(_small, consts), strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))
    work = Work()

    def read(atom: Any) -> Value:
        """The value of a variable or a literal."""
        return atom.val if isinstance(atom, Literal) else values.get(atom)

    for equation, used_here in _live(jaxpr, used):
        outputs, more = _execute(equation, [read(atom) for atom in equation.invars], used_here)
        values |= dict(zip(equation.outvars, outputs, strict=True))
        work = work.plus(more)
    return [read(atom) for atom in jaxpr.outvars], work


def _live(jaxpr: Jaxpr, used: Sequence[bool]) -> list[tuple[Any, list[bool]]]:
    """The equations whose results are used, and which of them are; compilers drop the others."""
    outputs = zip(jaxpr.outvars, used, strict=True)
    needed = {atom for atom, is_used in outputs if is_used and not isinstance(atom, Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        used_here = [var in needed for var in equation.outvars]
        if any(used_here) or any(type(effect).__name__ != _OF_AN_AXIS for effect in equation.effects):
            kept.append((equation, used_here))
            needed.update(_needed_inputs(equation, used_here))
    return kept[::-1]


def _needed_inputs(equation: Any, used: list[bool]) -> set[Any]:
    """The inputs of which a used output of the equation is made, looking into calls."""
    inputs, inner = equation.invars, _called(equation)
    if inner is not None and len(inner[0].invars) == len(inputs):
        jaxpr = inner[0]
        outputs = zip(jaxpr.outvars, used, strict=True)
        made_of = {atom for atom, is_used in outputs if is_used and not isinstance(atom, Literal)}
        for part, used_there in reversed(_live(jaxpr, used)):
            made_of |= _needed_inputs(part, used_there)
        inputs = [atom for atom, var in zip(inputs, jaxpr.invars, strict=True) if var in made_of]
    return {atom for atom in inputs if not isinstance(atom, Literal)}


def _called(equation: Any) -> tuple[Jaxpr, Sequence[Value]] | None:
    """Jaxpr and constants of what an equation calls once, as jit and custom derivatives do; None for any other."""
    name = equation.primitive.name
    # The jaxpr of a scatter joins one old and one new number, and is no call.
    if name in ("cond", "scan", "while") or name.startswith("scatter"):
        return None
    for value in equation.params.values():
        if isinstance(value, ClosedJaxpr):
            return value.jaxpr, value.consts
        if isinstance(value, Jaxpr):
            return value, ()
    return None


def _execute(equation: Any, inputs: list[Value], used: list[bool]) -> tuple[Sequence[Value], Work]:
    outputs, work = _execute_as_named(equation, inputs, used)
    # The body of a loop or branch does not carry the names that the loop itself is traced under.
    again = _is_recomputed(str(equation.source_info.name_stack))
    return outputs, Work(0, work.macs + work.recomputed) if again else work


def _execute_as_named(equation: Any, inputs: list[Value], used: list[bool]) -> tuple[Sequence[Value], Work]:
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        return _conditional(params["branches"], inputs, used)
    if name == "scan":
        return _scan(equation, inputs, used)
    if name == "while":
        return _while(equation)
    if name == "shard_map":
        return _shard_map(equation, inputs, used)
    if (inner := _called(equation)) is not None:
        return _walk(*inner, inputs, used)
    outputs = [None] * len(equation.outvars)
    macs = _macs(equation)
    if macs:
        return outputs, Work(macs)
    known = name not in _OF_THE_MESH and all(value is not None for value in inputs)
    if known and all(var.aval.size <= _MAX_KNOWN for var in equation.outvars):
        result = equation.primitive.bind(*inputs, **params)
        return (result if equation.primitive.multiple_results else [result]), Work()
    return outputs, Work()


def _conditional(
    branches: Sequence[ClosedJaxpr], inputs: list[Value], used: list[bool]
) -> tuple[Sequence[Value], Work]:
    index, *operands = inputs
    if index is None:
        works = [_walk(branch.jaxpr, branch.consts, operands, used) for branch in branches]
        if any(work != works[0][1] for _, work in works):
            raise S3Error("which branch of a conditional is taken does not follow from the known arguments")
        return [None] * len(used), works[0][1]
    branch = branches[int(np.clip(index, 0, len(branches) - 1))]
    return _walk(branch.jaxpr, branch.consts, operands, used)


def _scan(equation: Any, inputs: list[Value], used: list[bool]) -> tuple[Sequence[Value], Work]:
    body, length = equation.params["jaxpr"], equation.params["length"]
    num_consts, num_carry = _scan_layout(equation)
    consts, carry = inputs[:num_consts], inputs[num_consts : num_consts + num_carry]
    slices, work = inputs[num_consts + num_carry :], Work()
    used = [True] * num_carry + used[num_carry:]
    rows: list[list[Value]] = [[] for _ in range(length)]
    for turn in reversed(range(length)) if equation.params["reverse"] else range(length):
        sliced = [None if value is None else value[turn] for value in slices]
        outputs, more = _walk(body.jaxpr, body.consts, [*consts, *carry, *sliced], used)
        carry, rows[turn], work = outputs[:num_carry], list(outputs[num_carry:]), work.plus(more)
    columns = list(zip(*rows, strict=True)) if length else [(None,)] * (len(used) - num_carry)
    stacked = [None if any(value is None for value in column) else np.stack(column) for column in columns]
    return [*carry, *stacked], work


def _scan_layout(equation: Any) -> tuple[int, int]:
    """How many inputs of a scan are constants, and how many its carry: what is sliced or stacked has one axis more.

    Read from the shapes, because releases of JAX differ in the parameters that tell it.
    """
    body = equation.params["jaxpr"].jaxpr
    num_sliced, num_stacked = (
        sum(outer.aval.ndim != inner.aval.ndim for outer, inner in zip(outside, inside, strict=True))
        for outside, inside in ((equation.invars, body.invars), (equation.outvars, body.outvars))
    )
    num_carry = len(body.outvars) - num_stacked
    return len(body.invars) - num_sliced - num_carry, num_carry


def _shard_map(equation: Any, inputs: list[Value], used: list[bool]) -> tuple[Sequence[Value], Work]:
    """The work of all devices: what the body tells is that of one, on its own part of what is split."""
    body, size = equation.params["jaxpr"], equation.params["mesh"].size
    whole = [
        value if np.shape(value) == var.aval.shape else None for value, var in zip(inputs, body.invars, strict=True)
    ]
    _, work = _walk(body, (), whole, used)
    return [None] * len(equation.outvars), Work(size * work.macs, size * work.recomputed)


def _while(equation: Any) -> tuple[Sequence[Value], Work]:
    for part in ("cond_jaxpr", "body_jaxpr"):
        jaxpr, consts = equation.params[part].jaxpr, equation.params[part].consts
        if _walk(jaxpr, consts, [None] * len(jaxpr.invars), [True] * len(jaxpr.outvars))[1] != Work():
            raise S3Error("how often a while loop with products in it runs cannot be told; use a scan")
    return [None] * len(equation.outvars), Work()


def _macs(equation: Any) -> int:
    """Multiply-adds of one equation: outputs times the length of the sums that make them."""
    outputs = equation.outvars[0].aval.size if equation.outvars else 0
    if equation.primitive.name == "dot_general":
        contracted = equation.params["dimension_numbers"][0][0]
        return outputs * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        return outputs * math.prod(kernel) // kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 0


def _is_recomputed(name_stack: str) -> bool:
    return any(name in name_stack for name in _AGAIN) and "transpose(" not in name_stack


def _small(value: Value) -> Value:
    return value if np.size(value) <= _MAX_KNOWN else None
