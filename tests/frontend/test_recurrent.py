"""Recurrent layers: each against its cell written out step by step, rows alone, onnxruntime, and differences."""

from __future__ import annotations

import re

import numpy as np
import pytest

import graphc as gx
from graphc import layers
from tests.frontend.running import f32

rng = np.random.default_rng(0)

KINDS = {
    "SimpleRNN": layers.SimpleRNN,
    "LSTM": layers.LSTM,
    "GRU": layers.GRU,
    "GRU before": lambda units, **said: layers.GRU(units, reset_after=False, **said),
    "stacked": lambda units, **said: layers.RNN([layers.LSTMCell(3), layers.GRUCell(units)], **said),
}
LENGTHS = np.array([5, 2, 0, 3])


def shuffled(layer):
    """Other weights than the first ones, so that biases count."""
    layer.set_weights([w + 0.3 * rng.standard_normal(w.shape).astype(w.dtype) for w in layer.get_weights()])


def flat(outputs):
    if isinstance(outputs, list | tuple):
        return [leaf for item in outputs for leaf in flat(item)]
    return [outputs]


def run(outputs, feeds, backend="numba", updates=None, training=False):
    named = {f"y{i}": node for i, node in enumerate(flat(outputs))}
    program = gx.compile(named, inputs=list(feeds), updates=updates, backend=backend, training=training)
    found = program.call([np.asarray(array) for array in feeds.values()])
    return list(found)


def loss_of(outputs):
    total = gx.constant(0.0, str(flat(outputs)[0].dtype))
    for number, value in enumerate(flat(outputs)):
        weight = gx.cos(gx.cast(gx.iota(value.shape, value.ndim - 1), value.dtype) + float(number))
        total = total + gx.sum(value * value * weight)
    return total


def written_out(layer, x, length, mask=None, backwards=False):
    """The layer's outputs and states with its cell called once for each step."""
    states = layer.get_initial_state(x.shape[0], x.dtype)
    outputs = []
    shown = gx.zeros((x.shape[0], layer.cell.output_size), x.dtype)
    for t in reversed(range(length)) if backwards else range(length):
        output, after = layer.cell(x[:, t], states)
        if mask is not None:
            m = mask[:, t : t + 1]
            output = gx.where(m, output, shown)
            olds = iter(flat(states))
            news = [gx.where(m, new, next(olds)) for new in flat(after)]
            after = news if len(states) == len(news) else [news[:2], news[2:]]
        states, shown = after, output
        outputs.append(output)
    return [gx.stack(outputs, axis=1), *flat(states)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_a_layer_is_its_cell_step_by_step(name, backwards, masked):
    """Values and gradients, in double precision."""
    layer = KINDS[name](4, return_sequences=True, return_state=True, go_backwards=backwards, dtype="float64")
    x = gx.placeholder("x", (3, 4, 2), "float64")
    m = gx.placeholder("m", (3, 4), "bool")
    looped = flat(layer(x, mask=m) if masked else layer(x))
    shuffled(layer)
    written = written_out(layer, x, 4, m if masked else None, backwards)
    feeds = {x: rng.standard_normal((3, 4, 2)), m: rng.random((3, 4)) < 0.6}
    sides = [[*side, *gx.grad(loss_of(side), [x, *layer.weights])] for side in (looped, written)]
    for a, b in zip(run(sides[0], feeds), run(sides[1], feeds, "reference"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_slopes(name):
    layer = KINDS[name](3, dtype="float64")
    x = gx.placeholder("x", (2, 3, 2), "float64")
    loss = loss_of(layer(x))
    shuffled(layer)
    value = rng.standard_normal((2, 3, 2))
    program = gx.compile({"loss": loss, **{f"g{i}": g for i, g in enumerate(gx.grad(loss, layer.weights))}}, inputs=[x])
    found = program(x=value)
    for number, weight in enumerate(layer.weights):
        direction = rng.standard_normal(weight.shape)
        before, ends = weight.value, []
        for sign in (1, -1):
            weight.value = before + sign * 1e-6 * direction
            ends.append(program(x=value)["loss"])
        weight.value = before
        slope = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(np.sum(found[f"g{number}"] * direction), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("given", ["mask", "lengths"])
@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_padded_rows_give_what_each_gives_alone(name, wrap, given):
    layer = KINDS[name](4, return_sequences=True, return_state=True)
    layer = layers.Bidirectional(layer) if wrap else layer
    x = gx.placeholder("x", ("batch", "time", 3))
    plain = flat(layer(x))
    shuffled(layer)
    if given == "mask":
        said = gx.placeholder("m", ("batch", "time"), "bool")
        padded = flat(layer(x, mask=said))
        array = np.arange(5) < LENGTHS[:, None]
    else:
        said, array = gx.placeholder("n", ("batch",), "int64"), LENGTHS
        padded = flat(layer(x, lengths=said))
    value = f32(rng, 4, 5, 3)
    together = run(padded, {x: value, said: array})
    alone = gx.compile({f"y{i}": y for i, y in enumerate(plain)}, inputs=[x])
    for row, length in enumerate(LENGTHS):
        single = list(alone.call([value[row : row + 1, :length]]))
        np.testing.assert_allclose(together[0][row, :length], single[0][0], rtol=1e-5, atol=1e-6)
        for a, b in zip(together[1:], single[1:], strict=True):
            np.testing.assert_allclose(a[row], b[0], rtol=1e-5, atol=1e-6)


def test_outputs_of_steps_left_out_repeat_or_are_zeros():
    x, m = gx.placeholder("x", (1, 5, 2)), gx.placeholder("m", (1, 5), "bool")
    mask = np.array([[False, True, False, True, False]])
    repeat = layers.GRU(3, return_sequences=True)
    zero = layers.GRU(3, return_sequences=True, zero_output_for_mask=True)
    last = layers.GRU(3, zero_output_for_mask=True)
    outputs = [layer(x, mask=m) for layer in (repeat, zero, last)]
    for layer in (zero, last):
        layer.set_weights(repeat.get_weights())
    a, b, c = run(outputs, {x: f32(rng, 1, 5, 2), m: mask})
    assert not a[0, 0].any()
    np.testing.assert_array_equal(a[0, [2, 4]], a[0, [1, 3]])
    assert np.abs(a[0, [1, 3]]).min() > 0
    np.testing.assert_array_equal(b, np.where(mask[..., None], a, 0))
    assert not c.any()


def test_bidirectional_merges():
    x = gx.placeholder("x", ("batch", "time", 2))
    kinds = ("concat", "sum", "mul", "ave", None)
    models = [layers.Bidirectional(layers.GRU(3, return_sequences=True), mode) for mode in kinds]
    outputs = [model(x) for model in models]
    shuffled(models[0])
    for model in models[1:]:
        model.set_weights(models[0].get_weights())
    concat, total, product, mean, there, back = run(outputs, {x: f32(rng, 2, 4, 2)})
    np.testing.assert_array_equal(concat, np.concatenate([there, back], -1))
    for found, wanted in ((total, there + back), (product, there * back), (mean, (there + back) / 2)):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert concat.shape == (2, 4, 6)  # the hidden size doubles
    assert [w.label.partition("/")[2] for w in models[0].weights][::3] == [
        "forward_gru/gru_cell/kernel", "backward_gru/gru_cell/kernel"
    ]  # fmt: skip


def test_a_stack_of_cells_is_a_stack_of_layers():
    x = gx.placeholder("x", ("batch", "time", 3))
    one = layers.RNN([layers.LSTMCell(4), layers.GRUCell(5)])
    two = [layers.LSTM(4, return_sequences=True), layers.GRU(5)]
    a, b = one(x), two[1](two[0](x))
    shuffled(one)
    two[0].set_weights(one.get_weights()[:3])
    two[1].set_weights(one.get_weights()[3:])
    a, b = run([a, b], {x: f32(rng, 2, 6, 3)})
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_the_other_convention_of_the_gru_is_ours_with_the_update_gate_negated():
    """(1 - z) * h_prev + z * candidate, with the reset gate before the product, written in NumPy."""
    n, units, steps = 3, 4, 5
    x = rng.standard_normal((2, steps, n))
    w, u, b = (
        rng.standard_normal((n, 3 * units)),
        rng.standard_normal((units, 3 * units)),
        rng.standard_normal(3 * units),
    )

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    h = np.zeros((2, units))
    for t in range(steps):
        z, r = (sigmoid(x[:, t] @ w[:, k : k + units] + h @ u[:, k : k + units] + b[k : k + units]) for k in (0, units))
        candidate = np.tanh(x[:, t] @ w[:, -units:] + (r * h) @ u[:, -units:] + b[-units:])
        h = (1 - z) * h + z * candidate
    layer = layers.GRU(units, reset_after=False, dtype="float64")
    node = gx.placeholder("x", (2, steps, n), "float64")
    y = layer(node)
    sign = np.repeat([-1.0, 1.0, 1.0], units)
    layer.set_weights([w * sign, u * sign, b * sign])
    np.testing.assert_allclose(run(y, {node: x})[0], h, rtol=1e-12)


def test_states_are_given_taken_and_kept():
    x = gx.placeholder("x", (2, 3, 2))
    value = f32(rng, 2, 6, 2)
    layer = layers.LSTM(4, return_state=True)
    y, h, c = layer(x)
    again, _, _ = layer(x, initial_state=[h0 := gx.placeholder("h0", (2, 4)), c0 := gx.placeholder("c0", (2, 4))])
    keeping = layers.LSTM(4, stateful=True)
    kept = keeping(x)
    keeping.set_weights(layer.get_weights())
    assert len(keeping.weights) == 3
    whole = gx.placeholder("x", (2, 6, 2))
    (wanted, *_) = run(layer(whole), {whole: value})
    first = run([y, h, c], {x: value[:, :3]})
    np.testing.assert_array_equal(first[0], first[1])
    (second,) = run(again, {x: value[:, 3:], h0: first[1], c0: first[2]})
    np.testing.assert_allclose(second, wanted, rtol=1e-6, atol=1e-7)
    program = gx.compile({"y": kept}, inputs=[x], updates=keeping.updates)
    program(x=value[:, :3])
    np.testing.assert_allclose(program(x=value[:, 3:])["y"], wanted, rtol=1e-6, atol=1e-7)
    keeping.reset_state()
    np.testing.assert_allclose(program(x=value[:, :3])["y"], first[0], rtol=1e-6, atol=1e-7)


def test_a_stateful_model_keeps_states_in_training_evaluation_and_prediction():
    inputs = gx.Input((2, 1), batch_size=1)
    layer = layers.SimpleRNN(1, activation=None, use_bias=False, stateful=True)
    model = gx.Model(inputs, layer(inputs))
    model.compile(gx.optimizers.SGD(0.0), "mse")
    layer.set_weights([np.ones((1, 1), np.float32)] * 2)
    ones = np.ones((1, 2, 1), np.float32)
    assert model.predict(ones, verbose=0) == 2
    assert model.train_on_batch(ones, np.zeros((1, 1), np.float32)) == 16
    assert model.evaluate(ones, np.zeros((1, 1), np.float32), verbose=0) == 36
    layer.reset_state()
    assert model.predict(ones, verbose=0) == 2


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU", "GRU before"])
def test_dropout_is_the_same_at_all_steps_and_none_in_inference(name):
    """With ones as inputs and weights that pass one input on, the gates' sums show the mask."""
    x = gx.placeholder("x", (4, 6, 8))
    layer = KINDS[name](8, dropout=0.5, recurrent_dropout=0.4)
    y = layer(x)
    value = np.ones((4, 6, 8), np.float32)
    updates = layer.updates
    train = gx.compile({"y": y}, inputs=[x], updates=updates, training=True)
    infer = gx.compile({"y": y}, inputs=[x])
    plain = KINDS[name](8)
    wanted = plain(x)
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(infer(x=value)["y"], run(wanted, {x: value})[0], rtol=1e-5, atol=1e-6)
    first, second = train(x=value)["y"], train(x=value)["y"]
    assert np.abs(first - second).max() > 1e-3
    assert np.abs(first - infer(x=value)["y"]).max() > 1e-3


def test_one_mask_for_the_whole_sequence():
    x = gx.placeholder("x", (1, 7, 16))
    layer = layers.SimpleRNN(16, activation=None, use_bias=False, return_sequences=True, dropout=0.5, seed=3)
    y = layer(x)
    layer.set_weights([np.eye(16, dtype=np.float32), np.zeros((16, 16), np.float32)])
    (shown,) = run(y, {x: np.ones((1, 7, 16), np.float32)}, updates=layer.updates, training=True)
    assert set(np.unique(shown)) == {0.0, 2.0}
    assert (shown == shown[:, :1]).all()


def test_embeddings_are_rows_whose_gradients_add_up():
    ids = gx.placeholder("ids", ("batch", "time"), "int64")
    layer = layers.Embedding(6, 3, weights=np.arange(18.0).reshape(6, 3), mask_zero=True)
    y = layer(ids)
    (gradient,) = gx.grad(gx.sum(y), layer.weights)
    program = gx.compile({"y": y, "gradient": gradient}, inputs=[ids])
    value = np.array([[1, 5, 1], [1, 0, 3]])
    found = program(ids=value)
    np.testing.assert_array_equal(found["y"], np.arange(18.0).reshape(6, 3)[value])
    np.testing.assert_array_equal(found["gradient"][:, 0], [1, 3, 0, 1, 0, 1])
    with pytest.raises(gx.IndexRangeError, match="6"):
        program(ids=np.array([[6]]))


def test_padding_counts_neither_in_layers_nor_in_the_loss():
    ids = np.array([[3, 1, 2, 0, 0], [4, 5, 0, 0, 0], [1, 2, 3, 4, 5]])
    model = gx.Sequential(
        [gx.Input((None,), dtype="int64"), layers.Embedding(6, 4, mask_zero=True),
         layers.Bidirectional(layers.LSTM(3, return_sequences=True)), layers.Dense(1)]
    )  # fmt: skip
    model.compile("sgd", "mse")
    target = rng.standard_normal((3, 5, 1)).astype(np.float32)
    loss = model.evaluate(ids, target, verbose=0)
    found = model.predict(ids, verbose=0)
    np.testing.assert_allclose(loss, np.mean((found - target)[ids > 0] ** 2), rtol=1e-5)
    np.testing.assert_allclose(found[1, :2], model.predict(ids[1:2, :2], verbose=0)[0], rtol=1e-6)


def test_models_with_all_of_it_come_back_from_files(tmp_path):
    gx.set_seed(1)
    inputs = gx.Input((None,), dtype="int64")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    x, h, c = layers.LSTM(4, return_sequences=True, return_state=True, dropout=0.2, recurrent_dropout=0.2)(x)
    y = layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="sum")(x)
    y = layers.RNN(layers.StackedRNNCells([layers.SimpleRNNCell(4), layers.LSTMCell(4)]), return_sequences=True)(y)
    z = layers.RNN(layers.BahdanauCell(layers.LSTMCell(4)), return_sequences=True)(
        layers.RepeatVector(3)(h), initial_state=[h, c], constants=y
    )
    model = gx.Model(inputs, layers.TimeDistributed(layers.Dense(2))(z))
    model.compile("adam", "mse")
    ids = rng.integers(1, 9, (6, 5))
    ids[0, 2:] = 0
    model.fit(ids, rng.standard_normal((6, 3, 2)), epochs=2, batch_size=3, verbose=0)
    model.save(tmp_path / "model")
    loaded = gx.load_model(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(ids, verbose=0), model.predict(ids, verbose=0))
    assert list(loaded.named_weights()) == list(model.named_weights())
    for one in (model, loaded):
        one.fit(ids, np.zeros((6, 3, 2)), epochs=1, batch_size=2, verbose=0)
    np.testing.assert_array_equal(loaded.predict(ids, verbose=0), model.predict(ids, verbose=0))


def test_the_loop_of_an_lstm_is_two_launches_a_step_each_way():
    x = gx.placeholder("x", ("batch", "time", 8))
    layer = layers.LSTM(4)
    loss = gx.sum(gx.square(layer(x)))
    program = gx.compile({"loss": loss, **{str(i): g for i, g in enumerate(gx.grad(loss, layer.weights))}}, inputs=[x])
    loops = program.plan.loops
    assert [loop.end - loop.first for loop in loops] == [2, 2]
    before = program.source()
    for batch, time in ((1, 1), (3, 40), (2, 7), (1, 0)):
        program(x=np.ones((batch, time, 8), np.float32))
    assert program.source() == before  # no size compiles anything


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: layers.LSTM(4)(x[:, :, 0]), "batch, time, features"),
        (lambda x: layers.LSTM(0), "positive whole number of units"),
        (lambda x: layers.GRU(4, dropout=1.5), "dropout of GRUCell"),
        (lambda x: layers.RNN(layers.Dense(3)), "is not a cell"),
        (lambda x: layers.LSTM(4)(x, initial_state=[gx.zeros((2, 4))]), "has 2 states"),
        (lambda x: layers.LSTM(4, stateful=True)(x), "must be fixed"),
        (lambda x: layers.Bidirectional(layers.Dense(3)), "recurrent layer"),
        (lambda x: layers.Bidirectional(layers.LSTM(3), merge_mode="max"), "merge_mode"),
        (lambda x: layers.Bidirectional(layers.LSTM(3), backward_layer=layers.LSTM(3)), "same way"),
        (lambda x: layers.TimeDistributed(layers.Dense(3))(x[0]), "batch, time"),
        (lambda x: layers.RepeatVector(2)(x), "two axes"),
        (lambda x: layers.Embedding(0, 3), "input_dim"),
        (lambda x: layers.RNN(layers.LuongCell(layers.LSTMCell(3)))(x), "no memory"),
        (lambda x: layers.Attention()(x), "query, value"),
    ],
)
def test_mistakes_are_explained(call, says):
    with pytest.raises(gx.GraphcError, match=says) as caught:
        call(gx.placeholder("x", ("batch", "time", 3)))
    assert "test_recurrent.py" in str(caught.value)
    assert "to do: " in str(caught.value)


def test_nothing_is_copied_on_the_way():
    """Ids become vectors in the order of the loop, layers hand sequences on as they lie, gradients need no padding."""
    ids = gx.placeholder("ids", ("batch", "time"), "int64")
    stack = [layers.Embedding(9, 4), layers.LSTM(4, return_sequences=True), layers.LSTM(4)]
    x = ids
    for layer in stack:
        x = layer(x)
    weights = [weight for layer in stack for weight in layer.weights]
    loss = gx.sum(gx.square(x))
    program = gx.compile({"loss": loss, **{str(i): g for i, g in enumerate(gx.grad(loss, weights))}}, inputs=[ids])
    plan = program.plan
    assert len(plan.loops) == 4
    names = [item.kernel.name for launch in plan.launches for item in launch.items if hasattr(item, "kernel")]
    assert not any("pad" in name for name in names)
    moved = [line for line in program.text("plan").splitlines() if "copy(read" in line]
    assert len(moved) == 3, moved  # recurrent weights as the way back reads them, and the gradient that it begins with


def test_a_mask_is_brought_into_order_once_for_all_loops():
    x, mask = gx.placeholder("x", ("batch", "time", 2)), gx.placeholder("mask", ("batch", "time"), "bool")
    layer = layers.Bidirectional(layers.LSTM(4, return_sequences=True))
    y = layer(x, mask=mask)
    gradients = gx.grad(gx.sum(gx.square(y)), layer.weights)
    program = gx.compile({"y": y, **{str(i): g for i, g in enumerate(gradients)}}, inputs=[x, mask])
    text = program.text("plan")
    (number,) = re.findall(r"(\d+): \S+ bool\[batch, time\] in input", text)
    assert text.count(f"copy(read {number},") == 1
