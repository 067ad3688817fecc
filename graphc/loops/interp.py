"""Executes kernels directly: the meaning of the kernel IR, which every backend's code is compared with.

Values are NumPy scalars of the exact element type. Every index is checked, every element must be written
before it is read, and loops whose iterations are independent and simple run as one NumPy operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import VerifyError
from graphc.ir.types import DType
from graphc.loops.kernel import (
    Access,
    Accumulate,
    Apply,
    Assign,
    Barrier,
    Combine,
    Const,
    Declare,
    Expr,
    Fail,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    LoopKind,
    Pack,
    Stmt,
    Store,
    Var,
)
from graphc.loops.scalar import Value, accumulate_over, apply_scalar
from graphc.loops.verify import verify_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def run_kernel(
    kernel: Kernel,
    arrays: Sequence[Array],
    sizes: Sequence[int],
    status: NDArray[np.int64] | None = None,
    lo: int = 0,
    hi: int | None = None,
) -> None:
    """Run iterations ``lo`` up to ``hi`` (all by default) of a kernel's parallel loop.

    ``arrays`` are C-contiguous, one for each buffer. ``status`` is ``[check + 1 or 0, detail]``. A kernel that
    is mapped to a GPU runs as if its blocks had one thread.

    Raises:
        VerifyError: the kernel is not well-formed, an index is out of bounds, an element is read before it is
            written, two independent iterations store to one element, or the arguments do not fit.
    """
    verify_kernel(kernel)
    _Run(kernel, arrays, sizes, status, lo, hi).statements(kernel.body)


def evaluate_size(expression: Expr, sizes: dict[str, int]) -> int:
    """The number that an expression of sizes has, such as the ``extent`` of a kernel.

    >>> from graphc.ir.types import DType
    >>> evaluate_size(Apply("add", (Var("n", DType.int64), Const(1, DType.int64)), DType.int64), {"n": 3})
    4
    """
    match expression:
        case Const(value=value):
            return int(value)
        case Var(name=name):
            return sizes[name]
        case Apply(fn=fn, args=args, dtype=dtype):
            return int(apply_scalar(fn, tuple(np.int64(evaluate_size(a, sizes)) for a in args), dtype))
        case Load():
            raise VerifyError("an expression of sizes cannot load")


@dataclass(frozen=True)
class _Memory:
    """A buffer or Local; ``written`` marks the elements that may be read, None when all may."""

    data: Array
    written: NDArray[np.bool_] | None


class _Run:
    def __init__(
        self,
        kernel: Kernel,
        arrays: Sequence[Array],
        sizes: Sequence[int],
        status: NDArray[np.int64] | None,
        lo: int,
        hi: int | None,
    ) -> None:
        self.kernel = kernel
        self.status = status
        self.lo, self.hi = lo, hi
        self.lanes: int | None = None
        self.values: dict[str, Value] = {}
        self.memory: dict[str, _Memory] = {}
        self._simple: dict[int, bool] = {}
        self._bind(arrays, sizes)

    def _bind(self, arrays: Sequence[Array], sizes: Sequence[int]) -> None:
        kernel = self.kernel
        if len(arrays) != len(kernel.buffers) or len(sizes) != len(kernel.sizes):
            raise self._error(f"takes {len(kernel.buffers)} arrays and {len(kernel.sizes)} sizes")
        if kernel.has_checks and self.status is None:
            raise self._error("has checks and needs a status cell")
        for buffer, array in zip(kernel.buffers, arrays, strict=True):
            if array.dtype != buffer.dtype.numpy or not array.flags.c_contiguous:
                raise self._error(f"{buffer.name} must be a C-contiguous array of {buffer.dtype}")
            unwritten = buffer.access is Access.WRITE
            self.memory[buffer.name] = _Memory(array.reshape(-1), np.zeros(array.size, bool) if unwritten else None)
        for i, buffer in enumerate(kernel.buffers):
            if buffer.access is not Access.READ:
                for j, other in enumerate(kernel.buffers):
                    if i != j and np.may_share_memory(arrays[i], arrays[j]):
                        raise self._error(f"{buffer.name} and {other.name} overlap")
        self.values = {name: np.int64(size) for name, size in zip(kernel.sizes, sizes, strict=True)}

    def _error(self, message: str) -> VerifyError:
        return VerifyError(f"kernel {self.kernel.name}: {message}")

    def statements(self, statements: tuple[Stmt, ...]) -> None:
        for statement in statements:
            self._statement(statement)

    def _statement(self, statement: Stmt) -> None:
        match statement:
            case For():
                self._loop(statement)
            case Let(var=var, value=value) | Declare(var=var, initial=value) | Assign(var=var, value=value):
                self.values[var.name] = self._evaluate(value)
            case Accumulate():
                self._accumulate(statement)
            case Local(name=name, dtype=dtype, size=size):
                self.memory[name] = _Memory(np.zeros(size, dtype.numpy), np.zeros(size, bool))
            case Store():
                self._store(statement)
            case If(condition=condition, body=body):
                if self._evaluate(condition):
                    self.statements(body)
            case Fail():
                self._fail(statement)
            case Barrier() | Combine():
                pass
            case Pack():
                self._pack(statement)

    def _loop(self, loop: For) -> None:
        start, stop = int(self._evaluate(loop.start)), int(self._evaluate(loop.stop))
        if loop is self.kernel.body[-1]:
            start, stop = max(start, self.lo), stop if self.hi is None else min(stop, self.hi)
        if start >= stop:
            return
        if self._is_simple(loop):
            self.lanes = stop - start
            self.values[loop.var] = np.arange(start, stop, dtype=np.int64)
            self.statements(loop.body)
            self.lanes = None
            return
        for i in range(start, stop):
            self.values[loop.var] = np.int64(i)
            self.statements(loop.body)

    def _is_simple(self, loop: For) -> bool:
        """May all iterations take each statement together? Not in order, and nothing that branches or nests."""
        if id(loop) not in self._simple:
            self._simple[id(loop)] = loop.kind not in (LoopKind.SEQ, LoopKind.BLOCK) and all(
                isinstance(statement, Let | Accumulate | Store | Fail) for statement in loop.body
            )
        return self._simple[id(loop)]

    def _accumulate(self, statement: Accumulate) -> None:
        name = statement.var.name
        value = self._evaluate(statement.value)
        if self.lanes is not None:
            values = np.broadcast_to(value, (self.lanes,))
            self.values[name] = accumulate_over(statement.fn, self.values[name], values)
        else:
            self.values[name] = apply_scalar(statement.fn, (self.values[name], value), statement.var.dtype)

    def _evaluate(self, expression: Expr) -> Value:
        match expression:
            case Const(value=value, dtype=dtype):
                return dtype.numpy.type(value)
            case Var(name=name):
                return self.values[name]
            case Apply(fn=fn, args=args, dtype=dtype):
                return apply_scalar(fn, tuple([self._evaluate(argument) for argument in args]), dtype)
            case Load(buffer=name):
                memory, index = self.memory[name], self._evaluate(expression.index)
                if memory.data.size == 0 and not np.any(index):
                    return np.zeros(index.shape, expression.dtype.numpy)[()]
                self._check_bounds(name, memory, index)
                if memory.written is not None and not np.all(memory.written[index]):
                    raise self._error(f"{name} is read before it is written")
                return memory.data[index]

    def _store(self, statement: Store) -> None:
        name, memory = statement.buffer, self.memory[statement.buffer]
        index, value = self._evaluate(statement.index), self._evaluate(statement.value)
        self._check_bounds(name, memory, index)
        if self.lanes is not None and self.lanes > 1 and not _all_different(index):
            raise self._error(f"independent iterations store to one element of {name}")
        memory.data[index] = value
        if memory.written is not None:
            memory.written[index] = True

    def _pack(self, pack: Pack) -> None:
        first = int(self._evaluate(pack.index))
        if first % pack.size:
            raise self._error(f"index {first} of {pack.array} is no multiple of {pack.size}")
        source, target = (pack.local, pack.array) if pack.stores else (pack.array, pack.local)
        for i in range(pack.size):
            here, there = (i, first + i) if pack.stores else (first + i, i)
            value = self._evaluate(Load(source, Const(here, DType.int64), pack.dtype))
            self._check_bounds(target, self.memory[target], np.int64(there))
            memory = self.memory[target]
            memory.data[there] = value
            if memory.written is not None:
                memory.written[there] = True

    def _check_bounds(self, name: str, memory: _Memory, index: Value) -> None:
        low, high = (int(index.min()), int(index.max())) if index.ndim else (int(index), int(index))
        if low < 0 or high >= memory.data.size:
            wrong = low if low < 0 else high
            raise self._error(f"index {wrong} of {name} is out of bounds: it has {memory.data.size} elements")

    def _fail(self, statement: Fail) -> None:
        condition = self._evaluate(statement.condition)
        check, detail = self._evaluate(statement.check), self._evaluate(statement.detail)
        if self.lanes is not None:
            failed = np.flatnonzero(np.broadcast_to(condition, (self.lanes,)))
            if not failed.size:
                return
            check = np.broadcast_to(check, (self.lanes,))[failed[0]]
            detail = np.broadcast_to(detail, (self.lanes,))[failed[0]]
        elif not condition:
            return
        assert self.status is not None  # _bind made sure
        if self.status[0] == 0 or check + 1 < self.status[0]:
            self.status[:] = (check + 1, detail)


def _all_different(index: Value) -> bool:
    if not index.ndim:
        return False
    return bool(np.all(np.diff(index) > 0)) or np.unique(index).size == index.size
