"""Products with what a kernel would do to their result: a bias, another matrix, relu or gelu, in one launch.

A plan computes a product, and a kernel behind it reads the result, once, and nobody else does. Where all that the
kernel does is adding a row to each row, adding a matrix, and one of the activations that the library has, the product
writes what the kernel would have written. A mask of where the result is positive, which the gradient of relu reads, is
compared again by whoever reads it. What a kernel computes is found out by its values at some points, however it is
written.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from graphc.backends.cupy.device import Activation
from graphc.backends.cupy.halves import Uses, root_of
from graphc.backends.cupy.meaning import COMPUTED, Stored, Sum, activation_of, is_positive, is_same_modulo, stored_by
from graphc.ir.types import DType, TensorType
from graphc.loops.affine import int64, map_expressions
from graphc.loops.kernel import (
    Access,
    Apply,
    Buffer,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Stmt,
    Store,
    Var,
)
from graphc.lower.plan import GemmItem, Item, KernelItem, Place, Plan, PlanBuffer

FEWEST_ROWS = 2
"""A single row times a matrix is bound by memory, and libraries have kernels for it that have no epilogues."""


@dataclass(frozen=True)
class FinishedGemm(GemmItem):
    """A product with what is done to its result before it is rounded: ``c = activation(a @ b + addend + bias)``.

    Attributes:
        bias: a buffer with an element for each column, of c's type.
        addend: a buffer that lies as c does.
    """

    bias: int | None = None
    addend: int | None = None
    activation: Activation = Activation.NONE

    @property
    def more(self) -> tuple[int, ...]:
        """What it reads beside a and b."""
        return tuple(index for index in (self.bias, self.addend) if index is not None)

    @property
    def buffers(self) -> tuple[int, ...]:
        return (self.a, self.b, self.c, *self.more)


def finish_products(plan: Plan, tf32: bool = False) -> Plan:
    """The plan with products that do what kernels behind them did."""
    stored: dict[int, tuple[Kernel, dict[str, Stored] | None]] = {}
    while (changed := _Finishing(plan, tf32, stored).run()) is not plan:
        plan = changed
    return plan


@dataclass(frozen=True)
class _Found:
    """A product and the kernel behind it.

    Attributes:
        made, position: the launches of both.
        target: the buffer that the kernel writes.
        bias: a buffer, perhaps of another type than the target.
        mask: a buffer that says where the target is positive.
    """

    gemm: GemmItem
    made: int
    item: KernelItem
    position: int
    target: int
    bias: int | None
    addend: int | None
    activation: Activation
    mask: int | None


class _Finishing:
    """Changes in one round whatever can be changed without touching the same buffers or items twice."""

    def __init__(self, plan: Plan, tf32: bool, stored: dict[int, tuple[Kernel, dict[str, Stored] | None]]) -> None:
        self.plan = plan
        self.tf32 = tf32
        self.stored = stored
        self.uses = Uses(plan)
        self.launches = list(plan.launches)
        self.buffers = list(plan.buffers)
        self.made: dict[int, tuple[int, GemmItem]] = {}
        self.by: dict[int, list[tuple[int, Item]]] = {}
        for position, launch in enumerate(plan.launches):
            for item in launch.items:
                for index in item.buffers:
                    self.by.setdefault(index, []).append((position, item))
                if type(item) is GemmItem and not item.in_panels:
                    self.made[item.c] = (position, item)

    def run(self) -> Plan:
        """The plan, changed where it can be."""
        roots, items = set[int](), set[int]()
        for position, launch in enumerate(self.plan.launches if self.made else ()):
            for item in launch.items:
                found = self._found(item, position) if isinstance(item, KernelItem) else None
                if found is None:
                    continue
                readers = [] if found.mask is None else [id(other) for _, other in self.by[found.mask]]
                numbers = (found.gemm.c, found.target, found.bias, found.addend, found.mask)
                own = {root_of(self.plan, index) for index in numbers if index is not None}
                if own & roots or items & {id(item), id(found.gemm), *readers}:
                    continue  # what becomes of them is seen in the next round
                if self._change(found):
                    roots |= own
                    items |= {id(item), id(found.gemm), *readers}
        if not items:
            return self.plan
        return replace(self.plan, launches=tuple(self.launches), buffers=tuple(self.buffers))

    # conditions

    def _found(self, item: KernelItem, position: int) -> _Found | None:
        names = {buffer.name: index for buffer, index in zip(item.kernel.buffers, item.buffers, strict=True)}
        if item.written is not None or not any(index in self.made for index in item.buffers):
            return None
        written = [buffer for buffer in item.kernel.buffers if buffer.access is not Access.READ]
        if any(buffer.access is Access.UPDATE for buffer in written) or len(written) > 2:
            return None
        stored = self._stored_by(item.kernel)
        if stored is None or stored.keys() != {buffer.name for buffer in written}:
            return None
        main = [name for name, store in stored.items() if activation_of(store.meaning)]
        if len(main) != 1:
            return None
        (name,) = main
        kind = activation_of(stored[name].meaning)
        assert kind is not None  # it was chosen for that
        of, activation = kind
        others = [buffer for buffer in written if buffer.name != name]
        mask: int | None = None
        if others:
            (other,) = others
            if activation is not Activation.RELU or stored[other.name].index != stored[name].index:
                return None
            if not is_positive(stored[other.name].meaning, of):
                return None
            mask = names[other.name]
        for term, index in sorted(of.terms, key=lambda t: t[0]):
            made = self.made.get(names[term])
            if made is not None and index == stored[name].index:
                found = self._parts(item, position, made, (term, index), of, names, activation)
                if found is not None:
                    found = replace(found, target=names[name], mask=mask)
                    if self._is_legal(found):
                        return found
        return None

    def _parts(
        self,
        item: KernelItem,
        position: int,
        made: tuple[int, GemmItem],
        product: tuple[str, Expr],
        of: Sum,
        names: dict[str, int],
        activation: Activation,
    ) -> _Found | None:
        """The terms of a sum beside a product's result as a bias and a matrix."""
        start, gemm = made
        columns, bias, addend = gemm.n, None, None
        if not isinstance(columns, int):
            return None
        for name, index in of.terms - {product}:
            size = self.plan.buffers[names[name]].type.size
            if index == product[1] and size == self.plan.buffers[gemm.c].type.size and addend is None:
                addend = names[name]
            elif size == columns and is_same_modulo(index, product[1], columns) and bias is None:
                bias = names[name]
            else:
                return None
        if bias is None and (addend is None or activation is not Activation.NONE):
            return None
        return _Found(gemm, start, item, position, -1, bias, addend, activation, None)

    def _is_legal(self, found: _Found) -> bool:
        plan, uses, gemm = self.plan, self.uses, found.gemm
        c, target = plan.buffers[gemm.c], plan.buffers[found.target]
        dense = gemm.ldc == gemm.n and (gemm.batch == 1 or gemm.stride_c == gemm.m * gemm.n)
        dense = dense and target.type.size == c.type.size
        rows = gemm.m * gemm.batch
        if not dense or c.type.size != rows * gemm.n or (isinstance(rows, int) and rows < FEWEST_ROWS):
            return False
        if c.place is not Place.ARENA or uses.read.get(c.index) != [found.position] or c.index in uses.asked:
            return False
        if uses.written[c.index] != [found.made] or uses.has_slices(c.index) or found.made >= found.position:
            return False
        if not self._has_types(found) or not uses.alike((found.made, found.position)):
            return False
        root = root_of(plan, target.index)
        if plan.buffers[root].place not in (Place.ARENA, Place.OUTPUT):
            return False
        if any(found.made <= at < found.position for at in (*uses.read.get(root, ()), *uses.written[root])):
            return False
        for index in (found.bias, found.addend):
            if index is not None and any(
                found.made <= at <= found.position for at in uses.written.get(root_of(plan, index), ())
            ):
                return False
        return found.mask is None or self._may_go(found.mask, found)

    def _has_types(self, found: _Found) -> bool:
        """Are there such products? Gelu is the library's own approximation, good enough for what is rounded anyway."""
        plan, gemm = self.plan, found.gemm
        of, to = plan.buffers[gemm.a].type.dtype, plan.buffers[found.target].type.dtype
        if of not in COMPUTED or to not in (of, DType.float32):
            return False
        if found.addend is not None and plan.buffers[found.addend].type.dtype is not to:
            return False
        rounds = to.is_half or (of is DType.float32 and self.tf32)
        return found.activation is not Activation.GELU or rounds

    def _may_go(self, mask: int, found: _Found) -> bool:
        """Can all who read a mask read what it was made of, at the same places, and compare again?"""
        plan, uses = self.plan, self.uses
        buffer, root = plan.buffers[mask], root_of(plan, found.target)
        if buffer.place is not Place.ARENA or uses.has_slices(mask) or mask in uses.asked:
            return False
        if uses.written[mask] != [found.position] or plan.buffers[found.target].place is Place.SLICE:
            return False
        readers = [(at, item) for at, item in self.by[mask] if item is not found.item]
        if not all(isinstance(item, KernelItem) and at > found.position for at, item in readers):
            return False
        last = max((at for at, _ in readers), default=found.position)
        if any(found.position < at <= last for at in uses.written[root]):
            return False
        return uses.alike((found.position, *(at for at, _ in readers)))

    def _stored_by(self, kernel: Kernel) -> dict[str, Stored] | None:
        if id(kernel) not in self.stored:
            self.stored[id(kernel)] = (kernel, stored_by(kernel))  # which keeps it alive
        return self.stored[id(kernel)][1]

    # the change

    def _change(self, found: _Found) -> bool:
        """Let the product do it all; no if there is no place to round the bias."""
        gemm, bias, dtype = found.gemm, found.bias, self.buffers[found.target].type.dtype
        if bias is not None and self.buffers[bias].type.dtype is not dtype:
            bias = self._rounded(bias, found)
            if bias is None:
                return False
        given: dict[str, Any] = {f.name: getattr(gemm, f.name) for f in fields(GemmItem)} | {"c": found.target}
        finished = FinishedGemm(**given, bias=bias, addend=found.addend, activation=found.activation)
        self._exchange(found.made, gemm, finished)
        self._exchange(found.position, found.item, None)
        for at, item in [] if found.mask is None else self.by[found.mask]:
            if isinstance(item, KernelItem) and item is not found.item:
                pairs = zip(item.kernel.buffers, item.buffers, strict=True)
                kernel = reading_positive(item.kernel, {b.name for b, index in pairs if index == found.mask}, dtype)
                buffers = tuple(found.target if index == found.mask else index for index in item.buffers)
                self._exchange(at, item, replace(item, kernel=kernel, buffers=buffers))
        return True

    def _rounded(self, bias: int, found: _Found) -> int | None:
        """A new buffer for the bias in the target's type."""
        of, to = self.buffers[bias].type, self.buffers[found.target].type.dtype
        kernel = rounding(of.dtype, to)
        at = self._place_of_rounding(bias, kernel, found)
        if at is None:
            return None
        number = len(self.buffers)
        self.buffers.append(PlanBuffer(number, f"arena{number}", TensorType(to, of.shape), Place.ARENA))
        item = KernelItem(kernel, (bias, number), (of.size,), of.size)
        self.launches[at] = replace(self.launches[at], items=(*self.launches[at].items, item))
        return number

    def _place_of_rounding(self, bias: int, kernel: Kernel, found: _Found) -> int | None:
        """A launch before the product: best one that rounds something else, too, with which it is one."""
        plan, buffer = self.plan, self.plan.buffers[bias]
        steady = (Place.STATE, Place.CONSTANT, Place.INPUT)
        if buffer.place not in steady or any(at <= found.position for at in self.uses.written.get(bias, ())):
            return None
        first = min((loop.first for loop in plan.loops if loop.first <= found.made < loop.end), default=found.made)
        free = [at for at in range(first) if not any(loop.first <= at < loop.end for loop in plan.loops)]
        rounds = [at for at in free if any(_is_kernel(item, kernel) for item in plan.launches[at].items)]
        return max(rounds or free, default=None)

    def _exchange(self, at: int, old: Item, new: Item | None) -> None:
        """One item in place of another, or in place of it none."""
        items = self.launches[at].items
        kept = tuple(new if item is old else item for item in items)
        self.launches[at] = replace(self.launches[at], items=tuple(item for item in kept if item is not None))


def _is_kernel(item: Item, kernel: Kernel) -> bool:
    return isinstance(item, KernelItem) and item.kernel == kernel


def rounding(of: DType, to: DType) -> Kernel:
    """A kernel that rounds each element, written as lowering writes it, so that both are one launch."""
    i, n = Var("i0", DType.int64), Var("n0", DType.int64)
    v0, v1 = Var("v0", of), Var("v1", to)
    body = (Let(v0, Load("b0", i, of)), Let(v1, Apply("cast", (v0,), to)), Store("b1", i, v1))
    buffers = (Buffer("b0", of, Access.READ), Buffer("b1", to, Access.WRITE))
    return Kernel("cast", buffers, ("n0",), n, (For("i0", int64(0), n, LoopKind.PARALLEL, body),))


def reading_positive(kernel: Kernel, names: set[str], dtype: DType) -> Kernel:
    """The kernel with masks by these names turned into numbers that are compared with zero."""
    buffers = tuple(replace(b, dtype=dtype) if b.name in names else b for b in kernel.buffers)
    return replace(kernel, buffers=buffers, body=_comparing(kernel.body, names, dtype))


def _comparing(statements: tuple[Stmt, ...], names: set[str], dtype: DType) -> tuple[Stmt, ...]:
    found: list[Stmt] = []
    for statement in statements:
        match statement:
            case Let(var=var, value=Load(buffer=buffer) as load) if buffer in names:
                number = Var(f"{var.name}n", dtype)
                found += [Let(number, replace(load, dtype=dtype)), Let(var, _positive(number))]
            case For() | If():
                inner = replace(statement, body=_comparing(statement.body, names, dtype))
                if isinstance(inner, If):
                    inner = replace(inner, condition=_with(inner.condition, names, dtype))
                found.append(inner)
            case _:
                found.append(map_expressions(statement, lambda expression: _with(expression, names, dtype)))
    return tuple(found)


def _with(expression: Expr, names: set[str], dtype: DType) -> Expr:
    match expression:
        case Load(buffer=buffer) if buffer in names:
            return _positive(replace(expression, dtype=dtype))
        case Apply(args=args):
            return replace(expression, args=tuple(_with(argument, names, dtype) for argument in args))
        case _:
            return expression


def _positive(number: Expr) -> Expr:
    wide = number if number.dtype is DType.float32 else Apply("cast", (number,), DType.float32)
    return Apply("gt", (wide, Const(0.0, DType.float32)), DType.bool)
