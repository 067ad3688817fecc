"""Writes a graph as an ONNX file: the forward pass, or a whole training step."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto, ValueInfoProto, defs, helper

import graphc
from graphc.backends.onnx.cond import write_cond
from graphc.backends.onnx.lines import portable_line_of
from graphc.backends.onnx.recurrent import Recurrent, fold_weights, weight_names, write_loops_whole, write_recurrent
from graphc.backends.onnx.rules import decomposed, forward_only, is_whole, write_node
from graphc.backends.onnx.scan import write_scan
from graphc.backends.onnx.sizes import Sizes
from graphc.backends.onnx.transposes import move_transposes
from graphc.backends.onnx.writer import ONNX_TYPE, Names, Writer
from graphc.errors import ExportError, FileError
from graphc.ir.graph import Graph
from graphc.ir.location import user_line
from graphc.ir.node import Constant, Node, Parameter
from graphc.ir.precision import Precision
from graphc.ir.sweep import Part
from graphc.ir.types import TupleType
from graphc.ops.base import as_int
from graphc.ops.cond import Cond
from graphc.ops.halves import widen_all_halves
from graphc.ops.scan import Scan
from graphc.passes import MixedPrecision, simplify_graph

OLDEST_OPSET = 17
DEFAULT_OPSET = 21
IR_VERSION = 10
LARGEST_FILE_BYTES = 2**31 - 1  # Protocol Buffers can hold no more
WEIGHTS_PROPERTY = "graphc.weights"
"""The metadata entry of a file that holds no parameters: which of its inputs they are."""


def export(
    what: Any,
    path: str | os.PathLike[str],
    *,
    opset: int = DEFAULT_OPSET,
    training: bool | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a program, or a graph, as one ONNX file that holds standard ``ai.onnx`` operators only.

    Inputs and outputs keep their names and symbolic sizes. Parameters are initializers, but for those that the
    program updates: such a parameter ``w`` is the input ``state/w``, whose initial value the file holds, and the
    output ``state_next/w``; a runtime feeds the outputs of one step as the inputs of the next.

    Args:
        what: a :class:`~graphc.program.Program` or a :class:`~graphc.ir.graph.Graph`.
        path: the file to write; an existing one is replaced only when the new one is complete.
        opset: the version of the operators, 17 to the newest that the ``onnx`` package knows.
        training: how ``when_training`` is resolved in a graph; a program has resolved it already.
        weights: a safetensors file to write the values of all parameters to. The ONNX file then holds none of them:
            each parameter ``w``, updated or not, is the input ``state/w``, which has to be fed. onnxruntime-web asks
            for that, and models beyond 2 GB need it.

    Returns:
        The path of the file.

    Raises:
        ExportError: an operation has no form in this opset; the message names the user's line.
        FileError: a file cannot be written.
    """
    exported = build_model(what, opset=opset, training=training, held=weights is None)
    model, target = exported.model, Path(path)
    size = model.ByteSize()
    if size > LARGEST_FILE_BYTES:
        raise ExportError(
            f"the model needs {size} bytes, one ONNX file holds at most {LARGEST_FILE_BYTES}",
            remedy="write the weights into a file of their own: weights='model.safetensors'",
        )
    if weights is not None:
        _write_weights(Path(weights), exported)
    _write_whole(target, model.SerializeToString(deterministic=True))
    return target


@dataclass(frozen=True)
class State:
    """An updated parameter in the file: the values it has before and after a step."""

    parameter: Parameter
    before: str
    after: str


@dataclass(frozen=True)
class Exported:
    """A model and which of its values hold what of the graph.

    Attributes:
        model: the ONNX model.
        graph: the graph as it was written, every composite without an ONNX form decomposed.
        inputs: ONNX names of ``graph.inputs``.
        outputs: ONNX names of ``graph.outputs``.
        states: the updated parameters.
        given: where the file does not hold them, the other parameters, each with the input that it is.
        values: the ONNX name of each node of ``graph``, by ``id``; some are gone where transposes were moved.
    """

    model: ModelProto
    graph: Graph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: tuple[State, ...]
    given: tuple[tuple[Parameter, str], ...]
    values: dict[int, str]


def build_model(what: Any, *, opset: int = DEFAULT_OPSET, training: bool | None = None, held: bool = True) -> Exported:
    """The ONNX model of a program or graph, in memory; see :func:`export`.

    Args:
        what, opset, training: as there.
        held: whether the model holds the values of parameters; otherwise all are inputs.
    """
    newest = defs.onnx_opset_version()
    said, opset = opset, as_int(opset) or 0
    if not OLDEST_OPSET <= opset <= newest:
        raise ExportError(
            f"opset {said!r} is not one that can be written",
            at=user_line(),
            remedy=f"use {OLDEST_OPSET} to {newest}; newer ones need a newer onnx package",
        )
    # Few of onnxruntime's CPU kernels take halves: values keep these types, between conversions all is float32.
    mixed = _mixed(what, _graph_of(what, training))
    whole = _one_loop_each(mixed).rebuild(widen_all_halves)
    plain = decomposed(whole, lambda node: is_whole(node, opset))
    graph = _mixed(what, plain, results=False).rebuild(widen_all_halves)
    graph = fold_weights(graph) if held else graph
    writer = Writer(opset, Names())
    unique = writer.names.unique
    inputs = tuple(unique(node.name or "") for node in graph.inputs)
    outputs = tuple(unique(name) for name, _ in graph.outputs)
    states = tuple(
        State(target, unique(f"state/{target.label}"), unique(f"state_next/{target.label}"))
        for target, _ in graph.updates
    )
    updated = {state.parameter for state in states}
    read = () if held else tuple(parameter for parameter in graph.parameters if parameter not in updated)
    given = tuple((parameter, unique(f"state/{parameter.label}")) for parameter in read)
    writer.sizes = Sizes(writer, zip(inputs, graph.inputs, strict=True))
    outside = [*zip(graph.inputs, inputs, strict=True), *given, *((state.parameter, state.before) for state in states)]
    values = {id(node): name for node, name in outside}
    if held:
        for state in states:
            writer.initializer(state.before, state.parameter.value)
    _write_leaves(writer, graph, values)
    results = (*zip(outputs, graph.roots, strict=False), *_next_states(graph, states))
    _write_operations(writer, graph, values, results)
    boundary = {name for _, name in outside} | {name for name, _ in results}
    body = helper.make_graph(
        writer.nodes,
        "training_step" if states else "inference",
        [_value_info(name, node) for node, name in outside],
        [_value_info(name, node) for name, node in results],
        initializer=writer.initializers,
        value_info=_intermediates(graph, values, boundary | {tensor.name for tensor in writer.initializers}),
    )
    model = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
        producer_name="graphc",
        producer_version=graphc.__version__,
    )
    move_transposes(model)
    exported = Exported(model, graph, inputs, outputs, states, given, values)
    helper.set_model_props(model, _properties(exported, held))
    return exported


def _graph_of(what: Any, training: bool | None) -> Graph:
    graph = what if isinstance(what, Graph) else getattr(what, "graph", None)
    if not isinstance(graph, Graph):
        raise ExportError(
            f"{type(what).__name__} is neither a program nor a graph",
            at=user_line(),
            remedy="give what gx.compile(...) returned; a model is written by model.export(path)",
        )
    resolved: bool | None = getattr(what, "training", None)
    if None not in (resolved, training) and resolved != training:
        raise ExportError(
            f"the program was compiled with training={resolved}, not {training}",
            remedy=f"compile it with training={training}, or export it without saying",
        )
    return forward_only(graph, bool(training if resolved is None else resolved))


def _one_loop_each(graph: Graph) -> Graph:
    """The graph with as few and as small loops as in a program: a runtime does not take anything out of them."""
    if not any(node.op.bodies for node in graph.nodes):
        return graph
    return simplify_graph(write_loops_whole(graph))[0]


def _mixed(what: Any, graph: Graph, results: bool = True) -> Graph:
    """The graph with the rounded products that the program has."""
    precision = getattr(what, "precision", None)
    factors = precision.factors if isinstance(precision, Precision) else None
    return graph if factors is None else MixedPrecision(factors, results).run(graph)


def _next_states(graph: Graph, states: tuple[State, ...]) -> Iterable[tuple[str, Node]]:
    return ((state.after, node) for state, (_, node) in zip(states, graph.updates, strict=True))


def _write_leaves(writer: Writer, graph: Graph, values: dict[int, str]) -> None:
    """Write constants and the parameters that are no inputs."""
    for parameter in graph.parameters:
        if id(parameter) not in values:
            name = writer.names.unique(parameter.label)
            values[id(parameter)] = writer.initializer(name, parameter.value, portable_line_of(parameter))
    weights = weight_names(graph)
    for node in graph.nodes:
        if id(node) in weights and isinstance(node.op, Constant):
            name = writer.names.unique(weights[id(node)])
            values[id(node)] = writer.initializer(name, node.op.array, portable_line_of(node))
        elif isinstance(node.op, Constant):
            values[id(node)] = writer.constant(node.op.array)


def _write_operations(
    writer: Writer, graph: Graph, values: dict[int, str], results: Sequence[tuple[str, Node]]
) -> None:
    """Write all nodes that are no leaves; what a result's name stands for takes that name, or is copied to it."""
    wanted = {id(node): name for name, node in reversed(results)}
    parts: dict[int, tuple[str, ...]] = {}
    for node in graph.nodes:
        if id(node) in values:
            continue
        if isinstance(node.op, Scan | Cond):
            write = write_scan if isinstance(node.op, Scan) else write_cond
            with writer.scope(node.op.name, portable_line_of(node)):
                operands = [values[id(arg)] for arg in node.args]
                parts[id(node)] = write(writer, node, operands, _write_operations, _value_info)
            continue
        if isinstance(node.op, Recurrent):
            with writer.scope("recurrent", portable_line_of(node)):
                parts[id(node)] = write_recurrent(writer, node, [values[id(arg)] for arg in node.args])
            continue
        if isinstance(node.op, Part):
            values[id(node)] = parts[id(node.args[0])][node.op.index]
            continue
        label, since = writer.names.unique(node.op.name), len(writer.nodes)
        with writer.scope(label, portable_line_of(node)):
            value = write_node(writer, node, tuple(values[id(arg)] for arg in node.args))
        if value.startswith(f"{label}/") and any(value in made.output for made in writer.nodes[since:]):
            own_name = wanted.get(id(node), label)
            writer.rename(value, own_name, since)
            value = own_name
        values[id(node)] = value
    for name, node in results:
        if values[id(node)] != name:
            with writer.scope(name, portable_line_of(node)):
                writer.emit_named(name, "Identity", values[id(node)])


def _value_info(name: str, node: Node) -> ValueInfoProto:
    shape = [size if isinstance(size, int) else str(size) for size in node.shape]
    doc = portable_line_of(node)
    return helper.make_tensor_value_info(name, ONNX_TYPE[node.dtype], shape, doc)


def _intermediates(graph: Graph, values: dict[int, str], known: set[str]) -> list[ValueInfoProto]:
    """The types of what the graph's nodes became, so that the file can be read without inferring shapes."""
    found: dict[str, ValueInfoProto] = {}
    for node in graph.nodes:
        if isinstance(node.type, TupleType):
            continue
        name = values[id(node)]
        if name not in known and name not in found:
            found[name] = _value_info(name, node)
    return list(found.values())


def _properties(exported: Exported, held: bool) -> dict[str, str]:
    """What a program that runs the file may want to know beyond ONNX: the pairs of states, and names that changed."""
    users = {
        **{name: node.name or "" for name, node in zip(exported.inputs, exported.graph.inputs, strict=True)},
        **{name: user for name, (user, _) in zip(exported.outputs, exported.graph.outputs, strict=True)},
        **{state.before: f"state/{state.parameter.label}" for state in exported.states},
        **{state.after: f"state_next/{state.parameter.label}" for state in exported.states},
        **{name: f"state/{parameter.label}" for parameter, name in exported.given},
    }
    properties = {
        "graphc.states": {state.before: state.after for state in exported.states},
        "graphc.names": {name: user for name, user in users.items() if name != user},
        WEIGHTS_PROPERTY: [] if held else list(_weights(exported)),
    }
    return {key: json.dumps(value) for key, value in properties.items() if value}


def _weights(exported: Exported) -> dict[str, Parameter]:
    """All parameters, by the inputs that they are."""
    return {
        **{state.before: state.parameter for state in exported.states},
        **{name: parameter for parameter, name in exported.given},
    }


def _write_weights(path: Path, exported: Exported) -> None:
    """Write the values of all parameters, with the metadata of the model: a runtime may not hand those out."""
    from safetensors.numpy import save

    metadata = {entry.key: entry.value for entry in exported.model.metadata_props}
    _write_whole(path, save({name: parameter.value for name, parameter in _weights(exported).items()}, metadata))


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name and then rename it, so that no reader meets half of it."""
    temporary = path.with_name(f".graphc-{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise FileError(f"cannot write {path}: {error.strerror}", remedy=_remedy_for(path)) from error


def _remedy_for(path: Path) -> str:
    if os.path.isdir(path):
        return "this is a folder: give the name of a file in it"
    if not os.path.isdir(path.parent):
        return f"there is no folder {path.parent}: make it first"
    return "check the permissions of the folder and the space left on its disk"
