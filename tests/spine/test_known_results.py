"""Results that are known beforehand: a gradient as a person writes it, curvature, XOR, a loss that goes on learning."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import graphc as gx
from tests.spine.models import dense_parameters

Loss = Callable[[gx.Node, gx.Node], gx.Node]

LOSSES: dict[str, Loss] = {
    "composites": lambda y, z: gx.binary_cross_entropy(y, gx.sigmoid(z)),
    "logits": gx.binary_cross_entropy_with_logits,
    "logarithms": lambda y, z: -(y * gx.log(gx.sigmoid(z)) + (1 - y) * gx.log(1 - gx.sigmoid(z))),
    "primitives": lambda y, z: -(y * gx.log(1 / (1 + gx.exp(-z))) + (1 - y) * gx.log(1 - 1 / (1 + gx.exp(-z)))),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_logistic_regression_is_what_a_person_writes(name: str) -> None:
    x, y = gx.placeholder("x", (3,)), gx.placeholder("y", ())
    w, b = gx.parameter("w", np.float32([1, -2, 3])), gx.parameter("b", 0.5)
    z = gx.sum(w * x) + b
    dw, db = gx.grad(LOSSES[name](y, z), [w, b])
    assert gx.formula(gx.simplify(dw)) == "(sigmoid(sum(w * x) + b) - y) * x"
    assert gx.formula(gx.simplify(dw), names={z: "z"}) == "(sigmoid(z) - y) * x"
    assert gx.formula(gx.simplify(db)) == "sigmoid(sum(w * x) + b) - y"


@pytest.mark.parametrize(
    "arrange",
    [
        lambda p: gx.reshape(p, (-1,)),
        lambda p: gx.squeeze(p, 1),
        lambda p: p[:, 0],
        lambda p: gx.flip(gx.transpose(p), 1)[0],
    ],
    ids=["reshape", "squeeze", "slice", "flip"],
)
def test_the_gradient_is_as_stable_where_probabilities_are_moved_before_the_loss(
    arrange: Callable[[gx.Node], gx.Node],
) -> None:
    """A certain and wrong prediction must be corrected: with probabilities cut off the gradient would be zero."""
    x, y = gx.placeholder("x", ("n", 2)), gx.placeholder("y", ("n",))
    w = gx.parameter("w", np.float32([[60], [-60]]))
    loss = gx.mean(gx.binary_cross_entropy(y, arrange(gx.sigmoid(x @ w))))
    (dw,) = gx.grad(loss, [w])
    assert "/ max" not in gx.formula(gx.simplify(dw))
    program = gx.compile({"loss": loss, "dw": dw}, inputs=[x, y], backend="numba")
    result = program(x=np.float32([[1, 0], [1, 0]]), y=np.float32([0, 0]))
    assert float(result["loss"]) == pytest.approx(60)
    np.testing.assert_allclose(result["dw"], [[1], [0]], rtol=1e-6)


def test_logistic_regression_by_a_vector_of_weights_is_as_stable() -> None:
    x, y, w = gx.placeholder("x", ("n", 2)), gx.placeholder("y", ("n",)), gx.parameter("w", np.float32([60, -60]))
    loss = gx.mean(gx.binary_cross_entropy(y, gx.sigmoid(x @ w)))
    (dw,) = gx.grad(loss, [w])
    result = gx.compile({"dw": dw}, inputs=[x, y], backend="numba")(x=np.float32([[1, 0]]), y=np.float32([0]))
    np.testing.assert_allclose(result["dw"], [1, 0], rtol=1e-6)


# second derivatives, natively


@pytest.mark.parametrize(
    ("fn", "second"),
    [
        (lambda x: x**3, lambda x: 6 * x),
        (gx.tanh, lambda x: -2 * math.tanh(x) * (1 - math.tanh(x) ** 2)),
        (gx.sigmoid, lambda x: (s := 1 / (1 + math.exp(-x))) * (1 - s) * (1 - 2 * s)),
        (gx.softplus, lambda x: (s := 1 / (1 + math.exp(-x))) * (1 - s)),
        (lambda x: gx.exp(-x * x), lambda x: (4 * x * x - 2) * math.exp(-x * x)),
        (lambda x: gx.log(x * x + 1), lambda x: (2 - 2 * x * x) / (x * x + 1) ** 2),
        (lambda x: gx.sin(x) * gx.cos(x), lambda x: -2 * math.sin(2 * x)),
        (lambda x: gx.sqrt(x * x + 1), lambda x: (x * x + 1) ** -1.5),
    ],
    ids=["cube", "tanh", "sigmoid", "softplus", "bell", "log", "sine", "root"],
)
def test_second_derivatives_are_those_of_the_book(fn: Callable[..., gx.Node], second: Callable[[float], float]) -> None:
    x = gx.placeholder("x", ("n",), "float64")
    (first,) = gx.grad(gx.sum(fn(x)), [x])
    (again,) = gx.grad(gx.sum(first), [x])
    points = np.array([-1.5, -0.3, 0.0, 0.7, 2.0])
    result = gx.compile({"y": again}, inputs=[x], backend="numba")(x=points)["y"]
    np.testing.assert_allclose(result, [second(float(point)) for point in points], rtol=1e-12, atol=1e-14)


def test_the_hessian_of_logistic_regression_is_x_x_p_one_minus_p() -> None:
    x, y = gx.placeholder("x", ("n", 3), "float64"), gx.placeholder("y", ("n",), "float64")
    w = gx.parameter("w", np.array([0.5, -1.0, 2.0]))
    loss = gx.sum(gx.binary_cross_entropy_with_logits(y, x @ w))
    (dw,) = gx.grad(loss, [w])
    rows = {f"row{i}": gx.grad(dw[i], [w])[0] for i in range(3)}
    rng = np.random.default_rng(1)
    given = {"x": rng.standard_normal((20, 3)), "y": (rng.random(20) < 0.5).astype(float)}
    result = gx.compile(rows, inputs=[x, y], backend="numba")(**given)
    p = 1 / (1 + np.exp(-given["x"] @ w.value))
    expected = (given["x"].T * (p * (1 - p))) @ given["x"]
    np.testing.assert_allclose(np.stack([result[f"row{i}"] for i in range(3)]), expected, rtol=1e-10)


def test_the_hessian_of_a_quadratic_form_is_its_matrix() -> None:
    rng = np.random.default_rng(2)
    matrix, v = rng.standard_normal((4, 4)), rng.standard_normal(4)
    x = gx.placeholder("x", (4,), "float64")
    (product,) = gx.hessian_vector_product(x @ matrix @ x / 2.0, [x], [gx.constant(v)])
    result = gx.compile({"y": product}, inputs=[x], backend="numba")(x=np.ones(4))["y"]
    np.testing.assert_allclose(result, (matrix + matrix.T) / 2 @ v, rtol=1e-12)


# learning


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_xor_is_learned_by_two_layers_of_plain_nodes(backend: str) -> None:
    x, y = gx.placeholder("x", ("n", 2)), gx.placeholder("y", ("n", 1))
    w1, b1, w2, b2 = dense_parameters([2, 8, 1], seed=3)
    p = gx.sigmoid(gx.tanh(x @ w1 + b1) @ w2 + b2)
    loss = gx.mean(gx.binary_cross_entropy(y, p))
    gradients = gx.grad(loss, [w1, b1, w2, b2])
    updates = {w: w - 2.0 * g for w, g in zip((w1, b1, w2, b2), gradients, strict=True)}
    step = gx.compile({"loss": loss, "p": p}, inputs=[x, y], updates=updates, backend=backend)
    given = {"x": np.float32([[0, 0], [0, 1], [1, 0], [1, 1]]), "y": np.float32([[0], [1], [1], [0]])}
    for _ in range(400):
        result = step(**given)
    assert float(result["loss"]) < 0.05
    np.testing.assert_array_equal(result["p"] > 0.5, given["y"] > 0.5)


def test_numbers_that_are_nearly_one_or_zero_are_not_taken_for_them() -> None:
    x = gx.placeholder("x", ("n",), "float64")
    near, tiny = 1 + 2.0**-40, 2.0**-200
    outputs = {
        "product": x * near,
        "quotient": x / near,
        "sum": (x * tiny + tiny) * 2.0**200,
        "extreme": gx.maximum(x, tiny) * 2.0**200,
        "power": x**near,
    }
    points = np.array([0.0, 1.0, 3.0])
    result = gx.compile(outputs, inputs=[x], backend="numba")(x=points)
    expected = {
        "product": points * near,
        "quotient": points / near,
        "sum": (points * tiny + tiny) * 2.0**200,
        "extreme": np.maximum(points, tiny) * 2.0**200,
        "power": points**near,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(result[name], values, rtol=4e-16, err_msg=name)
