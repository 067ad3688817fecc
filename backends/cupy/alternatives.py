"""The ways to compute a convolution: graphc's own kernels in several tilings, and the plans of a library.

A library wants the channels of a kernel last, too. So before it runs, or after that for a gradient by the kernel, the
kernel is transposed: in scratch memory it is ``(filters, *window, channels / groups)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from graphc import cache as disk
from graphc.backends.cupy.choice import Choice, Family, Problem, Way
from graphc.backends.cupy.convolution import Sizes, Variant
from graphc.backends.cupy.convolved import PlannedConvolution
from graphc.backends.cupy.device import ALIGNMENT, Convolution, Device, Launch, Memory, Work
from graphc.errors import BackendError
from graphc.ir.types import DType
from graphc.loops.kernel import Access, Apply, Buffer, Const, For, Kernel, Load, LoopKind, Store, Var
from graphc.lower.plan import Sought

OWN, LIBRARY = "graphc", "cudnn"
MOST_SHARED = 512 << 20
"""A workspace that has to grow grows twofold, but not beyond this for that reason."""
ZERO = Const(0, DType.int64)
Turn = Callable[[int, int, int, int], Launch]
"""The launch that writes the matrix at one address, of so many rows and columns, to another one transposed."""


class Convolvers:
    """Who computes the convolutions of a program.

    Args:
        device: where they are computed.
        module: what holds the functions of launches.
        who: one of :data:`graphc.backends.cupy.CONVOLUTIONS`.
        tf32: may operands of float32 be rounded to 10 bits of mantissa?
        turns: transpositions for each type of elements that the library may get.

    Attributes:
        made: the choices, by the problem.
    """

    def __init__(self, device: Device, module: Any, who: str, tf32: bool, turns: Mapping[DType, Turn]) -> None:
        self.device, self.module = device, module
        self.made: dict[str, Choice] = {}
        self._who, self._tf32, self._turns = who, tf32, turns
        self._workspaces: list[Memory] = []  # older ones are too small by now, but recorded steps use them

    def way(self, item: PlannedConvolution, sizes: Sizes, result: DType) -> Way:
        """The way to compute an item that has elements; the device's lock is held."""
        problem = convolution_problem(item, sizes, self._tf32, result)
        own = own_family(item, sizes, self._tf32, result)
        if self._who == OWN or not sizes.positions:
            families = [(own,)]
        else:
            library = library_family(self.device, item, sizes, self._tf32, result, self._turns)
            families = [(library,), (own,)] if self._who == LIBRARY else [(own, library)]
        refused: dict[str, str] = {}
        for some in families:
            try:
                way, choice = self.device.choices.choose(self.device, self.module, problem, some)
            except BackendError as error:
                if some is families[-1]:
                    raise
                refused |= dict(line.split(": ", 1) for line in error.details)
                continue
            self.made[problem.text] = replace(choice, left_out={**refused, **choice.left_out})
            return way
        raise AssertionError  # the last of them raises

    def workspace(self, nbytes: int) -> tuple[int, int]:
        """Where memory of so many bytes begins and ends, which all ways of a library share, one after the other."""
        if not self._workspaces or self._workspaces[-1].nbytes < nbytes:
            before = self._workspaces[-1].nbytes if self._workspaces else 0
            what = "the workspace of convolutions"
            self._workspaces.append(self.device.allocate(max(nbytes, min(2 * before, MOST_SHARED)), what))
        start = self._workspaces[-1].address
        return start, start + nbytes

    def notes(self) -> tuple[str, ...]:
        """What was chosen, and once for each reason what was left out."""
        reasons: dict[tuple[str, str], int] = {}
        for choice in self.made.values():
            for pair in choice.left_out.items():
                reasons[pair] = reasons.get(pair, 0) + 1
        left = (
            f"left out{f' of {count} choices' if count > 1 else ''}: {name}: {reason}"
            for (name, reason), count in reasons.items()
        )
        return (*map(str, self.made.values()), *left)


def convolution_problem(item: PlannedConvolution, sizes: Sizes, tf32: bool, result: DType) -> Problem:
    """What is to be done, in words that say all of it."""

    def row(values: Sequence[int]) -> str:
        return "x".join(map(str, values))

    axes = sizes.axes
    x, y = [sizes.batch, *(a.size for a in axes), sizes.channels], [*(a.count for a in axes), sizes.filters]
    said = [f"{item.sought.value} of a convolution from {row(x)} to {row(y)} by {row([a.window for a in axes])}"]
    for name in ("stride", "dilation"):
        steps = [getattr(axis, name) for axis in axes]
        if max(steps) > 1:
            said.append(f"{name} {row(steps)}")
    if any(axis.low for axis in axes):
        said.append(f"low {row([axis.low for axis in axes])}")
    if sizes.groups > 1:
        said.append(f"{sizes.groups} groups")
    said.append(f"{item.element}{' in TF32' if tf32 and item.element is DType.float32 else ''}")
    if result is not item.element:
        said.append(f"to {result}")
    if not item.aligned:
        said.append("not aligned")
    first, second, third = _counts(sizes)
    return Problem(", ".join(said), ((item.element, first), (item.element, second), (result, third)))


def _counts(sizes: Sizes) -> tuple[int, int, int]:
    """How many elements a, b and c of the item have."""
    x = sizes.batch * prod(axis.size for axis in sizes.axes) * sizes.channels
    y = sizes.positions * sizes.filters
    match sizes.sought:
        case Sought.RESULT:
            return x, sizes.weights, y
        case Sought.INPUT:
            return y, sizes.weights, x
        case Sought.KERNEL:
            return x, y, sizes.weights


def own_family(item: PlannedConvolution, sizes: Sizes, tf32: bool, result: DType) -> Family:
    """graphc's kernels, the one first that is taken without a measurement."""
    variants = [variant for variant in item.variants(tf32) if variant.sought is not None]
    chosen = sizes.chosen(variants)

    def way(variant: Variant) -> Way:
        def work(operands: Sequence[int], scratch: int) -> tuple[Work, ...]:
            a, b, c = operands
            return tuple(sizes.launches(variant, (a, b, c), scratch, result.is_half))

        return Way(f"{OWN} {variant.name}", work, lambda: sizes.scratch_bytes(variant))

    ways = [way(variant) for variant in (chosen, *(other for other in variants if other != chosen))]
    return Family(OWN, _version(), lambda: ways, lambda name: next((way for way in ways if way.name == name), None))


@cache
def _version() -> str:
    """Of the kernels and of what launches them."""
    files = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".py", ".cuh"))
    return disk.digest(*(path.read_bytes() for path in files))[:16]


def library_family(
    device: Device, item: PlannedConvolution, sizes: Sizes, tf32: bool, result: DType, turns: Mapping[DType, Turn]
) -> Family:
    """The library's plans, each with the transposition of the kernel beside it."""
    described = describe(item, sizes, tf32)

    def work(plan: Convolution, operands: Sequence[int], scratch: int) -> tuple[Work, ...]:
        a, b, c = operands
        kernel, inner = scratch, sizes.channels // sizes.groups * sizes.elements
        turn = turns[item.element]
        placed = replace(plan, kernel=kernel, workspace=scratch + _kernel_bytes(item, sizes))
        match item.sought:
            case Sought.RESULT:
                return turn(b, kernel, inner, sizes.filters), replace(placed, x=a, y=c)
            case Sought.INPUT:
                return turn(b, kernel, inner, sizes.filters), replace(placed, y=a, x=c)
            case Sought.KERNEL:
                return replace(placed, x=a, y=b), turn(kernel, c, sizes.filters, inner)

    def named(name: str) -> Way:
        plan = replace(described, plan=name.removeprefix(f"{LIBRARY} "))
        plan = replace(plan, workspace_bytes=device.convolution_workspace(plan))
        nbytes = _kernel_bytes(item, sizes) + plan.workspace_bytes
        return Way(name, lambda operands, scratch: work(plan, operands, scratch), lambda: nbytes)

    def find() -> Iterator[Way]:
        if result is not item.element:
            raise BackendError(f"the library has no results of {result} for operands of {item.element}")
        if not item.aligned:
            raise BackendError("the library takes operands that begin at multiples of 16 bytes")
        for plan in device.convolution_plans(described):
            yield named(f"{LIBRARY} {plan}")

    return Family(LIBRARY, device.library_version(), find, named)


def _kernel_bytes(item: PlannedConvolution, sizes: Sizes) -> int:
    """What the transposed kernel takes of scratch memory; the library's workspace follows it."""
    return -(-sizes.weights * item.element.itemsize // ALIGNMENT) * ALIGNMENT


def describe(item: PlannedConvolution, sizes: Sizes, tf32: bool) -> Convolution:
    """A convolution as the device layer knows it, without addresses."""
    axes = sizes.axes
    ends = ((a.count - 1) * a.stride + (a.window - 1) * a.dilation + 1 - a.size - a.low for a in axes)
    return Convolution(
        item.sought, item.element, 0, 0, 0, sizes.batch,
        tuple(a.size for a in axes), tuple(a.count for a in axes), tuple(a.window for a in axes),
        tuple(a.stride for a in axes), tuple(a.dilation for a in axes), tuple(a.low for a in axes),
        tuple(max(end, 0) for end in ends), sizes.groups, sizes.channels, sizes.filters, tf32,
    )  # fmt: skip


def transposition(dtype: DType) -> Kernel:
    """A matrix written transposed, of so many columns and rows as its two sizes say."""
    columns, rows, i, j = (Var(name, DType.int64) for name in ("n0", "n1", "i0", "i1"))
    value = Load("b0", _at(i, columns, j), dtype)
    inner = For("i1", ZERO, rows, LoopKind.VECTOR, (Store("b1", _at(j, rows, i), value),))
    body = (For("i0", ZERO, columns, LoopKind.PARALLEL, (inner,)),)
    buffers = (Buffer("b0", dtype, Access.READ), Buffer("b1", dtype, Access.WRITE))
    return Kernel(f"transpose_{dtype}", buffers, ("n0", "n1"), columns, body)


def _at(column: Var, length: Var, row: Var) -> Apply:
    product = Apply("mul", (length, row), DType.int64)
    return Apply("add", (column, product), DType.int64)
