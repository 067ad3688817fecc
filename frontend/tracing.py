"""What happens while layers are called: symbols of the functional API, paths, random streams, updates, masks.

There are two ways to call a layer. Called on ordinary nodes it builds the graph. Called on a :class:`Symbol` (what
``Input`` and layers called on symbols return) it only finds out the type of its result and notes the call; ``Model``
collects those calls and runs them on ordinary nodes whenever it needs a graph, under a :class:`Trace` that knows the
path of the layer being called.
"""

from __future__ import annotations

import itertools
import re
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.frontend import seeds
from graphc.ir.location import Location
from graphc.ir.node import Input, Node, Parameter, topological
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.frontend.layers.base import Layer
    from graphc.frontend.layers.weights import WeightHolder

_call_numbers = itertools.count()


class Symbol(Node):
    """A value between layers of a model that is being declared: a leaf with a type, and the call that makes it.

    Attributes:
        call: the layer call whose result it is.
        mask: the type of the mask that travels beside it, or None.
        scope: where layers called on it take their names from.
    """

    __slots__ = ("call", "mask", "scope")

    call: Call
    mask: TensorType | None
    scope: Scope

    def __init__(self, label: str, type: TensorType, scope: Scope, loc: Location | None) -> None:
        super().__init__(Input(re.sub(r"\W", "_", label), type), (), type, loc)
        self.scope = scope
        self.mask = None


@dataclass(eq=False)
class Call:
    """One call of a layer on symbols.

    Attributes:
        args, kwargs: the arguments; their leaves are symbols, other nodes over symbols, or plain values.
        outputs: the resulting structure of symbols.
        number: grows with time.
    """

    layer: Layer
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any
    loc: Location | None
    number: int


def record(layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any, loc: Location | None) -> Call:
    """Note a call; its symbols point back to it."""
    from graphc.frontend.nest import leaves

    call = Call(layer, args, kwargs, outputs, loc, next(_call_numbers))
    for leaf in leaves(outputs):
        if isinstance(leaf, Symbol):
            leaf.call = call
    layer.calls.append(call)
    return call


class Names:
    """Hands out names that are not taken: ``dense``, ``dense_1``, ..."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._taken: set[str] = set()

    def reserve(self, name: str) -> None:
        """No name given out later will be this one."""
        self._taken.add(name)

    def name_for(self, base: str) -> str:
        """The next name of this kind that is free."""
        while True:
            count = self._counts[base]
            self._counts[base] += 1
            name = f"{base}_{count}" if count else base
            if name not in self._taken:
                self._taken.add(name)
                return name


class Scope:
    """Where the layers of a model that is being declared take their names and first values from.

    Attributes:
        ordinal: the number of the model, from which first values are drawn.
        era: the era of the seed in which it was opened.
    """

    def __init__(self) -> None:
        self.ordinal = seeds.next_ordinal()
        self.era = seeds.era()
        self.names = Names()


class Rng:
    """The state of a model's random numbers: its seed, and a counter that advances at every training step."""

    def __init__(self, seed: int) -> None:
        self.seed = Parameter("rng/seed", np.array(seed & 0xFFFFFFFF, np.uint32), trainable=False)
        self.step = Parameter("rng/step", np.array(0, np.uint32), trainable=False)


class Trace:
    """The state of one run through a model's layers.

    Attributes:
        updates: next values of state that the layers declared, by ``id`` of the parameter.
        always: the state among them that changes in evaluation and prediction, too.
        losses: what the layers add to the loss.
        layers: the layers whose code is running, outermost first.
        model: the model whose layers these are, if it is one's.
        training: what ``training=`` of an enclosing call said, or None: whatever the program is compiled for.
    """

    def __init__(self, rng: Callable[[], Rng]) -> None:
        self._make_rng = rng
        self._rng: Rng | None = None
        self._names: list[str] = []
        self.layers: list[WeightHolder] = []
        self.model: WeightHolder | None = None
        self._calls: Counter[str] = Counter()
        self.updates: dict[int, tuple[Parameter, Node]] = {}
        self.always: set[int] = set()
        self.losses: list[Node] = []
        self.training: bool | None = None

    @property
    def path(self) -> str:
        """The names of the layers being called, outermost first, with ``#n`` at a layer's n-th further call."""
        return "/".join(self._names)

    @contextmanager
    def inside(self, layer: WeightHolder, training: bool | None) -> Generator[None]:
        """Run the body as a call of the layer."""
        name = layer.name
        path = f"{self.path}/{name}"
        index = self._calls[path]
        self._calls[path] += 1
        before = self.training
        self.training = before if training is None else training
        self._names.append(f"{name}#{index}" if index else name)
        self.layers.append(layer)
        try:
            yield
        finally:
            self._names.pop()
            self.layers.pop()
            self.training = before

    def rng(self) -> Rng:
        """The random state; using it makes its counter advance in training."""
        if self._rng is None:
            self._rng = self._make_rng()
            self.update(self._rng.step, lambda step: step + 1)
        return self._rng

    def stream(self, *more: str) -> int:
        """The number of the current call's random stream."""
        return seeds.stream_of("/".join((self.path, *more)))

    def update(self, parameter: Parameter, change: Callable[[Node], Node], always: bool = False) -> None:
        """Declare a new value of some state; later updates of the same state start from it."""
        if always:
            self.always.add(id(parameter))
        latest = self.updates[id(parameter)][1] if id(parameter) in self.updates else parameter
        self.updates[id(parameter)] = (parameter, change(latest))


class _Thread(threading.local):
    def __init__(self) -> None:
        self.traces: list[Trace] = []
        self.scope: Scope | None = None


_thread = _Thread()


def current() -> Trace | None:
    """The innermost trace that is running, or None."""
    return _thread.traces[-1] if _thread.traces else None


@contextmanager
def tracing(trace: Trace) -> Generator[Trace]:
    """Layers called in the body belong to this trace."""
    _thread.traces.append(trace)
    try:
        yield trace
    finally:
        _thread.traces.pop()


def open_scope() -> Scope:
    """The scope of the model that is being declared; the first ``Input`` after a finished model opens a new one."""
    scope = _thread.scope
    if scope is None or scope.era != seeds.era():
        scope = _thread.scope = Scope()
    return scope


@contextmanager
def new_scope() -> Generator[Scope]:
    """Layers and inputs made in the body belong to a model of their own."""
    before = _thread.scope
    scope = _thread.scope = Scope()
    try:
        yield scope
    finally:
        _thread.scope = before


def close_scope(scope: Scope) -> None:
    """The model is declared: what comes next is another one."""
    if _thread.scope is scope:
        _thread.scope = None


_changes = itertools.count(1)
_version = 0


def note_change() -> None:
    """Something that compiled programs depend on has changed, such as which layers are trainable."""
    global _version
    _version = next(_changes)


def version() -> int:
    """Grows with every :func:`note_change`."""
    return _version


def probing() -> Trace:
    """A trace whose results serve only to find out types."""
    return Trace(lambda: Rng(0))


_real: weakref.WeakValueDictionary[int, Node] = weakref.WeakValueDictionary()
_masks: dict[int, Node] = {}


def symbols_of(node: Node) -> list[Symbol]:
    """The symbols that a value is computed from, in a fixed order; none for a value of an ordinary graph."""
    if isinstance(node, Symbol):
        return [node]
    if node.uid in _real:
        return []
    found = [leaf for leaf in topological([node]) if isinstance(leaf, Symbol)]
    if not found:
        mark_real(node)
    return found


def mark_real(node: Node) -> None:
    """Remember that an ordinary graph computes this value, so that deep graphs are not searched again."""
    _real[node.uid] = node


def mask_of(node: Node) -> Node | None:
    """The mask that travels beside a value: bool, false where a step is padding."""
    return _masks.get(node.uid)


def set_mask(node: Node, mask: Node | None) -> None:
    """Let a mask travel beside a value from here on."""
    if mask is None or node.uid in _masks:
        return
    _masks[node.uid] = mask
    weakref.finalize(node, _masks.pop, node.uid, None).atexit = False


def probe_for(node: Node) -> Node:
    """An ordinary placeholder of the type of a value over symbols, with a mask if it has one."""
    loc = node.loc
    probe = Node(Input(node.name or node.op.name, node.type), (), node.type, loc)
    if isinstance(node, Symbol) and node.mask is not None:
        set_mask(probe, Node(Input("mask", node.mask), (), node.mask, loc))
    return probe
