"""Element types and tensor types, with the promotion rules of the Array API standard.

float16 and bfloat16 are types to store, not to compute in: an operation on them computes in float32 and rounds its
result once. See :attr:`DType.wide` and ``graphc/passes/widen.py``.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.dims import Dim, Size, evaluate, names, product

Shape = tuple[Size, ...]


class Kind(Enum):
    """What an element type holds; the order is the order of promotion."""

    BOOL = 0
    UINT = 1
    INT = 2
    FLOAT = 3


class DType(Enum):
    """An element type. The value is its NumPy name; ``short`` is how graph text prints it."""

    bool = "bool"
    uint32 = "uint32"
    int32 = "int32"
    int64 = "int64"
    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"
    float64 = "float64"

    __hash__ = object.__hash__  # members are single; that of Enum takes the hash of the name each time

    @property
    def short(self) -> str:
        return _SHORT[self]

    @property
    def kind(self) -> Kind:
        return _KIND[self]

    @property
    def itemsize(self) -> int:
        return 2 if self.is_half else self.numpy.itemsize

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy element type; that of bfloat16 is the ``ml_dtypes`` package's, which is loaded only for it."""
        found = _NUMPY.get(self)
        return _load_bfloat16() if found is None else found

    @property
    def is_float(self) -> builtins.bool:
        return _KIND[self] is Kind.FLOAT

    @property
    def is_integer(self) -> builtins.bool:
        return _KIND[self] in (Kind.INT, Kind.UINT)

    @property
    def is_half(self) -> builtins.bool:
        """Is it a float of 16 bits, which is stored but not computed in?"""
        return self in (DType.float16, DType.bfloat16)

    @property
    def wide(self) -> DType:
        """The type that operations on this one compute in: float32 for the floats of 16 bits, else itself."""
        return DType.float32 if self.is_half else self

    def __repr__(self) -> str:
        return self.value

    __str__ = __repr__


_SHORT = {
    DType.bool: "bool",
    DType.uint32: "u32",
    DType.int32: "i32",
    DType.int64: "i64",
    DType.float16: "f16",
    DType.bfloat16: "bf16",
    DType.float32: "f32",
    DType.float64: "f64",
}
_KIND = {
    DType.bool: Kind.BOOL,
    DType.uint32: Kind.UINT,
    DType.int32: Kind.INT,
    DType.int64: Kind.INT,
    DType.float16: Kind.FLOAT,
    DType.bfloat16: Kind.FLOAT,
    DType.float32: Kind.FLOAT,
    DType.float64: Kind.FLOAT,
}
_NUMPY: dict[DType, np.dtype[Any]] = {dtype: np.dtype(dtype.value) for dtype in DType if dtype is not DType.bfloat16}
_FROM_NUMPY = {numpy: dtype for dtype, numpy in _NUMPY.items()}
_FROM_TEXT = {**{short: dtype for dtype, short in _SHORT.items()}, "bfloat16": DType.bfloat16}


def _load_bfloat16() -> np.dtype[Any]:
    from ml_dtypes import bfloat16

    _NUMPY[DType.bfloat16] = np.dtype(bfloat16)
    return _NUMPY[DType.bfloat16]


def as_dtype(value: object) -> DType:
    """The :class:`DType` of ``"float32"``, ``"f32"``, ``np.float32``, a NumPy dtype or a DType.

    Raises:
        DTypeError: graphc has no such element type.
    """
    if isinstance(value, DType):
        return value
    if isinstance(value, np.dtype) and value in _FROM_NUMPY:  # NumPy takes long to say its name
        return _FROM_NUMPY[value]
    if isinstance(value, str) and value in _FROM_TEXT:
        return _FROM_TEXT[value]
    try:
        return DType(np.dtype(value).name)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownMemberType, reportUnknownArgumentType]
    except (TypeError, ValueError):
        known = ", ".join(dtype.value for dtype in DType)
        raise DTypeError(f"no element type {value!r}", remedy=f"use one of {known}") from None


def promote(*dtypes: DType) -> DType:
    """The element type of a mix, by the Array API's rules; float16 with bfloat16 is float32, which holds both.

    >>> promote(DType.float32, DType.float64), promote(DType.float16, DType.bfloat16)
    (float64, float32)

    Raises:
        DTypeError: the standard leaves the mix undefined (integer with float, bool with a number).
    """
    result = dtypes[0]
    for dtype in dtypes[1:]:
        result = _promote_two(result, dtype)
    return result


def _promote_two(a: DType, b: DType) -> DType:
    if a is b:
        return a
    if a.is_half and b.is_half:
        return DType.float32
    if a.kind is b.kind:
        return a if a.itemsize >= b.itemsize else b
    if {a.kind, b.kind} == {Kind.INT, Kind.UINT}:
        return DType.int64
    raise DTypeError(f"{a} and {b} do not mix", remedy=f"convert one of them: gx.cast(x, {b.value!r})")


def kind_of(dtype: np.dtype[Any]) -> str:
    """NumPy's letter for what an element type holds; NumPy itself gives "V" for bfloat16, which is an ``f``.

    >>> kind_of(np.dtype("float32")), kind_of(DType.bfloat16.numpy)
    ('f', 'f')
    """
    return "f" if dtype == _NUMPY.get(DType.bfloat16, "bool") and dtype.kind == "V" else dtype.kind


def converts(source: np.dtype[Any], target: DType) -> bool:
    """May values of a NumPy type become ``target`` without being asked, perhaps less precisely: NumPy's "same_kind"?

    >>> converts(np.dtype("float64"), DType.bfloat16), converts(np.dtype("float32"), DType.int32)
    (True, False)
    """
    if kind_of(source) == "f":
        return target.is_float
    return bool(np.can_cast(source, target.wide.numpy, "same_kind"))


@dataclass(frozen=True, slots=False)
class TensorType:
    """Element type and shape of a value; a shape holds ints and :class:`~graphc.ir.dims.Dim`.

    >>> TensorType(DType.float32, (Dim("batch"), 784))
    f32[batch, 784]
    """

    dtype: DType
    shape: Shape

    def __hash__(self) -> int:
        found: int | None = self.__dict__.get("_hash")
        if found is None:
            found = self.__dict__["_hash"] = hash((self.dtype, self.shape))
        return found

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_hash"}  # another process has others

    @property
    def rank(self) -> int:
        return len(self.shape)

    @cached_property
    def size(self) -> Size:
        """The number of elements."""
        return product(self.shape)

    def nbytes(self, values: dict[str, int] | None = None) -> int:
        """The bytes of a dense array of this type when its named sizes have these values."""
        return evaluate(self.size, values or {}) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.short}[{', '.join(map(str, self.shape))}]"

    __repr__ = __str__


@dataclass(frozen=True)
class TupleType(TensorType):
    """The type of a node with several results, such as a scan; ``Part`` takes one of them.

    As a tensor it has no elements and no derivative, so that whatever counts bytes leaves it alone.

    >>> TupleType.of((TensorType(DType.float32, (3,)), TensorType(DType.int32, ())))
    (f32[3], i32[])
    """

    parts: tuple[TensorType, ...] = ()

    @staticmethod
    def of(parts: Iterable[TensorType]) -> TupleType:
        """The type of these results."""
        return TupleType(DType.bool, (0,), tuple(parts))

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.parts))})"

    __repr__ = __str__


def as_shape(shape: Iterable[object] | int | Dim) -> Shape:
    """A shape from ints, names and Dims.

    >>> as_shape(("batch", 3))
    (batch, 3)

    Raises:
        ShapeError: a size is negative or not a whole number.
    """
    if isinstance(shape, int | Dim | str):
        shape = (shape,)
    if not isinstance(shape, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ShapeError(f"not a shape: {shape!r}", remedy="give a tuple of sizes, such as ('batch', 784)")
    return tuple(_as_size(size) for size in shape)


def _as_size(size: object) -> Size:
    if isinstance(size, Dim):
        return size
    if isinstance(size, str):
        try:
            return Dim(size)
        except ValueError as error:
            raise ShapeError(str(error), remedy="use an identifier such as 'batch'") from None
    if isinstance(size, int | np.integer) and not isinstance(size, bool):
        number = int(size)  # pyright: ignore[reportUnknownArgumentType]
        if number >= 0:
            return number
        raise ShapeError(f"a size cannot be negative: {number}", remedy="give 0 or more, or a name such as 'batch'")
    raise ShapeError(f"not a size: {size!r}", remedy="give an int, a name such as 'batch', or a gx.Dim")


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape under NumPy's rules; two different Dims never broadcast against each other.

    Raises:
        ShapeError: two sizes on one axis differ and neither is 1.
    """
    if shapes and all([shape == shapes[0] for shape in shapes]):
        return shapes[0]
    rank = max((len(shape) for shape in shapes), default=0)
    result: list[Size] = []
    for axis in range(-rank, 0):
        size: Size = 1
        for shape in shapes:
            if -axis > len(shape) or shape[axis] == 1 or shape[axis] == size:
                continue
            if size != 1:
                raise ShapeError(
                    f"shapes do not broadcast: axis {axis} is {size} and {shape[axis]}",
                    remedy="make the sizes equal, or one of them 1",
                )
            size = shape[axis]
        result.append(size)
    return tuple(result)


def shape_names(shape: Shape) -> set[str]:
    """The names of all symbolic sizes in a shape."""
    return {name for size in shape for name in names(size)}
