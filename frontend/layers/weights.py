"""What a layer holds: its name and path, its weights, the layers within it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from graphc.errors import NameClashError, ShapeError
from graphc.frontend import constraints, initializers, nest, regularizers, tracing
from graphc.frontend.arguments import sizes_of
from graphc.frontend.checked import Natural, checked
from graphc.frontend.config import Configurable, user_line
from graphc.frontend.layers.selection import path_of, select, split_before_last
from graphc.ir import location
from graphc.ir.location import Location
from graphc.ir.node import Node, Parameter
from graphc.ir.types import DType, TensorType, as_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from graphc.frontend.constraints import Constraint
    from graphc.frontend.regularizers import Regularizer
    from graphc.frontend.tracing import Call

    Array = NDArray[np.generic]

_NOT_SEARCHED = frozenset({"_given", "_weights", "_regularizers", "_constraints", "_sparse", "calls"})


class WeightHolder(Configurable):
    """The half of :class:`~graphc.frontend.layers.Layer` that knows weights and names.

    Attributes:
        built: whether the weights exist.
        owned: whether it is part of a model or another layer, whose names stay as they are.
        loc: the user's line that made the layer.
        calls: its calls on symbols, in order of time.
    """

    keeps_identity = True
    built: bool
    owned: bool
    loc: Location | None
    calls: list[Call]
    _weights: list[tuple[str, Parameter]]
    _regularizers: list[tuple[Parameter, Regularizer]]
    _constraints: list[tuple[Parameter, Constraint]]
    _sparse: list[Parameter]
    _name: str | None
    _dtype: DType | None
    _path: str | None
    _ordinal: int | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls, *args, **kwargs)
        self.built = False
        self.loc = location.here()
        self._name = None
        self._auto_named = True
        self.owned = False
        self._path = None
        self._ordinal = None
        self._trainable = True
        self._dtype = None
        self._weights = []
        self._regularizers = []
        self._constraints = []
        self._sparse = []
        self.calls = []
        return self

    def add_weight(
        self,
        shape: Sequence[int] | int = (),
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        name: str | None = None,
        sparse: bool = False,
    ) -> Parameter:
        """Make a weight.

        Args:
            shape: whole numbers.
            initializer: a name, an initializer, or a function of shape and dtype; default ``glorot_uniform``, zeros
                for integers.
            dtype: default the layer's.
            trainable: False for state that only ``add_update`` changes.
            regularizer: a penalty on it, added to the loss.
            constraint: what its value goes through in every step of training.
            name: what it is called in files and texts.
            sparse: it is a table that is read by indices, of which a step changes the rows that occur and no others.

        Raises:
            ShapeError: the shape holds a size that is not known.
        """
        label = self._free_label(name or "weight")
        sizes = self._known_sizes(shape, label)
        self.find_home()
        element = as_dtype(dtype) if dtype is not None else self._dtype or DType.float32
        if initializer is None:
            initializer = "glorot_uniform" if element.is_float else "zeros"
        value = self._first_value(initializers.get(initializer), sizes, element, label)
        weight = Parameter(f"{self.path}/{label}", value, trainable, TensorType(element, sizes))
        self._weights.append((label, weight))
        penalty = regularizers.get(regularizer)
        if penalty is not None:
            self._regularizers.append((weight, penalty))
        bound = constraints.get(constraint)
        if bound is not None:
            self._constraints.append((weight, bound))
        if sparse:
            self._sparse.append(weight)
        return weight

    def _known_sizes(self, shape: Sequence[int] | int, label: str) -> tuple[int, ...]:
        """The sizes of a weight, all of which must be known now."""
        if isinstance(shape, str):
            raise ShapeError(
                f"a weight of layer {self.name!r} would have the shape {shape!r}",
                at=user_line(),
                remedy=f"write self.add_weight(shape=..., name={shape!r})",
            )
        sizes = sizes_of(shape)
        if any(isinstance(size, list | tuple) for size in sizes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ShapeError(
                f"layer {self.name!r} takes one tensor, it was called on several",
                at=user_line(),
                remedy="join them first: layers.Concatenate()([a, b])",
            )
        if not all(isinstance(size, int | np.integer) for size in sizes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ShapeError(
                f"weight {label!r} of layer {self.name!r} would have the shape {sizes}",
                at=user_line(),
                remedy="weights need sizes known in advance: Input((3,)) instead of Input((None,))",
            )
        return tuple(int(size) for size in sizes)

    def _first_value(
        self, initializer: Any, sizes: tuple[int, ...], element: DType, label: str
    ) -> Array | Callable[[], Array]:
        """What an initializer makes; for those of graphc that cannot fail, what draws it later."""
        place = (self._ordinal, self.path, label)
        ours = type(initializer).__module__ == initializers.__name__
        if isinstance(initializer, initializers.Initializer) and initializer.waits and ours:
            return initializer.drawing(sizes, element.numpy, place)
        if isinstance(initializer, initializers.Initializer):
            value = initializer.draw(sizes, element.numpy, place)
        else:
            value = cast("Array", np.asarray(initializer(sizes, element.value), element.numpy))
        if value.shape != sizes:
            raise ShapeError(
                f"the initializer of {label!r} of layer {self.name!r} made {value.shape}, the weight is {sizes}",
                at=user_line(),
                remedy="an initializer returns an array of the shape it is given",
            )
        return value

    def _free_label(self, name: str) -> str:
        taken = {label for label, _ in self._weights}
        return next(label for label in (name, *(f"{name}_{n}" for n in range(1, len(taken) + 2))) if label not in taken)

    @property
    def name(self) -> str:
        """What the layer is called; unique in its model."""
        return self._name or snake_case(type(self).__name__)

    @name.setter
    def name(self, name: str) -> None:
        if not isinstance(name, str) or not name or "/" in name or "#" in name:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise NameClashError(
                f"{name!r} cannot be a layer's name", at=user_line(), remedy="use a text without '/' and '#'"
            )
        self._name = name
        self._auto_named = False
        if self._path is not None:
            self.adopt("/".join((*self._path.split("/")[:-1], name)), self._ordinal or 0)

    @property
    def path(self) -> str:
        """The names from the model down to this layer."""
        return self._path or self.name

    @property
    def dtype(self) -> str:
        """The element type of the weights."""
        return (self._dtype or DType.float32).value

    @property
    def sublayers(self) -> list[WeightHolder]:
        """The layers that are attributes of this one, or stand in its lists and dicts, in order."""
        found: dict[int, WeightHolder] = {}
        for name, value in vars(self).items():
            if name not in _NOT_SEARCHED:
                for leaf in nest.leaves(value):
                    if isinstance(leaf, WeightHolder):
                        found.setdefault(id(leaf), leaf)
        return list(found.values())

    def walk(self) -> Iterator[WeightHolder]:
        """This layer and all within it, each once, outer ones first."""
        seen: set[int] = set()
        stack: list[WeightHolder] = [self]
        while stack:
            layer = stack.pop()
            if id(layer) not in seen:
                seen.add(id(layer))
                yield layer
                stack.extend(reversed(layer.sublayers))

    def named_weights(self) -> dict[str, Parameter]:
        """Every weight by its path below this layer, in Keras's order."""
        found: dict[str, Parameter] = {}
        seen: set[int] = set()
        for path, weight in self._paths(""):
            if id(weight) not in seen:
                seen.add(id(weight))
                key, count = path, 1
                while key in found:
                    key, count = f"{path}_{count}", count + 1
                found[key] = weight
        return found

    def _paths(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        own = self._own_weights()
        yield from ((prefix + label, weight) for label, weight in own if weight.trainable)
        yield from ((prefix + label, weight) for label, weight in own if not weight.trainable)
        for layer in self.sublayers:
            yield from layer._paths(f"{prefix}{layer.name}/")

    def _own_weights(self) -> list[tuple[str, Parameter]]:
        """What ``add_weight`` made, and parameters that a subclass made itself and holds as attributes."""
        known = {id(weight) for _, weight in self._weights}
        attributes = [(name, value) for name, value in vars(self).items() if isinstance(value, Parameter)]
        return [*self._weights, *((name, value) for name, value in attributes if id(value) not in known)]

    @property
    def weights(self) -> list[Parameter]:
        """All weights: each layer's trainable ones, then its others, then those of the layers within."""
        return list(self.named_weights().values())

    @property
    def trainable_weights(self) -> list[Parameter]:
        """The weights that training changes, in the order of :attr:`weights`; none if ``trainable`` is False here."""
        if not self.trainable:
            return []
        trained = {
            id(weight)
            for layer in self.walk()
            if layer.trainable
            for _, weight in layer._own_weights()
            if weight.trainable
        }
        return [weight for weight in self.weights if id(weight) in trained]

    @property
    def non_trainable_weights(self) -> list[Parameter]:
        """The weights that training leaves alone."""
        trained = {id(weight) for weight in self.trainable_weights}
        return [weight for weight in self.weights if id(weight) not in trained]

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights. Setting it sets it for the layers within, too.

        It takes effect at the next ``fit``, ``train_on_batch`` or ``evaluate``; ``compile`` need not be called again.
        """
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.walk():
            layer._trainable = bool(value)
        tracing.note_change()

    @checked
    def freeze(self, *which: Any, all_but_last: Natural | None = None) -> list[str]:
        """Leave weights out of training; frozen batch normalization uses its moving statistics in training, too.

        Frozen weights have no gradients and no slots in the optimizer. It takes effect at the next ``fit`` or
        ``train_on_batch``; what the optimizer has gathered for a weight waits until it is trained again.

        Args:
            which: layers, or patterns: a name of a layer or of one around it (``"block1_*"``), or a path
                (``"base/block1_*"``); default all.
            all_but_last: instead, freeze all layers with weights that stand right below this one but the last so many,
                and let those be trained.

        Returns:
            The paths of the layers that were frozen.

        Raises:
            NameClashError: there is no such layer.
            AxisError: there are fewer than ``all_but_last``.

        >>> import graphc as gx
        >>> model = gx.Sequential([gx.Input((3,)), gx.layers.Dense(4), gx.layers.Dense(4), gx.layers.Dense(1)])
        >>> model.freeze(all_but_last=1), len(model.trainable_weights)
        (['dense', 'dense_1'], 2)
        """
        if all_but_last is not None:
            first, last = split_before_last(self, all_but_last)
            for layer in last:
                layer.trainable = True
            self._open(())
            for layer in first:
                layer.trainable = False
            return [layer.name for layer in first]
        if not which:
            self.trainable = False
            return [layer.name for layer in self.sublayers]
        found = select(self, which)
        for place in found:
            place[-1].trainable = False
        return [path_of(place) for place in found]

    def unfreeze(self, *which: Any) -> list[str]:
        """Let weights be trained again, those of layers within the ones named included.

        Args:
            which: as for :meth:`freeze`.

        Returns:
            The paths of the layers that are trained again.

        Raises:
            NameClashError: there is no such layer.

        >>> import graphc as gx
        >>> model = gx.Sequential([gx.Input((3,)), gx.layers.Dense(4), gx.layers.Dense(4), gx.layers.Dense(1)])
        >>> model.trainable = False
        >>> model.unfreeze("dense_[12]"), len(model.trainable_weights)
        (['dense_1', 'dense_2'], 4)
        """
        if not which:
            self.trainable = True
            return [layer.name for layer in self.sublayers]
        found = select(self, which)
        for place in found:
            place[-1].trainable = True
            self._open(place[:-1])
        return [path_of(place) for place in found]

    def _open(self, around: Sequence[WeightHolder]) -> None:
        """Let layers within be trained, by this layer and those around them, as far as these have no weights to change.

        A model that is not trainable trains nothing, whatever its layers say, as in Keras.
        """
        for layer in (self, *around):
            if layer is self or not layer._own_weights():
                layer._trainable = True
        tracing.note_change()

    def get_weights(self) -> list[Array]:
        """Copies of the weights, in the order and layout of Keras."""
        return [weight.value for weight in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the weights from arrays in the order of :meth:`get_weights`.

        Raises:
            ShapeError: another number of arrays, or an array of another shape. No weight is changed then.
        """
        own = self.named_weights()
        several = np.iterable(weights) and isinstance(weights, Sized) and not isinstance(weights, str)  # pyright: ignore[reportUnnecessaryIsInstance]
        count = len(weights) if several else "none"
        if count != len(own):
            raise ShapeError(
                f"layer {self.name!r} has {len(own)} weights, {count} were given",
                details=tuple(f"{key}: {weight.type}" for key, weight in own.items()),
                at=user_line(),
                remedy="build the layer first (Input, or a first call), and give one array for each weight",
            )
        arrays = [np.asarray(value) for value in weights]
        for (key, weight), array in zip(own.items(), arrays, strict=True):
            if array.shape != weight.shape:
                raise ShapeError(
                    f"weight {key!r} of layer {self.name!r} has shape {weight.shape}, the array {array.shape}",
                    at=user_line(),
                    remedy="give arrays in the order and layout of get_weights()",
                )
        for weight, array in zip(own.values(), arrays, strict=True):
            weight.value = array

    def count_params(self) -> int:
        """The number of elements of all weights."""
        return sum(weight.type.nbytes() // weight.dtype.itemsize for weight in self.weights)

    def penalties(self) -> list[Node]:
        """The regularization terms of the weights of this layer and of those within that are trained."""
        trained = {id(weight) for weight in self.trainable_weights}
        found = [pair for layer in self.walk() for pair in layer._regularizers]
        return [penalty(weight) for weight, penalty in found if id(weight) in trained]

    def constraints(self) -> dict[Parameter, Constraint]:
        """What the weights of this layer and of those within go through in every step."""
        return {weight: bound for layer in self.walk() for weight, bound in layer._constraints}

    def sparse_weights(self) -> list[Parameter]:
        """The tables of this layer and of those within of which a step changes the rows that occur alone."""
        return [weight for layer in self.walk() for weight in layer._sparse]

    def adopt(self, path: str, ordinal: int) -> None:
        """Make this the layer's path; the names of weights and the paths of layers within follow.

        Args:
            path: names from the model down to this layer.
            ordinal: the model's number, from which first values are drawn; one given earlier stays.
        """
        self._path = path
        self._ordinal = ordinal if self._ordinal is None else self._ordinal
        for label, weight in self._own_weights():
            weight.label = f"{path}/{label}"
        name_layers(self.sublayers)
        for layer in self.sublayers:
            layer.owned = True
            layer.adopt(f"{path}/{layer.name}", ordinal)

    def find_home(self) -> None:
        """Get a name and a path: in the layer whose code runs, if this one is part of it, else in the open scope."""
        trace = tracing.current()
        if self._path is None and trace is not None and trace.layers:
            parent = trace.layers[-1]
            parent.adopt(parent.path, parent._ordinal or 0)
        self.take_name(tracing.open_scope)

    def take_name(self, scope: Callable[[], tracing.Scope]) -> None:
        """Get a name and a path from a scope, unless there is one already."""
        if self._path is None:
            given = scope()
            if self._name is None:
                self._name = given.names.name_for(snake_case(type(self).__name__))
            else:
                given.names.reserve(self._name)
            self.adopt(self._name, given.ordinal)

    def takes_number(self, again: bool) -> bool:
        """Is the name ours to choose? ``again``: also if we chose one, but no model has it yet."""
        return self._name is None or (again and self._auto_named and not self.owned)

    def number(self, names: tracing.Names) -> None:
        """Take the next free name of the class's kind."""
        self._name = names.name_for(snake_case(type(self).__name__))

    def get_setup(self) -> dict[str, Any]:
        return {"name": self.name, "trainable": self.trainable}

    def apply_setup(self, setup: dict[str, Any]) -> None:
        self.name = setup["name"]
        self._trainable = setup["trainable"]


def name_layers(layers: Sequence[WeightHolder], rename: bool = False) -> None:
    """Number the layers that have no name given by the user: ``dense``, ``dense_1``, ...

    Args:
        layers: in the order of numbering.
        rename: number those again that were numbered before but belong to no model yet.

    Raises:
        NameClashError: two layers have the same name, and it is not ours to change.
    """
    free = {id(layer) for layer in layers if layer.takes_number(rename)}
    names = tracing.Names()
    fixed: dict[str, WeightHolder] = {}
    for layer in layers:
        if id(layer) not in free:
            names.reserve(layer.name)
            if fixed.setdefault(layer.name, layer) is not layer:
                raise NameClashError(
                    f"two layers are called {layer.name!r}",
                    details=tuple(str(one.loc) for one in (fixed[layer.name], layer) if one.loc),
                    at=user_line(),
                    remedy=f"give one of them another name: layer.name = '{layer.name}_2'",
                )
    for layer in layers:
        if id(layer) in free:
            layer.number(names)


def snake_case(name: str) -> str:
    """A class's name as layers are named after it.

    >>> snake_case("MaxPooling2D"), snake_case("ReLU")
    ('max_pooling2d', 're_lu')
    """
    name = re.sub(r"\W+", "", name).lstrip("_")
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()
