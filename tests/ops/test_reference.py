"""The reference backend: state, symbolic sizes, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backend import Backend, find_backend
from graphc.backends.reference import backend
from graphc.ir.graph import make_graph
from graphc.lower.plan import Plan


def executable(outputs, inputs, updates=None):
    return backend.compile(Plan(make_graph(outputs, inputs, updates)))


def test_it_is_a_backend():
    assert isinstance(backend, Backend)
    assert find_backend("reference") is backend
    assert (backend.name, backend.lowers, backend.available()) == ("reference", False, None)


def test_updates_read_old_values_and_commit_together():
    a, b = gx.parameter("a", np.float32([1, 2])), gx.parameter("b", np.float32([3, 4]))
    c = gx.parameter("c", np.zeros((1, 2), np.float32))
    step = executable({"a": gx.reshape(a, (1, 2))}, [], {a: b, b: a, c: gx.reshape(a + b, (1, 2))}).bind({})
    out = np.zeros((1, 2), np.float32)
    buffers = a.array, b.array
    step.run([], [out])
    assert out.tolist() == [[1, 2]]
    assert (a.value.tolist(), b.value.tolist(), c.value.tolist()) == ([3, 4], [1, 2], [[4, 6]])
    assert (a.array, b.array) == buffers or (a.array is buffers[0] and b.array is buffers[1])


def test_a_parameter_that_is_only_written_is_written():
    x, w = gx.placeholder("x", (2,)), gx.parameter("w", np.zeros(2, np.float32))
    executable({}, [x], {w: x + 1.0}).bind({}).run([np.float32([1, 2])], [])
    assert w.value.tolist() == [2, 3]


def test_outputs_do_not_share_memory_with_inputs_or_each_other():
    x = gx.placeholder("x", (3,))
    y = gx.stop_gradient(x)
    inputs, outputs = np.float32([1, 2, 3]), [np.zeros(3, np.float32) for _ in range(3)]
    executable({"x": x, "y": y, "z": y}, [x]).bind({}).run([inputs], outputs)
    inputs[:] = 0
    assert all(out.tolist() == [1, 2, 3] for out in outputs)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_one_executable_serves_every_size(n):
    x = gx.placeholder("x", ("n", 3))
    y = gx.concatenate([gx.iota(("n", 3), 0, "float32"), x * gx.size_of("n", "float32")])
    bound = executable({"y": y}, [x]).bind({"n": n})
    out = np.zeros((2 * n, 3), np.float32)
    bound.run([np.ones((n, 3), np.float32)], [out])
    np.testing.assert_array_equal(out[:n, 0], np.arange(n))
    np.testing.assert_array_equal(out[n:], n)


def test_what_no_pass_has_settled_is_refused():
    x = gx.placeholder("x", (3,))
    with pytest.raises(gx.BackendError, match="a pass removes it before this stage"):
        executable({"y": gx.when_training(x, x + 1.0)}, [x])


def test_no_warning_reaches_the_user():
    x = gx.placeholder("x", (2,))
    out = np.zeros(2, np.float32)
    executable({"y": gx.log(x) / 0.0}, [x]).bind({}).run([np.float32([-1, 0])], [out])
    assert np.isnan(out[0])
    assert out[1] == -np.inf
