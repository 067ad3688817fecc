"""Programs within a memory budget: the same numbers from less memory, or an error that says how much is needed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import graphc as gx
from graphc import driver
from graphc.errors import GraphError
from graphc.ir.graph import make_graph
from graphc.ir.text import print_graph
from graphc.lower.budget import lower_within
from graphc.lower.memory import item_bytes
from graphc.ops.control import Recompute
from graphc.passes import decompose_for, prepare, remat, run_passes, simplify_graph
from graphc.passes.remat import JointGraph, KeepLess, Rematerialize

ROWS, WIDTH, LAYERS = 1024, 32, 8


def network() -> tuple[gx.Node, list[gx.Node], dict]:
    """Residual blocks with a slope that reads the forward pass, random bits, and statistics that are kept at once."""
    x, t = gx.placeholder("x", (ROWS, WIDTH)), gx.placeholder("t", (ROWS, WIDTH))
    weights, means, h = [], {}, x
    for layer in range(LAYERS):
        rng = np.random.default_rng(layer)
        w = gx.parameter(f"w{layer}", (0.2 * rng.standard_normal((WIDTH, WIDTH))).astype(np.float32))
        mean = gx.parameter(f"mean{layer}", np.zeros(WIDTH, np.float32))
        h = gx.dropout(gx.relu(gx.tanh(h @ w) + h), 0.1, np.uint32(5), stream=layer)
        means[mean] = 0.9 * mean + 0.1 * gx.mean(h, axis=0)
        weights.append(w)
    loss = gx.mean((h - t) ** 2)
    updates = {w: w - 0.1 * g for w, g in zip(weights, gx.grad(loss, weights), strict=True)}
    return loss, [x, t], {**updates, **means}


@cache
def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {name: rng.standard_normal((ROWS, WIDTH), np.float32) for name in ("x", "t")}


def trained(budget: float | None) -> tuple[gx.Program, list[float], list[np.ndarray]]:
    loss, inputs, updates = network()
    step = gx.compile(
        {"loss": loss}, inputs=inputs, updates=updates, backend="numba", training=True, memory_budget=budget
    )
    losses = [float(step(**batch())["loss"]) for _ in range(3)]
    return step, losses, [p.value for p in updates]


@cache
def plain() -> tuple[gx.Program, list[float], list[np.ndarray]]:
    return trained(None)


@pytest.mark.parametrize("part", [1.0, 0.8, 0.65])
def test_less_memory_gives_the_same_numbers(part):
    whole, losses, values = plain()
    step, found, new = trained(part)
    assert found == losses  # the same kernels' sums, the same random bits
    for a, b in zip(values, new, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-7)
    arena, report = step.memory().peak_bytes, step.rematerialization
    assert report is not None
    assert report.plain_bytes == whole.memory().peak_bytes
    assert arena == report.peak_bytes <= report.budget_bytes == int(part * report.plain_bytes)
    assert bool(report.recomputed) == (part < 1)
    assert "memory budget" in step.explain()
    if part < 1:
        assert any(value.op == "tanh" for value in report.recomputed)
        assert "test_remat.py" in str(report)


def test_a_budget_in_bytes():
    bytes_needed = int(0.8 * plain()[0].memory().peak_bytes)
    assert trained(bytes_needed)[0].memory().peak_bytes <= bytes_needed


def test_a_budget_that_cannot_be_reached_says_what_can():
    with pytest.raises(GraphError, match=r"1000 bytes cannot be reached: (\d+) is the least") as error:
        trained(1000)
    least = int(str(error.value).split("reached: ")[1].split()[0])
    assert trained(least)[0].memory().peak_bytes <= least


@pytest.mark.parametrize("budget", [0, -5, 0.0, 1.5, True, "half"])
def test_what_is_no_budget(budget):
    with pytest.raises(GraphError, match="memory_budget"):
        trained(budget)


def test_a_backend_without_memory_plans_refuses():
    loss, inputs, updates = network()
    with pytest.raises(GraphError, match="plans no memory"):
        gx.compile({"loss": loss}, inputs=inputs, updates=updates, backend="reference", memory_budget=0.5)


def test_the_pass_leaves_the_forward_pass_and_chooses_alike():
    loss, inputs, updates = network()
    graph, _ = simplify_graph(prepare(make_graph({"loss": loss}, inputs, updates), training=True))
    again = Rematerialize(4.0).run(graph)
    assert again.outputs == graph.outputs
    assert print_graph(Rematerialize(4.0).run(graph)) == print_graph(again)
    assert any(isinstance(node.op, Recompute) for node in again.nodes)
    assert {id(node) for node in graph.nodes} >= {id(node) for node in JointGraph(again, 16, {}).forward}


def test_a_higher_price_of_memory_keeps_fewer_bytes():
    loss, inputs, updates = network()
    graph, _ = simplify_graph(prepare(make_graph({"loss": loss}, inputs, updates), training=True))
    joint = JointGraph(graph, 16, {})
    kept = [sum(map(joint.nbytes, joint.choose(price).kept)) for price in (0.0, 0.1, 1.0, 1000.0)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[-1]


def test_what_costs_nothing_is_computed_again_where_much_is_kept(monkeypatch):
    def compiled() -> tuple[gx.Program, list[gx.Parameter]]:
        h, weights = gx.placeholder("x", (ROWS, WIDTH)), []
        inputs = [h]
        for layer in range(4):
            rng = np.random.default_rng(layer)
            pair = [gx.parameter(f"{name}{layer}", (0.2 * rng.standard_normal((WIDTH, WIDTH))).astype(np.float32))
                    for name in "ab"]  # fmt: skip
            centred = h - gx.mean(h, axis=1, keepdims=True)
            normal = centred * gx.rsqrt(gx.mean(gx.square(centred), axis=1, keepdims=True) + 1e-5)
            h = gx.relu(normal * gx.sum(pair[0], axis=0) @ pair[0]) @ pair[1]
            weights += pair
        loss = gx.mean(gx.square(h))
        updates = {w: w - 0.1 * g for w, g in zip(weights, gx.grad(loss, weights), strict=True)}
        return gx.compile({"loss": loss}, inputs=inputs, updates=updates, backend="numba"), weights

    def is_apart(step: gx.Program) -> bool:
        return any(isinstance(node.op, Recompute) for node in step.plan.graph.nodes)

    usual, old = compiled()
    monkeypatch.setattr(remat, "LARGE_BYTES", 1000)
    step, new = compiled()
    assert is_apart(step)
    assert not is_apart(usual)
    assert step.memory().peak_bytes < usual.memory().peak_bytes
    for _ in range(2):
        np.testing.assert_allclose(step(x=batch()["x"])["loss"], usual(x=batch()["x"])["loss"], rtol=1e-6)
    for a, b in zip(old, new, strict=True):
        np.testing.assert_allclose(b.value, a.value, rtol=1e-6, atol=1e-7)


def test_where_functions_cost_nothing_slopes_and_normalized_rows_are_made_where_they_are_read(monkeypatch):
    """Of gelu and of residual blocks that normalize what they read, for a backend that computes freely."""

    def compiled(freely: bool) -> tuple[gx.Program, list[gx.Parameter]]:
        monkeypatch.setattr(driver, "_keep_less", lambda _: KeepLess(freely))
        y, made = gx.placeholder("x", (ROWS, WIDTH)), []
        inputs = [y]
        for layer in range(3):
            rng = np.random.default_rng(layer)
            shapes = {"scale": (WIDTH,), "shift": (WIDTH,), "a": (WIDTH, 64), "bias": (64,), "b": (64, WIDTH)}
            scale, shift, a, bias, b = (
                gx.parameter(f"{name}{layer}", (0.3 * rng.standard_normal(shape)).astype(np.float32))
                for name, shape in shapes.items()
            )
            centred = y - gx.mean(y, axis=1, keepdims=True)
            normal = centred * gx.rsqrt(gx.mean(gx.square(centred), axis=1, keepdims=True) + 1e-5)
            inner = gx.gelu((normal * scale + shift) @ a + bias, approximate="tanh")
            y = y + inner @ b
            made += [scale, shift, a, bias, b]
        loss = gx.mean(gx.square(y))
        updates = {w: w - 0.1 * g for w, g in zip(made, gx.grad(loss, made), strict=True)}
        return gx.compile({"loss": loss}, inputs=inputs, updates=updates, backend="numba", training=True), made

    def moved(step: gx.Program) -> int:
        return sum(item_bytes(step.plan, item, {}) for launch in step.plan.launches for item in launch.items)

    monkeypatch.setattr(remat, "LARGE_BYTES", 1000)
    (usual, old), (step, new) = (compiled(freely) for freely in (False, True))
    assert moved(usual) - moved(step) >= 4 * ROWS * 3 * 64  # instead of a slope its argument is read, not written
    assert step.memory().peak_bytes < usual.memory().peak_bytes
    for _ in range(2):
        np.testing.assert_allclose(step(x=batch()["x"])["loss"], usual(x=batch()["x"])["loss"], rtol=1e-5)
    for a, b in zip(old, new, strict=True):
        np.testing.assert_allclose(b.value, a.value, rtol=1e-4, atol=1e-5)


def test_a_model_trains_within_a_budget():
    def fitted(budget: float | None) -> tuple[list[float], gx.Program]:
        gx.set_seed(3)
        model = gx.Sequential([gx.Input((WIDTH,)), *(gx.layers.Dense(64, activation="tanh") for _ in range(6))])
        model.compile("sgd", "mse", backend="numba", memory_budget=budget)
        y = np.zeros((ROWS, 64), np.float32)
        history = model.fit(batch()["x"], y, batch_size=512, epochs=2, verbose=0)
        return history.history["loss"], model.programs["train"]

    losses, whole = fitted(None)
    again, program = fitted(0.95)
    np.testing.assert_allclose(again, losses, rtol=1e-6)
    assert program.memory(batch=32).peak_bytes <= 0.95 * whole.memory(batch=32).peak_bytes


def test_the_results_of_a_loop_are_kept_each_for_itself():
    """Without kernels: the graph holds together, and its plan needs less."""
    dense = (gx.layers.Dense(32, activation="tanh") for _ in range(4))
    model = gx.Sequential([gx.Input((8, 4)), *dense, gx.layers.LSTM(8), gx.layers.Dense(3)])
    model.compile("sgd", "mse", backend="reference")
    graph = decompose_for(model.programs["train"].simplified, lambda op: False)
    plain = run_passes(graph, (KeepLess(),))
    _, found = lower_within(graph, plain, 0.9, {})
    assert found.peak_bytes <= 0.9 * found.plain_bytes
