"""Factors of channels that move into weights: where they do, where they must not, and that values stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gx
from graphc import layers
from graphc.ir.graph import make_graph
from graphc.ir.node import Node, Parameter
from graphc.passes.scales import FoldScales
from graphc.rewrite import RewriteLog

X = gx.placeholder("x", ("n", 6, 5, 4))
ROWS = gx.placeholder("rows", ("n", 4))


def parameter(*shape: int, dtype: str = "float32", seed: int = 0) -> Parameter:
    return gx.parameter(f"p{seed}", np.random.default_rng(seed).uniform(0.5, 1.5, shape), dtype=dtype)


K, S, T, DENSE, U = (
    parameter(3, 2, 4, 6),
    parameter(6, seed=1),
    parameter(6, seed=2),
    parameter(4, 6, seed=3),
    parameter(1),
)
BACK, WIDE = parameter(2, 3, 2, 4, seed=4), parameter(4, seed=5)
GROUPED, DEPTHWISE = parameter(2, 3, 2, 6, seed=6), parameter(3, 3, 1, 8, seed=7)
EIGHT = parameter(8, seed=8)


def first(x: Node) -> Node:
    """Channels in front of the places."""
    return gx.transpose(x, (0, 3, 1, 2))


def beside(values: Node) -> Node:
    return gx.reshape(values, (values.shape[0], 1, 1))


FOLDED: dict[str, Callable[[], Node]] = {
    "factor": lambda: gx.conv(X, K) * S,
    "factor in front": lambda: S * gx.conv(X, K),
    "quotient": lambda: gx.conv(X, K) / S,
    "normalization": lambda: (gx.conv(X, K) - T) * (gx.rsqrt(S + 1e-3) * S) + T,
    "term before": lambda: (gx.conv(X, K, strides=2) + T) * S,
    "difference and sign": lambda: -(T - gx.conv(X, K) * S),
    "number for all beside numbers of channels": lambda: (gx.conv(X, K) * 2.0 - U) * S + 1.0,
    "two in a row": lambda: gx.relu(gx.conv(gx.conv(X, K[..., :4]) * WIDE + WIDE, K) * S + T),
    "channels first": lambda: gx.relu((first(gx.conv(X, K)) + beside(T)) * beside(S)),
    "channels first and last": lambda: gx.transpose(first(gx.conv(X, K)) * beside(S) + beside(T), (0, 2, 3, 1)) * S,
    "groups": lambda: gx.conv(X, GROUPED, groups=2) * S + T,
    "each channel": lambda: gx.conv(X, DEPTHWISE, groups=4) * EIGHT + EIGHT,
    "transposed": lambda: gx.conv_transpose(X, BACK[:, :, :, :4], strides=2) * WIDE[:2] + 1.0,
    "transposed, groups": lambda: gx.conv_transpose(X, BACK, strides=(1, 2), groups=2) * WIDE - WIDE,
    "rows": lambda: (ROWS @ DENSE + T) * S,
    "rows of a stack": lambda: gx.reshape(gx.reshape(X, (X.shape[0] * 30, 4)) @ DENSE, (*X.shape[:3], 6)) * S - T,
    "stack of rows": lambda: (X @ DENSE) * S + T,
    "stack of matrices": lambda: (X[:, :, :, None] @ gx.reshape(K[:, :, :, :5], (6, 1, 4, 5))) * S[:5],
}  # fmt: skip

KEPT: dict[str, Callable[[], Node]] = {
    "somebody reads the product": lambda: gx.conv(X, K) * S + gx.relu(gx.conv(X, K)),
    "somebody reads what comes of it": lambda: (gx.conv(X, K) + T) * S + (gx.conv(X, K) + T),
    "it is read twice": lambda: gx.square(gx.conv(X, K)) * S,
    "one number for all": lambda: gx.conv(X, K) * U + 2.0,
    "terms alone": lambda: gx.conv(X, K) + T,
    "a factor for each place": lambda: gx.conv(X, K) * parameter(4, 4, 1, seed=9),
    "a factor for each column of places": lambda: first(gx.conv(X, K[..., :4])) * WIDE,
    "a factor that a call decides": lambda: gx.conv(X, K) * (S * gx.sum(X)),
    "a kernel that a call decides": lambda: gx.conv(X, K * gx.sum(X)) * S,
    "behind what is not linear": lambda: gx.relu(gx.conv(X, K)) * S,
    "a divisor": lambda: S / gx.conv(X, K),
    "a result that is repeated": lambda: gx.conv(X, K[..., :1]) * S,
    "channels that are cut up": lambda: gx.reshape(gx.conv(X, K), ("n", -1, 3)) * S[:3],
    "halves": lambda: gx.conv(gx.cast(X, "float16"), gx.cast(K, "float16")) * gx.cast(S, "float16"),
}


def folded(y: Node, updates: dict[Parameter, Node] | None = None) -> RewriteLog:
    log = RewriteLog()
    FoldScales().run(make_graph({"y": y}, [X, ROWS], updates), log)
    return log


def agree(y: Node, rtol: float = 2e-5, **others: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    feeds = {"x": rng.standard_normal((2, 6, 5, 4)), "rows": rng.standard_normal((2, 4))}
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()} | others
    found, wanted = (gx.compile({"y": y}, [X, ROWS], backend=b)(**feeds)["y"] for b in ("numba", "reference"))
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * float(np.abs(wanted).max()))


@pytest.mark.parametrize("name", FOLDED)
def test_folded(name):
    y = FOLDED[name]()
    assert folded(y).counts["fold_scales"] == (2 if name == "two in a row" else 1)
    program = gx.compile({"y": y}, [X, ROWS], backend="numba")
    assert program.prepared
    names = [node.op.name for node in program.plan.graph.nodes]
    assert names.count("multiply") + names.count("divide") == (name == "each channel")  # whose product is one
    agree(y)


@pytest.mark.parametrize("name", KEPT)
def test_not_folded(name):
    y = KEPT[name]()
    graph = make_graph({"y": y}, [X, ROWS])
    assert FoldScales().run(graph) is graph
    agree(y, 1e-2 if name == "halves" else 2e-5)


def test_what_is_updated_or_an_output_is_not_folded():
    y = gx.conv(X, K) * S + T
    for parameter in (K, S):
        graph = make_graph({"y": y}, [X], {parameter: parameter * 0.5})
        assert FoldScales().run(graph) is graph
    graph = make_graph({"y": y, "z": y.args[0].args[0]}, [X])
    assert FoldScales().run(graph) is graph
    graph = make_graph({"y": y}, [X], {T: T * 0.5})
    assert FoldScales().run(graph) is not graph  # a term that changes only ends what is folded


STEPS: list[Callable[[Node, Node], Node]] = [
    lambda y, v: y * v, lambda y, v: v * y, lambda y, v: y / v, lambda y, v: y + v, lambda y, v: y - v, lambda y, v: v - y,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_chains_of_any_steps_keep_their_values(seed):
    """In float64, where a factor at a wrong place shows."""
    rng = np.random.default_rng(seed)
    x = gx.placeholder("z", ("n", 5, 5, 4), "float64")

    def values(size: int) -> Node:
        array = gx.parameter("v", rng.uniform(0.5, 2, size))
        return gx.exp(array) if rng.random() < 0.3 else array

    cores: list[Callable[[], Node]] = [
        lambda: gx.conv(x, gx.parameter("k", rng.standard_normal((3, 2, 4, 6)))),
        lambda: gx.conv(x, gx.parameter("k", rng.standard_normal((2, 2, 2, 6))), groups=2),
        lambda: gx.conv_transpose(x, gx.parameter("k", rng.standard_normal((2, 3, 3, 4))), groups=2),
        lambda: x @ gx.parameter("k", rng.standard_normal((4, 6))),
        lambda: gx.conv(x, gx.parameter("k", rng.standard_normal((1, 1, 4, 6)))),
    ]
    y, axis = cores[rng.integers(len(cores))](), 3
    for _ in range(rng.integers(1, 7)):
        kind = rng.integers(8)
        v = values(int(y.shape[axis]) if rng.random() < 0.8 else 1)  # pyright: ignore[reportArgumentType]
        v = gx.reshape(v, (v.shape[0], *(1,) * (3 - axis)))
        if kind == 6:
            order = tuple(rng.permutation(4).tolist())
            y, axis = gx.transpose(y, order), order.index(axis)
        elif kind == 7:
            y = gx.tanh(y) if rng.random() < 0.3 else -y
        else:
            y = STEPS[kind](y, v)
    feeds = {"z": rng.standard_normal((2, 5, 5, 4))}
    found, wanted = (gx.compile({"y": y}, [x], backend=b)(**feeds)["y"] for b in ("numba", "reference"))
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-11 * np.abs(wanted).max())


def test_numbers_far_apart():
    """What is not finite stays so, but for a sum that overflowed and is multiplied by 0; see the pass."""
    one = gx.placeholder("one", (1, 1, 1, 2))
    k = gx.parameter("k", np.float32([[[[1, 1e30, 1], [1, 1e30, 1]]]]))
    s = gx.parameter("s", np.float32([np.inf, 1e-30, np.nan]))
    program = gx.compile({"y": gx.conv(one, k) * s}, [one], backend="numba")
    (found,) = program(one=np.float32([[[[2, 1]]]]))["y"].reshape(1, 3)
    np.testing.assert_allclose(found, [np.inf, 3, np.nan], rtol=1e-6)
    (found,) = program(one=np.float32([[[[0, 0]]]]))["y"].reshape(1, 3)
    np.testing.assert_array_equal(found, [np.nan, 0, np.nan])
    s.value = [0, 0, 0]
    (found,) = program(one=np.float32([[[[1e30, 1e30]]]]))["y"].reshape(1, 3)
    np.testing.assert_array_equal(found, [0, 0, 0])


@pytest.mark.parametrize("axis", [-1, 1])
def test_a_network_after_training_and_before(axis):
    """Predictions are those of the reference whenever weights and statistics have changed."""
    gx.set_seed(2)
    shape, order = ((6, 6, 3), "channels_last") if axis == -1 else ((3, 6, 6), "channels_first")
    model = gx.Sequential([
        gx.Input(shape), layers.Conv2D(4, 3, padding="same", data_format=order), layers.BatchNormalization(axis),
        layers.Activation("relu"), layers.Conv2D(4, 1, use_bias=False, data_format=order), layers.BatchNormalization(axis),
        layers.Flatten(), layers.Dense(3), layers.BatchNormalization(),
    ])  # fmt: skip
    model.compile(optimizer="sgd", loss="mse", backend="numba")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, *shape)).astype(np.float32), rng.standard_normal((8, 3)).astype(np.float32)
    program = model.programs["predict"]
    assert not [node for node in program.plan.graph.nodes if node.op.name in ("multiply", "rsqrt")]
    judge = gx.compile(dict(program.graph.outputs), program.graph.inputs, backend="reference")
    for _ in range(3):
        (wanted,) = judge(**{program.input_names[0]: x}).values()
        np.testing.assert_allclose(model.predict(x), wanted, rtol=1e-4, atol=1e-5)
        model.fit(x, y, epochs=1, batch_size=4, verbose=0)
    model.layers[1].freeze()
    model.fit(x, y, epochs=1, batch_size=4, verbose=0)
    (wanted,) = judge(**{program.input_names[0]: x}).values()
    np.testing.assert_allclose(model.predict(x), wanted, rtol=1e-4, atol=1e-5)
