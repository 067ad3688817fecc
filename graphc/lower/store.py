"""Plans that are kept on disk: a graph that was compiled before is neither simplified nor lowered again.

What is kept has no nodes: buffers, launches, kernels and sizes, which all that runs a program is made of, and the sizes
that must not be negative. Whoever asks for more, a report, a stage's text, the line at which a check failed, has the
graph compiled once more, so that it speaks of the present program's names and lines.

The bytes are rows in the format of :mod:`marshal`: numbers and texts, tuples of earlier rows, and objects of the
compiler's own frozen dataclasses and enums, of whatever fields they have. Only such classes are made when they are
read, but the folder is trusted all the same, since machine code lies beside them (:mod:`graphc.cache`). What the format
cannot say, and what cannot be read, is not kept or not found: the graph is compiled.
"""

from __future__ import annotations

import importlib
import marshal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from graphc import cache
from graphc.ir.dims import Dim, Size, size_of_terms
from graphc.ir.graph import Graph
from graphc.ir.node import Constant, Parameter
from graphc.ir.types import DType, TensorType, as_dtype
from graphc.lower.fingerprint import UnknownPartError, compiler, fingerprint
from graphc.lower.plan import Plan
from graphc.lower.preparing import PreparedValues, hidden_parameter, shared_values

if TYPE_CHECKING:
    from graphc.backend import Backend
    from graphc.lower.budget import Rematerialization
    from graphc.rewrite import RewriteLog

KIND = "plan"
FEWEST_NODES = 64
"""Smaller graphs compile in less time than files take."""
MOST_ENTRY_BYTES = 1 << 24
MOST_BYTES = 1 << 28
"""What all plans may take on disk; the oldest go first."""


@dataclass(frozen=True)
class Lowered:
    """A graph's plan and how it came about, for reports; every node in it is one of this process."""

    simplified: Graph
    log: RewriteLog
    plan: Plan
    prepared: tuple[PreparedValues, ...] = ()
    rematerialization: Rematerialization | None = None


@dataclass(frozen=True)
class Kept:
    """What it takes to run a graph.

    Attributes:
        plan: where it comes from the disk, without nodes and checks, and its graph is the one that was compiled.
        never_negative: sizes that a run must not make negative; see :mod:`graphc.lower.sizes`.
        prepared: the values of parameters alone that the plan reads.
    """

    plan: Plan
    never_negative: tuple[Size, ...]
    prepared: tuple[PreparedValues, ...] = ()


def key_of(graph: Graph, backend: Backend, *options: object) -> str | None:
    """The key of a graph's plan; None if none is kept.

    A backend whose plans may be kept says all that they depend on beside the graph with a method ``plan_key``, which
    its very class has. It reads neither nodes nor checks of a plan.
    """
    describe: Callable[[], str] | None = getattr(backend, "plan_key", None)
    if describe is None or "plan_key" not in vars(type(backend)) or _count(graph, FEWEST_NODES) < FEWEST_NODES:
        return None
    found = fingerprint(graph)
    return None if found is None else cache.digest(found, backend.name, describe(), repr(options))


def find(key: str, graph: Graph, backend: Backend) -> Kept | None:
    """What is kept under a key, for this graph; None if there is nothing that can be read."""
    data = cache.get(key, KIND)
    if data is None:
        return None
    try:
        row, groups, never_negative = _read(data)
        given = list(_constants(graph))
        parameters = list(graph.parameters)
        prepared: list[PreparedValues] = []
        for types, inner, text in groups:
            hidden = tuple([hidden_parameter(type) for type in types])
            plan = _restored(inner, Graph((), ()), [*parameters, *hidden], given)
            prepared.append(shared_values(plan, hidden, backend, text))
            parameters += prepared[-1].parameters
        plan = _restored(row, graph, parameters, given)
    except (ValueError, TypeError, LookupError, AttributeError, EOFError, ImportError):  # not written by this compiler
        return None
    return Kept(plan, never_negative, tuple(prepared))


def keep(key: str, graph: Graph, kept: Kept) -> None:
    """Keep the plan of a graph, and those of the values that are prepared for it, if the format can say all of it."""
    numbers = {id(parameter): number for number, parameter in enumerate(graph.parameters)}
    given = {(op.data, op.type): number for number, op in enumerate(_constants(graph))}
    groups: list[object] = []
    try:
        for values in kept.prepared:
            numbers |= {id(parameter): number for number, parameter in enumerate(values.parameters, len(numbers))}
            types = tuple(parameter.type for parameter in values.parameters)
            groups.append((types, _bare(values.plan, numbers, given), values.text))
        data = _Writer().write((_bare(kept.plan, numbers, given), tuple(groups), kept.never_negative))
    except (UnknownPartError, KeyError):
        return
    if len(data) <= MOST_ENTRY_BYTES:
        cache.put(key, KIND, data)
        cache.trim(KIND, MOST_BYTES)


def _bare(plan: Plan, numbers: Mapping[int, int], given: Mapping[tuple[bytes, TensorType], int]) -> object:
    """A plan without nodes, the numbers of its parameters, and its constants."""
    bare = replace(
        plan,
        graph=Graph((), ()),
        parameters=(),
        constants=(),
        checks=(),
        buffers=tuple(replace(buffer, nodes=()) for buffer in plan.buffers),
        launches=tuple(replace(launch, nodes=()) for launch in plan.launches),
    )
    parameters = tuple(numbers[id(parameter)] for parameter in plan.parameters)
    return bare, parameters, tuple(_constant(array, given) for array in plan.constants)


def _restored(row: Any, graph: Graph, parameters: Sequence[Parameter], given: Sequence[Constant]) -> Plan:
    """The plan of a row that :func:`_bare` made."""
    plan: Plan
    numbers: tuple[int, ...]
    constants: tuple[Any, ...]
    plan, numbers, constants = row
    arrays = tuple([given[of].array if isinstance(of, int) else _array(*of) for of in constants])
    return replace(plan, graph=graph, parameters=tuple([parameters[n] for n in numbers]), constants=arrays)


def _count(graph: Graph, enough: int) -> int:
    """The nodes of a graph and of all graphs inside it, counted until there are enough."""
    count = len(graph.nodes)
    for node in graph.nodes:
        if count >= enough:
            break
        count += sum(_count(body, enough) for body in node.op.bodies)
    return count


# constants: those of the graph itself are named, what the compiler has computed is written down


def _constants(graph: Graph) -> Iterator[Constant]:
    """All constants of a graph and of the graphs inside it, in an order that depends on the graph alone."""
    for node in graph.nodes:
        if isinstance(node.op, Constant):
            yield node.op
        for body in node.op.bodies:
            yield from _constants(body)


def _constant(array: Any, given: Mapping[tuple[bytes, TensorType], int]) -> object:
    type = TensorType(as_dtype(array.dtype), tuple(array.shape))
    data: bytes = array.tobytes()
    return given.get((data, type), (type.dtype, type.shape, data))


def _array(dtype: DType, shape: tuple[int, ...], data: bytes) -> object:
    return np.frombuffer(data, dtype.numpy).reshape(shape)


# the format

TUPLE = 0


class _Writer:
    """Rows for a value and all that it is made of. Equal parts are one row, and one object when they are read."""

    def __init__(self) -> None:
        self.classes: dict[type, int] = {}
        self.rows: list[object] = []
        self.numbers: dict[object, int] = {}
        self.met: dict[int, int] = {}
        known = compiler()
        self.modules = known.modules if known is not None else frozenset[str]()

    def write(self, value: object) -> bytes:
        """The bytes of a value, which is alive until it returns."""
        self._row(value)
        classes = [(kind.__module__, kind.__qualname__) for kind in self.classes]
        return marshal.dumps((classes, self.rows))

    def _row(self, value: Any) -> int:
        number = self.met.get(id(value))
        if number is None:
            row = self._encode(value)
            key: Any = row if isinstance(row, tuple) else (type(row), row.hex() if isinstance(row, float) else row)
            number = self.numbers.get(key)
            if number is None:
                number = self.numbers[key] = len(self.rows)
                self.rows.append(row)
            if isinstance(row, tuple):
                self.met[id(value)] = number
        return number

    def _encode(self, value: Any) -> bool | int | float | str | bytes | tuple[int, ...] | None:
        kind = cast("type[Any]", type(value))
        if value is None or kind in (bool, int, float, str, bytes):
            return value
        if kind is tuple:
            return (TUPLE, *map(self._row, value))
        if kind.__module__ not in self.modules:
            raise UnknownPartError(f"{kind.__module__}.{kind.__qualname__}")
        number = self.classes.setdefault(kind, len(self.classes) + 1)
        if kind is Dim:
            return (number, self._row(value.terms))
        if isinstance(value, Enum):
            return (number, self._row(value.name))
        if _is_record(kind):
            return (number, *[self._row(getattr(value, part.name)) for part in fields(value)])
        raise UnknownPartError(kind.__qualname__)


def _is_record(kind: type) -> bool:
    """Is an object of this class made of its fields alone?"""
    parameters: Any = getattr(kind, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        return False
    return all(part.init and not part.kw_only for part in fields(kind))


def _read(data: bytes) -> Any:
    """The value of the last row."""
    names: list[tuple[str, str]]
    rows: list[bool | int | float | str | bytes | tuple[int, ...] | None]
    names, rows = marshal.loads(data)
    makers = [_tuple, *[_maker(module, name) for module, name in names]]
    made: list[Any] = []
    for row in rows:
        made.append(makers[row[0]](*[made[number] for number in row[1:]]) if isinstance(row, tuple) else row)
    return made[-1]


def _tuple(*parts: Any) -> tuple[Any, ...]:
    return parts


def _maker(module: str, name: str) -> Callable[..., Any]:
    """What makes an object of a class from the values in its row."""
    known = compiler()
    if known is None or module not in known.modules:
        raise LookupError(module)
    kind = getattr(importlib.import_module(module), name)
    if kind is Dim:
        return size_of_terms
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind.__getitem__
    if not isinstance(kind, type) or not _is_record(kind):
        raise LookupError(name)
    return kind
