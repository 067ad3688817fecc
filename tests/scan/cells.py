"""Steps of loops for the tests: recurrent cells and odder things, as a loop and written out step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import graphc as gx


@dataclass(frozen=True)
class Cell:
    """A step with its first carries and sequences.

    Attributes:
        step: ``step(carry, x)`` gives (next carry, result), over dicts and tuples of nodes.
        carry: shapes of the carries.
        elements: shapes of the elements of the sequences.
        weights: shapes of what does not change.
    """

    step: Callable
    carry: tuple[tuple, ...]
    elements: tuple[tuple, ...]
    weights: tuple[tuple, ...]


def rnn(w):
    def step(carry, x):
        h = gx.tanh(x[0] @ w[0] + carry[0] @ w[1] + w[2])
        return (h,), h

    return step


def lstm(w):
    def step(carry, x):
        h, c = carry
        z = x[0] @ w[0] + h @ w[1] + w[2]
        i, f, g, o = (z[:, 4 * k : 4 * k + 4] for k in range(4))
        c = gx.sigmoid(f) * c + gx.sigmoid(i) * gx.tanh(g)
        h = gx.sigmoid(o) * gx.tanh(c)
        return (h, c), h

    return step


def masked(w):
    def step(carry, x):
        (h,) = carry
        new = gx.tanh(x[0] @ w[0] + h @ w[1])
        h = gx.where(x[1] > 0, new, h)
        return (h,), gx.where(x[1] > 0, h, 0.0)

    return step


def projected(w):
    """A product of each result that no carry needs, and two results."""

    def step(carry, x):
        h = gx.sigmoid(x[0] @ w[0] + carry[0] * w[2])
        return (h,), (gx.exp(h @ w[1]), gx.sum(x[0], axis=1))

    return step


def fixed(w):
    """A carry that never changes, one that is only counted, one that is a sum of products."""

    def step(carry, x):
        a, b, total = carry
        product = gx.transpose(x[0]) @ (x[0] * a)
        return (a, b + 1.0, total + product), a * b

    return step


def plain(w):
    """No weights, no carry: a map."""
    return lambda carry, x: ((), gx.tanh(x[0]) * x[1])


CELLS = {
    "rnn": (rnn, Cell(rnn, ((2, 4),), ((2, 3),), ((3, 4), (4, 4), (4,)))),
    "lstm": (lstm, Cell(lstm, ((2, 4), (2, 4)), ((2, 3),), ((3, 16), (4, 16), (16,)))),
    "masked": (masked, Cell(masked, ((2, 4),), ((2, 3), (2, 1)), ((3, 4), (4, 4)))),
    "projected": (projected, Cell(projected, ((2, 4),), ((2, 3),), ((3, 4), (4, 5), (4,)))),
    "fixed": (fixed, Cell(fixed, ((2, 3), (2, 3), (3, 3)), ((2, 3),), ())),
    "plain": (plain, Cell(plain, (), ((2, 3), (3,)), ())),
}


@dataclass(frozen=True)
class Problem:
    """A loop and the same steps written out, over the same leaves."""

    leaves: list
    looped: list
    written: list
    arrays: dict[str, np.ndarray]


def flat(nest) -> list:
    if isinstance(nest, tuple | list):
        return [leaf for item in nest for leaf in flat(item)]
    return [nest]


def problem(name: str, length: int, reverse: bool, seed: int, dtype: str = "float64") -> Problem:
    """The results of a cell's loop over ``length`` steps, once as a scan and once written out."""
    make, cell = CELLS[name]
    random = np.random.default_rng(seed)

    def leaf(label, shape):
        arrays[label] = random.uniform(-1, 1, shape).astype(dtype)
        return gx.placeholder(label, shape, dtype)

    arrays: dict[str, np.ndarray] = {}
    carries = tuple(leaf(f"c{i}", shape) for i, shape in enumerate(cell.carry))
    sequences = tuple(leaf(f"x{i}", (length, *shape)) for i, shape in enumerate(cell.elements))
    weights = [leaf(f"w{i}", shape) for i, shape in enumerate(cell.weights)]
    step = make(weights)
    last, results = gx.scan(step, carries, sequences, reverse=reverse)
    written: list[list] = []
    state = carries
    for t in reversed(range(length)) if reverse else range(length):
        state, out = step(state, tuple(x[t] for x in sequences))
        written.append(flat(out))
    ordered = written[::-1] if reverse else written
    stacked = [gx.stack(list(column)) for column in zip(*ordered, strict=True)]
    return Problem([*carries, *sequences, *weights], [*last, *flat(results)], [*flat(state), *stacked], arrays)


def scalar(values: list) -> object:
    """A number that depends on every element in its own way."""
    total = gx.constant(0.0, str(values[0].dtype))
    for position, value in enumerate(values):
        count = int(np.prod(value.shape))
        weight = np.cos(np.arange(count) + position).reshape(value.shape)
        total = total + gx.sum(value * gx.constant(weight, str(value.dtype)) * value)
    return total
