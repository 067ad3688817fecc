"""Automatic differentiation: reverse mode and forward mode, both on graphs and closed over themselves.

A gradient is a graph of ordinary nodes: it prints, simplifies, fuses and differentiates again. Each node of the
primal gets one accumulated cotangent, and since nodes are hash-consed, each shared intermediate gradient exists once.

The primal is simplified before it is differentiated, so that a softmax cross entropy written out by hand gets the
derivative of the stable form. Gradient nodes carry the source line of the node that they derive from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.ir import location
from graphc.ir.graph import rebuild
from graphc.ir.node import Input, Node, ParameterLeaf, apply, topological
from graphc.ir.op import Op
from graphc.ir.sweep import pull, push
from graphc.ir.types import TensorType
from graphc.ops.arithmetic import add
from graphc.ops.base import full, user_line, zeros_like
from graphc.passes import simplify_primal
from graphc.rewrite import RewriteLog


@dataclass(frozen=True)
class Sweep:
    """What a reverse sweep found.

    Attributes:
        outputs: the simplified outputs.
        gradients: one for each wanted node; zeros where no output depends on it.
        cotangents: the accumulated cotangent of each node between, of users before those of their operands.
    """

    outputs: tuple[Node, ...]
    gradients: tuple[Node, ...]
    cotangents: dict[Node, Node]


def grad(loss: Node, wrt: Sequence[Node]) -> tuple[Node, ...]:
    """The gradients of a scalar: one node for each node of ``wrt``, of its type.

    Args:
        loss: a scalar of a floating element type.
        wrt: parameters, placeholders or intermediate nodes. Where the loss does not depend on one, its gradient is
            zeros.

    Raises:
        ShapeError: the loss is not a scalar.
        DTypeError: the loss or a node of ``wrt`` is not of a floating element type.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", (), "float64")
    >>> (g,) = gx.grad(x**3, [x])
    >>> (h,) = gx.grad(g, [x])
    >>> print(gx.formula(gx.simplify(h)))
    6 * x
    """
    return value_and_grad(loss, wrt)[1]


def value_and_grad(loss: Node, wrt: Sequence[Node]) -> tuple[Node, tuple[Node, ...]]:
    """The simplified loss and its gradients, which share their nodes. See :func:`grad`.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", (3,))
    >>> value, (g,) = gx.value_and_grad(gx.sum(gx.exp(x)), [x])
    >>> value.type, g.type
    (f32[], f32[3])
    """
    sweep = gradient_sweep(loss, wrt)
    return sweep.outputs[0], sweep.gradients


def gradient_sweep(loss: Node, wrt: Sequence[Node], log: RewriteLog | None = None) -> Sweep:
    """The whole of :func:`value_and_grad`, for reports; ``log`` gets what was simplified in the loss."""
    _check_loss(loss)
    nodes = _check_wanted(wrt)
    with location.at(loss.loc):
        seed = full((), 1, loss.dtype)
    return _reverse((loss,), nodes, (seed,), log)


def vjp(outputs: Sequence[Node], wrt: Sequence[Node], cotangents: Sequence[Node]) -> tuple[Node, ...]:
    """Cotangents times the Jacobian of ``outputs`` with respect to ``wrt``: reverse mode.

    Args:
        outputs: nodes of any shape.
        wrt: as for :func:`grad`.
        cotangents: one for each output, of its type.

    Raises:
        ShapeError, DTypeError: a cotangent is not of its output's type.

    >>> import graphc as gx
    >>> x, u = gx.placeholder("x", (3,)), gx.placeholder("u", (3,))
    >>> (g,) = gx.vjp([gx.exp(x)], [x], [u])
    >>> print(gx.formula(g))
    u * exp(x)
    """
    _check_directions(outputs, cotangents, "output", "cotangent")
    for output in outputs:
        _check_float(output, "an output")
    nodes = _check_wanted(wrt)
    return _reverse(tuple(outputs), nodes, tuple(cotangents)).gradients


def jvp(outputs: Sequence[Node], wrt: Sequence[Node], tangents: Sequence[Node]) -> tuple[Node, ...]:
    """The Jacobian of ``outputs`` with respect to ``wrt`` times tangents: forward mode.

    Args:
        outputs: nodes of any shape.
        wrt: as for :func:`grad`.
        tangents: one for each node of ``wrt``, of its type.

    Raises:
        ShapeError, DTypeError: a tangent is not of its node's type.

    >>> import graphc as gx
    >>> x, t = gx.placeholder("x", (3,)), gx.placeholder("t", (3,))
    >>> (d,) = gx.jvp([gx.sum(gx.sin(x))], [x], [t])
    >>> print(gx.formula(d))
    sum(t * cos(x))
    """
    for output in outputs:
        _check_float(output, "an output")
    nodes = _check_wanted(wrt)
    _check_directions(nodes, tangents, "node of wrt", "tangent")
    primal, wanted, restore = _simplified(tuple(outputs), nodes)
    given: dict[Node, Node] = {}
    for node, tangent in zip(wanted, tangents, strict=True):
        if node is not None:
            given[node] = add(given[node], tangent) if node in given else tangent
    found = push(primal, given)
    return restore(found.get(output, zeros_like(output)) for output in primal)


def hessian_vector_product(loss: Node, wrt: Sequence[Node], vectors: Sequence[Node]) -> tuple[Node, ...]:
    """The Hessian of a scalar times a vector, by forward over reverse mode: about the work of two gradients.

    Args:
        loss: as for :func:`grad`.
        wrt: as for :func:`grad`.
        vectors: one for each node of ``wrt``, of its type.

    Raises:
        ShapeError, DTypeError: as :func:`grad` and :func:`jvp`.

    >>> import graphc as gx
    >>> x, v = gx.placeholder("x", (3,)), gx.placeholder("v", (3,))
    >>> (product,) = gx.hessian_vector_product(gx.sum(x * x), [x], [v])
    >>> print(gx.formula(gx.simplify(product)))
    2 * v
    """
    return jvp(grad(loss, wrt), wrt, vectors)


def _reverse(
    outputs: tuple[Node, ...], wrt: tuple[Node, ...], cotangents: tuple[Node, ...], log: RewriteLog | None = None
) -> Sweep:
    """Accumulate cotangents from the outputs back to ``wrt``."""
    primal, wanted, restore = _simplified(outputs, wrt, log)
    table = pull(primal, cotangents, [node for node in wanted if node is not None])
    gradients: list[Node] = []
    for given, node in zip(wrt, wanted, strict=True):
        cotangent = None if node is None else table.get(node)
        with location.at(given.loc):
            gradients.append(zeros_like(given) if cotangent is None else cotangent)
    restored = restore((*primal, *gradients, *table, *table.values()))
    first, second, third = len(primal), len(primal) + len(wrt), len(primal) + len(wrt) + len(table)
    between = dict(zip(restored[second:third], restored[third:], strict=True))
    return Sweep(restored[:first], restored[first:second], between)


class _Kept(Op):
    """A stand-in: the identity on a wanted node that is computed or constant. No rule looks through it."""

    name = "kept"
    attributes = ("index",)
    index: int

    def __init__(self, index: int) -> None:
        object.__setattr__(self, "index", index)

    def infer(self, *types: TensorType) -> TensorType:
        return types[0]

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (cotangent,)

    def jvp(self, node: Node, tangents: Sequence[Node | None]) -> Node | None:
        return tangents[0]


def _simplified(
    outputs: tuple[Node, ...], wrt: tuple[Node, ...], log: RewriteLog | None = None
) -> tuple[tuple[Node, ...], tuple[Node | None, ...], Callable[[Iterable[Node]], tuple[Node, ...]]]:
    """The simplified outputs, ``wrt`` within them, and the way back to the user's own nodes."""
    interior = {node: index for index, node in enumerate(wrt) if not _is_variable(node)}
    if not interior:
        primal = simplify_primal(outputs, log)
        present = set(topological(primal))
        return primal, tuple(node if node in present else None for node in wrt), tuple

    def keep(node: Node, args: tuple[Node, ...]) -> Node | None:
        if node not in interior:
            return None
        return apply(_Kept(interior[node]), apply(node.op, *args))

    def original(node: Node, args: tuple[Node, ...]) -> Node | None:
        return wrt[node.op.index] if isinstance(node.op, _Kept) else None

    def restore(roots: Iterable[Node]) -> tuple[Node, ...]:
        return rebuild(roots, original)

    primal = simplify_primal(rebuild(outputs, keep), log)
    order = topological(primal)
    kept = {node.op.key: node for node in order if isinstance(node.op, _Kept)}
    present = set(order)
    wanted = tuple(
        kept.get(_Kept(interior[node]).key) if node in interior else (node if node in present else None) for node in wrt
    )
    return primal, wanted, restore


def _is_variable(node: Node) -> bool:
    """Is it a leaf that no rule looks into?"""
    return isinstance(node.op, Input | ParameterLeaf)


def _check_loss(loss: Node) -> None:
    if not isinstance(loss, Node):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise GraphError(f"the loss is not a node: {loss!r}", at=user_line(), remedy="pass what gx functions return")
    if loss.shape != ():
        raise ShapeError(
            f"grad: the loss is {loss.type}, not a scalar",
            details=_described(loss),
            at=user_line(),
            remedy="reduce it first: gx.mean(loss) or gx.sum(loss); for other cotangents use gx.vjp",
        )
    _check_float(loss, "the loss")


def _check_wanted(wrt: Sequence[Node]) -> tuple[Node, ...]:
    if isinstance(wrt, Node):
        raise GraphError("wrt is one node", at=user_line(), remedy="give a list: gx.grad(loss, [w])")
    if not isinstance(wrt, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise GraphError(f"wrt is {wrt!r}", at=user_line(), remedy="give a list of nodes and parameters")
    for node in wrt:
        if not isinstance(node, Node):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise GraphError(f"wrt holds {node!r}, not a node", at=user_line(), remedy="list nodes and parameters")
        _check_float(node, "a node of wrt")
    return tuple(wrt)


def _check_float(node: Node, what: str) -> None:
    if not node.dtype.is_float:
        raise DTypeError(
            f"{what} has element type {node.dtype}, which has no derivative",
            details=_described(node),
            at=user_line(),
            remedy="differentiate floating values: convert before with gx.cast(x, 'float32')",
        )


def _check_directions(nodes: Sequence[Node], directions: Sequence[Any], what: str, called: str) -> None:
    if len(nodes) != len(directions):
        raise GraphError(
            f"{len(nodes)} {what}s but {len(directions)} {called}s",
            at=user_line(),
            remedy=f"give one {called} for each",
        )
    for node, direction in zip(nodes, directions, strict=True):
        if not isinstance(direction, Node):
            raise GraphError(
                f"a {called} is {direction!r}, not a node", at=user_line(), remedy="wrap arrays: gx.constant(array)"
            )
        if direction.type != node.type:
            kind = DTypeError if direction.dtype is not node.dtype else ShapeError
            raise kind(
                f"a {called} is {direction.type}, its {what} {node.type}",
                details=_described(node, direction),
                at=user_line(),
                remedy=f"make the {called} {node.type}",
            )


def _described(*nodes: Node) -> tuple[str, ...]:
    return tuple(f"{node!r}   {node.loc}" if node.loc else repr(node) for node in nodes)
