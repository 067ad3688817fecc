"""What differentiation promises beside right numbers: shared nodes, known results, errors that teach, deep graphs."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import graphc as gx
from graphc.ir.graph import make_graph
from graphc.ir.node import Node, topological
from graphc.passes import prepare
from tests.counting import calls_of
from tests.rewrite.numeric import values_of


def f64(name: str, *shape: int) -> Node:
    return gx.placeholder(name, shape, "float64")


def test_each_shared_intermediate_gradient_is_one_node() -> None:
    """h1 -> {h2, h3} -> out: the gradient by h1 is made once, and both paths add to it."""
    x = f64("x", 2, 3)
    w1, w2, w3 = (gx.parameter(f"w{i}", np.ones((3, 3))) for i in (1, 2, 3))
    h1 = gx.tanh(x @ w1)
    h2, h3 = gx.tanh(h1 @ w2), gx.tanh(h1 @ w3)
    loss = gx.sum(h2 * h3)
    dh1, dw1, dw2, dw3, dx = gx.grad(loss, [h1, w1, w2, w3, x])
    nodes = topological((dw1, dw2, dw3, dx))

    def count(op: str) -> int:
        return sum(node.op.name == op for node in nodes)

    # Three tanh forward. Products: three forward; backward one by each of w1, w2, w3, x, and two by h1.
    assert count("tanh") == 3
    assert count("matmul") == 3 + 4 + 2
    # The two contributions to h1 are added once, however many gradients rest on them.
    assert count("add") == 1
    (total,) = (node for node in nodes if node.op.name == "add")
    assert dh1 is total
    users = [node for node in topological((dw1, dx)) if any(arg is total for arg in node.args)]
    assert len(users) == 1


def test_gradients_taken_one_by_one_are_the_same_nodes() -> None:
    x, w = f64("x", 3), gx.parameter("w", np.ones((3, 3)))
    loss = gx.sum(gx.tanh(x @ w) ** 2)
    assert all(a is b for a, b in zip(gx.grad(loss, [x, w]), gx.grad(loss, [x]) + gx.grad(loss, [w]), strict=True))


def test_second_derivative_of_a_cube() -> None:
    x = f64("x")
    (g,) = gx.grad(x**3, [x])
    (h,) = gx.grad(g, [x])
    (third,) = gx.grad(h, [x])
    assert [float(v) for v in values_of([g, h, third], {x: 2.0})] == pytest.approx([12, 12, 6])


@pytest.mark.parametrize(("p", "expected"), [(0.9, 0.105), (0.1, 2.303)])
def test_known_binary_cross_entropy(p: float, expected: float) -> None:
    x = f64("p")
    (loss,) = values_of([gx.binary_cross_entropy(1.0, x)], {x: p})
    assert float(loss) == pytest.approx(expected, abs=5e-4)


def test_softmax_cross_entropy_by_hand_is_the_composite() -> None:
    z, t, labels = f64("z", 4, 5), f64("t", 4, 5), gx.placeholder("labels", (4,), "int64")
    p = gx.softmax(z)
    e = gx.exp(z - gx.max(z, axis=1, keepdims=True))
    by_hand = e / gx.sum(e, axis=1, keepdims=True)
    dense = [gx.softmax_cross_entropy(t, z), gx.categorical_cross_entropy(t, p)]
    dense += [-gx.sum(t * gx.log(q), axis=-1) for q in (p, by_hand)]
    dense.append(-gx.sum(t * (z - gx.logsumexp(z, axis=1, keepdims=True)), axis=1))
    first, *others = (gx.value_and_grad(gx.mean(loss), [z]) for loss in dense)
    for other in others:
        assert gx.simplify(other[0]) is gx.simplify(first[0])
        assert gx.simplify(other[1][0]) is gx.simplify(first[1][0])
    chosen = gx.take_along(gx.log_softmax(z), gx.expand_dims(labels, 1), axis=1)
    sparse = [gx.mean(gx.sparse_softmax_cross_entropy(labels, z)), -gx.mean(chosen)]
    assert len({gx.simplify(gx.grad(loss, [z])[0]) for loss in sparse}) == 1


def test_large_logits_give_finite_gradients_by_hand() -> None:
    z, y = f64("z", 3), f64("y", 3)
    p = gx.sigmoid(z)
    loss = gx.sum(-(y * gx.log(p) + (1 - y) * gx.log(1 - p)))
    value, (dz,) = gx.value_and_grad(loss, [z])
    found = values_of([value, dz], {z: np.array([800.0, -800.0, 0.0]), y: np.array([0.0, 1.0, 1.0])})
    assert float(found[0]) == pytest.approx(1600 + np.log(2))
    np.testing.assert_allclose(found[1], [1.0, -1.0, -0.5])


def test_nodes_the_loss_does_not_depend_on_get_zeros() -> None:
    x, y = f64("x", 3), gx.placeholder("y", ("n", 2), "float64")
    dx, dy = gx.grad(gx.sum(x), [x, y])
    assert (dx.type, dy.type) == (x.type, y.type)
    np.testing.assert_array_equal(values_of([dy], {y: np.ones((4, 2))})[0], np.zeros((4, 2)))


def test_wrt_may_be_computed_constant_doubled_or_the_loss() -> None:
    x = f64("x", 3)
    h = gx.log(gx.softmax(x))  # a rule would rewrite it, were it not asked for
    c = gx.constant(np.float64(3.0))
    loss = gx.sum(gx.exp(h) * c)
    dh, dx, dc, again, one = gx.grad(loss, [h, x, c, h, loss])
    assert again is dh
    values = {x: np.array([0.1, -0.2, 0.7])}
    found = values_of([dh, dx, dc, one, gx.exp(h)], values)
    np.testing.assert_allclose(found[0], 3 * found[4], rtol=1e-12)
    np.testing.assert_allclose(found[1], np.zeros(3), atol=1e-12)
    assert (float(found[2]), float(found[3])) == pytest.approx((1, 1))
    assert any(node is h for node in topological([dh]))
    (ddh,) = gx.grad(gx.sum(dh), [h])
    np.testing.assert_allclose(values_of([ddh], values)[0], 3 * found[4], rtol=1e-12)


def test_gradient_by_a_probability_stays_a_gradient_by_it() -> None:
    z, y = f64("z"), f64("y")
    p = gx.sigmoid(z)
    dp, dz = gx.grad(gx.binary_cross_entropy(y, p), [p, z])
    found = values_of([dp, dz, p], {z: 0.3, y: 1.0})
    assert float(found[0]) == pytest.approx(-1 / float(found[2]))
    assert float(found[1]) == pytest.approx(float(found[2]) - 1)


def test_forward_mode_and_hessians_by_a_computed_node() -> None:
    x, v = f64("x", 3), f64("v", 3)
    h = gx.exp(gx.log(x))  # simplified away, were it not asked for
    loss = gx.sum(h**3)
    (t,) = gx.jvp([loss], [h], [v])
    (product,) = gx.hessian_vector_product(loss, [h], [v])
    values = {x: np.array([1.0, 2.0, 3.0]), v: np.array([1.0, -1.0, 2.0])}
    found = values_of([t, product], values)
    assert float(found[0]) == pytest.approx(3 - 12 + 54)
    np.testing.assert_allclose(found[1], [6, -12, 36])


def test_stop_gradient() -> None:
    x = f64("x")
    (g,) = gx.grad(x * gx.stop_gradient(x * x), [x])
    (t,) = gx.jvp([x * gx.stop_gradient(x * x)], [x], [gx.constant(np.float64(1))])
    assert [float(v) for v in values_of([g, t], {x: 3.0})] == pytest.approx([9, 9])
    (none,) = gx.grad(gx.stop_gradient(x), [x])
    assert float(values_of([none], {x: 3.0})[0]) == 0


def test_custom_vjp() -> None:
    x = f64("x")
    clipped = gx.custom_vjp(lambda x: x * 5.0, lambda inputs, output, g: [gx.minimum(g, 1.0) * inputs[0]])
    (g,) = gx.grad(clipped(x) * 7.0, [x])
    assert float(values_of([g], {x: 3.0})[0]) == 3
    with pytest.raises(gx.GraphError, match="forward mode"):
        gx.jvp([clipped(x)], [x], [x])


@pytest.mark.parametrize(("training", "expected"), [(True, 6.0), (False, 1.0)])
def test_the_phase_is_resolved_in_gradients(training: bool, expected: float) -> None:
    x = f64("x")
    (g,) = gx.grad(gx.when_training(x * x, x), [x])
    graph = prepare(make_graph({"g": g}, [x]), training=training)
    assert all(node.op.name != "when_training" for node in graph.nodes)
    assert float(values_of(graph.roots, {x: 3.0})[0]) == expected


def test_dropout_uses_one_mask_forward_and_backward() -> None:
    x = gx.placeholder("x", (1000,), "float32")
    y = gx.dropout(x, 0.5, seed=1)
    (g,) = gx.grad(gx.sum(y), [x])
    forward, backward = values_of([y, g], {x: np.ones(1000, np.float32)})
    np.testing.assert_array_equal(forward, backward)
    assert 0 < np.count_nonzero(forward) < 1000


def test_integers_get_no_cotangent_on_the_way() -> None:
    x, i = f64("x", 4), gx.placeholder("i", (2,), "int64")
    (g,) = gx.grad(gx.sum(gx.take(x, i + 1) ** 2), [x])
    found = values_of([g], {x: np.arange(4.0), i: np.array([0, 0])})[0]
    np.testing.assert_array_equal(found, [0, 4, 0, 0])


def test_gradient_nodes_carry_the_line_of_what_they_derive_from() -> None:
    x = f64("x", 3)
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    h = gx.tanh(x)
    loss = gx.sum(h * h)
    (g,) = gx.grad(loss, [x])
    slopes = [node for node in topological([g]) if node.op.name == "subtract"]
    assert slopes
    assert all(node.loc is not None and node.loc.line == line for node in slopes)
    computed = [node for node in topological([g]) if node.args and any(leaf is x for leaf in topological([node]))]
    assert {node.loc.line for node in computed if node.loc is not None} == {line, line + 1}


def test_vjp_is_linear_in_its_cotangents() -> None:
    x, u = f64("x", 3), f64("u", 2)
    y = gx.stack([gx.sum(x), gx.prod(x)])
    (g,) = gx.vjp([y, y], [x], [u, u])
    found = values_of([g], {x: np.array([1.0, 2.0, 3.0]), u: np.array([1.0, 10.0])})[0]
    np.testing.assert_allclose(found, 2 * (1 + 10 * np.array([6.0, 3.0, 2.0])))


def errors() -> list[tuple[str, type[Exception], list[str]]]:
    return [
        ("gx.grad(x, [x])", gx.ShapeError, ["not a scalar", "gx.mean(loss)"]),
        ("gx.grad(gx.sum(k), [x])", gx.DTypeError, ["int64", "no derivative", "gx.cast"]),
        ("gx.grad(gx.sum(x), [k])", gx.DTypeError, ["int64", "wrt", "gx.cast"]),
        ("gx.grad(gx.sum(x), x)", gx.GraphError, ["[w]"]),
        ("gx.grad(3.0, [x])", gx.GraphError, ["3.0"]),
        ("gx.grad(gx.sum(x), ['x'])", gx.GraphError, ["'x'"]),
        ("gx.vjp([x], [x], [gx.sum(x)])", gx.ShapeError, ["f64[]", "f64[3]"]),
        ("gx.vjp([x], [x], [gx.cast(x, 'float32')])", gx.DTypeError, ["f32[3]", "f64[3]"]),
        ("gx.vjp([x], [x], [])", gx.GraphError, ["1 outputs but 0 cotangents"]),
        ("gx.jvp([x], [x], [1.0])", gx.GraphError, ["gx.constant"]),
        ("gx.jvp([k], [x], [x])", gx.DTypeError, ["int64"]),
    ]


@pytest.mark.parametrize(
    ("call", "error", "words"), errors(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_errors_name_the_line_and_the_remedy(call: str, error: type[Exception], words: list[str]) -> None:
    x, k = f64("x", 3), gx.placeholder("k", (3,), "int64")
    with pytest.raises(error) as caught:
        eval(call, {"gx": gx, "x": x, "k": k})
    text = str(caught.value)
    assert "to do: " in text
    assert "at <string>:1" in text
    assert all(word in text for word in words), text


def test_deep_and_large_graphs_do_not_recurse() -> None:
    def deep(layers: int) -> tuple[gx.Node, gx.Node]:
        x, w = f64("x", 2, 2), gx.parameter("w", np.eye(2))
        h = x
        for _ in range(layers):
            h = gx.tanh(h @ w)
        return x, gx.simplify(*gx.grad(gx.mean(h), [w]))

    work = [calls_of(lambda layers=layers: deep(layers)) for layers in (100, 200)]
    assert work[1] < 2.5 * work[0], "quadratic work would be four times as much"
    x, simplified = deep(1500)
    assert len(topological([simplified])) > 3000
    assert np.isfinite(values_of([simplified], {x: np.ones((2, 2))})[0]).all()
