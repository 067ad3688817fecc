"""The gradients of attention by query, key and value, which share its weights."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Size, product
from graphc.ir.node import Node, apply
from graphc.ir.op import Absent
from graphc.ir.sweep import pull, push
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.attending import Attending, over_leading, with_all_axes
from graphc.ops.base import Array, BadCase, Case, Tangents, op_class
from graphc.ops.movement import Concatenate, broadcast_to, reshape
from graphc.ops.slicing import take_range

T = TypeVar("T")
f32 = DType.float32


@op_class
class AttentionGradients(Attending):
    """The cotangents of query, key and value, given that of attention's result, one after the other in one row.

    A backend that takes it whole computes weights and random bits again, block by block, so that nothing is kept from
    the forward pass and nothing is of the size of all scores.

    Shapes: query (..., n, d), key (..., m, d), value (..., m, v), the cotangent (..., n, v) with all leading axes,
        perhaps a mask, and where rate is not 0 scalars seed and step; the result is one axis: of each head's
        cotangents of all queries, then of all keys, then of all values. Where an operand repeats along a leading axis
        the sum over that axis is its cotangent; it is not taken here.
    Raises: ShapeError; DTypeError; AxisError, as of attention.
    Source: Dao et al. 2022, https://arxiv.org/abs/2205.14135, algorithm 4
    """

    operands = ("query", "key", "value", "cotangent", "mask", "seed", "step")
    factors = ("query", "key", "value", "cotangent")
    onnx = Absent.NO_ONNX_FORM

    def infer(self, *types: TensorType) -> TensorType:
        operands, masks, cotangent, seeds = self.parts(types)
        result = self.result(operands, masks, seeds)
        if cotangent != result:
            raise ShapeError(
                f"the cotangent is {cotangent}, the result {result}", remedy="give one of the result's type"
            )
        shapes = self.shapes(result.shape[:-2], [operand.shape for operand in operands])
        return TensorType(result.dtype, (product(shapes[0]) + product(shapes[1]) + product(shapes[2]),))

    def parts(self, args: Sequence[T]) -> tuple[Sequence[T], Sequence[T], T, Sequence[T]]:
        """Query, key and value; perhaps a mask; the cotangent; perhaps seed and step, which come last."""
        end = len(args) - (2 if self.rate else 0)
        return args[:3], args[4:end], args[3], args[end:]

    def in_parts(self, *args: Node) -> bool:
        """More leading axes than three are taken apart."""
        return builtins.max(arg.ndim for arg in args) > 5

    def shapes(self, leading: Shape, operands: Sequence[Shape]) -> list[Shape]:
        """Those of the three cotangents."""
        return [(*leading, *shape[-2:]) for shape in operands]

    def pieces(self, whole: Node, leading: Shape, operands: Sequence[Node]) -> list[Node]:
        """The three cotangents in a result."""
        found: list[Node] = []
        start: Size = 0
        for shape in self.shapes(leading, [operand.shape for operand in operands]):
            stop = start + product(shape)
            found.append(reshape(take_range(whole, 0, start, stop), shape))
            start = stop
        return found

    def reference(self, *args: Array) -> Array:
        (q, k, v), masks, g, seeds = self.parts(args)
        scores = np.matmul(q, np.swapaxes(k, -1, -2)) * q.dtype.type(self.scale)
        allowed = np.tril(np.ones(scores.shape[-2:], bool)) if self.causal else np.ones(scores.shape[-2:], bool)
        for mask in masks:
            if mask.dtype == np.bool_:
                allowed = np.logical_and(allowed, mask)
            else:
                scores = scores + mask
        scores = np.broadcast_to(np.where(allowed, scores, -np.inf), (*g.shape[:-1], k.shape[-2]))
        largest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isfinite(largest), largest, 0)).astype(q.dtype)
        total = weights.sum(axis=-1, keepdims=True)
        weights = weights / np.where(total > 0, total, 1)
        pulled, left = np.matmul(g, np.swapaxes(v, -1, -2)), weights
        if seeds:
            pulled, left = (self.dropout.reference(x, *seeds) for x in (pulled, weights))
        slope = weights * (pulled - (weights * pulled).sum(axis=-1, keepdims=True)) * q.dtype.type(self.scale)
        parts = (np.matmul(slope, k), np.matmul(np.swapaxes(slope, -1, -2), q), np.matmul(np.swapaxes(left, -1, -2), g))
        return np.concatenate([part.reshape(-1) for part in parts]).astype(q.dtype)

    def decompose(self, *args: Node) -> Node:
        operands, masks, g, seeds = self.parts(args)
        if seeds:
            found = self.gradients_at_once(operands, masks, g, *seeds)
        else:
            found = over_leading(self.gradients, with_all_axes((*operands, *masks, g)))
        parts: list[Node] = []
        for part, shape in zip(found, self.shapes(g.shape[:-2], [x.shape for x in operands]), strict=False):
            full = (*(1,) * (part.ndim - len(shape)), *shape)
            parts.append(reshape(broadcast_to(part, full), (product(shape),)))
        return apply(Concatenate(0), *parts)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        floats = [arg for arg in node.args if arg.dtype.is_float]
        found = pull((self.decompose(*node.args),), (cotangent,), floats)
        return [found.get(arg) if arg.dtype.is_float else None for arg in node.args]

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        plain = self.decompose(*node.args)
        given = {arg: tangent for arg, tangent in zip(node.args, tangents, strict=True) if tangent is not None}
        return push((plain,), given).get(plain)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Leading axes that repeat, masks of both kinds, causal, one query, no keys, weights that fall."""

        def of(*shapes: Shape, causal: bool = False, mask: TensorType | None = None, rate: float = 0.0) -> Case:
            q, k, v, g = (TensorType(f32, shape) for shape in shapes)
            masks = () if mask is None else (mask,)
            return Case(cls(0.5, causal, rate, 2), (q, k, v, g, *masks, *((seed, seed) if rate else ())))

        seed = TensorType(DType.uint32, ())
        seen, bias = TensorType(DType.bool, (2, 3)), TensorType(f32, (2, 1, 3))
        return (
            of((2, 3, 4), (2, 5, 4), (2, 5, 6), (2, 3, 6)),
            of((2, 2, 3, 4), (2, 1, 5, 4), (1, 2, 5, 6), (2, 2, 3, 6), causal=True),
            of((2, 4), (3, 4), (3, 4), (2, 4), mask=seen),
            of((2, 2, 4), (2, 3, 4), (2, 3, 1), (2, 2, 1), mask=bias),
            of((1, 4), (1, 4), (1, 2), (1, 2), causal=True),
            of((2, 0, 4), (2, 3, 4), (2, 3, 4), (2, 0, 4)),
            of((3, 4), (0, 4), (0, 2), (3, 2)),
            of((2, 3, 4), (2, 5, 4), (1, 5, 6), (2, 3, 6), rate=0.3),
            of((2, 2, 4), (3, 4), (3, 4), (2, 2, 4), mask=seen, rate=0.3),
        )

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A cotangent of another shape, lengths that differ, integers, a rate that cannot be."""
        q, k, seed = TensorType(f32, (3, 4)), TensorType(f32, (5, 4)), TensorType(DType.uint32, ())
        integers = TensorType(DType.int32, (3, 4))
        return (
            BadCase(cls(1.0), (q, k, k, k), ShapeError, ("the cotangent is f32[5, 4]", "f32[3, 4]")),
            BadCase(cls(1.0), (q, k, q, q), ShapeError, ("5 keys and 3 values",)),
            BadCase(cls(1.0), (integers, k, k, q), DTypeError, ("int32",)),
            BadCase(cls(1.0, rate=-0.5), (q, k, k, q, seed, seed), AxisError, ("rate -0.5",)),
        )


__all__ = ["AttentionGradients"]
