"""Values written over a part of an array: in its own memory where nobody needs the old elements, else in a copy.

An :class:`UpdateSlice` or :class:`UpdateRows` that is done in place has no buffer of its own. Its value lies where the
array lay, under another key, so that who reads the old elements and who reads the new ones can be told apart, and put
in order. Rows of a parameter are written into the parameter itself, behind all that read it.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.dims import Size, ceildiv, product
from graphc.ir.graph import Graph
from graphc.ir.node import Node, Parameter
from graphc.ir.sweep import Part
from graphc.ir.types import DType
from graphc.loops.kernel import Apply, Const, Expr, For, Kernel, LoopKind, Var
from graphc.lower.build import LANES, MAP_GRAIN, Built
from graphc.lower.canonical import canonical_kernel
from graphc.lower.emit import Emitter
from graphc.lower.index import linear, loop_index
from graphc.lower.opaque import close_columns, decode, open_columns
from graphc.lower.sources import free, is_leaf, sources, sources_of
from graphc.lower.views import is_view
from graphc.ops.rows import UpdateRows
from graphc.ops.update import UpdateSlice

I64 = DType.int64
ZERO = Const(0, I64)
UPDATES = (UpdateSlice, UpdateRows)
"""Ops whose first operand is an array, of which the others change a part."""


def updates_in_place(graph: Graph, owned: frozenset[int] = frozenset()) -> frozenset[int]:
    """The updates, by ``id``, whose values may overwrite the array that they update.

    All others that read the array must be among what the update itself needs, so that they run before in any case. The
    kernel that writes must read nothing of the array, and the array must lie in memory of the plan's own.

    Args:
        graph: of primitives.
        owned: inputs, by ``id``, whose memory the plan may change: carries of a loop.
    """
    updates = [node for node in graph.nodes if isinstance(node.op, UPDATES)]
    if not updates:
        return frozenset()
    readers: dict[int, list[Node]] = {}
    for node in graph.nodes:
        if not is_view(node):
            for source in {id(s): s for s in sources(node)}.values():
                readers.setdefault(id(source), []).append(node)
    results = {id(source) for root in graph.roots for source in sources_of(root)}
    found: set[int] = set()
    for node in updates:
        array, *others_read = node.args
        is_own = id(array) in owned or not (
            is_leaf(array) or free(array) or is_view(array) or isinstance(array.op, Part)
        )
        read_again = any(source is array for arg in others_read for source in sources_of(arg))
        if not is_own or id(array) in results or read_again:
            continue
        others = [reader for reader in readers[id(array)] if reader is not node]
        if not others or {id(reader) for reader in others} <= _needed(node):
            found.add(id(node))
    return frozenset(found)


def rows_in_place(graph: Graph) -> dict[int, Parameter]:
    """The next values of parameters, by ``id``, that are made by writing rows into these.

    Nobody else may read the new value, and the kernel that writes must read no parameter, which another kernel might
    have to overwrite first: then all readers of the old value can run before it.
    """
    found: dict[int, Parameter] = {}
    for target, node in graph.updates:
        if not isinstance(node.op, UpdateRows) or node.args[0] is not target or graph.users[id(node)]:
            continue
        roots = sum(root is node for root in graph.roots)
        read = (source for arg in node.args[1:] for source in sources_of(arg))
        if roots == 1 and not any(isinstance(source, Parameter) for source in read):
            found[id(node)] = target
    return found


def stays_in_place(graph: Graph, position: int, in_place: frozenset[int]) -> bool:
    """Is a carry's next value made by updates in place alone, so that one buffer holds it at all steps?"""
    carry, node = graph.inputs[position], graph.outputs[position][1]
    while node is not carry and id(node) in in_place:
        node = node.args[0]
    return node is carry and graph.outputs[position][1] is not carry


def _needed(node: Node) -> set[int]:
    seen: set[int] = set()
    stack = list(node.args)
    while stack:
        current = stack.pop()
        if id(current) not in seen:
            seen.add(id(current))
            stack.extend(current.args)
    return seen


def build_update(node: Node, key: Node, key_of: Callable[[Node], Node], check_of: Callable[[Node], int]) -> Built:
    """The kernel that writes the values, and nothing else, into the buffer of ``key``."""
    assert isinstance(node.op, UpdateSlice)
    axis = node.op.axis
    array, values, at = node.args
    emitter = Emitter(frozenset(), key_of, check_of)
    index: list[Size] = [0 if size == 1 else loop_index(f"i{a}") for a, size in enumerate(values.shape)]
    emitter.bounds.update({f"%i{a}": size for a, size in enumerate(values.shape) if size != 1})
    *rows, last = range(values.ndim)
    emitter.open("p")
    decode(emitter, rows, values.shape, Var("p", I64))
    room = emitter.sizes.expression(array.shape[axis] - values.shape[axis])
    low = Apply("max", (Apply("cast", (emitter.value(at, ()),), I64), ZERO), I64)
    first = emitter.let(Apply("min", (low, room), I64))
    assert isinstance(first, Var)
    emitter.open(f"i{last}")
    place = [position + loop_index(first.name) if a == axis else position for a, position in enumerate(index)]
    emitter.store(key, linear(tuple(place), node.shape), emitter.value(values, tuple(index)))
    width = values.shape[last]
    stop: Expr = emitter.sizes.argument(width)
    emitter.add(For(f"i{last}", ZERO, stop, LoopKind.VECTOR, emitter.close()))
    extent = product(tuple(values.shape[a] for a in rows))
    body = emitter.close()
    bound = emitter.sizes.never_literal(extent, "extent")
    emitter.add(For("p", ZERO, bound, LoopKind.PARALLEL, body))
    names = tuple(f"n{i}" for i in range(len(emitter.sizes.values)))
    kernel = Kernel("update_slice", emitter.buffers(), names, bound, tuple(emitter.blocks[0]), emitter.has_checks)
    grain = max(1, MAP_GRAIN // width) if isinstance(width, int) and width > 0 else 1
    return Built(
        canonical_kernel(kernel), emitter.keys, [key], list(emitter.sizes.values), extent, grain, width, (node,),
        values.type.size,
    )  # fmt: skip


def build_rows(node: Node, key: Node, key_of: Callable[[Node], Node], check_of: Callable[[Node], int]) -> Built:
    """The kernel that writes rows, in the order of their indices, into the buffer of ``key``; lanes of columns apart.

    Of rows for one place the last stays, whatever the number of threads.
    """
    _, rows, indices = node.args
    emitter = Emitter(frozenset(), key_of, check_of)
    index: list[Size] = [0 if size == 1 else loop_index(f"i{a}") for a, size in enumerate(rows.shape)]
    emitter.bounds.update({f"%i{a}": size for a, size in enumerate(rows.shape) if size != 1})
    along, after = list(range(indices.ndim)), list(range(indices.ndim, rows.ndim))
    width = product(tuple(rows.shape[a] for a in after))
    emitter.open("p")
    first = emitter.let(Apply("mul", (Var("p", I64), Const(LANES, I64)), I64))
    left = Apply("sub", (emitter.sizes.argument(width), first), I64)
    lanes = emitter.let(Apply("min", (left, Const(LANES, I64)), I64))
    for a in along:
        emitter.open(f"i{a}")
    raw = Apply("cast", (emitter.value(indices, tuple(index[a] for a in along)),), I64)
    last = emitter.sizes.expression(node.shape[0] - 1)
    place = emitter.let(Apply("max", (Apply("min", (emitter.let(raw), last), I64), ZERO), I64))
    if not isinstance(node.shape[0], int):  # of an axis of size 0 there is no row to write
        some = Apply("gt", (emitter.sizes.argument(node.shape[0]), ZERO), DType.bool)
        lanes = emitter.let(Apply("select", (some, lanes, ZERO), I64))
    row: Size = 0
    if isinstance(place, Var):
        row = loop_index(place.name)
    open_columns(emitter, after, rows, first)
    emitter.store(key, linear((row, *(index[a] for a in after)), node.shape), emitter.value(rows, tuple(index)))
    close_columns(emitter, lanes)
    for a in reversed(along):
        emitter.add(For(f"i{a}", ZERO, emitter.sizes.argument(rows.shape[a]), LoopKind.SEQ, emitter.close()))
    body = emitter.close()
    extent = ceildiv(width, LANES)
    bound = emitter.sizes.never_literal(extent, "extent")
    emitter.add(For("p", ZERO, bound, LoopKind.PARALLEL, body))
    names = tuple(f"n{i}" for i in range(len(emitter.sizes.values)))
    kernel = Kernel("update_rows", emitter.buffers(), names, bound, tuple(emitter.blocks[0]), emitter.has_checks)
    cost = product(tuple(rows.shape[a] for a in along)) * LANES
    return Built(
        canonical_kernel(kernel), emitter.keys, [key], list(emitter.sizes.values), extent, 1, cost, (node,),
        rows.type.size,
    )  # fmt: skip
