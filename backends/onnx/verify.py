"""Runs an ONNX file in onnxruntime beside the program that it was made from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from graphc.backends.onnx.compare import Comparison, Tolerance, compare, unit_of
from graphc.backends.onnx.evaluate import evaluate_nodes
from graphc.backends.onnx.export import WEIGHTS_PROPERTY, Exported, build_model
from graphc.backends.onnx.inputs import InputDraws
from graphc.backends.onnx.runtime import open_session, read_model, run_session
from graphc.backends.onnx.writer import ONNX_TYPE
from graphc.errors import NameClashError
from graphc.ir.graph import Graph
from graphc.ir.node import Parameter

Array = NDArray[Any]
Inputs = Mapping[str, Any]

STATE_SLACK = 10
"""State may differ by this much more than outputs: an optimizer may divide small numbers by small numbers."""
_FIRST_SIZE, _NEXT_SIZE = 8, 4


@dataclass(frozen=True)
class Divergence:
    """The first node, in the order of computation, whose value in the file is not what NumPy computes.

    Attributes:
        value: its name in the file.
        node: the node, printed.
        line: the user's line that made it.
        comparison: the two values.
    """

    value: str
    node: str
    line: str | None
    comparison: Comparison


@dataclass(frozen=True)
class Report:
    """What :func:`verify` found. ``str(report)`` reads as a few lines.

    Attributes:
        path: the file.
        steps: how many steps ran.
        outputs: each output at its worst.
        states: each updated parameter at its worst.
        problem: why the file could not be compared at all, or None.
        divergence: the first node that diverges, where some result does and a node is to blame.
    """

    path: str
    steps: int
    outputs: tuple[Comparison, ...] = ()
    states: tuple[Comparison, ...] = ()
    problem: str | None = None
    divergence: Divergence | None = None

    @property
    def ok(self) -> bool:
        """Do file and program agree?"""
        return self.problem is None and all(found.ok for found in (*self.outputs, *self.states))

    def __str__(self) -> str:
        if self.problem is not None:
            return f"{self.path} cannot be compared with the program: {self.problem}"
        verdict = "agrees with" if self.ok else "differs from"
        lines = [f"{self.path} {verdict} the program over {self.steps} step{'s' * (self.steps != 1)}"]
        lines += [f"  {found}" for found in (*self.outputs, *self.states) if not found.ok]
        if self.ok:
            lines += [f"  {found}" for found in self.outputs]
        if self.ok and self.states:
            worst = max(self.states, key=lambda found: found.badness)
            lines.append(f"  of {len(self.states)} updated parameters the farthest is {worst}")
        if self.divergence is not None:
            lines.append(f"  first node that diverges: {self.divergence.value} = {self.divergence.node}")
            lines.append(f"    {self.divergence.comparison}")
            lines.append(f"  at {self.divergence.line or 'an unknown line'}")
        elif not self.ok:
            lines.append("  each node of the file alone agrees with NumPy: look at the program's backend")
        return "\n".join(lines)


def verify(
    path: str | os.PathLike[str],
    program: Any,
    steps: int = 1,
    inputs: Inputs | Sequence[Inputs] | None = None,
    seed: int = 0,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> Report:
    """Run an exported file in onnxruntime beside the program, from the program's state, on the same inputs.

    A training step runs ``steps`` times, its new state fed back on both sides. The program's parameters are afterwards
    what they were before.

    Args:
        path: the file that :func:`~graphc.backends.onnx.export.export` wrote, with its weights or without.
        program: the program, or the graph, that it was made from.
        steps: how many times to run.
        inputs: arrays by name, or a sequence of such for one step after the other (from the start again when it
            ends); by default random ones that the graph accepts.
        seed: for random inputs.
        rtol, atol: outputs may differ by ``atol + rtol * |expected|``, new state by ten times that (of the largest
            element). Integers and bools must be equal. Of a program of mixed precision both are at least one unit in
            the last place of its 16-bit floats: float32 that differ by little may be rounded to neighbours.

    Raises:
        FileError: the file cannot be read, or onnxruntime refuses it.
        BackendError: onnxruntime is not installed.
    """
    name = os.fspath(path)
    unit = unit_of(program)
    rtol, atol = max(rtol, unit), max(atol, unit)
    model = read_model(path)
    session = open_session(model, path)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    held = all(entry.key != WEIGHTS_PROPERTY for entry in model.metadata_props)
    exported = build_model(program, opset=opset, held=held)
    problem = _interface_differs(model, exported.model)
    if problem is not None:
        return Report(name, 0, problem=problem)
    worst = _Worst()
    with _own_side(program, exported.graph) as own:
        fed_back = own.state()
        for step, arrays in zip(range(1, steps + 1), _input_steps(exported.graph, inputs, seed), strict=False):
            before = own.state()
            results = [*exported.outputs, *(item.after for item in exported.states)]
            actual = run_session(session, _feeds(exported, arrays, fed_back), results, path)
            expected = own.run(arrays)
            _compare_step(worst, exported, step, actual, expected, own.state(), Tolerance(rtol, atol))
            if not worst.ok:
                start = _Start(step, arrays, before)
                divergence = _first_divergence(model, exported, start, Tolerance(rtol, atol), path)
                return worst.report(name, step, divergence)
            fed_back = {**fed_back, **{item.parameter: actual[item.after] for item in exported.states}}
    return worst.report(name, steps, None)


def _interface_differs(model: ModelProto, own: ModelProto) -> str | None:
    for kind in ("input", "output"):
        theirs = {value.name: value.type for value in getattr(model.graph, kind)}
        ours = {value.name: value.type for value in getattr(own.graph, kind)}
        if theirs != ours:
            name = next(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
            return f"{kind} {name!r} is not the same in both; was the file made from this program?"
    return None


def _input_steps(graph: Graph, inputs: Inputs | Sequence[Inputs] | None, seed: int) -> Iterator[dict[str, Array]]:
    if inputs is None:
        dims = {name: _FIRST_SIZE + _NEXT_SIZE * position for position, name in enumerate(graph.dims)}
        draws = InputDraws(graph, dims, seed)
        while True:
            yield draws()
    dtypes = {node.name or "": node.dtype.numpy for node in graph.inputs}
    rows = [inputs] if isinstance(inputs, Mapping) else list(inputs)
    for row in rows or [{}]:
        if row.keys() != dtypes.keys():
            raise NameClashError(
                f"inputs are given for {sorted(row)}, the program takes {sorted(dtypes)}",
                remedy="give one array for each",
            )
    while True:
        for row in rows or [{}]:
            yield {name: np.asarray(row[name], dtype) for name, dtype in dtypes.items()}


State = Mapping[Parameter, Array]


@dataclass(frozen=True)
class _OwnSide:
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    state: Callable[[], State]


@contextmanager
def _own_side(program: Any, graph: Graph) -> Iterator[_OwnSide]:
    """How to run a step here and read the state; a graph runs by NumPy. Parameters are restored at the end."""
    saved = {parameter: parameter.value for parameter in graph.parameters}
    if isinstance(program, Graph):
        held = dict(saved)

        def run(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
            values = evaluate_nodes(graph, arrays, held)
            held.update({target: values[id(node)] for target, node in graph.updates})
            return {name: values[id(node)] for name, node in graph.outputs}

        yield _OwnSide(run, lambda: dict(held))
        return
    try:
        yield _OwnSide(lambda arrays: program(**arrays), lambda: {parameter: parameter.value for parameter in saved})
    finally:
        for parameter, value in saved.items():
            np.copyto(parameter.array, value)


def _feeds(exported: Exported, arrays: Mapping[str, Array], state: State) -> dict[str, Array]:
    feeds = {name: arrays[node.name or ""] for name, node in zip(exported.inputs, exported.graph.inputs, strict=True)}
    before = ((item.parameter, item.before) for item in exported.states)
    return {**feeds, **{name: state[parameter] for parameter, name in (*before, *exported.given)}}


class _Worst:
    """The comparisons so far, each at its worst step."""

    def __init__(self) -> None:
        self._outputs: dict[str, Comparison] = {}
        self._states: dict[str, Comparison] = {}

    @property
    def ok(self) -> bool:
        return all(found.ok for found in (*self._outputs.values(), *self._states.values()))

    def add(self, found: Comparison, is_state: bool) -> None:
        table = self._states if is_state else self._outputs
        if found.name not in table or found.badness > table[found.name].badness:
            table[found.name] = found

    def report(self, path: str, steps: int, divergence: Divergence | None) -> Report:
        found = tuple(self._outputs.values()), tuple(self._states.values())
        return Report(path, steps, *found, divergence=divergence)


def _compare_step(
    worst: _Worst,
    exported: Exported,
    step: int,
    actual: Mapping[str, Array],
    expected: Mapping[str, Array],
    state: State,
    tolerance: Tolerance,
) -> None:
    for name, (user_name, _) in zip(exported.outputs, exported.graph.outputs, strict=True):
        value = np.asarray(expected[user_name])
        worst.add(compare(name, step, actual[name], value, tolerance.of_each(value)), is_state=False)
    for item in exported.states:
        value = state[item.parameter]
        allowed = tolerance.of_largest(value, STATE_SLACK)
        worst.add(compare(item.after, step, actual[item.after], value, allowed), is_state=True)


@dataclass(frozen=True)
class _Start:
    """From where a step began: its number, inputs and state."""

    step: int
    arrays: Mapping[str, Array]
    state: State


def _first_divergence(
    model: ModelProto, exported: Exported, start: _Start, tolerance: Tolerance, path: str | os.PathLike[str]
) -> Divergence | None:
    """Run the file with all its intermediate values as outputs, and compare them with NumPy's in order."""
    expected = evaluate_nodes(exported.graph, start.arrays, start.state)
    actual = _all_values(model, exported, start, path)
    for node in exported.graph.nodes:
        name = exported.values.get(id(node))  # None for an op with several results
        if name in actual:
            value = expected[id(node)]
            found = compare(name, start.step, actual[name], value, tolerance.of_largest(value))
            if not found.ok:
                return Divergence(name, repr(node), node.user_line, found)
    return None


def _all_values(model: ModelProto, exported: Exported, start: _Start, path: str | os.PathLike[str]) -> dict[str, Array]:
    """What the file computes for each node of the graph, and its parameters as they are stored."""
    made = {name for node in model.graph.node for name in node.output}
    types = {
        name: ONNX_TYPE[node.dtype]
        for node in exported.graph.nodes
        if (name := exported.values.get(id(node))) is not None and name in made
    }
    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(name, type, None) for name, type in types.items())
    feeds = _feeds(exported, start.arrays, start.state)
    fixed = {exported.values[id(p)] for p in exported.graph.parameters} - feeds.keys()
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name in fixed}
    return {**stored, **run_session(open_session(probe, path), feeds, list(types), path)}
