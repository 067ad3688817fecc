"""Maps a kernel to the blocks and threads of a GPU; the printer then has nothing left to decide.

Five mappings. *Columns*: reductions down columns, see :mod:`graphc.loops.columns`. *Tiles*: elementwise kernels that
read an operand transposed, see :mod:`graphc.loops.tiles`. *Flat*: every point of another elementwise kernel on its own,
neighbours 16 bytes at a time. *Rows*: one block an iteration of the parallel loop, or several short ones side by side,
see :mod:`graphc.loops.rows`. *Grid*: one thread an iteration of the parallel loop, inner loops run in order.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.errors import VerifyError
from graphc.ir.types import DType
from graphc.loops.affine import (
    Names,
    ceildiv,
    index,
    int64,
    is_of_sizes,
    lets_of,
    parallel_loop,
    renamed,
    rewrite,
)
from graphc.loops.columns import map_columns
from graphc.loops.kernel import (
    Apply,
    Const,
    Fail,
    For,
    If,
    Kernel,
    Let,
    LoopKind,
    Stmt,
    Store,
    Var,
)
from graphc.loops.pack import MOST, pack_body, pack_size
from graphc.loops.rows import in_order, map_rows, suits_rows
from graphc.loops.scatter import partition_scatter
from graphc.loops.tiles import map_tiles
from graphc.loops.verify import verify_kernel

LEAST_SHARED_BYTES = 99 * 1024
"""What a block may have of shared memory on every GPU from Ampere on; an A100 gives it 163 KiB, an H100 227."""


def map_to_gpu(
    kernel: Kernel, block: int = 256, vectors: bool = True, shared_bytes: int = LEAST_SHARED_BYTES
) -> Kernel:
    """The same kernel in ``block`` and ``thread`` loops, with about ``block`` threads a block.

    Without ``vectors`` no arrays need begin at multiples of 16 bytes. ``shared_bytes``: what a block of the device may
    have of shared memory.

    Rows are chosen where an inner loop is long enough for a warp and walks along memory, or the parallel loop
    does not. The grid of the mapped kernel is the stop of its outermost loop.

    Raises:
        VerifyError: the kernel is not well-formed, or mapped already.
    """
    verify_kernel(kernel)
    if kernel.threads:
        raise VerifyError(f"kernel {kernel.name}: is mapped already")
    kernel = partition_scatter(kernel)
    most = MOST if vectors else 1
    mapped = map_columns(kernel, most) or map_tiles(kernel) or _map_flat(kernel, block, most)
    if mapped is None:
        mapped = map_rows(kernel, block, most, shared_bytes) if suits_rows(kernel) else _map_grid(kernel, block)
    verify_kernel(mapped)
    return mapped


def _map_flat(kernel: Kernel, threads: int, most: int) -> Kernel | None:
    """An elementwise kernel point by point; None if it is none, or if only its run-time sizes say where rows end."""
    *leading, outer = kernel.body
    assert isinstance(outer, For)  # verified
    *lets, loop = outer.body
    names = Names(kernel)
    block, thread = Var(names.new("block"), DType.int64), Var(names.new("thread"), DType.int64)
    known = lets_of(parallel_loop(kernel))
    if isinstance(loop, For) and loop.kind is LoopKind.VECTOR and all(isinstance(s, Let) for s in lets):
        if loop.start != int64(0) or not _is_simple(loop) or loop.stop == int64(0):
            return None
        if not isinstance(loop.stop, Const):
            return _map_chunks(kernel, loop, threads) if is_of_sizes(loop.stop, kernel) else None
        width = int(loop.stop.value)
        size = pack_size(loop, known, most)
        row = Var(outer.var, DType.int64)
        column = Var(names.new("column"), DType.int64)
        packs = width // size
        place = index("mul", index("sub", thread, index("mul", row, int64(packs))), int64(size))
        body: list[Stmt] = [Let(row, index("floordiv", thread, int64(packs))), Let(column, place), *lets]
        if size > 1:
            body += pack_body(loop, column, size, known, names)
        else:
            body += rewrite(loop.body, {loop.var: column})
        count = index("mul", kernel.extent, int64(packs))
    elif _is_simple(outer):
        size = pack_size(outer, known, most, multiple=MOST)
        if size == 1:
            return None
        count = ceildiv(kernel.extent, size)
        base = Var(names.new("base"), DType.int64)
        whole = Apply("le", (index("add", base, int64(size)), kernel.extent), DType.bool)
        tail = replace(outer, start=base, stop=kernel.extent, kind=LoopKind.SEQ, var=names.new(outer.var))
        tail = replace(tail, body=rewrite(renamed(outer.body, names), {outer.var: Var(tail.var, DType.int64)}))
        packed = pack_body(outer, base, size, known, names)
        body = [
            Let(base, index("mul", thread, int64(size))),
            If(whole, packed),
            If(Apply("not", (whole,), DType.bool), (tail,)),
        ]
    else:
        return None
    first = index("mul", block, int64(threads))
    end = index("min", count, index("add", first, int64(threads)))
    inner = For(thread.name, first, end, LoopKind.THREAD, tuple(body))
    blocks = For(block.name, int64(0), ceildiv(count, threads), LoopKind.BLOCK, (*leading, inner))
    return replace(kernel, body=(blocks,), threads=threads)


def _map_chunks(kernel: Kernel, loop: For, threads: int) -> Kernel:
    """An elementwise kernel whose rows have a length that is known at run time: a block for each piece of a row."""
    *leading, outer = kernel.body
    assert isinstance(outer, For)  # verified
    names = Names(kernel)
    block, piece = Var(names.new("block"), DType.int64), Var(names.new("piece"), DType.int64)
    length = 4 * threads
    pieces = ceildiv(loop.stop, length)
    first = index("mul", piece, int64(length))
    end = index("min", loop.stop, index("add", first, int64(length)))
    body = (
        Let(Var(outer.var, DType.int64), index("floordiv", block, pieces)),
        Let(piece, index("mod", block, pieces)),
        *leading,
        *outer.body[:-1],
        replace(loop, start=first, stop=end, kind=LoopKind.THREAD),
    )
    extent = index("mul", kernel.extent, pieces)
    return replace(kernel, body=(For(block.name, int64(0), extent, LoopKind.BLOCK, body),), threads=threads)


def _is_simple(loop: For) -> bool:
    return all(isinstance(s, Let | Store | Fail) for s in loop.body)


def _map_grid(kernel: Kernel, threads: int) -> Kernel:
    parallel = parallel_loop(kernel)
    block = Var(Names(kernel).new("block"), DType.int64)
    first = index("mul", block, int64(threads))
    end = index("min", kernel.extent, index("add", first, int64(threads)))
    leading, body = kernel.body[:-1], parallel.body[len(kernel.body) - 1 :]
    inner = For(parallel.var, first, end, LoopKind.THREAD, in_order(body))
    outer = For(block.name, int64(0), ceildiv(kernel.extent, threads), LoopKind.BLOCK, (*leading, inner))
    return replace(kernel, body=(outer,), threads=threads)
