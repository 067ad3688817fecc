"""Every op's derivatives, against differences of its reference in float64, and the reasons of those that have none."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import autodiff
from graphc.ir.node import placeholder
from graphc.ir.op import Absent, registry
from tests.ops.table import COMPUTED, build, by_numpy, cases, draw, evaluate, seeded

STEP = 1e-5


def differentiable(name):
    """Cases in float64 with a floating operand and result, away from kinks."""
    for case in cases(registry[name]):
        arrays = draw(case, seeded(case))
        floats = [position for position, array in enumerate(arrays) if array.dtype == np.float64]
        narrow = any(array.dtype == np.float32 for array in arrays)
        if case.differentiable and floats and not narrow and by_numpy(case.op, arrays).dtype == np.float64:
            yield case, arrays, floats


DIFFERENTIABLE = [
    name
    for name in COMPUTED
    if registry[name].no_vjp is None and name != "custom_vjp"  # whose rule is the user's word
]


def difference(op, arrays, directions):
    """The directional derivative by central differences."""
    above = by_numpy(op, [a if d is None else a + STEP * d for a, d in zip(arrays, directions, strict=True)])
    below = by_numpy(op, [a if d is None else a - STEP * d for a, d in zip(arrays, directions, strict=True)])
    return (above - below) / (2 * STEP)


def random_directions(arrays, floats, rng):
    return [rng.standard_normal(a.shape) if i in floats else None for i, a in enumerate(arrays)]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_both_modes_agree_with_differences_and_each_other(name):
    found = list(differentiable(name))
    assert found, "an op with a derivative needs a case that tests it"
    for case, arrays, floats in found:
        rng = seeded("derivative", case)
        node, leaves = build(case, arrays)
        directions = random_directions(arrays, floats, rng)
        weights = rng.standard_normal(node.shape)
        cotangent = placeholder("cotangent", node.shape, "float64")
        tangents = [None if d is None else placeholder(f"t{i}", d.shape, "float64") for i, d in enumerate(directions)]
        cotangents = case.op.vjp(node, cotangent)
        assert len(cotangents) == len(leaves)
        for leaf, found_cotangent in zip(leaves, cotangents, strict=True):
            assert (found_cotangent is not None) <= leaf.dtype.is_float
            assert found_cotangent is None or found_cotangent.type == leaf.type
        tangent = case.op.jvp(node, tangents)
        assert tangent is not None
        assert tangent.type == node.type
        feeds = dict(zip(leaves, arrays, strict=True)) | {cotangent: weights}
        feeds |= {t: d for t, d in zip(tangents, directions, strict=True) if t is not None}
        wanted = [i for i in floats if cotangents[i] is not None]
        pushed, *pulled = evaluate([tangent, *(cotangents[i] for i in wanted)], feeds)
        numeric = difference(case.op, arrays, directions)
        np.testing.assert_allclose(pushed, numeric, rtol=2e-6, atol=2e-8, err_msg=str(case))
        backward = sum(np.sum(g * directions[i]) for g, i in zip(pulled, wanted, strict=True))
        forward = np.sum(pushed * weights)
        np.testing.assert_allclose(backward, forward, rtol=1e-10, atol=1e-11, err_msg=str(case))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_each_operand_alone(name):
    """jvp with all other tangents None is the derivative by one operand, broadcast to the result."""
    case, arrays, floats = next(iter(differentiable(name)))
    for position in floats:
        directions = random_directions(arrays, [position], seeded("alone", position, case))
        node, leaves = build(case, arrays)
        tangents = [None if d is None else placeholder("t", d.shape, "float64") for d in directions]
        tangent = case.op.jvp(node, tangents)
        numeric = difference(case.op, arrays, directions)
        if tangent is None:
            np.testing.assert_allclose(numeric, 0, atol=1e-9)
            continue
        assert tangent.type == node.type
        feeds = dict(zip(leaves, arrays, strict=True)) | {tangents[position]: directions[position]}
        (pushed,) = evaluate([tangent], feeds)
        np.testing.assert_allclose(pushed, numeric, rtol=2e-6, atol=2e-8)
    assert case.op.jvp(node, [None] * len(leaves)) is None


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives_differentiate_again(name):
    """The tangent of the gradient, against differences of the gradient."""
    case, arrays, floats = next(iter(differentiable(name)))
    rng = seeded("second", case)
    node, leaves = build(case, arrays)
    weights = rng.standard_normal(node.shape)
    cotangent = placeholder("cotangent", node.shape, "float64")
    wrt = [leaves[i] for i in floats]
    gradients = autodiff.vjp([node], wrt, [cotangent])
    directions = random_directions(arrays, floats, rng)
    moved = [placeholder(f"t{i}", directions[i].shape, "float64") for i in floats]
    second = autodiff.jvp(gradients, wrt, moved)
    feeds = dict(zip(leaves, arrays, strict=True)) | {cotangent: weights}

    def gradient(sign):
        shifted = [a if d is None else a + sign * STEP * d for a, d in zip(arrays, directions, strict=True)]
        return evaluate(gradients, feeds | dict(zip(leaves, shifted, strict=True)))

    found = evaluate(second, feeds | {t: directions[i] for t, i in zip(moved, floats, strict=True)})
    for result, above, below in zip(found, gradient(1), gradient(-1), strict=True):
        np.testing.assert_allclose(result, (above - below) / (2 * STEP), rtol=1e-5, atol=1e-6, err_msg=str(case))


@pytest.mark.parametrize("name", [name for name in COMPUTED if registry[name].no_vjp is not None])
def test_the_reason_for_no_derivative_is_true(name):
    cls = registry[name]
    assert cls.no_jvp is cls.no_vjp
    for case in cases(cls):
        arrays = draw(case, seeded(case))
        result = by_numpy(case.op, arrays)
        floats = [position for position, array in enumerate(arrays) if array.dtype.kind == "f"]
        match cls.no_vjp:
            case Absent.INTEGER_RESULT:
                assert result.dtype.kind != "f"
            case Absent.INTEGER_OPERANDS:
                assert not floats
            case Absent.LEAF:
                assert not arrays
            case Absent.PIECEWISE_CONSTANT:
                if case.differentiable and result.dtype == np.float64:
                    directions = random_directions(arrays, floats, seeded(case))
                    np.testing.assert_array_equal(difference(case.op, arrays, directions), 0, err_msg=str(case))
            case reason:
                assert reason is Absent.STOPPED
