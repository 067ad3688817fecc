"""Convolutions in a plan of the GPU backend: which of them have kernels, and memory for sums of parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from graphc.backends.cupy.convolution import (
    AXES,
    SHORTEST_PART,
    Axis,
    Sizes,
    Variant,
    kind_of,
    most_parts,
    variants,
)
from graphc.ir.dims import Size, ceildiv, minimum, product
from graphc.ir.types import DType, TensorType
from graphc.lower.convolution import convolution
from graphc.lower.plan import ConvolutionItem, Item, Place, Plan, PlanBuffer, Sought, size_of

if TYPE_CHECKING:
    from graphc.ir.node import Node

ALIGNMENT = 16


@dataclass(frozen=True)
class PlannedConvolution(ConvolutionItem):
    """An item with what its kernels need.

    Attributes:
        element: the type of a and b; c is of that type, or float32.
        scratch: a buffer for sums of parts; None where positions are never cut.
        aligned: do a, b and c begin at multiples of 16 bytes?
    """

    element: DType = DType.float32
    scratch: int | None = None
    aligned: bool = True

    @property
    def buffers(self) -> tuple[int, ...]:
        return (*super().buffers, *(() if self.scratch is None else (self.scratch,)))

    def variants(self, tf32: bool) -> tuple[Variant, ...]:
        """The kernels that compute it, of which the sizes choose one, and what adds up the parts."""
        assert isinstance(self.channels, int)
        assert isinstance(self.filters, int)
        kind = kind_of(self.element, tf32)
        found = variants(self.sought, kind, self.window, self.channels, self.filters, self.groups, self.aligned)
        return found if self.scratch is None else (*found, Variant(found[0].kind, None))

    def at(self, dims: Mapping[str, int]) -> Sizes:
        """With sizes as numbers."""
        sizes, counts, low = ([size_of(size, dims) for size in row] for row in (self.sizes, self.counts, self.low))
        rows = zip(sizes, counts, self.window, self.strides, self.dilations, low, strict=True)
        channels, filters = size_of(self.channels, dims), size_of(self.filters, dims)
        axes = tuple(Axis(*row) for row in rows)
        return Sizes(self.sought, size_of(self.batch, dims), axes, channels, filters, self.groups)


def fits(node: Node) -> bool:
    """Are there kernels for this convolution? What has one element in its windows is a plain product."""
    item = convolution(node)
    known = isinstance(item.channels, int) and isinstance(item.filters, int)
    if node.dtype is DType.float64 or len(item.window) > AXES or not known:
        return False
    plain = item.groups == 1 and max(*item.window, *item.strides) == 1 and item.sizes == item.counts
    return not (plain and all(low == 0 for low in item.low))


def add_scratch(plan: Plan) -> Plan:
    """The plan with convolutions as this backend computes them."""
    buffers = list(plan.buffers)

    def planned(item: Item) -> Item:
        if not isinstance(item, ConvolutionItem):
            return item
        given: dict[str, Any] = {f.name: getattr(item, f.name) for f in fields(ConvolutionItem)}
        element = buffers[item.a].type.dtype
        aligned = all(_is_aligned(plan, index) for index in (item.a, item.b, item.c))
        own = PlannedConvolution(**given, element=element, aligned=aligned)
        parts = _parts(own)
        if parts == 1:
            return own
        shape = (parts, product(item.shapes[2]))
        buffers.append(PlanBuffer(len(buffers), f"arena{len(buffers)}", TensorType(DType.float32, shape), Place.ARENA))
        return replace(own, scratch=len(buffers) - 1)

    launches = tuple(replace(launch, items=tuple(map(planned, launch.items))) for launch in plan.launches)
    return replace(plan, launches=launches, buffers=tuple(buffers))


def _parts(item: PlannedConvolution) -> Size:
    """Into how many parts positions are cut at most."""
    if item.sought is not Sought.KERNEL:
        return 1
    (variant,) = item.variants(False)
    some = replace(item, batch=1, sizes=(1,) * len(item.sizes), counts=(1,) * len(item.sizes), low=(0,) * len(item.low))
    most = most_parts(some.at({}).tiles(variant))  # tiles of a kernel do not depend on images
    return minimum(ceildiv(item.batch * product(item.counts), SHORTEST_PART), most)


def _is_aligned(plan: Plan, index: int) -> bool:
    """Does a buffer begin at a multiple of 16 bytes, wherever a loop moves it?"""
    buffer = plan.buffers[index]
    if buffer.part is None:
        return True
    width = buffer.type.dtype.itemsize
    steps = (buffer.part.offset, buffer.part.step)
    return all(_divides(step, width) for step in steps) and _is_aligned(plan, buffer.part.of)


def _divides(size: Size, width: int) -> bool:
    return isinstance(size, int) and not size * width % ALIGNMENT
