"""Scan: a loop over time as an op, with a graph for its step.

A step takes the carries, one element of each sequence, and what does not change; it gives the next carries and one
element of each result. The reverse derivative of a scan is a scan in the other direction, and its forward derivative
a scan whose carries are twice as many, so that both differentiate again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.errors import AxisError, DTypeError, GraphError, ShapeError
from graphc.ir import location
from graphc.ir.dims import Size
from graphc.ir.graph import Graph, substitute_nodes
from graphc.ir.node import Constant, Input, Node, apply, topological
from graphc.ir.op import Op
from graphc.ir.sweep import Part
from graphc.ir.types import DType, TensorType, TupleType
from graphc.ops.base import (
    Array,
    BadCase,
    Tangents,
    as_node,
    ints,
    op_class,
    user_line,
)
from graphc.ops.bodies import Nest, flatten, form_of, like_nest, run_body
from graphc.ops.create import Iota, SizeOf
from graphc.ops.movement import BroadcastTo


@op_class
class Scan(Op):
    """A loop of ``length`` steps.

    Operands: the first values of the carries; the sequences, with time as their first axis; what does not change.
    Results: of each carry its last value, or, where ``keep`` says so, all ``length + 1`` with the first one; then
    what the steps result in, stacked along a first axis.

    Attributes:
        body: the step. Its inputs are the carries, the elements of the sequences, and what does not change; its
            outputs the next carries and the results.
        carries, sequences: how many there are.
        length: the number of steps; 0 is allowed.
        reverse: whether steps go from the last element to the first. Elements keep their places in the results.
        keep: for each carry, whether all its values are a result: the value before the step of element t stands at t
            and the one after it at t + 1, or the other way round in reverse.
        stops: whether the first carry, a bool, says if there is a next step. Results of steps that do not run are
            zeros, and one more result, an int64, says how many did.
        whole: whether products stay inside, because outside they would need far more memory.

    Shapes: operands those of the body's inputs, sequences with ``length`` in front.
    Raises: ShapeError, DTypeError: an operand or a next carry is not of its input's type.
    Source: https://docs.jax.dev/en/latest/_autosummary/jax.lax.scan.html
    """

    body: Graph
    carries: int
    sequences: int
    length: Size
    reverse: bool
    keep: tuple[bool, ...]
    stops: bool = False
    whole: bool = False

    operands = ("operand",)

    def infer(self, *types: TensorType) -> TensorType:
        inputs = self.body.inputs
        if len(types) != len(inputs):
            raise ShapeError(f"{len(types)} operands for {len(inputs)} inputs of the step", remedy="give one for each")
        for position, (given, node) in enumerate(zip(types, inputs, strict=True)):
            stacked = self.carries <= position < self.carries + self.sequences
            wanted = TensorType(node.dtype, (self.length, *node.shape) if stacked else node.shape)
            _require(given, wanted, _role(self, position))
        parts: list[TensorType] = []
        for position, (_, node) in enumerate(self.body.outputs):
            if position < self.carries:
                _require(node.type, inputs[position].type, f"the next value of carry {position}")
                kept = self.keep[position]
                parts.append(TensorType(node.dtype, (self.length + 1, *node.shape)) if kept else node.type)
            else:
                parts.append(TensorType(node.dtype, (self.length, *node.shape)))
        if self.stops:
            _require(inputs[0].type, TensorType(DType.bool, ()), "whether there is a next step")
            parts.append(TensorType(DType.int64, ()))
        return TupleType.of(parts)

    @property
    def key(self) -> tuple[Any, ...]:
        """Identity: the very nodes of the body, and the attributes."""
        body = self.body
        return (
            Scan, *map(id, body.inputs), "roots", *map(id, body.roots), self.carries, self.sequences,
            ("size", self.length), self.reverse, self.keep, self.stops, self.whole,
        )  # fmt: skip

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def with_bodies(self, bodies: Sequence[Graph]) -> Scan:
        return replace(self, body=bodies[0])

    def with_sizes(self, bind: Callable[[Any], Any]) -> Op:
        bound = replace(self, length=bind(self.length))
        object.__setattr__(bound, "_steps", [(node, node.op.with_sizes(bind)) for node in self.body.nodes])
        object.__setattr__(bound, "_bind", bind)
        return bound

    def reference(self, *args: Array) -> list[Array]:
        """Step by step. Where a check of the body fails, :class:`~graphc.ops.bodies.CheckFault` is raised."""
        nodes: list[tuple[Node, Op]] = self.__dict__.get("_steps") or [(node, node.op) for node in self.body.nodes]
        first = self.carries + self.sequences
        state = list(args[: self.carries])
        history = [[value] for value in state]
        (length,) = ints((self.length,))
        results: list[list[Array]] = [[] for _ in self.body.outputs[self.carries :]]
        steps = 0
        while steps < length and (not self.stops or state[0]):
            step, steps = steps, steps + 1
            place = length - 1 - step if self.reverse else step
            elements = [sequence[place] for sequence in args[self.carries : first]]
            out = run_body(self.body, nodes, (*state, *elements, *args[first:]))
            state = out[: self.carries]
            for kept, value in zip(history, state, strict=True):
                kept.append(value)
            for collected, value in zip(results, out[self.carries :], strict=True):
                collected.append(value)
        found: list[Array] = []
        for kept, all_of_them in zip(history, self.keep, strict=True):
            ordered = kept[::-1] if self.reverse else kept
            found.append(np.stack(ordered) if all_of_them else kept[-1])
        for (_, node), collected in zip(self.body.outputs[self.carries :], results, strict=True):
            collected += [np.zeros(self._sizes(node), node.dtype.numpy)] * (length - steps)
            ordered = collected[::-1] if self.reverse else collected
            found.append(np.stack(ordered) if ordered else np.zeros((0, *self._sizes(node)), node.dtype.numpy))
        return [*found, np.asarray(steps, np.int64)] if self.stops else found

    def _sizes(self, node: Node) -> tuple[int, ...]:
        bind = self.__dict__.get("_bind")
        return ints(node.shape if bind is None else tuple(bind(size) for size in node.shape))

    # derivatives

    def vjp_parts(self, node: Node, cotangents: Sequence[Node | None]) -> Sequence[Node | None]:
        from graphc.ops.scan_derivative import Reverse

        self._refuse_derivative(node)
        return Reverse(node, cotangents).run()

    def jvp_parts(self, node: Node, tangents: Tangents) -> Sequence[Node | None]:
        from graphc.ops.scan_derivative import forward

        self._refuse_derivative(node)
        return forward(node, tangents)

    def _refuse_derivative(self, node: Node) -> None:
        if self.stops:
            raise GraphError(
                "a loop that ends by itself has no derivative here",
                at=node.user_line,
                remedy="use gx.scan with gx.where for what no longer counts, or gx.stop_gradient on what goes in",
            )

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """See the tests of scan: a case needs a body."""
        return ()


def _require(given: TensorType, wanted: TensorType, what: str) -> None:
    if given.dtype is not wanted.dtype:
        raise DTypeError(f"{what} is {given}, the step takes {wanted}", remedy="convert it with gx.cast")
    if given.shape != wanted.shape:
        raise ShapeError(f"{what} is {given}, the step takes {wanted}", remedy="make the shapes equal")


def _role(op: Scan, position: int) -> str:
    if position < op.carries:
        return f"carry {position}"
    if position < op.carries + op.sequences:
        return f"sequence {position - op.carries}"
    return f"operand {position}"


# building


def scan(
    fn: Callable[[Nest, Nest], tuple[Nest, Nest]],
    init: Nest,
    xs: Nest = None,
    length: Size | None = None,
    reverse: bool = False,
    going: Callable[[Nest], Node] | None = None,
    whole: bool = False,
) -> tuple[Nest, Nest]:
    """A loop over the first axis of ``xs`` that carries state from step to step.

    Args:
        fn: ``fn(carry, x)`` builds one step and returns the next carry and a result (or None). It is called once. Nodes
            from outside that it uses stay the same for all steps.
        init: the first carry: a node, or lists, tuples and dicts of nodes.
        xs: sequences, time first, in the same forms; or None.
        length: the number of steps, where ``xs`` does not say it.
        reverse: go from the last element to the first; results stand where their elements stood.
        going: ``going(carry)`` builds a bool: whether there is a next step. Results of steps that do not run are zeros.
            Such a loop has no derivative.
        whole: leave large products inside, where they need memory for one step only; by default those that need no
            carry are computed for all steps at once.

    Returns:
        the last carry, and the results stacked along a first axis.

    Shapes: carries keep their types; sequences and results ``(length, ...)``.
    Raises: GraphError: no sequence and no length; ShapeError, DTypeError: a next carry is not of its carry's type, or
        sequences differ in length.
    Source: https://docs.jax.dev/en/latest/_autosummary/jax.lax.scan.html

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("time", 3))
    >>> total, sums = gx.scan(lambda c, x: (c + x, c + x), gx.zeros((3,)), x)
    >>> total, sums.type
    (<part: f32[3]>, f32[time, 3])
    """
    at = user_line()
    carries = [as_node(value) for value in flatten(init)]
    sequences = [as_node(value) for value in flatten(xs)]
    steps = _length(sequences, length, at)
    taken = [stand_in(f"c{i}", node.type) for i, node in enumerate(carries)]
    elements = [stand_in(f"x{i}", TensorType(node.dtype, node.shape[1:])) for i, node in enumerate(sequences)]
    given = fn(like_nest(init, iter(taken)), like_nest(xs, iter(elements)))
    if not isinstance(given, tuple) or len(given) != 2:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise GraphError("scan: the step gives no pair", at=at, remedy="return (carry, result), or (carry, None)")
    next_carry, result = given
    _check_nest(init, next_carry, at)
    following = [as_node(value, node.dtype) for value, node in zip(flatten(next_carry), carries, strict=True)]
    results = [as_node(value) for value in flatten(result)]
    first = 0
    if going is not None:
        first = 1
        following.insert(0, _flag(going(next_carry), at))
        carries.insert(0, _flag(going(init), at))
        taken.insert(0, stand_in("going", carries[0].type))
    made = make_scan(
        taken, elements, following, results, carries, sequences, steps, reverse, stops=first > 0, whole=whole
    )
    parts = [apply(Part(i), made) for i in range(first, len(following) + len(results))]
    middle = len(following) - first
    return like_nest(init, iter(parts[:middle])), like_nest(result, iter(parts[middle:]))


def while_loop(
    going: Callable[[Nest], Node], step: Callable[[Nest], Nest], init: Nest, most: Size
) -> tuple[Nest, Node]:
    """Repeat a step as long as a condition on the carry holds, ``most`` times at most.

    Args:
        going: ``going(carry)`` builds a bool; it is asked before each step, the first one too.
        step: ``step(carry)`` builds the next carry. Nodes from outside that it uses do not change.
        init: the first carry: a node, or lists, tuples and dicts of nodes.
        most: no more steps than this.

    Returns:
        the last carry, and how many steps ran.

    Shapes: carries keep their types; the number is an int64 scalar.
    Raises: GraphError, ShapeError, DTypeError: the condition is no single bool, the next carry is not like the first.
    Source: https://docs.jax.dev/en/latest/_autosummary/jax.lax.while_loop.html

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ())
    >>> halved, steps = gx.while_loop(lambda v: v > 1, lambda v: v / 2, x, most=100)
    >>> halved, steps
    (<part: f32[]>, <part: i64[]>)
    """
    last, _ = scan(lambda carry, _: (step(carry), None), init, length=most, going=going)
    whole = next(leaf for leaf in flatten(last) if isinstance(leaf, Node)).args[0]
    assert isinstance(whole.type, TupleType)
    return last, apply(Part(len(whole.type.parts) - 1), whole)


def _flag(value: Any, at: str | None) -> Node:
    flag = as_node(value)
    if flag.type != TensorType(DType.bool, ()):
        raise GraphError(
            f"the condition of a loop is {flag.type}", at=at, remedy="make it one bool, for example gx.any(...)"
        )
    return flag


def make_scan(
    taken: Sequence[Node],
    elements: Sequence[Node],
    following: Sequence[Node],
    results: Sequence[Node],
    carries: Sequence[Node],
    sequences: Sequence[Node],
    length: Size,
    reverse: bool = False,
    keep: Sequence[bool] | None = None,
    stops: bool = False,
    whole: bool = False,
) -> Node:
    """A scan from the pieces of its step; what the step uses from outside becomes an operand.

    Args:
        taken, elements: the step's placeholders for carries and elements.
        following, results: what the step gives.
        carries, sequences: the operands.
    """
    inner = [*taken, *elements]
    roots, constants, outside = close((*following, *results), inner)
    outputs = tuple((f"y{i}", node) for i, node in enumerate(roots))
    body = Graph((*inner, *constants), outputs)
    op = Scan(body, len(taken), len(elements), length, reverse, tuple(keep or [False] * len(taken)), stops, whole)
    return apply(op, *carries, *sequences, *outside)


def close(roots: Sequence[Node], inner: Sequence[Node]) -> tuple[tuple[Node, ...], list[Node], list[Node]]:
    """Roots that use nothing from outside but new placeholders: (the roots, the placeholders, what they stand for).

    What depends on no placeholder of ``inner`` is computed outside, once; constants and positions stay inside.
    """
    within = set(inner)
    order = topological(tuple(roots))
    depends: dict[Node, bool] = {}
    for node in order:
        depends[node] = node in within or any(depends[arg] for arg in node.args)
    free = free_nodes(order)
    outside: dict[Node, Node] = {}
    used = [arg for node in order if depends[node] for arg in node.args]
    for node in (*used, *roots):
        if not depends[node] and node not in free and node not in outside:
            outside[node] = stand_in(f"k{len(outside)}", node.type)
    return substitute_nodes(roots, outside), list(outside.values()), list(outside)


def free_nodes(order: Iterable[Node]) -> set[Node]:
    """The nodes of an order, operands first, that are small constants, positions, sizes, or these repeated."""
    free: set[Node] = set()
    for node in order:
        small = len(node.op.data) <= 64 if isinstance(node.op, Constant) else isinstance(node.op, Iota | SizeOf)
        if small or (isinstance(node.op, BroadcastTo) and node.args[0] in free):
            free.add(node)
    return free


def stand_in(label: str, type: TensorType) -> Node:
    return Node(Input(label, type), (), type, location.here())


def _length(sequences: Sequence[Node], length: Size | None, at: str | None) -> Size:
    sizes = [] if length is None else [length]
    for node in sequences:
        if not node.shape:
            raise ShapeError(f"scan: the sequence {node!r} has no axis", at=at, remedy="put time on its first axis")
        sizes.append(node.shape[0])
    if not sizes:
        raise GraphError("scan: there is no sequence and no length", at=at, remedy="give xs or length=")
    if any(size != sizes[0] for size in sizes):
        shown = " and ".join(dict.fromkeys(map(str, sizes)))
        raise ShapeError(f"scan: the sequences differ in length: {shown}", at=at, remedy="give sequences of one length")
    if isinstance(sizes[0], int) and sizes[0] < 0:
        raise AxisError(f"scan: {sizes[0]} steps", at=at, remedy="give 0 or more")
    return sizes[0]


def _check_nest(init: Nest, following: Nest, at: str | None) -> None:
    if form_of(init) != form_of(following):
        raise GraphError(
            f"scan: the step takes a carry of the form {form_of(init)} and gives {form_of(following)}",
            at=at,
            remedy="return the next carry in the form of init",
        )


__all__ = ["Scan", "scan", "while_loop"]
