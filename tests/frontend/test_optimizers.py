"""Optimizers, step by step, against their published rules in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Sequential, layers
from graphc.frontend.optimizers import SGD, Adam, Optimizer

SHAPES = ((3, 2), (5,), ())


def sgd(state, p, g, t, rate=0.1, momentum=0.0, nesterov=False):
    """Sutskever et al. 2013, equations 1 to 4."""
    v = momentum * state.get("v", 0.0) - rate * g
    state["v"] = v
    return p + (momentum * v - rate * g if nesterov else v)


def adam(state, p, g, t, rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Kingma and Ba 2015, algorithm 1 with the order of computation of its section 2, as Keras has it."""
    m = beta_1 * state.get("m", 0.0) + (1 - beta_1) * g
    v = beta_2 * state.get("v", 0.0) + (1 - beta_2) * g * g
    state.update(m=m, v=v)
    return p - rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(v) + epsilon)


def decayed(rule, rate, decay):
    return lambda state, p, g, t: rule(state, p - p * decay * rate, g, t)


RULES = {
    "sgd": (lambda: SGD(0.1), sgd),
    "momentum": (lambda: SGD(0.1, momentum=0.9), lambda *a: sgd(*a, momentum=0.9)),
    "nesterov": (lambda: SGD(0.1, 0.9, nesterov=True), lambda *a: sgd(*a, momentum=0.9, nesterov=True)),
    "sgd decay": (lambda: SGD(0.1, weight_decay=0.05), decayed(sgd, 0.1, 0.05)),
    "adam": (lambda: Adam(0.01), adam),
    "adam betas": (
        lambda: Adam(0.01, beta_1=0.5, beta_2=0.9, epsilon=1e-3),
        lambda *a: adam(*a, beta_1=0.5, beta_2=0.9, epsilon=1e-3),
    ),
    "adam decay": (lambda: Adam(0.01, weight_decay=0.1), decayed(adam, 0.01, 0.1)),
}


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize("name", RULES)
def test_every_step_follows_the_published_rule(name, backend):
    make, rule = RULES[name]
    rng = np.random.default_rng(1)
    first = [rng.standard_normal(shape) for shape in SHAPES]
    parameters = [gx.parameter(f"p{i}", value) for i, value in enumerate(first)]
    gradients = [gx.placeholder(f"g{i}", shape, "float64") for i, shape in enumerate(SHAPES)]
    step = gx.compile({}, inputs=gradients, updates=make().updates(parameters, gradients), backend=backend)
    wanted, states = list(first), [{} for _ in SHAPES]
    for t in range(1, 21):
        given = [rng.standard_normal(shape) for shape in SHAPES]
        step.call([np.asarray(g) for g in given])
        wanted = [rule(s, p, g, t) for s, p, g in zip(states, wanted, given, strict=True)]
        for parameter, value in zip(parameters, wanted, strict=True):
            np.testing.assert_allclose(parameter.value, value, rtol=1e-11, atol=1e-13)


def test_float32_parameters_are_updated_in_float32_with_scalars_that_do_not_lose_digits():
    p, g = gx.parameter("p", np.ones(4, np.float32)), gx.placeholder("g", (4,))
    optimizer = Adam(0.001)
    new = optimizer.updates([p], [g])
    assert {node.dtype.value for node in new.values()} == {"float32", "int64"}
    step = gx.compile({}, inputs=[g], updates=new, backend="reference")
    step.call([np.full(4, 3, np.float32)])
    np.testing.assert_allclose(p.value, np.full(4, 1 - 0.001), rtol=1e-7)


def test_what_does_not_depend_on_the_parameter_is_one_node_for_all():
    parameters = [gx.parameter(f"p{i}", np.ones((3, i + 1), np.float32)) for i in range(4)]
    gradients = [gx.placeholder(f"g{i}", (3, i + 1)) for i in range(4)]
    graph = gx.compile({}, gradients, Adam().updates(parameters, gradients), backend="reference").graph
    assert sum(node.op.name == "pow" for node in graph.nodes) == 2
    assert not any(node.op.name == "pow" and node.shape for node in graph.nodes)


def test_changing_the_learning_rate_compiles_nothing():
    model = Sequential([Input((2,)), layers.Dense(1, use_bias=False)])
    model.compile(SGD(0.5), "mse", backend="reference")
    x, y = np.eye(2, dtype=np.float32), np.zeros((2, 1), np.float32)
    program = model.programs["train"]
    for rate in (0.5, 0.125, 0.0):
        model.optimizer.learning_rate = rate
        before = model.get_weights()[0]
        model.train_on_batch(x, y)
        np.testing.assert_allclose(model.get_weights()[0], before - rate * before, rtol=1e-6)
    assert model.programs["train"] is program
    assert model.optimizer.learning_rate == 0.0
    assert model.optimizer.iterations.value == 3


def test_the_learning_rate_can_be_a_function_of_the_step():
    p, g = gx.parameter("p", np.zeros(1)), gx.placeholder("g", (1,), "float64")
    optimizer = SGD(lambda step: 1.0 / (step + 1.0))
    step = gx.compile({}, [g], optimizer.updates([p], [g]), backend="reference")
    for _ in range(3):
        step.call([np.ones(1)])
    np.testing.assert_allclose(p.value, [-(1 + 1 / 2 + 1 / 3)])
    with pytest.raises(gx.GraphError, match="schedule"):
        optimizer.learning_rate = 0.1


def test_an_optimizer_of_the_user():
    class Sign(Optimizer):
        def rule(self, p, g, slots, s):
            return p - s["rate"] * gx.sign(g), {}

    p, g = gx.parameter("p", np.zeros(3, np.float32)), gx.placeholder("g", (3,))
    gx.compile({}, [g], Sign(0.5).updates([p], [g]), backend="reference").call([np.float32([2, -3, 0])])
    np.testing.assert_array_equal(p.value, np.float32([-0.5, 0.5, 0]))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: SGD(-1), gx.AxisError, "learning rate"),
        (lambda: SGD("fast"), gx.AxisError, "learning rate"),
        (lambda: SGD(0.1, momentum=2), gx.AxisError, "momentum"),
        (lambda: Adam(0.1, beta_1=1.0), gx.AxisError, "beta_1"),
        (lambda: gx.optimizers.get("adma"), gx.GraphError, "no optimizer is called 'adma'"),
        (lambda: gx.optimizers.get(3), gx.GraphError, "not an optimizer"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words) as caught:
        make()
    assert "test_optimizers.py:" in str(caught.value)
    assert "to do: " in str(caught.value)
