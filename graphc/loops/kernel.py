"""The kernel IR: loops, lets, loads and stores over flat buffers.

The whole grammar::

    kernel = Kernel(name, buffers, sizes, extent, body)
    buffer = Buffer(name, dtype, access)           access: read | write | update
    stmt   = For(var, start, stop, kind, body)     kind: parallel | seq | vector | reduce | block | thread
           | Let(var, value)                       a value with a name, never changed
           | Declare(var, initial)                 a mutable scalar: accumulators, best-so-far
           | Assign(var, value)
           | Accumulate(var, fn, value)            var = fn(var, value); fn: add mul min max and or
           | Local(name, dtype, size, shared)      a small array of a fixed size, private unless shared
           | Store(buffer, index, value)
           | If(condition, body)
           | Fail(condition, check, detail)        record a run-time error in the status cell
           | Barrier()                             all threads of a block meet
           | Combine(var, fn)                      var = fn over all threads' var, and they meet
           | Pack(local, array, index, stores)     a private array from or to neighbours, all at once
    expr   = Const(value, dtype) | Var(name, dtype) | Load(buffer, index, dtype)
           | Apply(fn, args, dtype)                fn from SCALAR_FUNCTIONS

The body of a kernel is one ``parallel`` loop, which runs from 0 to ``extent``; its iterations may run in any
order and on any thread, and a caller runs any sub-range of it. Only Lets may stand before it: what all
iterations share, computed from sizes and ``read`` buffers. ``vector`` iterations are independent too; a
``reduce`` loop only carries ``Accumulate`` from one iteration to the next, whose order the printer may change
(in a way that does not depend on threads); ``seq`` runs in order. Buffers never overlap, except that an
``update`` buffer is read and written in place, each element by the iteration that owns it. Indices count
elements, are int64 and in bounds, except that element 0 may be read of every buffer: where there are no elements it
is anything. All arguments of an Apply are evaluated, those of ``select`` too. float16 and bfloat16 are
not computed in: they are loaded, stored, selected, and cast from and to float32. Kernels hold no user text: names are
made here.

Mapped to a GPU (``threads > 0``), the outermost loop is a ``block`` loop, one thread block an iteration, and
every thread runs its body: what stands outside ``thread`` loops is computed alike by all. A ``thread`` loop
deals its iterations out: thread t runs ``start + t``, ``start + t + threads``, and so on. Stores, Fails and
private Locals stand inside ``thread`` loops, Packs too; Barrier, Combine and shared Locals outside. Scalars are
private to a thread, so an Accumulate in a ``thread`` loop leaves partial results which Combine brings together.
With ``teams > 1`` an iteration has no more threads than a warp, and a block of the device runs ``teams`` of them side
by side, each with threads, shared Locals, Barriers and Combines of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from graphc.ir.types import DType

SCALAR_FUNCTIONS: dict[str, int] = {
    # arithmetic: integers wrap around; `div` is true division of floats
    "add": 2, "sub": 2, "mul": 2, "div": 2, "neg": 1, "abs": 1, "sign": 1,
    # integer division and remainder round towards minus infinity; by zero gives 0 for integers
    "floordiv": 2, "mod": 2,
    # the remainder of division that rounds towards zero, which has the sign of the first; by zero 0 for integers
    "fmod": 2,
    # `min` and `max` propagate NaN
    "min": 2, "max": 2, "pow": 2,
    "eq": 2, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2,
    "and": 2, "or": 2, "xor": 2, "not": 1,               # bool: logical; integers: bitwise
    "shl": 2, "shr": 2,                                  # by 0 .. bits-1; `shr` is logical on unsigned
    "select": 3,                                         # select(condition, yes, no)
    "cast": 1,                                           # to the Apply's dtype; float to int truncates
    "exp": 1, "exp2": 1, "expm1": 1, "log": 1, "log2": 1, "log10": 1, "log1p": 1, "sqrt": 1, "rsqrt": 1,
    "sigmoid": 1, "softplus": 1, "erf": 1, "erfc": 1, "ndtr": 1,       # ndtr: the normal distribution function
    "sin": 1, "cos": 1, "tan": 1, "asin": 1, "acos": 1, "atan": 1, "atan2": 2,     # atan2(y, x)
    "sinh": 1, "cosh": 1, "tanh": 1, "asinh": 1, "acosh": 1, "atanh": 1,
    "floor": 1, "ceil": 1, "rint": 1, "trunc": 1, "isnan": 1, "isfinite": 1,
    # threefry2x32(key0, key1, counter0, counter1): first word of the Threefry-2x32-20 block, uint32
    "threefry": 4,
}  # fmt: skip
"""Every scalar function a kernel may apply, with its number of arguments."""

EXPENSIVE = frozenset({
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "tanh", "sigmoid", "softplus", "erf", "erfc", "sin", "cos",
    "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "asinh", "acosh", "atanh", "pow", "fmod", "threefry",
    "div", "sqrt", "ndtr",
})  # fmt: skip
"""Scalar functions that are worth keeping rather than computing twice."""


@dataclass(frozen=True, slots=True)
class Const:
    """A literal. ``value`` is a Python bool, int or float of the kind of ``dtype``."""

    value: bool | int | float
    dtype: DType


@dataclass(frozen=True, slots=True)
class Var:
    """A loop variable, a size, a Let or a Declare."""

    name: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Apply:
    """A scalar function of expressions; arguments already have the types the function needs.

    Except for ``cast``, comparisons, ``select`` and ``threefry``, the arguments have the result's dtype.
    """

    fn: str
    args: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Load:
    """One element of a buffer or a Local."""

    buffer: str
    index: Expr
    dtype: DType


Expr = Const | Var | Apply | Load


class LoopKind(Enum):
    """How the iterations of a loop may run; see the module's text."""

    PARALLEL = "parallel"
    SEQ = "seq"
    VECTOR = "vector"
    REDUCE = "reduce"
    BLOCK = "block"
    THREAD = "thread"


@dataclass(frozen=True, slots=True)
class For:
    """``for var in range(start, stop)``; ``var`` is int64."""

    var: str
    start: Expr
    stop: Expr
    kind: LoopKind
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Let:
    """Name a value for the rest of the enclosing block."""

    var: Var
    value: Expr


@dataclass(frozen=True, slots=True)
class Declare:
    """A mutable scalar for the rest of the enclosing block."""

    var: Var
    initial: Expr


@dataclass(frozen=True, slots=True)
class Assign:
    """Set a declared scalar."""

    var: Var
    value: Expr


@dataclass(frozen=True, slots=True)
class Accumulate:
    """``var = fn(var, value)`` for an associative, commutative fn: add, mul, min, max, and, or."""

    var: Var
    fn: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Local:
    """A private array of ``size`` elements, uninitialized, for the rest of the enclosing block.

    ``shared``: one array for all threads of a block; only after mapping to a GPU.
    """

    name: str
    dtype: DType
    size: int
    shared: bool = False

    @property
    def shared_bytes(self) -> int:
        """What it takes of shared memory, where it begins at a multiple of 16 bytes and the next one, too."""
        return -(-self.size * self.dtype.itemsize // 16) * 16


@dataclass(frozen=True, slots=True)
class Store:
    """Write one element of a buffer or a Local."""

    buffer: str
    index: Expr
    value: Expr


@dataclass(frozen=True, slots=True)
class If:
    """Run the body where the condition holds."""

    condition: Expr
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Fail:
    """Where the condition holds, record (check, detail) in the status cell; the kernel goes on.

    ``check`` numbers the plan's checks, ``detail`` is an int64 such as the index at fault. The first record
    of the smallest (check, then arrival) wins; what matters is that one of them is reported.
    """

    condition: Expr
    check: Expr
    detail: Expr


@dataclass(frozen=True, slots=True)
class Barrier:
    """All threads of a block wait for each other. Only after mapping to a GPU."""


@dataclass(frozen=True, slots=True)
class Combine:
    """Every thread's ``var`` becomes ``fn`` over the ``var`` of all threads of the block, in a fixed order.

    It is a Barrier too. Only after mapping to a GPU.
    """

    var: Var
    fn: str


@dataclass(frozen=True, slots=True)
class Pack:
    """Move all ``size`` elements of a private Local from or to neighbours in an array, at once.

    The first neighbour's index is a multiple of ``size``. Only after mapping to a GPU.
    """

    local: str
    array: str
    index: Expr
    dtype: DType
    size: int
    stores: bool = False


Stmt = For | Let | Declare | Assign | Accumulate | Local | Store | If | Fail | Barrier | Combine | Pack


class Access(Enum):
    """What a kernel does with a buffer."""

    READ = "read"
    WRITE = "write"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Buffer:
    """A flat array argument."""

    name: str
    dtype: DType
    access: Access


@dataclass(frozen=True, slots=True)
class Kernel:
    """A function over buffers and int64 sizes with one parallel loop over ``range(extent)``.

    Arguments, in order: the address of each buffer, then each size, then the address of the status cell when
    ``has_checks``. ``sizes`` are the names of int64 arguments; ``extent`` is an expression of them.
    ``threads`` is the number of threads of an iteration of the block loop, 0 before mapping to a GPU; ``teams`` is
    how many iterations share a block of the device.
    """

    name: str
    buffers: tuple[Buffer, ...]
    sizes: tuple[str, ...]
    extent: Expr
    body: tuple[Stmt, ...]
    has_checks: bool = False
    threads: int = 0
    teams: int = 1

    @property
    def block_threads(self) -> int:
        """The number of threads of a block of the device."""
        return self.threads * self.teams

    @property
    def shared_bytes(self) -> int:
        """What the shared Locals of a block of the device take, each a multiple of 16 bytes."""
        arrays = (s for s in walk(self.body) if isinstance(s, Local) and s.shared)
        return self.teams * sum(array.shared_bytes for array in arrays)


def walk(statements: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """All statements, outer before inner, in order."""
    for statement in statements:
        yield statement
        if isinstance(statement, For | If):
            yield from walk(statement.body)


def expressions(statement: Stmt) -> tuple[Expr, ...]:
    """The expressions that stand directly in a statement."""
    match statement:
        case For(start=start, stop=stop):
            return (start, stop)
        case Let(value=value) | Assign(value=value) | Accumulate(value=value):
            return (value,)
        case Declare(initial=initial):
            return (initial,)
        case Store(index=index, value=value):
            return (index, value)
        case If(condition=condition):
            return (condition,)
        case Fail(condition=condition, check=check, detail=detail):
            return (condition, check, detail)
        case Pack(index=index):
            return (index,)
        case Local() | Barrier() | Combine():
            return ()


def subexpressions(expression: Expr) -> Iterator[Expr]:
    """An expression and all its parts."""
    yield expression
    match expression:
        case Apply(args=args):
            for argument in args:
                yield from subexpressions(argument)
        case Load(index=index):
            yield from subexpressions(index)
        case _:
            pass
