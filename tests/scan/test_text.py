"""Graphs with loops print with the steps in front, and are read back."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.ir.graph import make_graph, structurally_equal
from graphc.ir.op import registry
from graphc.ir.text import parse_graph, print_graph
from graphc.ir.verify import verify


def graphs():
    x = gx.placeholder("x", ("time", "batch", 3))
    w = gx.parameter("w", np.ones((3, 3), np.float32))
    last, sums = gx.scan(lambda c, e: (gx.tanh(c @ w + e), gx.sum(e, axis=1)), gx.zeros(("batch", 3)), x, reverse=True)
    yield "simple", make_graph({"last": last, "sums": sums, "dw": gx.grad(gx.sum(last), [w])[0]}, [x])
    nested, _ = gx.scan(
        lambda c, row: gx.scan(lambda d, e: (d + e, None), c, row), gx.zeros((3,)), gx.transpose(x, (1, 0, 2))
    )
    yield "nested", make_graph({"y": nested}, [x])


@pytest.mark.parametrize(("name", "graph"), list(graphs()))
def test_text_reads_back(name, graph):
    text = print_graph(graph)
    again = parse_graph(text, registry, {p.label: p for p in graph.parameters})
    verify(again)
    assert structurally_equal(graph, again)
    assert print_graph(again, lines=False) == print_graph(graph, lines=False)


def test_the_steps_stand_in_front():
    x = gx.placeholder("x", (5, 3))
    total, _ = gx.scan(lambda c, e: (c + e, None), gx.zeros((3,)), x)
    assert print_graph(make_graph({"y": total}, [x]), lines=False) == (
        "body0 {\n"
        "  %0 = input{label='c0'}() : f32[3]\n"
        "  %1 = input{label='x0'}() : f32[3]\n"
        "  %2 = add(%0, %1) : f32[3]\n"
        "  return 'y0' = %2\n"
        "}\n"
        "graph {\n"
        "  %0 = input{label='x'}() : f32[5, 3]\n"
        "  %1 = constant{values=(0.0,)}() : f32[]\n"
        "  %2 = broadcast_to{shape=(3,)}(%1) : f32[3]\n"
        "  %3 = scan{body=body0, carries=1, sequences=1, length=5, reverse=False, keep=(False,), "
        "stops=False, whole=False}(%2, %0) : (f32[3])\n"
        "  %4 = part{index=0}(%3) : f32[3]\n"
        "  return 'y' = %4\n"
        "}\n"
    )


def test_steps_that_differ_are_told_apart():
    x = gx.placeholder("x", (5, 3))

    def text(step):
        total, _ = gx.scan(lambda c, e: (step(c, e), None), gx.zeros((3,)), x)
        return make_graph({"y": total}, [x])

    assert structurally_equal(text(lambda c, e: c + e), text(lambda c, e: c + e))
    assert not structurally_equal(text(lambda c, e: c + e), text(lambda c, e: c * e))


def test_a_type_that_does_not_fit_is_refused():
    x = gx.placeholder("x", (5, 3))
    total, _ = gx.scan(lambda c, e: (c + e, None), gx.zeros((3,)), x)
    text = print_graph(make_graph({"y": total}, [x]), lines=False)
    with pytest.raises(gx.ParseError, match="written as"):
        parse_graph(text.replace("(f32[3])\n", "(f32[4])\n"), registry)
