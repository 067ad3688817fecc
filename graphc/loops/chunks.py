"""Sums in chunks as plain sums again.

Long sums are lowered as a loop over chunks, each with a sum of its own, so that a single thread adds up accurately and
fast. Threads of a GPU share the work of one sum anyway.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.loops.affine import index, int64
from graphc.loops.kernel import Accumulate, Apply, Assign, Const, Declare, Expr, For, If, LoopKind, Stmt, Var


def merge_chunks(statements: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """The statements with loops over chunks of a fixed number of elements as one loop."""
    result: list[Stmt] = []
    for statement in statements:
        if isinstance(statement, For):
            merged = _merged(statement)
            result.append(merged or replace(statement, body=merge_chunks(statement.body)))
        elif isinstance(statement, If):
            result.append(replace(statement, body=merge_chunks(statement.body)))
        else:
            result.append(statement)
    return tuple(result)


def _merged(outer: For) -> For | None:
    loops = [s for s in outer.body if isinstance(s, For)]
    parts = {s.var.name: s for s in outer.body if isinstance(s, Declare)}
    totals = _totals(outer, parts)
    if outer.kind is not LoopKind.SEQ or len(loops) != 1 or len(totals) != len(parts) or not parts:
        return None
    if len(outer.body) != 1 + 2 * len(parts) or loops[0].kind is not LoopKind.REDUCE:
        return None
    length = _length(outer, loops[0])
    if length is None:
        return None
    body = tuple(
        replace(s, var=totals[s.var.name]) if isinstance(s, Accumulate) and s.var.name in totals else s
        for s in loops[0].body
    )
    return replace(loops[0], start=int64(0), stop=int64(length), body=body)


def _totals(outer: For, parts: dict[str, Declare]) -> dict[str, Var]:
    """The variable that each part is added to."""
    found: dict[str, Var] = {}
    for statement in outer.body:
        match statement:
            case Assign(var=total, value=Apply(fn="add", args=(before, Var(name=part)))) if (
                before == total and part in parts and parts[part].initial.value == 0  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            ):
                found[part] = total
            case _:
                pass
    return found


def _length(outer: For, inner: For) -> int | None:
    """How many elements all chunks have together, if that is a number and the chunks follow each other."""
    match outer.start, outer.stop, inner.stop:
        case Const(value=0), Const(value=count), Apply(fn="min", args=(end, Const(value=length))):
            pass
        case _:
            return None
    chunk, size = Var(outer.var, inner.start.dtype), _step(inner.start)
    follows = inner.start in (index("mul", int64(size), chunk), index("mul", chunk, int64(size)))
    fits = end == index("add", inner.start, int64(size)) and count == -(-int(length) // size)
    return int(length) if follows and fits else None


def _step(start: Expr) -> int:
    """The literal factor of where a chunk starts."""
    match start:
        case Apply(fn="mul", args=(Const(value=size), _) | (_, Const(value=size))) if size > 0:
            return int(size)
        case _:
            return 1
