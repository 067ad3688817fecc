"""Recognizes the step of a loop as that of a simple recurrent net, an LSTM or a GRU, however its sums are ordered.

A gate is an activation of a sum: columns of the product of an element with a matrix, columns of the product of the
state with another one, and biases. What is found is where in the operands of the loop these columns stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from graphc.ir.node import Constant, Node
from graphc.ir.op import Op
from graphc.ir.types import DType
from graphc.ops.activation import Relu
from graphc.ops.arithmetic import Add, Multiply, Subtract
from graphc.ops.base import scalar_value
from graphc.ops.compare import Where
from graphc.ops.exponential import Sigmoid, Softplus, Tanh
from graphc.ops.gating import Softsign
from graphc.ops.linear import MatMul
from graphc.ops.movement import Reshape
from graphc.ops.rectifier import HardSigmoid
from graphc.ops.scan import Scan
from graphc.ops.slicing import Slice

ACTIVATIONS: dict[type[Op], str] = {
    Sigmoid: "Sigmoid",
    Tanh: "Tanh",
    Relu: "Relu",
    Softsign: "Softsign",
    Softplus: "Softplus",
    HardSigmoid: "HardSigmoid",
}
"""Those that ONNX's recurrent operators have."""


BELOW = -1
"""Stands for a sequence: the outputs of the cell below."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns ``first`` to ``end - 1`` of an operand of the loop, a matrix or a vector."""

    node: Node
    first: int
    end: int


@dataclass(frozen=True, eq=False)
class Gate:
    """The sum under an activation: ``x @ kernel + h @ recurrent + biases``.

    Attributes:
        sequence: the number of the sequence that x is an element of, or ``BELOW``.
        inner: biases beside the product of the state that are multiplied with it, in a GRU's candidate.
    """

    sequence: int
    kernel: Columns
    recurrent: Columns
    biases: tuple[Columns, ...]
    inner: tuple[Columns, ...] = ()


@dataclass(frozen=True, eq=False)
class Step:
    """What a loop was recognized as, or one of several cells in it, one above the other.

    Attributes:
        kind: the ONNX operator.
        gates: in its order.
        activations: in its order.
        states: the numbers of the carries that are h and, in an LSTM, c.
        sequence: the number of the sequence that holds the inputs, or ``BELOW``.
        mask: the number of the sequence that says which steps count, if there is one.
        zeros: for each result whether it is zeros at steps that do not count; else it repeats the state.
        reset_after: of a GRU, whether the reset gate acts on the product.
    """

    kind: str
    gates: tuple[Gate, ...]
    activations: tuple[str, ...]
    states: tuple[int, ...] = (0,)
    sequence: int = 0
    mask: int | None = None
    zeros: tuple[bool, ...] = ()
    reset_after: bool = False


def recognize(node: Node) -> tuple[Step, ...]:
    """What the loop is: one cell, or several of them, the lowest first; nothing if ONNX has no operator for one."""
    op = node.op
    assert isinstance(op, Scan)
    return () if op.stops or any(op.keep) or not op.carries else _Body(node, op).steps()


@dataclass(frozen=True, eq=False)
class _Term:
    """Of a sum: ``left @ columns``; ``columns`` alone; or ``left`` alone, which is something else."""

    left: Node | None
    columns: Columns | None


class _Body:
    def __init__(self, node: Node, op: Scan) -> None:
        inputs = op.body.inputs
        changing = op.carries + op.sequences
        self.carries = inputs[: op.carries]
        self.elements = {element: number for number, element in enumerate(inputs[op.carries : changing])}
        self.outside = dict(zip(inputs[changing:], node.args[changing:], strict=True))
        roots = op.body.roots
        self.following, self.results = roots[: op.carries], roots[op.carries :]

    def steps(self) -> tuple[Step, ...]:
        if any(carry.ndim != 2 or carry.dtype is not DType.float32 for carry in self.carries):
            return ()
        mask, raw = self._unmasked()
        number = None if mask is None else self.elements[mask]
        found: list[Step] = []
        rest = list(range(len(self.carries)))
        while rest:
            step = self._lowest(rest, raw)
            if step is None:
                return ()
            found.append(replace(step, mask=number))
            rest = [i for i in rest if i not in step.states]
            self.elements[raw[step.states[0]]] = BELOW
        output = found[-1].states[0]
        zeros = self._kinds_of_results(mask, raw[output], self.following[output])
        return () if zeros is None else (*found[:-1], replace(found[-1], zeros=zeros))

    def _lowest(self, rest: Sequence[int], raw: Sequence[Node]) -> Step | None:
        """The cell that the first of these carries belong to."""
        for states in ((0,), (0, 1), (1, 0)):
            if max(states) < len(rest):
                mine = tuple(rest[i] for i in states)
                found = self._cell([self.carries[i] for i in mine], [raw[i] for i in mine])
                if found is not None:
                    return replace(found, states=mine)
        return None

    # masks

    def _unmasked(self) -> tuple[Node | None, list[Node]]:
        """The element that says whether the step counts, and the states after a step that does."""
        masks: list[Node | None] = []
        raw: list[Node] = []
        for carry, following in zip(self.carries, self.following, strict=True):
            chosen = following.op
            mask = self._mask(following.args[0]) if isinstance(chosen, Where) else None
            if mask is not None and following.args[2] is carry:
                masks.append(mask)
                raw.append(following.args[1])
            else:
                masks.append(None)
                raw.append(following)
        same = all(mask is masks[0] for mask in masks)
        return (masks[0], raw) if same else (None, list(self.following))

    def _mask(self, condition: Node) -> Node | None:
        while isinstance(condition.op, Reshape):
            (condition,) = condition.args
        return condition if condition in self.elements else None

    def _kinds_of_results(self, mask: Node | None, new: Node, following: Node) -> tuple[bool, ...] | None:
        kinds: list[bool] = []
        for result in self.results:
            if result is following:
                kinds.append(False)
                continue
            if mask is None or not isinstance(result.op, Where) or self._mask(result.args[0]) is not mask:
                return None
            if result.args[1] is not new or scalar_value(result.args[2]) != 0:
                return None
            kinds.append(True)
        return tuple(kinds)

    # cells

    def _cell(self, states: list[Node], new: list[Node]) -> Step | None:
        if len(states) == 2:
            return next(self._lstm(states, new), None)
        found = self._activated(new[0], states[0])
        if found is not None:
            name, gate = found
            return self._of("RNN", (gate,), (name,))
        return next(self._gru(states[0], new[0]), None)

    def _lstm(self, states: list[Node], new: list[Node]) -> Iterator[Step]:
        h, c = states
        for shown, gate in _pairs(new[0], Multiply):
            o, last = self._activated(gate, h), _activation(shown)
            if o is None or last is None or last[1] is not new[1]:
                continue
            for kept, written in _pairs(new[1], Add):
                for before, forget in _pairs(kept, Multiply):
                    for gate_i, candidate in _pairs(written, Multiply):
                        f, i = self._activated(forget, h), self._activated(gate_i, h)
                        g = self._activated(candidate, h)
                        if before is not c or f is None or i is None or g is None or not f[0] == i[0] == o[0]:
                            continue
                        found = self._of("LSTM", (i[1], o[1], f[1], g[1]), (i[0], g[0], last[0]))
                        if found is not None:
                            yield found

    def _gru(self, h: Node, new: Node) -> Iterator[Step]:
        for kept, made in _pairs(new, Add):
            for before, gate in _pairs(kept, Multiply):
                for rest, candidate in _pairs(made, Multiply):
                    z = self._activated(gate, h)
                    if before is not h or z is None or not _is_rest(rest, gate):
                        continue
                    for reset, activation, g, after in self._candidates(candidate, h):
                        r = self._activated(reset, h)
                        if r is None or r[0] != z[0]:
                            continue
                        found = self._of("GRU", (z[1], r[1], g), (z[0], activation))
                        if found is not None:
                            yield replace(found, reset_after=after)

    def _candidates(self, node: Node, h: Node) -> Iterator[tuple[Node, str, Gate, bool]]:
        """What may be a GRU's candidate: the reset gate, the activation, the sum, and which form it is of."""
        found = _activation(node)
        terms = None if found is None else self._whole(found[1])
        if found is None or terms is None:
            return
        products = [term for term in terms if term.left is not None and term.left not in self.elements]
        if len(products) != 1:
            return
        (product,) = products
        assert product.left is not None
        rest = [term for term in terms if term is not product]
        for reset, inner in _pairs(product.left, Multiply):
            if product.columns is not None:  # (r * h) @ U
                gate = self._gate([*rest, _Term(h, product.columns)], h) if inner is h else None
            else:  # r * (h @ U + b)
                gate = self._gate_after(rest, self._whole(inner), h)
            if gate is not None:
                yield reset, found[0], gate, product.columns is None

    def _gate_after(self, outer: list[_Term], inner: list[_Term] | None, h: Node) -> Gate | None:
        if inner is None or any(term.left is not None and term.left is not h for term in inner):
            return None
        products = [term for term in inner if term.left is h]
        gate = self._gate([*outer, *products], h)
        if gate is None:
            return None
        return replace(gate, inner=tuple(term.columns for term in inner if term.left is None and term.columns))

    def _of(self, kind: str, gates: tuple[Gate, ...], activations: tuple[str, ...]) -> Step | None:
        """The step, if all gates read one sequence."""
        numbers = {gate.sequence for gate in gates}
        return Step(kind, gates, activations, sequence=numbers.pop()) if len(numbers) == 1 else None

    # gates

    def _activated(self, node: Node, h: Node) -> tuple[str, Gate] | None:
        found = _activation(node)
        terms = None if found is None else self._whole(found[1])
        gate = None if terms is None else self._gate(terms, h)
        return None if found is None or gate is None else (found[0], gate)

    def _gate(self, terms: list[_Term], h: Node) -> Gate | None:
        """One product of an element, one of the state, and biases."""
        if any(term.columns is None for term in terms):
            return None
        products = [term for term in terms if term.left is not None]
        recurrent = [term.columns for term in products if term.left is h and term.columns]
        others = [term for term in products if term.left is not h]
        if len(recurrent) != 1 or len(others) != 1 or len(products) != 2:
            return None
        element, kernel = others[0].left, others[0].columns
        if kernel is None or element is None or element not in self.elements:
            return None
        if element.ndim != 2 or element.dtype is not DType.float32 or kernel.end - kernel.first != h.shape[1]:
            return None
        biases = tuple(term.columns for term in terms if term.left is None and term.columns is not None)
        return Gate(self.elements[element], kernel, recurrent[0], biases)

    # sums

    def _whole(self, node: Node) -> list[_Term] | None:
        width = node.shape[-1] if node.ndim == 2 else None
        return self._terms(node, 0, width) if isinstance(width, int) else None

    def _terms(self, node: Node, first: int, end: int) -> list[_Term] | None:
        """The terms of columns ``first`` to ``end - 1`` of a sum; None if they cannot be told apart."""
        op = node.op
        if node in self.outside or isinstance(op, Constant):
            return [_Term(None, Columns(self.outside.get(node, node), first, end))] if _is_row(node) else None
        if isinstance(op, Slice) and node.ndim == 2:
            (rows, columns), start = node.args[0].shape, op.starts[1]
            if op.steps != (1, 1) or op.starts[0] != 0 or op.stops[0] != rows:
                return None
            if not isinstance(start, int) or not isinstance(columns, int):
                return None
            return self._terms(node.args[0], first + start, end + start)
        if isinstance(op, Add):
            if any(arg.ndim == 0 or arg.shape[-1] != node.shape[-1] for arg in node.args):
                return None
            left, right = (self._terms(arg, first, end) for arg in node.args)
            return None if left is None or right is None else [*left, *right]
        if isinstance(op, MatMul) and node.args[1] in self.outside and node.args[1].ndim == 2:
            return [_Term(node.args[0], Columns(self.outside[node.args[1]], first, end))]
        return [_Term(node, None)] if (first, end) == (0, node.shape[-1]) else None


def _is_row(node: Node) -> bool:
    """A vector, or a matrix of one row?"""
    return node.ndim == 1 or (node.ndim == 2 and node.shape[0] == 1)


def _is_rest(node: Node, gate: Node) -> bool:
    """Is it ``1 - gate``?"""
    return isinstance(node.op, Subtract) and scalar_value(node.args[0]) == 1 and node.args[1] is gate


def _activation(node: Node) -> tuple[str, Node] | None:
    name = ACTIVATIONS.get(type(node.op))
    return None if name is None else (name, node.args[0])


def _pairs(node: Node, kind: type[Op]) -> Iterator[tuple[Node, Node]]:
    """The operands of a commutative operation, both ways round."""
    if isinstance(node.op, kind):
        a, b = node.args
        yield a, b
        yield b, a
