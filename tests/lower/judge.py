"""Runs a graph in three ways and compares: node by node in NumPy, its plan by the kernel interpreter, natively."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.ir.dims import evaluate, substitute
from graphc.ir.graph import Graph, make_graph
from graphc.ir.node import Input, Node, Parameter
from graphc.ir.types import kind_of
from graphc.loops.kernel import Kernel
from graphc.loops.verify import verify_kernel
from graphc.lower.interpret import run_plan
from graphc.lower.lowering import lower
from graphc.lower.plan import KernelItem, Plan


def evaluate_graph(graph: Graph, arrays: Sequence[Any], dims: Mapping[str, int]) -> list[Any]:
    """Outputs, then updates, by the reference of each op."""
    given = {id(node): array for node, array in zip(graph.inputs, arrays, strict=True)}
    values: dict[int, Any] = {}
    for node in graph.nodes:
        if isinstance(node, Parameter):
            values[id(node)] = node.array.copy()
        elif isinstance(node.op, Input):
            values[id(node)] = given[id(node)]
        else:
            op = node.op.with_sizes(lambda size: substitute(size, dims))
            with np.errstate(all="ignore"):
                values[id(node)] = np.asarray(op.reference(*[values[id(arg)] for arg in node.args]))
    return [values[id(root)] for root in graph.roots]


def kernels(plan: Plan) -> list[Kernel]:
    """The distinct kernels of a plan."""
    found = [item.kernel for launch in plan.launches for item in launch.items if isinstance(item, KernelItem)]
    return list(dict.fromkeys(found))


def judge(
    outputs: Mapping[str, Node],
    inputs: Mapping[Node, Any],
    updates: Mapping[Parameter, Node] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-6,
) -> Plan:
    """Lower the graph and compare outputs and new parameter values with the reference; parameters are put back."""
    graph = make_graph(outputs, list(inputs), updates)
    arrays = list(inputs.values())
    dims: dict[str, int] = {}
    for node, array in inputs.items():
        for size, value in zip(node.shape, array.shape, strict=True):
            if not isinstance(size, int):
                dims[str(size)] = value
    want = evaluate_graph(graph, arrays, dims)
    plan = lower(graph)
    for kernel in kernels(plan):
        verify_kernel(kernel)
    saved = [p.array.copy() for p in graph.parameters]
    got = run_plan(plan, arrays, dims)
    for (name, node), result, expected in zip(graph.outputs, got, want, strict=False):
        assert result.dtype == node.dtype.numpy, name
        assert result.shape == tuple(evaluate(size, dims) for size in node.shape), name
        _close(result, expected, rtol, atol, f"output {name}")
    for (target, _), expected in zip(graph.updates, want[len(graph.outputs) :], strict=True):
        _close(target.array, expected, rtol, atol, f"update of {target.label}")
    for target, value in zip(graph.parameters, saved, strict=True):
        target.array[...] = value
    return plan


def _close(result: Any, expected: Any, rtol: float, atol: float, what: str) -> None:
    if kind_of(result.dtype) == "f":
        result, expected = (np.asarray(array).astype(np.float64) for array in (result, expected))
        np.testing.assert_allclose(result, expected, rtol=rtol, atol=atol, err_msg=what)
    else:
        np.testing.assert_array_equal(result, expected, err_msg=what)
