"""Random graphs: what the compiler makes of them computes what NumPy computes node by node, or refuses the sizes.

Most run on the kernel interpreter, which also holds plans and kernels to their rules; some run natively. To look
for more: ``python -m tests.spine.test_fuzz 1000 9000``.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc.backend import find_backend
from graphc.driver import make_plan
from graphc.ir.graph import Graph, make_graph
from graphc.lower.interpret import CheckFailed, run_plan
from graphc.lower.sizes import find_size_rules
from graphc.passes import prepare, simplify_graph
from tests.lower.judge import evaluate_graph
from tests.spine.random_graphs import RandomGraph, random_graph


def refused(graph: Graph, dims: dict[str, int]) -> bool:
    """Does the graph promise something of its sizes that these do not keep?"""
    try:
        for rule in find_size_rules(graph.nodes):
            rule.check(dims)
    except gx.ShapeError:
        return True
    return False


def interpret(graph: Graph, arrays: list[Any], dims: dict[str, int]) -> list[Any]:
    """Outputs of the lowered graph; parameters change."""
    simplified, _ = simplify_graph(prepare(graph))
    return run_plan(make_plan(simplified, find_backend("numba")), arrays, dims)


def compare(g: RandomGraph, native: bool) -> None:
    """Run a graph both ways from the same parameters."""
    graph = make_graph(g.outputs, list(g.arrays), g.updates)
    arrays, dims = list(g.arrays.values()), {name: g.dims[name] for name in graph.dims}
    if native:
        program = gx.compile(g.outputs, inputs=list(g.arrays), updates=g.updates, backend="numba")
    if refused(graph, dims):
        if native:
            with pytest.raises(gx.ShapeError):
                program.call(arrays)
        return
    with np.errstate(all="ignore"):
        expected = evaluate_graph(graph, arrays, dims)
    results = list(program.call(arrays)) if native else interpret(graph, arrays, dims)
    results += [parameter.value for parameter, _ in graph.updates]
    names = [name for name, _ in graph.outputs] + [f"update of {parameter.label}" for parameter, _ in graph.updates]
    tolerance = 1e-9 if g.dtype == "float64" else 2e-3
    for name, root, result, wanted in zip(names, graph.roots, results, expected, strict=True):
        assert (result.dtype, result.shape) == (root.dtype.numpy, wanted.shape), name
        if any(root is node for node in g.wild):
            continue
        if result.dtype.kind != "f":
            np.testing.assert_array_equal(result, wanted, err_msg=name)
            continue
        largest = float(np.max(np.abs(wanted), initial=1.0, where=np.isfinite(wanted)))
        np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance * largest, err_msg=name)


@pytest.mark.parametrize("seed", range(100))
def test_lowered_graphs_compute_what_numpy_does_node_by_node(seed: int) -> None:
    with np.errstate(all="ignore"):
        compare(random_graph(seed), native=False)


@pytest.mark.parametrize("seed", range(12))
def test_native_programs_compute_what_numpy_does_node_by_node(seed: int) -> None:
    compare(random_graph(seed), native=True)


@pytest.mark.parametrize("seed", range(100, 160))
def test_an_index_outside_its_axis_is_found_alike_and_nothing_changes(seed: int) -> None:
    g = random_graph(seed)
    g.spoil()
    graph = make_graph(g.outputs, list(g.arrays), g.updates)
    arrays, dims = list(g.arrays.values()), {name: g.dims[name] for name in graph.dims}
    if refused(graph, dims):
        return
    before = [parameter.value.tobytes() for parameter in graph.parameters]
    message = refusal(gx.compile(g.outputs, inputs=list(g.arrays), updates=g.updates, backend="reference"), arrays)
    plan = make_plan(simplify_graph(prepare(graph))[0], find_backend("numba"))
    if message is None or not plan.checks:  # nobody needs the value that was looked up
        return
    with pytest.raises(CheckFailed) as caught:
        run_plan(plan, arrays, dims)
    assert f"index {caught.value.failure.detail} is outside" in message
    assert [parameter.value.tobytes() for parameter in graph.parameters] == before


def refusal(program: gx.Program, arrays: list[Any]) -> str | None:
    """What a run is refused with, or None."""
    try:
        program.call(arrays)
    except gx.IndexRangeError as error:
        return str(error)
    return None


# what random graphs once found, in small


def test_a_value_behind_a_reduction_is_not_picked_from_within_its_own_kernel() -> None:
    x = gx.placeholder("x", ("n", "n"), "float64")
    best = gx.argmax(x, axis=0)
    picked = gx.take(gx.one_hot(best, gx.Dim("n"), "float64"), best)
    judge_all({"picked": picked}, {x: np.array([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0], [4.0, 6.0, -1.0]])})


def test_parameters_with_one_new_value_each_get_it() -> None:
    p, q = gx.parameter("p", np.float32([1, 2])), gx.parameter("q", np.float32([5, 6]))
    new = gx.tanh(p) + q
    judge_all({}, {}, {p: new, q: new})


def test_an_update_in_place_reads_no_element_that_is_written_already() -> None:
    p = gx.parameter("p", np.float32([-2, 4, 6]))
    size, less = gx.abs(p), p - 1.0
    first = gx.equal(size, less)[0]
    other = size / (gx.abs(less) + 0.5) + less
    judge_all({"y": gx.where(first, gx.reshape(size, (1, 3)), other)}, {}, {p: gx.where(first, other, size)})


def test_single_numbers_that_need_each_other_are_separate_kernels() -> None:
    p, q = gx.parameter("p", np.float32([1, 2, 3])), gx.parameter("q", np.float32([0.5, 1, -1]))
    h = q * 2.0
    product = gx.relu(gx.reshape(h, (1, 3)) @ gx.reshape(h, (3, 1)))
    judge_all({"product": gx.reshape(product, ())}, {}, {q: gx.sin(h) * (gx.sum(p) * 1.5)})


@pytest.mark.parametrize(("rows", "chosen"), [(0, 0), (2, 0), (3, 2)])
def test_nothing_is_read_from_an_axis_without_elements(rows: int, chosen: int) -> None:
    x, i = gx.placeholder("x", ("n", 3)), gx.placeholder("i", ("m",), "int64")
    taken = gx.take(x, i)
    (gradient,) = gx.grad(gx.sum(gx.tanh(taken)), [x])
    padded = gx.exp(gx.pad(x, (1, 0), (0, 2), value=1))
    arrays = {x: np.ones((rows, 3), np.float32), i: np.zeros(chosen, np.int64)}
    judge_all({"taken": taken, "gradient": gradient, "padded": padded}, arrays)


def test_a_flat_array_is_read_from_its_end() -> None:
    x = gx.placeholder("x", ("n", 5, "n"))
    outputs = {"y": gx.flip(gx.reshape(x, (-1,))) + 1.0, "z": gx.reshape(gx.flip(gx.reshape(x, (-1,))), ("n", "n", 5))}
    judge_all(outputs, {x: np.arange(45, dtype=np.float32).reshape(3, 5, 3)})


def test_elements_that_do_not_exist_are_moved_about() -> None:
    x = gx.placeholder("x", (5, 2, 4))
    nothing = gx.reshape(gx.reshape(x[4:, 1:1], (0, 4)), (2, 0, 4))
    flipped = gx.reshape(gx.flip(gx.reshape(gx.flip(x[:1, 0:0, 0:0], 2), (0, 0)), 1), (0,))
    outputs = {"y": nothing @ gx.zeros((4, 3)), "z": gx.exp(nothing), "flipped": flipped}
    judge_all(outputs, {x: np.ones((5, 2, 4), np.float32)})


def test_nothing_is_left_of_a_single_element() -> None:
    x = gx.placeholder("x", (4, 1))
    nothing = (x + 1.0)[:, 0:0]
    judge_all({"y": gx.flip(nothing, 1), "z": gx.logical_not(x < 1.0)[:, 1:]}, {x: np.ones((4, 1), np.float32)})


@pytest.mark.parametrize("backend", ["numba", "reference"])
@pytest.mark.parametrize(
    ("build", "rows"),
    [
        (lambda x: x[3], 3),
        (lambda x: x[-3], 2),
        (lambda x: x[1:] * 2.0, 0),
        (lambda x: gx.pad(x, (0, 0), (0, 0), (1, 0)), 0),
        (lambda x: gx.grad(gx.sum(x[3] ** 2), [x])[0], 3),
    ],
)
def test_sizes_that_break_a_promise_of_the_graph_are_refused(build: Any, rows: int, backend: str) -> None:
    x = gx.placeholder("x", ("n", 2))
    program = gx.compile({"y": build(x)}, inputs=[x], backend=backend)
    with pytest.raises(gx.ShapeError, match=rf"n = {rows}") as caught:
        program(x=np.ones((rows, 2), np.float32))
    assert "test_fuzz.py:" in str(caught.value)
    program(x=np.ones((5, 2), np.float32))


def judge_all(outputs: Any, inputs: Any, updates: Any = None) -> None:
    """On the interpreter, and natively, both from the same parameters."""
    graph, arrays = make_graph(outputs, list(inputs), updates), list(inputs.values())
    rows = [pair for node, array in inputs.items() for pair in zip(node.shape, array.shape, strict=True)]
    dims = {str(size): value for size, value in rows if not isinstance(size, int)}
    expected = evaluate_graph(graph, arrays, dims)
    program = gx.compile(outputs, inputs=list(inputs), updates=updates, backend="numba")
    before = [parameter.value for parameter in graph.parameters]
    for run in (lambda: interpret(graph, arrays, dims), lambda: program.call(arrays)):
        for parameter, value in zip(graph.parameters, before, strict=True):
            parameter.value = value
        results = [*run(), *(parameter.value for parameter, _ in graph.updates)]
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, wanted, rtol=1e-5)


if __name__ == "__main__":
    first, end = int(sys.argv[1]), int(sys.argv[2])
    for seed in range(first, end):
        try:
            with np.errstate(all="ignore"):
                compare(random_graph(seed), native=len(sys.argv) > 3)
        except Exception as error:  # whatever it is, it is reported with its seed
            print(seed, type(error).__name__, " ".join(str(error).split())[:150])
