"""Matrix products read slices, transposes and reshapes where they lie; what BLAS cannot walk is copied."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gx
from graphc.backend import find_backend
from graphc.driver import make_plan
from graphc.ir.graph import make_graph
from graphc.lower.interpret import run_plan
from graphc.passes import prepare, simplify_graph


@pytest.mark.parametrize(
    ("view", "copied"),
    [
        (lambda x: x[1:, :], False),
        (lambda x: x[:, 2:], False),
        (lambda x: gx.transpose(x)[2:, 1:], False),
        (lambda x: gx.reshape(x[1:], (-1, 3)), False),
        (lambda x: gx.flip(x, 0), True),
        (lambda x: gx.flip(x[:, :1], 0), True),
        (lambda x: x[:, ::2], True),
    ],
)
def test_products_read_slices_where_they_lie(view: Callable[[gx.Node], gx.Node], copied: bool) -> None:
    x = gx.placeholder("x", (4, 6))
    a = view(x)
    value = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    b = gx.placeholder("b", (a.shape[1], 2))
    factor = np.random.default_rng(1).standard_normal(b.shape).astype(np.float32)
    outputs = {"y": a @ b, "z": gx.transpose(b) @ gx.transpose(a)}
    plan = make_plan(simplify_graph(prepare(make_graph(outputs, [x, b])))[0], find_backend("numba"))
    assert any("copy" in launch.label for launch in plan.launches) == copied
    oracle = gx.compile(outputs, inputs=[x, b], backend="reference")(x=value, b=factor)
    native = gx.compile(outputs, inputs=[x, b], backend="numba")(x=value, b=factor)
    for name, wanted in oracle.items():
        np.testing.assert_allclose(native[name], wanted, rtol=1e-5, atol=1e-6)
    for found, wanted in zip(run_plan(plan, [value, factor], {}), oracle.values(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
