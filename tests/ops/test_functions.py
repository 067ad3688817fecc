"""The functions over the ops: numbers and arrays as operands, promotion, axes, shapes, and the errors' text."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import graphc as gx
from graphc.errors import GraphcError
from graphc.ir.types import DType
from tests.ops.table import evaluate

X = gx.placeholder("x", ("n", 3))
I32 = gx.placeholder("i", (3,), "int32")


def test_every_public_function_is_offered():
    import graphc.ops

    for name in graphc.ops.__all__:
        assert getattr(gx, name) is getattr(graphc.ops, name)


def test_every_public_function_has_an_example_and_says_what_it_takes():
    import graphc.ops

    for name in graphc.ops.__all__:
        if inspect.ismodule(getattr(graphc.ops, name)):
            continue
        text = inspect.getdoc(getattr(graphc.ops, name))
        assert ">>> " in text, name
        assert "Raises: " in text, name


@pytest.mark.parametrize(
    ("left", "right", "wanted"),
    [
        (X, 1, "float32"), (X, 1.5, "float32"), (1.5, X, "float32"), (I32, 2, "int32"), (X, np.float64(1), "float32"), (X, np.sqrt(2), "float32"),
        (I32, np.int64(1), "int64"), (I32, np.array([1, 2, 3], np.uint32), "int64"), (1, 2, "int64"), (1, 2.0, "float32"),
        (X, [1.0, 2.0, 3.0], "float32"), (X, np.ones(3), "float64"),
    ],
)  # fmt: skip
def test_promotion(left, right, wanted):
    assert gx.add(left, right).dtype is DType(wanted)


@pytest.mark.parametrize(
    ("build", "error", "says"),
    [
        (lambda: I32 + 1.5, gx.DTypeError, ("add: the number 1.5 does not mix with int32", "gx.cast", "i: i32[3]")),
        (lambda: I32 + True, gx.DTypeError, ("add: True does not mix with int32", "write 1")),
        (lambda: (X > 0) & 1, gx.DTypeError, ("and: the number 1 does not mix with bool", "True or False")),
        (lambda: I32 + 2**31, gx.DTypeError, ("add: 2147483648 does not fit in int32", "int64")),
        (lambda: I32 * X[0], gx.DTypeError, ("multiply: int32 and float32 do not mix", "gx.cast")),
        (lambda: I32 / 2, gx.DTypeError, ("divide: does not take int32", "float32")),
        (lambda: X + "1", gx.DTypeError, ("add: str is not a node",)),
        (lambda: gx.logical_and(I32, I32), gx.DTypeError, ("logical_and: takes bool, not int32", "x != 0")),
        (lambda: X + gx.placeholder("y", ("m", 3)), gx.ShapeError, ("add: shapes do not broadcast", "n and m")),
        (lambda: gx.sum(X, axis=2), gx.AxisError, ("sum: axis 2 does not exist", "from -2 to 1", "x: f32[n, 3]")),
        (lambda: gx.sum(X, axis=(0, -2)), gx.AxisError, ("sum: an axis stands twice", "once")),
        (lambda: gx.sum(X, axis=1.0), gx.AxisError, ("sum: an axis is an int, not 1.0",)),
        (lambda: gx.softmax(X[0, 0]), gx.AxisError, ("softmax: axis -1 does not exist", "scalar")),
        (lambda: gx.argmax(X, axis=5), gx.AxisError, ("argmax: axis 5",)),
        (lambda: gx.concatenate([]), gx.ShapeError, ("concatenate: there is nothing to join",)),
        (lambda: gx.stack([X, X[0]]), gx.ShapeError, ("stack: f32[n, 3] and f32[3] differ",)),
        (lambda: gx.stack([]), gx.ShapeError, ("stack: there is nothing to join",)),
        (lambda: gx.squeeze(X, 1), gx.ShapeError, ("squeeze: axis 1 has size 3",)),
        (lambda: gx.squeeze(X, 2), gx.AxisError, ("squeeze: axis 2",)),
        (lambda: gx.transpose(X, (0, 0)), gx.AxisError, ("transpose: (0, 0) is not an order",)),
        (lambda: gx.reshape(X, (-1, -1)), gx.ShapeError, ("reshape: -1 stands twice",)),
        (lambda: gx.reshape(X, (-1, 2)), gx.ShapeError, ("reshape: 3*n elements do not divide by the 2",)),
        (lambda: gx.reshape(X, (-1, 0)), gx.ShapeError, ("reshape: 3*n elements do not divide by the 0",)),
        (lambda: gx.zeros((2, -1)), gx.ShapeError, ("zeros: a size cannot be negative: -1",)),
        (lambda: gx.full((2,), 0.5, "int32"), gx.DTypeError, ("full: the number 0.5 does not mix with int32",)),
        (lambda: gx.iota((2,), axis=1), gx.AxisError, ("iota: axis 1",)),
        (lambda: gx.matmul(X, gx.placeholder("w", (4, 2))), gx.ShapeError, ("a[-1] is 3, b[-2] is 4", "w: f32[4, 2]")),
        (lambda: gx.matmul(X, gx.placeholder("v", (4,))), gx.ShapeError, ("a[-1] is 3, b[-1] is 4", "last axis of a")),
        (lambda: gx.matmul(X, 2.0), gx.ShapeError, ("matmul: b is a scalar", "with *")),
        (lambda: gx.dot(X, gx.zeros((2, 3, 4))), gx.ShapeError, ("dot: b has 3 axes", "gx.matmul")),
        (lambda: gx.take(X, X), gx.DTypeError, ("take: indices is float32",)),
        (lambda: gx.take(X, I32, axis=2), gx.AxisError, ("take: axis 2",)),
        (lambda: gx.dropout(X, 1.5, 0), gx.AxisError, ("dropout: the rate 1.5",)),
        (lambda: gx.pad(X, (0,), (0, 0)), gx.AxisError, ("pad: low has 1 counts",)),
        (lambda: gx.cast(X, "float8"), gx.DTypeError, ("no element type 'float8'", "float32")),
        (lambda: gx.sparse_softmax_cross_entropy(I32, gx.zeros((4, 2))), gx.ShapeError, ("labels have shape (3,)", "(4,)")),
        (lambda: gx.squared_error(gx.zeros((3, 1)), gx.zeros((3,))), gx.ShapeError, ("(3, 1)", "expand_dims")),
    ],
)  # fmt: skip
def test_errors_name_the_function_the_operands_the_line_and_the_remedy(build, error, says):
    with pytest.raises(error) as caught:
        build()
    text = str(caught.value)
    assert type(caught.value) is error
    assert isinstance(caught.value, GraphcError)
    for words in (*says, "to do: "):
        assert words in text, text


def test_an_error_shows_where_operands_and_call_stand():
    line = inspect.currentframe().f_lineno + 1
    a = gx.placeholder("a", ("n", 768))
    b = gx.parameter("b", np.zeros((512, 10), np.float32))
    with pytest.raises(gx.ShapeError) as caught:
        gx.matmul(a, b)
    for offset in (0, 1, 3):
        assert f"test_functions.py:{line + offset}" in str(caught.value)
    assert "inner dimensions differ: a[-1] is 768, b[-2] is 512" in str(caught.value)


VECTOR, ROW, MATRIX, BATCH = (4,), (1, 4), (3, 4), (2, 3, 4)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (VECTOR, VECTOR), (MATRIX, VECTOR), (BATCH, VECTOR), (VECTOR, (4, 5)), (VECTOR, (2, 4, 5)), (ROW, (4, 1)),
        (BATCH, (4, 5)), (MATRIX, (2, 4, 5)),
    ],
)  # fmt: skip
def test_matmul_takes_what_numpy_takes(a, b):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(a), rng.standard_normal(b)
    p, q = gx.placeholder("p", a, "float64"), gx.placeholder("q", b, "float64")
    (found,) = evaluate([p @ q], {p: x, q: y})
    np.testing.assert_allclose(found, x @ y)
    if len(a) <= 2 and len(b) <= 2:
        (found,) = evaluate([gx.dot(p, q)], {p: x, q: y})
        np.testing.assert_allclose(found, np.dot(x, y))


def test_operators_and_methods_of_nodes():
    x, i = gx.placeholder("x", (2, 3), "float64"), gx.placeholder("i", (2, 3), "int64")
    a, b = np.array([[1.5, -2, 3], [4, 5, -6]]), np.array([[1, 2, 3], [4, 5, 6]])
    pairs = [
        (x + 1, a + 1), (1 - x, 1 - a), (x * 2, a * 2), (1 / x, 1 / a), (x // 2, a // 2), (x % 2, a % 2), (2 % i, 2 % b),
        (abs(x) ** 2, a**2), (2.0**x, 2**a), (-x, -a), (+x, a), (abs(x), abs(a)), (x.T, a.T), (x @ x.T, a @ a.T),
        (i & 3, b & 3), (i | 8, b | 8), (i ^ 5, b ^ 5), (~i, ~b), (i << 2, b << 2), (i >> 1, b >> 1), (4 | i, 4 | b),
        (x == a[0], a == a[0]), (x != 3, a != 3), (x < 2, a < 2), (x <= 3, a <= 3), (x > 3, a > 3), (3 >= x, 3 >= a),
        (x.sum(0), a.sum(0)), (x.mean(axis=1), a.mean(1)), (x.max(), a.max()), (x.min(1, True), a.min(1, keepdims=True)),
        (x.reshape(3, 2), a.reshape(3, 2)), (x.reshape((-1,)), a.reshape(-1)), (x.astype("int32"), a.astype(np.int32)),
        (~(x > 0), ~(a > 0)), ((x > 0) & (x < 4), (a > 0) & (a < 4)), (gx.logical_xor(x > 0, x > 3), (a > 0) ^ (a > 3)),
        (gx.logical_or(x > 4, x < 0), (a > 4) | (a < 0)), (gx.logical_not(x > 0), ~(a > 0)), (gx.square(x), a * a),
        (gx.any(x > 4), (a > 4).any()), (gx.all(x > 4, axis=0), (a > 4).all(0)), (gx.prod(x, axis=1), a.prod(1)),
        (gx.var(x, axis=0), a.var(0)), (gx.argmin(x, axis=1), a.argmin(1)), (gx.argmax(x, axis=0), a.argmax(0)),
        (gx.stack([x, -x], axis=1), np.stack([a, -a], 1)), (gx.squeeze(x[:, :1]), a[:, 0]), (gx.flatten(x), a.ravel()),
        (gx.expand_dims(x, (0, -1)), a[None, ..., None]), (gx.flip(x), a[::-1, ::-1]), (gx.flip(x, 1), a[:, ::-1]),
        (gx.concatenate([x, x], axis=-1), np.concatenate([a, a], -1)), (gx.pad(x, (1, 0), (0, 2)), np.pad(a, ((1, 0), (0, 2)))),
        (gx.pad(x, (1, 0), (0, 2), value=7), np.pad(a, ((1, 0), (0, 2)), constant_values=7)),
        (gx.arange(4, "int32"), np.arange(4, dtype=np.int32)), (gx.ones((2,), "bool"), np.ones(2, bool)),
        (gx.full((2,), 3, "uint32"), np.full(2, 3, np.uint32)), (gx.zeros_like(x), a * 0), (gx.ones_like(i), b * 0 + 1),
        (gx.take(x, [2, 0], axis=1), a[:, [2, 0]]), (gx.size_of(5), np.array(5)), (gx.flatten(x, start=2), a[..., None]),
        (gx.transpose(x), a.T), (gx.broadcast_to(x, (2, 2, 3)), np.stack([a, a])), (gx.iota((2, 3), -1), b * 0 + np.arange(3)),
    ]  # fmt: skip
    found = evaluate([node for node, _ in pairs], {x: a, i: b})
    for result, (node, wanted) in zip(found, pairs, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-14, err_msg=repr(node))
        assert result.dtype == np.asarray(wanted).dtype, node


def test_what_changes_nothing_builds_nothing():
    for same in (
        gx.reshape(X, X.shape), gx.transpose(X, (0, 1)), gx.broadcast_to(X, X.shape), X[:], X[...], X[:, :], gx.flip(X, ()),
        gx.cast(X, "float32"), gx.squeeze(X), +X,
    ):  # fmt: skip
        assert same is X


def test_symbolic_sizes():
    n = gx.Dim("n")
    x = gx.placeholder("x", (n, 4, 3))
    assert gx.reshape(x, (-1, 6)).shape == (2 * n, 6)
    assert gx.reshape(x, (n * 2, -1)).shape == (2 * n, 6)
    assert gx.flatten(x, start=1).shape == (n, 12)
    assert gx.concatenate([x, x]).shape == (2 * n, 4, 3)
    assert gx.concatenate([x, gx.zeros((5, 4, 3))]).shape == (n + 5, 4, 3)
    assert gx.broadcast_to(x[:1], x.shape).shape == x.shape
    assert gx.pad(x, (1, 0, 0), (2, 0, 0), (1, 0, 0)).shape == (2 * n + 2, 4, 3)
    assert gx.matmul(x, gx.zeros((3, 7))).shape == (n, 4, 7)
    with pytest.raises(gx.ShapeError):
        gx.reshape(x, (n + 1, 12))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_mean_var_and_size_of_a_symbolic_axis(size):
    x = gx.placeholder("x", ("n", 2), "float64")
    values = np.random.default_rng(size).standard_normal((size, 2))
    mean = gx.mean(x, axis=0)
    results = [mean, gx.var(x), gx.size_of(x.shape[0] * 2, "int32"), gx.grad(gx.sum(mean), [x])[0]]
    a, b, c, d = evaluate(results, {x: values})
    np.testing.assert_allclose(a, values.mean(0))
    np.testing.assert_allclose(b, values.var())
    assert c == 2 * size
    np.testing.assert_allclose(d, 1 / size)
