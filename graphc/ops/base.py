"""What the op families share: operands from Python values, promotion, broadcasting, the elementwise base class."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc.errors import AxisError, DTypeError, GraphcError, GraphError, ShapeError
from graphc.ir.dims import Size
from graphc.ir.location import user_line
from graphc.ir.node import Constant, Node, apply, constant
from graphc.ir.op import Absent, Array, BadCase, Case, Op, op_class
from graphc.ir.types import DType, Shape, TensorType, broadcast_shapes, promote
from graphc.loops.kernel import Apply, Expr

Operand = Node | np.ndarray[Any, Any] | np.generic | bool | int | float
Axis = int | Sequence[int] | None


class explaining:
    """Errors that leave the block name the operation, its operands and the user's line, unless they do already."""

    def __init__(self, name: str, *operands: Node) -> None:
        self.name = name
        self.operands = operands

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, GraphcError):
            error.located(self.name, tuple(_described(node) for node in self.operands), user_line())


def _described(node: Node) -> str:
    where = f"   {node.loc}" if node.loc else ""
    return f"{node.name or 'operand'}: {node.type}{where}"


def as_node(value: Any, like: DType | None = None) -> Node:
    """A node from a node, an array or a number; a Python number takes the element type ``like``.

    Raises:
        DTypeError: the value is none of these, or a float number meets an integer ``like``.
    """
    if isinstance(value, Node):
        return value
    if isinstance(value, bool | int | float) and like is not None:
        _check_number(value, like)
        return constant(value, like)
    if isinstance(value, bool | int | float | np.ndarray | np.generic | list | tuple):
        return constant(value)
    error = DTypeError(
        f"{type(value).__name__} is not a node, an array or a number",
        remedy="give what a gx function returned, an array or a number",
    )
    raise error.located("", (), user_line())


def _check_number(value: bool | int | float, like: DType) -> None:
    if isinstance(value, bool):
        if like is not DType.bool:
            raise DTypeError(f"{value} does not mix with {like}", remedy=f"write {int(value)}")
    elif like is DType.bool:
        raise DTypeError(f"the number {value} does not mix with bool", remedy="write True or False")
    elif like.is_integer and isinstance(value, float):
        raise DTypeError(f"the number {value} does not mix with {like}", remedy="cast first: gx.cast(x, 'float32')")
    elif like.is_integer:
        info = np.iinfo(like.numpy)
        if not int(info.min) <= value <= int(info.max):
            raise DTypeError(f"{value} does not fit in {like}", remedy="cast to a wider type: gx.cast(x, 'int64')")


def as_operands(*values: Any) -> tuple[Node, ...]:
    """Nodes of one common element type: Python numbers are weak, the rest is promoted with explicit casts.

    NumPy's float64 scalar is a Python float, so that it is weak too: ``x * np.sqrt(2)`` keeps the type of x.

    Raises:
        DTypeError: the types do not mix.
    """
    strong = [value for value in values if not isinstance(value, bool | int | float)]
    if not strong:
        has_float = any(isinstance(value, float) for value in values)
        return tuple(as_node(value, DType.float32 if has_float else None) for value in values)
    dtype = promote(*(as_node(value).dtype for value in strong))
    return tuple(cast_to(as_node(value, dtype), dtype) for value in values)


def call(op: Op, *values: Any) -> Node:
    """An op on nodes, arrays and numbers, brought to one element type.

    Raises:
        GraphcError: the operands do not fit; names the op and the user's line.
    """
    with explaining(op.name, *(value for value in values if isinstance(value, Node))):
        return apply(op, *as_operands(*values))


def cast_to(x: Node, dtype: DType) -> Node:
    """``x`` in another element type; itself if it already has it."""
    if x.dtype is dtype:
        return x
    from graphc.ops.cast import Cast

    return apply(Cast(dtype), x)


def as_int(value: Any) -> int | None:
    """A Python or NumPy integer as an int; None for anything else, bools included."""
    if isinstance(value, bool | np.ndarray):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def normalize_axis(axis: object, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        AxisError: there is no such axis.
    """
    place = as_int(axis)
    if place is None:
        raise AxisError(f"an axis is an int, not {axis!r}", remedy="give an int or a tuple of ints")
    if not -rank <= place < rank:
        allowed = f"from {-rank} to {rank - 1}" if rank else "none: the operand is a scalar"
        raise AxisError(f"axis {place} does not exist", remedy=f"axes here: {allowed}")
    return place % rank


def normalize_axes(axis: Axis, rank: int) -> tuple[int, ...]:
    """Sorted axes counted from the front; None means all.

    Raises:
        AxisError: an axis does not exist or stands twice.
    """
    if axis is None:
        return tuple(range(rank))
    given = axis if isinstance(axis, tuple | list) else (axis,)
    axes = tuple(sorted(normalize_axis(a, rank) for a in given))
    if len(set(axes)) != len(axes):
        raise AxisError(f"an axis stands twice in {tuple(given)}", remedy="name each axis once")
    return axes


def sum_to(x: Node, shape: Shape) -> Node:
    """Undo broadcasting: sum ``x`` over the axes along which ``shape`` was repeated. The transpose of broadcasting."""
    if x.shape == shape:
        return x
    from graphc.ops.movement import reshape
    from graphc.ops.reduction import sum

    extra = x.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + axis for axis, size in enumerate(shape) if size == 1 and x.shape[extra + axis] != 1
    )
    reduced = sum(x, axis=axes, keepdims=True) if axes else x
    return reduced if reduced.shape == shape else reshape(reduced, shape)


def zeros_like(x: Node) -> Node:
    """Zeros of the type of ``x``."""
    return full(x.shape, 0, x.dtype)


def full(shape: Shape, value: bool | int | float, dtype: DType) -> Node:
    """One number in every place of a shape."""
    from graphc.ops.movement import broadcast_to

    return broadcast_to(constant(value if dtype.is_float else int(value), dtype), shape)


def ints(sizes: Iterable[Size]) -> tuple[int, ...]:
    """Sizes that are numbers by now, as ``reference`` meets them.

    Raises:
        GraphError: one is still symbolic.
    """
    known: list[int] = []
    for size in sizes:
        if not isinstance(size, int):
            raise GraphError(f"the size {size} has no value yet", remedy="give the sizes by op.with_sizes first")
        known.append(size)
    return tuple(known)


def scalar_value(x: Node) -> bool | int | float | None:
    """The number that a node holds in every place, if it is a constant known now."""
    from graphc.ops.movement import BroadcastTo, Reshape

    while isinstance(x.op, BroadcastTo | Reshape):
        (x,) = x.args
    if not isinstance(x.op, Constant):
        return None
    array = x.op.array
    if array.size == 0 or (array != array.flat[0]).any():
        return None
    return array.flat[0].item()


def add_tangents(terms: Sequence[Node | None]) -> Node | None:
    """The sum of the tangents that there are; None if there is none."""
    from graphc.ops.arithmetic import add

    total: Node | None = None
    for term in terms:
        if term is not None:
            total = term if total is None else add(total, term)
    return total


FLOATS = (DType.float32, DType.float64, DType.float16, DType.bfloat16)
INTEGERS = (DType.uint32, DType.int32, DType.int64)
NUMBERS = (*INTEGERS, *FLOATS)

Tangents = Sequence[Node | None]

_SHAPES: dict[int, tuple[tuple[Shape, ...], ...]] = {
    1: (((5, 3),), ((),), ((1, 7),), ((0, 3),), ((33,),)),
    2: (((5, 3), (5, 3)), ((5, 3), (3,)), ((5, 1), (1, 4)), ((), (2, 3)), ((0, 3), (3,)), ((1,), (33,)), ((), ())),
}


def _special_values(dtype: DType) -> Array:
    if dtype.is_float:
        large, small = (6e4, 6e-8) if dtype is DType.float16 else (1e30, 1e-30)
        values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -large, small])
        return values.astype(dtype.numpy)
    if dtype is DType.bool:
        return np.array([False, True])
    info = np.iinfo(dtype.numpy)
    return np.array([info.min, info.max, 0, 1, 5, info.max // 3], dtype.numpy)


def special_operands(dtype: DType, count: int, largest: float = np.inf) -> tuple[Array, ...]:
    """Every combination of NaN, infinities, zeros, extremes up to ``largest``, as ``count`` flat operands."""
    values = _special_values(dtype)
    size = np.abs(values.astype(np.float64) if dtype.is_half else values)  # a half may be too small for `largest`
    values = values[(size <= largest) | ~np.isfinite(values)]
    grid = np.meshgrid(*[values] * count)
    return tuple(np.ascontiguousarray(axis.ravel()) for axis in grid)


class Elementwise(Op):
    """Base of ops that compute each element from the elements at the same place, with broadcasting.

    The derivative of such an op is a product at each place, the same in both directions, so that subclasses
    only write :meth:`chain`.

    Class attributes:
        fn: the scalar function of the kernel IR; ops that need more than one override :meth:`scalar`.
        accepts: the element types that operands may have; all operands share one.
        result: the element type of the result, or None for that of the operands.
        domain: random operands of the conformance cases are drawn from here.
        largest: finite operands beyond this are not promised to give exact results.
    """

    fn: ClassVar[str] = ""
    accepts: ClassVar[tuple[DType, ...]] = tuple(DType)
    result: ClassVar[DType | None] = None
    domain: ClassVar[tuple[float, float]] = (-2.0, 2.0)
    largest: ClassVar[float] = np.inf

    def infer(self, *types: TensorType) -> TensorType:
        if len(types) != len(self.operands):
            wanted = ", ".join(self.operands)
            raise ShapeError(f"takes {len(self.operands)} operands, not {len(types)}", remedy=f"give {wanted}")
        first = types[0].dtype
        if any(type.dtype is not first for type in types):
            shown = " and ".join(str(type.dtype) for type in types)
            raise DTypeError(f"operands have different element types: {shown}", remedy="convert with gx.cast(x, dtype)")
        require_dtype(types[0], self.accepts)
        return TensorType(self.result or first, broadcast_shapes(*(type.shape for type in types)))

    def scalar(self, *args: Expr, dtype: DType) -> Expr:
        """One element of the result as a kernel expression; ``dtype`` is the result's."""
        return Apply(self.fn, args, dtype)

    def chain(self, node: Node, g: Node, position: int) -> Node | None:
        """``g`` times the derivative of ``node`` by its operand at ``position``; None where that is zero."""
        raise NotImplementedError(f"{type(self).__name__} lacks chain")

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        if self.no_vjp is not None:
            return [None] * len(node.args)
        found: list[Node | None] = []
        for position, arg in enumerate(node.args):
            term = self.chain(node, cotangent, position) if arg.dtype.is_float else None
            found.append(None if term is None else sum_to(term, arg.shape))
        return found

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        from graphc.ops.movement import broadcast_to

        if self.no_jvp is not None:
            return None
        terms = [None if t is None else self.chain(node, t, position) for position, t in enumerate(tangents)]
        total = add_tangents(terms)
        return None if total is None else broadcast_to(total, node.shape)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Shapes that broadcast, with zeros, ones and scalars; every element type; NaN, infinities and extremes."""
        op, count = cls(), len(cls.operands)
        main = DType.float32 if DType.float32 in cls.accepts else cls.accepts[0]
        rows = [Case(op, tuple(TensorType(main, s) for s in shapes), cls.domain) for shapes in _SHAPES[count]]
        # one half stands for both: they differ in their conversions alone
        others = [d for d in cls.accepts if d not in (main, DType.float16)]
        rows += [Case(op, (TensorType(d, (7,)),) * count, cls.domain) for d in others]
        # halves are float32 between conversions, and the conversions are tested with every value
        special = [special_operands(dtype, count, cls.largest) for dtype in cls.accepts if not dtype.is_half]
        return rows + [Case(op, operands, cls.domain, differentiable=False) for operands in special]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An element type that is not accepted; for two operands, a mix of types and shapes that differ."""
        op, count = cls(), len(cls.operands)
        good = cls.accepts[0]
        rows: list[BadCase] = []
        refused = [dtype for dtype in DType if dtype not in cls.accepts]
        if refused:
            operands = (TensorType(refused[0], (2,)),) * count
            rows.append(BadCase(op, operands, DTypeError, (cls.name, refused[0].value, good.value)))
        if count > 1:
            other = DType.float64 if good is not DType.float64 else DType.int64
            mixed = (TensorType(good, (2,)), TensorType(other, (2,)))
            rows.append(BadCase(op, mixed, DTypeError, (good.value, other.value, "gx.cast")))
            shapes = (TensorType(good, (2, 3)), TensorType(good, (2, 4)))
            rows.append(BadCase(op, shapes, ShapeError, ("3", "4", "broadcast")))
        return rows


class IntegerResult(Elementwise):
    """Base of elementwise ops whose result is an integer or a bool, so that nothing flows back."""

    no_vjp = Absent.INTEGER_RESULT
    no_jvp = Absent.INTEGER_RESULT


def require_dtype(type: TensorType, accepts: Sequence[DType], what: str = "") -> None:
    """Refuse an element type that is not among ``accepts``.

    Raises:
        DTypeError: names the type and those that would do.
    """
    if type.dtype not in accepts:
        allowed = ", ".join(dtype.value for dtype in accepts)
        subject = f"{what} is {type.dtype}, which it does not take" if what else f"does not take {type.dtype}"
        raise DTypeError(subject, remedy=f"convert with gx.cast(x, dtype) to one of {allowed}")


__all__ = [
    "FLOATS",
    "INTEGERS",
    "NUMBERS",
    "Absent",
    "Array",
    "Axis",
    "BadCase",
    "Case",
    "Elementwise",
    "IntegerResult",
    "Node",
    "Operand",
    "Tangents",
    "add_tangents",
    "apply",
    "as_node",
    "as_operands",
    "call",
    "cast_to",
    "explaining",
    "full",
    "ints",
    "normalize_axes",
    "normalize_axis",
    "op_class",
    "require_dtype",
    "scalar_value",
    "special_operands",
    "sum_to",
    "user_line",
    "zeros_like",
]  # fmt: skip
