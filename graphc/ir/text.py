"""Graph text: A-normal form with types and source lines, printed and parsed back.

::

    graph {
      %0 = input{label='x'}() : f32[batch, 3]
      %1 = parameter{label='w'}() : f32[3]
      %2 = matmul(%0, %1) : f32[batch]   # model.py:12
      return 'loss' = %2
      update %1 = %2
    }

The graphs that ops run, such as the step of a scan, stand in front as blocks of their own: ``body0 {``, ``body1 {``.
Attributes print as Python literals; element types by their short names, shapes in square brackets
(``[batch, 3]``), tuples of plain ints in round ones. Parameters and large constants print by name and digest, and
parsing takes their values from the outside.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.errors import GraphcError, ParseError
from graphc.ir.dims import Dim, parse_size
from graphc.ir.graph import Graph
from graphc.ir.location import user_line
from graphc.ir.node import Constant, Input, Node, Parameter, ParameterLeaf, constant, intern
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType, as_dtype

_INLINE_BYTES = 64


def print_attribute(value: Any) -> str:
    """An attribute as text that :func:`parse_attribute` reads back."""
    if isinstance(value, DType):
        return value.short
    if isinstance(value, TensorType):
        return f"type({value.dtype.short}, {print_sizes(value.shape)})"
    if isinstance(value, Dim):
        return f"size({value})"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
    if isinstance(value, tuple):
        items: tuple[Any, ...] = value  # pyright: ignore[reportUnknownVariableType]
        if any(isinstance(item, Dim) for item in items):
            return print_sizes(items)
        return "(" + "".join(print_attribute(item) + ", " for item in items).rstrip(" ") + ")"
    return repr(value)


def print_sizes(sizes: tuple[Any, ...]) -> str:
    """A shape in brackets."""
    return "[" + ", ".join(map(str, sizes)) + "]"


def print_node(
    node: Node, names: Mapping[int, str], lines: bool = True, bodies: Mapping[int, str] | None = None
) -> str:
    """One line of graph text; ``bodies`` has the names of the graphs that ops run, by ``id``."""
    if isinstance(node.op, Constant):
        attributes = _constant_text(node.op)
    else:
        shown_keys = (key for key in node.op.attributes if key != "type")
        values = ((key, getattr(node.op, key)) for key in shown_keys)
        attributes = ", ".join(f"{key}={_body_name(value, bodies) or print_attribute(value)}" for key, value in values)
    shown = f"{{{attributes}}}" if attributes else ""
    args = ", ".join(names[id(arg)] for arg in node.args)
    where = f"   # {node.loc.short}" if lines and node.loc else ""
    return f"{names[id(node)]} = {node.op.name}{shown}({args}) : {node.type}{where}"


def _body_name(value: object, bodies: Mapping[int, str] | None) -> str | None:
    if not isinstance(value, Graph):
        return None
    return (bodies or {}).get(id(value), "body")


def _constant_text(op: Constant) -> str:
    if len(op.data) > _INLINE_BYTES:
        return f"digest={op.digest!r}"
    values = [print_attribute(item) for item in op.array.ravel().tolist()]
    return "values=(" + "".join(value + ", " for value in values).rstrip(" ") + ")"


def print_graph(graph: Graph, lines: bool = True) -> str:
    """The whole graph as text. ``lines=False`` leaves the source lines out."""
    bodies: dict[int, str] = {}
    blocks: list[str] = []
    _print_bodies(graph, lines, bodies, blocks)
    return "".join([*blocks, _print_block("graph", graph, lines, bodies)])


def _print_bodies(graph: Graph, lines: bool, bodies: dict[int, str], blocks: list[str]) -> None:
    """Name and print the graphs that a graph's ops run, inner ones first."""
    for node in graph.nodes:
        for body in node.op.bodies:
            if id(body) not in bodies:
                _print_bodies(body, lines, bodies, blocks)
                bodies[id(body)] = f"body{len(bodies)}"
                blocks.append(_print_block(bodies[id(body)], body, lines, bodies))


def _print_block(title: str, graph: Graph, lines: bool, bodies: Mapping[int, str]) -> str:
    names: dict[int, str] = {}
    listed = {id(node) for node in graph.inputs}
    order = (*graph.inputs, *(node for node in graph.nodes if id(node) not in listed))
    extra = tuple(p for p, _ in graph.updates if id(p) not in {id(node) for node in order})
    for node in (*order, *extra):
        names[id(node)] = f"%{len(names)}"
    rows = [print_node(node, names, lines, bodies) for node in (*order, *extra)]
    rows += [f"return {name!r} = {names[id(node)]}" for name, node in graph.outputs]
    rows += [f"update {names[id(p)]} = {names[id(node)]}" for p, node in graph.updates]
    return title + " {\n" + "".join(f"  {row}\n" for row in rows) + "}\n"


_BLOCK = re.compile(r"(graph|body\d+) \{")
_LINE = re.compile(r"(%\d+) = (\w+)(?:\{(.*)\})?\(([^()]*)\) : (?:(\w+)\[(.*?)\]|(\(.*?\)))(?:   # .*)?")
_RETURN = re.compile(r"return (.+) = (%\d+)")
_UPDATE = re.compile(r"update (%\d+) = (%\d+)")


def parse_graph(
    text: str,
    registry: Mapping[str, type[Op]],
    parameters: Mapping[str, Parameter] | None = None,
    constants: Mapping[str, Any] | None = None,
) -> Graph:
    """Read graph text back.

    Args:
        registry: op classes by name (``graphc.ir.op.registry``).
        parameters: the parameters by name; those missing are made, filled with zeros.
        constants: large constants by digest.

    Raises:
        ParseError: with the line number and the text at fault.
    """
    nodes: dict[str, Node] = {}
    inputs: list[Node] = []
    outputs: list[tuple[str, Node]] = []
    updates: list[tuple[Parameter, Node]] = []
    bodies: dict[str, Graph] = {}
    title = "graph"
    rows = text.splitlines()
    for number, row in enumerate(rows, 1):
        line = row.strip()
        if not line:
            continue
        if found := _BLOCK.fullmatch(line):
            title = found[1]
            continue
        if line == "}":
            if title != "graph":
                bodies[title] = Graph(tuple(inputs), tuple(outputs))
                nodes, inputs, outputs = {}, [], []
            continue
        try:
            if found := _LINE.fullmatch(line):
                node = _parse_node(found, nodes, registry, parameters or {}, constants or {}, bodies)
                nodes[found[1]] = node
                if isinstance(node.op, Input):
                    inputs.append(node)
            elif found := _RETURN.fullmatch(line):
                outputs.append((ast.literal_eval(found[1]), nodes[found[2]]))
            elif found := _UPDATE.fullmatch(line):
                target = nodes[found[1]]
                if not isinstance(target, Parameter):
                    raise ValueError(f"{found[1]} is not a parameter")
                updates.append((target, nodes[found[2]]))
            else:
                raise ValueError("neither a node, a return nor an update")
        except (ValueError, KeyError, TypeError, SyntaxError, GraphcError) as error:
            said = f"{error.args[0]!r} is not defined" if isinstance(error, KeyError) else str(error)
            raise ParseError(
                f"graph text, line {number}: {said}",
                details=(line,),
                at=user_line(),
                remedy="see docs/architecture.md for the grammar",
            ) from None
    return Graph(tuple(inputs), tuple(outputs), tuple(updates))


def _parse_node(
    found: re.Match[str],
    nodes: Mapping[str, Node],
    registry: Mapping[str, type[Op]],
    parameters: Mapping[str, Parameter],
    constants: Mapping[str, Any],
    bodies: Mapping[str, Graph],
) -> Node:
    _, name, attributes_text, args_text, dtype_text, shape_text, parts_text = found.groups()
    args = tuple(nodes[arg.strip()] for arg in args_text.split(",") if arg.strip())
    attributes = parse_attributes(attributes_text or "", bodies)
    if name not in registry:
        raise ValueError(f"no op is called {name!r}")
    cls = registry[name]
    if parts_text is not None:
        op = cls(**attributes)
        whole = op.infer(*[arg.type for arg in args])
        if str(whole) != parts_text:
            raise ValueError(f"the type is written as {parts_text} but is {whole}")
        return intern(op, args, whole)
    type = TensorType(as_dtype(dtype_text), _parse_shape(shape_text))
    if cls is Constant:
        if "digest" in attributes:
            return constant(np.asarray(constants[attributes["digest"]]))
        values = np.array(attributes["values"], type.dtype.numpy)
        return constant(values.reshape([int(size) for size in type.shape]))  # pyright: ignore[reportArgumentType]
    if cls is Input:
        return Node(Input(attributes["label"], type), (), type, None)
    if cls is ParameterLeaf:
        label = attributes["label"]
        if label in parameters:
            return parameters[label]
        return Parameter(label, np.zeros([int(n) for n in type.shape], type.dtype.numpy))  # pyright: ignore[reportArgumentType]
    op = cls(**attributes, **({"type": type} if "type" in cls.attributes else {}))
    inferred = op.infer(*[arg.type for arg in args])
    if inferred != type:
        raise ValueError(f"the type is written as {type} but is {inferred}")
    return intern(op, args, type)


def _parse_shape(text: str) -> tuple[Any, ...]:
    call = ast.parse(f"f({text})", mode="eval").body
    if not isinstance(call, ast.Call):
        raise ValueError(f"not a shape: [{text}]")
    return tuple(parse_size(ast.unparse(item)) for item in call.args)


def parse_attributes(text: str, bodies: Mapping[str, Graph] | None = None) -> dict[str, Any]:
    """The attributes between the braces of a line; ``bodies`` are the graphs that they may name."""
    call = ast.parse(f"f({text})", mode="eval").body
    if not isinstance(call, ast.Call):
        raise ValueError(f"not attributes: {text!r}")
    known = bodies or {}
    return {
        str(item.arg): known[item.value.id]
        if isinstance(item.value, ast.Name) and item.value.id in known
        else parse_attribute(item.value)
        for item in call.keywords
    }


def parse_attribute(node: ast.expr) -> Any:
    """The value of an attribute's expression; see :func:`print_attribute`."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -parse_attribute(operand)
        case ast.Tuple(elts=items):
            return tuple(parse_attribute(item) for item in items)
        case ast.List(elts=items):
            return tuple(parse_size(ast.unparse(item)) for item in items)
        case ast.Call(func=ast.Name(id="size"), args=[item]):
            return parse_size(ast.unparse(item))
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str() as value)]):
            return float(value)
        case ast.Call(func=ast.Name(id="type"), args=[dtype, shape]):
            return TensorType(parse_attribute(dtype), parse_attribute(shape))
        case ast.Name(id=name):
            return as_dtype(name)
        case _:
            raise ValueError(f"not an attribute: {ast.unparse(node)}")
