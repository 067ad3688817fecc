"""Lowering: the plan of a graph gives what NumPy gives node by node, and has the structure that it should."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc.ir.op import Case, registry
from graphc.ir.types import DType, TensorType
from graphc.lower.memory import layout, lifetimes
from graphc.lower.plan import GemmItem, KernelItem, Plan
from graphc.passes import decompose_for, simplify_graph
from graphc.passes.structure import Decompose
from graphc.passes.widen import WidenHalves
from tests.lower.judge import judge, kernels

ALL_OPS = [cls for cls in registry.values() if cls.cases()]


def f32(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(sum(map(ord, request.node.name)))


def operand(case: Case, spec: Any, rng: np.random.Generator) -> Any:
    if not isinstance(spec, TensorType):
        return np.asarray(spec)
    shape = tuple(int(size) for size in spec.shape)  # type: ignore[arg-type]
    if spec.dtype is DType.bool:
        return rng.random(shape) < 0.5
    if spec.dtype.is_float:
        return rng.uniform(*case.domain, shape).astype(spec.dtype.numpy)
    low, high = (int(edge) for edge in case.domain)
    low = max(low, 0) if spec.dtype is DType.uint32 else low
    return rng.integers(low, max(high, low + 1), shape).astype(spec.dtype.numpy)


@pytest.mark.parametrize("cls", ALL_OPS, ids=lambda cls: cls.name)
def test_every_case_of_every_op(cls: type, rng: np.random.Generator) -> None:
    from graphc.ir.graph import make_graph
    from graphc.ir.node import apply

    for number, case in enumerate(cls.cases()):  # type: ignore[attr-defined]
        arrays = [operand(case, spec, rng) for spec in case.operands]
        inputs = {gx.placeholder(f"x{i}", array.shape, array.dtype): array for i, array in enumerate(arrays)}
        node = apply(case.op, *inputs)
        graph = Decompose(lambda op: False).run(WidenHalves().run(make_graph({"y": node}, list(inputs))))
        one_rounding = {DType.float16: 1e-3, DType.bfloat16: 8e-3}.get(node.dtype, 2e-5)
        judge({"y": graph.roots[0]}, inputs, rtol=one_rounding, atol=1e-5)
        assert number >= 0


def test_softmax_is_one_kernel_with_its_exponentials_kept(rng: np.random.Generator) -> None:
    x = gx.placeholder("x", ("n", 10))
    shifted = gx.exp(x - gx.max(x, axis=-1, keepdims=True))
    plan = judge({"y": shifted / gx.sum(shifted, axis=-1, keepdims=True)}, {x: f32(rng, 7, 10)})
    assert len(kernels(plan)) == 1
    assert sum("exp" in repr(statement) for statement in repr(kernels(plan)[0]).split("Let(")) == 1


def test_a_column_sum_shares_the_kernel_of_what_it_sums(rng: np.random.Generator) -> None:
    x = gx.placeholder("x", ("n", 130))
    y = gx.tanh(x)
    plan = judge({"y": y, "sum": gx.sum(y, axis=0)}, {x: f32(rng, 9, 130)}, rtol=1e-4)
    assert len(plan.launches) == 1
    assert len(kernels(plan)) == 1


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (4, 0), (5, 1), (3, 70), (2, 5000)])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_reductions_of_odd_shapes(shape: tuple[int, int], axis: int | None, rng: np.random.Generator) -> None:
    x = gx.placeholder("x", ("n", shape[1]))
    outputs = {"sum": gx.sum(x, axis=axis), "mean": gx.sum(gx.exp(x), axis=axis, keepdims=True)}
    judge(outputs, {x: f32(rng, *shape)}, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [("a", "b", 3), (2, "b", "c"), (1, 1, 1), (2, 3, 4)])
def test_views_between_elementwise_work(shape: tuple[Any, ...], rng: np.random.Generator) -> None:
    x = gx.placeholder("x", shape)
    sizes = tuple({"a": 2, "b": 5, "c": 3}.get(size, size) for size in shape)
    y = gx.transpose(x * 2.0, (2, 0, 1))
    z = gx.reshape(y, (-1, shape[0])) if all(isinstance(s, int) for s in shape) else y
    judge({"y": gx.exp(z) + 1.0, "z": y[::1, 0:1] - 1.0, "flat": gx.flip(x, 1)}, {x: f32(rng, *sizes)})


@pytest.mark.parametrize("transpose", [(False, False), (True, False), (False, True), (True, True)])
def test_products_read_transposed_operands_in_place(transpose: tuple[bool, bool], rng: np.random.Generator) -> None:
    a = gx.placeholder("a", (4, 6) if not transpose[0] else (6, 4))
    b = gx.placeholder("b", (6, 3) if not transpose[1] else (3, 6))
    left = a.T if transpose[0] else a
    right = b.T if transpose[1] else b
    arrays = {a: f32(rng, *a.shape), b: f32(rng, *b.shape)}  # type: ignore[arg-type]
    plan = judge({"y": left @ right}, arrays)
    (launch,) = plan.launches
    (item,) = launch.items
    assert isinstance(item, GemmItem)
    assert (item.transpose_a, item.transpose_b) == transpose


@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 3, 4, 5), (5, 6)), ((2, 3, 4, 5), (3, 5, 6)), ((2, 1, 4, 5), (3, 5, 6)), ((4, 5), (2, 5, 6)), ((5,), (5, 2))],
)
def test_batched_products(left: tuple[int, ...], right: tuple[int, ...], rng: np.random.Generator) -> None:
    a, b = gx.placeholder("a", left), gx.placeholder("b", right)
    judge({"y": gx.matmul(a, b)}, {a: f32(rng, *left), b: f32(rng, *right)})


def test_a_batch_of_one_matrix_is_one_product(rng: np.random.Generator) -> None:
    a, w = gx.placeholder("a", ("batch", 7, 5)), gx.parameter("w", f32(rng, 5, 6))
    plan = judge({"y": gx.matmul(a, w)}, {a: f32(rng, 3, 7, 5)})
    (item,) = plan.launches[0].items
    assert isinstance(item, GemmItem)
    assert item.batch == 1


def training_step(rng: np.random.Generator) -> tuple[Plan, dict[str, int]]:
    x, labels = gx.placeholder("x", ("batch", 6)), gx.placeholder("labels", ("batch",), "int64")
    sizes = [(6, 8), (8, 5), (5, 4)]
    h, parameters = x, []
    for number, (rows, columns) in enumerate(sizes):
        w, b = gx.parameter(f"w{number}", f32(rng, rows, columns)), gx.parameter(f"b{number}", f32(rng, columns))
        h = h @ w + b
        parameters += [w, b]
        if number < 2:
            h = gx.relu(h)
    loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, h))
    step = gx.parameter("step", np.float32(0))
    updates = {step: step + 1.0}
    rate = 1e-3 * gx.sqrt(1 - gx.pow(0.999, updates[step])) / (1 - gx.pow(0.9, updates[step]))
    for p, g in zip(parameters, gx.grad(loss, parameters), strict=True):
        m, v = (gx.parameter(f"{p.label}_{s}", np.zeros(p.shape, np.float32)) for s in "mv")
        updates[m] = 0.9 * m + 0.1 * g
        updates[v] = 0.999 * v + 0.001 * g * g
        updates[p] = p - rate * updates[m] / (gx.sqrt(updates[v]) + 1e-7)
    from graphc.ir.graph import make_graph

    graph, _ = simplify_graph(make_graph({"loss": loss}, [x, labels], updates))
    graph = decompose_for(graph, lambda op: False)
    outputs = dict(graph.outputs)
    plan = judge(outputs, {x: f32(rng, 9, 6), labels: rng.integers(0, 4, 9)}, dict(graph.updates), rtol=1e-4)
    return plan, {"batch": 9}


def test_a_training_step_updates_all_parameters_in_one_kernel_in_place(rng: np.random.Generator) -> None:
    plan, dims = training_step(rng)
    last = plan.launches[-1]
    assert len(last.items) == 6
    assert len({item.kernel for item in last.items if isinstance(item, KernelItem)}) == 1
    assert all(access.access.value != "write" for item in last.items for access in item.kernel.buffers)  # type: ignore[union-attr]
    loss_kernels = [kernel for kernel in kernels(plan) if "exp" in repr(kernel)]
    assert len(loss_kernels) == 1, "softmax, cross entropy and its gradient are one kernel"
    arena = layout(plan, dims)
    assert arena.peak_bytes <= 1.15 * arena.largest_live_set_bytes


def test_no_two_live_buffers_overlap(rng: np.random.Generator) -> None:
    plan, dims = training_step(rng)
    arena, alive = layout(plan, dims), lifetimes(plan)
    spans = [(arena.offsets[i], plan.buffers[i].type.nbytes(dims), alive[i]) for i in alive]
    for position, (start, size, (first, last)) in enumerate(spans):
        assert start % 64 == 0
        for other, length, (begin, end) in spans[:position]:
            assert last < begin or end < first or start + size <= other or other + length <= start


def test_updates_that_need_each_other_commit_together() -> None:
    a, b, c = (gx.parameter(name, np.float32(value)) for name, value in (("a", 1), ("b", 2), ("c", 3)))
    judge({}, {}, {a: b + 0.0, b: c * 1.0, c: a - 0.0})
    judge({"old": a + 0.0}, {}, {a: b, b: a})


def test_an_update_that_is_read_elsewhere_is_copied(rng: np.random.Generator) -> None:
    w = gx.parameter("w", f32(rng, 4, 4))
    new = w * 0.5
    judge({"new": new, "sum": gx.sum(new), "product": new @ w}, {}, {w: new})
    judge({"first": w[0] * 2.0}, {}, {w: gx.transpose(w) + w})


def test_gather_and_scatter(rng: np.random.Generator) -> None:
    table, rows = gx.parameter("table", f32(rng, 10, 70)), gx.placeholder("rows", ("n", 3), "int32")
    taken = gx.take(table, rows, axis=0)
    (gradient,) = gx.grad(gx.sum(gx.tanh(taken)), [table])
    judge({"taken": taken, "gradient": gradient}, {rows: rng.integers(0, 10, (5, 3)).astype(np.int32)}, rtol=1e-4)


def test_a_kernel_writes_16_bit_floats_into_concatenations_of_both_types(rng: np.random.Generator) -> None:
    xs = [gx.placeholder(f"x{number}", (3, 4)) for number in range(2)]
    parts = [gx.cast(gx.exp(x), "bfloat16") for x in xs]
    outputs = {
        "narrow": gx.concatenate(parts, axis=1),
        "wide": gx.concatenate([gx.cast(part, "float32") for part in parts], axis=1),
    }
    plan = judge(outputs, {x: f32(rng, 3, 4) for x in xs}, rtol=1e-2)
    assert [len(item.buffers) for item in kernels(plan)] == [3, 3]  # each writes its part of both, and no copies


def test_kernels_hold_no_name_of_the_user() -> None:
    x = gx.placeholder("evil", ("os_system", 3))
    plan = judge({"y": gx.exp(x)}, {x: np.ones((2, 3), np.float32)})
    assert all("os_system" not in repr(kernel) and "evil" not in repr(kernel) for kernel in kernels(plan))


def test_a_sum_of_everything_runs_row_by_row(rng: np.random.Generator) -> None:
    x = gx.placeholder("x", ("n", 3, 50))
    plan = judge({"y": gx.sum(gx.exp(x)), "most": gx.max(x)}, {x: f32(rng, 7, 3, 50)}, rtol=1e-5)
    rows, total = plan.launches
    assert all(str(item.extent) == "n" for item in rows.items if isinstance(item, KernelItem))
    assert all(item.extent == 1 for item in total.items if isinstance(item, KernelItem))


def test_reports_are_about_the_sizes_of_the_last_call() -> None:
    x = gx.placeholder("x", ("n", 3))
    program = gx.compile({"y": gx.sum(gx.exp(x), axis=0)}, inputs=[x], backend="reference")
    for n in (4, 9, 4):
        program(x=np.zeros((n, 3), np.float32))
        assert program.sizes() == {"n": n}


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was_after_compiling(enabled):
    x, w = gx.placeholder("x", (3, 3)), gx.placeholder("w", (3, 3))
    (gc.enable if enabled else gc.disable)()
    try:
        gx.compile({"y": x + w}, inputs=[x, w], backend="numba")
        assert gc.isenabled() is enabled
        with pytest.raises(gx.GraphError, match="cannot be reached"):
            gx.compile({"y": gx.tanh(x @ w) @ w}, inputs=[x, w], backend="numba", memory_budget=1)
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
