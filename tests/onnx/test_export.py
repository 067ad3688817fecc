"""What a file holds: signature, names, sizes, states, lines; and what happens when it cannot be written."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from graphc.backends.onnx import export
from graphc.backends.onnx.evaluate import evaluate_nodes
from graphc.backends.onnx.export import Exported, build_model
from graphc.backends.onnx.runtime import open_session, run_session
from graphc.errors import ExportError, FileError
from graphc.ir.dims import Dim, maximum, minimum
from graphc.ir.graph import Graph, make_graph
from graphc.ir.node import Node, Parameter, apply, constant, parameter, placeholder
from graphc.ir.op import Op, op_class, registry
from graphc.ops import (
    activation,
    control,
    create,
    gating,
    indexing,
    linear,
    movement,
    padding,
    random,
    reduction,
    slicing,
    statistics,
)
from graphc.ops.base import Elementwise


def run(exported: Exported, **arrays: np.ndarray) -> dict[str, np.ndarray]:
    names = [value.name for value in exported.model.graph.output]
    return run_session(open_session(exported.model, "model"), arrays, names, "model")


def layer(units: int = 4) -> tuple[Node, Parameter, Node]:
    rng = np.random.default_rng(0)
    x = placeholder("x", ("batch", 3), "float32")
    w = parameter("dense/kernel", rng.standard_normal((3, units)).astype(np.float32))
    return x, w, activation.relu(linear.matmul(x, w))


def names_of(values: object) -> list[str]:
    return [value.name for value in values]  # type: ignore[attr-defined]


def test_inference_holds_its_parameters_and_says_its_sizes_by_name(tmp_path: Path) -> None:
    x, w, y = layer()
    path = export(make_graph({"y": y}, [x]), tmp_path / "layer.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].domain, model.opset_import[0].version) == (10, "", 21)
    assert names_of(model.graph.input) == ["x"]
    assert names_of(model.graph.output) == ["y"]
    assert names_of(model.graph.initializer) == ["dense/kernel"]
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), w.value)
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert (sizes[0].dim_param, sizes[1].dim_value) == ("batch", 3)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Relu"]
    assert all(node.domain == "" for node in model.graph.node)
    assert names_of(model.graph.node) == ["matmul", "y"]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    x, _, y = layer()
    graph = make_graph({"y": y}, [x])
    one, two = (export(graph, tmp_path / name) for name in ("one.onnx", "two.onnx"))
    assert one.read_bytes() == two.read_bytes()


def test_each_node_says_the_line_that_made_it_without_folders_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    x, w, _ = layer()
    y = linear.matmul(x, w) * 2.0  # the line
    path = export(make_graph({"y": y}, [x]), "lines.onnx")
    model = onnx.load(path)
    docs = {node.op_type: node.doc_string for node in model.graph.node}
    assert docs["Mul"].startswith("test_export.py:")
    assert docs["Mul"].endswith("y = linear.matmul(x, w) * 2.0  # the line")
    assert str(Path(__file__).parent).encode() not in path.read_bytes()


def test_odd_names_become_valid_and_stay_known() -> None:
    x, other = placeholder("größe", (2,), "float32"), placeholder("x_1", (2,), "float32")
    weights = [
        parameter(name, np.full(2, value, np.float32)) for value, name in enumerate(['w "1"', "w 1", "a/b\\c", "", "π"])
    ]
    total = x + other
    for weight in weights:
        total = total + weight
    outputs = {'the "sum"': total, "the sum": total, "größe": x, "": total * 2.0, "add": total * 3.0, "x": weights[1]}
    exported = build_model(make_graph(outputs, [x, other], {weights[0]: total, weights[3]: total}))
    onnx.checker.check_model(exported.model, full_check=True)
    graph = exported.model.graph
    boundary = [*names_of(graph.input), *names_of(graph.output)]
    assert len(set(boundary)) == len(boundary)
    assert all(name.isascii() and name.strip() and not set(name) & set(' "\\') for name in boundary)
    known = json.loads({entry.key: entry.value for entry in exported.model.metadata_props}["graphc.names"])
    assert {"größe", 'the "sum"', 'state/w "1"'} <= set(known.values())
    a, b = np.float32([1, 2]), np.float32([3, 4])
    result = run(exported, **dict(zip(exported.inputs, (a, b), strict=True)))
    expected = a + b + 10
    for name, value in zip(exported.outputs, (expected, expected, a, 2 * expected, 3 * expected, [1, 1]), strict=True):
        np.testing.assert_array_equal(result[name], value)


def test_a_training_step_takes_and_gives_its_state() -> None:
    x = placeholder("x", (), "float32")
    a, b = parameter("a", np.float32(1)), parameter("b", np.float32(2))
    fixed, count = parameter("fixed", np.float32(10)), parameter("count", np.int64(0))
    never_read = parameter("never_read", np.float32(5))
    updates = {a: b * x, b: a, count: count + 1, never_read: constant(np.float32(6))}
    exported = build_model(make_graph({"out": a + b + fixed}, [x], updates))
    onnx.checker.check_model(exported.model, full_check=True)
    states = json.loads(exported.model.metadata_props[0].value)
    assert states == {f"state/{name}": f"state_next/{name}" for name in ("a", "b", "count", "never_read")}
    assert names_of(exported.model.graph.input) == ["x", *states]
    session = open_session(exported.model, "step")
    assert names_of(session.get_inputs()) == ["x"]  # the states may be left out: then they are the initial ones
    results = run_session(session, {"x": np.array(3, np.float32)}, ["out", *states.values()], "step")
    assert {name: float(value) for name, value in results.items()} == {
        "out": 13, "state_next/a": 6, "state_next/b": 1, "state_next/count": 1, "state_next/never_read": 6,
    }  # fmt: skip
    fed = {"x": np.array(3, np.float32), **{before: results[after] for before, after in states.items()}}
    results = run_session(session, fed, ["out", *states.values()], "step")
    assert [float(value) for value in results.values()] == [17, 3, 6, 2, 6]


def test_results_may_be_inputs_parameters_constants_and_the_same_node() -> None:
    x = placeholder("x", (2,), "float32")
    w = parameter("w", np.ones(2, np.float32))
    y = x + w
    exported = build_model(
        make_graph({"x_again": x, "w_again": w, "c": constant(np.float32([7])), "y": y, "y2": y}, [x])
    )
    onnx.checker.check_model(exported.model, full_check=True)
    result = run(exported, x=np.float32([1, 2]))
    assert [value.tolist() for value in result.values()] == [[1, 2], [1, 1], [7], [2, 3], [2, 3]]


def dynamic_graph() -> Graph:
    n, t = Dim("n"), Dim("t")
    x = placeholder("x", (n, t, 4), "float32")
    rows = placeholder("rows", (n,), "int64")
    small = slicing.getitem(x, (slice(1, None), slice(None, t // 2), slice(None, None, 2)))
    merged = movement.reshape(x, (n * t, 4))
    last = slicing.getitem(x, (slice(None), -1))
    outputs = {
        "small": small,
        "merged": merged,
        "split": movement.reshape(merged, (n, t, 2, 2)),
        "swapped": movement.reshape(movement.transpose(x, (1, 0, 2)), (t, n * 4)),
        "count": create.size_of(n * t - 1, "float32"),
        "places": create.iota((n, t), 1, "int32"),
        "mean": statistics.mean(x, axis=0),
        "centered": x - statistics.mean(x, axis=(0, 1), keepdims=True),
        "chosen": indexing.take(last, rows, axis=0),
        "hot": indexing.one_hot(rows, n),
        "spread": apply(registry["take_add"](0, n), last, rows),
        "joined": movement.concatenate([last, last * 2.0], axis=0),
        "reversed": slicing.getitem(x, (slice(None, None, -1),)),
        "padded": padding.pad(last, (0, 1), (0, 0), (1, 0)),
        "extremes": create.size_of(minimum(n, t * 2)) + create.size_of(maximum(n, 5)) * 100,
        "rest": create.size_of((n - 3) // 2 % 4),
        "grid": movement.broadcast_to(reduction.sum(x, axis=(1, 2))[:, None], (n, t)),
        "bits": random.bits((n, t), seed=3),
    }
    return make_graph(outputs, [x, rows])


@pytest.mark.parametrize("opset", [18, 21])
def test_one_file_serves_every_size(opset: int) -> None:
    graph = dynamic_graph()
    exported = build_model(graph, opset=opset)
    onnx.checker.check_model(exported.model, full_check=True)
    session = open_session(exported.model, "dynamic")
    rng = np.random.default_rng(1)
    for n, t in ((1, 1), (3, 5), (8, 2), (2, 6)):
        feeds = {"x": rng.standard_normal((n, t, 4)).astype(np.float32), "rows": rng.integers(0, n, n)}
        results = run_session(session, feeds, exported.outputs, "dynamic")
        values = evaluate_nodes(graph, feeds, {})
        for name, node in graph.outputs:
            assert results[name].dtype == values[id(node)].dtype
            np.testing.assert_allclose(results[name], values[id(node)], 1e-5, 1e-6, err_msg=f"{name} at {n}, {t}")


def test_an_empty_batch_runs() -> None:
    x = placeholder("x", ("n", 2, 3), "float32")
    outputs = {
        "flat": slicing.flatten(x, 1), "sum": reduction.sum(x, axis=0), "softmax": activation.softmax(x),
        "swapped": movement.transpose(x, (2, 0, 1)), "double": movement.concatenate([x, x]),
    }  # fmt: skip
    result = run(build_model(make_graph(outputs, [x])), x=np.zeros((0, 2, 3), np.float32))
    assert [value.shape for value in result.values()] == [(0, 6), (2, 3), (0, 2, 3), (3, 0, 2), (0, 2, 3)]


def test_sizes_that_reshape_can_infer_are_not_computed() -> None:
    x = placeholder("x", ("n", 4, 3), "float32")
    outputs = {
        "flat": slicing.flatten(x, 1),
        "rows": movement.reshape(x, (-1, 3)),
        "more": slicing.expand_dims(x, (0, 2)),
    }
    exported = build_model(make_graph(outputs, [x]))
    assert {node.op_type for node in exported.model.graph.node} == {"Reshape"}


def test_the_size_of_an_output_is_written_as_a_formula() -> None:
    x = placeholder("x", ("n", 4), "float32")
    exported = build_model(make_graph({"y": movement.reshape(x, (-1, 2))}, [x]))
    assert exported.model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "2*n"


def test_a_size_that_stands_nowhere_alone_is_refused() -> None:
    n = Dim("n")
    x = placeholder("x", (n * 2,), "float32")
    graph = make_graph({"count": create.size_of(n)}, [x])
    with pytest.raises(ExportError, match="'n' stands nowhere alone") as caught:
        build_model(graph)
    assert "plain size 'n'" in str(caught.value)


def test_the_phase_decides_what_a_graph_writes(tmp_path: Path) -> None:
    x = placeholder("x", ("n",), "float32")
    y = control.when_training(random.dropout(x, 0.5, seed=0), x * 2.0)
    graph = make_graph({"y": y}, [x])
    inference = onnx.load(export(graph, tmp_path / "inference.onnx"))
    training = onnx.load(export(graph, tmp_path / "training.onnx", training=True))
    assert [node.op_type for node in inference.graph.node] == ["Mul"]
    assert "BitwiseXor" in {node.op_type for node in training.graph.node}


def test_ops_about_derivatives_leave_no_trace() -> None:
    x = placeholder("x", ("n",), "float32")
    clipped = control.custom_vjp(lambda x: x * 2.0, lambda inputs, output, g: [g])
    y = control.stop_gradient(clipped(x + 1.0))
    exported = build_model(make_graph({"y": y, "again": apply(registry["recompute"](1), y)}, [x]))
    assert [node.op_type for node in exported.model.graph.node] == ["Add", "Mul", "Identity"]


def test_composites_with_an_operator_stay_whole() -> None:
    x = placeholder("x", ("n", 4), "float32")
    wide = placeholder("wide", ("n", 4), "float64")
    outputs = {
        "a": activation.softmax(x), "b": activation.log_softmax(wide), "c": gating.gelu(x), "d": statistics.mean(x),
        "e": activation.logsumexp(x, axis=1),
    }  # fmt: skip
    graph = make_graph(outputs, [x, wide])
    types = [node.op_type for node in build_model(graph).model.graph.node]
    assert types == ["Softmax", "LogSoftmax", "Gelu", "ReduceMean", "ReduceLogSumExp"]
    older = [node.op_type for node in build_model(graph, opset=19).model.graph.node]
    assert "Gelu" not in older
    assert "Exp" in older  # the normal distribution function by formula, exact in its tail, where erf + 1 is not


def test_random_bits_are_integer_operators_only() -> None:
    x = placeholder("x", ("n",), "float32")
    graph = make_graph({"bits": random.bits((x.shape[0], 3), seed=1, step=2, stream=3)}, [x])
    types = {node.op_type for node in build_model(graph).model.graph.node}
    assert not any("Random" in op_type or op_type in ("Bernoulli", "Dropout") for op_type in types)
    assert {"Add", "BitShift", "BitwiseXor", "BitwiseOr"} <= types


@pytest.fixture
def own_ops(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[Op]]:
    """Ops of a user: an elementwise one that ONNX has, one that it has not, a composite."""
    monkeypatch.setattr("graphc.ir.op.registry", dict(registry))

    @op_class
    class Sinh(Elementwise):
        onnx = "Sinh"

        def reference(self, x: np.ndarray) -> np.ndarray:
            return np.sinh(x)

    @op_class
    class Airy(Elementwise):
        def reference(self, x: np.ndarray) -> np.ndarray:
            return x

    @op_class
    class Swish(Elementwise):
        composite = True

        def decompose(self, *args: Node) -> Node:
            return args[0] * apply(registry["sigmoid"](), args[0])

    return {"sinh": Sinh, "airy": Airy, "swish": Swish}


def test_an_op_of_the_users_needs_no_rule_here(own_ops: dict[str, type[Op]]) -> None:
    x = placeholder("x", (3,), "float32")
    graph = make_graph({"a": apply(own_ops["sinh"](), x), "b": apply(own_ops["swish"](), x)}, [x])
    values = np.float32([-1, 0, 2])
    result = run(build_model(graph), x=values)
    np.testing.assert_allclose(result["a"], np.sinh(values), 1e-5)
    np.testing.assert_allclose(result["b"], values / (1 + np.exp(-values)), 1e-5)


def test_an_op_without_an_onnx_form_is_refused_with_its_line(own_ops: dict[str, type[Op]]) -> None:
    x = placeholder("x", (3,), "float32")
    y = apply(own_ops["airy"](), x)  # this line
    with pytest.raises(ExportError, match="airy has no ONNX form") as caught:
        build_model(make_graph({"y": y}, [x]))
    assert "# this line" in str(caught.value)
    assert "decompose" in str(caught.value)


def test_a_program_is_asked_for_its_graph_and_phase(tmp_path: Path) -> None:
    x, _, y = layer()
    program = SimpleNamespace(graph=make_graph({"y": y}, [x]), training=False)
    assert export(program, tmp_path / "program.onnx").exists()
    with pytest.raises(ExportError, match="compiled with training=False") as caught:
        export(program, tmp_path / "program.onnx", training=True)
    assert "training=True" in str(caught.value)
    with pytest.raises(ExportError, match="neither a program nor a graph"):
        export(y, tmp_path / "program.onnx")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("missing/model.onnx", "make it first"),
        ("folder", "give the name of a file"),
        ("file/model.onnx", "no folder"),
        ("x" * 300, "permissions"),
    ],
)
def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, place: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("not a folder")
    before = sorted(tmp_path.rglob("*"))
    x, _, y = layer()
    with pytest.raises(FileError) as caught:
        export(make_graph({"y": y}, [x]), tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)
    assert says in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failed_export_leaves_the_old_file(tmp_path: Path, own_ops: dict[str, type[Op]]) -> None:
    x, _, y = layer()
    path = export(make_graph({"y": y}, [x]), tmp_path / "model.onnx")
    before = path.read_bytes()
    with pytest.raises(ExportError):
        export(make_graph({"y": apply(own_ops["airy"](), y)}, [x]), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_element_types_of_the_signature() -> None:
    dtypes = ("bool", "uint32", "int32", "int64", "float32", "float64")
    inputs = [placeholder(dtype, ("n",), dtype) for dtype in dtypes]
    model: ModelProto = build_model(make_graph({f"out_{node.name}": node for node in inputs}, inputs)).model
    types = [value.type.tensor_type.elem_type for value in model.graph.output]
    assert types == [getattr(TensorProto, name) for name in ("BOOL", "UINT32", "INT32", "INT64", "FLOAT", "DOUBLE")]
