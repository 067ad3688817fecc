"""The base of all layers: building when shapes are known, calling on nodes and on symbols, masks."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

import graphc as gx
from graphc.errors import AxisError, DTypeError, GraphError
from graphc.frontend import nest, regularizers, seeds, tracing
from graphc.frontend.arguments import element
from graphc.frontend.config import suggestion, user_line
from graphc.frontend.data.arrays import as_numpy
from graphc.frontend.layers.weights import WeightHolder
from graphc.frontend.tracing import Call, Rng, Symbol, Trace
from graphc.ir import location
from graphc.ir.location import Location
from graphc.ir.node import Node, Parameter

if TYPE_CHECKING:
    from graphc.frontend.regularizers import Regularizer


class Layer(WeightHolder):
    """A function of tensors with weights. Subclass it: make weights in ``build``, compute in ``call``.

    ``call`` is ordinary code over nodes; what differs between training and inference is written
    ``self.when_training(a, b)``. Layers that are attributes of a layer (or stand in its lists and dicts) belong to it.

    Args:
        name: default the class's name, numbered within the model.
        trainable: whether training changes the weights.
        dtype: element type of the weights, to which float inputs are cast; default that of the first float input.
        activity_regularizer: a penalty on the outputs, divided by the number of samples and added to the loss.

    >>> import graphc as gx
    >>> class Scale(gx.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(name="scale", shape=input_shape[-1:], initializer="ones")
    ...     def call(self, x):
    ...         return x * self.scale
    >>> Scale()(gx.placeholder("x", ("batch", 3)))
    <multiply: f32[batch, 3]>
    """

    supports_masking = False
    """Whether a mask of the inputs holds for the outputs, too (as ``compute_mask`` says)."""
    joins = False
    """Whether ``call`` takes a list of tensors and makes one of them."""
    input_dtype = "float32"
    """The element type of the inputs where only data shows their shape."""
    activity_regularizer: Regularizer | None
    _loose: Trace | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls, *args, **kwargs)
        self._casts = False
        self._loose = None
        self.activity_regularizer = None
        return self

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        activity_regularizer: Any = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise _unknown_argument(type(self), next(iter(unknown)))
        if name is not None:
            self.name = name
        self._trainable = trainable
        self.activity_regularizer = regularizers.get(activity_regularizer)
        if dtype is not None:
            self._dtype = element(f"layer {self.name!r}", dtype)
            self._casts = True

    # What a subclass defines.

    def build(self, input_shape: Any) -> None:
        """Make the weights.

        Args:
            input_shape: the shape of the first argument of ``call``, None where a size is symbolic; a list of shapes
                where it is a list. If ``call`` takes further tensors by position, ``build`` may take their shapes too.
        """

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs from the inputs. It may take ``mask=None`` and ``training=None``.

        ``training`` is True or False where a caller has decided it. Otherwise it is open, because one graph serves
        training and inference: ``if training:`` raises GraphError, and ``when_training`` chooses.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define call")

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the outputs, given the inputs and their masks (each a node or None)."""
        return previous_mask

    # What a subclass uses.

    def when_training(self, training: Node, inference: Node) -> Node:
        """One value in training programs, the other elsewhere; ``layer(x, training=...)`` decides it at once."""
        said = _running().training
        return gx.when_training(training, inference) if said is None else training if said else inference

    def add_update(self, weight: Parameter, change: Callable[[Node], Node], always: bool = False) -> None:
        """Change state at each training step: ``change`` maps its latest value to the next one.

        A layer that is called twice chains its updates in the order of the calls.

        Args:
            weight: the state.
            change: its next value.
            always: change it at each step of evaluation and prediction, too.
        """
        _running().update(weight, change, always)

    def add_loss(self, loss: Node) -> None:
        """Add a scalar of the current call to the loss."""
        _running().losses.append(loss)

    def random_state(self, seed: int | None = None, purpose: str = "") -> tuple[Node, Node, int]:
        """Seed, step and stream for a random op of the current call: ``gx.dropout(x, rate, *self.random_state())``.

        Args:
            seed: fixes the bits whatever ``gx.set_seed`` says.
            purpose: tells apart what one call draws several times.
        """
        trace = _running()
        rng = trace.rng()
        key = rng.seed if seed is None else gx.constant(seed & 0xFFFFFFFF, "uint32")
        return key, rng.step, trace.stream(*([purpose] if purpose else []))

    # What a user asks.

    @property
    def updates(self) -> dict[Parameter, Node]:
        """State changes that calls outside of a model declared, for ``gx.compile(updates=...)``."""
        return {} if self._loose is None else dict(self._loose.updates.values())

    @property
    def losses(self) -> list[Node]:
        """What calls outside of a model added to the loss: penalties on weights, on outputs, and ``add_loss``."""
        return [*self.penalties(), *([] if self._loose is None else self._loose.losses)]

    @property
    def input(self) -> Any:
        """The symbol (or structure of symbols) that the layer was first called on."""
        return self._first_call().args[0]

    @property
    def output(self) -> Any:
        """The symbol (or structure of symbols) that its first call on symbols gave."""
        return self._first_call().outputs

    def _first_call(self) -> Call:
        if not self.calls:
            raise GraphError(
                f"layer {self.name!r} has not been called on an Input", at=user_line(), remedy="put it into a model"
            )
        return self.calls[0]

    # Calling.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer on nodes: ordinary ones give ordinary ones, symbols give symbols."""
        kwargs = _with_plain_mask(kwargs)
        nodes = [leaf for leaf in nest.leaves((args, kwargs)) if isinstance(leaf, Node)]
        if not nodes:
            shown = ", ".join(type(arg).__name__ for arg in args) or "nothing"
            raise DTypeError(
                f"layer {self.name!r} was called on {shown}",
                at=user_line(),
                remedy="layers take nodes: gx.Input, gx.placeholder or gx.constant; a model computes with predict(x)",
            )
        if tracing.current() is not None:
            return self._call_on_nodes(args, kwargs)
        found = [symbol for node in nodes for symbol in tracing.symbols_of(node)]
        if found:
            return self.call_on_symbols(found[0].scope, args, kwargs)
        return self._call_loosely(args, kwargs)

    def call_on_symbols(
        self, scope: tracing.Scope, args: tuple[Any, ...], kwargs: dict[str, Any], loc: Location | None = None
    ) -> Any:
        """Find out what the layer returns for these arguments, and note the call.

        Args:
            scope: where the layer takes its name from, if it has none.
            args, kwargs: the arguments, symbols among them.
            loc: the line of the call; default the user's current one.
        """
        self.take_name(lambda: scope)
        loc = loc or location.here()

        def probe(leaf: Any) -> Any:
            return tracing.probe_for(leaf) if isinstance(leaf, Node) and tracing.symbols_of(leaf) else leaf

        with tracing.tracing(tracing.probing()):
            probed_args, probed_kwargs = nest.map_leaves(probe, (args, kwargs))
            outputs = self._call_on_nodes(probed_args, probed_kwargs)

        def symbol(leaf: Any) -> Any:
            if not isinstance(leaf, Node):
                return leaf
            made = Symbol(self.name, leaf.type, scope, loc)
            mask = tracing.mask_of(leaf)
            made.mask = None if mask is None else mask.type
            return made

        symbols = nest.map_leaves(symbol, outputs)
        tracing.record(self, args, kwargs, symbols, loc)
        return symbols

    def _call_loosely(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call outside of any model."""
        self.take_name(tracing.open_scope)
        if self._loose is None:
            seed = seeds.derive("rng", self._ordinal, self.path)
            self._loose = Trace(lambda: Rng(seed))
        with tracing.tracing(self._loose):
            outputs = self._call_on_nodes(args, kwargs)
        for leaf in nest.leaves(outputs):
            if isinstance(leaf, Node):
                tracing.mark_real(leaf)
        return outputs

    def mask_argument(self) -> dict[str, Any]:
        """``mask`` for this layer's ``call`` where nothing is masked, if it asks for one without a default."""
        return {"mask": None} if _needs_mask(type(self).call, 1) else {}

    def training_argument(self, given: int = 1) -> dict[str, Any]:
        """``training`` for this layer's ``call``, if it takes it and not among the arguments given by position."""
        names = _argument_names(type(self).call)
        if "training" not in names[1 + given :]:
            return {}
        said = _running().training
        return {"training": OPEN if said is None else said}

    def _call_on_nodes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.find_home()
        takes_mask = "mask" in _argument_names(type(self).call)
        kwargs = dict(kwargs)
        if not takes_mask and "mask" in kwargs and kwargs["mask"] is None:
            del kwargs["mask"]
        if isinstance(kwargs.get("mask"), np.ndarray):
            kwargs["mask"] = gx.constant(kwargs["mask"])
        training = kwargs.get("training")
        args, kwargs = _by_position(type(self).call, args, {k: v for k, v in kwargs.items() if k != "training"})
        self._check_call(args, kwargs)
        with _running().inside(self, None if training is OPEN else training):
            self._ensure_built(args)
            self._refuse_strangers()
            args, kwargs = nest.map_leaves(self._cast, (args, kwargs))
            first = args[0] if args else next(iter(kwargs.values()))
            masks = nest.map_leaves(lambda leaf: tracing.mask_of(leaf) if isinstance(leaf, Node) else None, first)
            masked = any(mask is not None for mask in nest.leaves(masks))
            if takes_mask and kwargs.get("mask") is None and (masked or _needs_mask(type(self).call, len(args))):
                kwargs = {**kwargs, "mask": masks if masked else None}
            outputs = self.call(*args, **kwargs, **self.training_argument(len(args)))
            self._check(outputs)
            self._regularize(outputs)
            if self.supports_masking or (not masked and type(self).compute_mask is not Layer.compute_mask):
                self._attach(outputs, self.compute_mask(first, kwargs.get("mask", masks if masked else None)))
            elif masked and not takes_mask and not self.sublayers:
                warnings.warn(
                    f"layer {self.name!r} got a mask, does not know masks and drops it; say supports_masking = True in "
                    "its class if the mask holds for its outputs as well",
                    stacklevel=2,
                )
        return outputs

    def _refuse_strangers(self) -> None:
        """Refuse a layer with weights that the layer whose code runs does not have: nobody would train or save them."""
        if self.owned or not self._weights:
            return
        trace = _running()
        around = [*([] if trace.model is None else [trace.model]), *trace.layers[:-1]]
        if around and not any(self is one for holder in around for one in holder.walk()):
            raise GraphError(
                f"layer {self.name!r} has weights and is called by {around[-1].name!r}, which does not hold it",
                at=user_line(),
                remedy=f"make it in __init__ and keep it: self.{self.name} = ...",
            )

    def _check_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse arguments that ``call`` does not take; ``training`` and ``mask`` come from where the layer stands."""
        signature = _signature(type(self).call)
        names = _argument_names(type(self).call)[1 + len(args) :]
        try:
            signature.bind(self, *args, **{name: None for name in ("training", "mask") if name in names} | kwargs)
        except TypeError as error:
            shown = [f"{p.name}=..." if p.default is not p.empty else p.name for p in signature.parameters.values()]
            raise DTypeError(
                f"layer {self.name!r} was called in a way that it does not know: {error}",
                at=user_line(),
                remedy="write layer([a, b])"
                if self.joins and len(args) > 1
                else f"write layer({', '.join(shown[1:])})",
            ) from None

    def _ensure_built(self, args: tuple[Any, ...]) -> None:
        """Make the weights at the first call."""
        if self.built:
            return
        if self._dtype is None:
            floats = [x.dtype for x in nest.leaves(args) if isinstance(x, Node) and x.dtype.is_float]
            self._dtype = floats[0] if floats else None
        count = len(self._weights)
        self.adopt(self.path, self._ordinal or 0)
        try:
            self._build_for(args)
        except BaseException:
            del self._weights[count:]
            raise
        self.built = True
        self._casts = self._casts or bool(self._weights)
        self.adopt(self.path, self._ordinal or 0)

    def _build_for(self, args: tuple[Any, ...]) -> None:
        shapes = [nest.map_leaves(_shape_for_build, arg) for arg in args if _holds_nodes(arg)]
        if len(shapes) > 1 and len(_argument_names(type(self).build)) > 2:
            self.build(*shapes)
        elif shapes:
            self.build(shapes[0])

    def _cast(self, leaf: Any) -> Any:
        if self._casts and self._dtype is not None and isinstance(leaf, Node) and leaf.dtype.is_float:
            return leaf if leaf.dtype is self._dtype else gx.cast(leaf, self._dtype)
        return leaf

    def _check(self, outputs: Any) -> None:
        found = nest.leaves(outputs)
        wrong = [leaf for leaf in found if not isinstance(leaf, Node) and leaf is not None]
        if wrong or all(leaf is None for leaf in found):
            shown = type(wrong[0]).__name__ if wrong else "nothing"
            raise DTypeError(
                f"call of layer {self.name!r} returned {shown}",
                at=user_line(),
                remedy="return nodes from call: compute with gx functions, not with NumPy",
            )

    def _regularize(self, outputs: Any) -> None:
        """Add the penalty on the outputs: the mean over the samples, so that batches of all sizes weigh alike."""
        if self.activity_regularizer is None:
            return
        for node in nest.leaves(outputs):
            if isinstance(node, Node) and node.dtype.is_float:
                penalty = self.activity_regularizer(node)
                self.add_loss(penalty / gx.size_of(node.shape[0], penalty.dtype) if node.ndim else penalty)

    def _attach(self, outputs: Any, masks: Any) -> None:
        nodes = [leaf for leaf in nest.leaves(outputs) if isinstance(leaf, Node)]
        found = nest.leaves(masks)
        if len(found) == len(nodes):
            for node, mask in zip(nodes, found, strict=True):
                tracing.set_mask(node, mask)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}{'' if self.built else ', not built'}>"


class _Open:
    """What ``call`` gets as ``training`` where one graph serves training and inference."""

    def __bool__(self) -> bool:
        raise GraphError(
            "whether this is training is not known while the graph is built: one graph serves both",
            at=user_line(),
            remedy="write self.when_training(a, b) instead of a if training else b",
        )

    def __repr__(self) -> str:
        return "<training: open>"


OPEN = _Open()


def _unknown_argument(cls: type[Layer], name: str) -> AxisError:
    known = {key for base in cls.__mro__[:-1] for key in inspect.signature(base.__init__).parameters}
    known -= {"self", "args", "kwargs", "unknown"}
    remedy = f"{suggestion(name, known)}see help({cls.__name__})"
    if name in ("input_shape", "input_dim", "batch_input_shape"):
        remedy = "put Input((...)) before the layer"
    return AxisError(f"{cls.__name__} has no argument {name!r}", at=user_line(), remedy=remedy)


def _running() -> Trace:
    trace = tracing.current()
    if trace is None:
        raise GraphError(
            "this belongs into a layer's call", at=user_line(), remedy="use it in call(), and call the layer: layer(x)"
        )
    return trace


def _shape_for_build(leaf: Any) -> tuple[int | None, ...] | None:
    return tuple(size if isinstance(size, int) else None for size in leaf.shape) if isinstance(leaf, Node) else None


def _by_position(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Tensors given by name stand where they would by position: weights and masks go by the order of arguments."""
    rest = dict(kwargs)
    for name in _argument_names(function)[1 + len(args) :]:
        if name == "mask" or not isinstance(rest.get(name), Node):
            break
        args = (*args, rest.pop(name))
    return args, rest


def _with_plain_mask(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments, with an array of bools for a mask that is an array or lists of numbers or bools."""
    mask = kwargs.get("mask")
    leaves = nest.leaves(mask)
    plain = isinstance(mask, list | tuple) and bool(leaves) and all(isinstance(leaf, int | float) for leaf in leaves)
    if not plain and not isinstance(mask, np.ndarray):
        return dict(kwargs)
    array = cast("Any", as_numpy(mask, "the mask"))
    return {**kwargs, "mask": array if array.dtype == bool else array != 0}


def _holds_nodes(arg: Any) -> bool:
    return any(isinstance(leaf, Node) for leaf in nest.leaves(arg))


@lru_cache(maxsize=1024)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def _needs_mask(function: Callable[..., Any], given: int) -> bool:
    """Does it take a mask without a default, beyond the arguments given by position?"""
    names = _argument_names(function)[1 + given :]
    return "mask" in names and _signature(function).parameters["mask"].default is inspect.Parameter.empty


def _argument_names(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(_signature(function).parameters)
