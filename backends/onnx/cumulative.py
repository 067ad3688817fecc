"""How running results are written: CumSum where it is one, else a Scan over the axis whose body is one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import NodeProto, ValueInfoProto, helper

from graphc.backends.onnx.writer import ONNX_TYPE, Writer
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.cumulative import CumMax, CumMin, CumProd, CumSum, Cumulative, LinearRecurrence

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule

_ELEMENTS = ("a", "b")
_INT64_MAX = 2**63 - 1


def _cumsum(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, CumSum)
    if 0 in node.shape:
        return x
    narrow = node.dtype is DType.uint32  # onnxruntime has no kernel
    wide = w.cast(x, DType.int64) if narrow else x
    axis = w.constant(op.axis, DType.int64)
    total = w.emit("CumSum", wide, axis, exclusive=int(op.exclusive), reverse=int(op.reverse))
    return w.cast(total, node.dtype) if narrow else total


def _scan(w: Writer, node: Node, *args: str) -> str:
    """A Scan along the axis: the carry has the other axes, each step takes one element of each row.

    Onnxruntime's Scan divides by zero, which ends the process, where it transposes nothing or takes no step. So the
    axis is brought to the front by a node of its own, and one of unknown length gets an element behind the last.
    """
    op = node.op
    assert isinstance(op, Cumulative)
    if 0 in node.shape:  # onnxruntime divides by the size of a slice
        return args[0]
    dtype = DType.int64 if node.dtype is DType.uint32 else node.dtype  # onnxruntime has few kernels for uint32
    elements = [w.cast(arg, dtype) if dtype is not node.dtype else arg for arg in args]
    order = [op.axis, *(axis for axis in range(len(node.shape)) if axis != op.axis)]
    back = [order.index(axis) for axis in range(len(order))]
    if op.axis:
        elements = [w.emit("Transpose", element, perm=order) for element in elements]
    maybe_empty = not isinstance(node.shape[op.axis], int)
    if maybe_empty:
        ends = [0] * (2 * len(order))
        ends[0 if op.reverse else len(order)] = 1
        elements = [w.emit("Pad", element, w.ints(ends)) for element in elements]
    rest = tuple(size for axis, size in enumerate(node.shape) if axis != op.axis)
    first = w.emit("Expand", w.constant(op.first(node.dtype), dtype), w.sizes.shape(rest))
    count, way = len(args), int(op.reverse)
    body = helper.make_graph(
        _step(op),
        "step",
        [_value(name, dtype) for name in ("carry", *_ELEMENTS[:count])],
        [_value("next", dtype), _value("result", dtype)],
    )
    result = w.emit(
        "Scan",
        first,
        *elements,
        body=body,
        num_scan_inputs=count,
        scan_input_directions=[way] * count,
        scan_output_directions=[way],
    )
    w.nodes[-1].output.insert(0, w.names.unique(f"{result}/last"))  # the last carry stands before the results
    if maybe_empty:
        start, stop = ([1], [_INT64_MAX]) if op.reverse else ([0], [-1])
        result = w.emit("Slice", result, w.ints(start), w.ints(stop), w.ints([0]))
    if op.axis:
        result = w.emit("Transpose", result, perm=back)
    return w.cast(result, node.dtype) if dtype is not node.dtype else result


def _step(op: Cumulative) -> list[NodeProto]:
    match op:
        case LinearRecurrence():
            nodes = [
                helper.make_node("Mul", ["a", "carry"], ["scaled"]),
                helper.make_node("Add", ["scaled", "b"], ["next"]),
            ]
        case CumProd() | CumMax() | CumMin():
            name = {"mul": "Mul", "max": "Max", "min": "Min"}[op.fn]
            nodes = [helper.make_node(name, ["carry", "a"], ["next"])]
        case _:
            raise AssertionError(f"{op} is not written as a Scan")
    return [*nodes, helper.make_node("Identity", ["carry" if op.shifted else "next"], ["result"])]


def _value(name: str, dtype: DType) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, ONNX_TYPE[dtype], None)


RULES: dict[type, Rule] = {
    CumSum: _cumsum,
    CumProd: _scan,
    CumMax: _scan,
    CumMin: _scan,
    LinearRecurrence: _scan,
}
