"""Composite ops that are one ONNX operator: they keep their name in the file. All others decompose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

from graphc.backends.onnx.reductions import reduce
from graphc.backends.onnx.writer import Writer
from graphc.ir.dims import product
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.activation import LogSoftmax, LogSumExp, Softmax
from graphc.ops.attention import ScaledDotProductAttention
from graphc.ops.gating import Gelu, GeluTanh, Mish, Softsign
from graphc.ops.rectifier import SELU_ALPHA, SELU_SCALE, Celu, Elu, HardSigmoid, HardSilu, LeakyRelu, Prelu, Selu
from graphc.ops.statistics import Mean

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule


def is_written_whole(node: Node, opset: int) -> bool:
    """Is this composite op one operator of the opset, in an element type that onnxruntime has a kernel for?"""
    (x, *_) = node.args
    since = _SINCE.get(type(node.op))
    if isinstance(node.op, ScaledDotProductAttention) and node.op.rate:  # weights fall by random bits
        return False
    if isinstance(node.op, Prelu) and node.shape != x.shape:  # ONNX broadcasts the slope, not x
        return False
    if since is not None:
        return opset >= since and node.dtype is DType.float32
    if isinstance(node.op, Mean | LogSumExp):  # of nothing graphc's are NaN and -inf, which ONNX leaves open
        return product(tuple(x.shape[axis] for axis in node.op.axes)) != 0
    return type(node.op) in RULES


_SINCE: dict[type, int] = {
    Gelu: 20, GeluTanh: 20, Mish: 18, HardSilu: 14, Celu: 12, Elu: 6, HardSigmoid: 6, LeakyRelu: 16, Prelu: 16, Selu: 6,
    Softsign: 1,
}  # fmt: skip
"""Activations by the opset that has them as an operator; onnxruntime computes these in float32."""


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


def _activation(op_type: str, **attributes: Any) -> Rule:
    """An operator whose attributes do not depend on the op's."""

    def write(w: Writer, node: Node, *args: str) -> str:
        return w.emit(op_type, *args, **attributes)

    return write


def _leaky_relu(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, LeakyRelu)
    return w.emit("LeakyRelu", x, alpha=op.negative_slope)


def _elu(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, Elu | Celu)
    return w.emit(type(op).__name__, x, alpha=op.alpha)


def _attention(w: Writer, node: Node, q: str, k: str, v: str, mask: str = "") -> str:
    """The formula with all scores at once, which runtimes fuse; a query that may see no key gives zeros."""
    op, dtype = node.op, node.dtype
    assert isinstance(op, ScaledDotProductAttention)
    queries, keys = node.args[:2]
    axes = list(range(keys.ndim))
    axes[-2:] = axes[:-3:-1]
    scores = w.emit("MatMul", q, w.emit("Transpose", k, perm=axes))
    scores = w.emit("Mul", scores, w.constant(op.scale, dtype))
    allowed = ""
    if op.causal:
        shape = w.sizes.shape((queries.shape[-2], keys.shape[-2]))
        ones = w.emit("ConstantOfShape", shape, value=helper.make_tensor("one", TensorProto.INT64, [1], [1]))
        allowed = w.cast(w.emit("Trilu", ones, upper=0), DType.bool)
    if mask and node.args[3].dtype is DType.bool:
        allowed = w.emit("And", allowed, mask) if allowed else mask
    elif mask:
        scores = w.emit("Add", scores, mask)
    nothing, zero, one = (w.constant(value, dtype) for value in (-np.inf, 0.0, 1.0))
    if allowed:
        scores = w.emit("Where", allowed, scores, nothing)
    last = w.ints([-1])
    largest = reduce(w, "ReduceMax", scores, (node.ndim - 1,), True)
    largest = w.emit("Where", w.emit("Equal", largest, nothing), zero, largest)
    weights = w.emit("Exp", w.emit("Sub", scores, largest))
    total = w.emit("ReduceSum", weights, last, keepdims=1)
    total = w.emit("Where", w.emit("Greater", total, zero), total, one)
    return w.emit("MatMul", w.emit("Div", weights, total), v)


RULES: dict[type, Rule] = {
    ScaledDotProductAttention: _attention,
    Softmax: _softmax,
    LogSoftmax: _softmax,
    LogSumExp: _log_sum_exp,
    Mean: _mean,
    Gelu: _activation("Gelu"),
    GeluTanh: _activation("Gelu", approximate="tanh"),
    Mish: _activation("Mish"),
    Softsign: _activation("Softsign"),
    Selu: _activation("Selu", alpha=SELU_ALPHA, gamma=SELU_SCALE),
    HardSigmoid: _activation("HardSigmoid", alpha=1 / 6, beta=0.5),
    HardSilu: _activation("HardSwish"),
    Prelu: _activation("PRelu"),
    LeakyRelu: _leaky_relu,
    Elu: _elu,
    Celu: _elu,
}
