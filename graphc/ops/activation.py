"""Activations: relu, softmax, softmin, log_softmax, logsumexp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.errors import AxisError, DTypeError
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.loops.kernel import Apply, Const, Expr
from graphc.ops.arithmetic import divide, multiply, negative, subtract
from graphc.ops.base import (
    FLOATS,
    NUMBERS,
    Array,
    Axis,
    BadCase,
    Case,
    Elementwise,
    Operand,
    Tangents,
    as_node,
    call,
    explaining,
    normalize_axes,
    normalize_axis,
    op_class,
    require_dtype,
)
from graphc.ops.compare import greater, isfinite, where
from graphc.ops.exponential import exp, log
from graphc.ops.reduction import check_axes, max, reduced_shape, restore_axes, sum
from graphc.ops.slicing import squeeze

f32 = DType.float32


@op_class
class Relu(Elementwise):
    """``max(x, 0)``; NaN stays NaN. Its derivative at 0 is taken as 0.

    Shapes: that of x.
    Raises: DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Relu.html
    """

    accepts = NUMBERS
    onnx = "Relu"

    def reference(self, x: Array) -> Array:
        return np.maximum(x, x.dtype.type(0))

    def scalar(self, *args: Expr, dtype: DType) -> Expr:
        return Apply("max", (args[0], Const(0.0 if dtype.is_float else 0, dtype)), dtype)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        # The result tells as much as the operand, and the operand need not be kept for it.
        return where(greater(node, 0), g, 0.0)


def relu(x: Operand) -> Node:
    """``max(x, 0)``.

    Shapes: that of x.
    Raises: DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Relu.html

    >>> import graphc as gx
    >>> gx.relu(gx.placeholder("x", ("n", 3)))
    <relu: f32[n, 3]>
    """
    return call(Relu(), x)


@dataclass(frozen=True, eq=False, repr=False)
class Normalizer(Op):
    """Base of ops that make weights of the scores along an axis.

    Attributes:
        axis: counted from the front.
    """

    axis: int

    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        require_dtype(x, FLOATS)
        check_axes((self.axis,), x.rank)
        return x

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis, values whose exponentials overflow, -inf beside numbers, one value, none."""
        large = np.array([[1000.0, 1001.0, 999.0], [-1000.0, -1001.0, -1e30], [88.0, -88.0, 0.0]], np.float32)
        masked = np.array([[0.0, -np.inf, 1.0], [-np.inf, -np.inf, 2.0]], np.float32)
        return (
            Case(cls(1), (TensorType(f32, (4, 5)),)), Case(cls(0), (TensorType(f32, (4, 5)),)),
            Case(cls(1), (TensorType(f32, (2, 3, 4)),)), Case(cls(1), (TensorType(f32, (3, 1)),)),
            Case(cls(1), (TensorType(f32, (0, 3)),)), Case(cls(1), (TensorType(f32, (3, 70)),), (-8.0, 8.0)),
            Case(cls(1), (large,), differentiable=False), Case(cls(1), (masked,), differentiable=False),
        )  # fmt: skip

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An axis that does not exist, integers."""
        return (
            BadCase(cls(2), (TensorType(f32, (4, 5)),), AxisError, (cls.name, "axis 2", "2 axes")),
            BadCase(cls(0), (TensorType(DType.int64, (4,)),), DTypeError, (cls.name, "int64", "gx.cast")),
        )


def _total(x: Node, axis: int) -> Node:
    return sum(x, axis=axis, keepdims=True)


@op_class
class Softmax(Normalizer):
    """``exp(x) / sum(exp(x))`` along an axis, with the largest element subtracted first. A row of all -inf gives NaN.

    Shapes: that of x.
    Raises: AxisError; DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Softmax.html
    """

    onnx = "Softmax"

    def reference(self, x: Array) -> Array:
        shifted = np.exp(x - np.max(x, axis=self.axis, keepdims=True, initial=-np.inf))
        return shifted / np.sum(shifted, axis=self.axis, keepdims=True)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        shifted = exp(subtract(x, max(x, axis=self.axis, keepdims=True)))
        return divide(shifted, _total(shifted, self.axis))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (self._derivative(node, cotangent),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else self._derivative(node, tangents[0])

    def _derivative(self, node: Node, g: Node) -> Node:
        """The Jacobian is symmetric, so that both directions are the same."""
        return multiply(node, subtract(g, _total(multiply(g, node), self.axis)))


def softmax(x: Operand, axis: int = -1) -> Node:
    """``exp(x) / sum(exp(x))`` along an axis, safe for large values.

    Shapes: that of x.
    Raises: AxisError; DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Softmax.html

    >>> import graphc as gx
    >>> gx.softmax(gx.placeholder("logits", ("n", 10)))
    <softmax: f32[n, 10]>
    """
    return normalize_along(Softmax, x, axis)


@op_class
class Softmin(Normalizer):
    """``exp(-x) / sum(exp(-x))`` along an axis: the softmax of -x.

    Shapes: that of x.
    Raises: AxisError; DTypeError for integers and bool.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmin.html
    """

    onnx = ("Neg", "Softmax")

    def reference(self, x: Array) -> Array:
        return Softmax(self.axis).reference(-x)

    def decompose(self, *args: Node) -> Node:
        return apply(Softmax(self.axis), negative(args[0]))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (self._derivative(node, cotangent),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else self._derivative(node, tangents[0])

    def _derivative(self, node: Node, g: Node) -> Node:
        """Minus that of softmax at this result."""
        return multiply(node, subtract(_total(multiply(g, node), self.axis), g))


def softmin(x: Operand, axis: int = -1) -> Node:
    """``exp(-x) / sum(exp(-x))`` along an axis, safe for large values.

    Shapes: that of x.
    Raises: AxisError; DTypeError for integers and bool.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmin.html

    >>> import graphc as gx
    >>> gx.softmin(gx.placeholder("distances", ("n", 10)))
    <softmin: f32[n, 10]>
    """
    return normalize_along(Softmin, x, axis)


@op_class
class LogSoftmax(Normalizer):
    """``x - log(sum(exp(x)))`` along an axis, with the largest element subtracted first.

    Shapes: that of x.
    Raises: AxisError; DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__LogSoftmax.html
    """

    onnx = "LogSoftmax"

    def reference(self, x: Array) -> Array:
        shifted = x - np.max(x, axis=self.axis, keepdims=True, initial=-np.inf)
        return shifted - np.log(np.sum(np.exp(shifted), axis=self.axis, keepdims=True))

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        shifted = subtract(x, max(x, axis=self.axis, keepdims=True))
        return subtract(shifted, log(_total(exp(shifted), self.axis)))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (subtract(cotangent, multiply(self._probabilities(node), _total(cotangent, self.axis))),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (dx,) = tangents
        if dx is None:
            return None
        return subtract(dx, _total(multiply(self._probabilities(node), dx), self.axis))

    def _probabilities(self, node: Node) -> Node:
        return apply(Softmax(self.axis), node.args[0])


def log_softmax(x: Operand, axis: int = -1) -> Node:
    """The logarithm of softmax along an axis, exact where softmax is near 0.

    Shapes: that of x.
    Raises: AxisError; DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__LogSoftmax.html

    >>> import graphc as gx
    >>> gx.log_softmax(gx.placeholder("logits", ("n", 10)))
    <log_softmax: f32[n, 10]>
    """
    return normalize_along(LogSoftmax, x, axis)


def normalize_along(op: type[Normalizer], x: Operand, axis: int) -> Node:
    """The op along an axis that may be counted from the end."""
    node = as_node(x)
    with explaining(op.name, node):
        place = normalize_axis(axis, node.ndim)
    return apply(op(place), node)


@op_class
class LogSumExp(Op):
    """``log(sum(exp(x)))`` over axes, with the largest element taken out; of nothing and of all -inf it is -inf.

    Shapes: x of any shape; the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__ReduceLogSumExp.html
    """

    axes: tuple[int, ...]
    keepdims: bool

    name = "logsumexp"
    onnx = "ReduceLogSumExp"
    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        require_dtype(x, FLOATS)
        check_axes(self.axes, x.rank)
        return TensorType(x.dtype, reduced_shape(x.shape, self.axes, self.keepdims))

    def reference(self, x: Array) -> Array:
        largest: Array = np.max(x, axis=self.axes, keepdims=True, initial=-np.inf)
        shift = np.where(np.isfinite(largest), largest, np.zeros_like(largest))
        total = np.log(np.sum(np.exp(x - shift), axis=self.axes, keepdims=True)) + shift
        return total if self.keepdims else np.squeeze(total, self.axes)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        largest = max(x, axis=self.axes, keepdims=True)
        shift = where(isfinite(largest), largest, 0.0)
        total = log(sum(exp(subtract(x, shift)), axis=self.axes, keepdims=True)) + shift
        return total if self.keepdims else squeeze(total, self.axes)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        (x,) = node.args
        return (multiply(restore_axes(cotangent, x.shape, self.axes), self._probabilities(node)),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (dx,) = tangents
        if dx is None:
            return None
        return sum(multiply(self._probabilities(node), dx), axis=self.axes, keepdims=self.keepdims)

    def _probabilities(self, node: Node) -> Node:
        """Softmax over the axes; 0 where all of a row is -inf."""
        (x,) = node.args
        total = restore_axes(node, x.shape, self.axes)
        return exp(subtract(x, where(isfinite(total), total, 0.0)))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis and several, kept and not; values whose exponentials overflow; infinities, none."""

        def case(shape: Shape, axes: tuple[int, ...], keepdims: bool = False) -> Case:
            return Case(cls(axes, keepdims), (TensorType(f32, shape),))

        inf = np.inf
        large = np.array([[1000.0, 1001.0], [-1000.0, -1001.0], [88.0, -88.0]], np.float32)
        special = np.array([[-inf, -inf], [-inf, 1.0], [inf, 1.0], [np.nan, 1.0], [inf, -inf]], np.float32)
        return (
            case((4, 5), (1,)), case((4, 5), (0,), True), case((2, 3, 4), (0, 2)), case((3, 1), (1,)),
            case((0, 3), (1,)), case((3, 70), (1,)),
            Case(cls((1,), False), (TensorType(f32, (2, 0)),), differentiable=False),
            Case(cls((1,), False), (large,), differentiable=False),
            Case(cls((1,), True), (special,), differentiable=False),
        )  # fmt: skip

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An axis that does not exist, integers."""
        return (
            BadCase(cls((2,), False), (TensorType(f32, (4, 5)),), AxisError, ("logsumexp", "axis 2", "2 axes")),
            BadCase(cls((0,), False), (TensorType(DType.int64, (4,)),), DTypeError, ("logsumexp", "int64", "gx.cast")),
        )


def logsumexp(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """``log(sum(exp(x)))`` over axes (None: all), safe for large values.

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__ReduceLogSumExp.html

    >>> import graphc as gx
    >>> gx.logsumexp(gx.placeholder("x", ("n", 10)), axis=-1)
    <logsumexp: f32[n]>
    """
    node = as_node(x)
    with explaining("logsumexp", node):
        axes = normalize_axes(axis, node.ndim)
    return apply(LogSumExp(axes, bool(keepdims)), node)


__all__ = [
    "LogSoftmax", "LogSumExp", "Normalizer", "Relu", "Softmax", "Softmin", "log_softmax", "logsumexp", "relu",
    "softmax", "softmin",
]  # fmt: skip
