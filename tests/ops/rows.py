"""Functions beside what NumPy calls them: one row each, run on every backend, in onnxruntime, with named sizes, and
differentiated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc as gx
from graphc.ir.node import Node, placeholder
from tests.ops.table import evaluate, seeded

Array = np.ndarray
STEP = 1e-5


@dataclass(frozen=True)
class Row:
    """A function of graphc, the same in NumPy, and operands.

    Attributes:
        operands: a shape (filled with random float64) or an array for each operand.
        named: shapes with names for sizes, where the function takes these.
        smooth: whether it is differentiable at random operands of floats.
    """

    name: str
    graphc: Callable[..., Any]
    numpy: Callable[..., Any]
    operands: tuple[tuple[int, ...] | Array, ...]
    named: tuple[tuple[int | str, ...], ...] | None = None
    smooth: bool = True

    def arrays(self) -> list[Array]:
        rng = seeded(self.name)
        return [rng.standard_normal(given) if isinstance(given, tuple) else given for given in self.operands]

    def inputs(self, prefix: str = "x_", named: bool = False) -> list[Node]:
        arrays = self.arrays()
        given = self.named if named and self.named else [array.shape for array in arrays]
        shapes = [tuple(f"{size}_{prefix[:-1]}" if isinstance(size, str) else size for size in s) for s in given]
        return [placeholder(f"{prefix}{i}", s, a.dtype) for i, (s, a) in enumerate(zip(shapes, arrays, strict=True))]

    def nodes(self, inputs: Sequence[Node]) -> list[Node]:
        found = self.graphc(*inputs)
        return list(found) if isinstance(found, tuple | list) else [found]

    def expected(self) -> list[Array]:
        found = self.numpy(*[array.copy() for array in self.arrays()])
        return [np.asarray(value) for value in (found if isinstance(found, tuple | list) else [found])]


def ids(rows: Sequence[Row]) -> list[str]:
    """Names of the rows, which must differ: operands are drawn by them."""
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    return names


def check_backend(rows: Sequence[Row], backend: str, named: bool = False) -> None:
    """All rows in one program."""
    outputs, inputs, feeds = {}, [], {}
    for number, row in enumerate(rows):
        leaves = row.inputs(f"x{number}_", named)
        outputs |= {f"y{number}_{i}": node for i, node in enumerate(row.nodes(leaves))}
        inputs += leaves
        feeds |= {leaf.name: array for leaf, array in zip(leaves, row.arrays(), strict=True)}
    _compare(rows, gx.compile(outputs, inputs=inputs, backend=backend)(**feeds))


def check_onnx(rows: Sequence[Row], named: bool = False) -> None:
    """All rows in one model in onnxruntime."""
    from graphc.backends.onnx.export import build_model
    from graphc.backends.onnx.runtime import open_session, run_session
    from graphc.ir.graph import make_graph

    outputs, inputs, feeds = {}, [], {}
    for number, row in enumerate(rows):
        leaves = row.inputs(f"x{number}_", named)
        outputs |= {f"y{number}_{i}": node for i, node in enumerate(row.nodes(leaves))}
        inputs += leaves
        feeds |= {leaf.name: array for leaf, array in zip(leaves, row.arrays(), strict=True)}
    exported = build_model(make_graph(outputs, inputs))
    _compare(rows, run_session(open_session(exported.model, "rows"), feeds, exported.outputs, "rows"))


def _compare(rows: Sequence[Row], results: dict[str, Array]) -> None:
    for number, row in enumerate(rows):
        expected = row.expected()
        assert f"y{number}_{len(expected)}" not in results, row.name
        for i, wanted in enumerate(expected):
            found = results[f"y{number}_{i}"]
            assert found.shape == wanted.shape, (row.name, found.shape, wanted.shape)
            assert found.dtype == wanted.dtype, (row.name, found.dtype, wanted.dtype)
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13, err_msg=row.name)


def check_gradient(row: Row) -> None:
    """Reverse mode against differences of NumPy's function, and forward mode against reverse."""
    arrays, inputs = row.arrays(), row.inputs()
    floats = [i for i, array in enumerate(arrays) if array.dtype == np.float64]
    nodes = [node for node in row.nodes(inputs) if node.dtype.is_float]
    rng = seeded("gradient", row.name)
    weights = [rng.standard_normal(node.shape) for node in nodes]
    directions = {i: rng.standard_normal(arrays[i].shape) for i in floats}
    loss = gx.constant(0.0, "float64")
    for node, weight in zip(nodes, weights, strict=True):
        loss = loss + gx.sum(node * gx.constant(weight))
    gradients = gx.grad(loss, [inputs[i] for i in floats])
    tangents = gx.jvp([loss], [inputs[i] for i in floats], [gx.constant(directions[i]) for i in floats])
    pushed, *pulled = evaluate([*tangents, *gradients], dict(zip(inputs, arrays, strict=True)))

    def moved(sign: int) -> float:
        shifted = [a + sign * STEP * directions[i] if i in directions else a for i, a in enumerate(arrays)]
        found = row.numpy(*shifted)
        values = found if isinstance(found, tuple | list) else [found]
        floating = [np.asarray(value) for value in values if np.asarray(value).dtype.kind == "f"]
        return float(sum(np.sum(value * weight) for value, weight in zip(floating, weights, strict=True)))

    numeric = (moved(1) - moved(-1)) / (2 * STEP)
    backward = sum(float(np.sum(g * directions[i])) for g, i in zip(pulled, floats, strict=True))
    np.testing.assert_allclose(backward, numeric, rtol=1e-6, atol=1e-7, err_msg=row.name)
    np.testing.assert_allclose(pushed, backward, rtol=1e-10, atol=1e-11, err_msg=row.name)
