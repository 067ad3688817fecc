"""Formulas: few parentheses, names of the user, and text that stays small for shared values."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.ir.node import Node
from tests.rewrite.numeric import values_of

X, Y, Z = (gx.placeholder(name, (), "float64") for name in "xyz")
M, N = gx.placeholder("m", ("n", 3)), gx.placeholder("k", (3, 3))


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (X + Y + Z, "x + y + z"),
        (X + (Y + Z), "x + y + z"),
        (X - (Y - Z), "x - (y - z)"),
        (X - Y + Z, "x - y + z"),
        (X * (Y + Z), "x * (y + z)"),
        (X * Y + Z, "x * y + z"),
        (X / (Y * Z), "x / (y * z)"),
        (X / Y * Z, "x / y * z"),
        (X * (Y / Z), "x * (y / z)"),
        (-(X + Y), "-(x + y)"),
        (-X * Y, "-x * y"),
        (-(X * Y), "-(x * y)"),
        (gx.negative(-X), "-(-x)"),
        (X + -Y, "x - y"),
        (X - -Y, "x + y"),
        (X - Y * -2.0, "x + 2 * y"),
        (X - 2.5, "x - 2.5"),
        (X + -2.0, "x - 2"),
        (X * 2.0, "2 * x"),
        ((X + Y) * 0.5, "0.5 * (x + y)"),
        (X**2.0, "x**2"),
        ((-X) ** Y, "(-x)**y"),
        (-(X**Y), "-x**y"),
        ((X**Y) ** Z, "(x**y)**z"),
        (X ** (Y**Z), "x**y**z"),
        ((X + Y) ** -1.0, "(x + y)**-1"),
        (gx.where(X < Y, X, Z + 1.0), "where(x < y, x, z + 1)"),
        (gx.sin(X + Y), "sin(x + y)"),
        (gx.sum(M), "sum(m)"),
        (gx.sum(M, axis=1), "sum(m, axis=1)"),
        (gx.sum(M, axis=1, keepdims=True), "sum(m, axis=1)"),
        (gx.mean(M), "mean(m)"),
        (gx.softmax(M), "softmax(m, axis=1)"),
        (M @ N @ N, "m @ k @ k"),
        (M @ (N + 1.0), "m @ (k + 1)"),
        (M.T, "m.T"),
        ((M @ N).T, "(m @ k).T"),
        (gx.transpose(gx.expand_dims(M, 0), (1, 2, 0)), "transpose(m, axes=(1, 2, 0))"),
        (gx.reshape(M, (-1,)), "reshape(m, [3*n])"),
        (gx.broadcast_to(X, (2, 3)), "broadcast(x, [2, 3])"),
        (gx.broadcast_to(M, (2, "n", 3)) * M, "m * m"),
        (M / gx.size_of("n", "float32"), "m / n"),
        (N[1:, ::2], "k[1:, ::2]"),
        (gx.cast(M, "float64"), "float64(m)"),
        (gx.take(N, np.array([0, 2])), "take(k, [0, 2], axis=0)"),
        (M + np.arange(3, dtype=np.float32), "m + [0, 1, 2]"),
        (M + np.full(3, 0.1, np.float32), "m + 0.1"),
        (gx.constant(np.arange(20.0)), "constant(f64[20])"),
        (gx.relu(X) // 2.0 % 3.0, "relu(x) // 2 % 3"),
    ],
)  # fmt: skip
def test_text(node: Node, text: str) -> None:
    assert gx.formula(node) == text


def test_what_python_reads_back_has_the_same_value() -> None:
    """The parentheses mean what they mean in Python."""
    rng = np.random.default_rng(0)
    values = {X: np.float64(0.7), Y: np.float64(1.3), Z: np.float64(2.1)}
    for _ in range(300):
        pool: list[Node] = [X, Y, Z]
        for _ in range(8):
            a, b = (pool[int(i)] for i in rng.integers(len(pool), size=2))
            ops = [a + b, a - b, a * b, a / b, -a, a * -2.0, a + -1.5, gx.abs(a) ** 0.5, gx.sin(a), gx.maximum(a, b)]
            pool.append(ops[int(rng.integers(len(ops)))])
        scope = {
            "x": np.float64(0.7),
            "y": np.float64(1.3),
            "z": np.float64(2.1),
            "sin": np.sin,
            "maximum": np.maximum,
            "abs": np.abs,
        }
        for let in (None, 10):
            text = gx.formula(pool[-1], let=let)
            *bound, result = text.split("\n")
            with np.errstate(all="ignore"):
                exec("\n".join([*bound, f"result = {result}"]), scope)
            (expected,) = values_of([pool[-1]], values)
            np.testing.assert_allclose(scope["result"], expected, rtol=1e-9)


def test_names_are_escaped_and_told_apart() -> None:
    a, b = gx.parameter("w", 1.0), gx.parameter("w", 2.0)
    odd = gx.parameter("a b\n*", 3.0)
    assert gx.formula(a * b * odd) == r"w * w_2 * 'a b\n*'"
    assert gx.formula(gx.parameter("dense.w", 1.0) + gx.parameter("1st", 1.0)) == "dense.w + '1st'"


def test_shared_values_get_a_name_when_they_are_long() -> None:
    h = X
    for _ in range(60):
        h = gx.tanh(h * h + Y)
    text = gx.formula(h)
    assert len(text) < 10_000
    assert text.startswith("t1 = ")
    assert len(text.split("\n")) > 10
    short = gx.tanh(X)
    assert gx.formula(short * (1.0 - short)) == "tanh(x) * (1 - tanh(x))"
    assert gx.formula(short * (1.0 - short), let=3) == "t1 = tanh(x)\nt1 * (1 - t1)"


def test_named_nodes_stand_for_themselves() -> None:
    h = gx.tanh(X)
    assert gx.formula(h * Y + h, names={h: "h"}) == "h * y + h"
    assert gx.formula(h, names={h: "h"}) == "tanh(x)"


def test_a_long_chain_does_not_recurse() -> None:
    h = X
    for _ in range(3000):
        h = gx.sin(h)
    assert gx.formula(h).count("sin") == 3000
