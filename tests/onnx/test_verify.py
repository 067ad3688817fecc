"""Verification: a file in onnxruntime beside the program; training steps; files that are wrong, damaged or missing."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import graphc as gx
from graphc.backends.onnx import Report, export, verify
from graphc.backends.onnx.evaluate import evaluate_nodes
from graphc.backends.onnx.inputs import InputDraws, index_bounds
from graphc.errors import BackendError, FileError, IndexRangeError, NameClashError
from graphc.ir.graph import Graph, make_graph
from graphc.ir.node import Node, Parameter


class NumpyProgram:
    """A program as verify sees it: a graph, a phase, and calls that update parameters in place."""

    def __init__(self, graph: Graph, spoil: Callable[[dict[str, np.ndarray]], None] | None = None) -> None:
        self.graph = graph
        self.training = bool(graph.updates)
        self.calls = 0
        self._spoil = spoil

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        self.calls += 1
        values = evaluate_nodes(self.graph, inputs, {p: p.value for p in self.graph.parameters})
        for target, node in self.graph.updates:
            target.value = values[id(node)]
        outputs = {name: values[id(node)] for name, node in self.graph.outputs}
        if self._spoil is not None:
            self._spoil(outputs)
        return outputs


def adam(loss: Node, weights: list[Parameter], count: Parameter, rate: float) -> dict[Parameter, Node]:
    """Adam as in Kingma and Ba, algorithm 1, with its state in parameters."""
    step = gx.cast(count + 1, "float32")
    updates: dict[Parameter, Node] = {count: count + 1}
    for w, dw in zip(weights, gx.grad(loss, weights), strict=True):
        m, v = (gx.parameter(f"{w.label}/{moment}", np.zeros_like(w.value)) for moment in "mv")
        updates[m] = 0.9 * m + 0.1 * dw
        updates[v] = 0.999 * v + 0.001 * dw * dw
        m_hat = updates[m] / (1.0 - gx.pow(gx.constant(0.9), step))
        v_hat = updates[v] / (1.0 - gx.pow(gx.constant(0.999), step))
        updates[w] = w - rate * m_hat / (gx.sqrt(v_hat) + 1e-7)
    return updates


def mlp_step(rate: float = 1e-2) -> Graph:
    """A whole training step: dropout, softmax cross entropy, accuracy, Adam, a counter for the random numbers."""
    rng = np.random.default_rng(0)
    x = gx.placeholder("x", ("batch", 8), "float32")
    y = gx.placeholder("y", ("batch",), "int64")
    weights = [
        gx.parameter(name, (0.3 * rng.standard_normal(shape)).astype(np.float32))
        for name, shape in (("w1", (8, 16)), ("b1", (16,)), ("w2", (16, 3)), ("b2", (3,)))
    ]
    w1, b1, w2, b2 = weights
    count = gx.parameter("count", np.int64(0))
    hidden = gx.dropout(gx.relu(gx.matmul(x, w1) + b1), 0.3, seed=7, step=gx.cast(count, "uint32"), stream=1)
    logits = gx.matmul(hidden, w2) + b2
    loss = gx.mean(gx.sparse_softmax_cross_entropy(y, logits))
    accuracy = gx.mean(gx.cast(gx.equal(gx.argmax(logits), y), "float32"))
    return make_graph({"loss": loss, "accuracy": accuracy}, [x, y], adam(loss, weights, count, rate))


def test_a_training_step_with_dropout_and_adam_runs_alike_for_a_hundred_steps(tmp_path: Path) -> None:
    program = NumpyProgram(mlp_step())
    before = {parameter: parameter.value for parameter in program.graph.parameters}
    path = export(program, tmp_path / "train.onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    rng = np.random.default_rng(1)
    rows = [{"x": (x := rng.standard_normal((16, 8))).astype("float32"), "y": np.argmax(x[:, :3], 1)} for _ in range(8)]
    report = verify(path, program, steps=100, inputs=rows)
    assert report.ok, str(report)
    assert program.calls == report.steps == 100
    assert [found.name for found in report.outputs] == ["loss", "accuracy"]
    assert {found.name for found in report.states} >= {"state_next/w1", "state_next/b2/v", "state_next/count"}
    assert "of 13 updated parameters the farthest is" in str(report)
    assert "agrees with the program over 100 steps" in str(report)
    for parameter, value in before.items():
        np.testing.assert_array_equal(parameter.value, value)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_a_compiled_program_and_its_file_train_alike(tmp_path: Path, backend: str) -> None:
    graph = mlp_step()
    program = gx.compile(
        dict(graph.outputs), graph.inputs, dict(graph.updates), backend=backend, training=True, check_finite=True
    )
    before = {parameter: parameter.value for parameter in program.parameters}
    path = gx.onnx.export(program, tmp_path / "train.onnx")
    report = gx.onnx.verify(path, program, steps=100)
    assert report.ok, str(report)
    assert all(comparison.error < 1e-5 for comparison in report.outputs)
    for parameter, value in before.items():
        np.testing.assert_array_equal(parameter.value, value)


def test_random_inputs_are_drawn_where_none_are_given(tmp_path: Path) -> None:
    graph = mlp_step()
    path = export(graph, tmp_path / "train.onnx")
    assert verify(path, graph, steps=3).ok
    assert verify(path, graph, steps=3, seed=5).ok


def test_the_loop_in_the_documentation_trains_in_onnxruntime_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text(encoding="utf-8")
    (loop,) = [
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "for batch in batches" in block
    ]
    export(mlp_step(), tmp_path / "digits-train.onnx")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    batches = [
        {"x": (x := rng.standard_normal((32, 8)).astype(np.float32)), "y": np.argmax(x[:, :3], 1)} for _ in range(200)
    ]
    names: dict[str, Any] = {"batches": batches}
    exec(compile(loop, "onnx.md", "exec"), names)
    losses = [float(line) for line in capsys.readouterr().out.split()]
    assert len(losses) == 200
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:5])
    assert int(names["state"]["state/count"]) == 200


def with_change(path: Path, change: Callable[[ModelProto], None]) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def small_graph() -> tuple[Graph, Parameter]:
    x = gx.placeholder("x", ("n", 3), "float32")
    w = gx.parameter("w", np.float32([[1, -2], [0.5, 1], [3, 0.1]]))
    hidden = gx.tanh(gx.matmul(x, w))
    shifted = hidden + 0.5  # the line to blame
    return make_graph({"y": gx.exp(shifted)}, [x]), w


def test_the_first_node_that_diverges_is_named_with_its_line(tmp_path: Path) -> None:
    graph, _ = small_graph()

    def change(model: ModelProto) -> None:
        (add,) = [node for node in model.graph.node if node.op_type == "Add"]
        add.op_type = "Sub"

    report = verify(with_change(export(graph, tmp_path / "y.onnx"), change), graph)
    assert not report.ok
    assert report.divergence is not None
    assert report.divergence.value == "add"
    text = str(report)
    assert "differs from the program" in text
    assert "add: f32[n, 2]" in text
    assert "test_verify.py:" in text
    assert "# the line to blame" in text


def test_a_stale_weight_is_found(tmp_path: Path) -> None:
    graph, w = small_graph()
    path = export(graph, tmp_path / "y.onnx")
    assert verify(path, graph).ok
    w.value = w.value + 0.25
    report = verify(path, graph)
    assert report.divergence is not None
    assert report.divergence.value == "w"
    assert "parameter 'w'" in str(report)


def test_a_wrong_update_is_found_in_the_state(tmp_path: Path) -> None:
    x = gx.placeholder("x", (), "float32")
    a = gx.parameter("a", np.float32(1))
    graph = make_graph({"x": x}, [x], {a: a * 2.0})

    def change(model: ModelProto) -> None:
        (constant,) = [tensor for tensor in model.graph.initializer if tensor.name == "constant/2.0"]
        constant.CopyFrom(numpy_helper.from_array(np.array(3, np.float32), constant.name))

    report = verify(with_change(export(graph, tmp_path / "a.onnx"), change), graph, steps=5)
    assert not report.ok
    assert report.steps == 1
    assert all(found.ok for found in report.outputs)
    assert [found.name for found in report.states if not found.ok] == ["state_next/a"]
    assert "state_next/a: largest difference" in str(report)


def test_a_backend_that_differs_from_numpy_is_said_to(tmp_path: Path) -> None:
    graph, _ = small_graph()

    def spoil(outputs: dict[str, np.ndarray]) -> None:
        outputs["y"] = outputs["y"] + 1

    path = export(graph, tmp_path / "y.onnx")
    report = verify(path, NumpyProgram(graph, spoil))
    assert not report.ok
    assert report.divergence is None
    assert "look at the program's backend" in str(report)


def test_parameters_are_restored_when_a_step_fails(tmp_path: Path) -> None:
    a = gx.parameter("a", np.float32(1))
    x = gx.placeholder("x", (), "float32")
    graph = make_graph({"y": a * x}, [x], {a: a + 1.0})

    def spoil(outputs: dict[str, np.ndarray]) -> None:
        raise IndexRangeError("a step that fails")

    path = export(graph, tmp_path / "a.onnx")
    with pytest.raises(IndexRangeError):
        verify(path, NumpyProgram(graph, spoil))
    assert float(a.value) == 1


def test_nan_on_one_side_only_is_a_difference(tmp_path: Path) -> None:
    x = gx.placeholder("x", (3,), "float32")
    graph = make_graph({"y": gx.log(x)}, [x])
    path = export(graph, tmp_path / "y.onnx")
    values = {"x": np.float32([-1, 0, np.inf])}
    assert verify(path, graph, inputs=values).ok  # NaN, -inf and inf on both

    def spoil(outputs: dict[str, np.ndarray]) -> None:
        outputs["y"] = np.float32([0, -np.inf, np.inf])

    report = verify(path, NumpyProgram(graph, spoil), inputs=values)
    assert not report.ok
    assert report.outputs[0].error == np.inf


def test_a_file_of_another_program_is_not_compared(tmp_path: Path) -> None:
    graph, _ = small_graph()
    x = gx.placeholder("x", ("n", 4), "float32")
    report = verify(export(graph, tmp_path / "y.onnx"), make_graph({"y": gx.exp(x)}, [x]))
    assert not report.ok
    assert isinstance(report, Report)
    assert "input 'x' is not the same in both" in str(report)


def test_inputs_must_be_those_of_the_program(tmp_path: Path) -> None:
    graph, _ = small_graph()
    path = export(graph, tmp_path / "y.onnx")
    with pytest.raises(NameClashError, match="'z'") as caught:
        verify(path, graph, inputs={"z": np.zeros((1, 3), np.float32)})
    assert "'x'" in str(caught.value)


def damaged_files(folder: Path) -> dict[str, Path]:
    graph, _ = small_graph()
    data = export(graph, folder / "good.onnx").read_bytes()
    contents = {"cut": data[: len(data) // 2], "empty": b"", "text": b"not a model", "zeros": bytes(100)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


@pytest.mark.parametrize("name", ["cut", "empty", "text", "zeros"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    path = damaged_files(tmp_path)[name]
    graph, _ = small_graph()
    with pytest.raises(FileError) as caught:
        verify(path, graph)
    assert str(path) in str(caught.value)
    assert "export the program to it again" in str(caught.value)


def test_a_file_that_onnxruntime_refuses_is_named(tmp_path: Path) -> None:
    graph, _ = small_graph()

    def change(model: ModelProto) -> None:
        model.graph.node[0].op_type = "NoSuchOperator"

    path = with_change(export(graph, tmp_path / "y.onnx"), change)
    with pytest.raises(FileError, match="cannot load") as caught:
        verify(path, graph)
    assert str(path) in str(caught.value)
    assert "NoSuchOperator" in str(caught.value)


@pytest.mark.parametrize("place", ["missing.onnx", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, place: str) -> None:
    graph, _ = small_graph()
    with pytest.raises(FileError, match="cannot read") as caught:
        verify(tmp_path / place, graph)
    assert str(tmp_path / place) in str(caught.value)
    assert "check the path" in str(caught.value)


def test_without_onnxruntime_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _ = small_graph()
    path = export(graph, tmp_path / "y.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match="onnxruntime cannot be imported") as caught:
        verify(path, graph)
    assert "pip install onnxruntime" in str(caught.value)


def test_indices_are_drawn_within_their_axes() -> None:
    n = gx.Dim("n")
    labels = gx.placeholder("labels", ("n",), "int32")
    tokens = gx.placeholder("tokens", ("n", 4), "int64")
    floats = gx.placeholder("floats", ("n",), "float32")
    flags = gx.placeholder("flags", ("n",), "bool")
    seed = gx.placeholder("seed", (), "uint32")
    table = gx.parameter("table", np.zeros((11, 2), np.float32))
    outputs = {
        "loss": gx.sparse_softmax_cross_entropy(labels, gx.zeros(("n", 3))),
        "rows": gx.take(table, gx.reshape(tokens, (-1,))[1:]),
        "own": gx.take(gx.zeros(("n",)), gx.cast(floats, "int64")),
        "flags": flags,
        "bits": gx.random.bits((3,), seed),
    }
    graph = make_graph(outputs, [labels, tokens, floats, flags, seed])
    assert index_bounds(graph) == {id(labels): [3], id(tokens): [11], id(floats): [n]}
    draw = InputDraws(graph, {"n": 6}, seed=0)
    seen = [draw() for _ in range(30)]
    assert set(np.unique([row["labels"] for row in seen])) == {0, 1, 2}
    assert set(np.unique([row["tokens"] for row in seen])) == set(range(11))
    assert set(np.unique([row["floats"] for row in seen])) == set(range(6))
    assert all(row[node.name].dtype == node.dtype.numpy for row in seen for node in graph.inputs)
