"""Passes and their pipeline: each does its one thing, verified, recorded, and readable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import graphc as gx
from graphc.ir.graph import Graph, make_graph
from graphc.ir.node import Constant, Node, intern
from graphc.ir.text import print_graph
from graphc.ir.types import DType, TensorType
from graphc.ops.control import CustomVjp, StopGradient, WhenTraining
from graphc.passes import (
    CANONICALIZE,
    SIMPLIFY_PASSES,
    CheckRoots,
    Decompose,
    DropMarkers,
    ResolvePhase,
    decompose_for,
    decompose_passes,
    prepare,
    prepare_passes,
    run_passes,
    simplify,
    simplify_graph,
)
from graphc.rewrite import RewriteLog
from tests.rewrite.numeric import Leaves, assert_close, values_of


def graph_of(node: Node, *inputs: Node) -> Graph:
    return make_graph({"y": node}, inputs)


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes if node.args]


def test_resolve_phase_in_both_phases_and_nested() -> None:
    x = gx.placeholder("x", (3,))
    y = gx.when_training(gx.exp(gx.when_training(x, x + 1)), gx.sin(gx.when_training(x * 2, x)))
    assert ops(ResolvePhase(True).run(graph_of(y, x))) == ["exp"]
    assert ops(ResolvePhase(False).run(graph_of(y, x))) == ["sin"]


def test_drop_markers() -> None:
    x = gx.placeholder("x", (3,))
    f = gx.custom_vjp(lambda x: x * 2.0, lambda inputs, output, g: [g])
    graph = DropMarkers().run(graph_of(gx.stop_gradient(f(gx.stop_gradient(x))), x))
    assert not [node for node in graph.nodes if isinstance(node.op, WhenTraining | StopGradient | CustomVjp)]
    assert ops(graph) == ["multiply"]


def test_check_roots_names_outputs_and_updates() -> None:
    x, w = gx.placeholder("x", (3,)), gx.parameter("dense/w", np.ones(3, np.float32))
    graph = make_graph({"y": x * w, "n": gx.cast(x, "int32")}, [x], {w: w + x})
    checked = CheckRoots().run(graph)
    labels = [node.op.label for node in checked.nodes if node.op.name == "check_finite"]  # type: ignore[attr-defined]
    assert labels == ["output 'y'", "the update of 'dense/w'"]
    with pytest.raises(gx.NonFiniteError, match="output 'y'"):
        values_of(checked.roots, {x: np.array([1, np.nan, 0], np.float32)})
    assert "check_finite" in ops(simplify_graph(checked)[0])
    assert prepare(graph, check_finite=True).roots[0] is checked.roots[0]


def test_decompose_keeps_what_is_taken_and_goes_down_to_primitives() -> None:
    z, t = gx.placeholder("z", ("n", 5)), gx.placeholder("t", ("n", 5))
    graph = graph_of(gx.mean(gx.softmax_cross_entropy(t, z)), z, t)
    primitive = Decompose(lambda op: False).run(graph)
    assert not any(node.op.composite for node in primitive.nodes)
    assert "exp" in ops(primitive)
    kept = Decompose(lambda op: op.name == "log_softmax").run(graph)
    assert {node.op.name for node in kept.nodes if node.op.composite} == {"log_softmax"}
    whole = Decompose(lambda op: True).run(graph)
    assert whole.roots[0] is graph.roots[0]
    line = graph.roots[0].loc
    assert all(node.loc is not None and node.loc.line == line.line for node in primitive.nodes if node.args)  # type: ignore[union-attr]


def test_decomposed_is_not_recognized_again() -> None:
    z = gx.placeholder("z", ("n", 5))
    graph, _ = simplify_graph(graph_of(gx.log(gx.softmax(z)), z))
    assert ops(graph) == ["log_softmax"]
    assert "log_softmax" not in ops(decompose_for(graph, lambda op: False))


def test_commuted_operands_are_merged() -> None:
    x, y = gx.placeholder("x", (3,)), gx.placeholder("y", (3,))
    graph = graph_of((x * y) - (y * x) + gx.maximum(x + y, y + x), x, y)
    assert len(graph.nodes) == 9
    log = RewriteLog()
    shared = CANONICALIZE.run(graph, log)
    assert len(shared.nodes) == 6
    assert log.counts == {"share_commuted": 2, "maximum_of_itself": 1}
    assert "%1, %0" not in print_graph(shared)
    assert CANONICALIZE.run(shared).roots[0] is shared.roots[0]


def test_a_pass_that_breaks_a_graph_is_named() -> None:
    x = gx.placeholder("x", (3,))

    @dataclass(frozen=True)
    class Breaker:
        name: str = "breaker"

        def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
            node = graph.roots[0]
            wrong = intern(node.op, node.args, TensorType(DType.float64, (3,)))
            return graph.with_roots([wrong])

    with pytest.raises(gx.VerifyError, match="after breaker"):
        run_passes(graph_of(gx.exp(x), x), [CANONICALIZE, Breaker()])


def test_the_order_of_passes_is_data() -> None:
    names = [step.name for step in (*prepare_passes(True, True), *SIMPLIFY_PASSES, *decompose_passes(lambda op: False))]
    assert names == [
        "resolve_phase",
        "drop_markers",
        "check_roots",
        "simplify",
        "improve_branches",
        "improve_scans",
        "select_branches",
        "update_touched_rows",
        "widen_halves",
        "decompose",
        "specialize",
        "select_early",
        "pack_weights",
    ]


def test_folding_is_small_exact_and_leaves_failing_checks() -> None:
    a = gx.constant(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert simplify(gx.sum(a * 2 + 1, axis=1)) is gx.constant(np.array([9, 27], np.float32))
    large = gx.constant(np.zeros((200, 200), np.float32)) + gx.constant(np.arange(200, dtype=np.float32))
    assert not isinstance(simplify(large).op, Constant)
    indices = gx.constant(np.array([0, 2]))
    assert isinstance(simplify(gx.in_range(indices, 3)).op, Constant)
    assert simplify(gx.in_range(indices, 2)).op.name == "in_range"
    assert simplify(gx.in_range(indices, "n")).op.name == "in_range"
    assert simplify(gx.take(a, np.array([5]), axis=1)).op.name == "take"
    bits = gx.random.bits((3,), gx.constant(np.uint32(1)), gx.constant(np.uint32(2)), 0)
    assert simplify(bits) is bits
    assert simplify(gx.stop_gradient(gx.constant(1.0))).op.name == "stop_gradient"
    assert simplify(gx.constant(1.0) / 0.0) is gx.constant(np.float32(np.inf))
    assert simplify(gx.size_of(3, "float32") * 2.0) is gx.constant(6.0)


def test_what_is_refused_stays() -> None:
    x, y = gx.placeholder("x", (3,)), gx.placeholder("y", (3,))
    for node in (x * 0, x - x, x / x, (x * y) / y, x * y + x * gx.exp(y), (x + 1.5) + 2.5, x * 2 - x * 2):
        values = {x: np.array([np.nan, np.inf, 0], np.float32), y: np.array([np.inf, 0, 1], np.float32)}
        before, after = values_of([node, simplify(node)], values)
        np.testing.assert_array_equal(before, after)


def test_extreme_constants_are_not_combined() -> None:
    x = gx.placeholder("x", (2,))
    node = (x * 1e-30) * 1e-30
    before, after = values_of([node, simplify(node)], {x: np.array([1e30, 1e35], np.float32)})
    np.testing.assert_array_equal(before, after)
    node = (x * 1e30) * 1e30
    assert values_of([simplify(node)], {x: np.array([1e-30, 1e-35], np.float32)})[0][0] > 1e29


def test_small_powers_are_products_at_last() -> None:
    x = gx.placeholder("x", (3,))
    graph, _ = simplify_graph(graph_of(x**3 + x**-2 + x**0.3, x))
    assert ops(graph).count("pow") == 3
    assert ops(decompose_for(graph, lambda op: False)).count("pow") == 1


def test_movement_is_gathered() -> None:
    x = gx.placeholder("x", ("n", 4))
    moved = gx.transpose(gx.transpose(gx.reshape(gx.reshape(x, (-1,)), ("n", 2, 2)), (2, 0, 1)), (1, 2, 0))
    assert simplify(moved) is gx.reshape(x, ("n", 2, 2))
    assert simplify(gx.sum(gx.sum(x, axis=1))) is gx.sum(x)
    assert simplify(gx.sum(gx.broadcast_to(x, (5, "n", 4)), axis=0)) is x * 5
    bias = gx.parameter("b", np.ones(4, np.float32))
    assert simplify(x + gx.broadcast_to(gx.reshape(bias, (1, 4)), ("n", 4))) is x + bias
    stack = gx.placeholder("s", ("n", 7, 4))
    w = gx.parameter("w", np.ones((4, 3), np.float32))
    product = simplify(stack @ w)
    assert [node.op.name for node in (product, product.args[0])] == ["reshape", "matmul"]
    assert product.args[0].shape[1] == 3


def small_mlp() -> Graph:
    x, labels = gx.placeholder("x", ("batch", 4)), gx.placeholder("labels", ("batch",), "int64")
    w1, b1 = gx.parameter("w1", np.ones((4, 8), np.float32)), gx.parameter("b1", np.zeros(8, np.float32))
    w2 = gx.parameter("w2", np.ones((8, 3), np.float32))
    h = gx.relu(x @ w1 + b1)
    p = gx.softmax(h @ w2)
    chosen = gx.take_along(p, gx.expand_dims(labels, 1))
    loss, grads = gx.value_and_grad(-gx.mean(gx.log(chosen)), [w1, b1, w2])
    return make_graph({"loss": loss}, [x, labels], {w: w - 0.1 * g for w, g in zip([w1, b1, w2], grads, strict=True)})


def test_every_stage_of_a_small_network(golden: Callable[[str, str], None]) -> None:
    texts: list[str] = []

    def record(name: str, graph: Graph) -> None:
        texts.append(f"after {name}\n{print_graph(graph, lines=False)}")

    graph = small_mlp()
    texts.append(f"built\n{print_graph(graph, lines=False)}")
    passes = (*prepare_passes(training=True), *SIMPLIFY_PASSES, *decompose_passes(lambda op: False))
    log = RewriteLog()
    final = run_passes(graph, passes, log, record)
    fired = "".join(f"  {name}: {count}\n" for name, count in sorted(log.counts.items()))
    golden("passes_small_mlp", "\n".join([*texts, f"fired\n{fired}"]))
    rng = np.random.default_rng(0)
    x, labels = graph.inputs
    values = {x: rng.standard_normal((5, 4)).astype(np.float32), labels: np.array([0, 2, 1, 1, 0])}
    for before, after in zip(values_of(graph.roots, values), values_of(final.roots, values), strict=True):
        assert_close(after, before, scale=4)


@pytest.mark.parametrize("seed", range(3))
def test_every_composite_decomposes_to_the_same_value(seed: int) -> None:
    leaf = Leaves(seed)
    x, y = leaf("n", 6), leaf("n", 6, low=0.05, high=0.95)
    labels = gx.placeholder("labels", ("n",), "int64")
    leaf.values[labels] = np.array([0, 5, 2, 2])
    nodes = [
        gx.softmax(x), gx.log_softmax(x, 0), gx.logsumexp(x, 1), gx.gelu(x), gx.mean(x, 0), gx.var(x, 1, keepdims=True),
        gx.binary_cross_entropy(y, gx.sigmoid(x)), gx.binary_cross_entropy(y, y), gx.squared_error(x, y),
        gx.softmax_cross_entropy(y, x), gx.sparse_softmax_cross_entropy(labels, x), gx.one_hot(labels, 6),
        gx.categorical_cross_entropy(y, gx.softmax(x)), gx.sparse_categorical_cross_entropy(labels, y),
        gx.dropout(x, 0.3, seed=3), gx.random.uniform((5,), 1, 2),
    ]  # fmt: skip
    graph = make_graph({f"y{i}": node for i, node in enumerate(nodes)}, leaf.values)
    primitive = decompose_for(simplify_graph(graph)[0], lambda op: False)
    assert not any(node.op.composite for node in primitive.nodes)
    for before, after in zip(values_of(graph.roots, leaf.values), values_of(primitive.roots, leaf.values), strict=True):
        assert_close(after, before, scale=4)
