"""Canonical arithmetic: signs collected outside, constants on the right and combined, powers by name.

Which identities of floats are accepted, and why:

* Exact but for the sign of zero: ``x + 0``, ``x - 0``, ``0 - x``, ``x * 1``, ``x / 1``, ``x * -1``, moving signs
  (``x * -y``, ``x + -y``, ``-(x - y)``), ``x + x`` as ``x * 2``, ``x / c`` as ``x * (1 / c)`` where c is a power of
  two. Nothing in a model may depend on the sign of zero.
* To a rounding: ``(x * c) * d`` as ``x * (c * d)`` and its kin for division, if the product neither overflows nor
  underflows; ``x * c + x * d`` as ``x * (c + d)``; ``x**2`` as ``x * x``, ``x**0.5`` as ``sqrt(x)`` (which differ at
  minus infinity), ``x**-1`` as ``1 / x``.
* Refused: ``x * 0``, ``x - x`` and ``x / x`` (NaN and infinity would vanish), ``(x + c) + d`` (loses every digit when c
  is large; integers only), ``(x * y) / y``, ``a * b + a * c`` (cancellation).
"""

from __future__ import annotations

import math

from graphc.ir.dims import Dim
from graphc.ir.node import Node, apply
from graphc.ir.types import DType
from graphc.ops.arithmetic import (
    Add,
    Divide,
    Maximum,
    Minimum,
    Multiply,
    Negative,
    Power,
    Subtract,
    abs,
    divide,
    maximum,
    multiply,
    negative,
)
from graphc.ops.base import full
from graphc.ops.create import SizeOf
from graphc.ops.exponential import sqrt
from graphc.rewrite import Rule, RuleSet, rule
from graphc.rewrite.pattern import uniform_value

SIGNS = (
    Rule("cancel_negatives", "-(-x) = x.", lambda x: negative(-x), lambda x: x, integers=True),
    Rule("take_sign_out_of_product", "x * -y = -(x * y).", lambda x, y: x * -y, lambda x, y: -(x * y), integers=True),
    Rule("take_sign_out_of_numerator", "-x / y = -(x / y).", lambda x, y: -x / y, lambda x, y: -(x / y)),
    Rule("take_sign_out_of_denominator", "x / -y = -(x / y).", lambda x, y: x / -y, lambda x, y: -(x / y)),
    Rule("add_negative", "x + -y = x - y.", lambda x, y: x + -y, lambda x, y: x - y, integers=True),
    Rule("subtract_negative", "x - -y = x + y.", lambda x, y: x - -y, lambda x, y: x + y, integers=True),
    Rule("subtract_from_negative", "-x - y = -(x + y).", lambda x, y: -x - y, lambda x, y: -(x + y), integers=True),
    Rule("negate_difference", "-(x - y) = y - x.", lambda x, y: -(x - y), lambda x, y: y - x, integers=True),
    Rule("abs_of_negative", "|-x| = |x|.", lambda x: abs(-x), lambda x: abs(x)),
)

NEUTRAL = (
    Rule("add_zero", "x + 0 = x.", lambda x: x + 0.0, lambda x: x, integers=True),
    Rule("subtract_zero", "x - 0 = x.", lambda x: x - 0.0, lambda x: x, integers=True),
    Rule("subtract_from_zero", "0 - x = -x.", lambda x: 0.0 - x, lambda x: -x, integers=True),
    Rule("multiply_by_one", "x * 1 = x.", lambda x: x * 1.0, lambda x: x, integers=True),
    Rule("multiply_by_minus_one", "x * -1 = -x.", lambda x: x * -1.0, lambda x: -x),
    Rule("divide_by_one", "x / 1 = x.", lambda x: x / 1.0, lambda x: x),
    Rule("divide_by_minus_one", "x / -1 = -x.", lambda x: x / -1.0, lambda x: -x),
    Rule("add_to_itself", "x + x = x * 2.", lambda x: x + x, lambda x: x * 2, integers=True),
    Rule("add_twice", "(x + y) + y = x + y * 2.", lambda x, y: (x + y) + y, lambda x, y: x + y * 2, integers=True),
    Rule("power_of_one", "x**1 = x.", lambda x: x**1.0, lambda x: x),
    Rule("power_of_two", "x**2 = x * x.", lambda x: x**2.0, lambda x: x * x),
    Rule("power_of_half", "x**0.5 = sqrt(x).", lambda x: x**0.5, lambda x: sqrt(x), domain=(0.0, 4.0), specials=False),
    Rule("power_of_minus_one", "x**-1 = 1 / x.", lambda x: x**-1.0, lambda x: 1 / x, domain=(0.5, 2.0)),
)


def constant_like(node: Node, value: float) -> Node:
    """A scalar constant of the element type of ``node``."""
    return full((), value, node.dtype)


_SMALLEST = {DType.float16: 1e-4, DType.bfloat16: 1e-30, DType.float32: 1e-30, DType.float64: 1e-290}


def _is_safe(value: float, node: Node) -> bool:
    """Is a combined constant a number that the element type holds well, neither overflown nor underflown?"""
    smallest = _SMALLEST[node.dtype]
    return math.isfinite(value) and smallest < math.fabs(value) < 1 / smallest


@rule(
    Add,
    Multiply,
    Maximum,
    Minimum,
    example=(lambda leaf: 2.0 + leaf(3), lambda leaf: 2 * leaf(3, dtype="int32"), lambda leaf: maximum(0.0, leaf(3))),
)
def put_constant_right(node: Node) -> Node | None:
    """``c + x`` is ``x + c``, and likewise for products: one order, so that other rules need only one."""
    left, right = node.args
    if uniform_value(left) is not None and uniform_value(right) is None:
        return apply(node.op, right, left)
    return None


@rule(
    Multiply,
    example=(
        lambda leaf: (leaf(3) * 3.0) * 5.0,
        lambda leaf: (leaf(3) / 3.0) * 5.0,
        lambda leaf: (5.0 / leaf(3, low=0.5)) * 3.0,
    ),
)
def combine_factors(node: Node) -> Node | None:
    """``(x * c) * d = x * (c * d)``, ``(x / c) * d = x * (d / c)``, ``(c / x) * d = (c * d) / x``."""
    inner, right = node.args
    d = uniform_value(right)
    if d is None or not node.dtype.is_float:
        return None
    if not isinstance(inner.op, Multiply | Divide):
        return None
    a, b = inner.args
    c = uniform_value(b)
    if c is not None and isinstance(inner.op, Multiply) and _is_safe(c * d, node):
        return multiply(a, constant_like(node, c * d))
    if c and isinstance(inner.op, Divide) and _is_safe(d / c, node):
        return multiply(a, constant_like(node, d / c))
    c = uniform_value(a)
    if c is not None and isinstance(inner.op, Divide) and _is_safe(c * d, node):
        return divide(constant_like(node, c * d), b)
    return None


@rule(
    Divide,
    example=(
        lambda leaf: (leaf(3) * 3.0) / 5.0,
        lambda leaf: (leaf(3) / 3.0) / 5.0,
        lambda leaf: (6.0 / leaf(3, low=0.5)) / 3.0,
    ),
)
def combine_divisors(node: Node) -> Node | None:
    """``(x * c) / d = x * (c / d)``, ``(x / c) / d = x / (c * d)``, ``(c / x) / d = (c / d) / x``."""
    inner, right = node.args
    d = uniform_value(right)
    if not d or not isinstance(inner.op, Multiply | Divide):
        return None
    a, b = inner.args
    c = uniform_value(b)
    if c is not None and isinstance(inner.op, Multiply) and _is_safe(c / d, node):
        return multiply(a, constant_like(node, c / d))
    if c and isinstance(inner.op, Divide) and _is_safe(c * d, node):
        return divide(a, constant_like(node, c * d))
    c = uniform_value(a)
    if c is not None and isinstance(inner.op, Divide) and _is_safe(c / d, node):
        return divide(constant_like(node, c / d), b)
    return None


@rule(
    Add,
    Subtract,
    example=(
        lambda leaf: _two_multiples(leaf(3), 2.0, 1.0),
        lambda leaf: _two_multiples(leaf(3), 3.0, 5.0),
    ),
)
def collect_multiples(node: Node) -> Node | None:
    """``x * c + x * d = x * (c + d)`` where c and d have one sign; else infinities would not cancel as they did."""
    (x, c), (y, d) = _factored(node.args[0]), _factored(node.args[1])
    if x is not y or not node.dtype.is_float:
        return None
    if isinstance(node.op, Subtract):
        d = -d
    if (c, d) == (1, 1) or c * d <= 0 or not _is_safe(c + d, node):
        return None
    return multiply(x, constant_like(node, c + d))


def _two_multiples(x: Node, c: float, d: float) -> Node:
    return x * c - x * -d if d > 1 else x * c + x


def _factored(node: Node) -> tuple[Node, float]:
    if isinstance(node.op, Multiply):
        value = uniform_value(node.args[1])
        if value is not None:
            return node.args[0], float(value)
    return node, 1.0


@rule(
    Negative,
    example=(lambda leaf: -(leaf(3) * 2.0), lambda leaf: -(2.0 / leaf(3, low=0.5)), lambda leaf: -(leaf(3) / 2.0)),
)
def put_sign_into_constant(node: Node) -> Node | None:
    """``-(x * c) = x * -c``, ``-(c / x) = -c / x`` and ``-(x / c) = x / -c``."""
    (inner,) = node.args
    if not isinstance(inner.op, Multiply | Divide) or not node.dtype.is_float:
        return None
    a, b = inner.args
    c = uniform_value(b)
    if c is not None:
        return apply(inner.op, a, constant_like(node, -c))
    c = uniform_value(a)
    return None if c is None else apply(inner.op, constant_like(node, -c), b)


@rule(Divide, example=lambda leaf: leaf(3) / 4.0)
def multiply_by_exact_reciprocal(node: Node) -> Node | None:
    """``x / c = x * (1 / c)`` where c is a power of two: then both are exact, and a product costs less."""
    x, right = node.args
    c = uniform_value(right)
    if not c or not math.isfinite(c) or math.frexp(c)[0] not in (0.5, -0.5) or not _is_safe(1 / c, node):
        return None
    return multiply(x, constant_like(node, 1 / c))


@rule(
    Add,
    Subtract,
    example=(lambda leaf: (leaf(3, dtype="int32") + 2) - 5, lambda leaf: (leaf(3, dtype="int32") - 2) + 5),
)
def combine_integer_terms(node: Node) -> Node | None:
    """``(x + c) - d = x + (c - d)`` for integers, which wrap around and so stay exact."""
    inner, right = node.args
    if not node.dtype.is_integer or not isinstance(inner.op, Add | Subtract):
        return None
    a, b = inner.args
    if uniform_value(b) is None or uniform_value(right) is None or b.shape or right.shape:
        return None
    same = type(inner.op) is type(node.op)
    return apply(inner.op, a, apply(Add() if same else Subtract(), b, right))


@rule(
    Multiply,
    Subtract,
    example=(
        lambda leaf: leaf(3, dtype="int32") * 0,
        lambda leaf: _less_itself(leaf(3, dtype="uint32")),
    ),
)
def vanish_integers(node: Node) -> Node | None:
    """``x * 0`` and ``x - x`` are 0 for integers, which hold no NaN."""
    x, y = node.args
    if not node.dtype.is_integer:
        return None
    gone = x is y if isinstance(node.op, Subtract) else uniform_value(y) == 0
    return full(node.shape, 0, node.dtype) if gone else None


def _less_itself(x: Node) -> Node:
    return x - x


@rule(Multiply, example=lambda leaf: (leaf(3) * leaf()) * 2.0)
def multiply_scalars_first(node: Node) -> Node | None:
    """``(x * s) * t = x * (s * t)`` where s and t are scalars and x is not: one product for each element, not two."""
    left, right = node.args
    for inner, t in ((left, right), (right, left)):
        if t.ndim or not inner.ndim or not isinstance(inner.op, Multiply) or not node.dtype.is_float:
            continue
        a, b = inner.args
        for x, s in ((a, b), (b, a)):
            both_known = uniform_value(s) is not None and uniform_value(t) is not None
            if s.ndim == 0 and x.ndim and not both_known:
                return multiply(x, multiply(s, t))
    return None


@rule(
    Multiply,
    Divide,
    example=(
        lambda leaf: (leaf("n", 3) * _rows()) / _rows(),
        lambda leaf: (leaf("n", 3) / _rows()) * _rows(),
    ),
)
def cancel_sizes(node: Node) -> Node | None:
    """``(x * n) / n = x`` and ``(x / n) * n = x`` where n is a size: never zero, infinite or NaN."""
    inner, n = node.args
    if not isinstance(n.op, SizeOf) or not isinstance(inner.op, Multiply | Divide) or type(inner.op) is type(node.op):
        return None
    if inner.args[1] is n:
        return inner.args[0]
    return inner.args[1] if inner.args[0] is n and isinstance(inner.op, Multiply) else None


def _rows() -> Node:
    return apply(SizeOf(Dim("n"), DType.float32))


@rule(Power, example=lambda leaf: leaf(3) ** 0.0)
def power_of_zero(node: Node) -> Node | None:
    """``x**0 = 1``, for NaN too, by IEEE 754."""
    return full(node.shape, 1, node.dtype) if uniform_value(node.args[1]) == 0 else None


ALGEBRA = RuleSet(
    (
        *SIGNS,
        *NEUTRAL,
        power_of_zero,
        put_constant_right,
        combine_factors,
        combine_divisors,
        collect_multiples,
        put_sign_into_constant,
        multiply_by_exact_reciprocal,
        combine_integer_terms,
        vanish_integers,
        multiply_scalars_first,
        cancel_sizes,
    ),
    share_commuted=True,
)
