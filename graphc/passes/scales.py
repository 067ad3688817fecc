"""Factors of output channels move into the weights of a product that are computed ahead of calls.

A normalization whose statistics stay is a factor and a term for each channel. Multiplied into the kernel of the
convolution in front of it, the factor costs nothing at a call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.ir import location
from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.ir.types import DType
from graphc.ops.arithmetic import Add, Divide, Multiply, Negative, Subtract
from graphc.ops.base import full, ints
from graphc.ops.convolution import Conv, ConvTranspose
from graphc.ops.linear import MatMul
from graphc.ops.movement import Reshape, Transpose, broadcast_to, reshape, transpose
from graphc.passes.fixed import FixedValues
from graphc.rewrite import RewriteLog
from graphc.rewrite.engine import Firing


@dataclass(frozen=True)
class FoldScales:
    """``conv(x, k) * s + t = conv(x, k * s) + t``, where k, s and t depend on parameters that are not updated.

    Likewise for transposed convolutions and products of matrices, with groups, for any number of such factors and
    terms, quotients, differences and signs, and behind transposes, as of images with their channels first. Only where
    nobody else reads what is in between, which would make two products of one, and not for 16-bit floats, to which
    the new kernel would be rounded.

    Each term of a sum is multiplied instead of the sum. So where numbers are very far apart a product may overflow
    that did not, or the other way round, and a sum that overflowed is 0 and not NaN after a factor of 0.
    """

    name: str = "fold_scales"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        found = scaled_products(graph)
        cores = {scaled.core: scaled for scaled in found}
        steps = {step: (scaled, number) for scaled in found for step, number in scaled.steps}

        def folded(node: Node, args: tuple[Node, ...]) -> Node | None:
            if node in cores:
                x, kernel = args
                return apply(node.op, x, _scaled_kernel(node, kernel, cores[node].scale))
            if node not in steps:
                return None
            scaled, number = steps[node]
            new = args[number]
            if node is scaled.steps[-1][0]:
                if scaled.shift is not None:
                    new = new + _along(scaled.shift, scaled.axis, node.ndim)
                if log is not None:
                    log.firings.append(Firing(self.name, node, new))
            return new

        return graph.rebuild(folded) if found else graph


@dataclass(frozen=True, eq=False)
class ScaledProduct:
    """A product whose channels are multiplied by numbers of their own, and shifted.

    Attributes:
        core: the product.
        axis: that of the channels, perhaps behind transposes.
        scale, shift: a number for each channel, or one for all; None for 1 and 0.
        steps: the elementwise nodes that do it, and which operand of each is the one before it.
    """

    core: Node
    axis: int
    scale: Node | None = None
    shift: Node | None = None
    steps: tuple[tuple[Node, int], ...] = ()


def scaled_products(graph: Graph) -> list[ScaledProduct]:
    """The products with factors that may go into their weights."""
    fixed = FixedValues(parameter for parameter, _ in graph.updates)
    roots = {id(root) for root in graph.roots}
    behind: dict[Node, ScaledProduct] = {}
    last: dict[Node, ScaledProduct] = {}
    for node in graph.nodes:
        if fixed.holds(node):
            continue
        found = _core(node, fixed)
        for number, arg in enumerate(node.args):
            if arg in behind and len(graph.users[id(arg)]) == 1 and id(arg) not in roots:
                with location.at(node.loc):
                    found = _continued(behind[arg], node, number, fixed) or found
        if found is not None:
            behind[node] = found
            if found.steps and found.steps[-1][0] is node:
                last[found.core] = found
    return [found for found in last.values() if found.scale is not None and found.scale.ndim]


def _core(node: Node, fixed: FixedValues) -> ScaledProduct | None:
    if not isinstance(node.op, Conv | ConvTranspose | MatMul) or node.dtype not in (DType.float32, DType.float64):
        return None
    kernel = node.args[1]
    if kernel.ndim < 2 or node.ndim < 2 or not isinstance(node.shape[-1], int) or not fixed.holds(kernel):
        return None
    return ScaledProduct(node, node.ndim - 1)


def _continued(before: ScaledProduct, node: Node, number: int, fixed: FixedValues) -> ScaledProduct | None:
    """What a node makes of a scaled product, its operand of this number; None if it is something else."""
    arg = node.args[number]
    match node.op:
        case Transpose(axes=axes):
            return replace(before, axis=axes.index(before.axis))
        case Reshape():
            stays = before.axis == arg.ndim - 1 and node.ndim > 0 and node.shape[-1] == arg.shape[-1]
            return replace(before, axis=node.ndim - 1) if stays else None
        case Negative():
            scale, shift = _negative(before)
        case Add() | Subtract() | Multiply() | Divide():
            other = _of_channels(node.args[1 - number], node, before, fixed)
            if other is None or node.shape != arg.shape:
                return None
            scale, shift = before.scale, before.shift
            if isinstance(node.op, Multiply):
                scale = other if scale is None else scale * other
                shift = None if shift is None else shift * other
            elif isinstance(node.op, Divide):
                if number:
                    return None
                scale = 1.0 / other if scale is None else scale / other
                shift = None if shift is None else shift / other
            elif isinstance(node.op, Add):
                shift = other if shift is None else shift + other
            elif number:
                scale, shift = _negative(before)
                shift = other if shift is None else other + shift
            else:
                shift = -other if shift is None else shift - other
        case _:
            return None
    return replace(before, scale=scale, shift=shift, steps=(*before.steps, (node, number)))


def _negative(before: ScaledProduct) -> tuple[Node, Node | None]:
    scale = full((), -1, before.core.dtype) if before.scale is None else -before.scale
    return scale, None if before.shift is None else -before.shift


def _of_channels(other: Node, node: Node, before: ScaledProduct, fixed: FixedValues) -> Node | None:
    """An operand as one number for each channel, or one for all; None if it is neither, or differs between calls."""
    if not fixed.holds(other):
        return None
    if all(size == 1 for size in other.shape):
        return reshape(other, ())
    axis = before.axis - (node.ndim - other.ndim)
    if axis < 0 or any(size != 1 for place, size in enumerate(other.shape) if place != axis):
        return None
    return reshape(other, (other.shape[axis],))


def _along(values: Node, axis: int, rank: int) -> Node:
    """Numbers of channels where an array of this rank has its channels."""
    return reshape(values, (*values.shape, *(1,) * (rank - 1 - axis))) if values.ndim else values


def _scaled_kernel(core: Node, kernel: Node, scale: Node | None) -> Node:
    """The kernel that makes each channel of the result so many times as large."""
    assert scale is not None
    if not isinstance(core.op, ConvTranspose):
        return kernel * scale
    groups = core.op.groups
    per_group, filters = ints(kernel.shape[-2:])
    by_group = transpose(reshape(scale, (groups, per_group)), (1, 0))
    columns = broadcast_to(reshape(by_group, (per_group, groups, 1)), (per_group, groups, filters // groups))
    return kernel * reshape(columns, (per_group, filters))
