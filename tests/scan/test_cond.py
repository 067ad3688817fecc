"""A cond is the branch that is taken: values, derivatives of any order, plans, files; and the other one does not run."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import onnx
import pytest

import graphc as gx
from graphc.backend import find_backend
from graphc.driver import make_plan
from graphc.ir.graph import make_graph, structurally_equal
from graphc.ir.op import registry
from graphc.ir.text import parse_graph, print_graph
from graphc.lower.interpret import CheckFailed, run_plan
from graphc.lower.memory import layout
from graphc.ops.cond import Cond
from graphc.passes import decompose_for, prepare, simplify_graph
from graphc.passes.remat import Rematerialize

BACKENDS = ("reference", "numba")
random = np.random.default_rng(0)
W = random.uniform(-1, 1, (3, 3))
V = random.uniform(-1, 1, (3, 3))


def leaves(n="n"):
    return gx.placeholder("p", (), "bool"), gx.placeholder("x", (n, 3), "float64")


def simple(p, x):
    """Both branches read both operands, one more from outside, and give two results."""
    w = gx.constant(W)
    return gx.cond(
        p,
        lambda a, b: (gx.tanh(a @ w) * b, gx.sum(a)),
        lambda a, b: (a * b + gx.exp(b), gx.mean(b * b)),
        x * 2.0, gx.sin(x),
    )  # fmt: skip


def one_sided(p, x):
    """One branch reads nothing; the other one reads what only one of them needs."""
    return gx.cond(p, lambda: gx.zeros(("n", 3), "float64"), lambda: gx.exp(x) @ gx.constant(V)), gx.sum(x)


def same(p, x):
    """An operand as it is, twice; and a number."""
    return gx.cond(p, lambda a: (a, a, 1.0), lambda a: (a + 1.0, a, gx.sum(a)), x)


def within(p, x):
    """A cond in a branch, and a loop in the other one."""
    w = gx.constant(W)
    inner = gx.sum(x) > 0
    return gx.cond(
        p,
        lambda a: gx.cond(inner, lambda b: b @ w, lambda b: b * b, gx.tanh(a)),
        lambda a: gx.scan(lambda c, e: (gx.tanh(c @ w + e), None), a, gx.stack([a, a * 2.0, a * a]))[0],
        x,
    )


def looped(p, x):
    """A branch in each step of a loop, on the carry."""
    w = gx.constant(W)

    def step(c, e):
        large = gx.logical_xor(gx.sum(c) > 0, p)
        c, extra = gx.cond(large, lambda v: (gx.tanh(v @ w) + e, gx.sum(e)), lambda v: (v * e, gx.sum(v)), c)
        return c, extra

    return gx.scan(step, x[:1], gx.expand_dims(x, 1))


def looped_by_hand(p, x):
    w, c, extras = gx.constant(W), x[:1], []
    for t in range(4):
        e = x[t : t + 1]
        large = gx.logical_xor(gx.sum(c) > 0, p)
        extras.append(gx.where(large, gx.sum(e), gx.sum(c)))
        c = gx.where(large, gx.tanh(c @ w) + e, c * e)
    return c, gx.stack(extras)


CASES = {"simple": simple, "one sided": one_sided, "same": same, "within": within, "looped": looped}


def nodes_of(result):
    return list(result) if isinstance(result, tuple) else [result]


def weighed(values):
    return gx.sum(gx.stack([gx.sum(v * v * gx.cos(gx.cast(i + 1, "float64"))) for i, v in enumerate(values)]))


def everything(name):
    """Values, gradients, a second derivative and a tangent."""
    p, x = leaves()
    values = nodes_of(CASES[name](p, x))
    loss = weighed(values)
    (dx,) = gx.grad(loss, [x])
    (ddx,) = gx.grad(gx.sum(dx * gx.cos(x)), [x])
    (moved,) = gx.jvp([loss], [x], [gx.sin(x)])
    return [p, x], [*values, dx, ddx, moved]


def graph_of(outputs, inputs):
    return make_graph({f"y{i}": node for i, node in enumerate(outputs)}, inputs)


def compiled(outputs, inputs, backend, **more):
    return gx.compile({f"y{i}": node for i, node in enumerate(outputs)}, inputs=inputs, backend=backend, **more)


def feeds(taken, seed=0):
    return {"p": np.array(taken), "x": np.random.default_rng(seed).uniform(-1, 1, (4, 3))}


@pytest.mark.parametrize("name", CASES)
def test_native_code_and_its_plan_give_what_numpy_gives(name):
    """Also for a size not seen before, without new machine code; the interpreter checks every read and write."""
    inputs, outputs = everything(name)
    native, reference = (compiled(outputs, inputs, backend) for backend in ("numba", "reference"))
    plan = make_plan(simplify_graph(prepare(graph_of(outputs, inputs)))[0], find_backend("numba"))
    assert any(loop.going is not None for loop in plan.loops)
    source = native.source()
    for taken in (True, False):
        for seed in (0, 1):
            given = feeds(taken, seed)
            wanted = reference(**given).values()
            interpreted = run_plan(plan, [given[node.name] for node in inputs], {"n": 4})
            for a, b, c in zip(native(**given).values(), interpreted, wanted, strict=True):
                np.testing.assert_allclose(a, c, rtol=1e-10, atol=1e-12)
                np.testing.assert_allclose(b, c, rtol=1e-10, atol=1e-12)
        wider = {**given, "x": random.uniform(-1, 1, (7, 3))}
        for a, c in zip(native(**wider).values(), reference(**wider).values(), strict=True):
            np.testing.assert_allclose(a, c, rtol=1e-10, atol=1e-12)
    assert native.source() == source


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_slopes(name, taken):
    """Reverse, forward, and reverse of reverse."""
    inputs, outputs = everything(name)
    *values, dx, ddx, moved = outputs
    given = feeds(taken)
    sums = [weighed(values), gx.sum(dx * gx.cos(inputs[1]))]
    program = compiled([*sums, dx, moved, ddx], inputs, "reference")
    step, direction = 1e-6, np.sin(given["x"])
    ahead, behind = (program(**{**given, "x": given["x"] + s * direction}) for s in (step, -step))
    slope, second = ((ahead[y] - behind[y]) / (2 * step) for y in ("y0", "y1"))
    found = program(**given)
    np.testing.assert_allclose(found["y3"], slope, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(np.sum(found["y2"] * direction), slope, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(np.sum(found["y4"] * direction), second, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("taken", [True, False])
def test_a_branch_in_a_loop_is_its_steps_written_out(taken):
    p, x = leaves(4)
    found, wanted = nodes_of(looped(p, x)), nodes_of(looped_by_hand(p, x))
    pairs = [compiled([*v, *gx.grad(weighed(v), [x])], [p, x], "reference")(**feeds(taken)) for v in (found, wanted)]
    for a, b in zip(*(pair.values() for pair in pairs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_a_file_branches_too(tmp_path, name):
    inputs, outputs = everything(name)
    program = compiled(outputs, inputs, "reference")
    path = gx.onnx.export(program, tmp_path / "cond.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert "If" in str(model)
    for taken in (True, False):
        report = gx.onnx.verify(path, program, inputs=feeds(taken))
        assert report.ok, str(report)


def checked(p, ids):
    """A table that only one branch looks into."""
    table = gx.parameter("table", np.arange(6.0).reshape(3, 2))
    return table, gx.cond(p, lambda i: gx.sum(gx.take(table, i, axis=0)), lambda i: gx.cast(gx.max(i), "float64"), ids)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_branch_that_is_taken_runs(backend):
    """An id outside of the table does no harm in the other one; here it stops the step before state changes."""
    p, ids = gx.placeholder("p", (), "bool"), gx.placeholder("ids", ("n",), "int64")
    table, y = checked(p, ids)
    program = gx.compile({"y": y}, inputs=[p, ids], updates={table: table + y}, backend=backend)
    assert program(p=np.array(False), ids=np.array([1, 9]))["y"] == 9
    before = table.value
    with pytest.raises(gx.IndexRangeError, match="9") as caught:
        program(p=np.array(True), ids=np.array([1, 9]))
    assert "test_cond.py" in str(caught.value)
    np.testing.assert_array_equal(table.value, before)
    assert program(p=np.array(True), ids=np.array([0, 2]))["y"] == before[0].sum() + before[2].sum()
    np.testing.assert_array_equal(table.value, before + before[0].sum() + before[2].sum())


def test_checks_of_both_branches_have_numbers_of_their_own():
    p, ids = gx.placeholder("p", (), "bool"), gx.placeholder("ids", ("n",), "int64")
    tables = [gx.parameter(f"t{size}", np.arange(float(size))) for size in (2, 3, 4)]
    first = gx.sum(gx.take(tables[0], ids * 0, axis=0))
    y = gx.cond(p, lambda i: gx.take(tables[1], i, axis=0), lambda i: gx.take(tables[2], i, axis=0), ids)
    plan = make_plan(simplify_graph(prepare(graph_of([first, y], [p, ids])))[0], find_backend("numba"))
    for taken, limit in ((True, 3), (False, 4)):
        with pytest.raises(CheckFailed) as caught:
            run_plan(plan, [np.array(taken), np.array([0, limit])], {"n": 2})
        assert plan.checks[caught.value.failure.check].limit == limit


@pytest.mark.parametrize("backend", BACKENDS)
def test_updates_that_depend_on_a_branch(backend):
    """A step that leaves everything as it is where the gradient is not finite, in the steps of one program."""
    x = gx.placeholder("x", (2,))
    w, count = gx.parameter("w", np.float32([1, 2])), gx.parameter("count", np.int64(0))
    (g,) = gx.grad(gx.sum(gx.log(x) * w * w), [w])
    going = gx.all(gx.isfinite(g))
    new = gx.cond(going, lambda v, n: (v - 0.1 * g, n + 1), lambda v, n: (v, n), w, count)
    program = gx.compile({"g": g}, inputs=[x], updates=dict(zip([w, count], new, strict=True)), backend=backend)
    program(x=np.float32([0, 1]))
    assert w.value.tolist() == [1, 2]
    assert count.value == 0
    program(x=np.float32([np.e, 1]))
    np.testing.assert_allclose(w.value, [0.8, 2], rtol=1e-6)
    assert count.value == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves(dtype):
    p, x = gx.placeholder("p", (), "bool"), gx.placeholder("x", (5,), dtype)
    y = gx.cond(p, lambda v: gx.exp(v) + 1.0, lambda v: v, x)
    native, reference = (compiled([y], [p, x], backend) for backend in ("numba", "reference"))
    values = np.linspace(-2, 2, 5).astype(
        gx.compile({"x": x}, inputs=[x], backend="reference").graph.inputs[0].dtype.numpy
    )
    for taken in (True, False):
        given = {"p": np.array(taken), "x": values}
        np.testing.assert_array_equal(native(**given)["y0"], reference(**given)["y0"])


# structure


def conds(graph):
    return [node for node in graph.nodes if isinstance(node.op, Cond)]


def test_structures_are_those_of_the_functions():
    Pair = namedtuple("Pair", "first second")
    p, x = leaves()
    found = gx.cond(
        p, lambda d: Pair({"b": d["u"], "a": d["v"]}, [d["u"]]), lambda d: Pair({"a": d["v"], "b": d["v"]}, [d["v"]]),
        {"v": x, "u": x * 2.0},
    )  # fmt: skip
    assert isinstance(found, Pair)
    assert list(found.first) == ["b", "a"]
    values = compiled([found.first["a"], found.first["b"], found.second[0]], [p, x], "reference")(
        **feeds(True)
    ).values()
    for value, factor in zip(values, (1, 2, 2), strict=True):
        np.testing.assert_array_equal(value, feeds(True)["x"] * factor)


def test_what_a_branch_makes_is_made_there():
    """What was there before is computed outside, once; all else in the branch."""
    p, x = leaves()
    outer = gx.tanh(x)
    y = gx.cond(p, lambda: gx.exp(outer) + gx.constant(W)[:1], lambda: outer)
    (made,) = conds(graph_of([y], [p, x]))
    assert [node.op.name for node in made.args] == ["input", "tanh", "constant"]
    assert {node.op.name for node in made.op.true.nodes} >= {"exp", "add"}


def test_what_nobody_reads_is_not_computed():
    p, x = leaves()
    first, _ = gx.cond(p, lambda a, b: (a * 2.0, gx.exp(b)), lambda a, b: (a, gx.log(b)), x, gx.cos(x))
    graph, _ = simplify_graph(prepare(graph_of([first], [p, x])))
    (made,) = conds(graph)
    assert len(made.op.true.outputs) == 1
    assert len(made.args) == 2
    assert "cos" not in {node.op.name for node in graph.nodes}


def test_a_known_predicate_chooses():
    _, x = leaves()
    for known in (True, np.array(True), gx.constant(2) > 1):
        y = gx.cond(known, lambda v: gx.cond(False, gx.exp, gx.tanh, v), gx.exp, x)
        graph, _ = simplify_graph(prepare(graph_of([y], [x])))
        assert [node.op.name for node in graph.nodes] == ["input", "tanh"]


def test_equal_conds_are_one():
    p, x = leaves()
    y, z = (gx.cond(p, lambda v: gx.exp(v) * 2.0, gx.cos, x) for _ in range(2))
    other = gx.cond(p, lambda v: gx.exp(v) * 3.0, gx.cos, x)
    graph, _ = simplify_graph(prepare(graph_of([y, z, other], [p, x])))
    assert len(conds(graph)) == 2
    assert graph.roots[0] is graph.roots[1]


def test_products_leave_a_loop_in_a_branch():
    """A loop in a branch is improved as any other."""
    p, x = gx.placeholder("p", (), "bool"), gx.placeholder("x", ("t", 2, 3), "float64")
    w = gx.constant(W)
    y = gx.cond(p, lambda s: gx.scan(lambda c, e: (gx.tanh(c + e @ w), None), s[0], s)[0], lambda s: s[0], x)
    graph, _ = simplify_graph(prepare(graph_of([y], [p, x])))
    (made,) = conds(graph)
    assert "matmul" in {node.op.name for node in made.op.true.nodes}


def test_branches_share_memory():
    p, x = gx.placeholder("p", (), "bool"), gx.placeholder("x", (64, 64))
    y = gx.cond(p, lambda a: gx.tanh(a @ a) @ a, lambda a: gx.exp(a @ a) @ a, x)
    plan = make_plan(simplify_graph(prepare(graph_of([y], [p, x])))[0], find_backend("numba"))
    used = layout(plan, {})
    assert used.peak_bytes <= used.naive_bytes * 0.6


def test_a_backend_that_cannot_branch_selects():
    p, x = leaves()
    values = nodes_of(within(p, x))
    graph = decompose_for(simplify_graph(prepare(graph_of(values, [p, x])))[0], lambda op: False)
    assert not conds(graph)
    program = compiled(graph.roots, graph.inputs, "reference")
    wanted = compiled(values, [p, x], "reference")
    for taken in (True, False):
        np.testing.assert_allclose(program(**feeds(taken))["y0"], wanted(**feeds(taken))["y0"], rtol=1e-12)
    ids = gx.placeholder("ids", ("n",), "int64")
    graph = simplify_graph(prepare(graph_of([checked(p, ids)[1]], [p, ids])))[0]
    with pytest.raises(gx.BackendError, match="both branches") as caught:
        decompose_for(graph, lambda op: False)
    assert "test_cond.py" in str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_text_reads_back(name):
    p, x = leaves()
    graph = graph_of(nodes_of(CASES[name](p, x)), [p, x])
    again = parse_graph(
        print_graph(graph), registry, {}, {node.op.digest: node.op.array for node in all_constants(graph)}
    )
    assert structurally_equal(graph, again)


def all_constants(graph):
    for node in graph.nodes:
        if node.op.name == "constant":
            yield node
        for body in node.op.bodies:
            yield from all_constants(body)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda p, x: gx.cond(x, gx.exp, gx.cos, x), "predicate is f64"),
        (lambda p, x: gx.cond(x > 0, gx.exp, gx.cos, x), r"predicate is bool\[n, 3\]"),
        (lambda p, x: gx.cond(p, lambda v: (v, v), lambda v: v, x), "other forms"),
        (lambda p, x: gx.cond(p, lambda v: {"a": v}, lambda v: {"b": v}, x), "other forms"),
        (lambda p, x: gx.cond(p, lambda v: None, lambda v: None, x), "nothing"),
        (lambda p, x: gx.cond(p, gx.sum, gx.exp, x), r"result 0: f64\[\] and f64\[n, 3\]"),
        (lambda p, x: gx.cond(p, lambda v: (v, gx.sum(v)), lambda v: (v, gx.argmax(v[0])), x), "result 1: f64"),
    ],
)
def test_mistakes_are_explained(call, says):
    p, x = leaves()
    with pytest.raises(gx.GraphcError, match=says) as caught:
        call(p, x)
    assert "test_cond.py" in str(caught.value)
    assert "to do: " in str(caught.value)


def test_a_mistake_names_the_lines_of_both_branches():
    p, x = leaves()

    def one(v):
        return gx.exp(v)

    def other(v):
        return gx.cos(v[0])

    with pytest.raises(gx.ShapeError) as caught:
        gx.cond(p, one, other, x)
    text = str(caught.value)
    assert "gx.exp(v)" in text
    assert "gx.cos(v[0])" in text
    assert "gx.cond(p, one, other, x)" in text


def test_what_lies_around_a_branch_is_computed_again():
    """Where memory is dear, the backward pass makes a cond's operands anew; the numbers are the same."""
    local = np.random.default_rng(1)
    x, p = gx.placeholder("x", (64, 32)), gx.placeholder("p", (), "bool")
    weights = [gx.parameter(f"w{i}", (0.2 * local.standard_normal((32, 32))).astype(np.float32)) for i in range(3)]
    before = gx.tanh(gx.tanh(x @ weights[0]) * 2.0)
    middle = gx.cond(p, lambda a, b: gx.sin(a @ b), lambda a, b: a * gx.sum(b), before, weights[1])
    loss = gx.mean(gx.tanh(gx.tanh(middle @ weights[2]) * 2.0) ** 2)
    updates = {w: w - 0.1 * g for w, g in zip(weights, gx.grad(loss, weights), strict=True)}
    plain, _ = simplify_graph(prepare(make_graph({"loss": loss}, [x, p], updates), training=True))
    dear = Rematerialize(1000.0).run(plain)
    assert any(node.op.name == "recompute" for node in dear.nodes)
    first = [w.value for w in weights]
    feeds = {"x": local.standard_normal((64, 32)).astype(np.float32)}
    results = []
    for graph in (plain, dear):
        for w, value in zip(weights, first, strict=True):
            w.value = value
        step = gx.compile(dict(graph.outputs), list(graph.inputs), dict(graph.updates), backend="reference")
        losses = [step(**feeds, p=np.array(taken))["loss"] for taken in (True, False, True)]
        results.append([*losses, *(w.value for w in weights)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
