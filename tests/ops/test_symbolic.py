"""Ops of symbolic sizes: inferred types, once the sizes have values, are those of fixed sizes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import graphc as gx
from graphc.ir.dims import Dim, evaluate
from graphc.ir.node import apply
from graphc.ir.op import registry
from graphc.ir.types import DType, TensorType
from tests.ops.table import COMPUTED, build, by_numpy, cases, draw, seeded
from tests.ops.table import evaluate as run

FIXED = {
    "reshape", "shift_windows", "fold_windows", "take_from_places", "put_at_places", "conv", "conv_transpose",
    "conv_kernel_grad", "patch_product", "patch_gradient", "panel_product",
    "winograd_product",
}  # fmt: skip
"""Sizes here are products of the operands', or those of windows and panels, which are numbers;
tests/ops/test_functions.py and tests/ops/test_convolution.py have their symbolic cases."""

HOLDS_SIZES = ("Shape", "Size", "tuple[Size, ...]")


def name_sizes(case, arrays):
    """The case with every size of its operands from 2 on replaced by a Dim of its own."""
    values = {f"d{size}": size for array in arrays for size in array.shape if size >= 2}
    dims = {size: Dim(name) for name, size in values.items()}

    def named(size):
        return dims.get(size, size)

    types = [TensorType(DType(array.dtype.name), tuple(map(named, array.shape))) for array in arrays]
    changed = {
        field.name: tuple(map(named, value))
        if isinstance(value := getattr(case.op, field.name), tuple)
        else named(value)
        for field in dataclasses.fields(case.op)
        if field.type in HOLDS_SIZES
    }
    return dataclasses.replace(case.op, **changed), types, values


@pytest.mark.parametrize("name", [name for name in COMPUTED if name not in FIXED])
def test_types_of_symbolic_sizes(name):
    for case in cases(registry[name]):
        arrays = draw(case, seeded(case))
        fixed, _ = build(case, arrays)
        op, types, values = name_sizes(case, arrays)
        inferred = op.infer(*types)
        assert tuple(evaluate(size, values) for size in inferred.shape) == fixed.shape, case
        bound = op.with_sizes(lambda size: evaluate(size, values))  # noqa: B023
        assert bound == case.op, case


@pytest.mark.parametrize("name", [name for name in COMPUTED if name not in FIXED and name != "custom_vjp"])
def test_derivatives_of_symbolic_sizes(name):
    """One graph serves every size: gradients by named sizes are those by fixed ones."""
    cls = registry[name]
    if cls.no_vjp is not None:
        return
    case = next(
        case
        for case in cases(cls)
        if case.differentiable and _draws_floats(case) and case.op.infer(*_types(case)).dtype.is_float
    )
    arrays = draw(case, seeded(case))
    op, types, _ = name_sizes(case, arrays)
    symbolic = [gx.placeholder(f"x{i}", type.shape, type.dtype) for i, type in enumerate(types)]
    fixed = [gx.placeholder(f"x{i}", array.shape, array.dtype) for i, array in enumerate(arrays)]
    found = []
    for inputs, each in ((symbolic, op), (fixed, case.op)):
        floats = [x for x in inputs if x.dtype.is_float]
        loss = gx.sum(gx.tanh(apply(each, *inputs)))
        found.append(run(gx.grad(loss, floats), dict(zip(inputs, arrays, strict=True))))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def _types(case):
    return [TensorType(DType(a.dtype.name), a.shape) for a in draw(case, seeded(case))]


def _draws_floats(case):
    return any(isinstance(operand, TensorType) and operand.dtype is DType.float32 for operand in case.operands)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_take_and_its_transpose_of_a_symbolic_axis(size):
    x, i = gx.placeholder("x", ("n", 2), "float64"), gx.placeholder("i", ("m",), "int64")
    values, rows = np.random.default_rng(size).standard_normal((size, 2)), np.arange(5) % size
    taken = gx.take(x, i)
    (g,) = gx.grad(gx.sum(taken * taken), [x])
    a, b = run([taken, g], {x: values, i: rows})
    np.testing.assert_array_equal(a, values[rows])
    np.testing.assert_allclose(b, 2 * values * np.bincount(rows, minlength=size)[:, None])


def test_sizes_without_a_value_are_refused_by_the_reference():
    with pytest.raises(gx.GraphError, match="size n has no value yet"):
        by_numpy(gx.zeros(("n",)).op, [np.zeros(())])
