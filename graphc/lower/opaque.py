"""Ops that are kernels of their own: matrix products, scatters, concatenation."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace

from graphc.ir.dims import Size, ceildiv, coefficient, least, product
from graphc.ir.node import Node
from graphc.ir.types import DType, Shape
from graphc.loops.kernel import Apply, Const, Expr, For, Kernel, Let, Load, LoopKind, Store, Var
from graphc.loops.scalar import identity
from graphc.lower.build import LANES, Built, KernelBuilder, Target, copy_cluster
from graphc.lower.canonical import canonical_kernel
from graphc.lower.emit import Emitter
from graphc.lower.index import Index, linear, loop_index, loop_names
from graphc.lower.recall import build_cluster
from graphc.lower.views import is_view, through_views
from graphc.ops.cast import Cast
from graphc.ops.movement import Concatenate, Reshape
from graphc.ops.scatter import ScatterAlong, TakeAdd

I64 = DType.int64
ZERO = Const(0, I64)
SHORTEST_RUN = 8
"""Shorter rows are copied as parts of longer ones."""
KeyOf = Callable[[Node], Node]
CheckOf = Callable[[Node], int]


def build_copy(node: Node, key: Node, key_of: KeyOf, check_of: CheckOf, name: str = "copy") -> Built:
    """A kernel that moves a node's elements into the buffer of ``key``.

    It runs over the axes that the elements had before they were reshaped, of which no index needs a division, unless
    the innermost of these are too short for a loop.
    """
    source = node
    while isinstance(source.op, Reshape):
        source = source.args[0]
    run = _run(source)
    if isinstance(run, int) and run < SHORTEST_RUN:
        source = node
    built = build_cluster(copy_cluster(source), [Target(source, key)], key_of, check_of, name)
    return replace(built, nodes=(node,))


def _run(node: Node) -> Size:
    """How many elements lie side by side, to begin with."""
    index = tuple(loop_index(f"i{a}") for a in range(node.ndim))
    bounds = {f"%i{a}": size for a, size in enumerate(node.shape)}
    source, place = through_views(node, index, bounds)
    position = linear(place, source.shape)
    run: Size = 1
    for axis in range(node.ndim - 1, -1, -1):
        if node.shape[axis] != 1 and coefficient(position, f"%i{axis}") != run:
            break
        run = run * node.shape[axis]
    return run


def build_concatenate(
    node: Node, key: Node, key_of: KeyOf, check_of: CheckOf, joined: Container[int] = ()
) -> list[Built]:
    """One kernel for each operand, which moves it to its part of the result; they can run together.

    Operands in ``joined``, by ``id``, are written there by the kernels that compute them.
    """
    built: list[Built] = []
    for arg, place in zip(node.args, concatenated_places(node), strict=True):
        if id(unwidened(arg)) in joined:
            continue
        builder = KernelBuilder(copy_cluster(arg), [Target(arg, key, place)], key_of, check_of, "concatenate")
        item = builder.build()
        item.nodes = (node,)
        built.append(item)
    return built


def unwidened(node: Node) -> Node:
    """The 16-bit floats that an operand reads as float32, or the operand."""
    return node.args[0] if isinstance(node.op, Cast) and is_view(node) else node


def concatenated_places(node: Node) -> list[Callable[[Index], Size]]:
    """For each operand where its element at an index lies in the result."""
    assert isinstance(node.op, Concatenate)
    axis = node.op.axis
    places: list[Callable[[Index], Size]] = []
    start: Size = 0
    for arg in node.args:

        def place(index: Index, start: Size = start) -> Size:
            moved = tuple(part + start if a == axis else part for a, part in enumerate(index))
            return linear(moved, node.shape)

        places.append(place)
        start = start + arg.shape[axis]
    return places


def build_scatter(node: Node, key: Node, key_of: KeyOf, check_of: CheckOf) -> Built:
    """The neutral element, then values combined at data-dependent places, in order: the same bits at every run."""
    op = node.op
    values, indices = node.args
    fn = op.fn if isinstance(op, ScatterAlong) else "add"
    emitter = Emitter(frozenset(), key_of, check_of)
    if isinstance(op, TakeAdd):
        before = list(range(op.axis))
        along = list(range(op.axis, op.axis + indices.ndim))
        after = list(range(op.axis + indices.ndim, values.ndim))
        axis = op.axis
    else:
        assert isinstance(op, ScatterAlong)
        axis = op.axis
        before = [a for a in range(values.ndim) if a != axis]
        along, after = [axis], []
    index: list[Size] = [0] * values.ndim
    for a in range(values.ndim):
        if values.shape[a] != 1:
            index[a] = loop_index(f"i{a}")
            emitter.bounds[f"%i{a}"] = values.shape[a]
    width = product(tuple(values.shape[a] for a in after))
    blocks = ceildiv(width, LANES) if after else 1
    rows = product(tuple(values.shape[a] for a in before))
    emitter.open("p")
    rest: Expr = Var("p", I64)
    first: Expr = ZERO
    if blocks != 1:
        count = emitter.sizes.argument(blocks)
        first = emitter.let(Apply("mul", (emitter.let(Apply("mod", (rest, count), I64)), Const(LANES, I64)), I64))
        rest = emitter.let(Apply("floordiv", (rest, count), I64))
    decode(emitter, before, values.shape, rest)
    lanes: Expr = Const(1, I64)
    if after:
        left = Apply("sub", (emitter.sizes.argument(width), first), I64)
        lanes = emitter.let(Apply("min", (left, Const(LANES, I64)), I64))

    def target(chosen: Size) -> Size:
        if isinstance(op, TakeAdd):
            place = (*index[:axis], chosen, *index[axis + indices.ndim :])
        else:
            place = (*index[:axis], chosen, *index[axis + 1 :])
        return linear(place, node.shape)

    emitter.open("z")
    emitter.bounds["%z"] = node.shape[axis]
    open_columns(emitter, after, values, first)
    emitter.store(key, target(loop_index("z")), Const(identity(fn, node.dtype), node.dtype))
    close_columns(emitter, lanes)
    emitter.add(For("z", ZERO, emitter.sizes.argument(node.shape[axis]), LoopKind.SEQ, emitter.close()))
    for a in along:
        emitter.open(f"i{a}")
    chosen = tuple(index[a] for a in along) if isinstance(op, TakeAdd) else tuple(index)
    raw = emitter.let(Apply("cast", (emitter.value(indices, chosen),), I64))
    limit = node.shape[axis]
    emitter.check_index(node, raw, limit)
    high = Apply("min", (raw, emitter.sizes.expression(limit - 1)), I64)
    inside = emitter.let(Apply("max", (high, ZERO), I64))
    assert isinstance(inside, Var)
    if not isinstance(limit, int):  # of an axis of size 0 there is no element to add to
        some = Apply("gt", (emitter.sizes.argument(limit), ZERO), DType.bool)
        lanes = emitter.let(Apply("select", (some, lanes, ZERO), I64))
    open_columns(emitter, after, values, first)
    place = target(loop_index(inside.name))
    addend = emitter.value(values, tuple(index))
    emitter.store(key, place, ZERO)
    store = emitter.blocks[-1].pop()
    assert isinstance(store, Store)
    total = Apply(fn, (Load(store.buffer, store.index, node.dtype), addend), node.dtype)
    emitter.add(Store(store.buffer, store.index, total))
    close_columns(emitter, lanes)
    for a in reversed(along):
        emitter.add(For(f"i{a}", ZERO, emitter.sizes.argument(values.shape[a]), LoopKind.SEQ, emitter.close()))
    extent = rows * blocks
    body = emitter.close()
    bound = emitter.sizes.never_literal(extent, "extent")
    emitter.add(For("p", ZERO, bound, LoopKind.PARALLEL, body))
    kernel = Kernel(
        "scatter",
        emitter.buffers(),
        tuple(f"n{i}" for i in range(len(emitter.sizes.values))),
        bound,
        tuple(emitter.blocks[0]),
        emitter.has_checks,
    )
    cost = product(tuple(values.shape[a] for a in along)) * (LANES if after else 1)
    return Built(canonical_kernel(kernel), emitter.keys, [key], list(emitter.sizes.values), extent, 1, cost, (node,))


def decode(emitter: Emitter, axes: list[int], shape: Shape, position: Expr) -> None:
    """Name the index along each axis, of a position among all the elements of these axes."""
    long = [a for a in axes if shape[a] != 1]
    for a in reversed(long):
        size = emitter.sizes.argument(shape[a])
        emitter.depth_of[f"i{a}"] = len(emitter.blocks) - 1
        emitter.add(Let(Var(f"i{a}", I64), position if a == long[0] else Apply("mod", (position, size), I64)))
        if a != long[0]:
            position = emitter.let(Apply("floordiv", (position, size), I64))


def open_columns(emitter: Emitter, after: list[int], values: Node, first: Expr) -> None:
    """Begin a loop over a few of the columns, those from ``first`` on, of the elements of a row."""
    emitter.open("lane")
    if after:
        column = Apply("add", (first, Var("lane", I64)), I64)
        decode(emitter, after, values.shape, emitter.let(column))


def close_columns(emitter: Emitter, lanes: Expr) -> None:
    """End it after so many of them."""
    emitter.add(For("lane", ZERO, lanes, LoopKind.VECTOR, emitter.close()))


class Matrix:
    """How an operand of a product lies in its buffer: which node's buffer, its strides, and where it begins."""

    def __init__(self, key: Node, transposed: bool, leading: Size, batch: tuple[Size, ...], offset: Size = 0) -> None:
        self.key = key
        self.transposed = transposed
        self.leading = leading
        self.batch = batch
        self.offset = offset


def as_matrix(node: Node) -> Matrix | None:
    """The operand read through its views, or None where BLAS cannot read it in place.

    The element type of its ``key`` is another one where a conversion is on the way.
    """
    rank = node.ndim
    index = tuple(loop_index(f"i{a}") for a in range(rank))
    bounds = {f"%i{a}": size for a, size in enumerate(node.shape)}
    source, place = through_views(node, index, bounds) if is_view(node) else (node, index)
    position = linear(place, source.shape)
    strides: list[Size] = []
    rest = position
    for a in range(rank):
        stride = coefficient(position, f"%i{a}")
        if stride is None or least(stride) < 0:
            return None
        strides.append(stride)
        rest = rest - stride * index[a]
    if loop_names(rest):
        return None
    rows, columns = node.shape[-2], node.shape[-1]
    row, column = strides[-2], strides[-1]
    batch = tuple(strides[:-2])
    if column == 1 or columns == 1:
        leading = row if rows != 1 and row != 0 else columns
        if isinstance(leading, int) and isinstance(columns, int) and leading < columns:
            return None  # rows that overlap, as windows do, are none that BLAS takes
        return None if row == 0 and rows != 1 else Matrix(source, False, leading, batch, rest)
    if row == 1 or rows == 1:
        leading = column if columns != 1 and column != 0 else rows
        if isinstance(leading, int) and isinstance(rows, int) and leading < rows:
            return None
        return None if column == 0 and columns != 1 else Matrix(source, True, leading, batch, rest)
    return None


def batch_strides(shape: tuple[Size, ...], strides: tuple[Size, ...], full: tuple[Size, ...]) -> Size | None:
    """One stride that walks the whole batch, or None where there is none.

    ``strides`` belong to the operand's own batch axes (trailing ones of ``full``); axes of size 1 are repeated.
    """
    padded = [0] * (len(full) - len(shape)) + [
        0 if size == 1 else stride for size, stride in zip(shape, strides, strict=True)
    ]
    walk: Size | None = None
    inner: Size = 1
    for size, stride in reversed(list(zip(full, padded, strict=True))):
        if size == 1:
            continue
        if walk is None:
            walk, inner = stride, size
        elif stride != walk * inner:
            return None
        else:
            inner = inner * size
    return 0 if walk is None else walk
