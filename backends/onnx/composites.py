"""Composite ops that are one ONNX operator: they keep their name in the file. All others decompose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.backends.onnx.reductions import reduce
from graphc.backends.onnx.writer import Writer
from graphc.ir.dims import product
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.activation import LogSoftmax, LogSumExp, Softmax
from graphc.ops.gating import Gelu, GeluTanh, Mish, Softsign
from graphc.ops.rectifier import SELU_ALPHA, SELU_SCALE, Celu, Elu, HardSigmoid, HardSilu, LeakyRelu, Prelu, Selu
from graphc.ops.statistics import Mean

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule


def is_written_whole(node: Node, opset: int) -> bool:
    """Is this composite op one operator of the opset, in an element type that onnxruntime has a kernel for?"""
    (x, *_) = node.args
    since = _SINCE.get(type(node.op))
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


RULES: dict[type, Rule] = {
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
