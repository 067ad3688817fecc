"""Recurrent layers as ONNX has them: loops whose step is that of an RNN, LSTM or GRU become such an operator.

Two loops over the same sequence in both directions become one. A mask has to be one of the first so many steps of each
row: then ONNX takes these numbers. With any other mask, and where the derivative needs the gates, a loop stays a Scan.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from graphc.backends.onnx.gates import BELOW, Columns, Step, recognize
from graphc.backends.onnx.writer import Writer
from graphc.ir import location
from graphc.ir.dims import Size
from graphc.ir.graph import Graph, rebuild
from graphc.ir.node import Constant, Node, Parameter, apply, constant, topological
from graphc.ir.op import Op
from graphc.ir.sweep import Part
from graphc.ir.types import DType, TensorType, TupleType
from graphc.ops.arithmetic import add, maximum, minimum
from graphc.ops.base import scalar_value
from graphc.ops.cast import cast
from graphc.ops.compare import Less, greater, where
from graphc.ops.create import Iota, size_of, zeros
from graphc.ops.logic import And
from graphc.ops.movement import Reshape, Transpose, concatenate, reshape, transpose
from graphc.ops.scan import Scan
from graphc.ops.slicing import Slice, expand_dims

Array = NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Recurrent(Op):
    """ONNX's RNN, LSTM or GRU.

    Operands: X (time, batch, n), W (directions, gates * units, n), R (directions, gates * units, units), B (directions,
    2 * gates * units); then the number of steps of each row, if ``counted``, and the first states (directions, batch,
    units), if ``begun``. Results, for one direction after the other: the outputs of all steps, zeros behind the last
    one of a row; then, in the same order, each last state.

    Attributes:
        kind: the operator.
        ways: ``"forward"``, ``"reverse"``, or both.
        activations: those of the first direction, then those of the second.
        reset_after: of a GRU, where the reset gate acts.
        label: what the weights are called after.
    """

    kind: str
    ways: tuple[str, ...]
    activations: tuple[str, ...]
    reset_after: bool
    counted: bool
    begun: bool
    label: str

    name: ClassVar[str] = "recurrent"
    attributes: ClassVar[tuple[str, ...]] = ("kind", "ways", "activations", "reset_after", "counted", "begun", "label")

    @property
    def states(self) -> int:
        """How many there are."""
        return 2 if self.kind == "LSTM" else 1

    def infer(self, *types: TensorType) -> TensorType:
        x, _, r = types[:3]
        time, batch, units = x.shape[0], x.shape[1], r.shape[2]
        every = [TensorType(x.dtype, (time, batch, units))] * len(self.ways)
        return TupleType.of([*every, *[TensorType(x.dtype, (batch, units))] * (len(self.ways) * self.states)])

    def reference(self, *args: Array) -> list[Array]:
        """Step by step, row by row where they differ in length; rows without steps end with zeros, as in runtimes."""
        x, w, r, b, *more = args
        time, batch, units = x.shape[0], x.shape[1], r.shape[2]
        lengths = more.pop(0) if self.counted else np.full(batch, time)
        first = more or [np.zeros((len(self.ways), batch, units), x.dtype)] * self.states
        every: list[Array] = []
        last: list[list[Array]] = [[] for _ in range(self.states)]
        per_way = len(self.activations) // len(self.ways)
        for d, way in enumerate(self.ways):
            functions = self.activations[d * per_way : (d + 1) * per_way]
            outputs = np.zeros((time, batch, units), x.dtype)
            ends = [np.zeros((batch, units), x.dtype) for _ in range(self.states)]
            for row, length in enumerate(lengths):
                state = [given[d, row] for given in first]
                steps = range(length) if way == "forward" else reversed(range(length))
                for t in steps:
                    state = self._step(x[t, row], state, w[d], r[d], b[d], functions)
                    outputs[t, row] = state[0]
                if length:
                    for end, value in zip(ends, state, strict=True):
                        end[row] = value
            every.append(outputs)
            for kept, end in zip(last, ends, strict=True):
                kept.append(end)
        return [*every, *(end for kept in last for end in kept)]

    def _step(
        self, x: Array, state: Sequence[Array], w: Array, r: Array, b: Array, functions: Sequence[str]
    ) -> list[Array]:
        f, *others = (_FUNCTIONS[name] for name in functions)
        inputs, inner = w @ x + b[: len(w)], r @ state[0] + b[len(w) :]
        gates = len(w) // r.shape[1]
        given, back = np.split(inputs, gates), np.split(inner, gates)
        if self.kind == "RNN":
            return [f(inputs + inner)]
        if self.kind == "GRU":
            z, reset = f(given[0] + back[0]), f(given[1] + back[1])
            units = r.shape[1]
            seen = reset * back[2] if self.reset_after else r[2 * units :] @ (reset * state[0]) + b[-units:]
            return [z * state[0] + (1 - z) * others[0](given[2] + seen)]
        i, o, forget, new = (a + c for a, c in zip(given, back, strict=True))
        cell = f(forget) * state[1] + f(i) * others[0](new)
        return [f(o) * others[1](cell), cell]


_FUNCTIONS: Mapping[str, Any] = {
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "Relu": lambda x: np.maximum(x, 0),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Softplus": lambda x: np.logaddexp(x, 0),
    "HardSigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
}


def write_recurrent(w: Writer, node: Node, args: Sequence[str]) -> tuple[str, ...]:
    """Write the operator and return the values of its results."""
    op = node.op
    assert isinstance(op, Recurrent)
    used = w.names.unique
    label = used(op.kind.lower())
    more = list(args[4:])
    counts = more.pop(0) if op.counted else ""
    results = [used(f"{label}/{name}") for name in ("Y", "Y_h", "Y_c")[: 1 + op.states]]
    extra: dict[str, Any] = {"linear_before_reset": int(op.reset_after)} if op.kind == "GRU" else {}
    hard = op.activations.count("HardSigmoid")
    if hard:  # the others take no parameters
        extra |= {"activation_alpha": [1 / 6] * hard, "activation_beta": [0.5] * hard}
    direction = op.ways[0] if len(op.ways) == 1 else "bidirectional"
    units = node.args[2].shape[2]
    made = helper.make_node(
        op.kind, [*args[:4], *([counts, *more] if counts or more else [])], results, name=label,
        doc_string=w.doc or None, hidden_size=units, direction=direction, activations=list(op.activations), **extra,
    )  # fmt: skip
    w.nodes.append(made)
    found: list[str] = []
    with w.scope(label, w.doc):
        for result in results:
            axis = 1 if result is results[0] else 0
            if len(op.ways) == 1:
                found.append(w.emit("Squeeze", result, w.ints([axis])))
            else:
                found += [w.emit("Gather", result, w.constant(d, DType.int64), axis=axis) for d in range(2)]
    return tuple(found)


# which loops become one


@dataclass(frozen=True, eq=False)
class _Loop:
    """A loop that was recognized, or one of the cells in it.

    Attributes:
        above: the further cells, which take the outputs of the one before.
        lengths: how many steps of each row count; None if all do.
        below: the outputs of the cell below, where there is one.
    """

    node: Node
    step: Step
    above: tuple[Step, ...]
    lengths: Node | None
    below: Node | None = None

    @property
    def op(self) -> Scan:
        assert isinstance(self.node.op, Scan)
        return self.node.op

    @property
    def inputs(self) -> Node:
        if self.step.sequence == BELOW:
            assert self.below is not None
            return self.below
        return self.node.args[self.op.carries + self.step.sequence]

    @property
    def mask(self) -> Node | None:
        return None if self.step.mask is None else self.node.args[self.op.carries + self.step.mask]

    @property
    def units(self) -> Size:
        return self.first[0].shape[1]

    @property
    def first(self) -> list[Node]:
        """The first states: h and, in an LSTM, c."""
        return [self.node.args[i] for i in self.step.states]

    def fits(self, other: _Loop) -> bool:
        """Can the two be one operator?"""
        return (
            not self.above
            and not other.above
            and self.step.kind == other.step.kind
            and self.step.reset_after == other.step.reset_after
            and self.inputs is other.inputs
            and self.lengths is other.lengths
            and self.units == other.units
            and self.op.reverse != other.op.reverse
        )


def write_loops_whole(graph: Graph) -> Graph:
    """The graph with operators for the loops that are one in ONNX. One after another, operands first."""
    while True:
        loops = _recognized(graph)
        if not loops:
            return graph
        group = loops[:1]
        for other in loops[1:]:
            if group[0].fits(other) and _are_apart(group[0].node, other.node):
                group = sorted((group[0], other), key=lambda loop: loop.op.reverse)
                break
        with location.at(group[0].node.loc):
            values = _values(group)

        def part(node: Node, args: tuple[Node, ...], values: dict[Node, dict[int, Node]] = values) -> Node | None:
            if isinstance(node.op, Part) and node.args[0] in values:
                return values[node.args[0]][node.op.index]
            return None

        graph = graph.with_roots(rebuild(graph.roots, part))


def _recognized(graph: Graph) -> list[_Loop]:
    scans = [node for node in graph.nodes if isinstance(node.op, Scan)]
    found: list[_Loop] = []
    others: set[Node] = set()
    for node in scans:
        steps = recognize(node)
        loop = _Loop(node, steps[0], steps[1:], _lengths(node, steps[0])) if steps else None
        if loop is None or (loop.mask is not None and loop.lengths is None):
            others.update(map(_moved_from, node.args))
        else:
            found.append(loop)
    # a loop with the same weights is the derivative of this one, or keeps what that needs: a Scan does for both
    return [loop for loop in found if not any(weight in others for weight in _recurrent_weights(loop))]


def _recurrent_weights(loop: _Loop) -> list[Node]:
    return [_moved_from(gate.recurrent.node) for step in (loop.step, *loop.above) for gate in step.gates]


def _moved_from(node: Node) -> Node:
    while isinstance(node.op, Transpose | Reshape | Slice):
        (node,) = node.args
    return node


def _are_apart(a: Node, b: Node) -> bool:
    """Does neither read what the other one gives?"""
    return a not in set(topological(b.args)) and b not in set(topological(a.args))


# masks of the first steps


def _lengths(node: Node, step: Step) -> Node | None:
    """The number of steps that count in each row, an int32, if the mask says nothing else."""
    op = node.op
    assert isinstance(op, Scan)
    if step.mask is None:
        return None
    batch = node.args[0].shape[0]
    found = _counted(node.args[op.carries + step.mask], op.length, batch, True)
    if found is None:
        return None
    inside = minimum(maximum(found, 0), size_of(op.length, found.dtype))
    return cast(inside, DType.int32)


def _counted(mask: Node, time: Size, batch: Size, time_first: bool) -> Node | None:
    """The lengths of which a mask of (time, batch), or (batch, time), is made; its other axes have size 1."""
    if isinstance(mask.op, Reshape):
        (inner,) = mask.args
        kept = [[size for size in node.shape if size != 1] for node in (mask, inner)]
        ordered = inner.shape[:2] == ((time, batch) if time_first else (batch, time))
        return _counted(inner, time, batch, time_first) if ordered and kept[0] == kept[1] else None
    if isinstance(mask.op, Transpose) and mask.op.axes[:2] == (1, 0):
        return _counted(mask.args[0], time, batch, not time_first)
    if isinstance(mask.op, And):
        pair = [_counted(arg, time, batch, time_first) for arg in mask.args if arg.shape == mask.shape]
        if len(pair) < 2 or pair[0] is None or pair[1] is None or pair[0].dtype is not pair[1].dtype:
            return None
        return minimum(pair[0], pair[1])
    if not isinstance(mask.op, Less) or mask.shape != ((time, batch) if time_first else (batch, time)):
        return None
    steps, lengths = mask.args
    wanted = ((time, 1), (1, batch)) if time_first else ((1, time), (batch, 1))
    for arg, shape in zip((steps, lengths), wanted, strict=True):
        if arg.shape != shape and arg.shape != shape[1:]:
            return None
    while isinstance(steps.op, Reshape):
        (steps,) = steps.args
    if not isinstance(steps.op, Iota) or steps.shape != (time,) or lengths.shape not in (wanted[1], (batch,)):
        return None
    return reshape(lengths, (batch,)) if lengths.dtype.is_integer else None


# the operator


def _values(group: Sequence[_Loop]) -> dict[Node, dict[int, Node]]:
    """What stands for the parts of one loop, or of two that go opposite ways: cells above each other come in turn."""
    whole = _operator(group)
    values = {loop.node: _parts(loop, whole, number, len(group)) for number, loop in enumerate(group)}
    loop = group[0]
    while loop.above:
        step, *above = loop.above
        loop = replace(loop, step=step, above=tuple(above), below=apply(Part(0), whole))
        whole = _operator([loop])
        values[loop.node] |= _parts(loop, whole, 0, 1)
    return values


def _operator(group: Sequence[_Loop]) -> Node:
    """The operator of one cell, or of two that go opposite ways."""
    loop = group[0]
    weights = [_weights(one) for one in group]
    operands = [loop.inputs, *(_joined([one[i] for one in weights]) for i in range(3))]
    operands += [] if loop.lengths is None else [loop.lengths]
    begun = any(scalar_value(state) != 0 for one in group for state in one.first)
    if begun:
        operands += [_joined(list(states)) for states in zip(*(one.first for one in group), strict=True)]
    op = Recurrent(
        loop.step.kind, tuple("reverse" if one.op.reverse else "forward" for one in group),
        tuple(name for one in group for name in one.step.activations), loop.step.reset_after,
        loop.lengths is not None, begun, _label(group),
    )  # fmt: skip
    return apply(op, *operands)


def _label(group: Sequence[_Loop]) -> str:
    """What the names of the weights begin with: the layer, or the one around both directions."""
    matrices = [_moved_from(gate.kernel.node) for loop in group for gate in loop.step.gates]
    paths = [node.label.split("/")[:-1] for node in matrices if isinstance(node, Parameter)]
    same = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return "/".join(parts[0] for parts in same) or group[0].step.kind.lower()


def _parts(loop: _Loop, whole: Node, number: int, ways: int) -> dict[int, Node]:
    """What stands for the parts of a loop that is direction ``number`` of the operator."""
    op = loop.op
    outputs = apply(Part(number), whole)
    found: dict[int, Node] = {}
    last: list[Node] = []
    for position, (carry, first) in enumerate(zip(loop.step.states, loop.first, strict=True)):
        value = apply(Part(ways * (1 + position) + number), whole)
        if loop.lengths is not None and scalar_value(first) != 0:  # rows without steps keep their first states
            value = where(expand_dims(greater(loop.lengths, 0), 1), value, first)
        found[carry] = value
        last.append(value)
    for position, zeros_behind in enumerate(loop.step.zeros, op.carries):
        found[position] = outputs
        before = loop.first[0] if op.reverse else last[0]
        if loop.mask is not None and not zeros_behind and scalar_value(before) != 0:
            found[position] = where(loop.mask, outputs, expand_dims(before, 0))
    return found


def _weights(loop: _Loop) -> list[Node]:
    """W, R and B of one direction, the gates one below the other. B holds the inputs' biases, then the state's."""
    gates = loop.step.gates
    kernels = concatenate([transpose(_columns(gate.kernel)) for gate in gates], axis=0)
    recurrent = concatenate([transpose(_columns(gate.recurrent)) for gate in gates], axis=0)
    units = gates[0].kernel.end - gates[0].kernel.first
    inputs = [_bias(gate.biases, units) for gate in gates]
    state = [_bias(gate.inner, units) for gate in gates]
    return [kernels, recurrent, concatenate([*inputs, *state], axis=0)]


def _columns(columns: Columns) -> Node:
    node = columns.node
    return node[..., columns.first : columns.end]


def _bias(parts: Sequence[Columns], units: int) -> Node:
    total: Node | None = None
    for part in parts:
        row = reshape(_columns(part), (units,))
        total = row if total is None else add(total, row)
    return zeros((units,)) if total is None else total


def _joined(nodes: list[Node]) -> Node:
    """Both directions in front of the other axes."""
    parts = [expand_dims(node, 0) for node in nodes]
    return parts[0] if len(parts) == 1 else concatenate(parts, axis=0)


# weights


def fold_weights(graph: Graph) -> Graph:
    """The graph with the weights of operators as numbers, unless a step changes the parameters they are made of."""
    targets = {id(target) for target, _ in graph.updates}

    def folded(node: Node, args: tuple[Node, ...]) -> Node | None:
        if not isinstance(node.op, Recurrent):
            return None
        return apply(node.op, args[0], *(_folded(arg, targets) for arg in args[1:4]), *args[4:])

    return graph.rebuild(folded)


def _folded(node: Node, targets: set[int]) -> Node:
    order = topological((node,))
    if not all(_is_known(leaf, targets) for leaf in order if not leaf.args):
        return node
    values: dict[Node, Array] = {}
    for inner in order:
        if isinstance(inner, Parameter):
            values[inner] = inner.value
        else:
            values[inner] = np.asarray(inner.op.reference(*(values[arg] for arg in inner.args)))
    return constant(np.ascontiguousarray(values[node], np.float32))


def _is_known(leaf: Node, targets: set[int]) -> bool:
    return isinstance(leaf.op, Constant) or (isinstance(leaf, Parameter) and id(leaf) not in targets)


def weight_names(graph: Graph) -> dict[int, str]:
    """Names for the constants that are weights of operators, by ``id``."""
    found: dict[int, str] = {}
    for node in graph.nodes:
        if isinstance(node.op, Recurrent):
            for arg, letter in zip(node.args[1:4], "WRB", strict=True):
                if isinstance(arg.op, Constant):
                    found.setdefault(id(arg), f"{node.op.label}/{letter}")
    return found
