"""Einstein summation: any product of values summed over any axes, contracted two at a time in the cheapest order.

A contraction of two values is one matrix product where both have axes of their own or sum over shared ones, else a
product at each place and a sum. The order is that of ``opt_einsum``; a named size counts as ``TYPICAL_SIZE`` there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Size, evaluate, names, product
from graphc.ir.node import Node, apply
from graphc.ops.arithmetic import multiply
from graphc.ops.base import Operand, as_int, as_operands, explaining, normalize_axes
from graphc.ops.linear import MatMul
from graphc.ops.movement import reshape, transpose
from graphc.ops.reduction import sum
from graphc.ops.triangle import diagonal

TYPICAL_SIZE = 64

Label = str | int
"""A letter of the subscripts, or the place, from the end, of an axis that an ellipsis stands for."""


@dataclass(frozen=True)
class _Term:
    """A value and the label of each of its axes, all different."""

    node: Node
    labels: tuple[Label, ...]

    def size(self, label: Label) -> Size:
        return self.node.shape[self.labels.index(label)]


def einsum(subscripts: str, *operands: Operand) -> Node:
    """The product of the operands, summed over every letter that the result lacks: ``einsum("ij,jk->ik", a, b)``.

    A letter names an axis; twice in one operand it takes the diagonal. ``...`` stands for axes that broadcast. Without
    ``->`` the result has the axes of the ellipsis and then, in the order of the alphabet, the letters that occur once.

    Shapes: axes with the same letter have the same size, or 1.
    Raises: ShapeError; DTypeError for subscripts that are not well-formed, bools, or types that do not promote.
    Source: NumPy ``einsum``; the order by Smith and Gray, "opt_einsum", 2018, https://doi.org/10.21105/joss.00753

    >>> import graphc as gx
    >>> gx.einsum("bij,bjk->bik", gx.placeholder("a", ("n", 2, 3)), gx.placeholder("b", ("n", 3, 4)))
    <matmul: f32[n, 2, 4]>
    """
    with explaining("einsum", *(value for value in operands if isinstance(value, Node))):
        nodes = as_operands(*operands)
        labels, output = _parse(subscripts, nodes)
        return _contract_all(nodes, labels, output)


# subscripts


def _parse(subscripts: str, nodes: Sequence[Node]) -> tuple[list[tuple[Label, ...]], tuple[Label, ...]]:
    """The labels of each operand's axes and of the result's."""
    if not isinstance(subscripts, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DTypeError(f"the subscripts are {subscripts!r}", remedy='write them as text: "ij,jk->ik"')
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(nodes):
        raise ShapeError(
            f"{subscripts!r} has {len(terms)} terms for {len(nodes)} operands", remedy="separate terms by commas"
        )
    labels = [_labels(term, node.ndim, subscripts) for term, node in zip(terms, nodes, strict=True)]
    covered = max((label for term in labels for label in term if isinstance(label, int)), default=0)
    ellipsis: tuple[Label, ...] = tuple(range(covered, 0, -1))
    if arrow:
        output = _letters(right, ellipsis, subscripts)
    else:
        count = Counter(label for term in labels for label in term if isinstance(label, str))
        output = (*ellipsis, *sorted(letter for letter, times in count.items() if times == 1))
    known = {label for term in labels for label in term}
    for label in output:
        if label not in known:
            raise ShapeError(f"the result's {label!r} is no axis of {subscripts!r}", remedy="name axes of the operands")
    if len(set(output)) < len(output):
        raise ShapeError(f"the result of {subscripts!r} has an axis twice", remedy="name each axis once")
    return labels, output


def _labels(term: str, rank: int, subscripts: str) -> tuple[Label, ...]:
    count = rank - len(term.replace("...", ""))
    found = _letters(term, tuple(range(count, 0, -1)), subscripts)
    if len(found) != rank:
        raise ShapeError(
            f"the term {term!r} of {subscripts!r} stands for an operand of {rank} axes",
            remedy="give one letter for each axis, or ... for those without",
        )
    return found


def _letters(term: str, ellipsis: tuple[Label, ...], subscripts: str) -> tuple[Label, ...]:
    before, dots, after = term.partition("...")
    for letter in before + after:
        if not (letter.isascii() and letter.isalpha()):
            raise DTypeError(f"{letter!r} in {subscripts!r} is no letter", remedy='write letters: "ij,jk->ik"')
    return (*before, *(ellipsis if dots else ()), *after)


# contraction


def _contract_all(nodes: Sequence[Node], labels: Sequence[tuple[Label, ...]], output: tuple[Label, ...]) -> Node:
    sizes = _sizes(nodes, labels)
    terms = [_simple(node, term, sizes) for node, term in zip(nodes, labels, strict=True)]
    for left, right in _order(terms, output, sizes):
        a, b = terms[left], terms[right]
        terms = [term for i, term in enumerate(terms) if i not in (left, right)]
        kept = {*output, *(label for term in terms for label in term.labels)}
        terms.append(_contract(_summed(a, {*kept, *b.labels}), _summed(b, {*kept, *a.labels}), kept))
    (last,) = terms
    last = _summed(last, set(output))
    return transpose(last.node, [last.labels.index(label) for label in output])


def _sizes(nodes: Sequence[Node], labels: Sequence[tuple[Label, ...]]) -> dict[Label, Size]:
    """The size of each label: that of its axes, which broadcast."""
    sizes: dict[Label, Size] = {}
    for node, term in zip(nodes, labels, strict=True):
        for label, size in zip(term, node.shape, strict=True):
            known = sizes.get(label, 1)
            if 1 not in (known, size) and known != size:
                shown = f"axis {label!r}" if isinstance(label, str) else "an axis of the ellipsis"
                raise ShapeError(
                    f"{shown} has size {known} and {size}", remedy="make the sizes equal, or one of them 1"
                )
            sizes[label] = size if known == 1 else known
    return sizes


def _simple(node: Node, labels: tuple[Label, ...], sizes: dict[Label, Size]) -> _Term:
    """An operand with its diagonals taken, and without axes that only broadcast."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            if node.shape[first] != node.shape[second]:
                raise ShapeError(
                    f"axis {label!r} has size {node.shape[first]} and {node.shape[second]} in one operand",
                    remedy="a diagonal needs equal sizes",
                )
            node = diagonal(node, 0, first, second)
            labels = (*(other for i, other in enumerate(labels) if i not in (first, second)), label)
    kept = [axis for axis, label in enumerate(labels) if node.shape[axis] == sizes[label]]
    return _Term(reshape(node, tuple(node.shape[axis] for axis in kept)), tuple(labels[axis] for axis in kept))


def _order(terms: Sequence[_Term], output: tuple[Label, ...], sizes: dict[Label, Size]) -> list[tuple[int, int]]:
    """Which two terms to contract next; their result goes to the end of the rest."""
    if len(terms) < 3:
        return [(0, 1)] * (len(terms) - 1)
    import opt_einsum  # pyright: ignore[reportMissingTypeStubs]

    symbols = {label: opt_einsum.get_symbol(i) for i, label in enumerate(sizes)}
    texts = ["".join(symbols[label] for label in term.labels) for term in terms]
    equation = ",".join(texts) + "->" + "".join(symbols[label] for label in output)
    shapes = [tuple(_typical(size) for size in term.node.shape) for term in terms]
    path, _ = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize="auto")
    pairs: list[tuple[int, int]] = []
    count = len(terms)
    for step in path:  # a step may take more than two, which have no shared axes: any order will do
        places = sorted(step)
        if len(places) == 1:
            continue
        left = places.pop(0)
        for taken, place in enumerate(places):
            pairs.append((left, place - taken))
            count -= 1
            left = count - 1
    return pairs


def _typical(size: Size) -> int:
    return size if isinstance(size, int) else evaluate(size, dict.fromkeys(names(size), TYPICAL_SIZE))


def _summed(term: _Term, kept: set[Label]) -> _Term:
    """A term without the axes that nothing else has."""
    gone = tuple(axis for axis, label in enumerate(term.labels) if label not in kept)
    if not gone:
        return term
    return _Term(sum(term.node, axis=gone), tuple(label for label in term.labels if label in kept))


def _contract(a: _Term, b: _Term, kept: set[Label]) -> _Term:
    """The product of two terms, summed over what only these two have."""
    shared = [label for label in a.labels if label in b.labels]
    batch = [label for label in shared if label in kept]
    summed = [label for label in shared if label not in kept]
    rows = [label for label in a.labels if label not in shared]
    columns = [label for label in b.labels if label not in shared]
    result = (*batch, *rows, *columns)
    if not summed or not a.node.dtype.is_float or not (rows or columns):
        left = _aligned(a, (*result, *summed))
        right = _aligned(b, (*result, *summed))
        whole = multiply(left, right)
        axes = tuple(range(len(result), whole.ndim))
        return _Term(sum(whole, axis=axes) if axes else whole, result)
    left = _grouped(a, batch, rows, summed)
    right = _grouped(b, batch, summed, columns)
    sizes = (*map(a.size, batch), *map(a.size, rows), *map(b.size, columns))
    return _Term(reshape(apply(MatMul(), left, right), sizes), result)


def _aligned(term: _Term, labels: tuple[Label, ...]) -> Node:
    """The axes in the order of ``labels``, with axes of size 1 for those that the term lacks."""
    order = [term.labels.index(label) for label in labels if label in term.labels]
    return reshape(
        transpose(term.node, order), tuple(term.size(label) if label in term.labels else 1 for label in labels)
    )


def _grouped(term: _Term, batch: list[Label], first: list[Label], second: list[Label]) -> Node:
    """Matrices: the batch axes, then the others merged into two."""
    moved = transpose(term.node, [term.labels.index(label) for label in (*batch, *first, *second)])
    merged = (product(tuple(map(term.size, group))) for group in (first, second))
    return reshape(moved, (*map(term.size, batch), *merged))


# products that einsum is the general form of


def tensordot(a: Operand, b: Operand, axes: int | Sequence[int | Sequence[int]] = 2) -> Node:
    """The product of two values summed over axes of both: the last of a with the first of b, or those that are named.

    Shapes: the other axes of a, then those of b.
    Raises: AxisError; ShapeError where summed sizes differ; DTypeError.
    Source: Array API ``tensordot``.

    >>> import graphc as gx
    >>> gx.tensordot(gx.placeholder("a", ("n", 3, 4)), gx.placeholder("b", (3, 4, 5)))
    <matmul: f32[n, 5]>
    """
    with explaining("tensordot"):
        left, right = as_operands(a, b)
        count = as_int(axes)
        if count is not None:
            if not 0 <= count <= min(left.ndim, right.ndim):
                raise AxisError(f"there are not {count} axes to sum over", remedy="give fewer, or name them")
            of_left, of_right = tuple(range(left.ndim - count, left.ndim)), tuple(range(count))
        else:
            several = cast("Sequence[int | Sequence[int]]", axes)
            given = [cast("Sequence[int]", axis if isinstance(axis, list | tuple) else (axis,)) for axis in several]
            if len(given) != 2 or len(given[0]) != len(given[1]):
                raise AxisError(f"axes are {axes!r}", remedy="give as many axes of a as of b: ([0, 1], [1, 0])")
            of_left, of_right = _in_order(given[0], left.ndim), _in_order(given[1], right.ndim)
        for i, j in zip(of_left, of_right, strict=True):
            if left.shape[i] != right.shape[j]:
                raise ShapeError(
                    f"axis {i} of a has size {left.shape[i]}, axis {j} of b {right.shape[j]}",
                    remedy="sum over axes of equal sizes",
                )
        labels: list[Label] = list(range(left.ndim))
        others: list[Label] = [left.ndim + j for j in range(right.ndim)]
        for i, j in zip(of_left, of_right, strict=True):
            others[j] = i
        output = tuple(label for label in (*labels, *others) if (label in labels) != (label in others))
        return _contract_all((left, right), (tuple(labels), tuple(others)), output)


def _in_order(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    normalize_axes(tuple(axes), rank)
    return tuple(axis % rank for axis in axes)


def inner(a: Operand, b: Operand) -> Node:
    """The product of two values summed over the last axis of both; of a scalar the plain product.

    Shapes: the other axes of a, then those of b.
    Raises: ShapeError where the last sizes differ; DTypeError.
    Source: NumPy ``inner``.

    >>> import graphc as gx
    >>> gx.inner(gx.placeholder("a", ("n", 3)), gx.placeholder("b", (5, 3)))
    <matmul: f32[n, 5]>
    """
    with explaining("inner"):
        left, right = as_operands(a, b)
        if not left.ndim or not right.ndim:
            return multiply(left, right)
        return tensordot(left, right, ((-1,), (-1,)))


def vdot(a: Operand, b: Operand) -> Node:
    """The sum of the products of all elements of two values, in order.

    Shapes: a scalar; both have as many elements.
    Raises: ShapeError where they do not; DTypeError.
    Source: NumPy ``vdot``.

    >>> import graphc as gx
    >>> gx.vdot(gx.placeholder("a", ("n", 3)), gx.placeholder("b", (3, "n")))
    <sum: f32[]>
    """
    with explaining("vdot"):
        left, right = as_operands(a, b)
        if left.type.size != right.type.size:
            raise ShapeError(f"{left.type} and {right.type} differ in size", remedy="give as many elements of each")
        return sum(multiply(*(reshape(node, (node.type.size,)) for node in (left, right))))


def outer(a: Operand, b: Operand) -> Node:
    """The product of each element of a with each of b.

    Shapes: (elements of a, elements of b).
    Raises: DTypeError.
    Source: NumPy ``outer``.

    >>> import graphc as gx
    >>> gx.outer(gx.placeholder("a", ("n",)), gx.placeholder("b", (3,)))
    <multiply: f32[n, 3]>
    """
    with explaining("outer"):
        left, right = as_operands(a, b)
        return multiply(reshape(left, (left.type.size, 1)), reshape(right, (1, right.type.size)))


def kron(a: Operand, b: Operand) -> Node:
    """The Kronecker product: b in the place of each element of a, times this element.

    Shapes: each size is the product of both, missing leading axes count as 1.
    Raises: DTypeError.
    Source: NumPy ``kron``.

    >>> import graphc as gx
    >>> gx.kron(gx.placeholder("a", ("n", 2)), gx.placeholder("b", (3, 3)))
    <reshape: f32[3*n, 6]>
    """
    with explaining("kron"):
        left, right = as_operands(a, b)
        rank = max(left.ndim, right.ndim)
        first, second = ((1,) * (rank - node.ndim) + node.shape for node in (left, right))
        blocks = reshape(left, tuple(part for size in first for part in (size, 1)))
        within = reshape(right, tuple(part for size in second for part in (1, size)))
        whole = tuple(i * j for i, j in zip(first, second, strict=True))
        return reshape(multiply(blocks, within), whole)


__all__ = ["einsum", "inner", "kron", "outer", "tensordot", "vdot"]
