"""Kernels of running results: one pass along the axis, everything else in parallel.

Where the axis is the innermost one, an iteration carries one number along it. Otherwise it takes up to 64 neighbouring
columns and carries a number for each, so that memory is read along rows.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.dims import Size, ceildiv, product
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.loops.kernel import Apply, Assign, Const, Declare, Expr, For, Kernel, Let, Load, Local, LoopKind, Store, Var
from graphc.lower.build import LANES, Built
from graphc.lower.canonical import canonical_kernel
from graphc.lower.emit import Emitter
from graphc.lower.index import loop_index
from graphc.ops.cumulative import Cumulative
from graphc.ops.movement import reshape

I64 = DType.int64
ZERO = Const(0, I64)
_ROW, _STEP, _COLUMN, _LANE, _CARRY = "row", "step", "column", "lane", "carry"


def build_cumulative(node: Node, key: Node, key_of: Callable[[Node], Node], check_of: Callable[[Node], int]) -> Built:
    """The kernel of one running result."""
    op = node.op
    assert isinstance(op, Cumulative)
    length = node.shape[op.axis]
    rows, width = product(node.shape[: op.axis]), product(node.shape[op.axis + 1 :])
    operands = [reshape(arg, (rows, length, width)) for arg in node.args]
    emitter = Emitter(frozenset(), key_of, check_of, {f"%{_ROW}": rows, f"%{_STEP}": length, f"%{_COLUMN}": width})
    emitter.open("p")
    first = Const(float(op.first(node.dtype)) if node.dtype.is_float else op.first(node.dtype), node.dtype)
    step = loop_index(_STEP)
    place = length - 1 - step if op.reverse else step

    def advance(carry: Expr, column: Size) -> Expr:
        """Read, join and store one element; the next carry."""
        index = (loop_index(_ROW), place, column)
        elements = [emitter.value(operand, index) for operand in operands]
        joined = emitter.let(op.step(carry, *elements))
        at = (loop_index(_ROW) * length + place) * width + column
        emitter.store(key, at, carry if op.shifted else joined)
        return joined

    if width == 1:
        _let(emitter, _ROW, Var("p", I64))
        carry = Var(_CARRY, node.dtype)
        emitter.add(Declare(carry, first))
        emitter.depth_of[_CARRY] = len(emitter.blocks)
        emitter.open(_STEP)
        if op.shifted:  # what is stored must be what was carried, before it is set anew
            kept = Var("kept", node.dtype)
            emitter.depth_of["kept"] = len(emitter.blocks) - 1
            emitter.add(Let(kept, carry))
            emitter.add(Assign(carry, advance(kept, 0)))
        else:
            emitter.add(Assign(carry, advance(carry, 0)))
        emitter.add(For(_STEP, ZERO, emitter.sizes.argument(length), LoopKind.SEQ, emitter.close()))
        extent = rows
    else:
        blocks = ceildiv(width, LANES)
        extent = rows * blocks
        count = emitter.sizes.argument(blocks)
        _let(emitter, _ROW, Var("p", I64) if blocks == 1 else Apply("floordiv", (Var("p", I64), count), I64))
        block: Expr = ZERO if blocks == 1 else emitter.let(Apply("mod", (Var("p", I64), count), I64))
        begin = emitter.let(Apply("mul", (block, Const(LANES, I64)), I64)) if blocks != 1 else ZERO
        left = Apply("sub", (emitter.sizes.argument(width), begin), I64)
        lanes = emitter.let(Apply("min", (left, Const(LANES, I64)), I64))
        emitter.add(Local(_CARRY, node.dtype, LANES))
        lane = Var(_LANE, I64)
        emitter.add(For(_LANE, ZERO, lanes, LoopKind.VECTOR, (Store(_CARRY, lane, first),)))
        emitter.open(_STEP)
        emitter.open(_LANE)
        _let(emitter, _COLUMN, Apply("add", (begin, lane), I64))
        emitter.depth_of[_CARRY] = len(emitter.blocks) - 1
        carried = emitter.let(Load(_CARRY, lane, node.dtype))
        emitter.add(Store(_CARRY, lane, advance(carried, loop_index(_COLUMN))))
        emitter.add(For(_LANE, ZERO, lanes, LoopKind.VECTOR, emitter.close()))
        emitter.add(For(_STEP, ZERO, emitter.sizes.argument(length), LoopKind.SEQ, emitter.close()))
    body = emitter.close()
    bound = emitter.sizes.never_literal(extent, "extent")
    emitter.add(For("p", ZERO, bound, LoopKind.PARALLEL, body))
    kernel = Kernel(
        op.name,
        emitter.buffers(),
        tuple(f"n{i}" for i in range(len(emitter.sizes.values))),
        bound,
        tuple(emitter.blocks[0]),
        emitter.has_checks,
    )
    cost = length * (1 if width == 1 else LANES)
    return Built(canonical_kernel(kernel), emitter.keys, [key], list(emitter.sizes.values), extent, 1, cost, (node,))


def _let(emitter: Emitter, name: str, value: Expr) -> None:
    """Name a value so that indices can be made of it."""
    emitter.depth_of[name] = len(emitter.blocks) - 1
    emitter.add(Let(Var(name, I64), value))
