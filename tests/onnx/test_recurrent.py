"""Recurrent layers in files for inference are ONNX's own operators; what these cannot say stays a Scan."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import graphc as gx
from graphc import Input, Sequential, layers
from graphc.backends.onnx.export import build_model

KINDS = {
    "lstm": (layers.LSTM, {}, "LSTM"),
    "gru": (layers.GRU, {}, "GRU"),
    "gru before": (layers.GRU, {"reset_after": False}, "GRU"),
    "hard lstm": (layers.LSTM, {"recurrent_activation": "hard_sigmoid", "activation": "softsign"}, "LSTM"),
    "rnn": (layers.SimpleRNN, {"activation": "relu"}, "RNN"),
}
SIZES = ((2, 5), (3, 1), (1, 7), (4, 3), (5, 2))
LOOPS = ("LSTM", "GRU", "RNN", "Scan")


def nodes():
    return gx.placeholder("x", ("batch", "time", 3)), gx.placeholder("n", ("batch",), "int64")


def shaken(layer, seed=0):
    random = np.random.default_rng(seed)
    layer.set_weights([w + 0.3 * random.standard_normal(w.shape).astype(np.float32) for w in layer.get_weights()])


def program_of(outputs, inputs, updates=None):
    outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    named = {f"y{i}": node for i, node in enumerate(outputs)}
    return gx.compile(named, inputs=list(inputs), updates=updates, backend="reference")


def loops_of(program):
    """How many of each kind of loop the file has."""
    found = Counter(node.op_type for node in build_model(program).model.graph.node)
    return {name: found[name] for name in LOOPS if found[name]}


def assert_same(program, seed=1, sizes=SIZES, atol=3e-6, opset=21):
    """The file gives the program's values at sizes that nobody named, also for rows without steps."""
    model = build_model(program, opset=opset).model
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(seed)
    for batch, time in sizes:
        feeds = {
            "x": random.standard_normal((batch, time, 3)).astype(np.float32),
            "n": random.integers(0, time + 2, batch),
            "m": random.integers(0, 2, (batch, time)).astype(bool),
        }
        feeds = {node.name: feeds[node.name] for node in program.graph.inputs}
        for wanted, found in zip(program(**feeds).values(), session.run(None, feeds), strict=True):
            np.testing.assert_allclose(found, wanted, atol=atol, rtol=1e-5)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("how", ["plain", "lengths", "zeros", "states", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_one_operator(kind, how, backwards):
    """In both directions, with any number of steps in each row, with given states, without dropout."""
    make, options, operator = KINDS[kind]
    x, n = nodes()
    layer = make(
        4, return_sequences=how != "last", return_state=True, go_backwards=backwards, dropout=0.1,
        recurrent_dropout=0.2, zero_output_for_mask=how == "zeros", **options,
    )  # fmt: skip
    said = {} if how == "plain" else {"lengths": n}
    if how == "states":
        start = gx.sum(x, axis=1)[:, :1] + gx.ones((4,))
        said["initial_state"] = [start, 2.0 - start][: 1 + (operator == "LSTM")]
    outputs = layer(x, **said)
    shaken(layer)
    program = program_of(outputs, [x, n])
    assert loops_of(program) == {operator: 1}
    assert_same(program)


@pytest.mark.parametrize("merge", ["concat", "sum"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_directions_are_one_operator(kind, merge):
    make, options, operator = KINDS[kind]
    x, n = nodes()
    layer = layers.Bidirectional(make(4, return_sequences=True, return_state=True, **options), merge_mode=merge)
    outputs = layer(x, lengths=n)
    shaken(layer)
    program = program_of(outputs, [x, n])
    assert loops_of(program) == {operator: 1}
    (made,) = (node for node in build_model(program).model.graph.node if node.op_type == operator)
    assert {a.name: onnx.helper.get_attribute_value(a) for a in made.attribute}["direction"] == b"bidirectional"
    assert_same(program)


def test_weights_are_called_after_their_layer():
    x, _ = nodes()
    y = layers.Bidirectional(layers.LSTM(4, return_sequences=True, name="reader"), name="both")(x)
    program = program_of(layers.GRU(3, name="last")(y), [x])
    names = {initializer.name for initializer in build_model(program).model.graph.initializer}
    assert {f"{layer}/{letter}" for layer in ("both", "last/gru_cell") for letter in "WRB"} <= names
    assert not {name for name in names if "kernel" in name}


def test_directions_that_need_each_other_stay_apart():
    """The way back begins with the state in which the way there has ended."""
    x, n = nodes()
    forward, back = layers.GRU(4, return_state=True), layers.GRU(4, go_backwards=True)
    _, state = forward(x, lengths=n)
    program = program_of(back(x, lengths=n, initial_state=[state]), [x, n])
    assert loops_of(program) == {"GRU": 2}
    assert_same(program)


@pytest.mark.parametrize("opset", [17, 21])
def test_a_stack_keeps_its_lengths(opset):
    """In the oldest opset, too."""
    x, n = nodes()
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x, lengths=n)
    y = layers.GRU(4, return_sequences=True)(y, lengths=n)
    program = program_of([y, layers.SimpleRNN(2)(y, lengths=n)], [x, n])
    assert loops_of(program) == {"LSTM": 1, "GRU": 1, "RNN": 1}
    assert_same(program, opset=opset)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("counted", [False, True])
def test_cells_above_each_other_are_operators_behind_each_other(counted, backwards):
    """One loop of ours; three in the file."""
    x, n = nodes()
    cells = [layers.LSTMCell(4), layers.GRUCell(3, reset_after=False), layers.SimpleRNNCell(5)]
    layer = layers.RNN(cells, return_sequences=True, return_state=True, go_backwards=backwards)
    outputs, *states = layer(x, **({"lengths": n} if counted else {}))
    shaken(layer)
    program = program_of([outputs, *(leaf for own in states for leaf in own)], [x, n])
    assert loops_of(program) == {"LSTM": 1, "GRU": 1, "RNN": 1}
    assert_same(program)


def test_a_cell_above_that_also_reads_the_inputs_is_a_scan():
    x, _ = nodes()
    below, above, w = layers.GRUCell(3), layers.GRUCell(3), gx.parameter("w", np.ones((3, 3), np.float32))

    def step(carry, e):
        h, g = carry
        h, _ = below(e, [h])
        g, _ = above(h + e @ w, [g])
        return (h, g), g

    zeros = gx.zeros((x.shape[0], 3))
    program = program_of(gx.scan(step, (zeros, zeros), gx.transpose(x, (1, 0, 2)))[1], [x])
    assert loops_of(program) == {"Scan": 1}
    assert_same(program)


def test_two_masks_of_lengths_are_the_shorter_one():
    x, n = nodes()
    counted = gx.arange("time") < gx.expand_dims(n - 1, 1)
    program = program_of(layers.GRU(4, return_sequences=True)(x, mask=counted, lengths=n), [x, n])
    assert loops_of(program) == {"GRU": 1}
    assert_same(program)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_with_holes_is_a_scan(kind, backwards):
    make, options, _ = KINDS[kind]
    x, n = nodes()
    m = gx.placeholder("m", ("batch", "time"), "bool")
    layer = make(4, return_sequences=True, return_state=True, go_backwards=backwards, **options)
    program = program_of(layer(x, mask=m, lengths=n), [x, n, m])
    assert loops_of(program) == {"Scan": 1}
    assert_same(program)


@pytest.mark.parametrize(
    "counted",
    [
        lambda x, n: gx.arange("time") <= gx.expand_dims(n, 1),
        lambda x, n: gx.expand_dims(n, 1) < gx.arange("time"),  # the last steps
        lambda x, n: gx.arange("time") < gx.expand_dims(n, 1) * gx.cast(x[:, :, 0] > 0, "int64"),  # other ones at each
        lambda x, n: gx.any(x > 0.2, axis=-1),
    ],
)
def test_only_a_mask_of_first_steps_is_taken_for_lengths(counted):
    x, n = nodes()
    program = program_of(layers.GRU(4, return_sequences=True)(x, mask=counted(x, n)), [x, n])
    assert loops_of(program) == {"Scan": 1}
    assert_same(program)


def test_padding_of_a_model_is_not_proven():
    """An id 0 may stand anywhere."""
    model = Sequential([Input((None,), dtype="int64"), layers.Embedding(9, 3, mask_zero=True), layers.LSTM(4)])
    ids = np.array([[3, 1, 0, 0], [4, 0, 5, 0]])
    wanted = model.predict(ids, verbose=0)
    program = model.programs["predict"]
    assert loops_of(program) == {"Scan": 1}
    session = ort.InferenceSession(build_model(program).model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: ids})
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("make", [layers.LSTM, layers.GRU])
def test_states_that_are_kept_are_state_of_the_file(tmp_path, make):
    x = gx.placeholder("x", (2, "time", 3))
    layer = make(4, stateful=True, return_sequences=True)
    y = layer(x)
    program = program_of(y, [x], layer.updates)
    assert loops_of(program) == {make.__name__: 1}
    path = gx.onnx.export(program, tmp_path / "kept.onnx")
    random = np.random.default_rng(0)
    batches = [{"x": random.standard_normal((2, t, 3)).astype(np.float32)} for t in (4, 1, 6)]
    report = gx.onnx.verify(path, program, steps=3, inputs=batches)
    assert report.ok, str(report)


def test_the_values_in_the_file_are_compared_one_by_one(tmp_path):
    """Verification computes the operator itself, in both directions and with rows that differ in length."""
    x, n = nodes()
    outputs = [
        part
        for kind in KINDS
        for part in layers.Bidirectional(KINDS[kind][0](3, return_state=True, **KINDS[kind][1]))(x, lengths=n)
    ]
    program = program_of(outputs, [x, n])
    path = gx.onnx.export(program, tmp_path / "all.onnx")
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 4, 3)).astype(np.float32), "n": np.array([4, 0, 2])}
    report = gx.onnx.verify(path, program, inputs=feeds)
    assert report.ok, str(report)


def test_gradients_need_the_gates():
    """With a gradient in the file, the loop and its derivative share one Scan forward."""
    x, n = nodes()
    layer = layers.LSTM(4)
    y = layer(x, lengths=n)
    program = program_of([y, gx.grad(gx.sum(y * y), [x])[0]], [x, n])
    assert loops_of(program) == {"Scan": 2}
    assert_same(program)


def lstm(x, h, c, w, gate=gx.sigmoid, shown=lambda h, c: h):
    """A step with a matrix for each gate, and sums in an unusual order."""
    parts = [w[f"b{k}"] + h @ w[f"r{k}"] + x @ w[f"k{k}"] for k in range(4)]
    c = gx.tanh(parts[2]) * gx.sigmoid(parts[0]) + c * gate(parts[1])
    h = gx.tanh(c) * gx.sigmoid(parts[3])
    return h, c, shown(h, c)


def written(**more):
    x, _ = nodes()
    random = np.random.default_rng(0)
    shapes = {"k": (3, 4), "r": (4, 4), "b": (4,)}
    w = {
        f"{name}{k}": gx.parameter(f"{name}{k}", random.uniform(-1, 1, shape).astype(np.float32))
        for name, shape in shapes.items()
        for k in range(4)
    }

    def step(carry, e):
        c, h = carry
        h, c, y = lstm(e, h, c, w, **more)
        return (c, h), y

    zeros = gx.zeros((x.shape[0], 4))
    (c, h), y = gx.scan(step, (zeros, zeros), gx.transpose(x, (1, 0, 2)))
    return program_of([h, c, y], [x])


def test_a_step_written_otherwise_is_recognized():
    program = written()
    assert loops_of(program) == {"LSTM": 1}
    assert_same(program)


@pytest.mark.parametrize(
    "more",
    [
        {"gate": gx.tanh},  # the gates differ in their activation
        {"gate": lambda z: gx.sigmoid(z * 1.5)},
        {"gate": lambda z: gx.sigmoid(z + z)},  # the state enters twice
        {"gate": lambda z: gx.sigmoid(z[:, :1])},  # one gate for all units
        {"shown": lambda h, c: c},
        {"shown": lambda h, c: h * 2.0},
    ],
)
def test_a_step_that_is_almost_one_stays_a_scan(more):
    program = written(**more)
    assert loops_of(program) == {"Scan": 1}
    assert_same(program)
