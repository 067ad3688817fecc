"""Emitting the value of a node at an index, into the innermost loop that it depends on.

The emitter keeps a stack of open blocks (the kernel's top, the parallel loop, inner loops). A value goes into the
outermost block in which everything it depends on is known, so loop-invariant work is hoisted by construction, and is
emitted once for each (node, index).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from graphc.errors import GraphError
from graphc.ir.dims import Size, coefficient
from graphc.ir.node import Constant, Node
from graphc.ir.types import DType
from graphc.loops.kernel import (
    EXPENSIVE,
    Access,
    Apply,
    Buffer,
    Const,
    Expr,
    Fail,
    Let,
    Load,
    Stmt,
    Store,
    Var,
)
from graphc.lower.cluster import operand_of_trivial
from graphc.lower.index import Index, SizeArguments, linear, loop_index
from graphc.lower.padded import PaddedWindows
from graphc.lower.sources import free
from graphc.lower.views import broadcast_index, through_views, window_index
from graphc.ops.base import Elementwise
from graphc.ops.checked import CheckFinite, InRange
from graphc.ops.create import Iota, SizeOf
from graphc.ops.indexing import Take, TakeAlong
from graphc.ops.padding import Pad
from graphc.ops.random import RandomBits
from graphc.ops.reduction import ArgMax, ArgMin, Reduce

I64 = DType.int64


@dataclass(frozen=True)
class Merge:
    """Two neighbouring loop variables that run as one: every access is ``... (outer * extent + inner) ...``."""

    outer: str
    inner: str
    merged: str


@dataclass
class Emitter:
    """Builds the body of one kernel.

    Attributes:
        fused: ids of the nodes computed inside this kernel; all others are loaded from their buffers.
        key_of: the node whose buffer holds a materialized node's value.
        bounds: the extent of each loop variable.
    """

    fused: frozenset[int]
    key_of: Callable[[Node], Node]
    check_of: Callable[[Node], int]
    bounds: dict[str, Size] = field(default_factory=dict[str, Size])
    merges: tuple[Merge, ...] = ()
    sizes: SizeArguments = field(default_factory=SizeArguments)
    keys: list[Node] = field(default_factory=list[Node])
    access: dict[int, Access] = field(default_factory=dict[int, Access])
    blocks: list[list[Stmt]] = field(default_factory=lambda: [[]])
    memo: list[dict[tuple[int, Index], Expr]] = field(default_factory=lambda: [{}])
    depth_of: dict[str, int] = field(default_factory=dict[str, int])
    positions: list[Size] = field(default_factory=list[Size])
    has_checks: bool = False
    nonempty: tuple[Expr, ...] = ()
    """What must hold for the buffer to have elements, of the value that is being read at a computed position."""
    weight: int = 0
    floor: int = 0
    """The outermost block that values may go to: 1 keeps reads of a number next to its update."""
    _count: int = 0

    # blocks and names

    def open(self, *loop_variables: str) -> None:
        """Begin a block in which these loop variables are known."""
        self.blocks.append([])
        self.memo.append({})
        for name in loop_variables:
            self.depth_of[name.removeprefix("%")] = len(self.blocks) - 1

    def close(self) -> tuple[Stmt, ...]:
        """End the innermost block and take its statements."""
        self.memo.pop()
        return tuple(self.blocks.pop())

    def add(self, statement: Stmt) -> None:
        """Append to the innermost block."""
        self.blocks[-1].append(statement)

    def fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def depth(self, expression: Expr) -> int:
        """The block in which an expression is first known."""
        match expression:
            case Var(name=name):
                return self.depth_of.get(name, 0)
            case Apply(args=args):
                return max((self.depth(arg) for arg in args), default=0)
            case Load(buffer=buffer, index=index):
                return max(self.depth(index), self.depth_of.get(buffer, 0))
            case Const():
                return 0

    def let(self, value: Expr) -> Expr:
        """Name a value in the outermost block that knows its parts."""
        if isinstance(value, Const | Var):
            return value
        # A loop that never runs has indices of no elements: nothing of it may be read before the loop.
        never = any(extent == 0 for extent in self.bounds.values())
        depth = len(self.blocks) - 1 if never else max(self.depth(value), self.floor)
        var = Var(self.fresh("v"), value.dtype)
        self.depth_of[var.name] = depth
        self.blocks[depth].append(Let(var, value))
        return var

    # indices and buffers

    def position(self, index: Index, shape: tuple[Size, ...]) -> Expr:
        """The flat position of an element as an expression."""
        return self.index(linear(index, shape))

    def index(self, place: Size) -> Expr:
        """A polynomial of loop variables as an expression, merged variables put together."""
        self.positions.append(place)
        for merge in self.merges:
            a, b = coefficient(place, merge.outer), coefficient(place, merge.inner)
            if a is None or b is None:
                raise GraphError(f"a merged loop variable does not fit {place}", remedy="this is a defect of graphc")
            outer, inner, merged = (loop_index(n[1:]) for n in (merge.outer, merge.inner, merge.merged))
            place = place - a * outer - b * inner + b * merged
        return self.sizes.expression(place)

    def buffer(self, node: Node, access: Access) -> str:
        """The kernel's name for the buffer of a materialized node."""
        key = self.key_of(node)
        for position, known in enumerate(self.keys):
            if known is key:
                if self.access[position] is not access:
                    self.access[position] = Access.UPDATE
                return f"b{position}"
        self.keys.append(key)
        self.access[len(self.keys) - 1] = access
        return f"b{len(self.keys) - 1}"

    def buffers(self) -> tuple[Buffer, ...]:
        """The kernel's buffer arguments."""
        return tuple(Buffer(f"b{i}", key.dtype, self.access[i]) for i, key in enumerate(self.keys))

    def store(self, node: Node, place: Size, value: Expr) -> None:
        """Store into the buffer of a node, in the innermost block, as an element of its type."""
        name = self.buffer(node, Access.WRITE)
        self.add(Store(name, self.index(place), self._cast(value, node.dtype)))

    # values

    def value(self, node: Node, index: Index) -> Expr:
        """The element of ``node`` at ``index``."""
        source, place = through_views(node, index, self.bounds)
        for key in ((id(node), index), (id(source), place)):
            for known in self.memo:
                if key in known and known[key].dtype is node.dtype:
                    return known[key]
        if source.dtype is not node.dtype:
            converted = self.let(self._cast(self.value(source, place), node.dtype))
            self.remember(node, index, converted)
            return converted
        result = self._compute(source, place)
        self.remember(source, place, result)
        return result

    def remember(self, node: Node, index: Index, value: Expr) -> None:
        """Make ``value`` the element of ``node`` at ``index`` for as long as its parts are known."""
        self.memo[self.depth(value)][(id(node), index)] = value

    def _compute(self, node: Node, index: Index) -> Expr:
        op = node.op
        if isinstance(op, Constant) and len(op.data) == op.type.dtype.itemsize:
            return Const(op.array.reshape(()).item(), node.dtype)
        if isinstance(op, SizeOf):
            return self.let(self._cast(self.sizes.expression(op.size), node.dtype))
        if isinstance(op, Iota):
            return self.let(self._cast(self.index(index[op.axis]), node.dtype))
        if id(node) not in self.fused and not free(node):
            name = self.buffer(node, Access.READ)
            return self.let(Load(name, self._where_there_are_any(self.position(index, node.shape)), node.dtype))
        match op:
            case InRange(size=size):
                value = self.value(node.args[0], index)
                self._check_index(node, self._cast(value, I64), size)
                return value
            case CheckFinite():
                value = self.value(node.args[0], index)
                bad = Apply("not", (Apply("isfinite", (value,), DType.bool),), DType.bool)
                self._fail(node, bad, self.position(index, node.shape))
                return value
            case Take(axis=axis):
                return self._take(node, index, axis)
            case TakeAlong(axis=axis):
                chosen = broadcast_index(index, node.args[1].shape)
                return self._pick(node, chosen, index, axis)
            case Pad():
                return self._pad(node, op, index, node.shape)
            case PaddedWindows(pad=pad, view=view):
                whole = pad.infer(*(arg.type for arg in node.args)).shape
                return self._pad(node, pad, window_index(view, index, whole), whole)
            case RandomBits(stream=stream):
                seed, step = (self.value(arg, ()) for arg in node.args)
                element = self._cast(self.position(index, node.shape), DType.uint32)
                # as an argument: layers that draw alike are then one kernel
                number = self._cast(self.sizes.never_literal(stream, "stream"), DType.uint32)
                words = (seed, number, step, element)
                self.weight += 40
                return self.let(Apply("threefry", words, DType.uint32))
            case Reduce():
                return self.value(node.args[0], operand_of_trivial(node, index))
            case ArgMax() | ArgMin():
                return Const(0, I64)
            case Elementwise():
                args = tuple(self.value(arg, broadcast_index(index, arg.shape)) for arg in node.args)
                self.weight += 1 if op.fn not in EXPENSIVE else 10
                return self.let(op.scalar(*args, dtype=node.dtype))
            case _:
                raise GraphError(
                    f"{op.name} cannot be part of a kernel here",
                    at=node.user_line,
                    remedy="this is a defect of graphc",
                )

    def _cast(self, value: Expr, dtype: DType) -> Expr:
        return value if value.dtype is dtype else Apply("cast", (value,), dtype)

    def check_index(self, node: Node, value: Expr, limit: Size) -> None:
        """Record a failure of ``node`` unless ``0 <= value < limit``."""
        self._check_index(node, value, limit)

    def _check_index(self, node: Node, value: Expr, limit: Size) -> None:
        low = Apply("lt", (value, Const(0, I64)), DType.bool)
        high = Apply("ge", (value, self.sizes.expression(limit)), DType.bool)
        self._fail(node, Apply("or", (low, high), DType.bool), value)

    def _fail(self, node: Node, condition: Expr, detail: Expr) -> None:
        self.has_checks = True
        check = self.sizes.never_literal(self.check_of(node), "check")
        depth = max(self.depth(condition), self.depth(detail), min(1, len(self.blocks) - 1))
        self.blocks[depth].append(Fail(condition, check, detail))

    def _take(self, node: Node, index: Index, axis: int) -> Expr:
        source, indices = node.args
        chosen = index[axis : axis + indices.ndim]
        return self._pick(node, chosen, (*index[:axis], 0, *index[axis + indices.ndim :]), axis, source)

    def _pick(self, node: Node, chosen: Index, index: Index, axis: int, source: Node | None = None) -> Expr:
        """The element of the first operand whose position along ``axis`` is a value of the second."""
        source = node.args[0] if source is None else source
        limit = source.shape[axis]
        raw = self.let(self._cast(self.value(node.args[1], chosen), I64))
        self._check_index(node, raw, limit)
        place = self._place(_clamp(raw, self.sizes.expression(limit - 1)), limit)
        return self._read_somewhere(source, (*index[:axis], place, *index[axis + 1 :]), [limit])

    def _read_somewhere(self, source: Node, index: Index, limits: Sequence[Size]) -> Expr:
        """An element at a computed position, below ``limits``; anything where one of these is 0."""
        outer = self.nonempty
        unknown = [self.sizes.argument(limit) for limit in limits if not isinstance(limit, int)]
        self.nonempty = (*outer, *(self.let(Apply("gt", (size, Const(0, I64)), DType.bool)) for size in unknown))
        value = self.value(source, index)
        self.nonempty = outer
        return value

    def _where_there_are_any(self, position: Expr) -> Expr:
        """The position itself, or 0, which may be read of every buffer, where the buffer has no elements."""
        for test in self.nonempty:
            position = Apply("select", (test, position, Const(0, I64)), I64)
        return position

    def _place(self, position: Expr, limit: Size) -> Size:
        """A computed position below ``limit`` as something that indices can be made of."""
        named = self.let(position)
        if isinstance(named, Const):
            return int(named.value)
        assert isinstance(named, Var)
        self.bounds[f"%{named.name}"] = limit
        return loop_index(named.name)

    def _pad(self, node: Node, op: Pad, index: Index, padded: tuple[Size, ...]) -> Expr:
        source, filler = node.args
        outside = self.value(filler, ())
        if any(size == 0 for size in source.shape):
            return outside
        inside: Expr | None = None
        places: list[Size] = []
        limits: list[Size] = []
        for position, size, low, interior, total in zip(index, source.shape, op.low, op.interior, padded, strict=True):
            if low == 0 and interior == 0 and size == total:
                places.append(position)
                continue
            shifted = position - low
            at = shifted // (interior + 1)
            tests = [
                Apply("ge", (self.index(shifted), Const(0, I64)), DType.bool),
                Apply("lt", (self.index(at), self.sizes.expression(size)), DType.bool),
            ]
            if interior:
                exact = Apply("eq", (self.index(shifted % (interior + 1)), Const(0, I64)), DType.bool)
                tests.append(exact)
            for test in tests:
                inside = test if inside is None else Apply("and", (inside, test), DType.bool)
            places.append(self._place(_clamp(self.index(at), self.sizes.expression(size - 1)), size))
            limits.append(size)
        value = self._read_somewhere(source, tuple(places), limits)
        return value if inside is None else self.let(Apply("select", (inside, value, outside), node.dtype))


def _clamp(value: Expr, last: Expr) -> Expr:
    low = Apply("max", (value, Const(0, I64)), I64)
    return Apply("max", (Apply("min", (low, last), I64), Const(0, I64)), I64)
