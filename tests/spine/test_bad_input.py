"""Bad input of every kind: which error, on which line of the user, with which remedy, and no parameter changed.

One table. Each case is a function that makes one mistake, on the line that ends with ``# here`` (its only line
otherwise); the error must show that line, or the path of the file at fault.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Sequential, backend, layers
from graphc.backends.numba import blas, build
from graphc.ir.op import registry
from graphc.ir.text import parse_graph, print_graph

SIZE = 3


@dataclass
class World:
    """Programs over two parameters, and arrays that fit them."""

    backend: str
    table: gx.Parameter
    bias: gx.Parameter
    path: Path
    patch: pytest.MonkeyPatch
    steps: dict[str, gx.Program] = field(default_factory=dict)

    @property
    def x(self) -> Any:
        return np.ones((4, SIZE), np.float32)

    @property
    def labels(self) -> Any:
        return np.array([0, 1, 2, 1])


def training(table: gx.Parameter, bias: gx.Parameter, backend: str) -> gx.Program:
    """A step of gradient descent."""
    x, labels = gx.placeholder("x", ("batch", SIZE)), gx.placeholder("labels", ("batch",), "int64")
    loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, x @ table + bias))  # here
    gradients = gx.grad(loss, [table, bias])
    updates = {p: p - 0.1 * g for p, g in zip((table, bias), gradients, strict=True)}
    return gx.compile({"loss": loss}, inputs=[x, labels], updates=updates, backend=backend)


STEPS: dict[str, dict[str, gx.Program]] = {}
PARAMETERS: dict[str, tuple[gx.Parameter, gx.Parameter]] = {}


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    name = request.param
    if name not in STEPS:
        table = gx.parameter("table", np.arange(9, dtype=np.float32).reshape(3, 3) / 8)
        bias = gx.parameter("bias", np.float32([0.5, -0.5, 0]))
        PARAMETERS[name] = table, bias
        STEPS[name] = {"train": training(table, bias, name)}
    table, bias = PARAMETERS[name]
    return World(name, table, bias, tmp_path, monkeypatch, STEPS[name])


@dataclass(frozen=True)
class Case:
    """One mistake.

    Attributes:
        says: words that the message must hold.
        file: the error names a file below the test's folder, not a line.
        within: the function whose marked line is at fault, where it is not ``run``.
    """

    category: str
    error: type[Exception]
    says: tuple[str, ...]
    run: Callable[[World], object]
    file: str | None = None
    within: Callable[..., object] | None = None

    @property
    def line(self) -> str:
        """``file:line`` of the mistake."""
        rows, first = inspect.getsourcelines(self.within or self.run)
        marked = [first + number for number, row in enumerate(rows) if row.rstrip().endswith("# here")]
        assert len(marked) == 1, f"{self.run.__name__} has {len(marked)} marks"
        return f"{Path(__file__).name}:{marked[0]}"


CASES: list[Case] = []


def bad(
    category: str,
    error: type[Exception],
    *says: str,
    file: str | None = None,
    within: Callable[..., object] | None = None,
) -> Callable[[Any], Any]:
    """Enter a function into the table."""

    def enter(run: Callable[[World], object]) -> Callable[[World], object]:
        CASES.append(Case(category, error, says, run, file, within))
        return run

    return enter


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


# backends


@bad("backend", gx.BackendError, "'nunba'", "numba", "reference")
def an_unknown_backend(w: World) -> None:
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="nunba")  # here


@dataclass(frozen=True)
class Point:
    """Stands for an entry point."""

    name: str
    load: Callable[[], object]


def _install(w: World, load: Callable[[], object]) -> None:
    w.patch.setattr(backend, "_entry_points", lambda: {"plugged": Point("plugged", load)})


@bad("backend", gx.BackendError, "'plugged'", "No module named 'half_installed'", "reinstall")
def a_plug_in_that_cannot_be_imported(w: World) -> None:
    def load() -> object:
        raise ModuleNotFoundError("No module named 'half_installed'")

    _install(w, load)
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="plugged")  # here


@bad("backend", gx.BackendError, "'plugged'", "graphc.backend.Backend")
def a_plug_in_that_is_something_else(w: World) -> None:
    _install(w, lambda: object())
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="plugged")  # here


class Faulty:
    """A backend that fails while it compiles."""

    name, priority, lowers = "plugged", 0, False

    def available(self) -> str | None:
        return None

    def takes(self, op: object) -> bool:
        return True

    def compile(self, plan: object) -> Any:
        raise ZeroDivisionError("of its own")


@bad("backend", gx.BackendError, "'plugged'", "ZeroDivisionError: of its own")
def a_plug_in_that_fails_while_it_compiles(w: World) -> None:
    _install(w, Faulty)
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="plugged")  # here


class Mute(Faulty):
    """A backend that cannot even say whether it runs here."""

    def available(self) -> str | None:
        raise OSError("no driver")


@bad("backend", gx.BackendError, "'plugged'", "OSError: no driver", "reinstall")
def a_plug_in_that_fails_while_it_is_asked(w: World) -> None:
    _install(w, Mute)
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="auto")
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="plugged")  # here


@bad("backend", gx.BackendError, "'numba'", "numba is missing", "pip install numba")
def a_missing_package(w: World) -> None:
    w.patch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="numba")  # here


@bad("backend", gx.BackendError, "'numba'", "scipy-openblas64", "pip install scipy-openblas64")
def missing_openblas(w: World) -> None:
    w.patch.setattr(blas, "library_path", lambda: None)
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="numba")  # here


@bad("backend", gx.BackendError, "broken.so", "force-reinstall scipy-openblas64")
def broken_openblas(w: World) -> None:
    library = w.path / "broken.so"
    library.write_bytes(b"no library")
    w.patch.setattr(blas, "library_path", lambda: library)
    blas._library.cache_clear()
    try:
        gx.compile({"y": w.table @ w.table}, inputs=[], backend="numba")  # here
    finally:
        blas._library.cache_clear()


@bad("backend", gx.BackendError, "'cupy'", "doctor")
def a_gpu_that_is_not_there(w: World) -> None:
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="cupy")  # here


# files


def _saved(w: World) -> Path:
    model = Sequential([Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse", backend="reference")
    model.save(w.path / "model")
    return w.path / "model"


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@bad("cache or file", gx.FileError, "no saved model", file="nowhere")
def a_missing_folder(w: World) -> None:
    gx.load_model(w.path / "nowhere")


@bad("cache or file", gx.FileError, "damaged", file="model.json")
def text_that_ends_early(w: World) -> None:
    _cut(_saved(w) / "model.json")
    gx.load_model(w.path / "model")


@bad("cache or file", gx.FileError, "not what was saved", file="arrays-")
def arrays_that_end_early(w: World) -> None:
    (arrays,) = _saved(w).glob("arrays-*")
    _cut(arrays)
    gx.load_model(w.path / "model")


@bad("cache or file", gx.FileError, "format 99", file="model.json")
def another_format(w: World) -> None:
    path = _saved(w) / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    gx.load_model(w.path / "model")


@bad("cache or file", gx.FileError, "cannot be written", file="taken")
def a_file_in_the_folders_place(w: World) -> None:
    (w.path / "taken").write_text("")
    Sequential([Input((3,)), layers.Dense(2)]).save(w.path / "taken" / "model")


@bad("cache or file", gx.FileError, "cannot write", "make it first", file="missing")
def an_export_into_a_missing_folder(w: World) -> None:
    gx.onnx.export(w.steps["train"], w.path / "missing" / "step.onnx")


@bad("cache or file", gx.FileError, "step.onnx", file="step.onnx")
def an_exported_file_that_ends_early(w: World) -> None:
    gx.onnx.export(w.steps["train"], w.path / "step.onnx")
    _cut(w.path / "step.onnx")
    gx.onnx.verify(w.path / "step.onnx", w.steps["train"])


@bad("cache or file", gx.ParseError, "line 3", "%9")
def graph_text_that_was_changed(w: World) -> None:
    a = gx.placeholder("a", (3,))
    text = print_graph(gx.compile({"y": gx.exp(gx.tanh(a))}, inputs=[a], backend="reference").graph)
    parse_graph(text.replace("tanh(%0)", "tanh(%9)"), registry)  # here


@pytest.mark.parametrize("world", ["numba", "reference"], indirect=True)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.category}-{case.run.__name__}")
def test_bad_input_is_refused_on_the_users_line_with_a_remedy(case: Case, world: World) -> None:
    before = world.table.value.tobytes(), world.bias.value.tobytes()
    with pytest.raises(gx.GraphcError) as caught:
        case.run(world)
    text = str(caught.value)
    assert type(caught.value) is case.error, text
    for words in case.says:
        assert words in text, text
    first, *_, last = text.splitlines()
    assert len(first) < 200, "the first line says what is wrong"
    assert last.startswith("to do: "), text
    assert len(last) > 12
    if case.file is None:
        assert case.line in text, text
    else:
        assert str(world.path) in text, text
        assert case.file in text, text
    assert (world.table.value.tobytes(), world.bias.value.tobytes()) == before


def test_the_table_is_as_large_as_it_should_be() -> None:
    counts = Counter(case.category for case in CASES)
    assert sum(counts.values()) >= 40
    assert len(counts) == 8
    assert min(counts.values()) >= 5, counts


# A damaged cache is no error: what it holds is made again.


def _cut_off(path: Path) -> None:
    _cut(path)


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    path.write_bytes(b"\x7fELF from elsewhere")


def _folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [_cut_off, _flip_a_bit, _empty, _foreign, _folder_in_its_place, _remove])
def test_damaged_entries_of_the_cache_are_made_again_without_a_word(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    x = gx.placeholder("x", ("n",))
    outputs = {"y": gx.tanh(x) * 3.0 + 0.125}
    given = np.float32([0, 1, -2])
    expected = gx.compile(outputs, inputs=[x], backend="numba")(x=given)["y"]

    def compile_without_memory() -> gx.Program:
        monkeypatch.setattr(build, "_addresses", {k: v for k, v in build._addresses.items() if "tanh" not in k})
        return gx.compile(outputs, inputs=[x], backend="numba")

    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    compile_without_memory()
    (entry,) = (path for path in (tmp_path / "cache" / build.OBJECT).rglob("*") if path.is_file())
    damage(entry)
    np.testing.assert_array_equal(compile_without_memory()(x=given)["y"], expected)
    assert not recwarn.list


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = gx.placeholder("x", ("n",))
    (tmp_path / "taken").write_text("a file where the folder should be")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "taken" / "cache"))
    result = gx.compile({"y": gx.tanh(x) * 5.0 - 0.375}, inputs=[x], backend="numba")(x=np.float32([0]))["y"]
    np.testing.assert_array_equal(result, np.float32([-0.375]))
