"""Mixed precision as a pass: what is rounded, what is not, and that it is so in loops, branches and reports."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as gx
from graphc.errors import AxisError
from graphc.ir.graph import Graph, make_graph
from graphc.ir.node import Node
from graphc.ir.op import registry
from graphc.ir.precision import PRECISIONS, find_precision
from graphc.ir.types import DType
from graphc.ops.cast import Cast
from graphc.ops.linear import MatMul
from graphc.ops.scan import Scan
from graphc.passes import MixedPrecision, decompose_for, simplify_graph, use_factors

BF16 = DType.bfloat16
MULTIPLYING = {
    "attention_gradients": ("query", "key", "value", "cotangent"),
    "conv": ("x", "kernel"),
    "conv_kernel_grad": ("x", "g"),
    "conv_transpose": ("g", "kernel"),
    "matmul": ("a", "b"),
    "patch_gradient": ("x", "g"),
    "patch_product": ("x", "kernel"),
    "scaled_dot_product_attention": ("query", "key", "value"),
}
"""What mixed precision rounds: everything else stays in float32."""


def mixed(outputs: dict[str, Node], inputs: list[Node], updates=None, dtype: DType = BF16) -> Graph:
    graph, _ = simplify_graph(make_graph(outputs, inputs, updates))
    return use_factors(graph, dtype)


def is_rounded(node: Node, dtype: DType = BF16) -> bool:
    while node.op.name in ("reshape", "transpose"):
        (node,) = node.args
    return isinstance(node.op, Cast) and node.args[0].dtype is dtype


def products(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if isinstance(node.op, MatMul)]


def weights(*shapes: tuple[int, ...]) -> list[gx.Parameter]:
    rng = np.random.default_rng(0)
    return [gx.parameter(f"w{i}", rng.standard_normal(s).astype(np.float32)) for i, s in enumerate(shapes)]


def test_the_list_of_what_is_rounded():
    assert {name: op.factors for name, op in registry.items() if op.factors} == MULTIPLYING


@pytest.mark.parametrize("name", PRECISIONS)
def test_policies_by_name(name):
    policy = find_precision(name)
    assert policy.name == name
    assert policy.tf32 is (name == "tf32")
    assert (policy.factors is not None) is name.startswith("mixed_")
    assert find_precision(None) == find_precision("float32")
    x = gx.placeholder("x", (2,))
    for wrong in ("bfloat16", "mixed"):
        with pytest.raises(AxisError, match="mixed_bfloat16"):
            gx.compile({"y": x}, [x], precision=wrong)


@pytest.mark.parametrize("case", ["matmul", "conv", "attention"])
def test_operands_are_rounded_and_sums_are_not(case):
    rng = np.random.default_rng(1)
    if case == "matmul":
        shapes = (5, 40), (40, 3)
        make = gx.matmul
    elif case == "conv":
        shapes = (2, 6, 6, 3), (3, 3, 3, 4)
        make = gx.conv
    else:
        shapes = (2, 4, 8), (2, 5, 8), (2, 5, 6)
        make = gx.scaled_dot_product_attention
    inputs = [gx.placeholder(f"x{i}", shape) for i, shape in enumerate(shapes)]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    rounded = [array.astype(BF16.numpy).astype(np.float32) for array in arrays]
    outputs = {"y": make(*inputs)}
    found = gx.compile(outputs, inputs, backend="reference", precision="mixed_bfloat16").call(arrays)[0]
    wanted = gx.compile(outputs, inputs, backend="reference").call(rounded)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    assert np.abs(found - gx.compile(outputs, inputs, backend="reference").call(arrays)[0]).max() > 1e-4


def test_a_training_step_rounds_between_products_and_nowhere_else():
    x, t = gx.placeholder("x", ("n", 8)), gx.placeholder("t", ("n", 3))
    w, v = weights((8, 16), (16, 3))
    h = gx.gelu(x @ w)
    loss = gx.mean(gx.softmax_cross_entropy(t, h @ v))
    dw, dv = gx.grad(loss, [w, v])
    graph = mixed({"loss": loss}, [x, t], {w: w - 0.1 * dw, v: v - 0.1 * dv})
    found = products(graph)
    assert len(found) == 5
    assert all(is_rounded(arg) for node in found for arg in node.args)
    first, second, *rest = found
    results = {id(node): [user.dtype for user in graph.users[id(node)]] for node in found}
    assert results[id(first)] == results[id(second)] == [BF16]
    gradients = [node for node in rest if results[id(node)] != [BF16]]
    assert [node.shape for node in gradients] == [(8, 16), (16, 3)]
    for _, new in graph.updates:  # the state's arithmetic sees float32 only
        assert new.dtype is DType.float32
        assert not is_rounded(new)
    halves = {node.op.name for node in graph.nodes if node.dtype.is_half}
    assert halves == {"cast"}


def test_weights_are_rounded_once_and_leaves_are_left():
    x = gx.placeholder("x", ("n", 4))
    (w,) = weights((4, 4))
    graph = mixed({"y": (x @ w) @ w + gx.sum(w * w), "x": x * 2.0}, [x])
    narrow = [node for node in graph.nodes if node.dtype is BF16]
    assert sum(node.args[0] is w for node in narrow) == 1
    assert [user.op.name for user in graph.users[id(w)]].count("multiply") == 2  # the penalty is that of the weight
    doubled = dict(graph.outputs)["x"]
    assert x in doubled.args


def test_what_a_product_reads_everyone_reads():
    x = gx.placeholder("x", ("n", 4))
    (w,) = weights((4, 4))
    h = gx.tanh(x)
    graph = mixed({"y": h @ w, "sum": gx.sum(h)}, [x])
    (tanh,) = (node for node in graph.nodes if node.op.name == "tanh")
    assert [user.dtype for user in graph.users[id(tanh)]] == [BF16]
    assert is_rounded(dict(graph.outputs)["sum"].args[0])


def test_scores_whose_largest_is_subtracted_are_not_rounded():
    q, k, v = (gx.placeholder(name, (2, 5, 8)) for name in "qkv")
    scores = q @ gx.transpose(k, (0, 2, 1))
    e = gx.exp(scores - gx.max(scores, axis=-1, keepdims=True))
    graph = mixed({"y": (e / (gx.sum(e, axis=-1, keepdims=True) + 1.0)) @ v}, [q, k, v])
    first, _ = products(graph)
    assert not any(user.dtype is BF16 for user in graph.users[id(first)])


def test_what_is_rounded_stays_as_it_is():
    x = gx.placeholder("x", ("n", 4))
    w, v = weights((4, 6), (6, 2))
    graph = mixed({"y": gx.relu(x @ w) @ v}, [x])
    again = MixedPrecision(BF16).run(graph)
    assert all(a is b for a, b in zip(graph.roots, again.roots, strict=True))
    plain = make_graph({"y": gx.exp(x)}, [x])
    assert MixedPrecision(BF16).run(plain) is plain


def lstm(steps: int, width: int) -> tuple[Node, Node, list[gx.Parameter]]:
    x = gx.placeholder("x", ("n", steps, width))
    into, within = weights((width, 4 * width), (width, 4 * width))

    def cell(carry, now):
        before, memory = carry
        z = now + before @ within
        i, f, g, o = (z[:, k * width : (k + 1) * width] for k in range(4))
        memory = gx.sigmoid(f) * memory + gx.sigmoid(i) * gx.tanh(g)
        after = gx.sigmoid(o) * gx.tanh(memory)
        return (after, memory), after

    zeros = gx.zeros_like(x[:, 0])
    _, h = gx.scan(cell, (zeros, zeros), gx.transpose(x, (1, 0, 2)) @ into)
    return x, h, [into, within]


def test_in_a_loop_weights_are_rounded_before_it_and_the_carry_is_carried_in_16_bits():
    x, h, parameters = lstm(6, 4)
    gradients = gx.grad(gx.sum(h * h), parameters)
    graph = mixed({"h": h, "d0": gradients[0], "d1": gradients[1]}, [x])
    scans = [node for node in graph.nodes if isinstance(node.op, Scan)]
    assert len(scans) == 2
    for node in scans:
        body = node.op.body
        assert products(body)
        assert all(arg.op.name == "input" or is_rounded(arg) for p in products(body) for arg in p.args)
        assert not any(arg.op.name == "parameter" for arg in node.args)  # rounded outside
    forward = scans[0].op
    assert [carry.dtype for carry in forward.body.inputs[: forward.carries]].count(BF16) == 1


@pytest.mark.parametrize(("backend", "precision"), [("numba", "mixed_bfloat16"), ("reference", "mixed_float16")])
def test_loops_compute_nearly_what_they_compute_in_float32(backend, precision):
    x, h, parameters = lstm(6, 4)
    loss = gx.mean(h * h)
    outputs = {"loss": loss, **{f"d{i}": g for i, g in enumerate(gx.grad(loss, parameters))}}
    data = np.random.default_rng(3).standard_normal((5, 6, 4)).astype(np.float32)
    found = gx.compile(outputs, [x], backend=backend, precision=precision)(x=data)
    exact = gx.compile(outputs, [x], backend="reference")(x=data)
    unit = 2.0**-8 if precision == "mixed_bfloat16" else 2.0**-11
    for name, value in exact.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=8 * unit * np.abs(value).max())
    assert any((found[name] != value).any() for name, value in exact.items())


def test_carries_that_change_places_branches_and_loops_that_end():
    x, p = gx.placeholder("x", (2, 3)), gx.placeholder("p", (), "bool")
    w, v = weights((3, 3), (3, 3))

    def swap(carry, _):
        a, b = carry
        return (b, gx.tanh(a @ w)), a

    (last, _), seen = gx.scan(swap, (x, x * 0.5), length=5)
    halved, steps = gx.while_loop(lambda c: gx.max(c @ w) > 0.01, lambda c: (c @ w) * 0.1, x, most=20)
    either = gx.cond(p, lambda c: c @ v, lambda c: gx.sin(c), x)
    outputs = {"last": last, "seen": seen, "halved": halved, "steps": steps, "either": either}
    data = np.random.default_rng(5).standard_normal((2, 3)).astype(np.float32)
    results = {}
    for backend in ("numba", "reference"):
        program = gx.compile(outputs, [x, p], backend=backend, precision="mixed_bfloat16")
        results[backend] = {taken: program(x=data, p=np.array(taken)) for taken in (True, False)}
    exact = gx.compile(outputs, [x, p], backend="reference")
    for taken in (True, False):
        wanted = exact(x=data, p=np.array(taken))
        for name, value in results["numba"][taken].items():
            np.testing.assert_allclose(value, results["reference"][taken][name], rtol=2e-2, atol=2e-3)
            np.testing.assert_allclose(value, wanted[name], rtol=0.1, atol=0.05)
    np.testing.assert_allclose(results["numba"][False]["either"], np.sin(data), rtol=1e-6)  # nothing is rounded there


def test_attention_that_is_decomposed_rounds_its_weights():
    q, k, v = (gx.placeholder(name, (2, 5, 8)) for name in "qkv")
    graph = mixed({"y": gx.scaled_dot_product_attention(q, k, v)}, [q, k, v])
    plain = decompose_for(graph, lambda op: False, factors=BF16)
    assert len(products(plain)) == 2
    assert all(is_rounded(arg) for node in products(plain) for arg in node.args)


def test_tf32_is_a_fact_of_the_plan():
    x = gx.placeholder("x", ("n", 4))
    (w,) = weights((4, 4))
    plans = {name: gx.compile({"y": x @ w}, [x], backend="numba", precision=name).plan for name in PRECISIONS}
    assert {name for name, plan in plans.items() if plan.tf32} == {"tf32"}


def test_small_gradients_survive_in_float16_by_scaling():
    x = gx.placeholder("x", (4, 4))
    w, v = weights((4, 4), (4, 4))
    scale = gx.parameter("scale", np.float32(2.0**15))
    loss = gx.sum((x @ w) @ v) * 1e-9
    plain = gx.grad(loss, [w])[0]
    scaled = gx.grad(loss * scale, [w])[0] / scale
    outputs = {"plain": plain, "scaled": scaled}
    data = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    found = gx.compile(outputs, [x], backend="numba", precision="mixed_float16")(x=data)
    exact = gx.compile(outputs, [x], backend="numba")(x=data)
    assert not found["plain"].any()
    np.testing.assert_allclose(found["scaled"], exact["scaled"], rtol=0, atol=1e-2 * np.abs(exact["scaled"]).max())
    assert math.isclose(float(np.abs(exact["plain"] - exact["scaled"]).max()), 0, abs_tol=1e-14)
