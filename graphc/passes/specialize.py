"""Cheaper forms that would hide what a graph means: they come last, when nothing has to be recognized any more."""

from __future__ import annotations

from graphc.ir.node import Node
from graphc.ops.arithmetic import Power, divide, multiply
from graphc.rewrite import RuleSet, rule
from graphc.rewrite.pattern import uniform_value


@rule(
    Power,
    example=(
        lambda leaf: leaf(3) ** 3.0,
        lambda leaf: leaf(3) ** 4.0,
        lambda leaf: leaf(3, low=0.5) ** -2.0,
        lambda leaf: leaf(3, low=0.5) ** -3.0,
    ),
)
def expand_small_power(node: Node) -> Node | None:
    """``x**3 = x * x * x`` and so on up to 4, with two roundings at most, and the reciprocals of these."""
    x, right = node.args
    exponent = uniform_value(right)
    if exponent not in (3, 4, -2, -3, -4):
        return None
    square = multiply(x, x)
    power = {2: square, 3: multiply(square, x), 4: multiply(square, square)}[int(abs(exponent))]
    return power if exponent > 0 else divide(1.0, power)


SPECIAL = RuleSet((expand_small_power,))
