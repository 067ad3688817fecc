"""Long reductions with few results as two kernels: pieces, each on a block of its own, then the sums of the pieces.

A kernel whose parallel loop is short leaves most of a GPU idle. Both kernels here are ordinary ones; what the first
leaves for the second lies in scratch memory. Which way is taken is decided where sizes are known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.ir.types import DType
from graphc.loops.affine import Names, ceildiv, index, int64, is_of_sizes, parallel_loop
from graphc.loops.columns import Columns, match_columns
from graphc.loops.kernel import (
    Access,
    Accumulate,
    Apply,
    Assign,
    Buffer,
    Const,
    Declare,
    Expr,
    Fail,
    For,
    Kernel,
    Let,
    Load,
    LoopKind,
    Stmt,
    Store,
    Var,
    expressions,
    subexpressions,
    walk,
)

ROWS = 256
"""Rows of a piece, where columns are reduced, at least."""
ENOUGH = 2048
"""Pieces of all iterations together that keep a GPU busy; with more, blocks would begin and end too often."""
LANES = 64
"""Columns of an iteration, at most."""


@dataclass(frozen=True)
class Split:
    """Two kernels in place of one. Both have its sizes.

    Attributes:
        first: leaves pieces in scratch buffers, which are its last buffers.
        second: reads them, as its last buffers.
        scratch: their element types.
        elements: how many elements each has, from the sizes.
        pieces: into how many pieces an iteration is cut, from the sizes.
    """

    first: Kernel
    second: Kernel
    scratch: tuple[DType, ...]
    elements: Expr
    pieces: Expr


def split_reduction(kernel: Kernel) -> Split | None:
    """The kernel as two, or None if it is no single reduction."""
    if kernel.has_checks or any(isinstance(s, Fail) for s in walk(kernel.body)):
        return None
    parallel = parallel_loop(kernel)
    columns = match_columns(parallel)
    return _split_columns(kernel, parallel, columns) if columns is not None else _split_chunks(kernel, parallel)


def _split_columns(kernel: Kernel, parallel: For, columns: Columns) -> Split | None:
    rows = columns.rows
    if not (is_of_sizes(rows.stop, kernel) and isinstance(rows.start, Const)):
        return None
    if isinstance(rows.stop, Const) and rows.stop.value - rows.start.value <= ROWS:
        return None
    names = Names(kernel)
    count = index("sub", rows.stop, rows.start)
    most = index("max", int64(4), index("floordiv", int64(ENOUGH), index("max", kernel.extent, int64(1))))
    pieces = index("min", ceildiv(count, ROWS), most)
    longest = index("floordiv", index("sub", index("add", count, most), int64(1)), most)
    whole, piece, lane, cut, length = (
        Var(names.new(n), DType.int64) for n in ("whole", "piece", "lane", "pieces", "length")
    )
    here = Var(parallel.var, DType.int64)
    scratch = [Buffer(names.new("scratch"), local.dtype, Access.WRITE) for local in columns.arrays.values()]
    begin = (*columns.lets, *columns.arrays.values(), _initial(columns, lane))
    start = index("add", rows.start, index("mul", length, piece))
    some = replace(rows, start=start, stop=index("min", index("add", start, length), rows.stop))

    def place(at: Expr) -> Expr:
        return index("add", index("mul", int64(LANES), index("add", index("mul", cut, here), at)), lane)

    pairs = list(zip(columns.arrays.items(), scratch, strict=True))
    leave = tuple(Store(b.name, place(piece), Load(a, lane, local.dtype)) for (a, local), b in pairs)
    first: tuple[Stmt, ...] = (
        Let(cut, pieces),
        Let(length, index("max", int64(ROWS), longest)),
        Let(here, index("floordiv", whole, cut)),
        Let(piece, index("mod", whole, cut)),
        *begin,
        some,
        For(lane.name, int64(0), columns.lanes, LoopKind.VECTOR, leave),
    )
    taken: list[Stmt] = []
    for (a, local), buffer in pairs:
        value = Load(buffer.name, place(piece), local.dtype)
        taken.append(Store(a, lane, Apply(columns.functions[a], (Load(a, lane, local.dtype), value), local.dtype)))
    lanes = For(lane.name, int64(0), columns.lanes, LoopKind.VECTOR, tuple(taken))
    second = (Let(cut, pieces), *begin, For(piece.name, int64(0), cut, LoopKind.SEQ, (lanes,)), *columns.after)
    elements = index("mul", index("mul", kernel.extent, pieces), int64(LANES))
    return _made(kernel, parallel, whole, first, second, scratch, elements, pieces)


def _initial(columns: Columns, lane: Var) -> Stmt:
    stores = tuple(Store(a, lane, value) for a, value in columns.initial.items())
    return For(lane.name, int64(0), columns.lanes, LoopKind.VECTOR, stores)


def _split_chunks(kernel: Kernel, parallel: For) -> Split | None:
    """A sum in chunks: each chunk on its own."""
    loops = [i for i, s in enumerate(parallel.body) if isinstance(s, For)]
    if len(loops) != 1:
        return None
    chunks = parallel.body[loops[0]]
    before, after = parallel.body[: loops[0]], parallel.body[loops[0] + 1 :]
    assert isinstance(chunks, For)
    inner = [s for s in chunks.body if isinstance(s, For)]
    parts = {s.var.name: s for s in chunks.body if isinstance(s, Declare)}
    totals = {s.var.name: s.value for s in chunks.body if isinstance(s, Assign)}
    if chunks.kind is not LoopKind.SEQ or chunks.start != int64(0) or not is_of_sizes(chunks.stop, kernel):
        return None
    if len(inner) != 1 or len(totals) != len(parts) or len(chunks.body) != 1 + 2 * len(parts) or not parts:
        return None
    summed = {s.var.name for s in walk(inner[0].body) if isinstance(s, Accumulate)}
    if not summed <= parts.keys() or any(isinstance(s, For | Assign) for s in inner[0].body):
        return None
    by_total = {total: _part_of(total, value, parts) for total, value in totals.items()}
    declared = {s.var.name for s in before if isinstance(s, Declare)}
    simple = all(isinstance(s, Let | Declare) for s in before) and all(isinstance(s, Let | Store) for s in after)
    if None in by_total.values() or declared != totals.keys() or not simple:
        return None
    names = Names(kernel)
    whole, here = Var(names.new("whole"), DType.int64), Var(parallel.var, DType.int64)
    pieces = chunks.stop
    scratch = [Buffer(names.new("scratch"), parts[p].var.dtype, Access.WRITE) for p in by_total.values() if p]
    lets = tuple(s for s in before if isinstance(s, Let))
    named = list(zip(by_total.items(), scratch, strict=True))
    first: tuple[Stmt, ...] = (
        Let(here, index("floordiv", whole, pieces)),
        Let(Var(chunks.var, DType.int64), index("mod", whole, pieces)),
        *lets,
        *parts.values(),
        inner[0],
        *(Store(buffer.name, whole, parts[part].var) for (_, part), buffer in named if part),
    )
    piece = Var(names.new("piece"), DType.int64)
    place = index("add", index("mul", here, pieces), piece)
    sums = tuple(
        Accumulate(Var(total, buffer.dtype), "add", Load(buffer.name, place, buffer.dtype))
        for (total, _), buffer in named
    )
    second = (*before, For(piece.name, int64(0), pieces, LoopKind.REDUCE, sums), *after)
    return _made(kernel, parallel, whole, first, second, scratch, index("mul", kernel.extent, pieces), pieces)


def _part_of(total: str, value: Expr, parts: dict[str, Declare]) -> str | None:
    match value:
        case Apply(fn="add", args=(Var(name=before), Var(name=part))) if before == total and part in parts:
            return part
        case _:
            return None


def _made(
    kernel: Kernel,
    parallel: For,
    whole: Var,
    first: tuple[Stmt, ...],
    second: tuple[Stmt, ...],
    scratch: list[Buffer],
    elements: Expr,
    pieces: Expr,
) -> Split:
    extent = index("mul", kernel.extent, pieces)
    read = [replace(buffer, access=Access.READ) for buffer in scratch]
    return Split(
        replace(
            kernel,
            name=f"{kernel.name}_pieces",
            buffers=(*_used(kernel, first), *scratch),
            extent=extent,
            body=(For(whole.name, int64(0), extent, LoopKind.PARALLEL, first),),
        ),
        replace(kernel, buffers=(*_used(kernel, second), *read), body=(replace(parallel, body=second),)),
        tuple(buffer.dtype for buffer in scratch),
        elements,
        pieces,
    )


def _used(kernel: Kernel, body: tuple[Stmt, ...]) -> list[Buffer]:
    """The kernel's buffers that statements touch."""
    names = {s.buffer for s in walk(body) if isinstance(s, Store)}
    for statement in walk(body):
        for expression in expressions(statement):
            names |= {part.buffer for part in subexpressions(expression) if isinstance(part, Load)}
    return [buffer for buffer in kernel.buffers if buffer.name in names]
