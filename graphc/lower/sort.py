"""The kernel of ArgSort: each row by merging sorted runs, in O(n log n), stable, without a bound on its length.

A row is sorted between two pairs of arrays in memory, (keys, positions) and their copies. A pass merges neighbouring
runs of ``width`` from the one pair into the other; two passes bring the row back to where it was. Merging goes by keys
that lie in order, so that memory is read along its rows whatever view the operand is.
"""

from __future__ import annotations

from graphc.ir.dims import Size, product
from graphc.ir.node import Input, Node
from graphc.ir.types import DType, TensorType
from graphc.loops.kernel import (
    Access,
    Apply,
    Assign,
    Const,
    Declare,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Stmt,
    Store,
    Var,
)
from graphc.lower.build import Built
from graphc.lower.canonical import canonical_kernel
from graphc.lower.emit import Emitter
from graphc.lower.index import loop_index
from graphc.lower.opaque import CheckOf, KeyOf, decode
from graphc.lower.sources import free
from graphc.lower.views import is_view
from graphc.ops.sorting import ArgSort

I64 = DType.int64
ZERO, ONE = Const(0, I64), Const(1, I64)
MOST_DOUBLE_PASSES = 31
"""Each makes runs four times as long: enough for 2**62 elements. Those that are not needed are passed over."""


def build_argsort(node: Node, key: Node, key_of: KeyOf, check_of: CheckOf) -> Built:
    """One iteration for each row: read its keys, then merge runs of 1, 2, 4, ... until one is left."""
    op = node.op
    assert isinstance(op, ArgSort)
    (x,) = node.args
    emitter = Emitter(frozenset(), key_of, check_of)
    rows, length = product(x.shape[:-1]), x.shape[-1]
    scratch = [_scratch(node, dtype) for dtype in (x.dtype, x.dtype, I64)]
    bound, count = emitter.sizes.never_literal(rows, "extent"), emitter.sizes.never_literal(length, "length")

    emitter.open("p")
    base = emitter.let(_i64("mul", Var("p", I64), count))
    place = f"i{x.ndim - 1}"
    at = _i64("add", base, Var(place, I64))
    keys, other_keys, other_places = (emitter.buffer(array, Access.WRITE) for array in scratch)
    places = emitter.buffer(key, Access.WRITE)
    if is_view(x) or free(x):
        value = _read_through(emitter, x)
    else:  # dense rows, whatever their number and length: all of them are one kernel
        emitter.open(place)
        value = Load(emitter.buffer(x, Access.READ), at, x.dtype)
    emitter.add(Store(keys, at, value))
    emitter.add(Store(places, at, Var(place, I64)))
    emitter.add(For(place, ZERO, count, LoopKind.VECTOR, emitter.close()))

    width = Var("width", I64)
    there = _Merge(base, count, x.dtype, op.descending, (keys, places), (other_keys, other_places), "a")
    back = _Merge(base, count, x.dtype, op.descending, (other_keys, other_places), (keys, places), "b")
    both = (
        *there.statements(width),
        *back.statements(_i64("mul", width, Const(2, I64))),
        Assign(width, _i64("mul", width, Const(4, I64))),
    )
    emitter.add(Declare(width, ONE))
    unsorted = Apply("lt", (width, count), DType.bool)
    emitter.add(For("pass", ZERO, Const(MOST_DOUBLE_PASSES, I64), LoopKind.SEQ, (If(unsorted, both),)))
    body = emitter.close()
    emitter.add(For("p", ZERO, bound, LoopKind.PARALLEL, body))
    kernel = Kernel(
        "argsort",
        emitter.buffers(),
        tuple(f"n{i}" for i in range(len(emitter.sizes.values))),
        bound,
        tuple(emitter.blocks[0]),
        emitter.has_checks,
    )
    cost = length * 100
    sizes = list(emitter.sizes.values)
    return Built(canonical_kernel(kernel), emitter.keys, [key, *scratch], sizes, rows, 1, cost, (node,))


def _read_through(emitter: Emitter, x: Node) -> Expr:
    """Open the loop along a row of a view, and read its element."""
    index: list[Size] = [0 if size == 1 else loop_index(f"i{axis}") for axis, size in enumerate(x.shape)]
    emitter.bounds.update({f"%i{axis}": size for axis, size in enumerate(x.shape) if size != 1})
    decode(emitter, list(range(x.ndim - 1)), x.shape, Var("p", I64))
    emitter.open(f"i{x.ndim - 1}")
    return emitter.value(x, tuple(index))


def _scratch(node: Node, dtype: DType) -> Node:
    type = TensorType(dtype, node.shape)
    return Node(Input("scratch", type), (), type, node.loc)


def _i64(fn: str, *args: Expr) -> Apply:
    return Apply(fn, args, I64)


class _Merge:
    """One pass over a row: runs of ``width`` in the source become runs of twice that in the target.

    ``suffix`` keeps the names of the two passes apart.
    """

    def __init__(
        self,
        base: Expr,
        count: Expr,
        dtype: DType,
        descending: bool,
        source: tuple[str, str],
        target: tuple[str, str],
        suffix: str,
    ) -> None:
        self.base, self.count, self.dtype, self.descending = base, count, dtype, descending
        self.source, self.target, self.suffix = source, target, suffix

    def statements(self, width: Expr) -> tuple[Stmt, ...]:
        """The loop over pairs of runs: they are independent of each other."""
        step, run = self._var("step"), self._var("run")
        first, middle, end = self._var("first"), self._var("middle"), self._var("end")
        runs = _i64("floordiv", _i64("add", self.count, _i64("sub", step, ONE)), step)
        pair = (
            Let(first, _i64("mul", run, step)),
            Let(middle, _i64("min", _i64("add", first, width), self.count)),
            Let(end, _i64("min", _i64("add", first, step), self.count)),
            *self._merge(first, middle, end),
        )
        return (Let(step, _i64("mul", width, Const(2, I64))), For(run.name, ZERO, runs, LoopKind.VECTOR, pair))

    def _merge(self, first: Var, middle: Var, end: Var) -> tuple[Stmt, ...]:
        """Each element of the target is the next of the left run, unless that of the right one comes before it."""
        left, right, place = self._var("left"), self._var("right"), self._var("place")
        a, b = self._var("a", self.dtype), self._var("b", self.dtype)
        at_left, at_right, chosen = self._var("at_left"), self._var("at_right"), self._var("chosen")
        from_right, step_right = self._var("from_right", DType.bool), self._var("step_right")
        keys, places = self.source
        target_keys, target_places = self.target
        ended = Apply("ge", (left, middle), DType.bool)
        any_left = Apply("lt", (right, end), DType.bool)
        is_before = self._before(b, a)
        at = _i64("add", self.base, place)
        body = (
            Let(at_left, self._inside(left)),
            Let(at_right, self._inside(right)),
            Let(a, Load(keys, at_left, self.dtype)),
            Let(b, Load(keys, at_right, self.dtype)),
            Let(from_right, _both(any_left, Apply("or", (ended, is_before), DType.bool))),
            Let(chosen, Apply("select", (from_right, at_right, at_left), I64)),
            Store(target_keys, at, Apply("select", (from_right, b, a), self.dtype)),
            Store(target_places, at, Load(places, chosen, I64)),
            Let(step_right, Apply("cast", (from_right,), I64)),
            Assign(right, _i64("add", right, step_right)),
            Assign(left, _i64("add", left, _i64("sub", ONE, step_right))),
        )
        return (Declare(left, first), Declare(right, middle), For(place.name, first, end, LoopKind.SEQ, body))

    def _inside(self, position: Expr) -> Expr:
        """A run that is used up may end behind the row; what is loaded there is not chosen."""
        return _i64("add", self.base, _i64("min", position, _i64("sub", self.count, ONE)))

    def _before(self, b: Expr, a: Expr) -> Expr:
        """Must b precede a? NaN comes last in either direction."""
        sooner = Apply("gt" if self.descending else "lt", (b, a), DType.bool)
        if not self.dtype.is_float:
            return sooner
        number = Apply("not", (Apply("isnan", (b,), DType.bool),), DType.bool)
        return Apply("or", (sooner, _both(Apply("isnan", (a,), DType.bool), number)), DType.bool)

    def _var(self, name: str, dtype: DType = I64) -> Var:
        return Var(f"{name}_{self.suffix}", dtype)


def _both(a: Expr, b: Expr) -> Expr:
    return Apply("and", (a, b), DType.bool)


__all__ = ["build_argsort"]
