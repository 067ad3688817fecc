"""Random typed graphs whose values a compiler must keep: views, broadcasting, reductions, products, indices, gradients.

Numbers are either *exact* (small multiples of a power of two, on which no order of operations makes a difference) or
*rough* (whatever came of an exp or a division). Only exact numbers decide anything: comparisons, rounding, casts to
integers and arguments of the maximum are never taken of rough ones, so that a correct compiler differs from NumPy by
rounding alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import graphc as gx
from graphc.ir.dims import evaluate
from graphc.ir.node import Parameter, topological
from graphc.ops.create import iota

MOST_ELEMENTS = 6000
EXACT_BITS = {"float32": 20, "float64": 48}


@dataclass(frozen=True)
class Value:
    """A node of the graph.

    Attributes:
        bound: no element is larger than this.
        bits: the binary digits behind the point, of an exact number.
        index_below: for integers that may be indices, the size of the axis that they fit.
    """

    node: gx.Node
    exact: bool = True
    bound: float = 4.0
    bits: int = 2
    index_below: Any = None


@dataclass
class RandomGraph:
    """A graph under construction and arrays to run it on.

    Attributes:
        dims: the values of the named sizes.
        arrays: what the inputs are given.
        wild: values of no meaning (a mean of nothing): they may be outputs, but nothing is computed from them.
    """

    rng: np.random.Generator
    dims: dict[str, int]
    sizes: list[Any]
    dtype: str
    values: list[Value] = field(default_factory=list)
    wild: list[gx.Node] = field(default_factory=list)
    arrays: dict[gx.Node, Any] = field(default_factory=dict)
    outputs: dict[str, gx.Node] = field(default_factory=dict)
    updates: dict[Parameter, gx.Node] = field(default_factory=dict)

    # choosing

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def extent(self, size: Any) -> int:
        return evaluate(size, self.dims)

    def elements(self, shape: Any) -> int:
        return math.prod(self.extent(size) for size in shape)

    def value(self, *kinds: str, exact: bool = False) -> Value:
        """A value of one of these kinds of element type (f, i, b), a recent one more often than not."""
        kinds = kinds or ("f",)
        found = [v for v in self.values if kind_of(v.node) in kinds and (v.exact or not exact)]
        if not found:
            raise Unsuitable
        if self.chance(0.5):
            found = found[-6:]
        return self.pick(*found)

    def shape(self, most: int = 3) -> tuple[Any, ...]:
        """A shape of the sizes at hand."""
        found = tuple(self.pick(*self.sizes) for _ in range(int(self.rng.integers(0, most + 1))))
        if self.elements(found) > MOST_ELEMENTS:
            raise Unsuitable
        return found

    # building

    def keep(
        self, node: gx.Node, exact: bool = True, bound: float = 4.0, bits: int = 0, index_below: Any = None
    ) -> None:
        """Put a new value into the pool, unless it is too large or no longer what it claims."""
        if self.elements(node.shape) > MOST_ELEMENTS:
            raise Unsuitable
        if kind_of(node) == "f":
            if exact and math.log2(max(bound, 1)) + bits > EXACT_BITS[node.dtype.value]:
                exact = False
            if bound > 1e6:
                raise Unsuitable
        self.values.append(Value(node, exact, bound, bits, index_below))

    def leaf(self) -> None:
        """An input, a parameter or a constant."""
        kind, shape = self.pick("f", "f", "f", "f", "i", "b"), self.shape()
        place = self.pick("input", "input", "parameter", "constant")
        if place != "input":
            shape = tuple(self.extent(size) if self.chance(0.5) else 3 for size in shape if isinstance(size, int))
        numbers = tuple(self.extent(size) for size in shape)
        if kind == "f":
            array = (self.rng.integers(-16, 17, numbers) / 4).astype(self.dtype)
        elif kind == "i":
            dtype = self.pick(np.int32, np.int64, np.uint32)
            array = self.rng.integers(0 if dtype is np.uint32 else -40, 40, numbers).astype(dtype)
        else:
            array = self.rng.random(numbers) < 0.5
        self.keep(self._leaf(place, shape, array), bound=4.0 if kind == "f" else 40.0, bits=2 if kind == "f" else 0)

    def indices(self) -> Value:
        """An input of integers that fit an axis of one of the sizes."""
        limit, shape = self.pick(*self.sizes), self.shape(2)
        numbers = tuple(self.extent(size) for size in shape)
        if self.extent(limit) == 0 and math.prod(numbers):
            raise Unsuitable
        dtype = self.pick(np.int32, np.int64, np.uint32)
        array = self.rng.integers(0, max(self.extent(limit), 1), numbers).astype(dtype)
        node = self._leaf("input", shape, array)
        self.values.append(Value(node, True, float(self.extent(limit)), 0, limit))
        return self.values[-1]

    def _leaf(self, place: str, shape: Any, array: Any) -> gx.Node:
        if place == "constant":
            return gx.constant(array)
        name = f"{place[0]}{len(self.arrays)}_{len(self.values)}"
        if place == "parameter":
            return gx.parameter(name, array)
        node = gx.placeholder(name, shape, array.dtype)
        self.arrays[node] = array
        return node

    def step(self) -> None:
        """Add one more value, after a few choices that do not fit."""
        for _ in range(8):
            rule = RULES[int(self.rng.choice(len(RULES), p=WEIGHTS))]
            try:
                rule(self)
                return
            except (Unsuitable, gx.GraphcError):
                continue

    def spoil(self) -> None:
        """Put an index that lies outside its axis into one of the inputs, if there is one."""
        for value in self.values:
            array = self.arrays.get(value.node)
            if value.index_below is not None and array is not None and array.size:
                outside = self.pick(self.extent(value.index_below), -1 if array.dtype.kind == "i" else 2**32 - 1)
                array.flat[int(self.rng.integers(array.size))] = outside
                return

    def finish(self) -> None:
        """Choose outputs and updates."""
        candidates = [v.node for v in self.values]
        count = int(self.rng.integers(1, 5))
        used = {arg for node in topological(candidates) for arg in node.args}
        ends = [node for node in candidates if node not in used and node.args]
        recent = ends if ends and self.chance(0.8) else candidates
        for number in range(count):
            self.outputs[f"y{number}"] = self.pick(*recent, *self.wild)
        parameters = [v.node for v in self.values if isinstance(v.node, Parameter)]
        for parameter in parameters:
            same = [n for n in candidates if n.type == parameter.type and n is not parameter]
            if same and self.chance(0.7):
                self.updates[parameter] = self.pick(*same)
        for parameter in parameters:
            if self.chance(0.4) and kind_of(parameter) == "f" and parameter not in self.updates:
                mixed = self.pick(*[p for p in parameters if p.dtype is parameter.dtype])
                change = gx.sum(gx.tanh(mixed)) * 0.125
                self.updates[parameter] = parameter * 0.5 + self.pick(change, gx.tanh(parameter), 1.0)


class Unsuitable(Exception):
    """The random choice does not fit; another one is made."""


def kind_of(node: gx.Node) -> str:
    """``f``, ``i`` or ``b``."""
    return "f" if node.dtype.is_float else "b" if node.dtype.value == "bool" else "i"


def add_or_subtract(g: RandomGraph) -> None:
    a, b = g.value(), g.value()
    node = g.pick(gx.add, gx.subtract)(a.node, b.node)
    g.keep(node, a.exact and b.exact, a.bound + b.bound, max(a.bits, b.bits))


def multiply(g: RandomGraph) -> None:
    a, b = g.value(), g.value()
    g.keep(gx.multiply(a.node, b.node), a.exact and b.exact, a.bound * b.bound, a.bits + b.bits)


def extremes(g: RandomGraph) -> None:
    a, b = g.value(), g.value()
    node = g.pick(gx.maximum, gx.minimum)(a.node, b.node)
    g.keep(node, a.exact and b.exact, max(a.bound, b.bound), max(a.bits, b.bits))


def with_a_number(g: RandomGraph) -> None:
    a, c = g.value(), float(g.pick(0.5, 2.0, -1.0, 1.0, 0.0, 3.0))
    node = g.pick(
        lambda: a.node + c, lambda: c - a.node, lambda: a.node * c, lambda: gx.maximum(a.node, c), lambda: a.node - c,
    )()  # fmt: skip
    g.keep(node, a.exact, max(a.bound * 3, a.bound + 3), a.bits + 1)


def divide(g: RandomGraph) -> None:
    a, b = g.value(), g.value()
    g.keep(a.node / (gx.abs(b.node) + 0.5), False, a.bound * 2)


def smooth(g: RandomGraph) -> None:
    a = g.value()
    fn, bound = g.pick(
        (gx.tanh, 1.0), (gx.sigmoid, 1.0), (gx.sin, 1.0), (gx.cos, 1.0), (gx.erf, 1.0), (gx.softplus, a.bound + 1.0),
        (gx.gelu, a.bound), (lambda x: gx.exp(gx.tanh(x)), 3.0), (lambda x: gx.log(gx.abs(x) + 0.5), a.bound),
        (lambda x: gx.sqrt(gx.abs(x) + 0.25), a.bound + 1.0), (lambda x: gx.log1p(gx.square(x)), a.bound + 1.0),
        (lambda x: gx.expm1(gx.tanh(x)), 2.0), (lambda x: gx.rsqrt(x * x + 1.0), 1.0),
        (lambda x: gx.pow(gx.abs(x) + 0.5, 1.5), (a.bound + 1.0) ** 2), (lambda x: gx.pow(x, 3), a.bound**3),
    )  # fmt: skip
    g.keep(fn(a.node), False, bound)


def exact_unary(g: RandomGraph) -> None:
    a = g.value()
    fn = g.pick(gx.negative, gx.abs, gx.relu, gx.stop_gradient)
    g.keep(fn(a.node), a.exact, a.bound, a.bits)


def rounding(g: RandomGraph) -> None:
    a = g.value(exact=True)
    g.keep(g.pick(gx.floor, gx.ceil, gx.round, gx.sign)(a.node), True, a.bound + 1, 0)


def compare(g: RandomGraph) -> None:
    kind = g.pick("f", "f", "i")
    a, b = g.value(kind, exact=True), g.value(kind, exact=True)
    fn = g.pick(gx.less, gx.less_equal, gx.greater, gx.greater_equal, gx.equal, gx.not_equal)
    g.keep(fn(a.node, g.pick(b.node, 1)))


def logic(g: RandomGraph) -> None:
    a, b = g.value("b"), g.value("b")
    g.keep(g.pick(gx.logical_and, gx.logical_or, gx.logical_xor, lambda x, y: gx.logical_not(x))(a.node, b.node))


def choose(g: RandomGraph) -> None:
    c, a, b = g.value("b"), g.value(), g.value()
    g.keep(gx.where(c.node, a.node, b.node), a.exact and b.exact, max(a.bound, b.bound), max(a.bits, b.bits))


def integers(g: RandomGraph) -> None:
    a, b = g.value("i"), g.value("i")
    node = g.pick(
        lambda: a.node + b.node, lambda: a.node * b.node, lambda: a.node - b.node, lambda: gx.maximum(a.node, b.node),
        lambda: a.node % 7, lambda: a.node // 3, lambda: gx.bitwise_xor(a.node, b.node), lambda: a.node // (b.node | 1),
        lambda: gx.left_shift(a.node, 3), lambda: gx.right_shift(a.node, 2), lambda: a.node % (b.node | 1),
    )()  # fmt: skip
    g.keep(node, bound=math.inf)


def convert(g: RandomGraph) -> None:
    a = g.value("f", "i", "b", exact=True)
    kind = kind_of(a.node)
    target = g.pick(g.dtype, "int32", "int64", "bool", "uint32")
    if kind == "i" and target == g.dtype:
        node, bound = gx.cast(a.node % 16, target), 16.0
    elif kind == "f" and target == "uint32":
        raise Unsuitable  # of negative numbers, undefined
    else:
        node, bound = gx.cast(a.node, target), a.bound if kind == "f" else 1.0 if kind == "b" else math.inf
    g.keep(node, True, bound, a.bits if kind == "f" and target == g.dtype else 0)


def reduce(g: RandomGraph) -> None:
    a = g.value("f", "f", "i", "b")
    axes = tuple(axis for axis in range(a.node.ndim) if g.chance(0.5))
    axis = g.pick(axes, None, axes[0] if axes else None)
    count = g.elements(a.node.shape[i] for i in (range(a.node.ndim) if axis is None else np.atleast_1d(axis)))
    keep, kind = g.chance(0.3), kind_of(a.node)
    if kind == "b":
        node = g.pick(gx.any, gx.all)(a.node, axis=axis, keepdims=keep)
        if count:
            g.keep(node)
        return
    name = (
        g.pick("sum", "max", "min")
        if kind == "i"
        else g.pick("sum", "sum", "max", "min", "mean", "var", "logsumexp", "prod")
    )
    if name == "prod" and (count > 6 or a.bound > 4):
        raise Unsuitable
    fn = {
        "logsumexp": gx.logsumexp,
        "sum": gx.sum,
        "max": gx.max,
        "min": gx.min,
        "mean": gx.mean,
        "var": gx.var,
        "prod": gx.prod,
    }[name]
    node = fn(a.node, axis=axis, keepdims=keep)
    if count == 0 and name not in ("sum", "prod"):
        g.wild.append(node)
        return
    exact = a.exact and name in ("sum", "max", "min")
    several = max(count, 1)
    bound = a.bound ** min(several, 6) if name in ("prod", "var") else a.bound * several if name == "sum" else a.bound
    g.keep(node, exact or kind == "i", bound + several, a.bits)


def arguments(g: RandomGraph) -> None:
    a = g.value("f", "i", exact=True)
    axis = int(g.rng.integers(a.node.ndim)) if a.node.ndim else 0
    if not a.node.ndim or g.extent(a.node.shape[axis]) == 0:
        raise Unsuitable
    node = g.pick(gx.argmax, gx.argmin)(a.node, axis=axis, keepdims=g.chance(0.3))
    g.keep(node, bound=64.0, index_below=a.node.shape[axis])


def softmaxes(g: RandomGraph) -> None:
    a = g.value()
    if not a.node.ndim:
        raise Unsuitable
    axis = int(g.rng.integers(a.node.ndim))
    g.keep(g.pick(gx.softmax, gx.log_softmax)(a.node, axis=axis), False, 2 * a.bound + 8)


def move(g: RandomGraph) -> None:
    a = g.value("f", "f", "i", "b")
    x, rank = a.node, a.node.ndim
    options: list[Callable[[], gx.Node]] = [
        lambda: gx.transpose(x, [int(i) for i in g.rng.permutation(rank)]),
        lambda: gx.flip(x, [i for i in range(rank) if g.chance(0.5)]),
        lambda: gx.expand_dims(x, int(g.rng.integers(rank + 1))),
        lambda: gx.reshape(x, (-1,)),
        lambda: gx.reshape(x, (*x.shape[:-2], -1)) if rank >= 2 else gx.reshape(x, (1, *x.shape)),
        lambda: gx.reshape(x, (-1, *x.shape[2:])) if rank >= 2 else gx.reshape(x, (*x.shape, 1)),
        lambda: gx.reshape(x, tuple(g.rng.permutation(np.array(x.shape, object)))),
        lambda: gx.broadcast_to(x, (g.pick(*g.sizes), *x.shape)),
        lambda: gx.squeeze(x),
    ]
    if rank >= 1 and isinstance(x.shape[0], int) and x.shape[0] % 2 == 0:
        options.append(lambda: gx.reshape(x, (2, x.shape[0] // 2, *x.shape[1:])))
        options.append(lambda: gx.reshape(x, (x.shape[0] // 2, 2, *x.shape[1:])))
    g.keep(g.pick(*options)(), a.exact, a.bound, a.bits, a.index_below)


def cut(g: RandomGraph) -> None:
    a = g.value("f", "f", "i", "b")
    index: list[Any] = []
    for size in a.node.shape:
        extent = g.extent(size)
        options = [
            slice(None),
            slice(None),
            slice(None, None, -1),
            slice(1, None),
            slice(None, 2),
            slice(None, None, 2),
        ]
        options += [slice(-2, None), slice(None, -1), slice(3, 1, -1), slice(-1, None, -2)]
        if extent and (isinstance(size, int) or extent > 0):
            options += [0, -1]
        index.append(g.pick(*options))
    g.keep(a.node[tuple(index)], a.exact, a.bound, a.bits, a.index_below)


def join(g: RandomGraph) -> None:
    a = g.value("f", "f", "i", "b")
    like = [v for v in g.values if v.node.type == a.node.type]
    parts = [a, *(g.pick(*like) for _ in range(int(g.rng.integers(1, 3))))]
    nodes = [v.node for v in parts]
    rank = a.node.ndim
    if rank and g.chance(0.6):
        node = gx.concatenate(nodes, axis=int(g.rng.integers(rank)))
    else:
        node = gx.stack(nodes, axis=int(g.rng.integers(rank + 1)))
    g.keep(node, all(v.exact for v in parts), max(v.bound for v in parts), max(v.bits for v in parts))


def surround(g: RandomGraph) -> None:
    a = g.value("f", "f", "i")
    low, high = ([int(g.rng.integers(3)) for _ in a.node.shape] for _ in range(2))
    between = g.pick(None, [int(g.rng.integers(2)) for _ in a.node.shape])
    g.keep(gx.pad(a.node, low, high, between, 2), a.exact, max(a.bound, 2.0), a.bits)


def product(g: RandomGraph) -> None:
    a = g.value()
    if not a.node.ndim:
        raise Unsuitable
    inner = a.node.shape[-1]
    fits = [
        v for v in g.values if kind_of(v.node) == "f" and inner in v.node.shape[-2:] and v.node.dtype is a.node.dtype
    ]
    if not fits:
        raise Unsuitable
    b = g.pick(*fits)
    right = b.node
    place = right.shape[-2] if right.ndim > 1 else right.shape[-1]
    if place != inner:
        right = gx.transpose(right, (*range(right.ndim - 2), right.ndim - 1, right.ndim - 2))
    count = max(g.extent(inner), 1)
    g.keep(a.node @ right, a.exact and b.exact, a.bound * b.bound * count, a.bits + b.bits)


def gather(g: RandomGraph) -> None:
    a = g.value("f", "f", "i", "b")
    ready = [v for v in g.values if v.index_below is not None and kind_of(v.node) == "i"]
    chosen = g.pick(*ready) if ready and g.chance(0.6) else g.indices()
    axes = [axis for axis, size in enumerate(a.node.shape) if size == chosen.index_below]
    if not axes:
        raise Unsuitable
    axis = g.pick(*axes)
    if g.chance(0.4) and chosen.node.ndim == a.node.ndim:
        node = gx.take_along(a.node, chosen.node, axis=axis)
    else:
        node = gx.take(a.node, chosen.node, axis=axis)
    g.keep(node, a.exact, a.bound, a.bits, a.index_below)


def classes(g: RandomGraph) -> None:
    ready = [v for v in g.values if v.index_below is not None]
    chosen = g.pick(*ready) if ready else g.indices()
    if g.chance(0.5):
        g.keep(gx.one_hot(chosen.node, chosen.index_below, g.dtype), True, 1.0, 0)
        return
    fits = [v for v in g.values if kind_of(v.node) == "f" and v.node.shape == (*chosen.node.shape, chosen.index_below)]
    if not fits:
        raise Unsuitable
    logits = g.pick(*fits)
    g.keep(gx.sparse_softmax_cross_entropy(chosen.node, logits.node), False, 2 * logits.bound + 8)


def positions(g: RandomGraph) -> None:
    shape = g.shape()
    if g.chance(0.3):
        g.keep(gx.cast(gx.size_of(g.pick(*g.sizes)), g.dtype), True, 80.0, 0)
    elif shape:
        g.keep(iota(shape, int(g.rng.integers(len(shape))), g.pick("int32", "int64")), bound=80.0)


def random_numbers(g: RandomGraph) -> None:
    seed, step = np.uint32(g.rng.integers(100)), np.uint32(g.rng.integers(5))
    if g.chance(0.5):
        g.keep(gx.uniform(g.shape(), seed, step, int(g.rng.integers(3)), g.dtype), False, 1.0)
        return
    a = g.value()
    g.keep(gx.dropout(a.node, float(g.pick(0.5, 0.25)), seed, step, stream=1), False, a.bound * 2)


def differentiate(g: RandomGraph) -> None:
    """Gradients of a smooth function of a value, with respect to something that it may depend on."""
    y, x = g.value(), g.value()
    loss = gx.sum(gx.tanh(y.node)) if g.chance(0.7) else gx.sum(gx.square(gx.tanh(y.node * 0.5)) * 0.5)
    if y.node is x.node or y.node.dtype is not x.node.dtype:
        raise Unsuitable
    (gradient,) = gx.grad(loss, [x.node])
    g.keep(gradient, False, 1e4)


RULES: list[Callable[[RandomGraph], None]] = [
    RandomGraph.leaf, add_or_subtract, multiply, extremes, with_a_number, divide, smooth, exact_unary, rounding, compare,
    logic, choose, integers, convert, reduce, arguments, softmaxes, move, cut, join, surround, product, gather, classes,
    positions, random_numbers, differentiate,
]  # fmt: skip
_raw = np.array([3, 3, 3, 1, 2, 2, 3, 2, 1, 2, 1, 2, 2, 2, 6, 1, 2, 6, 4, 2, 1, 4, 3, 2, 1, 1, 3], float)
WEIGHTS = _raw / _raw.sum()


def random_graph(seed: int, steps: int = 40) -> RandomGraph:
    """The graph of this number, with its arrays."""
    rng = np.random.default_rng([seed, 77])
    dims = {
        name: int(rng.choice([0, 1, 2, 3, 5, 6, 70], p=[0.1, 0.15, 0.2, 0.2, 0.2, 0.1, 0.05])) for name in ("n", "m")
    }
    fixed = [int(size) for size in rng.choice([1, 2, 3, 4, 5, 6, 65], 3, p=[0.2, 0.2, 0.2, 0.15, 0.1, 0.1, 0.05])]
    if rng.random() < 0.05:
        fixed[0] = 4200  # longer than a chunk of a sum
    named = [["n", "m"], ["n"], []][int(rng.integers(3))]
    g = RandomGraph(rng, dims, [*map(gx.Dim, named), *fixed], str(rng.choice(["float64", "float64", "float32"])))
    for _ in range(3):
        with suppress(Unsuitable):
            g.leaf()
    for name in named:  # each size stands alone in the shape of some input
        array = (rng.integers(-8, 9, (dims[name], 2)) / 4).astype(g.dtype)
        g.keep(g._leaf("input", (name, 2), array), bits=2)
    for _ in range(steps):
        g.step()
    g.finish()
    return g
