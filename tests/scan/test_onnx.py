"""Loops in ONNX files: onnxruntime runs them, of any length, and trains with them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphc as gx
from graphc.backends.onnx.export import build_model
from tests.scan.cells import CELLS, problem, scalar


def program_of(outputs, inputs, updates=None):
    return gx.compile(outputs, inputs=inputs, updates=updates, backend="reference")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_a_file_gives_the_same_values_and_gradients(tmp_path, name, reverse):
    p = problem(name, 4, reverse, seed=11, dtype="float32")
    outputs = {f"y{i}": node for i, node in enumerate([*p.looped, *gx.grad(scalar(p.looped), p.leaves)])}
    program = program_of(outputs, p.leaves)
    path = gx.onnx.export(program, tmp_path / "loop.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    report = gx.onnx.verify(path, program, inputs=p.arrays)
    assert report.ok, str(report)


@pytest.mark.parametrize("start", [40.0, 0.5, 1e30, np.nan])
def test_a_loop_that_ends_by_itself_ends_by_itself_in_the_file(tmp_path, start):
    x, y = gx.placeholder("x", ()), gx.placeholder("y", (2,))
    halved, steps = gx.while_loop(lambda v: v > 1, lambda v: v / 2, x, most=30)
    (a, b), _ = gx.while_loop(lambda v: gx.sum(v[0]) < 10.0, lambda v: (v[0] + y, v[1] * halved), (y, y), most=5)
    program = program_of({"halved": halved, "steps": steps, "a": a, "b": b}, [x, y])
    path = gx.onnx.export(program, tmp_path / "while.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    report = gx.onnx.verify(path, program, inputs={"x": np.float32(start), "y": np.float32([1, 2])})
    assert report.ok, str(report)


@pytest.mark.parametrize("start", [[0, 1, 0], [4, 4, 4]])
def test_results_of_steps_that_do_not_run_are_zeros_in_the_file_too(tmp_path, start):
    first, rise = gx.placeholder("first", ("batch",), "int64"), gx.placeholder("rise", (6, "batch"), "int64")
    last, path = gx.scan(lambda c, r: (c + r, c * 2), first, rise, going=lambda c: gx.any(c < 4))
    scalars = gx.scan(lambda c, r: (c, gx.sum(r) > 2), first, rise, going=lambda c: gx.any(c < 4))[1]
    program = program_of({"last": last, "path": path, "scalars": scalars}, [first, rise])
    out = gx.onnx.export(program, tmp_path / "path.onnx")
    report = gx.onnx.verify(out, program, inputs={"first": np.array(start), "rise": np.ones((6, 3), np.int64)})
    assert report.ok, str(report)


def classifier():
    """An LSTM over sequences of any length, its last output to two classes, trained by gradient descent."""
    make, cell = CELLS["lstm"]
    random = np.random.default_rng(0)
    w = [gx.parameter(f"w{i}", random.uniform(-0.5, 0.5, s).astype(np.float32)) for i, s in enumerate(cell.weights)]
    head = gx.parameter("head", random.uniform(-0.5, 0.5, (4, 2)).astype(np.float32))
    x = gx.placeholder("x", ("batch", "time", 3))
    y = gx.placeholder("y", ("batch",), "int64")
    zeros = gx.zeros((x.shape[0], 4))
    (last, _), _ = gx.scan(make(w), (zeros, zeros), (gx.transpose(x, (1, 0, 2)),))
    loss = gx.mean(gx.sparse_softmax_cross_entropy(y, last @ head))
    state = [*w, head]
    updates = {p: p - 0.5 * g for p, g in zip(state, gx.grad(loss, state), strict=True)}
    return program_of({"loss": loss}, [x, y], updates)


def test_a_training_step_with_any_batch_and_time(tmp_path):
    program = classifier()
    path = gx.onnx.export(program, tmp_path / "train.onnx")
    random = np.random.default_rng(1)
    batches = [
        {"x": random.standard_normal((b, t, 3)).astype(np.float32), "y": random.integers(0, 2, b)}
        for b, t in ((4, 5), (2, 9), (7, 1), (3, 20))
    ]
    report = gx.onnx.verify(path, program, steps=12, inputs=batches)
    assert report.ok, str(report)
    assert report.steps == 12


def test_a_step_runs_in_one_loop_each_way():
    """Two Scans, a recurrent product in each; the others stand outside."""
    model = build_model(classifier()).model
    loops = [node for node in model.graph.node if node.op_type == "Scan"]
    assert len(loops) == 2
    for loop in loops:
        body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
        assert [node.op_type for node in body.node].count("MatMul") == 1


def test_loops_within_loops(tmp_path):
    x = gx.placeholder("x", ("n", "m", 3))
    w = gx.parameter("w", np.random.default_rng(0).uniform(-1, 1, (3, 3)).astype(np.float32))

    def row(carry, xs):
        return gx.scan(lambda c, e: (gx.tanh(c @ w + e),) * 2, carry, xs)

    last, rows = gx.scan(row, gx.zeros((3,)), x)
    program = program_of({"last": last, "rows": rows, "dw": gx.grad(gx.sum(last * last), [w])[0]}, [x])
    path = gx.onnx.export(program, tmp_path / "nested.onnx")
    report = gx.onnx.verify(path, program)
    assert report.ok, str(report)
