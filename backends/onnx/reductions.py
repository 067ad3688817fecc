"""How reductions are written: sums, products, extremes, the place of an extreme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.backends.onnx.writer import Writer
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.reduction import All, Any, ArgMax, ArgMin, Max, Min, Prod, Reduce, Sum

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule

_HALF = 2**32


def reduce(w: Writer, op_type: str, x: str, axes: tuple[int, ...], keepdims: bool) -> str:
    """A reduction operator; the axes are an attribute before opset 18, for ReduceSum before 13."""
    if not axes:
        return x
    if w.opset < 18 and op_type != "ReduceSum":
        return w.emit(op_type, x, axes=list(axes), keepdims=int(keepdims))
    return w.emit(op_type, x, w.ints(axes), keepdims=int(keepdims))


def _attributes(node: Node) -> tuple[tuple[int, ...], bool]:
    op = node.op
    assert isinstance(op, Reduce)
    return op.axes, op.keepdims


def _sum(w: Writer, node: Node, x: str) -> str:
    """Integers wrap around.

    onnxruntime adds integers as float64 and stops at the largest; so 32 bits are added as 64, and these in halves.
    """
    axes, keepdims = _attributes(node)
    if not axes:
        return x
    if node.dtype.is_float:
        return reduce(w, "ReduceSum", x, axes, keepdims)
    if node.dtype is not DType.int64:
        return w.cast(reduce(w, "ReduceSum", w.cast(x, DType.int64), axes, keepdims), node.dtype)
    half = w.constant(_HALF, DType.int64)
    low = w.emit("Mod", x, half)
    high = w.emit("Div", w.emit("Sub", x, low), half)
    low, high = (reduce(w, "ReduceSum", part, axes, keepdims) for part in (low, high))
    return w.emit("Add", w.emit("Mul", high, half), low)


def _prod(w: Writer, node: Node, x: str) -> str:
    axes, keepdims = _attributes(node)
    if not axes:
        return x
    if node.dtype.is_float or node.dtype is DType.int64:
        return reduce(w, "ReduceProd", x, axes, keepdims)
    return w.cast(reduce(w, "ReduceProd", w.cast(x, DType.int64), axes, keepdims), node.dtype)


def _extreme(op_type: str) -> Rule:
    def write(w: Writer, node: Node, x: str) -> str:
        axes, keepdims = _attributes(node)
        if not axes:
            return x
        if node.dtype is DType.uint32:  # onnxruntime has no kernel
            return _uint32_extreme(w, node, x, op_type)
        extreme = reduce(w, op_type, x, axes, keepdims)
        if not node.dtype.is_float:
            return extreme
        has_nan = reduce(w, "ReduceMax", w.cast(w.emit("IsNaN", x), DType.int32), axes, keepdims)
        is_nan = w.emit("Greater", has_nan, w.constant(0, DType.int32))
        return w.emit("Where", is_nan, w.constant(float("nan"), node.dtype), extreme)

    return write


def _uint32_extreme(w: Writer, node: Node, x: str, op_type: str) -> str:
    """By way of float64, which holds every uint32; of nothing an infinity comes back, which is cut to the range."""
    axes, keepdims = _attributes(node)
    extreme = reduce(w, op_type, w.cast(x, DType.float64), axes, keepdims)
    fn, cut = ("max", "Max") if op_type == "ReduceMax" else ("min", "Min")
    bound = w.constant(Reduce.identity(fn, DType.uint32), DType.float64)
    return w.cast(w.emit(cut, extreme, bound), DType.uint32)


def _all(w: Writer, node: Node, x: str) -> str:
    axes, keepdims = _attributes(node)
    if not axes:
        return x
    return w.cast(reduce(w, "ReduceProd", w.cast(x, DType.int32), axes, keepdims), DType.bool)


def _any(w: Writer, node: Node, x: str) -> str:
    axes, keepdims = _attributes(node)
    if not axes:
        return x
    return w.cast(reduce(w, "ReduceSum", w.cast(x, DType.int32), axes, keepdims), DType.bool)


def _arg_extreme(op_type: str) -> Rule:
    def write(w: Writer, node: Node, x: str) -> str:
        op = node.op
        assert isinstance(op, ArgMax | ArgMin)
        dtype = node.args[0].dtype
        attributes = {"axis": op.axis, "keepdims": int(op.keepdims)}
        if dtype is DType.uint32:  # onnxruntime has no kernel
            x = w.cast(x, DType.int64)
        place = w.emit(op_type, x, **attributes)
        if not dtype.is_float:
            return place
        nans = w.cast(w.emit("IsNaN", x), DType.int32)
        has_nan = w.emit("Greater", reduce(w, "ReduceMax", nans, (op.axis,), op.keepdims), w.constant(0, DType.int32))
        return w.emit("Where", has_nan, w.emit("ArgMax", nans, **attributes), place)

    return write


RULES: dict[type, Rule] = {
    Sum: _sum,
    Prod: _prod,
    Max: _extreme("ReduceMax"),
    Min: _extreme("ReduceMin"),
    All: _all,
    Any: _any,
    ArgMax: _arg_extreme("ArgMax"),
    ArgMin: _arg_extreme("ArgMin"),
}
