"""The graph of layer calls behind a model: found from its inputs and outputs, run on nodes, written as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from graphc.errors import FileError, GraphError, ShapeError
from graphc.frontend import nest, tracing
from graphc.frontend.arguments import shown
from graphc.frontend.config import Json, deserialize, serialize, user_line
from graphc.frontend.layers.base import Layer
from graphc.frontend.layers.core import InputLayer, Lambda
from graphc.frontend.layers.expression import expression_for
from graphc.frontend.tracing import Call, Symbol
from graphc.ir import location
from graphc.ir.node import Node


@dataclass(frozen=True, eq=False)
class CallGraph:
    """Layer calls in the order in which they run.

    Attributes:
        inputs: the structure of symbols that the model is fed with.
        outputs: the structure of symbols that it returns.
        calls: the calls, inputs not included, operands before users.
        layers: each layer once, in the order in which Keras lists them.
    """

    inputs: Any
    outputs: Any
    calls: tuple[Call, ...]
    layers: tuple[Layer, ...]

    @property
    def input_layers(self) -> list[InputLayer]:
        """The layers of the inputs, in the order of the model's arguments."""
        return [symbol.call.layer for symbol in nest.leaves(self.inputs)]

    def run(self, values: Sequence[Node]) -> Any:
        """The outputs for these input nodes. Must run inside a trace."""
        known: dict[int, Node] = {
            id(symbol): value for symbol, value in zip(nest.leaves(self.inputs), values, strict=True)
        }

        def value_of(leaf: Any) -> Any:
            return known[id(leaf)] if isinstance(leaf, Symbol) else leaf

        for call in self.calls:
            args, kwargs = nest.map_leaves(value_of, (call.args, call.kwargs))
            if has_lines_of_its_own(call.layer):
                results = call.layer(*args, **kwargs)
            else:
                with location.at(call.loc):
                    results = call.layer(*args, **kwargs)
            for symbol, result in zip(nest.leaves(call.outputs), nest.leaves(results), strict=True):
                if isinstance(symbol, Symbol):
                    known[id(symbol)] = result
        return nest.map_leaves(value_of, self.outputs)

    def to_json(self) -> Json:
        """Layers with their calls; symbols as [layer's name, number of the call, number of the output]."""
        names: dict[int, list[Any]] = {}
        counts: dict[int, int] = {}
        rows: dict[int, dict[str, Any]] = {id(layer): {"layer": serialize(layer), "calls": []} for layer in self.layers}
        for call in (*(symbol.call for symbol in nest.leaves(self.inputs)), *self.calls):
            index = counts.get(id(call.layer), 0)
            counts[id(call.layer)] = index + 1
            for position, leaf in enumerate(nest.leaves(call.outputs)):
                names[id(leaf)] = [call.layer.name, index, position]
            if not isinstance(call.layer, InputLayer):
                arguments = {"args": written(call.args, names), "kwargs": written(call.kwargs, names)}
                rows[id(call.layer)]["calls"].append(arguments)
        order = [[call.layer.name, _index_in(self.calls, call)] for call in self.calls]
        return {
            "layers": list(rows.values()),
            "order": order,
            "inputs": written(self.inputs, names),
            "outputs": written(self.outputs, names),
        }


def _index_in(calls: Sequence[Call], call: Call) -> int:
    return [one for one in calls if one.layer is call.layer].index(call)


def has_lines_of_its_own(layer: Layer) -> bool:
    """Is the code of the layer the user's? Then its own lines say more than the line of the call."""
    return isinstance(layer, Lambda) or not type(layer).__module__.startswith("graphc.")


def find_calls(inputs: Any, outputs: Any) -> CallGraph:
    """The calls between inputs and outputs.

    Expressions of ordinary operators between symbols become layers.

    Raises:
        GraphError: an input is no symbol, or an output depends on an Input that is not listed.
    """
    given = nest.leaves(inputs)
    for leaf in given:
        if not isinstance(leaf, Symbol):
            raise GraphError(
                f"{shown(leaf)} is not an input", at=user_line(), remedy="list what gx.Input(...) returned"
            )
    if len({id(leaf) for leaf in given}) != len(given):
        raise GraphError("an input is listed twice", at=user_line(), remedy="list each Input once")
    starts = nest.map_leaves(_as_input, inputs)
    replaced = {id(old): new for old, new in zip(given, nest.leaves(starts), strict=True)}
    finder = _Finder(replaced)
    symbols = nest.map_leaves(finder.symbol, outputs)
    finder.visit(nest.leaves(symbols))
    return CallGraph(starts, symbols, *finder.ordered(nest.leaves(starts)))


def _as_input(symbol: Symbol) -> Symbol:
    """The symbol itself, or an input of its type if it is the result of a layer (a model cut open there)."""
    if isinstance(symbol.call.layer, InputLayer):
        return symbol
    made = InputLayer(symbol.shape[1:], None, symbol.dtype)
    return made.symbol


class _Finder:
    def __init__(self, replaced: Mapping[int, Symbol]) -> None:
        self._replaced = replaced
        self._expressions: dict[int, Symbol] = {}
        self._order: list[Call] = []
        self._seen: set[int] = set()
        self._arguments: dict[int, Call] = {}
        self._layer_index: dict[int, int] = {}
        self._originals: list[Call] = []

    def symbol(self, leaf: Any) -> Any:
        """The symbol of a leaf of the outputs or of a call's arguments; an expression becomes a call."""
        if not isinstance(leaf, Node):
            return leaf
        if isinstance(leaf, Symbol):
            return self._replaced.get(id(leaf), leaf)
        symbols = tracing.symbols_of(leaf)
        if not symbols:
            return leaf
        made = self._expressions.get(id(leaf))
        if made is None:
            layer = expression_for(leaf, symbols)
            with location.at(leaf.loc):
                made = self._expressions[id(leaf)] = layer.call_on_symbols(symbols[0].scope, tuple(symbols), {})
        return made

    def visit(self, outputs: Sequence[Any]) -> None:
        """Depth first from the outputs, operands before users."""
        stack: list[tuple[Call, bool]] = [(leaf.call, False) for leaf in reversed(outputs) if isinstance(leaf, Symbol)]
        for leaf in outputs:
            if not isinstance(leaf, Symbol):
                raise GraphError(
                    f"the output {shown(leaf)} does not depend on any Input",
                    at=user_line(),
                    remedy="outputs are what layers return when called on inputs",
                )
        while stack:
            call, ready = stack.pop()
            if ready:
                self._order.append(self._arguments[id(call)])
            elif id(call) not in self._seen:
                self._seen.add(id(call))
                self._originals.append(call)
                self._layer_index.setdefault(id(call.layer), len(self._layer_index))
                args, kwargs = nest.map_leaves(self.symbol, (call.args, call.kwargs))
                self._arguments[id(call)] = Call(call.layer, args, kwargs, call.outputs, call.loc, call.number)
                stack.append((call, True))
                needed = [leaf.call for leaf in nest.leaves((args, kwargs)) if isinstance(leaf, Symbol)]
                stack.extend((one, False) for one in reversed(needed) if id(one) not in self._seen)

    def ordered(self, starts: Sequence[Symbol]) -> tuple[tuple[Call, ...], tuple[Layer, ...]]:
        """The calls, and the layers by their distance from the outputs, the farthest first, as Keras has them."""
        listed = {id(symbol.call.layer) for symbol in starts}
        depth_of_call: dict[int, int] = {}
        depth_of_layer: dict[int, int] = {}
        layers: dict[int, Layer] = {}
        made_by = {id(leaf): call for call in self._order for leaf in nest.leaves(call.outputs)}
        for call in reversed(self._order):
            if isinstance(call.layer, InputLayer) and id(call.layer) not in listed:
                raise GraphError(
                    f"the outputs depend on input {call.layer.name!r}, which is not listed",
                    details=(str(call.loc),) if call.loc else (),
                    at=user_line(),
                    remedy=f"add it: Model(inputs=[..., {call.layer.name}], outputs=...)",
                )
            depth = max(depth_of_call.get(id(call), 0), depth_of_layer.get(id(call.layer), 0))
            depth_of_call[id(call)] = depth_of_layer[id(call.layer)] = depth
            layers[id(call.layer)] = call.layer
            for leaf in nest.leaves((call.args, call.kwargs)):
                if isinstance(leaf, Symbol):
                    source = made_by[id(leaf)]
                    depth_of_call[id(source)] = max(depth_of_call.get(id(source), 0), depth + 1)
        for symbol in starts:
            layer = symbol.call.layer
            if id(layer) not in layers:
                layers[id(layer)], depth_of_layer[id(layer)] = layer, 0
                self._layer_index[id(layer)] = -1
        order = sorted(layers, key=lambda key: (-depth_of_layer[key], self._layer_index[key]))
        calls = tuple(call for call in self._order if not isinstance(call.layer, InputLayer))
        return calls, tuple(layers[key] for key in order)


def from_json(data: Json, custom_objects: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
    """Inputs and outputs of what :meth:`CallGraph.to_json` wrote, with new layers.

    Raises:
        FileError: the text refers to a layer that it does not hold.
    """
    made: dict[str, tuple[Layer, list[Json]]] = {}
    outputs: dict[tuple[str, int], list[Any]] = {}
    with tracing.new_scope() as scope:
        for row in data["layers"]:
            layer: Layer = deserialize(row["layer"], custom_objects)
            made[layer.name] = (layer, row["calls"])
            if isinstance(layer, InputLayer):
                outputs[layer.name, 0] = [layer.symbol]
        try:
            for name, index in data["order"]:
                layer, calls = made[name]
                args, kwargs = (read(calls[index][part], outputs, custom_objects) for part in ("args", "kwargs"))
                symbols = layer.call_on_symbols(scope, tuple(args), kwargs)
                outputs[name, index] = nest.leaves(symbols)
            return read(data["inputs"], outputs), read(data["outputs"], outputs)
        except (KeyError, IndexError) as error:
            raise FileError(
                f"the layers of the model do not fit together: {error}", remedy="the file is damaged; save it again"
            ) from None


def written(structure: Any, names: Mapping[int, list[Any]]) -> Json:
    """A structure of symbols (by their names) and plain values as JSON."""
    if isinstance(structure, Symbol):
        return {"symbol": names[id(structure)]}
    if isinstance(structure, tuple | list):
        kind = "tuple" if isinstance(structure, tuple) else "list"
        return {kind: [written(item, names) for item in cast("list[Any]", structure)]}
    if isinstance(structure, dict):
        return {"keys": {str(key): written(item, names) for key, item in cast("dict[Any, Any]", structure).items()}}
    if isinstance(structure, Node):
        raise GraphError(
            f"{structure!r} is an argument of a layer but no result of one, so it has no form in a file",
            remedy="compute it from an Input, or give it to the layer's constructor",
        )
    return {"value": serialize(structure)}


def read(
    data: Json, outputs: Mapping[tuple[str, int], list[Any]], custom_objects: Mapping[str, Any] | None = None
) -> Any:
    """The structure that :func:`written` wrote."""
    if "symbol" in data:
        name, index, position = data["symbol"]
        return outputs[name, index][position]
    if "tuple" in data:
        return tuple(read(item, outputs, custom_objects) for item in data["tuple"])
    if "list" in data:
        return [read(item, outputs, custom_objects) for item in data["list"]]
    if "keys" in data:
        return {key: read(item, outputs, custom_objects) for key, item in data["keys"].items()}
    return deserialize(data["value"], custom_objects)


def check_inputs(graph: CallGraph, values: Sequence[Node], owner: str) -> None:
    """Refuse nodes that do not fit the inputs of a model.

    Raises:
        ShapeError: another number of inputs, or sizes that differ.
    """
    wanted = graph.input_layers
    if len(values) != len(wanted):
        raise ShapeError(
            f"model {owner!r} takes {len(wanted)} inputs, {len(values)} were given",
            details=tuple(f"{layer.name}: {layer.type}" for layer in wanted),
            at=user_line(),
            remedy="give one value for each input, in this order",
        )
    for layer, value in zip(wanted, values, strict=True):
        expected = layer.type.shape
        fits = len(expected) == value.ndim and all(
            not isinstance(a, int) or not isinstance(b, int) or a == b
            for a, b in zip(expected, value.shape, strict=True)
        )
        if not fits:
            raise ShapeError(
                f"input {layer.name!r} of model {owner!r} is {layer.type}, the value given is {value.type}",
                at=user_line(),
                remedy="give a value of this shape",
            )
