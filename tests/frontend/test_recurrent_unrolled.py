"""Recurrent layers and their steps written out: gradients equal to the last bit, and code that no length makes longer."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import layers
from graphc.backend import find_backend
from graphc.backends.numba import build
from graphc.driver import make_plan
from graphc.ir.graph import make_graph
from graphc.loops.text import kernel_text
from graphc.lower.plan import KernelItem
from graphc.passes import prepare, simplify_graph
from tests.frontend.test_recurrent import KINDS as SMOOTH
from tests.frontend.test_recurrent import flat, run, written_out

INTEGERS = {"activation": "hard_tanh", "recurrent_activation": "relu6"}
KINDS = {
    "SimpleRNN": lambda units, **said: layers.SimpleRNN(units, activation="relu6", **said),
    "LSTM": lambda units, **said: layers.LSTM(units, **INTEGERS, **said),
    "GRU": lambda units, **said: layers.GRU(units, **INTEGERS, **said),
    "GRU before": lambda units, **said: layers.GRU(units, reset_after=False, **INTEGERS, **said),
    "stacked": lambda units, **said: layers.RNN(
        [layers.LSTMCell(2, **INTEGERS), layers.GRUCell(units, **INTEGERS)], **said
    ),
}


def whole_numbers(layer, rng):
    """Weights of -1, 0 and 1: then all sums and products are whole numbers, which no order of summation changes."""
    layer.set_weights([rng.integers(-1, 2, w.shape).astype(w.dtype) for w in layer.get_weights()])


def weighed(outputs):
    total = gx.constant(0.0, "float64")
    for number, value in enumerate(outputs):
        weight = gx.cast(gx.iota(value.shape, value.ndim - 1) + number, "float64")
        total = total + gx.sum(value * weight)
    return total


@pytest.mark.parametrize(("backwards", "masked"), [(False, False), (True, True)])
@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_exactly_those_of_the_steps(name, backwards, masked):
    """Products that leave the loop, before it and behind it, change no bit."""
    rng = np.random.default_rng(sum(map(ord, name)))
    layer = KINDS[name](3, return_sequences=True, return_state=True, go_backwards=backwards, dtype="float64")
    x, m = gx.placeholder("x", (12, 4, 2), "float64"), gx.placeholder("m", (12, 4), "bool")
    looped = flat(layer(x, mask=m) if masked else layer(x))
    whole_numbers(layer, rng)
    written = written_out(layer, x, 4, m if masked else None, backwards)
    feeds = {x: rng.integers(-1, 3, (12, 4, 2)).astype(float), m: rng.random((12, 4)) < 0.6}
    sides = [[*side, *gx.grad(weighed(side), [x, *layer.weights])] for side in (looped, written)]
    found, wanted = (run(side, feeds, "reference") for side in sides)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.any(slope) for slope in wanted[len(written) :])


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_both_directions_of_a_stack_are_exactly_their_steps(name):
    """Two layers one above the other, the lower one both ways; each begins with states that depend on the inputs."""
    rng = np.random.default_rng(1)
    below = layers.Bidirectional(KINDS[name](2, return_sequences=True, dtype="float64"))
    above = KINDS[name](2, return_sequences=True, return_state=True, dtype="float64")
    x = gx.placeholder("x", (2, 3, 2), "float64")
    looped = flat(above(below(x)))
    whole_numbers(below, rng)
    whole_numbers(above, rng)
    there, *_ = written_out(below.forward_layer, x, 3)
    back, *_ = written_out(below.backward_layer, x, 3, backwards=True)
    written = written_out(above, gx.concatenate([there, gx.flip(back, 1)], axis=-1), 3)
    feeds = {x: rng.integers(-1, 2, (2, 3, 2)).astype(float)}
    weights = [*below.weights, *above.weights]
    sides = [[*side, *gx.grad(weighed(side), [x, *weights])] for side in (looped, written)]
    for a, b in zip(*(run(side, feeds, "reference") for side in sides), strict=True):
        np.testing.assert_array_equal(a, b)


def both_ways(x):
    layer = layers.Bidirectional(layers.LSTM(3, return_sequences=True))
    return layer, layer(x)


def counted(x):
    layer = layers.GRU(3, return_sequences=True, dropout=0.2, recurrent_dropout=0.2)
    return layer, layer(x, lengths=gx.full((x.shape[0],), 2, "int64"))


def decoder(cell):
    def build(x):
        layer = layers.RNN(cell(), return_sequences=True)
        return layer, layer(x, constants=gx.tanh(x))

    return build


def plain(kind):
    def build(x):
        layer = SMOOTH[kind](3, return_sequences=True)
        return layer, layer(x)

    return build


GROWING = {
    **{name: plain(name) for name in SMOOTH},
    "both ways": both_ways,
    "counted, with dropout": counted,
    "bahdanau": decoder(lambda: layers.BahdanauCell(layers.GRUCell(3))),
    "luong": decoder(lambda: layers.LuongCell(layers.LSTMCell(3), "general")),
    "luong fed": decoder(lambda: layers.LuongCell(layers.GRUCell(3), "general", 5, input_feeding=True)),
}


def trained(name, shape):
    """The graph of a training step."""
    x = gx.placeholder("x", shape)
    layer, y = GROWING[name](x)
    loss = gx.mean(y * y)
    return make_graph({"loss": loss}, [x], {w: w - 0.1 * g for w, g in _slopes(loss, layer)})


def _slopes(loss, layer):
    weights = layer.trainable_weights
    return zip(weights, gx.grad(loss, weights), strict=True)


@pytest.mark.parametrize("name", GROWING)
def test_code_does_not_grow_with_the_length(name):
    """A training step over 400 steps has the launches and kernels of one over 4."""
    sizes = []
    for time in (4, 400):
        plan = make_plan(simplify_graph(prepare(trained(name, (2, time, 3)), training=True))[0], find_backend("numba"))
        kernels = {i.kernel for launch in plan.launches for i in launch.items if isinstance(i, KernelItem)}
        lines = sum(len(kernel_text(kernel).splitlines()) for kernel in kernels)
        sizes.append((len(plan.launches), len(plan.loops), len(kernels), lines, len(plan.buffers)))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("name", ["bahdanau"])
def test_a_size_never_seen_before_compiles_nothing(name, monkeypatch):
    graph = trained(name, ("batch", "time", 3))
    program = gx.compile(dict(graph.outputs), list(graph.inputs), dict(graph.updates), backend="numba")
    source = program.source()

    def refuse(*_):
        raise AssertionError("machine code was asked for")

    monkeypatch.setattr(build, "kernel_addresses", refuse)
    monkeypatch.setattr(build, "native_addresses", refuse)
    for batch, time in ((1, 1), (3, 40), (2, 7)):
        assert np.isfinite(program(x=np.ones((batch, time, 3), np.float32))["loss"])
    assert program.source() == source
