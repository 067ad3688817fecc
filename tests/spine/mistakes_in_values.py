"""Mistakes that show while a program runs: indices beyond an axis, numbers that are not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import graphc as gx
from graphc import Input, Sequential, layers
from tests.spine.mistakes import Mistakes, World, training

CASES = Mistakes()
bad = CASES.bad

# indices, found while a program runs


@bad("run-time index", gx.IndexRangeError, "labels", "index 3", "size 3", "0 to 2", within=training)
def a_label_too_large(w: World) -> None:
    w.steps["train"](x=w.x, labels=np.array([0, 3, 1, 2]))


@bad("run-time index", gx.IndexRangeError, "labels", "index -1", "size 3", within=training)
def a_label_below_zero(w: World) -> None:
    w.steps["train"](x=w.x, labels=np.array([0, -1, 1, 2]))


def _pick(w: World, make: Callable[[gx.Node, gx.Node], gx.Node], rows: Any) -> None:
    i = gx.placeholder("i", ("n",), rows.dtype)
    taken = make(w.table, i)
    program = gx.compile({"y": gx.sum(taken)}, inputs=[i], updates={w.bias: w.bias + 1.0}, backend=w.backend)
    program(i=rows)


@bad("run-time index", gx.IndexRangeError, "i", "index 7", "size 3")
def a_row(w: World) -> None:
    _pick(w, lambda table, i: gx.take(table, i), np.array([0, 7]))  # here


@bad("run-time index", gx.IndexRangeError, "index -2", "size 3")
def a_column(w: World) -> None:
    _pick(w, lambda table, i: gx.take(table, i, axis=1), np.int32([-2]))  # here


@bad("run-time index", gx.IndexRangeError, "index 4294967295", "size 3")
def an_index_beyond_all_memory(w: World) -> None:
    _pick(w, lambda table, i: table[i], np.uint32([1, 4294967295]))  # here


@bad("run-time index", gx.IndexRangeError, "index 5", "size 3")
def a_row_of_a_gradient(w: World) -> None:
    _pick(w, lambda table, i: gx.grad(gx.sum(gx.tanh(gx.take(table, i))), [table])[0], np.array([5, 0]))  # here


@bad("run-time index", gx.IndexRangeError, "index 4", "size 4")
def a_promise(w: World) -> None:
    _pick(w, lambda table, i: gx.in_range(i, 4) * 1, np.array([3, 4]))  # here


@bad("run-time index", gx.IndexRangeError, "index 0", "size 0", "no indices")
def an_axis_without_elements(w: World) -> None:
    x, i = gx.placeholder("x", ("n", 2)), gx.placeholder("i", ("m",), "int64")
    taken = gx.take(x, i)  # here
    program = gx.compile({"y": taken}, inputs=[x, i], updates={w.bias: w.bias + 1.0}, backend=w.backend)
    program(x=np.zeros((0, 2), np.float32), i=np.array([0]))


# values that are not finite


def _checked(w: World, value: gx.Node, x: gx.Node, number: float) -> None:
    updates = {w.bias: w.bias + value, w.table: w.table * 2.0}  # here
    program = gx.compile({"y": w.bias * 2.0}, inputs=[x], updates=updates, backend=w.backend, check_finite=True)
    program(x=np.float32(number))


@bad("non-finite value", gx.NonFiniteError, "update of 'bias'", "learning rate", within=_checked)
def the_logarithm_of_zero(w: World) -> None:
    x = gx.placeholder("x", ())
    _checked(w, gx.log(x), x, 0.0)


@bad("non-finite value", gx.NonFiniteError, "update of 'bias'", within=_checked)
def the_root_of_less_than_nothing(w: World) -> None:
    x = gx.placeholder("x", ())
    _checked(w, gx.sqrt(x), x, -1.0)


@bad("non-finite value", gx.NonFiniteError, "update of 'bias'", within=_checked)
def a_number_too_large(w: World) -> None:
    x = gx.placeholder("x", ())
    _checked(w, gx.exp(x), x, 100.0)


@bad("non-finite value", gx.NonFiniteError, "output 'y'", "position 1")
def a_result_that_is_no_number(w: World) -> None:
    x = gx.placeholder("x", ("n",))
    ratio = x / x  # here
    updates = {w.bias: w.bias * 2.0}
    program = gx.compile({"y": ratio}, inputs=[x], updates=updates, backend=w.backend, check_finite=True)
    program(x=np.float32([1, 0, 2]))


@bad("non-finite value", gx.NonFiniteError, "the scale", "position 0")
def a_value_between(w: World) -> None:
    x = gx.placeholder("x", ("n",))
    scale = gx.check_finite(1.0 / gx.sum(x), "the scale")  # here
    program = gx.compile({"y": x * scale}, inputs=[x], updates={w.bias: w.bias * 2.0}, backend=w.backend)
    program(x=np.float32([1, -1]))


@bad("non-finite value", gx.NonFiniteError, "loss")
def the_loss_of_a_model(w: World) -> None:
    model = Sequential([Input((2,)), layers.Dense(2)])
    model.compile("sgd", "mse", backend=w.backend, check_finite=True)  # here
    before = model.get_weights()
    try:
        model.train_on_batch(np.full((3, 2), np.inf, np.float32), np.ones((3, 2), np.float32))
    finally:
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
