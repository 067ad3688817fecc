"""Ops that steer the compiler: training or inference, where gradients stop, what is recomputed, custom derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType
from graphc.loops.kernel import Expr
from graphc.ops.base import (
    Absent,
    Array,
    BadCase,
    Case,
    Elementwise,
    Operand,
    Tangents,
    as_node,
    as_operands,
    explaining,
    op_class,
    user_line,
    zeros_like,
)

f32 = DType.float32


@op_class
class WhenTraining(Op):
    """The first operand in a program for training, the second in one for inference; the first pass decides.

    Shapes: both of one type.
    Raises: ShapeError; DTypeError.
    Source: none, this is graphc's own.
    """

    operands = ("training", "inference")
    onnx = Absent.RESOLVED_EARLIER
    no_reference = Absent.RESOLVED_EARLIER
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        training, inference = types
        if training.dtype is not inference.dtype:
            raise DTypeError(f"{training} in training, {inference} in inference", remedy="make them one type")
        if training.shape != inference.shape:
            raise ShapeError(f"{training} in training, {inference} in inference", remedy="make them one shape")
        return training

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        zero = zeros_like(cotangent)
        return apply(self, cotangent, zero), apply(self, zero, cotangent)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        if all(tangent is None for tangent in tangents):
            return None
        return apply(self, *(zeros_like(node) if tangent is None else tangent for tangent in tangents))

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Shapes that differ, element types that differ."""
        x = TensorType(f32, (2, 3))
        return (
            BadCase(cls(), (x, TensorType(f32, (2, 4))), ShapeError, ("when_training", "f32[2, 3]", "f32[2, 4]")),
            BadCase(cls(), (x, TensorType(DType.float64, (2, 3))), DTypeError, ("when_training", "f32", "f64")),
        )


def when_training(training: Operand, inference: Operand) -> Node:
    """One value in programs for training, another in programs for inference.

    Shapes: both of one type.
    Raises: ShapeError; DTypeError.
    Source: Keras ``backend.in_train_phase``.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("n", 3))
    >>> gx.when_training(gx.dropout(x, 0.5, seed=0), x)
    <when_training: f32[n, 3]>
    """
    with explaining("when_training"):
        return apply(WhenTraining(), *as_operands(training, inference))


class _Identity(Elementwise):
    onnx = "Identity"

    def reference(self, x: Array) -> Array:
        return x

    def scalar(self, *args: Expr, dtype: DType) -> Expr:
        return args[0]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """There are none: it takes everything."""
        return ()


@op_class
class StopGradient(_Identity):
    """x, through which no gradient flows.

    Shapes: that of x.
    Raises: nothing.
    Source: https://www.tensorflow.org/api_docs/python/tf/stop_gradient
    """

    no_vjp = Absent.STOPPED
    no_jvp = Absent.STOPPED
    moves = True


def stop_gradient(x: Operand) -> Node:
    """x, through which no gradient flows.

    Shapes: that of x.
    Raises: nothing.
    Source: https://www.tensorflow.org/api_docs/python/tf/stop_gradient

    >>> import graphc as gx
    >>> gx.stop_gradient(gx.placeholder("x", (3,)))
    <stop_gradient: f32[3]>
    """
    return apply(StopGradient(), as_node(x))


@op_class
class Recompute(_Identity):
    """x, kept apart from equal values: what is built on it is computed again instead of stored.

    Attributes:
        k: tells several recomputations apart.

    Shapes: that of x.
    Raises: nothing.
    Source: Chen et al. 2016, https://arxiv.org/abs/1604.06174, section 3
    """

    k: int = 0

    moves = True

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return g


@dataclass(frozen=True)
class Rule:
    """A user's derivative, equal to another if the function is the same. Prints by the function's name."""

    fn: Callable[..., Any]

    def __repr__(self) -> str:
        return f"rule({getattr(self.fn, '__qualname__', type(self.fn).__name__)!r})"


@op_class
class CustomVjp(Op):
    """The first operand, ``value``, whose derivative by the others, ``inputs``, the user's rule gives.

    Nothing flows back through ``value`` itself. Two are equal if their rules are the same function.
    In text it prints the rule's name; a function cannot be read back.

    Shapes: that of value.
    Raises: nothing; :meth:`jvp` raises GraphError, since a rule for cotangents says nothing about tangents.
    Source: https://docs.jax.dev/en/latest/notebooks/Custom_derivative_rules_for_Python_code.html
    """

    rule: Rule

    operands = ("value", "input")
    onnx = "Identity"
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        return types[0]

    def reference(self, value: Array, *inputs: Array) -> Array:
        return value

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        inputs = node.args[1:]
        given = self.rule.fn(inputs, node, cotangent)
        found: tuple[Any, ...] = (given,) if isinstance(given, Node) else tuple(given)
        if len(found) != len(inputs):
            raise GraphError(
                f"custom_vjp: {self.rule} gives {len(found)} cotangents for {len(inputs)} inputs",
                at=user_line(),
                remedy="return one for each input, None where there is no dependence",
            )
        for position, (x, dx) in enumerate(zip(inputs, found, strict=True)):
            if dx is not None and (not isinstance(dx, Node) or dx.type != x.type):
                raise ShapeError(
                    f"custom_vjp: {self.rule} gives {getattr(dx, 'type', dx)} for input {position}, which is {x.type}",
                    at=user_line(),
                    remedy="give each cotangent the type of its input",
                )
        return (None, *found)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        if all(tangent is None for tangent in tangents):
            return None
        raise GraphError(
            f"forward mode cannot pass through custom_vjp: {self.rule} is a rule for reverse mode",
            at=node.user_line or user_line(),
            remedy="use gx.grad or gx.vjp, or write the function without custom_vjp",
        )

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """The identity with the derivative of a square."""
        op = cls(Rule(_square_rule))
        return tuple(Case(op, (TensorType(f32, shape),) * 2, differentiable=False) for shape in ((4,), (0, 2)))

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """There are none: it takes everything."""
        return ()


def _square_rule(inputs: Sequence[Node], output: Node, cotangent: Node) -> list[Node]:
    return [2.0 * inputs[0] * cotangent]


def custom_vjp(fn: Callable[..., Node], vjp: Callable[..., Any]) -> Callable[..., Node]:
    """A function of nodes with a derivative of the user's own.

    Args:
        fn: builds the result from the inputs.
        vjp: ``vjp(inputs, output, cotangent)`` gives the cotangents of the inputs: one for each, of its type, or None.

    Nodes that ``fn`` uses but does not take as inputs get no gradient. Forward mode (``gx.jvp``) raises GraphError.

    Shapes: those that ``fn`` gives.
    Raises: GraphError: the rule gives another number of cotangents; ShapeError: one of another type.
    Source: https://docs.jax.dev/en/latest/notebooks/Custom_derivative_rules_for_Python_code.html

    >>> import graphc as gx
    >>> clipped = gx.custom_vjp(lambda x: x * 1.0, lambda inputs, output, g: [gx.minimum(g, 1.0)])
    >>> clipped(gx.placeholder("x", (3,)))
    <custom_vjp: f32[3]>
    """
    rule = CustomVjp(Rule(vjp))

    def call(*inputs: Operand) -> Node:
        nodes = tuple(as_node(x) for x in inputs)
        return apply(rule, fn(*nodes), *nodes)

    return call


__all__ = [
    "CustomVjp", "Recompute", "Rule", "StopGradient", "WhenTraining", "custom_vjp", "stop_gradient", "when_training",
]  # fmt: skip
