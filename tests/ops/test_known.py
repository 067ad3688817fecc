"""Known results: derivatives at zeros, ties and infinities, losses from the textbook, values in the far tails."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as gx
from graphc.errors import GraphError, ShapeError
from graphc.ir.node import apply, topological
from graphc.ops.arithmetic import Power
from graphc.ops.control import CustomVjp, Recompute
from graphc.ops.exponential import Log
from tests.ops.table import evaluate

INF, NAN = np.inf, np.nan


def gradient(fn, *arrays):
    """The gradients of the sum of ``fn`` by all of its operands."""
    inputs = [gx.placeholder(f"x{i}", array.shape, array.dtype) for i, array in enumerate(arrays)]
    return evaluate(gx.grad(gx.sum(fn(*inputs)), inputs), dict(zip(inputs, arrays, strict=True)))


def f64(*values):
    return np.array(values, np.float64)


@pytest.mark.parametrize(
    ("exponent", "wanted"),
    [(0, [0, 0, 0]), (1, [1, 1, 1]), (2, [-4, 0, 6]), (3, [12, 0, 27]), (-1, [-0.25, -INF, -1 / 9])],
)
def test_power_of_a_whole_constant_has_the_school_derivative(exponent, wanted):
    (found,) = gradient(lambda x: x**exponent, f64(-2, 0, 3))
    np.testing.assert_allclose(found, wanted)


def test_cube_differentiates_without_a_logarithm():
    x = gx.placeholder("x", (), "float64")
    (slope,) = gx.grad(x**3, [x])
    assert not any(isinstance(node.op, Log) for node in topological([slope]))
    assert gx.formula(gx.simplify(slope)).replace(" ", "") in ("3*x**2", "3*x*x")


def test_power_by_nodes_at_zero():
    dx, dy = gradient(lambda x, y: x**y, f64(0, 0, 0, 2), f64(0, 1, 2, 3))
    np.testing.assert_allclose(dx, [0, 1, 0, 12])
    np.testing.assert_allclose(dy, [0, 0, 0, 8 * math.log(2)])


def test_integer_powers_are_products():
    x = gx.placeholder("x", (3,), "int64")
    (cube, one) = evaluate([x**3, x**0], {x: np.array([-2, 0, 5])})
    assert cube.tolist() == [-8, 0, 125]
    assert one.tolist() == [1, 1, 1]
    assert not any(isinstance(node.op, Power) for node in topological([x**7]))
    with pytest.raises(gx.DTypeError, match="power -1 is not whole"):
        x**-1


def test_kinks():
    np.testing.assert_array_equal(gradient(gx.relu, f64(-1, 0, 2))[0], [0, 0, 1])
    np.testing.assert_array_equal(gradient(gx.abs, f64(-1, 0, 2))[0], [-1, 0, 1])
    assert gradient(gx.sqrt, f64(0, 4))[0].tolist() == [INF, 0.25]


@pytest.mark.parametrize("fn", [gx.maximum, gx.minimum])
def test_equal_operands_share_the_gradient(fn):
    dx, dy = gradient(fn, f64(1, 2, 3), f64(3, 2, 1))
    np.testing.assert_array_equal(dx + dy, 1)
    assert dx[1] == dy[1] == 0.5


@pytest.mark.parametrize("fn", [gx.max, gx.min])
def test_equal_extremes_share_the_gradient(fn):
    (found,) = gradient(lambda x: fn(x, axis=1), f64([1, 1, 1], [2, 2, 2]))
    np.testing.assert_allclose(found, 1 / 3)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_product_differentiates_through_zeros(count, zeros):
    x = np.arange(1.0, count + 1)
    x[:zeros] = 0
    (found,) = gradient(gx.prod, x)
    np.testing.assert_allclose(found, [np.prod(np.delete(x, i)) for i in range(count)])


def test_product_over_a_symbolic_axis_and_its_second_derivative_at_zeros():
    x = gx.placeholder("x", ("n",), "float64")
    (g,) = gx.grad(gx.prod(x), [x])
    (h,) = gx.grad(gx.sum(g), [x])
    found, second = evaluate([g, h], {x: f64(0, 0, 3)})
    np.testing.assert_allclose(found, [0, 0, 0])
    np.testing.assert_allclose(second, [3, 3, 0])


def test_nothing_leaks_from_the_place_not_taken():
    x = f64(-1, 0, 4)
    (found,) = gradient(lambda x: gx.where(x > 0, gx.sqrt(gx.where(x > 0, x, 1.0)), 0.0), x)
    np.testing.assert_array_equal(found, [0, 0, 0.25])
    dx, dy = gradient(lambda a, b: gx.where(gx.isfinite(a), a, b), f64(NAN, INF, 1), f64(1, 2, 3))
    np.testing.assert_array_equal(dx, [0, 0, 1])
    np.testing.assert_array_equal(dy, [1, 1, 0])


def test_logsumexp_of_nothing_likely():
    x = gx.placeholder("x", (3, 2), "float64")
    values = f64([-INF, -INF], [-INF, 2], [1000, 1000])
    y = gx.logsumexp(x, axis=1)
    (g,) = gx.grad(gx.sum(y), [x])
    found, slope = evaluate([y, g], {x: values})
    np.testing.assert_allclose(found, [-INF, 2, 1000 + math.log(2)])
    np.testing.assert_allclose(slope, [[0, 0], [0, 1], [0.5, 0.5]])


def test_tails():
    x = gx.placeholder("x", (4,))
    sigmoid, softplus, slope = evaluate(
        [gx.sigmoid(x), gx.softplus(x), gx.grad(gx.sum(gx.softplus(x)), [x])[0]], {x: np.float32([-100, -20, 20, 100])}
    )
    np.testing.assert_allclose(sigmoid, [3.783506e-44, 2.0611537e-9, 1, 1], rtol=1e-5, atol=1e-45)
    np.testing.assert_allclose(softplus, [3.783506e-44, 2.0611537e-9, 20, 100], rtol=1e-5, atol=1e-45)
    np.testing.assert_allclose(slope, sigmoid)


@pytest.mark.parametrize(("p", "label", "wanted"), [(0.9, 1, 0.105), (0.1, 1, 2.303), (0.1, 0, 0.105), (0.5, 1, 0.693)])
def test_binary_cross_entropy(p, label, wanted):
    logit = math.log(p / (1 - p))
    dense, logits = evaluate(
        [gx.binary_cross_entropy(float(label), p), gx.binary_cross_entropy_with_logits(float(label), logit)], {}
    )
    assert round(float(dense), 3) == round(float(logits), 3) == wanted


def test_cross_entropies_agree():
    """Four forms of one loss, and what they are made of."""
    rng = np.random.default_rng(5)
    z, labels = gx.placeholder("z", (6, 4), "float64"), gx.placeholder("labels", (6,), "int64")
    p, one_hot = gx.softmax(z), gx.one_hot(labels, 4, "float64")
    losses = [
        gx.softmax_cross_entropy(one_hot, z),
        gx.sparse_softmax_cross_entropy(labels, z),
        gx.categorical_cross_entropy(one_hot, p),
        gx.sparse_categorical_cross_entropy(labels, p),
        -gx.take_along(gx.log(p), gx.expand_dims(labels, -1))[:, 0],
    ]
    slopes = [gx.grad(gx.sum(loss), [z])[0] for loss in losses]
    feeds = {z: rng.standard_normal((6, 4)), labels: rng.integers(0, 4, 6)}
    results = evaluate([*losses, *slopes], feeds)
    for value, slope in zip(results[:5], results[5:], strict=True):
        np.testing.assert_allclose(value, results[0], rtol=1e-12)
        np.testing.assert_allclose(slope, results[5], rtol=1e-9, atol=1e-12)


def test_labels_of_integers_and_scalars_are_taken():
    z, y = gx.placeholder("z", (3,)), gx.placeholder("y", (3,), "int64")
    a, b, c = evaluate(
        [
            gx.binary_cross_entropy_with_logits(y, z),
            gx.binary_cross_entropy_with_logits(1, z),
            gx.squared_error(0.0, z),
        ],
        {z: np.float32([0, 1, 2]), y: np.array([1, 1, 1])},
    )
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(c, [0, 1, 4])


def test_certain_and_wrong_is_a_finite_loss():
    p, y = gx.placeholder("p", (2,)), gx.placeholder("y", (2,))
    loss = gx.binary_cross_entropy(y, p)
    value, slope = evaluate([loss, gx.grad(gx.sum(loss), [p])[0]], {p: np.float32([0, 1]), y: np.float32([1, 0])})
    np.testing.assert_array_equal(value, [100, 100])
    assert np.isfinite(slope).all()
    assert slope[0] < 0 < slope[1]


def test_custom_vjp_gives_the_users_gradient():
    calls = []

    def rule(inputs, output, cotangent):
        calls.append((inputs, output))
        return [gx.minimum(cotangent, 1.0), None]

    f = gx.custom_vjp(lambda x, y: x * y, rule)
    x, y = gx.placeholder("x", (2,)), gx.placeholder("y", (2,))
    result = f(x, y)
    assert result is f(x, y)
    assert isinstance(result.op, CustomVjp)
    dx, dy = gx.grad(gx.sum(result * 5.0), [x, y])
    (inputs, output), *_ = calls
    assert inputs == (x, y)
    assert output is result
    found = evaluate([result, dx, dy], {x: np.float32([2, 3]), y: np.float32([4, 5])})
    np.testing.assert_array_equal(found, [[8, 15], [1, 1], [0, 0]])


def test_custom_vjp_with_another_rule_is_another_node():
    x = gx.placeholder("x", (2,))
    rules = [lambda inputs, output, g: [g], lambda inputs, output, g: [g]]
    first, second = (gx.custom_vjp(gx.tanh, rule)(x) for rule in rules)
    assert first is not second


def test_custom_vjp_refuses_wrong_rules_and_forward_mode():
    x = gx.placeholder("x", (2,))
    with pytest.raises(GraphError, match="2 cotangents for 1 inputs"):
        gx.grad(gx.sum(gx.custom_vjp(gx.tanh, lambda inputs, output, g: [g, g])(x)), [x])
    with pytest.raises(ShapeError, match=r"f32\[\] for input 0"):
        gx.grad(gx.sum(gx.custom_vjp(gx.tanh, lambda inputs, output, g: [gx.sum(g)])(x)), [x])
    with pytest.raises(GraphError, match="forward mode"):
        gx.jvp([gx.custom_vjp(gx.tanh, lambda inputs, output, g: [g])(x)], [x], [x])


def test_gradients_stop():
    x = gx.placeholder("x", (3,), "float64")
    (found,) = evaluate(gx.grad(gx.sum(x * gx.stop_gradient(x)), [x]), {x: f64(1, 2, 3)})
    np.testing.assert_array_equal(found, [1, 2, 3])


def test_recompute_keeps_equal_values_apart():
    x = gx.placeholder("x", (3,))
    first, second = (apply(Recompute(k), gx.tanh(x)) for k in (1, 2))
    assert first is not second


def test_when_training_differentiates_in_each_branch():
    x = gx.placeholder("x", (3,))
    y = gx.when_training(gx.sum(x * 2.0), gx.sum(x * 3.0))
    (g,) = gx.grad(y, [x])
    for training, factor in ((True, 2), (False, 3)):
        step = gx.compile({"g": g}, inputs=[x], backend="reference", training=training)
        np.testing.assert_array_equal(step(x=np.ones(3, np.float32))["g"], factor)
