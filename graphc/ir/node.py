"""Nodes: the values of a graph, frozen and hash-consed, and parameters, which are state beside them.

Building an expression twice gives the same object. That is common-subexpression elimination, and it is what makes
"memoization in backpropagation" a fact of the graph: each shared intermediate gradient exists once::

    >>> import graphc as gx
    >>> x = gx.placeholder("x", (4,), "float32")
    >>> gx.tanh(x) is gx.tanh(x)
    True

Identity is op, attributes, operands (by ``is``) and type; the source line is not part of it. ``hash`` is identity,
``==`` builds a node, and ``bool(node)`` raises, so that code about nodes uses ``is``.
"""

from __future__ import annotations

import itertools
import keyword
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np

from graphc.errors import DTypeError, GraphcError, NameClashError, ShapeError
from graphc.ir import location
from graphc.ir.leaves import Constant, Input, ParameterLeaf
from graphc.ir.location import Location, user_line
from graphc.ir.op import Op
from graphc.ir.operators import Operators, operators
from graphc.ir.types import DType, Shape, TensorType, as_dtype, as_shape, converts, kind_of
from graphc.ir.valueless import Valueless

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

_table: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()
_lock = threading.Lock()
_drawing = threading.RLock()
_joining = threading.Lock()
_counter = itertools.count()
_SITES = 8


class Node(Operators, Valueless):
    """A value in a graph: an op applied to operands. Made by :func:`apply`, never changed.

    Attributes:
        op: the operation with its attributes.
        args: the operand nodes.
        type: element type and shape.
        uid: grows with time; operands have smaller ones.
        sites: the user's lines that built it, first one first (at most eight are kept).
    """

    __slots__ = ("__weakref__", "args", "op", "sites", "type", "uid")

    op: Op
    args: tuple[Node, ...]
    type: TensorType
    uid: int
    sites: tuple[Location, ...]

    def __init__(self, op: Op, args: tuple[Node, ...], type: TensorType, loc: Location | None) -> None:
        self.op = op
        self.args = args
        self.type = type
        self.uid = next(_counter)
        self.sites = () if loc is None else (loc,)

    @property
    def loc(self) -> Location | None:
        """The user's line that first built this node."""
        return self.sites[0] if self.sites else None

    @property
    def user_line(self) -> str | None:
        """That line as text, for errors: ``model.py:41   h = norm(x)``."""
        return None if self.loc is None else str(self.loc)

    @property
    def shape(self) -> Shape:
        """Sizes of the axes: ints and Dims."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.type.shape)

    @property
    def name(self) -> str | None:
        """The user's name of a leaf, else None."""
        return getattr(self.op, "label", None)

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return f"<{self.op.name}{label}: {self.type}>"

    def __hash__(self) -> int:
        return id(self)

    def __len__(self) -> int:
        if not self.shape or not isinstance(self.shape[0], int):
            raise DTypeError(f"{self.type} has no length that is known now", at=user_line(), remedy="use x.shape")
        return self.shape[0]

    def __pos__(self) -> Node:
        return self

    @property
    def T(self) -> Node:
        """The transpose of a matrix."""
        if self.ndim != 2:
            raise ShapeError(
                f".T needs 2 axes, this has {self.ndim}", at=user_line(), remedy="use gx.transpose(x, axes)"
            )
        return operators["transpose"](self, (1, 0))


class Dependent(Protocol):
    """What was computed or copied from a parameter's array on the CPU."""

    def expire(self) -> None:
        """Count as old from now on: the array may change."""
        ...


class Mirror(Dependent, Protocol):
    """A parameter's buffer on another device. It brings the array on the CPU up to date before it expires."""

    def fetch(self) -> None:
        """Bring the array on the CPU up to date."""
        ...


class Parameter(Node):
    """State: a value with identity that programs read and update.

    There is one buffer on the CPU that every program shares; it is never replaced, only written, so that its address
    stays. Use :attr:`value` to read a copy or to set it.

    Whoever writes it tells what depends on it: setting :attr:`value` and asking for :attr:`array` call :meth:`expire`,
    and a program that updates parameters tells at each step.

    Attributes:
        trainable: whether ``Model`` takes gradients of it.
        mirrors: its buffers on other devices, at most one on each.
        dependents: values that are computed from it ahead of time; they live as long as programs use them.
    """

    __slots__ = ("_buffer", "_draw", "_lent", "dependents", "mirrors", "trainable")

    _buffer: Array | None
    _draw: Callable[[], Array] | None
    _lent: bool
    dependents: tuple[weakref.ref[Dependent], ...]
    mirrors: tuple[Mirror, ...]
    trainable: bool

    mirrors_made: ClassVar[int] = 0
    """How many buffers on other devices there have been, of all parameters."""
    dependents_made: ClassVar[int] = 0
    """How many dependents there have been, of all parameters."""

    def __init__(
        self, label: str, array: Array | Callable[[], Array], trainable: bool = True, type: TensorType | None = None
    ) -> None:
        """Make a parameter from its first value, which is copied.

        Args:
            label: the user's name for it.
            array: the value; or, with ``type`` given, a function that makes a new array of that type when the value is
                first asked for, so that declaring a large model costs nothing.
            trainable: whether ``Model`` takes gradients of it.
            type: element type and shape of what the function makes.
        """
        self._buffer = self._draw = None
        self._lent = False
        if callable(array):
            assert type is not None  # nothing else says it
            self._draw = array
        else:
            self._buffer = np.array(array, order="C", copy=True)
            type = TensorType(as_dtype(self._buffer.dtype), tuple(self._buffer.shape))
        self.dependents = ()
        self.mirrors = ()
        self.trainable = trainable
        super().__init__(ParameterLeaf(label, type), (), type, location.here())

    @property
    def buffer(self) -> Array:
        """The array on the CPU as it is, for backends: to read, or to write in a step that the program tells of.

        It holds the first value if that has been waiting for someone to ask.
        """
        if self._buffer is None:
            with _drawing:
                if self._buffer is None and self._draw is not None:
                    drawn = np.asarray(self._draw(), order="C")  # keeps arrays of no axes as they are
                    # one that shows another's memory could be written without anybody holding it
                    self._buffer = drawn if drawn.base is None else drawn.copy()
                    self._draw = None
        assert self._buffer is not None
        return self._buffer

    @property
    def label(self) -> str:
        """The user's name for it, for texts and files. It may be changed: it is not the parameter's identity."""
        return self.op.label  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]

    @label.setter
    def label(self, label: str) -> None:
        object.__setattr__(self.op, "label", label)

    @property
    def array(self) -> Array:
        """The buffer on the CPU, up to date. It may be written: what was made from it is old from now on.

        Values that programs prepare from it are made again at each call as long as someone holds the array. Buffers on
        other devices are sent once; ask again before writing again.
        """
        self._lent = True
        self.expire()
        return self.buffer

    @property
    def is_held(self) -> bool:
        """May someone write the buffer at any time, because he asked for it and still holds it, or a view of it?"""
        return self._lent and _references(self) > _ALONE + len(self.mirrors)

    def fetch(self) -> None:
        """Bring the buffer up to date with those on other devices."""
        for mirror in self.mirrors:
            mirror.fetch()

    def expire(self) -> None:
        """Tell whatever was made from the buffer that it may change."""
        for mirror in self.mirrors:
            mirror.expire()
        self.expire_dependents()

    def expire_dependents(self) -> None:
        """Tell the values that were made from it on this device or any other that they are old."""
        for reference in self.dependents:
            dependent = reference()
            if dependent is not None:
                dependent.expire()

    def __getstate__(self) -> object:
        """What a copy gets: the value, and nothing that was made from it here."""
        self.fetch()
        state: Any = super().__getstate__()
        return state[0], {**state[1], "mirrors": (), "dependents": (), "_lent": False}

    def add_mirror(self, mirror: Mirror) -> None:
        """Have a buffer on another device."""
        with _joining:
            self.mirrors = (*self.mirrors, mirror)
            Parameter.mirrors_made += 1

    def add_dependent(self, dependent: Dependent) -> None:
        """Tell this, too, when the buffer may change. It is not kept alive."""
        with _joining:
            living = (reference for reference in self.dependents if reference() is not None)
            self.dependents = (*living, weakref.ref(dependent))
            Parameter.dependents_made += 1

    @property
    def value(self) -> Array:
        """A copy of the current value. Setting it writes in place: same shape, a dtype that casts safely."""
        self.fetch()
        return self.buffer.copy()

    @value.setter
    def value(self, new: Any) -> None:
        array = np.asarray(new)
        if array.shape != self.shape:
            raise ShapeError(
                f"parameter {self.label!r} has shape {self.shape}, the new value {array.shape}",
                at=user_line(),
                remedy="give an array of the parameter's shape",
            )
        if not converts(array.dtype, self.dtype):
            raise DTypeError(
                f"parameter {self.label!r} holds {self.dtype.numpy}, the new value is {array.dtype}",
                at=user_line(),
                remedy=f"convert it: value.astype({str(self.dtype.numpy)!r})",
            )
        if self._buffer is None:
            with _drawing:
                if self._buffer is None:  # a first value that nobody has seen need not be drawn
                    self._buffer, self._draw = np.empty(array.shape, self.dtype.numpy), None
        self.expire()  # buffers on other devices are older than what is written now
        np.copyto(self.buffer, array, casting="unsafe")
        self.expire_dependents()  # what another thread made meanwhile may hold some of both


def _references(parameter: Parameter) -> int:
    """What the interpreter counts for a parameter's buffer."""
    return sys.getrefcount(parameter._buffer)  # pyright: ignore[reportPrivateUsage]


_ALONE = _references(Parameter("", np.zeros(())))
"""The count where only the parameter holds its buffer; each mirror holds it, too."""


def apply(op: Op, *args: Node) -> Node:
    """The node of an op on operands: an existing one if there is an equal one, else a new one.

    Raises:
        GraphcError: the operands do not fit; the error names the op, the operands and the user's line.
    """
    try:
        type = op.infer(*[arg.type for arg in args])
    except GraphcError as error:
        raise error.located(op.name, describe_operands(op, args), user_line()) from None
    return intern(op, args, type)


def intern(op: Op, args: tuple[Node, ...], type: TensorType, loc: Location | None = None) -> Node:
    """The hash-consed node; ``loc`` defaults to the user's current line."""
    key = (op.key, *map(id, args), type)
    if loc is None:
        loc = location.here()
    with _lock:
        found = _table.get(key)
        if found is None:
            found = _table[key] = Node(op, args, type, loc)
            return found
    if loc is not None and loc not in found.sites and len(found.sites) < _SITES:
        found.sites = (*found.sites, loc)
    return found


def describe_operands(op: Op, args: tuple[Node, ...]) -> tuple[str, ...]:
    """A line for each operand: its name, type and where it was made."""
    rows: list[tuple[str, str, str]] = []
    for position, arg in enumerate(args):
        operand = op.operands[min(position, len(op.operands) - 1)] if op.operands else f"operand {position}"
        label = f"{operand} ({arg.name})" if arg.name and arg.name != operand else operand
        rows.append((f"{label}: {arg.type}", arg.loc.short if arg.loc else "", arg.loc.text if arg.loc else ""))
    if not rows:
        return ()
    first = max(len(row[0]) for row in rows)
    second = max(len(row[1]) for row in rows)
    return tuple(f"{a:<{first}}   {b:<{second}}   {c}".rstrip() for a, b, c in rows)


def placeholder(name: str, shape: Any, dtype: Any = "float32") -> Node:
    """A value that the caller gives at each run.

    Args:
        name: the keyword under which a program takes it.
        shape: ints, names such as ``"batch"``, or Dims, one for each axis.
        dtype: the element type.

    Raises:
        NameClashError: the name is not a Python identifier.

    >>> import graphc as gx
    >>> gx.placeholder("x", ("batch", 784), "float32")
    <input 'x': f32[batch, 784]>
    """
    check_name(name)
    try:
        op = Input(name, TensorType(as_dtype(dtype), as_shape(shape)))
    except GraphcError as error:
        raise error.located(f"placeholder {name!r}", (), user_line()) from None
    return Node(op, (), op.type, location.here())


def check_name(name: object) -> None:
    """Refuse a name that cannot be a keyword argument."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise NameClashError(
            f"{name!r} cannot be a name", at=user_line(), remedy="use a Python identifier such as 'x' or 'token_ids'"
        )


def parameter(name: str, value: Any, dtype: Any = None, trainable: bool = True) -> Parameter:
    """State with identity, that programs read and ``updates`` change.

    Args:
        name: any text; two parameters of one name are still two parameters.
        value: the initial value, copied. Python numbers and float64 lists become float32 unless ``dtype`` says else.
        dtype: the element type; default that of ``value``.

    Raises:
        DTypeError: the value's element type is not one of graphc's.

    >>> import graphc as gx
    >>> gx.parameter("w", np.zeros(3, np.float32)).value
    array([0., 0., 0.], dtype=float32)
    """
    try:
        array = _as_array(value)
        if dtype is not None:
            array = array.astype(as_dtype(dtype).numpy)
        elif not isinstance(value, np.ndarray | np.generic):
            array = array.astype(np.float32) if array.dtype.kind == "f" else array
        as_dtype(array.dtype)
    except GraphcError as error:
        raise error.located(f"parameter {name!r}", (), user_line()) from None
    return Parameter(str(name), array, trainable)


def constant(value: Any, dtype: Any = None) -> Node:
    """A fixed array or number.

    Python floats become float32 and Python ints int64 unless ``dtype`` is given; arrays keep their element type.

    >>> import graphc as gx
    >>> gx.constant(1.0) is gx.constant(1.0), gx.constant(1.0) is gx.constant(1)
    (True, False)
    """
    try:
        array = _as_array(value)
        if dtype is not None:
            array = array.astype(as_dtype(dtype).numpy)
        elif not isinstance(value, np.ndarray | np.generic) and array.dtype.kind == "f":
            array = array.astype(np.float32)
        type = TensorType(as_dtype(array.dtype), tuple(array.shape))
    except GraphcError as error:
        raise error.located("constant", (), user_line()) from None
    return intern(Constant(np.ascontiguousarray(array).tobytes(), type), (), type)


def _as_array(value: Any) -> Array:
    """Numbers as an array.

    Raises:
        DTypeError: the value holds something else, or rows of unequal length.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # rows of unequal length, or an object that refuses
        array = None
    if array is None or array.dtype.kind == "O":
        shown = type(value).__name__
        raise DTypeError(f"{shown} is no array of numbers", remedy="give numbers, or rows of numbers of equal length")
    if kind_of(array.dtype) not in "biuf":
        as_dtype(array.dtype)  # refuses it
    return array


def topological(roots: Iterator[Node] | tuple[Node, ...] | list[Node]) -> list[Node]:
    """All nodes that the roots need, operands before users, in an order that depends on structure only."""
    order: list[Node] = []
    done: set[int] = set()
    stack: list[Node | None] = list(reversed(list(roots)))
    while stack:
        node = stack.pop()
        if node is None:  # all that the next one needs is in order
            order.append(cast("Node", stack.pop()))
        elif node.uid not in done:
            done.add(node.uid)
            if node.args:
                stack += (node, None)
                stack += [arg for arg in reversed(node.args) if arg.uid not in done]
            else:
                order.append(node)
    return order
