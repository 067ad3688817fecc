"""Every op, every case, every backend: the inferred type is the actual one, and the values are right."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backend import backends
from graphc.ir.graph import rebuild
from graphc.ir.node import apply
from graphc.ir.op import registry
from graphc.ir.types import kind_of
from graphc.ops.halves import widen_halves
from tests.ops.table import COMPUTED, build, by_numpy, cases, draw, evaluate, judge, seeded

BACKENDS = [backend.name for backend in backends() if backend.available() is None]


@pytest.mark.parametrize("name", COMPUTED)
def test_inferred_type_is_the_type_of_the_reference(name):
    for case in cases(registry[name]):
        arrays = draw(case, seeded(case))
        node, _ = build(case, arrays)
        result = by_numpy(case.op, arrays)
        assert (result.shape, result.dtype) == (node.shape, node.dtype.numpy), case


@pytest.mark.parametrize("name", COMPUTED)
def test_reference_does_not_ask_for_contiguous_operands(name):
    for case in cases(registry[name]):
        arrays = draw(case, seeded(case))
        strided = [_strided(array) for array in arrays]
        result, wanted = by_numpy(case.op, strided), by_numpy(case.op, arrays)
        rounding = 16 * np.spacing(wanted.dtype.type(1)) if kind_of(wanted.dtype) == "f" else 0  # sums in another order
        np.testing.assert_allclose(result, wanted, rtol=rounding, atol=rounding, err_msg=str(case))


def _strided(array):
    """Equal elements, every second one of a larger array, axes stored in reverse."""
    wide = np.zeros([2 * size for size in array.shape[::-1]], array.dtype)
    view = wide[(..., *(slice(None, None, 2) for _ in array.shape))].T
    view[...] = array
    return view


@pytest.mark.parametrize("name", COMPUTED)
def test_reference_leaves_its_operands_alone(name):
    for case in cases(registry[name]):
        arrays = draw(case, seeded(case))
        for array in arrays:
            array.setflags(write=False)
        by_numpy(case.op, arrays)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", COMPUTED)
def test_values(name, backend):
    """All cases of an op in one program, so that a backend compiles them at once."""
    rows = [(case, draw(case, seeded(case))) for case in cases(registry[name])]
    outputs, inputs, feeds = {}, [], {}
    for number, (case, arrays) in enumerate(rows):
        node, leaves = build(case, arrays, f"x{number}_")
        outputs[f"y{number}"] = node
        inputs += leaves
        feeds |= {leaf.name: array for leaf, array in zip(leaves, arrays, strict=True)}
    results = gx.compile(outputs, inputs=inputs, backend=backend)(**feeds)
    for number, (case, arrays) in enumerate(rows):
        judge(case, arrays, results[f"y{number}"])


@pytest.mark.parametrize("name", [name for name in COMPUTED if registry[name].composite])
def test_composite_equals_its_parts(name):
    for case in cases(registry[name]):
        arrays = draw(case, seeded(case))
        node, leaves = build(case, arrays)
        (whole,) = rebuild([node], widen_halves)  # what holds 16-bit floats is taken apart in float32
        (parts,) = rebuild([whole], lambda node, args: node.op.decompose(*args) if node.op.composite else None)
        assert parts.type == node.type, case
        (result,) = evaluate([parts], dict(zip(leaves, arrays, strict=True)))
        judge(case, arrays, result)


@pytest.mark.parametrize("name", COMPUTED)
def test_equal_ops_on_equal_operands_are_one_node(name):
    for case, again in zip(cases(registry[name]), cases(registry[name]), strict=True):
        assert case.op == again.op
        assert hash(case.op) == hash(again.op)
        node, leaves = build(case, draw(case, seeded(case)))
        assert apply(again.op, *leaves) is node
