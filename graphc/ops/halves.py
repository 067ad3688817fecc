"""float16 and bfloat16 are stored, not computed in: the float32 form of an operation on them.

An operation on halves reads its operands as float32, computes in float32 (reductions and products accumulate in it) and
rounds its result once, to the nearest, ties to even. Each node is rounded, whatever it is fused with: a value is the
same number wherever it is looked at. A composite op counts as one operation: nothing is rounded inside it. From
and to other types than float32 the way leads through float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.ir.node import Constant, Input, Node, ParameterLeaf, apply
from graphc.ir.op import Array, Op
from graphc.ir.sweep import Part
from graphc.ir.types import DType
from graphc.ops.base import cast_to
from graphc.ops.cast import Cast

_LEAVES = (Input, ParameterLeaf, Constant, Part)


def widen_halves(node: Node, args: tuple[Node, ...]) -> Node | None:
    """The node in float32 between conversions; None where it may stay as it is. For :meth:`Graph.rebuild`.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", (3,), "bfloat16")
    >>> y = widen_halves(gx.exp(x), (x,))
    >>> (y, *y.args, *y.args[0].args)
    (<cast: bf16[3]>, <exp: f32[3]>, <cast: f32[3]>)
    """
    return None if node.op.moves else _widened(node, args, widen_halves)


def widen_all_halves(node: Node, args: tuple[Node, ...]) -> Node | None:
    """Like :func:`widen_halves`, but for what only moves elements too: then nothing but conversions sees halves.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", (3,), "float16")
    >>> widen_all_halves(gx.flip(x, 0), (x,)).args[0]
    <flip: f32[3]>
    """
    return _widened(node, args, widen_all_halves)


def _widened(
    node: Node, args: tuple[Node, ...], inside: Callable[[Node, tuple[Node, ...]], Node | None]
) -> Node | None:
    op = node.op
    if op.bodies:  # its operands become those of the body as they are
        bodies = [body.rebuild(inside) for body in op.bodies]
        same = all(
            a is b
            for old, new in zip(op.bodies, bodies, strict=True)
            for a, b in zip(old.roots, new.roots, strict=True)
        )
        return None if same else apply(op.with_bodies(bodies), *args)
    if isinstance(op, _LEAVES) or not any(dtype.is_half for dtype in (node.dtype, *_dtypes(args))):
        return None
    if isinstance(op, Cast):
        if DType.float32 in (node.dtype, args[0].dtype):
            return None
        return cast_to(cast_to(args[0], DType.float32), node.dtype)
    wide = apply(_in_float32(op), *(cast_to(arg, arg.dtype.wide) for arg in args))
    return cast_to(wide, node.dtype)


def reference_of(op: Op, operands: Sequence[Any], dtype: DType) -> Array:
    """What NumPy says the op is: its reference, in float32 if there are halves; ``dtype`` is the result's.

    >>> reference_of(Cast(DType.float16), [np.float32([1.0004, 1.0006])], DType.float16)
    array([1.   , 1.001], dtype=float16)
    """
    arrays = [np.asarray(operand) for operand in operands]
    halves = [array.dtype.itemsize == 2 for array in arrays]  # graphc has no other element types of two bytes
    if op.moves or not (dtype.is_half or any(halves)):
        return np.asarray(op.reference(*operands))
    wide = [array.astype(np.float32) if half else array for array, half in zip(arrays, halves, strict=True)]
    with np.errstate(all="ignore"):
        result = np.asarray(_in_float32(op).reference(*wide))
        return result.astype(np.float32).astype(dtype.numpy) if dtype.is_half else result


def _in_float32(op: Op) -> Op:
    """The op with the element type that is one of its attributes, if there is one, wide."""
    dtype = getattr(op, "dtype", None)
    if not isinstance(dtype, DType) or not dtype.is_half:
        return op
    values = {name: getattr(op, name) for name in op.attributes}
    return type(op)(**{**values, "dtype": dtype.wide})


def _dtypes(nodes: Sequence[Node]) -> list[DType]:
    return [node.dtype for node in nodes]
