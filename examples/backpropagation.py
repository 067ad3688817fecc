"""Backpropagation: the chain rule written out, and what memoization shares, drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import graphc as gx
from examples.common import check, f32, run
from graphc.frontend.drawing import Box, lay_out, to_svg


def main(out: Path) -> None:
    """The gradient of one neuron as a formula; then two layers, whose gradients share their middle."""
    x, y = gx.placeholder("x", (2,)), gx.placeholder("y", ())
    w, b = gx.parameter("w", f32([0.5, -0.5])), gx.parameter("b", f32(0))
    y_hat = gx.sigmoid(gx.sum(w * x) + b)
    loss = -(y * gx.log(y_hat) + (1 - y) * gx.log(1 - y_hat))
    dw, db = gx.grad(loss, [w, b])
    print("dL/dw =", gx.formula(gx.simplify(dw)))
    print("dL/db =", gx.formula(gx.simplify(db)))
    print(gx.explain_gradient(loss, w))
    step = gx.compile({"loss": loss, "dw": dw, "db": db}, inputs=[x, y], backend="numba")
    found = step(x=f32([1, 2]), y=f32(1))
    by_hand = np.round((1 / (1 + np.exp(0.5)) - 1) * np.array([1, 2]), 4).tolist()
    print(f"dw = {np.round(found['dw'].astype(float), 4).tolist()}, by hand (y_hat - y) x = {by_hand}")

    # Memoization: h1 feeds the output; dL/dw1 and dL/dw2 both need dL/dh1, which is one node of the graph.
    x1, x2, target = (gx.placeholder(name, ()) for name in ("x1", "x2", "target"))
    weights = [gx.parameter(f"w{i}", f32(0.3 * i)) for i in range(1, 4)]
    h1 = gx.tanh(weights[0] * x1 + weights[1] * x2)
    error = (weights[2] * h1 - target) ** 2
    gradients = [gx.simplify(gradient) for gradient in gx.grad(error, weights)]
    graph = gx.Graph((x1, x2, target), tuple((f"dw{i}", node) for i, node in enumerate(gradients, 1)))
    once = sum(bool(node.args) for node in graph.nodes)
    print(f"operations: {sum(map(_as_tree, gradients))} if every path is computed for itself, {once} with memoization")

    boxes: list[Box] = []
    numbers: dict[int, int] = {}
    names = {id(node): name for name, node in graph.outputs}
    for node in graph.nodes:
        numbers[id(node)] = len(boxes)
        uses = sum(arg is node for user in graph.nodes for arg in user.args)
        lines = [names.get(id(node)) or node.name or node.op.name]
        boxes.append(Box([*lines, node.op.name] if id(node) in names else lines + [f"used {uses} times"] * (uses > 1)))
    edges = {(numbers[id(arg)], numbers[id(node)]) for node in graph.nodes for arg in node.args}
    (out / "backpropagation.svg").write_text(to_svg(lay_out(boxes, sorted(edges)), "gradients"), encoding="utf-8")
    print("wrote backpropagation.svg")
    check(step, out / "backpropagation.onnx")


def _as_tree(node: gx.Node) -> int:
    """How many operations it takes if nothing is shared."""
    return bool(node.args) + sum(_as_tree(arg) for arg in node.args)


if __name__ == "__main__":
    run(main, __doc__)
