"""Mistakes of one who writes a graph: shapes, element types, axes, attributes and names."""

from __future__ import annotations

import numpy as np

import graphc as gx
from graphc import Input, Sequential, layers
from tests.spine.mistakes import Mistakes, World

CASES = Mistakes()
bad = CASES.bad

# shapes


@bad("shape", gx.ShapeError, "inner dimensions differ", "768", "512")
def products(w: World) -> None:
    a, b = gx.placeholder("a", ("batch", 768)), gx.parameter("b", np.zeros((512, 10), np.float32))
    gx.matmul(a, b)  # here


@bad("shape", gx.ShapeError, "f32[4]", "f32[3]")
def broadcasting(w: World) -> None:
    a, b = gx.placeholder("a", (4,)), gx.placeholder("b", (3,))
    a + b  # here


@bad("shape", gx.ShapeError, "batch", "time")
def sizes_of_other_names(w: World) -> None:
    a, b = gx.placeholder("a", ("batch",)), gx.placeholder("b", ("time",))
    a * b  # here


@bad("shape", gx.ShapeError, "6", "(4, 2)")
def reshaping(w: World) -> None:
    a = gx.placeholder("a", (2, 3))
    gx.reshape(a, (4, 2))  # here


@bad("shape", gx.ShapeError, "f32[2, 3]", "f32[2, 4]")
def joining(w: World) -> None:
    gx.concatenate([gx.zeros((2, 3)), gx.zeros((2, 4))], axis=0)  # here


@bad("shape", gx.ShapeError, "'x'", "f32[batch, 3]", "(4,)")
def a_missing_axis(w: World) -> None:
    w.steps["train"](x=w.x[:, 0].copy(), labels=w.labels)  # here


@bad("shape", gx.ShapeError, "'labels'", "batch is 2 on axis 0 but 4 in input 'x'")
def batches_that_differ(w: World) -> None:
    w.steps["train"](x=w.x, labels=w.labels[:2])  # here


@bad("shape", gx.ShapeError, "out['loss']", "()", "(1,)")
def an_array_for_results(w: World) -> None:
    w.steps["train"](x=w.x, labels=w.labels, out={"loss": np.zeros(1, np.float32)})  # here


@bad("shape", gx.ShapeError, "'table'", "(3, 3)", "(2, 3)")
def a_parameters_new_value(w: World) -> None:
    w.table.value = np.zeros((2, 3), np.float32)  # here


@bad("shape", gx.ShapeError, "3:4", "size is 2", "n = 2")
def too_few_rows(w: World) -> None:
    a = gx.placeholder("a", ("n", 2))
    fourth = a[3]  # here
    gx.compile({"y": fourth}, inputs=[a], backend=w.backend)(a=np.zeros((2, 2), np.float32))


@bad("shape", gx.GraphError, "'bias'", "f32[3]", "f32[]")
def an_update(w: World) -> None:
    smaller = gx.sum(w.bias)  # here
    gx.compile({}, inputs=[], updates={w.bias: smaller}, backend=w.backend)


@bad("shape", gx.ShapeError, "not a shape: None", "tuple")
def no_shape_at_all(w: World) -> None:
    gx.placeholder("a", None)  # here


# element types


@bad("dtype", gx.DTypeError, "float32", "int64")
def a_mix(w: World) -> None:
    a, b = gx.placeholder("a", (3,)), gx.placeholder("b", (3,), "int64")
    a + b  # here


@bad("dtype", gx.DTypeError, "exp", "int64", "gx.cast")
def exponential_of_integers(w: World) -> None:
    a = gx.placeholder("a", (3,), "int64")
    gx.exp(a)  # here


@bad("dtype", gx.DTypeError, "'x'", "float32", "float64")
def a_step_of_float64(w: World) -> None:
    w.steps["train"](x=w.x.astype(np.float64), labels=w.labels)  # here


@bad("dtype", gx.DTypeError, "'x'", "one")
def a_step_of_text(w: World) -> None:
    w.steps["train"](x=["one", "two"], labels=w.labels)  # here


@bad("dtype", gx.DTypeError, "'labels'", "int64", "float32")
def labels_of_floats(w: World) -> None:
    w.steps["train"](x=w.x, labels=w.labels.astype(np.float32))  # here


@bad("dtype", gx.DTypeError, "out['loss']", "float32", "float64")
def results_of_float64(w: World) -> None:
    w.steps["train"](x=w.x, labels=w.labels, out={"loss": np.zeros(())})  # here


@bad("dtype", gx.DTypeError, "complex64")
def a_complex_parameter(w: World) -> None:
    gx.parameter("c", np.zeros(2, np.complex64))  # here


@bad("dtype", gx.DTypeError, "float8", "float32")
def an_unknown_element_type(w: World) -> None:
    gx.placeholder("a", (3,), "float8")  # here


@bad("dtype", gx.DTypeError, "truth value", "gx.where")
def a_node_as_condition(w: World) -> None:
    a = gx.placeholder("a", (3,))
    if gx.sum(a) > 0:  # here
        pass


@bad("dtype", gx.DTypeError, "'bias'", "float32", "complex128")
def a_parameters_new_type(w: World) -> None:
    w.bias.value = np.zeros(3, complex)  # here


@bad("dtype", gx.DTypeError, "where", "bool")
def a_condition_of_floats(w: World) -> None:
    a = gx.placeholder("a", (3,))
    gx.where(a, a, 0.0)  # here


@bad("dtype", gx.DTypeError, "no array of numbers", "equal length")
def rows_of_unequal_length(w: World) -> None:
    gx.constant([[1.0, 2.0], [3.0]])  # here


# axes and attributes


@bad("axis or attribute", gx.AxisError, "sum", "axis 2", "-2 to 1")
def a_missing_axis_of_a_sum(w: World) -> None:
    gx.sum(gx.zeros((2, 3)), axis=2)  # here


@bad("axis or attribute", gx.AxisError, "once")
def an_axis_twice(w: World) -> None:
    gx.sum(gx.zeros((2, 3)), axis=(0, -2))  # here


@bad("axis or attribute", gx.AxisError, "transpose", "(0, 0)")
def an_order_of_axes(w: World) -> None:
    gx.transpose(gx.zeros((2, 3)), (0, 0))  # here


@bad("axis or attribute", gx.AxisError, "softmax", "'last'")
def a_word_for_an_axis(w: World) -> None:
    gx.softmax(gx.zeros((2, 3)), axis="last")  # here


@bad("axis or attribute", gx.AxisError, "index 9", "size 4")
def an_index_that_is_known(w: World) -> None:
    a = gx.placeholder("a", ("n", 4))
    a[:, 9]  # here


@bad("axis or attribute", gx.AxisError, "step", "0")
def a_step_of_nothing(w: World) -> None:
    gx.placeholder("a", (4,))[::0]  # here


@bad("axis or attribute", gx.AxisError, "dropout", "1.5")
def a_rate(w: World) -> None:
    gx.dropout(gx.zeros((2, 3)), 1.5, np.uint32(0))  # here


@bad("axis or attribute", gx.AxisError, "pad", "1", "each")
def a_padding_for_no_axis(w: World) -> None:
    gx.pad(gx.zeros((2, 3)), 1, 1)  # here


@bad("axis or attribute", gx.AxisError, "'fussed'", "fused")
def a_stage(w: World) -> None:
    w.steps["train"].text("fussed")  # here


@bad("axis or attribute", gx.AxisError, "Dropout", "-0.1")
def a_rate_of_a_layer(w: World) -> None:
    layers.Dropout(-0.1)  # here


@bad("axis or attribute", gx.AxisError, "dropout", "'high'")
def a_word_for_a_rate(w: World) -> None:
    gx.dropout(gx.zeros((2, 3)), "high", np.uint32(0))  # here


@bad("axis or attribute", gx.AxisError, "axes is 1")
def a_number_for_an_order(w: World) -> None:
    gx.transpose(gx.zeros((2, 3)), 1)  # here


# names


@bad("name", gx.NameClashError, "'labels' is missing", "x, labels")
def a_missing_input(w: World) -> None:
    w.steps["train"](x=w.x)  # here


@bad("name", gx.NameClashError, "no input 'lables'", "labels")
def an_input_too_many(w: World) -> None:
    w.steps["train"](x=w.x, labels=w.labels, lables=w.labels)  # here


@bad("name", gx.NameClashError, "two inputs are called 'a'")
def two_of_one_name(w: World) -> None:
    a, b = gx.placeholder("a", (3,)), gx.placeholder("a", (3,))
    gx.compile({"y": a + b}, inputs=[a, b], backend=w.backend)  # here


@bad("name", gx.GraphError, "'b' is used but not listed", "inputs=[...]")
def an_input_left_out(w: World) -> None:
    a, b = gx.placeholder("a", (3,)), gx.placeholder("b", (3,))
    gx.compile({"y": a + b}, inputs=[a], backend=w.backend)  # here


@bad("name", gx.NameClashError, "'los'", "'loss'")
def a_result(w: World) -> None:
    w.steps["train"](x=w.x, labels=w.labels, out={"los": np.zeros((), np.float32)})  # here


@bad("name", gx.NameClashError, "'my input'", "identifier")
def a_name_with_a_blank(w: World) -> None:
    gx.placeholder("my input", (3,))  # here


@bad("name", gx.NameClashError, "'bacth'", "batch")
def a_size(w: World) -> None:
    w.steps["train"].explain(bacth=4)  # here


@bad("name", gx.GraphError, "cannot be updated", "gx.parameter")
def an_update_of_an_input(w: World) -> None:
    a = gx.placeholder("a", ())
    gx.compile({}, inputs=[a], updates={a: a + 1.0}, backend=w.backend)  # here


@bad("name", gx.NameClashError, "'dense_7'")
def a_layer(w: World) -> None:
    Sequential([Input((3,)), layers.Dense(2)]).get_layer("dense_7")  # here


@bad("name", gx.GraphError, "outputs is a Node", "outputs={'y': y}")
def outputs_without_names(w: World) -> None:
    gx.compile(w.bias + 1.0, inputs=[], backend=w.backend)  # here


@bad("name", gx.NameClashError, "a list", "'loss'", "dict")
def results_without_names(w: World) -> None:
    w.steps["train"](x=w.x, labels=w.labels, out=[np.zeros((), np.float32)])  # here
