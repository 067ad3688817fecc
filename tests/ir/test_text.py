"""Graph text: what is printed parses back to an equal graph, and what does not parse is refused with its line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gx
from graphc.ir.graph import make_graph, structurally_equal
from graphc.ir.node import apply
from graphc.ir.op import registry
from graphc.ir.text import parse_graph, print_graph
from tests.ops.table import OPS, cases, draw, seeded

UNARY = [gx.exp, gx.tanh, gx.relu, gx.negative, gx.softmax, gx.abs, lambda x: x * 2.5, lambda x: x[..., ::-1]]
BINARY = [gx.add, gx.multiply, gx.maximum, lambda a, b: gx.where(a > b, a, b), lambda a, b: a @ gx.transpose(b) @ a]
STEPS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


def random_graph(steps, shape):
    """Inputs, a parameter, constants, and one op a step on values built before."""
    x, y = gx.placeholder("x", shape), gx.placeholder("y", shape)
    w = gx.parameter("a weight", np.ones((3, 3), np.float32))
    values = [x, y, w, gx.constant(np.full((3, 3), -0.0, np.float32))]
    if shape != (3, 3):
        values = [x, y]
    for kind, left, right in steps:
        a, b = values[left % len(values)], values[right % len(values)]
        values.append(UNARY[kind](a) if kind < len(UNARY) else BINARY[kind - len(UNARY)](a, b))
    outputs = {"last": values[-1], "the sum": gx.sum(values[len(values) // 2])}
    updates = {w: values[-1]} if shape == (3, 3) else {}
    return make_graph(outputs, [x, y], updates)


@given(STEPS, st.sampled_from([(3, 3), ("n", 3), (0, 1)]))
@settings(max_examples=60)
def test_random_graphs_read_back(steps, shape):
    graph = random_graph(steps, shape)
    text = print_graph(graph)
    parameters = {parameter.label: parameter for parameter in graph.parameters}
    again = parse_graph(text, registry, parameters)
    assert structurally_equal(graph, again)
    assert print_graph(again, lines=False) == print_graph(graph, lines=False)


@pytest.mark.parametrize("name", [name for name in OPS if name not in ("custom_vjp", "when_training")])
def test_every_op_reads_back(name):
    for case in cases(registry[name]):
        inputs = [gx.placeholder(f"x{i}", a.shape, a.dtype) for i, a in enumerate(draw(case, seeded(case)))]
        graph = make_graph({"y": apply(case.op, *inputs)}, inputs)
        again = parse_graph(print_graph(graph), registry)
        assert again.roots[0].op == case.op
        assert structurally_equal(graph, again)


def test_symbolic_sizes_read_back():
    x = gx.placeholder("x", ("n", 4))
    n = x.shape[0]
    y = gx.concatenate([gx.reshape(x, (-1, 2)), gx.zeros((3, 2))]) * gx.size_of(n * n - 1, "float32")
    z = gx.one_hot(gx.argmax(x[1::2]), n)
    graph = make_graph({"y": y, "z": z}, [x])
    text = print_graph(graph)
    assert "[2*n + 3, 2]" in text
    assert structurally_equal(parse_graph(text, registry), graph)


def test_the_form():
    x, w = gx.placeholder("x", ("batch", 3)), gx.parameter("w", np.zeros(3, np.float32))
    loss = gx.sum(gx.square(x * w), axis=0)
    text = print_graph(make_graph({"loss": loss}, [x], {w: w * 0.5}), lines=False)
    assert text.splitlines() == [
        "graph {",
        "  %0 = input{label='x'}() : f32[batch, 3]",
        "  %1 = parameter{label='w'}() : f32[3]",
        "  %2 = multiply(%0, %1) : f32[batch, 3]",
        "  %3 = multiply(%2, %2) : f32[batch, 3]",
        "  %4 = sum{axes=(0,), keepdims=False}(%3) : f32[3]",
        "  %5 = constant{values=(0.5,)}() : f32[]",
        "  %6 = multiply(%1, %5) : f32[3]",
        "  return 'loss' = %4",
        "  update %1 = %6",
        "}",
    ]
    assert "test_text.py" in print_graph(make_graph({"loss": loss}, [x]))


def test_small_constants_are_written_out_to_the_last_bit():
    values = [
        np.float32([0.1, -0.0, np.inf, -np.inf, np.nan, 1e-45]),
        np.array([2**63 - 1, -(2**63)]),
        np.array([True, False]),
    ]
    for array in values:
        graph = make_graph({"y": gx.constant(array)}, [])
        again = parse_graph(print_graph(graph), registry)
        assert again.roots[0] is graph.roots[0]


def test_large_constants_go_by_digest():
    array = np.arange(1000.0)
    graph = make_graph({"y": gx.constant(array) * 2.0}, [])
    text = print_graph(graph)
    assert len(text) < 400
    digest = graph.nodes[0].op.digest
    assert digest in text
    assert parse_graph(text, registry, constants={digest: array}).roots[0] is graph.roots[0]
    with pytest.raises(gx.ParseError, match="line 2"):
        parse_graph(text, registry)


@pytest.mark.parametrize("name", ["it's", 'a "b"', "line\nbreak", "# comment", "%1 = x", "}", "ü", "a/b.c", ""])
def test_names_of_users_are_data(name):
    w = gx.parameter(name, np.zeros(2, np.float32))
    graph = make_graph({name: w + 1.0}, [])
    text = print_graph(graph, lines=False)
    again = parse_graph(text, registry, {name: w})
    assert structurally_equal(graph, again)
    assert len(text.splitlines()) == 6


GOOD = """graph {
  %0 = input{label='x'}() : f32[n, 3]
  %1 = exp(%0) : f32[n, 3]
  return 'y' = %1
}
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("exp(%0)", "expo(%0)", 3, "no op is called 'expo'"),
        ("exp(%0)", "exp(%9)", 3, "'%9' is not defined"),
        ("exp(%0) : f32[n, 3]", "exp(%0) : f32[n, 4]", 3, "the type is written as f32[n, 4] but is f32[n, 3]"),
        ("exp(%0) : f32", "exp(%0) : f7", 3, "no element type 'f7'"),
        ("exp(%0)", "exp{axis=1}(%0)", 3, "axis"),
        ("exp(%0)", "sum{axes=(0,)}(%0)", 3, "keepdims"),
        ("exp(%0)", "exp(%0, %0)", 3, "takes 1 operands, not 2"),
        ("label='x'", "label=open('x')", 2, "not an attribute"),
        ("label='x'", "label=", 2, "invalid syntax"),
        ("[n, 3]", "[n, f()]", 2, "not a size"),
        ("return 'y' = %1", "return 'y' = %7", 4, "'%7' is not defined"),
        ("return 'y' = %1", "return y", 4, "neither a node, a return nor an update"),
        ("return 'y' = %1", "update %0 = %1", 4, "%0 is not a parameter"),
        ("return 'y' = %1", "what is this", 4, "neither a node, a return nor an update"),
    ],
)
def test_other_text_is_refused_with_its_line(old, new, line, says):
    assert structurally_equal(parse_graph(GOOD, registry), parse_graph(GOOD, registry))
    with pytest.raises(gx.ParseError) as caught:
        parse_graph(GOOD.replace(old, new, 1), registry)
    text = str(caught.value)
    assert f"line {line}: " in text
    assert says in text
    assert "to do: " in text


def test_a_users_rule_prints_by_name_and_cannot_be_read():
    x = gx.placeholder("x", (2,))
    text = print_graph(make_graph({"y": gx.custom_vjp(gx.tanh, my_rule)(x)}, [x]))
    assert "custom_vjp{rule=rule('my_rule')}" in text
    with pytest.raises(gx.ParseError, match="not an attribute"):
        parse_graph(text, registry)


def my_rule(inputs, output, cotangent):
    return [cotangent]
