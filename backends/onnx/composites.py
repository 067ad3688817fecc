"""Composite ops that are one ONNX operator: they keep their name in the file. All others decompose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.backends.onnx.reductions import reduce
from graphc.backends.onnx.writer import Writer
from graphc.ir.dims import product
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.activation import Gelu, LogSoftmax, LogSumExp, Softmax
from graphc.ops.statistics import Mean

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule


def is_written_whole(node: Node, opset: int) -> bool:
    """Is this composite op one operator of the opset, in an element type that onnxruntime has a kernel for?"""
    (x, *_) = node.args
    if isinstance(node.op, Gelu):
        return opset >= 20 and node.dtype is DType.float32
    if isinstance(node.op, Mean | LogSumExp):  # of nothing graphc's are NaN and -inf, which ONNX leaves open
        return product(tuple(x.shape[axis] for axis in node.op.axes)) != 0
    return type(node.op) in RULES


def _softmax(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, Softmax | LogSoftmax)
    return w.emit(type(op).__name__, x, axis=op.axis)


def _log_sum_exp(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, LogSumExp)
    return reduce(w, "ReduceLogSumExp", x, op.axes, op.keepdims)


def _mean(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, Mean)
    return reduce(w, "ReduceMean", x, op.axes, op.keepdims)


def _gelu(w: Writer, node: Node, x: str) -> str:
    return w.emit("Gelu", x)


RULES: dict[type, Rule] = {
    Softmax: _softmax,
    LogSoftmax: _softmax,
    LogSumExp: _log_sum_exp,
    Mean: _mean,
    Gelu: _gelu,
}
