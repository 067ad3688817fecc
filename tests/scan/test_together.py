"""Loops of as many steps that need nothing of each other are one, with their launches beside each other."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.lower.plan import GemmItem

LENGTH, WIDTH = 5, 4


def both_ways(seed: int, other_length: int = LENGTH):
    """A layer forwards, and one of two products a step backwards over other data; their leaves and arrays."""
    rng = np.random.default_rng(seed)
    arrays = {
        "x": rng.standard_normal((LENGTH, 2, WIDTH)),
        "y": rng.standard_normal((other_length, 3, WIDTH)),
        "u": rng.standard_normal((WIDTH, WIDTH)) / 2,
        "v": rng.standard_normal((WIDTH, WIDTH)) / 2,
    }
    leaves = [gx.placeholder(name, array.shape, "float64") for name, array in arrays.items()]
    x, y, u, v = leaves

    def once(h, e):
        h = gx.tanh(h @ u + e)
        return h, h * 2

    def twice(h, e):
        h = gx.tanh(gx.sigmoid(h @ v) @ u + e)
        return h, h - e

    last, along = gx.scan(once, gx.zeros((2, WIDTH), "float64"), x)
    first, back = gx.scan(twice, gx.ones((3, WIDTH), "float64"), y, reverse=True)
    return [last, along, first, back], leaves, arrays


def run(outputs, leaves, arrays, backend):
    program = gx.compile({f"y{i}": node for i, node in enumerate(outputs)}, inputs=leaves, backend=backend)
    return program, list(program(**arrays).values())


@pytest.mark.parametrize("derived", [False, True])
def test_two_directions_are_one_loop_with_the_same_values(derived):
    outputs, leaves, arrays = both_ways(int(derived))
    if derived:
        outputs = gx.grad(sum(gx.sum(gx.square(node)) for node in outputs), leaves)
    program, found = run(outputs, leaves, arrays, "numba")
    _, wanted = run(outputs, leaves, arrays, "reference")
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    loops = program.plan.loops
    assert len(loops) == (2 if derived else 1)
    inside = program.plan.launches[loops[0].first : loops[0].end]
    assert any(sum(isinstance(item, GemmItem) for item in launch.items) == 2 for launch in inside)


def test_loops_of_other_lengths_stay_apart():
    outputs, leaves, arrays = both_ways(2, other_length=LENGTH + 1)
    program, found = run(outputs, leaves, arrays, "numba")
    _, wanted = run(outputs, leaves, arrays, "reference")
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    assert len(program.plan.loops) == 2


def test_a_loop_that_needs_another_stays_behind_it():
    x = gx.placeholder("x", (LENGTH, WIDTH), "float64")

    def add(h, e):
        return h + e, h * e

    _, first = gx.scan(add, gx.zeros((WIDTH,), "float64"), x)
    _, second = gx.scan(add, gx.zeros((WIDTH,), "float64"), first, reverse=True)
    array = np.random.default_rng(3).standard_normal((LENGTH, WIDTH))
    program, found = run([second], [x], {"x": array}, "numba")
    _, wanted = run([second], [x], {"x": array}, "reference")
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-12)
    assert len(program.plan.loops) == 2
