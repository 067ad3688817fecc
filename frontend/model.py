"""Models: layers with inputs and outputs. Declared by symbols, as a sequence, or by subclassing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, cast

import numpy as np

from graphc.errors import GraphError, NameClashError, ShapeError
from graphc.frontend import functional, nest, tracing
from graphc.frontend.arguments import is_whole, shown, suggestion
from graphc.frontend.config import Written, user_line
from graphc.frontend.data.arrays import as_numpy, distribute
from graphc.frontend.data.batches import is_batch_source
from graphc.frontend.functional import CallGraph
from graphc.frontend.layers.base import Layer
from graphc.frontend.layers.core import InputLayer
from graphc.frontend.layers.weights import WeightHolder, name_layers
from graphc.frontend.presented import Presented
from graphc.frontend.stored import Stored
from graphc.frontend.tracing import Call, Symbol
from graphc.frontend.training import Trainer
from graphc.ir import location
from graphc.ir.node import Node
from graphc.ir.types import kind_of


class Model(Trainer, Presented, Stored):
    """A model from inputs to outputs, with branches, shared layers, several inputs and outputs.

    Either give ``inputs`` and ``outputs``, or subclass it, make layers in ``__init__`` and use them in ``call``; then
    the shapes of the inputs are those of the first data. A model is a layer, too: call it on symbols or nodes.

    Args:
        inputs: what ``gx.Input`` returned: one, a list, or a dict by name.
        outputs: what layers returned: one, a list, or a dict by name.
        name: what it is called where it is a layer of another model.
        trainable: whether training changes the weights.

    Raises:
        GraphError: the outputs depend on an input that is not listed.
        NameClashError: two layers have the same name.

    >>> import graphc as gx
    >>> a, b = gx.Input((4,), name="a"), gx.Input((6,), name="b")
    >>> h = gx.layers.Concatenate()([a, b])
    >>> model = gx.Model(inputs=[a, b], outputs=gx.layers.Dense(2)(h))
    >>> model.count_params()
    22
    """

    _graph: CallGraph | None
    _feeds: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls, *args, **kwargs)
        self._graph = None
        self._feeds = None
        return self

    def __init__(
        self, inputs: Any = None, outputs: Any = None, name: str | None = None, trainable: bool = True
    ) -> None:
        super().__init__(name=name, trainable=trainable)
        if (inputs is None) != (outputs is None):
            raise GraphError(
                "a model needs inputs and outputs", at=user_line(), remedy="write Model(inputs=..., outputs=...)"
            )
        if inputs is not None:
            self._declare(inputs, outputs)

    def _declare(self, inputs: Any, outputs: Any) -> None:
        graph = functional.find_calls(inputs, outputs)
        self._graph = graph
        self._own(sorted(graph.layers, key=lambda layer: layer.calls[0].number))
        for symbol in nest.leaves(graph.inputs):
            tracing.close_scope(symbol.scope)
        self.built = True
        self.programs.clear()

    def _own(self, layers: Sequence[WeightHolder]) -> None:
        """Make these the model's layers: number those without a name, and put their weights on the model's paths."""
        name_layers(layers, rename=True)
        prefix = "" if self._path is None else f"{self._path}/"
        for layer in layers:
            layer.adopt(prefix + layer.name, self._ordinal or 0)
            layer.owned = True

    # Layers.

    @property
    def layers(self) -> list[Layer]:
        """The layers, in Keras's order: those farthest from the outputs first, inputs included."""
        return [layer for layer in self.sublayers if isinstance(layer, Layer)]

    @property
    def sublayers(self) -> list[WeightHolder]:
        """The layers of the model."""
        if self._graph is not None and not self._is_subclassed():
            return list(self._graph.layers)
        return super().sublayers

    def _is_subclassed(self) -> bool:
        return type(self).call is not Model.call

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of this name, or at this place.

        Raises:
            NameClashError: there is no such layer.
        """
        layers = self.layers
        if is_whole(index, -len(layers)) and cast("int", index) < len(layers):
            return layers[cast("int", index)]
        for layer in layers:
            if name is not None and layer.name == name:
                return layer
        near = suggestion(str(name), [layer.name for layer in layers])
        raise NameClashError(
            f"model {self.name!r} has no layer {name if index is None else index!r}",
            at=user_line(),
            remedy=f"{near}its layers are {', '.join(layer.name for layer in layers) or 'none yet'}",
        )

    @property
    def input_layers(self) -> list[InputLayer]:
        if self._graph is not None:
            return self._graph.input_layers
        if self._feeds is None:
            raise self._not_built()
        return [symbol.call.layer for symbol in nest.leaves(self._feeds)]

    @property
    def inputs(self) -> list[Symbol]:
        """The symbols that the model is fed with."""
        return [layer.symbol for layer in self.input_layers]

    @property
    def outputs(self) -> list[Symbol]:
        """The symbols that its last layers gave: start from them to build another model on this one."""
        if self._graph is None:
            raise self._not_built()
        return nest.leaves(self._graph.outputs)

    @property
    def input(self) -> Any:
        """The inputs as they were given to the model."""
        if self._graph is None:
            raise self._not_built()
        return self._graph.inputs

    @property
    def output(self) -> Any:
        """The outputs as they were given to the model."""
        if self._graph is None:
            raise self._not_built()
        return self._graph.outputs

    def calls_of(self, layer: Layer) -> list[Call]:
        """The calls of a layer in this model, where it was declared by symbols."""
        if isinstance(layer, InputLayer):
            return layer.calls[:1]
        return [] if self._graph is None else [call for call in self._graph.calls if call.layer is layer]

    def find_output_names(self) -> list[str]:
        structure = self._graph.outputs if self._graph is not None else self.programs.forward().structure
        leaves = nest.leaves(structure)
        if isinstance(structure, dict) and len(leaves) == len(cast("dict[str, Any]", structure)):
            return [str(key) for key in cast("dict[str, Any]", structure)]
        bases = [leaf.call.layer.name if isinstance(leaf, Symbol) else "output" for leaf in leaves]
        names = tracing.Names()
        return [names.name_for(base) for base in bases]

    def check_built(self) -> None:
        """Refuse what needs weights while the shapes of the inputs are not known."""
        if not self.built:
            raise self._not_built()

    def _not_built(self) -> GraphError:
        return GraphError(
            f"model {self.name!r} does not know the shapes of its inputs yet",
            at=user_line(),
            remedy="begin it with Input((...)), call model.build((None, ...)), or give it data",
        )

    # Running the layers.

    def call(self, inputs: Any) -> Any:
        """The outputs for these input nodes, in the structure that the model was declared with."""
        graph = self._graph
        if graph is None and type(self) is not Model:
            kind = type(self).__name__
            raise GraphError(
                f"{kind} does not define call",
                at=user_line(),
                remedy="define call(self, inputs), or say inputs and outputs: super().__init__(inputs, outputs)",
            )
        if graph is None:
            raise self._not_built()
        values = self._in_order(inputs)
        functional.check_inputs(graph, values, self.name)
        return graph.run(values)

    def _in_order(self, inputs: Any) -> list[Node]:
        if isinstance(inputs, Mapping):
            return distribute(inputs, [layer.name for layer in self.input_layers], "input")
        return nest.leaves(inputs)

    def run_layers(self, inputs: Sequence[Node]) -> Any:
        if self._graph is not None and not self._is_subclassed():
            return self._graph.run(inputs)
        structure = self._graph.inputs if self._graph is not None else self._feeds
        self._own(self.sublayers)
        self._build_once([tuple(node.shape) for node in inputs])
        outputs = self.call(nest.pack(structure, inputs), **self.training_argument(), **self.mask_argument())
        self._check(outputs)
        self._own(self.sublayers)
        return outputs

    def _build_once(self, shapes: Sequence[Any]) -> None:
        if not self.built:
            if type(self).build is not Model.build:
                plain = [tuple(size if isinstance(size, int) else None for size in shape) for shape in shapes]
                self.build(plain[0] if len(plain) == 1 else plain)
            self.built = True

    def build_for_data(self, x: Any) -> None:
        if self._graph is not None or self._feeds is not None:
            return
        if is_batch_source(x):
            raise GraphError(
                f"model {self.name!r} does not know the shapes of its inputs, and batches come too late to tell it",
                at=user_line(),
                remedy="begin it with Input((...)), or call model.build((None, ...)) before",
            )

        def symbol(value: Any) -> Symbol:
            array = as_numpy(value, "the inputs")
            dtype = {"f": "float32", "i": "int64", "u": "int64", "b": "bool"}.get(kind_of(array.dtype), "float32")
            if array.ndim == 0:
                raise ShapeError("the data has no samples axis", at=user_line(), remedy="give an array of samples")
            return InputLayer(array.shape[1:] or (1,), None, self.dtype_for(dtype)).symbol

        is_list = isinstance(x, list) and not any(isinstance(item, np.ndarray) for item in cast("list[Any]", x))
        self._feed(as_numpy(x, "the inputs") if is_list else x, symbol)

    def dtype_for(self, dtype: str) -> str:
        """The element type of an input that is fed with data of this type."""
        return dtype

    def build(self, input_shape: Any) -> None:
        """Fix the shapes of the inputs: ``model.build((None, 784))``, a list of shapes for several inputs."""
        if self._graph is not None or self._feeds is not None:
            return
        array = isinstance(input_shape, np.ndarray)
        given = cast("Sequence[Any]", tuple(cast("Any", input_shape)) if array else input_shape)
        if not isinstance(given, list | tuple):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ShapeError(
                f"a shape is a tuple, not {shown(given)}",
                at=user_line(),
                remedy=f"write model.build((None, {given!r}))",
            )
        several = isinstance(given, list) and any(isinstance(shape, list | tuple) for shape in given)
        shapes: Sequence[Any] = given if several else [given]
        symbols = [_Shape(tuple(shape)) for shape in shapes]
        self._feed(symbols if several else symbols[0], lambda shape: InputLayer(shape.sizes[1:], shape.sizes[0]).symbol)

    def _feed(self, structure: Any, symbol: Callable[[Any], Symbol]) -> None:
        with tracing.new_scope():
            feeds = nest.map_leaves(symbol, structure)
        self._own([leaf.call.layer for leaf in nest.leaves(feeds)])
        self._feeds = feeds
        self._fed(feeds)

    def _fed(self, feeds: Any) -> None:
        """What a kind of model does when its inputs become known."""
        self.programs.forward()

    def _build_for(self, args: tuple[Any, ...]) -> None:
        """Being called as a layer before the shapes of the inputs are known."""
        if self._is_subclassed():
            if type(self).build is not Model.build:
                super()._build_for(args)
        elif self._graph is None:
            self._feed(args[0], lambda node: InputLayer(node.shape[1:], None, node.dtype).symbol)

    # Reading and writing.

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise GraphError(
            f"model {self.name!r} is neither pickled nor copied",
            at=user_line(),
            remedy="write it with model.save(folder), and read it as often as you like: gx.load_model(folder)",
        )

    @property
    def call_order(self) -> tuple[Call, ...] | None:
        """The calls of layers in the order in which they run; None unless the model was declared by symbols."""
        return None if self._graph is None or self._is_subclassed() else self._graph.calls

    def count_params(self) -> int:
        self.check_built()
        return super().count_params()

    def get_config(self) -> dict[str, Any]:
        if type(self) is not Model or self._graph is None:
            return super().get_config()
        return {"graph": Written(self._graph.to_json())}

    @classmethod
    def revive(cls, config: dict[str, Any], custom_objects: Mapping[str, Any]) -> Self:
        if cls is not Model or "graph" not in config:
            return cls.from_config(config)
        inputs, outputs = functional.from_json(config["graph"], custom_objects)
        return cls(inputs=inputs, outputs=outputs)

    def get_setup(self) -> dict[str, Any]:
        setup = super().get_setup()
        if self._graph is None and self._feeds is not None:
            setup["feeds"] = functional.written(nest.map_leaves(lambda symbol: symbol.call.layer, self._feeds), {})
        return setup

    def apply_setup(self, setup: dict[str, Any]) -> None:
        super().apply_setup(setup)
        if "feeds" in setup:
            self._feed(functional.read(setup["feeds"], {}), lambda layer: layer.symbol)


class _Shape:
    """A leaf that is a shape."""

    def __init__(self, sizes: tuple[Any, ...]) -> None:
        self.sizes = sizes


class Sequential(Model):
    """A chain of layers.

    Args:
        layers: layers and, first, maybe an ``Input``; without one the first data says the shape.
        name: what it is called where it is a layer of another model.
        trainable: whether training changes the weights.

    >>> import graphc as gx
    >>> model = gx.Sequential([gx.Input((3,)), gx.layers.Dense(4), gx.layers.Dense(4), gx.layers.Dense(1)])
    >>> model.count_params()
    41
    """

    def __init__(self, layers: Iterable[Any] | None = None, name: str | None = None, trainable: bool = True) -> None:
        super().__init__(name=name, trainable=trainable)
        for layer in layers or ():
            self._append(layer)
        self._link()

    _chain: list[Layer]
    _symbols: list[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls, *args, **kwargs)
        self._chain = []
        self._symbols = []
        return self

    def add(self, layer: Any) -> None:
        """Append a layer."""
        self._append(layer)
        self._link()

    def pop(self) -> Layer:
        """Take the last layer off and return it."""
        if not self._chain:
            raise GraphError("there is no layer to take off", at=user_line(), remedy="add one first")
        layer = self._chain.pop()
        del self._symbols[len(self._chain) :]
        self._link()
        return layer

    @property
    def sublayers(self) -> list[WeightHolder]:
        """The layers of the chain."""
        return list(self._chain)

    def _append(self, layer: Any) -> None:
        if isinstance(layer, Symbol):
            layer = layer.call.layer
        if isinstance(layer, InputLayer):
            if self._chain or self._feeds is not None:
                raise GraphError(
                    "Input comes first, and once",
                    at=user_line(),
                    remedy="put it at the head of the list; several inputs need gx.Model(inputs, outputs)",
                )
            tracing.close_scope(layer.symbol.scope)
            self._own([layer])
            self._feeds = layer.symbol
            return
        if not isinstance(layer, Layer):
            is_class = isinstance(layer, type) and issubclass(layer, Layer)
            raise GraphError(
                f"{layer.__name__} is a class of layers" if is_class else f"{shown(layer)} is not a layer",
                at=user_line(),
                remedy=f"make one: {layer.__name__}(...)"
                if is_class
                else f"write layers.Activation({layer!r})"
                if isinstance(layer, str)
                else "wrap a function: layers.Lambda(function)",
            )
        self._chain.append(layer)
        try:
            self._own(self._chain)
        except NameClashError:
            self._chain.pop()
            raise

    def _link(self) -> None:
        """Call the layers that are new one after the other, beginning with the input's symbol."""
        self.programs.clear()
        self._graph = None
        self.built = False
        if self._feeds is None or not self._chain:
            return
        for layer in self._chain[len(self._symbols) :]:
            before = self._symbols[-1] if self._symbols else self._feeds
            line = None if functional.has_lines_of_its_own(layer) else layer.loc
            with location.at(line):
                self._symbols.append(layer.call_on_symbols(self._feeds.scope, (before,), {}, layer.loc))
        self._graph = functional.find_calls(self._feeds, self._symbols[-1])
        self.built = True

    def _fed(self, feeds: Any) -> None:
        self._link()

    def build_for_data(self, x: Any) -> None:
        if not self._chain:
            raise GraphError(f"model {self.name!r} has no layers", at=user_line(), remedy="add some: model.add(...)")
        super().build_for_data(x)

    def dtype_for(self, dtype: str) -> str:
        return self._chain[0].input_dtype

    def get_config(self) -> dict[str, Any]:
        if type(self) is not Sequential:
            return super().get_config()
        first = [] if self._feeds is None else [self._feeds.call.layer]
        return {"layers": [*first, *self._chain]}
