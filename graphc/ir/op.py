"""What an operation is: one frozen class that holds everything about it.

Every op of graphc derives from :class:`Op`, in ``graphc/ops``. The class says how types are inferred, how NumPy would
compute it, how it is differentiated, how it decomposes (composite) or lowers (primitive), what it is called in ONNX,
and which cases prove all that. What an op lacks, it says why, with a member of :class:`Absent`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

from numpy.typing import NDArray

from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.ir.graph import Graph
    from graphc.ir.node import Node

Array = NDArray[Any]

_T = TypeVar("_T", bound="Op")


class Absent(Enum):
    """Why an op lacks a piece that ops usually have."""

    INTEGER_RESULT = "its result is an integer or a bool, which has no derivative"
    INTEGER_OPERANDS = "its operands are integers or bools, which have no derivative"
    PIECEWISE_CONSTANT = "its derivative is zero wherever it exists"
    LEAF = "it takes no operands"
    STOPPED = "it stops gradients on purpose"
    RESOLVED_EARLIER = "a pass removes it before this stage"
    NO_ONNX_FORM = "standard ONNX has no operator for it, and none is needed: it is never exported"
    EXPORTED_BY_RULE = "the exporter writes it as several operators; see backends/onnx"


@dataclass(frozen=True)
class Case:
    """A conformance case: attributes and operands on which every backend is compared.

    Attributes:
        op: the op with its attributes.
        operands: a type (filled with random values) or an array for each operand.
        domain: random values are drawn from this interval.
        differentiable: False where the case stands on a kink.
    """

    op: Op
    operands: tuple[Any, ...]
    domain: tuple[float, float] = (-2.0, 2.0)
    differentiable: bool = True


@dataclass(frozen=True)
class BadCase:
    """Operand types that the op must refuse, the error's type, and words that its text must hold."""

    op: Op
    operands: tuple[TensorType, ...]
    error: type[Exception]
    says: tuple[str, ...]


registry: dict[str, type[Op]] = {}
"""Every op class by its printed name."""


def _key(value: Any) -> Any:
    """A value that is equal only for attributes that mean the same: 1, 1.0 and True differ, so do 0.0 and -0.0."""
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else value.hex())
    if isinstance(value, tuple):
        return ("tuple", *(_key(item) for item in value))  # pyright: ignore[reportUnknownVariableType]
    return (type(value).__name__, value)


@dataclass_transform(frozen_default=True, eq_default=False)
def op_class(cls: type[_T]) -> type[_T]:
    """Make a class an op: a frozen dataclass, equal by class and attributes, registered by its name."""
    made = dataclass(frozen=True, eq=False, repr=False)(cls)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    if "name" not in cls.__dict__:
        made.name = name
    made.attributes = tuple(f.name for f in fields(made))  # pyright: ignore[reportArgumentType]
    registry[made.name] = made
    return made


class Op:
    """Base of all ops; subclasses are made with ``@op_class``.

    Class attributes:
        name: as printed in graph text.
        operands: the names of the operands, for messages and text.
        onnx: the ONNX operator (or operators) that it becomes, or the reason why there is none.
        no_vjp, no_jvp: the reason why there is no reverse (forward) derivative, else None.
        no_reference: the reason why NumPy cannot compute it, else None.
        composite: whether :meth:`decompose` says what it is in terms of other ops.
        moves: whether it takes float16 and bfloat16 as they are, because it only moves elements. All other ops compute
            on these types in float32 and round their result once: a pass puts the conversions around them.
        factors: the operands that are multiplied with each other and summed up, by name: what mixed precision rounds.
        cases, bad_cases: what the conformance table runs.
    """

    name: ClassVar[str] = ""
    attributes: ClassVar[tuple[str, ...]] = ()
    operands: ClassVar[tuple[str, ...]] = ("x",)
    onnx: ClassVar[str | tuple[str, ...] | Absent] = Absent.EXPORTED_BY_RULE
    no_vjp: ClassVar[Absent | None] = None
    no_jvp: ClassVar[Absent | None] = None
    no_reference: ClassVar[Absent | None] = None
    composite: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    factors: ClassVar[tuple[str, ...]] = ()

    def infer(self, *types: TensorType) -> TensorType:
        """The type of the result. Raises a GraphcError that says what does not fit and what to do."""
        raise NotImplementedError(f"{type(self).__name__} lacks infer")

    def reference(self, *args: Any, **kwargs: Any) -> Any:  # stands for any list of arrays
        """The result by NumPy, in the operands' precision: the oracle. Symbolic sizes are already numbers."""
        raise NotImplementedError(f"{type(self).__name__} lacks reference")

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        """Cotangents of the operands (None: no dependence), given the cotangent of the result."""
        raise NotImplementedError(f"{type(self).__name__} lacks vjp")

    def jvp(self, node: Node, tangents: Sequence[Node | None]) -> Node | None:
        """Tangent of the result, given tangents of the operands (None: zero)."""
        raise NotImplementedError(f"{type(self).__name__} lacks jvp")

    def decompose(self, *args: Node) -> Node:
        """A composite op in terms of other ops."""
        raise NotImplementedError(f"{type(self).__name__} lacks decompose")

    def in_parts(self, *args: Node) -> bool:
        """Is a composite op on these operands better decomposed, also for a backend that takes it whole?"""
        return False

    def vjp_parts(self, node: Node, cotangents: Sequence[Node | None]) -> Sequence[Node | None]:
        """:meth:`vjp` of an op with several results: a cotangent or None for each of them."""
        raise NotImplementedError(f"{type(self).__name__} lacks vjp_parts")

    def jvp_parts(self, node: Node, tangents: Sequence[Node | None]) -> Sequence[Node | None]:
        """:meth:`jvp` of an op with several results: a tangent or None for each of them."""
        raise NotImplementedError(f"{type(self).__name__} lacks jvp_parts")

    @property
    def bodies(self) -> tuple[Graph, ...]:
        """The graphs that the op runs, such as a scan's step."""
        return ()

    def with_bodies(self, bodies: Sequence[Graph]) -> Op:
        """The op with other bodies, whose roots have the same types."""
        return self

    def with_sizes(self, bind: Callable[[Any], Any]) -> Op:
        """The op with ``bind`` applied to each attribute that holds symbolic sizes (shapes, sizes, slices)."""
        return self

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Good cases for the conformance table."""
        return ()

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Operands that must be refused."""
        return ()

    @property
    def key(self) -> tuple[Any, ...]:
        """Identity of the op: class and attributes."""
        cached = self.__dict__.get("_key")
        if cached is None:
            cached = (type(self), *(_key(getattr(self, name)) for name in self.attributes))
            object.__setattr__(self, "_key", cached)
        return cached

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Op) and self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.attributes)
        return f"{type(self).__name__}({shown})"


__all__ = ["Absent", "Array", "BadCase", "Case", "Op", "op_class", "registry"]
