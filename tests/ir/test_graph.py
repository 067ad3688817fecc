"""Graphs: their signature is checked, rewriting shares, equality is by structure; the verifier finds what is broken."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

import graphc as gx
from graphc.ir.graph import Graph, make_graph, rebuild, structurally_equal, substitute_nodes
from graphc.ir.node import Node, apply
from graphc.ir.types import DType, TensorType
from graphc.ir.verify import verify
from graphc.ops.arithmetic import Add
from graphc.ops.exponential import Exp, Tanh

X, Y = gx.placeholder("x", ("n", 3)), gx.placeholder("y", ("n", 3))
W = gx.parameter("w", np.ones(3, np.float32))


def test_a_graph_lists_its_parts():
    h = gx.tanh(X * W)
    graph = make_graph({"h": h, "s": gx.sum(h)}, [X, Y], {W: W * 2.0})
    assert [node.op.name for node in graph.nodes] == [
        "input", "parameter", "multiply", "tanh", "sum", "constant", "multiply",
    ]  # fmt: skip
    assert graph.parameters == (W,)
    assert graph.dims == ("n",)
    assert graph.users[id(h)] == (graph.outputs[1][1],)
    assert len(graph.users[id(W)]) == 2
    assert [name for name, _ in graph.outputs] == ["h", "s"]


def test_a_value_used_twice_has_its_user_twice():
    y = X * X
    assert make_graph({"y": y}, [X]).users[id(X)] == (y, y)


@pytest.mark.parametrize(
    ("outputs", "inputs", "updates", "error", "says"),
    [
        ({"y": X + Y}, [X], {}, gx.GraphError, "input 'y' is used but not listed"),
        ({"y": X}, [X, X + 1.0], {}, gx.GraphError, "is not a placeholder"),
        ({"y": X}, [X, W], {}, gx.GraphError, "is not a placeholder"),
        ({"y": X}, [X, gx.placeholder("x", (2,))], {}, gx.NameClashError, "two inputs are called 'x'"),
        ({"y": 3}, [], {}, gx.GraphError, "output 'y' is not a node"),
        ({3: X}, [X], {}, gx.GraphError, "output 3 is not a node"),
        ({}, [X], {X: X}, gx.GraphError, "cannot be updated"),
        ({}, [], {W: gx.zeros((4,))}, gx.GraphError, "the update of 'w' is f32[4], the parameter is f32[3]"),
        ({}, [], {W: gx.zeros((3,), "float64")}, gx.GraphError, "is f64[3]"),
        ({}, [], {W: 1.0}, gx.GraphError, "the update of 'w' is 1.0"),
        ({"y": gx.zeros(("m",))}, [X], {}, gx.GraphError, "the size 'm'"),
    ],
)
def test_a_signature_that_does_not_hold_together_is_refused(outputs, inputs, updates, error, says):
    with pytest.raises(error) as caught:
        make_graph(outputs, inputs, updates)
    assert says in str(caught.value)
    assert "to do: " in str(caught.value)
    assert "test_graph.py" in str(caught.value)


def test_rebuilding_touches_only_what_changes():
    kept, changed = gx.exp(X), gx.tanh(X)
    graph = make_graph({"y": kept + changed, "k": kept}, [X])
    same = graph.rebuild(lambda node, args: None)
    assert all(a is b for a, b in zip(graph.roots, same.roots, strict=True))
    other = graph.rebuild(lambda node, args: gx.sigmoid(args[0]) if isinstance(node.op, Tanh) else None)
    assert other.roots[1] is kept
    assert other.roots[0].args == (kept, gx.sigmoid(X))
    assert gx.sigmoid(X).loc == changed.loc


def test_each_node_is_rebuilt_once():
    node = X
    for _ in range(60):
        node = node + node  # 2**60 paths
    seen = []
    rebuild([node], lambda node, args: seen.append(node))
    assert len(seen) == 61


def test_substitution():
    (found,) = substitute_nodes([gx.exp(X) * 2.0], {X: Y})
    assert found is gx.exp(Y) * 2.0


def test_structural_equality_is_up_to_the_identity_of_leaves():
    def graph(fn=gx.tanh, name="x", label="h", scale=2.0):
        x = gx.placeholder(name, ("n", 3))
        return make_graph({label: fn(x) * scale}, [x])

    assert structurally_equal(graph(), graph())
    for other in (graph(gx.exp), graph(name="z"), graph(label="k"), graph(scale=3.0)):
        assert not structurally_equal(graph(), other)


def test_sharing_counts():
    x = gx.placeholder("x", (3,))
    a, b = gx.parameter("p", np.zeros(3, np.float32)), gx.parameter("p", np.zeros(3, np.float32))
    once = make_graph({"y": (x * a) + (x * a)}, [x])
    twice = make_graph({"y": (x * a) + (x * b)}, [x])
    assert not structurally_equal(once, twice)


def test_networkx_sees_the_graph():
    graph = make_graph({"y": gx.tanh(X) + gx.exp(X)}, [X])
    drawn = graph.to_networkx()
    assert nx.is_directed_acyclic_graph(drawn)
    assert drawn.number_of_nodes() == len(graph.nodes)
    assert drawn.number_of_edges() == 4
    assert drawn.nodes[X.uid]["node"] is X


def test_a_good_graph_passes_the_verifier():
    verify(make_graph({"y": gx.softmax(X * W)}, [X], {W: W + 1.0}), after="nothing")


def broken(op, args, type):
    return Node(op, args, type, X.loc)


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (
            lambda: Graph((X,), (("y", broken(Exp(), (X,), TensorType(DType.float32, (3,)))),)),
            "has type f32[3], its op infers",
        ),
        (
            lambda: Graph((X,), (("y", broken(Add(), (X, apply(Exp(), W)[:2]), X.type)),)),
            "does not accept its operands",
        ),
        (lambda: Graph((), (("y", gx.exp(X)),)), "is not an input of the graph"),
        (lambda: Graph((), (), ((W, gx.exp(W)[:2]),)), "the update of 'w' is f32[2], not f32[3]"),
        (lambda: Graph((X,), (("y", _older()),)), "is older than an operand"),
    ],
)
def test_the_verifier_names_the_node_and_the_pass(graph, says):
    with pytest.raises(gx.VerifyError) as caught:
        verify(graph(), after="fuse")
    assert str(caught.value).startswith("after fuse: ")
    assert says in str(caught.value)
    assert "report" in str(caught.value)


def _older():
    node = broken(Exp(), (X,), X.type)
    node.args = (gx.exp(X * 123.0),)
    return node
