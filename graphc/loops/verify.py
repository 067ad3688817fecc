"""The rules of the kernel IR: what every kernel keeps, and what it keeps once it is mapped to a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from graphc.errors import VerifyError
from graphc.ir.types import DType
from graphc.loops.kernel import (
    SCALAR_FUNCTIONS,
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
    subexpressions,
    walk,
)

ACCUMULATORS = frozenset({"add", "mul", "min", "max", "and", "or"})


def verify_kernel(kernel: Kernel) -> None:
    """Check that a kernel is well-formed.

    Names are defined once, before use and in scope; types fit; only what is declared changes, and only in loops
    that carry it; loops, barriers and stores stand where they may.

    Raises:
        VerifyError: a rule is broken; the message names the kernel and the rule.
    """
    _Verifier(kernel).run()


class _Role(Enum):
    SIZE = "a size"
    LOOP = "a loop variable"
    LET = "a Let"
    MUTABLE = "a declared scalar"


@dataclass(frozen=True)
class _Scalar:
    """A scalar in scope: ``depth`` loops stand around its definition; ``hidden``: not to be read here."""

    role: _Role
    dtype: DType
    depth: int
    hidden: bool = False


@dataclass(frozen=True)
class _Array:
    dtype: DType
    readable: bool
    writable: bool


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.mapped = kernel.threads > 0
        self.scalars: dict[str, _Scalar] = {}
        self.arrays: dict[str, _Array] = {}
        self.loops: list[LoopKind] = []
        self.stored: set[str] = set()

    def run(self) -> None:
        kernel = self.kernel
        self.require(kernel.name.isidentifier() and kernel.name.isascii(), f"bad name {kernel.name!r}")
        for buffer in kernel.buffers:
            self._new_name(buffer.name)
            writable = buffer.access is not Access.READ
            self.arrays[buffer.name] = _Array(buffer.dtype, buffer.access is not Access.WRITE, writable)
        for size in kernel.sizes:
            self._new_name(size)
            self.scalars[size] = _Scalar(_Role.SIZE, DType.int64, 0)
        kind = LoopKind.BLOCK if self.mapped else LoopKind.PARALLEL
        *leading, outermost = kernel.body or (None,)
        if not isinstance(outermost, For) or outermost.kind is not kind or (self.mapped and leading):
            raise self.error(f"the body must be one {kind.value} loop")
        self.require(self._expression(kernel.extent) is DType.int64, "the extent must be int64")
        self.require(outermost.start == Const(0, DType.int64), "the outermost loop must start at 0")
        self.require(self.mapped or outermost.stop == kernel.extent, "the parallel loop must stop at the extent")
        fits = kernel.block_threads % 32 == 0 and kernel.block_threads <= 1024
        self.require(fits, "the threads of a block must fill warps of 32 and be at most 1024")
        divides = kernel.teams == 1 or (kernel.threads > 0 and 32 % kernel.threads == 0)
        self.require(divides, "teams that share a block must divide a warp")
        for statement in leading:
            if not isinstance(statement, Let):
                raise self.error("only Lets may stand before the parallel loop")
            self._shared(statement)
        self._statement(outermost)

    def _shared(self, let: Let) -> None:
        """What all iterations share must not depend on which of them have run."""
        self._statement(let)
        for part in subexpressions(let.value):
            shares = not isinstance(part, Load) or not self.arrays[part.buffer].writable
            self.require(shares, f"{let.var.name} is shared by all iterations but loads what they write")

    def error(self, message: str) -> VerifyError:
        return VerifyError(f"kernel {self.kernel.name}: {message}")

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            raise self.error(message)

    def _new_name(self, name: str) -> None:
        self.require(name.isidentifier() and name.isascii(), f"bad name {name!r}")
        self.require(name not in self.scalars and name not in self.arrays, f"{name} is defined twice")

    def _define(self, name: str, dtype: DType, role: _Role) -> None:
        self._new_name(name)
        self.scalars[name] = _Scalar(role, dtype, len(self.loops))

    def _block(self, statements: tuple[Stmt, ...]) -> None:
        scalars, arrays = dict(self.scalars), dict(self.arrays)
        for statement in statements:
            self._statement(statement)
        self.scalars, self.arrays = scalars, arrays

    def _statement(self, statement: Stmt) -> None:
        match statement:
            case For():
                self._loop(statement)
            case Let(var=var, value=value):
                self._typed(value, var.dtype, f"the value of {var.name}")
                self._define(var.name, var.dtype, _Role.LET)
            case Declare(var=var, initial=initial):
                self._typed(initial, var.dtype, f"the initial value of {var.name}")
                self._define(var.name, var.dtype, _Role.MUTABLE)
            case Assign(var=var, value=value):
                self._typed(value, var.dtype, f"the value of {var.name}")
                crossed = self._changed(var)
                self.require(crossed <= {LoopKind.SEQ}, f"{var.name} is assigned in a loop that does not carry it")
            case Accumulate():
                self._accumulate(statement)
            case Local(name=name, dtype=dtype, size=size, shared=shared):
                self._new_name(name)
                self.require(size > 0, f"{name} must have at least one element")
                self.require(shared == (self.mapped and self._is_alike), f"{name} must {'not ' * shared}be shared here")
                self.arrays[name] = _Array(dtype, True, True)
            case Store():
                self._store(statement)
            case If(condition=condition, body=body):
                self._typed(condition, DType.bool, "a condition")
                self._block(body)
            case Fail(condition=condition, check=check, detail=detail):
                self._typed(condition, DType.bool, "a condition")
                self._typed(check, DType.int64, "the number of a check")
                self._typed(detail, DType.int64, "the detail of a check")
                self.require(self.kernel.has_checks, "has a Fail but not has_checks")
                self.require(not self._is_alike, "a Fail must stand in a thread loop")
            case Barrier():
                self.require(self._is_alike, "a Barrier stands outside thread loops of a mapped kernel")
            case Combine(var=var, fn=fn):
                self.require(self._is_alike, "a Combine stands outside thread loops of a mapped kernel")
                self._changed(var)
                self.require(fn in ACCUMULATORS, f"{fn} does not accumulate")
                self._apply(Apply(fn, (var, var), var.dtype))
            case Pack():
                self._pack(statement)

    @property
    def _is_alike(self) -> bool:
        """Do all threads of a block run this place alike?"""
        return self.mapped and LoopKind.THREAD not in self.loops

    def _loop(self, loop: For) -> None:
        self._typed(loop.start, DType.int64, "the start of a loop")
        self._typed(loop.stop, DType.int64, "the stop of a loop")
        if self.loops:
            kinds = {LoopKind.SEQ, LoopKind.THREAD if self._is_alike else LoopKind.SEQ}
            kinds = kinds if self.mapped else {LoopKind.SEQ, LoopKind.VECTOR, LoopKind.REDUCE}
            self.require(loop.kind in kinds, f"a {loop.kind.value} loop cannot stand here")
        outer = self.scalars
        self.scalars = self._hide_accumulated(loop) if loop.kind is LoopKind.REDUCE else dict(outer)
        self.loops.append(loop.kind)
        self._define(loop.var, DType.int64, _Role.LOOP)
        self._block(loop.body)
        self.loops.pop()
        self.scalars = outer

    def _hide_accumulated(self, loop: For) -> dict[str, _Scalar]:
        """Partial results of a reduce loop depend on its order: they are not read in it, nor mixed."""
        functions: dict[str, str] = {}
        for statement in walk(loop.body):
            if isinstance(statement, Accumulate) and statement.var.name in self.scalars:
                name = statement.var.name
                known = functions.setdefault(name, statement.fn)
                self.require(known == statement.fn, f"{name} is accumulated by {known} and {statement.fn} in one loop")
        return {
            name: replace(scalar, hidden=True) if name in functions else scalar for name, scalar in self.scalars.items()
        }

    def _changed(self, var: Var) -> set[LoopKind]:
        """The kinds of the loops between a scalar's declaration and this place, which changes it."""
        scalar = self.scalars.get(var.name)
        if scalar is None:
            raise self.error(f"{var.name} is not defined here")
        self.require(scalar.role is _Role.MUTABLE, f"{var.name} is {scalar.role.value} and cannot change")
        self.require(scalar.dtype is var.dtype, f"{var.name} is {scalar.dtype}, not {var.dtype}")
        return set(self.loops[scalar.depth :])

    def _accumulate(self, statement: Accumulate) -> None:
        var = statement.var
        self.require(statement.fn in ACCUMULATORS, f"{statement.fn} does not accumulate")
        self._typed(statement.value, var.dtype, f"what {var.name} accumulates")
        crossed = self._changed(var)
        carrying = {LoopKind.SEQ, LoopKind.REDUCE, LoopKind.THREAD}
        self.require(crossed <= carrying, f"{var.name} is accumulated in a loop that does not carry it")
        self.require(_fits_accumulator(statement.fn, var.dtype), f"{statement.fn} does not take {var.dtype}")

    def _store(self, statement: Store) -> None:
        array = self.arrays.get(statement.buffer)
        if array is None:
            raise self.error(f"{statement.buffer} is not defined here")
        self.require(array.writable, f"{statement.buffer} is read only")
        self._typed(statement.index, DType.int64, f"the index of {statement.buffer}")
        self._typed(statement.value, array.dtype, f"what is stored to {statement.buffer}")
        self.require(not self._is_alike, f"a Store to {statement.buffer} must stand in a thread loop")
        self.stored.add(statement.buffer)

    def _pack(self, pack: Pack) -> None:
        local, array = self.arrays.get(pack.local), self.arrays.get(pack.array)
        if local is None or array is None:
            raise self.error(f"{pack.local if local is None else pack.array} is not defined here")
        self.require(self.mapped and not self._is_alike, "a Pack stands in a thread loop of a mapped kernel")
        self.require(local.dtype is array.dtype is pack.dtype, f"{pack.local} and {pack.array} differ in their types")
        self.require(array.writable if pack.stores else array.readable, f"{pack.array} cannot be packed so")
        self._typed(pack.index, DType.int64, f"the index of {pack.array}")
        self.stored.add(pack.array if pack.stores else pack.local)

    def _typed(self, expression: Expr, dtype: DType, what: str) -> None:
        found = self._expression(expression)
        self.require(found is dtype, f"{what} is {found}, not {dtype}")

    def _expression(self, expression: Expr) -> DType:
        match expression:
            case Const():
                self._const(expression)
            case Var(name=name, dtype=dtype):
                scalar = self.scalars.get(name)
                if scalar is None:
                    raise self.error(f"{name} is not defined here")
                self.require(scalar.dtype is dtype, f"{name} is {scalar.dtype}, not {dtype}")
                self.require(not scalar.hidden, f"{name} is read in the loop that reduces it")
            case Load(buffer=name, index=index, dtype=dtype):
                array = self.arrays.get(name)
                if array is None:
                    raise self.error(f"{name} is not defined here")
                self.require(array.readable or name in self.stored, f"{name} is loaded before anything is stored to it")
                self.require(array.dtype is dtype, f"{name} holds {array.dtype}, not {dtype}")
                self._typed(index, DType.int64, f"the index of {name}")
            case Apply(args=args):
                for argument in args:
                    self._expression(argument)
                self._apply(expression)
        return expression.dtype

    def _const(self, const: Const) -> None:
        value, dtype = const.value, const.dtype
        kind = bool if dtype is DType.bool else float if dtype.is_float else int
        self.require(type(value) is kind, f"the literal {value!r} is not of the kind of {dtype}")
        if dtype.is_integer:
            limits = np.iinfo(dtype.value)
            self.require(limits.min <= value <= limits.max, f"the literal {value!r} does not fit {dtype}")

    def _apply(self, apply: Apply) -> None:
        fn, dtypes = apply.fn, tuple(argument.dtype for argument in apply.args)
        self.require(fn in SCALAR_FUNCTIONS, f"there is no scalar function {fn}")
        self.require(len(dtypes) == SCALAR_FUNCTIONS[fn], f"{fn} takes {SCALAR_FUNCTIONS[fn]} arguments")
        rule = _RULES.get(fn, _float)
        text = ", ".join(dtype.value for dtype in dtypes)
        self.require(rule(dtypes, apply.dtype), f"{fn} does not take ({text}) to {apply.dtype}")


Rule = Callable[[tuple[DType, ...], DType], bool]


def _fits_accumulator(fn: str, dtype: DType) -> bool:
    return _RULES[fn]((dtype, dtype), dtype)


def _number(args: tuple[DType, ...], result: DType) -> bool:
    return set(args) == {result} and result is not DType.bool and not result.is_half


def _float(args: tuple[DType, ...], result: DType) -> bool:
    return set(args) == {result} and result.is_float and not result.is_half


def _bits(args: tuple[DType, ...], result: DType) -> bool:
    return set(args) == {result} and not result.is_float


def _integer(args: tuple[DType, ...], result: DType) -> bool:
    return set(args) == {result} and result.is_integer


def _comparison(args: tuple[DType, ...], result: DType) -> bool:
    return args[0] is args[1] and result is DType.bool and not args[0].is_half


def _select(args: tuple[DType, ...], result: DType) -> bool:
    return args == (DType.bool, result, result)


def _float_test(args: tuple[DType, ...], result: DType) -> bool:
    return args[0].is_float and result is DType.bool and not args[0].is_half


def _cast(args: tuple[DType, ...], result: DType) -> bool:
    (source,) = args
    return source is result or DType.float32 in (source, result) or not (source.is_half or result.is_half)


def _threefry(args: tuple[DType, ...], result: DType) -> bool:
    return {*args, result} == {DType.uint32}


_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("add", "sub", "mul", "neg", "abs", "sign", "floordiv", "mod", "fmod", "min", "max", "pow"), _number
    ),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _comparison),
    **dict.fromkeys(("and", "or", "xor", "not"), _bits),
    **dict.fromkeys(("shl", "shr"), _integer),
    **dict.fromkeys(("isnan", "isfinite"), _float_test),
    "select": _select,
    "cast": _cast,
    "threefry": _threefry,
}
