"""Which products read their matrix in panels, and that weights may change, be tied, and lie in any way."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.ir.graph import Graph, make_graph
from graphc.ir.node import Node, Parameter
from graphc.ir.types import DType, TensorType
from graphc.lower.plan import GemmItem
from graphc.ops.panels import PackedPanels, PanelProduct
from graphc.passes import decompose_for
from graphc.passes.panels import LARGEST_BYTES, PackWeights
from graphc.program import Program

K, N = 160, 230


def drawn(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def weight(*shape: int, dtype: str = "float32", seed: int = 1) -> Parameter:
    return gx.parameter("w", drawn(*shape, dtype=dtype, seed=seed))


def packed(outputs: dict[str, Node], *inputs: Node, updates: dict[Parameter, Node] | None = None) -> Graph:
    graph = make_graph(outputs, inputs, updates)
    return PackWeights(lambda op: True).run(decompose_for(graph, lambda op: False))


def ops(graph: Graph, kind: type) -> list[Node]:
    return [node for node in graph.nodes if isinstance(node.op, kind)]


def products(program: Program) -> list[GemmItem]:
    items = [item for launch in program.plan.launches for item in launch.items]
    return [item for item in items if isinstance(item, GemmItem)]


def in_panels(program: Program) -> list[bool]:
    return [item.in_panels for item in products(program)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_of_any_size_against_double_precision(dtype):
    x, w = gx.placeholder("x", ("batch", K), dtype), weight(K, N, dtype=dtype)
    program = gx.compile({"y": x @ w}, inputs=[x], backend="numba")
    assert in_panels(program) == [True]
    for batch in (0, 1, 2, 13, 150):
        given = drawn(batch, K, dtype=dtype)
        exact = given.astype(np.float64) @ w.value.astype(np.float64)
        tolerance = 1e-4 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(program(x=given)["y"], exact, rtol=0, atol=tolerance)


def test_one_row_what_changes_and_what_is_small_are_left_to_blas():
    x, row, other = gx.placeholder("x", ("batch", K)), gx.placeholder("row", (1, K)), gx.placeholder("other", (K, N))
    w, many = weight(K, N), weight(2, K, N)
    assert ops(packed({"y": row @ w}, row), PanelProduct) == []
    assert ops(packed({"y": x @ other}, x, other), PanelProduct) == []
    assert ops(packed({"y": x @ (other * w)}, x, other), PanelProduct) == []
    assert ops(packed({"y": x @ many}, x), PanelProduct) == []
    assert ops(packed({"y": x @ weight(K, 31)}, x), PanelProduct) == []
    assert ops(packed({"y": x @ weight(K, 64)}, x), PanelProduct) == []
    assert ops(packed({"y": x @ w}, x, updates={w: w * 2}), PanelProduct) == []
    assert ops(packed({"y": gx.ones((3, K)) @ w}), PanelProduct) == []
    large = Parameter("w", lambda: drawn(1), type=TensorType(DType.float32, (K, 1 + LARGEST_BYTES // (4 * K))))
    assert ops(packed({"y": x @ large}, x), PanelProduct) == []
    assert len(ops(packed({"y": x @ w, "z": gx.tanh(x) @ w}, x), PanelProduct)) == 2


def test_other_backends_never_see_panels():
    x, w = gx.placeholder("x", ("batch", K)), weight(K, N)
    graph = decompose_for(make_graph({"y": x @ w}, [x]), lambda op: False)
    assert ops(graph, PanelProduct) == ops(graph, PackedPanels) == []


def test_rows_whose_lines_would_share_a_place_in_the_cache_lie_further_apart():
    w = weight(1024, 32)
    for shape, distance in ((("batch", 1024), 1040), (("batch", 3, 1024), 1040), ((4, 1024), 1024)):
        x = gx.placeholder("x", shape)
        program = gx.compile({"y": gx.tanh(x) @ w, "z": gx.tanh(x)}, inputs=[x], backend="numba")
        # what computes the rows writes them there
        assert [launch.label for launch in program.plan.launches] == ["tanh", "matmul"]
        (item,) = products(program)
        assert item.lda == distance
        given = drawn(*(15 if size == "batch" else size for size in shape))
        exact = np.tanh(given.astype(np.float64))
        found = program(x=given)
        np.testing.assert_allclose(found["y"], exact @ w.value.astype(np.float64), rtol=0, atol=1e-4)
        np.testing.assert_allclose(found["z"], exact, rtol=0, atol=1e-6)
    short = gx.placeholder("short", ("batch", 1000))
    program = gx.compile({"y": gx.tanh(short) @ weight(1000, 33)}, inputs=[short], backend="numba")
    assert [item.lda for item in products(program)] == [1000]


def test_rows_of_an_input_are_copied_apart_and_memory_does_not_grow_with_depth():
    x, w = gx.placeholder("x", (20, 1024)), weight(1024, 1024)
    y, bytes_of = x @ w, {}
    given, exact = drawn(20, 1024) / 64, None
    for depth in (1, 2, 3, 4):
        program = gx.compile({"y": y}, inputs=[x], backend="numba")
        bytes_of[depth] = program.memory().peak_bytes
        if exact is None:
            exact = given @ w.value.astype(np.float64)
            np.testing.assert_allclose(program(x=given)["y"], exact, rtol=0, atol=1e-4)
        y = gx.tanh(y) @ w
    assert bytes_of[1] == 4 * 20 * 1040
    assert bytes_of[2] <= bytes_of[3] == bytes_of[4]


@pytest.mark.parametrize(
    ("shape", "view"),
    [
        ((N, K), gx.transpose),
        ((K, 2 * N), lambda w: w[:, ::2]),
        ((K + 3, N + 5), lambda w: w[3:, :N]),
        ((K, 23, 10), lambda w: gx.reshape(w, (K, N))),
        ((23, K, 10), lambda w: gx.reshape(gx.transpose(w, (1, 0, 2)), (K, N))),
        ((K, N), lambda w: gx.exp(w) / gx.sum(gx.exp(w), axis=0, keepdims=True)),
    ],
)
def test_weights_lie_in_any_way_or_are_computed_from_parameters(shape, view):
    x, w = gx.placeholder("x", ("batch", 3, K)), weight(*shape)
    program = gx.compile({"y": x @ view(w)}, inputs=[x], backend="numba")
    assert in_panels(program) == [True]
    seen = gx.compile({"w": view(w)}, inputs=[], backend="reference")()["w"]
    given = drawn(5, 3, K)
    np.testing.assert_allclose(program(x=given)["y"], given.astype(np.float64) @ seen, rtol=0, atol=1e-4)


def test_halves_are_packed_as_float32():
    x, w = gx.placeholder("x", ("batch", K), "float16"), weight(K, N, dtype="float16")
    program = gx.compile({"y": x @ w}, inputs=[x], backend="numba")
    assert in_panels(program) == [True]
    given = drawn(9, K, dtype="float16")
    np.testing.assert_allclose(program(x=given)["y"], given.astype(float) @ w.value.astype(float), rtol=2e-3, atol=2e-2)


def test_a_table_is_looked_up_and_multiplied_by():
    ids, table = gx.placeholder("ids", ("n",), "int64"), weight(N, K)
    rows = gx.take(table, ids, axis=0)
    program = gx.compile({"scores": rows @ gx.transpose(table)}, inputs=[ids], backend="numba")
    given, values = np.array([3, 149, 0, 3]), table.value.astype(np.float64)
    np.testing.assert_allclose(program(ids=given)["scores"], values[given] @ values.T, rtol=0, atol=1e-4)


def test_weights_that_another_program_changes_are_packed_again():
    x, w = gx.placeholder("x", ("batch", K)), weight(K, N)
    y = x @ w
    predict = gx.compile({"y": y}, inputs=[x], backend="numba")
    train = gx.compile({"y": y}, inputs=[x], updates={w: 0.5 * w}, backend="numba")
    assert (in_panels(predict), in_panels(train)) == ([True], [False])
    given, before = drawn(7, K), w.value.astype(np.float64)
    for factor in (1.0, 0.5, 0.25):
        for _ in range(2):
            np.testing.assert_allclose(predict(x=given)["y"], given @ (factor * before), rtol=0, atol=1e-4)
        train(x=given)
    w.value = np.ones((K, N))
    exact = np.repeat(given.sum(axis=1, keepdims=True), N, axis=1)
    np.testing.assert_allclose(predict(x=given)["y"], exact, rtol=0, atol=1e-4)
    lent = w.array
    for value in (2.0, 3.0):
        lent[...] = value
        np.testing.assert_allclose(predict(x=given)["y"], value * exact, rtol=0, atol=1e-3)
