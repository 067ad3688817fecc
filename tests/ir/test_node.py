"""Nodes: equal expressions are one object; leaves and parameters have identity; nodes cannot be asked for values."""

from __future__ import annotations

import gc
import operator
import threading
import weakref

import numpy as np
import pytest

import graphc as gx
from graphc.ir.node import Parameter, apply, constant, topological
from graphc.ir.types import DType, TensorType
from graphc.ops.arithmetic import Add
from graphc.ops.reduction import Sum

X = gx.placeholder("x", (4, 3))


def test_equal_expressions_are_one_object():
    assert gx.tanh(X) is gx.tanh(X)
    assert gx.sum(X * 2.0, axis=1) is gx.sum(X * 2.0, axis=1)
    assert gx.tanh(X) is not gx.tanh(X + 1.0)
    assert apply(Sum((0,), False), X) is not apply(Sum((0,), True), X)


def test_leaves_have_identity():
    assert gx.placeholder("x", (4, 3)) is not X
    assert gx.placeholder("x", (4, 3)) + 1.0 is not X + 1.0
    value = np.zeros(3, np.float32)
    assert gx.parameter("w", value) is not gx.parameter("w", value)


@pytest.mark.parametrize(
    ("a", "b"),
    [(1, True), (1, 1.0), (0.0, -0.0), (np.float32(1), np.float64(1)), (np.int32(1), np.int64(1)), ([1.0], 1.0), ([[1.0]], [1.0])],
)  # fmt: skip
def test_constants_that_only_compare_equal_are_kept_apart(a, b):
    assert constant(a) is constant(a)
    assert constant(a) is not constant(b)


def test_constants():
    assert constant(np.nan) is constant(np.nan)
    assert constant(1.5).type == constant([1.5])[0].type
    assert constant(2).dtype.value == "int64"
    assert constant(2.0).dtype.value == "float32"
    assert constant(np.array(2.0)).dtype.value == "float64"
    assert constant(2, "uint32").dtype.value == "uint32"
    array = np.arange(6.0).reshape(2, 3)
    node = constant(array.T)
    np.testing.assert_array_equal(node.op.array, array.T)
    assert not node.op.array.flags.writeable
    with pytest.raises(gx.DTypeError, match="constant: no element type"):
        constant(1 + 2j)


def test_attributes_of_different_types_are_kept_apart():
    class Holder(Add):
        attributes = ("value",)

        def __init__(self, value):
            self.__dict__["value"] = value

    assert Holder(0.0) != Holder(-0.0)
    assert Holder(1) != Holder(True)
    assert Holder(1) != Holder(1.0)
    assert Holder((1,)) != Holder((True,))
    assert Holder(float("nan")) == Holder(float("nan"))
    assert Holder((1, (2.0,))) == Holder((1, (2.0,)))


def test_nodes_that_nobody_holds_go_away():
    y = gx.exp(gx.placeholder("gone", (2,)))
    ref = weakref.ref(y)
    del y
    gc.collect()
    assert ref() is None


def test_two_threads_get_the_same_node():
    start = threading.Barrier(4)
    found = [[] for _ in range(4)]

    def work(mine):
        start.wait()
        for i in range(200):
            mine.append(X * float(i))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(node is first for row in found for node, first in zip(row, found[0], strict=True))


INDEX = gx.placeholder("index", (), "int64")


@pytest.mark.parametrize(
    ("ask", "says", "remedy"),
    [
        (lambda: bool(X > 0), "no truth value", "gx.where"),
        (lambda: 1 if X == X else 0, "no truth value", "`is`"),
        (lambda: X in [X + 1.0], "no truth value", "gx.where"),
        (lambda: list(X), "cannot be iterated", "index it"),
        (lambda: len(gx.placeholder("y", ("n",))), "no length", "x.shape"),
        (lambda: X.__setitem__(0, 1.0), "never changes", "gx.index_update"),
        (lambda: float(INDEX), "not a number", "gx.compile"),
        (lambda: int(INDEX), "not a number", "gx.compile"),
        (lambda: range(INDEX), "not a number", "gx.compile"),
        (lambda: [1, 2][INDEX], "not a number", "gx.compile"),
        (lambda: np.arange(3)[INDEX], "not an array", "gx.compile"),
        (lambda: np.asarray(X), "not an array", "gx.compile"),
        (lambda: np.array([X, 1.0]), "not an array", "gx.compile"),
        (lambda: np.exp(X), "np.exp computes with arrays", "gx.exp"),
        (lambda: np.maximum(np.zeros(3), X), "np.maximum computes with arrays", "gx.maximum"),
        (lambda: np.add.reduce(X), "np.add computes with arrays", "gx.add"),
        (lambda: np.ones((4, 3)).__iadd__(X), "np.add computes with arrays", "gx.add"),
        (lambda: np.mean(X), "np.mean computes with arrays", "gx.mean"),
        (lambda: np.concatenate([X, X]), "np.concatenate computes with arrays", "gx.concatenate"),
    ],
)
def test_a_node_has_no_value_now(ask, says, remedy):
    with pytest.raises(gx.DTypeError, match=says) as caught:
        ask()
    assert "test_node.py" in caught.value.at
    assert remedy in caught.value.remedy


def test_a_node_knows_its_shape_and_is_hashed_by_identity():
    assert (len(X), np.shape(X), np.ndim(X)) == (4, (4, 3), 2)
    assert hash(X) == id(X)


def test_a_node_tells_about_itself():
    assert (X.shape, X.ndim, X.name, X.dtype.value) == ((4, 3), 2, "x", "float32")
    assert repr(X) == "<input 'x': f32[4, 3]>"
    assert repr(X + 1.0) == "<add: f32[4, 3]>"
    assert (X + 1.0).name is None
    with pytest.raises(gx.ShapeError, match="needs 2 axes"):
        _ = gx.placeholder("y", (2, 3, 4)).T


SYMBOLS = "add sub mul truediv floordiv mod pow eq ne lt le gt ge".split()


@pytest.mark.parametrize("number", [np.float32([[0.5, 2, 1]]), np.float32(2)], ids=["array", "number"])
def test_numpy_leaves_mixed_arithmetic_to_nodes(number):
    x = np.linspace(0.5, 3, 12, dtype=np.float32).reshape(4, 3)
    symbols = [getattr(operator, symbol) for symbol in SYMBOLS]
    outputs = {
        f"{at} {symbol.__name__}": symbol(*pair)
        for symbol in symbols
        for at, pair in enumerate([(number, X), (X, number)])
    }
    got = gx.compile(outputs, inputs=[X], backend="reference")(x=x)
    for symbol in symbols:
        np.testing.assert_allclose(got[f"0 {symbol.__name__}"], symbol(number, x), rtol=1e-6)
        np.testing.assert_allclose(got[f"1 {symbol.__name__}"], symbol(x, number), rtol=1e-6)


def test_numpy_leaves_products_and_bits_of_mixed_operands_to_nodes():
    ones, bits = np.ones((4, 3), np.float32), np.arange(3)
    integers = gx.placeholder("i", (3,), "int64")
    assert (ones @ X.T) is gx.matmul(ones, X.T)
    assert (X.T @ ones) is gx.matmul(X.T, ones)
    for symbol in (operator.and_, operator.or_, operator.xor):
        assert isinstance(symbol(bits, integers), gx.Node)
        assert isinstance(symbol(integers, bits), gx.Node)


def test_a_parameter_keeps_its_buffer():
    source = np.float32([1, 2, 3])
    w = gx.parameter("w", source)
    buffer = w.array
    source[:] = 0
    assert w.value.tolist() == [1, 2, 3]
    w.value[:] = 9
    assert w.value.tolist() == [1, 2, 3]
    w.value = [4, 5, 6]
    assert w.array is buffer
    assert w.value.tolist() == [4, 5, 6]
    assert isinstance(w, Parameter)
    assert (w.label, w.name, w.trainable) == ("w", "w", True)


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (np.zeros(4, np.float32), gx.ShapeError, "has shape (3,), the new value (4,)"),
        (np.zeros((), np.float32), gx.ShapeError, "has shape (3,), the new value ()"),
        (np.zeros(3, np.complex64), gx.DTypeError, "holds float32, the new value is complex64"),
    ],
)
def test_a_parameter_refuses_other_values(value, error, says):
    w = gx.parameter("w", np.float32([1, 2, 3]))
    with pytest.raises(error) as caught:
        w.value = value
    assert says in str(caught.value)
    assert "'w'" in str(caught.value)
    assert w.value.tolist() == [1, 2, 3]


def test_element_types_of_parameters():
    assert gx.parameter("a", 1.0).dtype.value == "float32"
    assert gx.parameter("a", [1.0, 2.0]).dtype.value == "float32"
    assert gx.parameter("a", np.zeros(2)).dtype.value == "float64"
    assert gx.parameter("a", 3).dtype.value == "int64"
    assert gx.parameter("a", 3, dtype="uint32").dtype.value == "uint32"
    with pytest.raises(gx.DTypeError, match="parameter 'a': no element type"):
        gx.parameter("a", ["text"])


@pytest.mark.parametrize("name", ["", "1x", "x y", "a.b", None, 3])
def test_names_of_placeholders_are_identifiers(name):
    with pytest.raises(gx.NameClashError, match="cannot be a name") as caught:
        gx.placeholder(name, (2,))
    assert "test_node.py" in str(caught.value)


def test_a_placeholder_refuses_bad_types():
    with pytest.raises(gx.ShapeError, match="placeholder 'x': a size cannot be negative"):
        gx.placeholder("x", (-1,))
    with pytest.raises(gx.DTypeError, match="placeholder 'x': no element type"):
        gx.placeholder("x", (1,), "int8")


def test_deep_graphs_do_not_meet_pythons_stack():
    node = X
    for _ in range(20000):
        node = node + 1.0
    assert len(topological([node])) == 20002
    del node
    gc.collect()


def test_topological_order_depends_on_structure_alone():
    y = gx.exp(X) + gx.tanh(X)
    again = [node.op.name for node in topological([y])]
    assert again == ["input", "exp", "tanh", "add"]
    later = gx.placeholder("x", (4, 3))
    z = gx.tanh(later)  # built in another order
    z = gx.exp(later) + z
    assert [node.op.name for node in topological([z])] == again


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 2)])
def test_parameters_that_are_drawn_late_keep_their_shape(shape):
    made = []

    def draw():
        made.append(shape)
        return np.full(shape, 2.5, np.float32)

    parameter = Parameter("w", draw, type=TensorType(DType.float32, shape))
    assert parameter.shape == shape
    assert not made
    assert parameter.value.shape == parameter.array.shape == shape
    assert made == [shape]
