"""A cluster: nodes that are computed in one kernel.

Its nodes share an iteration space: loop variables with extents, some of which may be *inner* variables, over which its
reductions run. Each node has the index, in these variables, at which it is computed: a full index, or one without inner
variables (a row's value, such as a maximum or a mean).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from graphc.ir.dims import Size, names
from graphc.ir.node import Node
from graphc.ir.sweep import Part
from graphc.lower.branch import BranchOp
from graphc.lower.heads import HeadsInside
from graphc.lower.index import Index, loop_index
from graphc.lower.loop import LoopOp
from graphc.lower.padded import PaddedWindows
from graphc.lower.patches import PatchParts
from graphc.lower.sources import sources
from graphc.lower.views import broadcast_index
from graphc.ops.base import Elementwise
from graphc.ops.convolution import Conv, ConvKernelGrad, ConvTranspose
from graphc.ops.cumulative import Cumulative
from graphc.ops.indexing import Take, TakeAlong
from graphc.ops.linear import MatMul
from graphc.ops.movement import Concatenate
from graphc.ops.padding import Pad
from graphc.ops.panels import PackedPanels, PanelProduct
from graphc.ops.patches import PatchProduct
from graphc.ops.random import RandomBits
from graphc.ops.reduction import ArgMax, ArgMin, Reduce
from graphc.ops.rows import UpdateRows
from graphc.ops.scatter import ScatterAlong, TakeAdd
from graphc.ops.sorting import ArgSort
from graphc.ops.update import UpdateSlice
from graphc.ops.winograd import WinogradProduct

OPAQUE = (
    MatMul, PatchProduct, PatchParts, HeadsInside, TakeAdd, ScatterAlong, UpdateSlice, UpdateRows, Concatenate,
    Cumulative, ArgSort, LoopOp, BranchOp, Part, PackedPanels, PanelProduct, WinogradProduct, Conv, ConvTranspose,
    ConvKernelGrad,
)  # fmt: skip
"""Ops that are a kernel of their own."""

_variables = itertools.count()


@dataclass(eq=False)
class Cluster:
    """Nodes computed in one kernel.

    Attributes:
        variables: the loop variables of the iteration space, outermost first.
        inner: those over which reductions run; empty for purely elementwise work.
        extents: the extent of each variable.
        at: the index at which each node is computed, by ``id``.
        inner_at: for each reduction, the index at which it reads its operand.
    """

    nodes: list[Node]
    variables: tuple[str, ...]
    extents: dict[str, Size]
    inner: tuple[str, ...] = ()
    at: dict[int, Index] = field(default_factory=dict[int, Index])
    inner_at: dict[int, Index] = field(default_factory=dict[int, Index])

    @property
    def rows(self) -> tuple[str, ...]:
        """The variables that are not inner."""
        return tuple(v for v in self.variables if v not in self.inner)

    @property
    def is_opaque(self) -> bool:
        return isinstance(self.nodes[0].op, OPAQUE)

    @property
    def by_column(self) -> bool:
        """Do reductions run over outer variables while the innermost, contiguous one is kept?"""
        if not self.inner or self.variables[-1] in self.inner:
            return False
        return not any(isinstance(node.op, ArgMax | ArgMin) and reduces(node) for node in self.nodes)

    def is_full(self, node: Node) -> bool:
        """Is the node computed at every point, not once a row?"""
        used = {name for part in self.at[id(node)] for name in names(part)}
        return not self.inner or bool(used & set(self.inner))


def reduces(node: Node) -> bool:
    """Does the node combine several elements? A reduction over axes of size 1 does not."""
    if isinstance(node.op, Reduce):
        return any(node.args[0].shape[axis] != 1 for axis in node.op.axes)
    return isinstance(node.op, ArgMax | ArgMin) and node.args[0].shape[node.op.axis] != 1


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The axes over which a reduction runs."""
    match node.op:
        case Reduce(axes=axes):
            return axes
        case ArgMax(axis=axis) | ArgMin(axis=axis):
            return (axis,)
        case _:
            return ()


def operand_of_trivial(node: Node, index: Index) -> Index:
    """Where a reduction over axes of size 1 reads its operand."""
    if len(index) == node.args[0].ndim:
        return index
    axes = reduced_axes(node)
    rest = iter(index)
    return tuple(0 if axis in axes else next(rest) for axis in range(node.args[0].ndim))


def new_cluster(node: Node) -> Cluster:
    """A node alone."""
    space = node.args[0].shape if reduces(node) else node.shape
    index: list[Size] = []
    variables: list[str] = []
    extents: dict[str, Size] = {}
    for size in space:
        if size == 1:
            index.append(0)
            continue
        name = f"%x{next(_variables)}"
        variables.append(name)
        extents[name] = size
        index.append(loop_index(name[1:]))
    cluster = Cluster([node], tuple(variables), extents)
    if reduces(node):
        axes = reduced_axes(node)
        inner = {name for axis in axes for name in names(index[axis])}
        cluster.inner = tuple(v for v in variables if v in inner)
        cluster.inner_at[id(node)] = tuple(index)
        kept = [0 if axis in axes else part for axis, part in enumerate(index)]
        keepdims = isinstance(node.op, Reduce | ArgMax | ArgMin) and node.op.keepdims
        cluster.at[id(node)] = tuple(part for axis, part in enumerate(kept) if keepdims or axis not in axes)
    else:
        cluster.at[id(node)] = tuple(index)
    return cluster


def operand_indices(node: Node, cluster: Cluster) -> list[Index | None]:
    """For each operand the index at which the cluster reads it; None where that depends on data or moves."""
    index = cluster.at[id(node)]
    op = node.op
    if isinstance(op, Reduce | ArgMax | ArgMin):
        return [cluster.inner_at[id(node)] if reduces(node) else operand_of_trivial(node, index)]
    if isinstance(op, Take):
        return [None, index[op.axis : op.axis + node.args[1].ndim]]
    if isinstance(op, TakeAlong):
        return [None, broadcast_index(index, node.args[1].shape)]
    if isinstance(op, Pad | PaddedWindows):
        return [None, ()]
    if isinstance(op, RandomBits):
        return [(), ()]
    if isinstance(op, Elementwise):
        return [broadcast_index(index, arg.shape) for arg in node.args]
    return [None for _ in node.args]


def stages(cluster: Cluster) -> dict[int, int]:
    """For each node the number of reductions, one after another, that must be finished before it is known."""
    stage: dict[int, int] = {}
    inside = {id(node) for node in cluster.nodes}
    for node in cluster.nodes:
        before = max((stage[id(s)] for s in sources(node) if id(s) in inside), default=0)
        stage[id(node)] = before + (1 if reduces(node) else 0)
    return stage
