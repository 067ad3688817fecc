"""Executes a whole plan with the kernel interpreter, so that lowering is tested without any backend.

It also holds the plan to its own rules: who may write which buffer, that nothing is read before it is written,
that items of one launch do not depend on each other, and that state changes only after the last check.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.backend import Failure
from graphc.errors import VerifyError
from graphc.ir.dims import Size
from graphc.loops.interp import evaluate_size, run_kernel
from graphc.loops.kernel import Access
from graphc.lower.plan import (
    AttentionItem,
    Axis,
    ContractionItem,
    ConvolutionItem,
    GemmItem,
    Item,
    KernelItem,
    Launch,
    Loop,
    Lying,
    Place,
    Plan,
    PlanBuffer,
    WinogradItem,
    size_of,
)
from graphc.ops.winograd import WinogradProduct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class CheckFailed(Exception):
    """A run-time check of a plan failed before anything was committed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"check {failure.check} failed with {failure.detail}")
        self.failure = failure


def run_plan(plan: Plan, inputs: Sequence[Array], dims: Mapping[str, int]) -> list[Array]:
    """Run one step of a plan: the outputs; the parameters' values change at the end.

    Raises:
        CheckFailed: a run-time check failed; no parameter has changed.
        VerifyError: the plan or one of its kernels breaks a rule.
    """
    run = _Run(plan, inputs, dims)
    run.launches(0, len(plan.launches), 0)
    if plan.commit >= len(plan.launches):
        run.test_checks()
    return run.finish()


class _Run:
    def __init__(self, plan: Plan, inputs: Sequence[Array], dims: Mapping[str, int]) -> None:
        self.plan = plan
        self.dims = dims
        self.failure: Failure | None = None
        self.arrays: list[Array] = []
        self.written: list[bool] = []
        self.steps = [0] * len(plan.loops)
        for buffer in plan.buffers:
            self.arrays.append(self._array(buffer, inputs))
            self.written.append(buffer.place not in (Place.ARENA, Place.OUTPUT))

    def launches(self, first: int, end: int, loop: int) -> None:
        """Launches ``first`` to ``end - 1``, with the loops from number ``loop`` on that lie among them."""
        position = first
        while position < end:
            if position == self.plan.commit:
                self.test_checks()
            while loop < len(self.plan.loops) and self.plan.loops[loop].end <= position:
                loop += 1
            if loop < len(self.plan.loops) and self.plan.loops[loop].first == position:
                inside = self.plan.loops[loop]
                self.steps[loop] = 0
                count = size_of(inside.count, self.dims)
                while self.steps[loop] < count and self._goes(inside):
                    self.launches(inside.first, inside.end, loop + 1)
                    self.steps[loop] += 1
                if inside.steps is not None:
                    self.array(inside.steps)[()] = self.steps[loop]
                    self.written[self.root(inside.steps)] = True
                position = inside.end
                continue
            self.launch(self.plan.launches[position], commits=position >= self.plan.commit)
            position += 1

    def _goes(self, loop: Loop) -> bool:
        """Is there a next step?"""
        return loop.going is None or bool(self.array(loop.going)[()])

    def array(self, index: int) -> Array:
        """The elements of a buffer where they lie now."""
        buffer = self.plan.buffers[index]
        part = buffer.part
        if part is None:
            return self.arrays[index]
        whole = self.array(part.of).reshape(-1)
        step = 0 if part.loop is None else self.steps[part.loop]
        start = size_of(part.offset, self.dims) + size_of(part.step, self.dims) * (
            step % 2 if part.alternates else step
        )
        shape = tuple(size_of(size, self.dims) for size in buffer.type.shape)
        size = math.prod(shape)
        if size and not 0 <= start <= whole.size - size:
            raise VerifyError(f"{_label(buffer)} lies outside of {_label(self.plan.buffers[part.of])}")
        return whole[start : start + size].reshape(shape)

    def root(self, index: int) -> int:
        """The buffer that a slice lies in, however deep."""
        part = self.plan.buffers[index].part
        return index if part is None else self.root(part.of)

    def _array(self, buffer: PlanBuffer, inputs: Sequence[Array]) -> Array:
        shape = tuple(size_of(size, self.dims) for size in buffer.type.shape)
        match buffer.place:
            case Place.INPUT:
                given: Any = inputs[buffer.slot]
            case Place.CONSTANT:
                given = self.plan.constants[buffer.slot]
            case Place.STATE:
                given = self.plan.parameters[buffer.slot].value
            case Place.SLICE:
                return np.empty(0)  # see :meth:`array`
            case Place.OUTPUT | Place.ARENA:
                unlikely = np.nan if buffer.type.dtype.is_float else 77
                return np.full(shape, unlikely, buffer.type.dtype.numpy)
        array = np.array(given, order="C")
        if array.shape != shape or array.dtype != buffer.type.dtype.numpy:
            raise VerifyError(f"{_label(buffer)} is {buffer.type}, its array is {array.dtype}{list(array.shape)}")
        return array

    def launch(self, launch: Launch, commits: bool) -> None:
        self._verify_independence(launch)
        for item in launch.items:
            self._verify_access(launch, item, commits)
        for item in launch.items:
            if isinstance(item, GemmItem):
                self._gemm(item)
            elif isinstance(item, ContractionItem):
                self._contract(item)
            elif isinstance(item, AttentionItem):
                self._attend(item)
            elif isinstance(item, WinogradItem):
                self._winograd(item)
            elif isinstance(item, ConvolutionItem):
                self._convolve(item)
            else:
                self._kernel(item)

    def _kernel(self, item: KernelItem) -> None:
        sizes = [size_of(size, self.dims) for size in item.sizes]
        named = dict(zip(item.kernel.sizes, sizes, strict=True))
        extent = size_of(item.extent, self.dims)
        if evaluate_size(item.kernel.extent, named) != extent:
            raise VerifyError(f"kernel {item.kernel.name}: the item's extent is {extent}, the kernel's another")
        status = np.zeros(2, np.int64)
        run_kernel(item.kernel, [self.array(index) for index in item.buffers], sizes, status)
        for index, buffer in zip(item.buffers, item.kernel.buffers, strict=True):
            self.written[self.root(index)] |= buffer.access is not Access.READ
        if status[0]:
            check = int(status[0]) - 1 + item.check_base
            if self.failure is None or check < self.failure.check:
                self.failure = Failure(check, int(status[1]))

    def _gemm(self, item: GemmItem) -> None:
        m, n, k, batch = (size_of(size, self.dims) for size in (item.m, item.n, item.k, item.batch))
        for i in range(batch):
            at_a, at_b = (
                size_of(offset, self.dims) + i * size_of(stride, self.dims)
                for offset, stride in ((item.offset_a, item.stride_a), (item.offset_b, item.stride_b))
            )
            at_c = i * size_of(item.stride_c, self.dims)
            a = self._matrix(item.a, at_a, item.lda, (k, m) if item.transpose_a else (m, k))
            if item.in_panels:
                panels = self.array(item.b)
                b = np.swapaxes(panels, 0, 1).reshape(k, panels.shape[0] * panels.shape[2])[:, :n]
            else:
                b = self._matrix(item.b, at_b, item.ldb, (n, k) if item.transpose_b else (k, n))
            c = self._matrix(item.c, at_c, item.ldc, (m, n))
            with np.errstate(all="ignore"):
                np.matmul(a.T if item.transpose_a else a, b.T if item.transpose_b else b, out=c)
        self.written[self.root(item.c)] = True

    def _contract(self, item: ContractionItem) -> None:
        whole = None if item.parts is None else size_of(item.parts, self.dims)
        outer, sums = ([self._axis(axis) for axis in axes] for axes in (item.outer, item.sums))
        rows, columns = self._axis(item.rows), (size_of(item.columns, self.dims), 0, 1, 1)
        for first in range(outer[0][0]):
            taken = sums[0][0] if whole is None else min(sums[0][0], whole - first * sums[0][0])
            inner = [(taken, *sums[0][1:]), *sums[1:]]
            a, b, c = (
                self._elements(index, first * outer[0][place], [axis[:1] + axis[place : place + 1] for axis in axes])
                for place, index, axes in (
                    (1, item.a, [*outer[1:], rows, *inner]),
                    (2, item.b, [*outer[1:], columns, *inner]),
                    (3, item.c, [*outer[1:], rows, columns]),
                )
            )
            c[...] = np.einsum("uvpijk,uvqijk->uvpq", a, b)
        self.written[self.root(item.c)] = True

    def _attend(self, item: AttentionItem) -> None:
        leading = tuple(size_of(size, self.dims) for size in item.leading)
        queries, keys, size, value_size = (
            size_of(extent, self.dims) for extent in (item.queries, item.keys, item.size, item.value_size)
        )

        def matrices(lying: Lying, rows: int, columns: int) -> Array:
            strides = [size_of(stride, self.dims) for stride in lying.strides]
            axes = [(count, stride) for count, stride in zip((*leading, rows, columns), strides, strict=True)]
            return self._elements(lying.buffer, size_of(lying.offset, self.dims), axes)

        operands = [
            matrices(item.query, queries, size), matrices(item.key, keys, size), matrices(item.value, keys, value_size)
        ]  # fmt: skip
        operands += [] if item.cotangent is None else [matrices(item.cotangent, queries, value_size)]
        operands += [] if item.mask is None else [matrices(item.mask, queries, keys)]
        seeds = [self.array(index).reshape(()) for index in (item.seed, item.step) if index is not None]
        with np.errstate(all="ignore"):
            found = item.op.reference(*operands, *seeds)
        shapes = [(queries, value_size)]
        if item.cotangent is not None:
            shapes = [(queries, size), (keys, size), (keys, value_size)]
            ends = np.cumsum([math.prod((*leading, *shape)) for shape in shapes])
            found = np.split(found, ends[:-1])
        else:
            found = [found]
        for part, lying, shape in zip(found, item.results, shapes, strict=True):
            matrices(lying, *shape)[...] = np.reshape(part, (*leading, *shape))
        self.written[self.root(item.c)] = True

    def _winograd(self, item: WinogradItem) -> None:
        (height, width), (high, across) = (
            tuple(size_of(size, self.dims) for size in pair) for pair in (item.sizes, item.counts)
        )
        after = (high + 2 - height - item.low[0], across + 2 - width - item.low[1])
        op = WinogradProduct(item.low, after, item.filters)
        self.array(item.c)[...] = op.reference(self.array(item.a), self.array(item.b))
        self.written[self.root(item.c)] = True

    def _convolve(self, item: ConvolutionItem) -> None:
        op = item.op.with_sizes(lambda size: size_of(size, self.dims))
        arrays = [
            self.array(index).reshape([size_of(size, self.dims) for size in shape])
            for index, shape in zip(item.buffers, item.shapes, strict=True)
        ]
        with np.errstate(all="ignore"):
            arrays[2][...] = op.reference(*arrays[:2])
        self.written[self.root(item.c)] = True

    def _axis(self, axis: Axis) -> tuple[int, int, int, int]:
        return tuple(size_of(size, self.dims) for size in (axis.count, axis.a, axis.b, axis.c))  # pyright: ignore[reportReturnType]

    def _elements(self, buffer: int, offset: int, axes: list[tuple[int, ...]]) -> Array:
        """Elements of a buffer by several indices; the strides are checked against its end."""
        flat = self.array(buffer).reshape(-1)
        shape, strides = [count for count, _ in axes], [stride for _, stride in axes]
        last = offset + sum((count - 1) * stride for count, stride in axes)
        if 0 not in shape and last >= flat.size:
            raise VerifyError(f"a product of patches ends behind {_label(self.plan.buffers[buffer])}")
        return np.lib.stride_tricks.as_strided(flat[offset:], shape, [flat.itemsize * stride for stride in strides])

    def _matrix(self, buffer: int, offset: int, distance: Size, shape: tuple[int, int]) -> Array:
        """The matrix that begins at an offset as a view of a buffer; the strides are checked against its end."""
        flat = self.array(buffer).reshape(-1)
        rows, columns = shape
        row = size_of(distance, self.dims)
        if rows and columns and offset + (rows - 1) * row + columns > flat.size:
            raise VerifyError(f"a matrix of a product ends behind {_label(self.plan.buffers[buffer])}")
        return np.lib.stride_tricks.as_strided(flat[offset:], shape, (row * flat.itemsize, flat.itemsize))

    def _verify_independence(self, launch: Launch) -> None:
        for i, item in enumerate(launch.items):
            for j, other in enumerate(launch.items):
                if i == j:
                    continue
                for written in _writes(item):
                    if any(self._overlap(written, read) for read in _reads(other)):
                        label = _label(self.plan.buffers[written])
                        raise VerifyError(f"launch {launch.label!r}: one item reads {label}, another writes it")

    def _overlap(self, a: int, b: int) -> bool:
        if a == b or self.root(a) != self.root(b):
            return a == b
        return np.may_share_memory(self.array(a), self.array(b))

    def _roots(self, indices: set[int]) -> set[int]:
        return {self.root(index) for index in indices}

    def _verify_access(self, launch: Launch, item: Item, commits: bool) -> None:
        where = f"launch {launch.label!r}"
        for index in self._roots(_reads(item)):
            if not self.written[index]:
                raise VerifyError(f"{where} reads {_label(self.plan.buffers[index])} before it is written")
        for index in self._roots(_writes(item)):
            buffer = self.plan.buffers[index]
            if buffer.place in (Place.INPUT, Place.CONSTANT):
                raise VerifyError(f"{where} writes {_label(buffer)}, which is not the plan's to change")
            if buffer.place is Place.STATE and not commits:
                raise VerifyError(f"{where} writes {_label(buffer)} before the checks are tested")
        if commits and isinstance(item, KernelItem) and item.kernel.has_checks:
            raise VerifyError(f"{where} checks something after state may have changed")

    def test_checks(self) -> None:
        if self.failure is not None:
            raise CheckFailed(self.failure)

    def finish(self) -> list[Array]:
        outputs: dict[int, Array] = {}
        for buffer, array, written in zip(self.plan.buffers, self.arrays, self.written, strict=True):
            if buffer.place is Place.OUTPUT:
                if not written and array.size:  # a loop without steps writes nothing
                    raise VerifyError(f"{_label(buffer)} is never written")
                outputs[buffer.slot] = array
            elif buffer.place is Place.STATE:
                self.plan.parameters[buffer.slot].value = array
        return [outputs[slot] for slot in range(len(outputs))]


def _label(buffer: PlanBuffer) -> str:
    return f"{buffer.place.value} buffer {buffer.index} ({buffer.label})"


def _reads(item: Item) -> set[int]:
    if isinstance(item, AttentionItem):
        return set(item.reads)
    if isinstance(item, GemmItem | ContractionItem | WinogradItem | ConvolutionItem):
        return {item.a, item.b}
    pairs = zip(item.buffers, item.kernel.buffers, strict=True)
    return {index for index, buffer in pairs if buffer.access is not Access.WRITE}


def _writes(item: Item) -> set[int]:
    if not isinstance(item, KernelItem):
        return {item.c}
    pairs = zip(item.buffers, item.kernel.buffers, strict=True)
    return {index for index, buffer in pairs if buffer.access is not Access.READ}
