"""Symbolic sizes as ONNX values: polynomials of the inputs' shapes in int64 arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.backends.onnx.writer import Writer
from graphc.errors import ExportError
from graphc.ir.dims import Atom, Dim, Size, names
from graphc.ir.node import Node
from graphc.ir.types import DType, Shape


def find_sizes(inputs: Iterable[Node]) -> dict[str, tuple[int, int]]:
    """For each named size the first input, and its axis, that has exactly this size.

    >>> from graphc.ir.node import placeholder
    >>> find_sizes([placeholder("x", (3, "n")), placeholder("y", ("n", "m"))])
    {'n': (0, 1), 'm': (1, 1)}
    """
    found: dict[str, tuple[int, int]] = {}
    for position, node in enumerate(inputs):
        for axis, size in enumerate(node.shape):
            for name in names(size):
                if size == Dim(name):
                    found.setdefault(name, (position, axis))
    return found


class Sizes:
    """The sizes that a graph needs at run time, each computed once, as int64 vectors of one element."""

    def __init__(self, writer: Writer, inputs: Iterable[tuple[str, Node]]) -> None:
        self._writer = writer
        self._inputs = tuple(inputs)
        self._places = find_sizes(node for _, node in self._inputs)
        self._vectors: dict[Size, str] = {}
        self._scalars: dict[Size, str] = {}

    def vector(self, size: Size) -> str:
        """A size as a vector of one element."""
        if isinstance(size, int):
            return self._writer.ints([size])
        if size not in self._vectors:
            with self._writer.scope(f"size/{size}"):
                self._vectors[size] = self._polynomial(size)
        return self._vectors[size]

    def scalar(self, size: Size) -> str:
        """A size as a scalar."""
        if isinstance(size, int):
            return self._writer.constant(size, DType.int64)
        if size not in self._scalars:
            vector = self.vector(size)
            with self._writer.scope(f"size/{size}"):
                self._scalars[size] = self._writer.emit("Squeeze", vector, self._writer.ints([0]))
        return self._scalars[size]

    def shape(self, shape: Shape) -> str:
        """A shape as a vector."""
        if all(isinstance(size, int) for size in shape):
            return self._writer.ints([size for size in shape if isinstance(size, int)])
        parts: list[str] = []
        run: list[int] = []
        for size in shape:
            if isinstance(size, int):
                run.append(size)
                continue
            if run:
                parts.append(self._writer.ints(run))
                run = []
            parts.append(self.vector(size))
        if run:
            parts.append(self._writer.ints(run))
        return parts[0] if len(parts) == 1 else self._writer.emit("Concat", *parts, axis=0)

    def _polynomial(self, size: Dim) -> str:
        total: str | None = None
        for monomial, factor in size.terms:
            product: str | None = None if factor == 1 and monomial else self._writer.ints([factor])
            for atom, power in monomial:
                value = self._atom(atom)
                for _ in range(power):
                    product = value if product is None else self._writer.emit("Mul", product, value)
            assert product is not None  # a monomial without atoms starts from its factor
            total = product if total is None else self._writer.emit("Add", total, product)
        assert total is not None  # the zero polynomial is an int, not a Dim
        return total

    def _atom(self, atom: Atom) -> str:
        if isinstance(atom, str):
            return self._named(atom)
        left, right = self.vector(atom.left), self.vector(atom.right)
        if atom.fn == "//":
            if _may_be_negative(atom.left):  # ONNX's Div rounds towards zero, sizes round down
                left = self._writer.emit("Sub", left, self._writer.emit("Mod", left, right))
            return self._writer.emit("Div", left, right)
        if atom.fn == "%":
            return self._writer.emit("Mod", left, right)
        return self._writer.emit("Min" if atom.fn == "min" else "Max", left, right)

    def _named(self, name: str) -> str:
        size = Dim(name)
        if size in self._vectors:
            return self._vectors[size]
        place = self._places.get(name)
        if place is None:
            raise ExportError(
                f"the size {name!r} stands nowhere alone in an input's shape",
                remedy=f"give some placeholder an axis of the plain size {name!r}",
            )
        (value, _), axis = self._inputs[place[0]], place[1]
        with self._writer.scope(f"size/{name}"):
            made = self._writer.emit("Shape", value, start=axis, end=axis + 1)
        self._vectors[size] = made
        return made


def _may_be_negative(size: Size) -> bool:
    """Is it not certain that a size is 0 or more, when every name is? (conservative)."""
    if isinstance(size, int):
        return size < 0
    return any(factor < 0 or not all(isinstance(atom, str) for atom, _ in monomial) for monomial, factor in size.terms)
