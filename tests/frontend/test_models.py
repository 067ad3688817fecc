"""Models: declared by symbols, as chains, by subclassing; shared, nested and cut; names, texts, tables."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, layers
from graphc.ir.text import print_graph
from tests.frontend.running import f32

rng = np.random.default_rng(0)


def branched():
    a, b = Input((4,), name="a"), Input((6,), name="b")
    h = layers.Concatenate()([layers.Dense(8, activation="tanh")(a), layers.Dense(8)(b)])
    h = layers.Dropout(0.1)(h)
    return Model(inputs=[a, b], outputs=[layers.Dense(2, name="left")(h), layers.Dense(1, name="right")(h)])


def compiled(model, **kwargs):
    kwargs = {"optimizer": "sgd", "loss": "mse", "backend": "reference", **kwargs}
    model.compile(**kwargs)
    return model


def test_the_network_of_the_lecture_has_41_parameters(capsys):
    model = Sequential([Input((3,)), layers.Dense(4), layers.Dense(4), layers.Dense(1)])
    assert model.count_params() == 41
    assert [layer.count_params() for layer in model.layers] == [16, 20, 5]
    model.summary()
    text = capsys.readouterr().out
    assert "Total params: 41 (164 B)" in text
    assert "dense_1 (Dense)" in text
    assert "(None, 4)" in text


def test_summary_of_branches_names_the_sources_and_fits_the_width():
    lines: list[str] = []
    branched().summary(line_length=100, print_fn=lines.append)
    row = next(line for line in lines if line.startswith("concatenate"))
    assert row.endswith("dense, dense_1")
    assert max(map(len, lines)) <= 100


def test_building_a_model_twice_gives_the_same_text():
    def texts(build):
        model = compiled(build(), optimizer="adam")
        return [print_graph(model.programs[kind].graph, lines=False) for kind in ("train", "evaluate", "predict")]

    def chain():
        return Sequential([Input((3,)), layers.Dense(4), layers.Dropout(0.2), layers.Dropout(0.2), layers.Dense(1)])

    def nested():
        inner = Sequential([Input((3,)), layers.Dense(4), layers.Dropout(0.2)])
        x = Input((3,))
        return Model(x, layers.Dense(1)(layers.Add()([inner(x), inner(x * 2)])))

    for build in (chain, branched, nested):
        assert texts(build) == texts(build)


def test_names_are_numbered_within_a_model_whatever_was_built_before():
    Input((3,))
    x = Input((3,))
    first = Model(x, layers.Dense(2)(layers.Dense(2)(x)))
    y = Input((3,))
    second = Model(y, layers.Dense(2)(layers.Dense(2, name="dense_1")(y)))
    assert [layer.name for layer in first.layers] == ["input_layer", "dense", "dense_1"]
    assert [layer.name for layer in second.layers] == ["input_layer", "dense_1", "dense"]
    assert [w.label for w in second.weights] == ["dense_1/kernel", "dense_1/bias", "dense/kernel", "dense/bias"]


def test_two_models_under_one_seed_start_from_different_weights():
    gx.set_seed(1)
    one = Sequential([Input((3,)), layers.Dense(3)])
    two = Sequential([Input((3,)), layers.Dense(3)])
    assert not np.array_equal(one.get_weights()[0], two.get_weights()[0])
    gx.set_seed(1)
    again = Sequential([Input((3,)), layers.Dense(3)])
    np.testing.assert_array_equal(one.get_weights()[0], again.get_weights()[0])


def test_several_inputs_and_outputs_by_list_and_by_name():
    model = branched()
    a, b = f32(rng, 5, 4), f32(rng, 5, 6)
    left, right = model.predict([a, b], verbose=0)
    k0, c0, k1, c1, k2, c2, k3, c3 = model.get_weights()
    h = np.concatenate([np.tanh(a @ k0 + c0), b @ k1 + c1], 1)
    np.testing.assert_allclose(left, h @ k2 + c2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(right, h @ k3 + c3, rtol=1e-4, atol=1e-5)
    for other, same in zip(model.predict({"b": b, "a": a}, verbose=0), (left, right), strict=True):
        np.testing.assert_array_equal(other, same)


def test_outputs_as_a_dict_come_back_as_a_dict():
    x = Input((3,))
    model = Model(x, {"twice": layers.Lambda(lambda v: v * 2)(x), "flat": layers.Flatten()(x)})
    data = f32(rng, 4, 3)
    result = model.predict(data, verbose=0)
    assert list(result) == ["twice", "flat"]
    np.testing.assert_array_equal(result["twice"], data * 2)
    assert model.programs["predict"].output_names == ("twice", "flat")


def test_a_shared_layer_has_one_set_of_weights():
    a, b = Input((3,)), Input((3,))
    shared = layers.Dense(2)
    model = Model([a, b], layers.Subtract()([shared(a), shared(b)]))
    assert model.count_params() == 8
    x, y = f32(rng, 4, 3), f32(rng, 4, 3)
    kernel, _ = model.get_weights()
    np.testing.assert_allclose(model.predict([x, y], verbose=0), x @ kernel - y @ kernel, rtol=1e-4, atol=1e-6)
    compiled(model, optimizer=gx.optimizers.SGD(0.1)).train_on_batch([x, y], np.zeros((4, 2), np.float32))
    grad = 2 / 8 * (x - y).T @ (x @ kernel - y @ kernel)
    np.testing.assert_allclose(model.get_weights()[0], kernel - 0.1 * grad, rtol=1e-4, atol=1e-6)


def test_models_are_layers():
    encoder = Sequential([Input((4,)), layers.Dense(3, activation="tanh"), layers.Dense(2)], name="encoder")
    x, y = Input((4,)), Input((4,))
    distance = layers.Subtract()([encoder(x), encoder(y)])
    model = Model([x, y], layers.Dense(1)(distance))
    assert [layer.name for layer in model.layers] == ["input_layer", "input_layer_1", "encoder", "subtract", "dense"]
    assert [w.label for w in model.weights][:2] == ["encoder/dense/kernel", "encoder/dense/bias"]
    assert model.count_params() == encoder.count_params() + 3
    a, b = f32(rng, 5, 4), f32(rng, 5, 4)
    kernel, bias = model.get_weights()[-2:]
    inner = encoder.predict(a, verbose=0) - encoder.predict(b, verbose=0)
    np.testing.assert_allclose(model.predict([a, b], verbose=0), inner @ kernel + bias, rtol=1e-4, atol=1e-6)


def test_dropout_in_a_model_that_is_called_twice_draws_two_masks():
    inner = Sequential([Input((64,)), layers.Dropout(0.5)])
    x = Input((64,))
    model = Model(x, [inner(x), inner(x)])
    graph = compiled(model, loss=["mse", "mse"]).programs["train"].graph
    streams = {node.op.stream for node in graph.nodes if node.op.name == "dropout"}
    assert len(streams) == 2


def test_training_false_freezes_the_phase_of_a_nested_model():
    inner = Sequential([Input((8,)), layers.Dropout(0.5)])
    x = Input((8,))
    model = compiled(Model(x, layers.Dense(1)(inner(x, training=False))))
    assert not any(node.op.name == "dropout" for node in model.programs["train"].graph.nodes)


def test_a_model_cut_open_at_a_layer():
    base = Sequential([Input((4,)), layers.Dense(3, name="hidden"), layers.Dense(2, name="top")])
    head = Model(base.get_layer("hidden").output, base.output)
    body = Model(base.input, base.get_layer("hidden").output)
    x = f32(rng, 5, 4)
    np.testing.assert_array_equal(head.predict(body.predict(x, verbose=0), verbose=0), base.predict(x, verbose=0))
    assert [layer.name for layer in head.layers] == ["input_layer", "top"]
    assert head.layers[1] is base.layers[1]


def test_a_new_head_on_layers_of_another_model():
    base = Sequential([Input((4,)), layers.Dense(3), layers.Dense(2)])
    base.layers[0].trainable = False
    model = Model(base.input, layers.Dense(5)(base.layers[0].output))
    assert [layer.name for layer in model.layers] == ["input_layer", "dense", "dense_1"]
    assert base.layers[1].name == "dense_1"
    assert [w.label for w in model.trainable_weights] == ["dense_1/kernel", "dense_1/bias"]


def test_operators_between_layers_belong_to_the_model():
    x = Input((3,))
    scale = gx.parameter("scale", np.float32(2))
    h = layers.Dense(3)(x) * scale + x
    model = Model(x, gx.tanh(h))
    data = f32(rng, 4, 3)
    kernel, bias = (w for w in model.get_weights() if w.ndim)
    np.testing.assert_allclose(
        model.predict(data, verbose=0), np.tanh((data @ kernel + bias) * 2 + data), rtol=1e-5, atol=1e-6
    )
    assert model.count_params() == 13
    compiled(model).train_on_batch(data, data)
    assert scale.value != 2


def test_expressions_fit_models_called_with_other_names_of_sizes():
    x = Input((None, 3))
    inner = Model(x, gx.reshape(x * 2, (x.shape[0], x.shape[1] * 3)))
    y = Input(("steps", 3))
    outer = Model(y, inner(y))
    data = f32(rng, 2, 5, 3)
    np.testing.assert_array_equal(outer.predict(data, verbose=0), (data * 2).reshape(2, 15))


def test_a_chain_without_input_is_built_by_its_first_data():
    model = compiled(Sequential([layers.Dense(3), layers.Dense(1)]))
    assert not model.built
    with pytest.raises(gx.GraphError, match="does not know the shapes"):
        model.count_params()
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert model.count_params() == 9 + 4
    by_hand = Sequential([layers.Dense(3), layers.Dense(1)])
    by_hand.build((None, 2))
    assert by_hand.count_params() == 13


def test_parts_without_input_are_built_where_they_are_called():
    class Half(Model):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(2)

        def call(self, inputs):
            return self.inner(inputs) / 2

    x = Input((3,))
    chain = Sequential([layers.Dense(4), Sequential([layers.Dense(5), layers.Dropout(0.5)])])
    model = Model(x, Half()(chain(x)))
    assert [w.label for w in model.weights] == [
        "sequential/dense/kernel", "sequential/dense/bias",
        "sequential/sequential/dense/kernel", "sequential/sequential/dense/bias",
        "half/dense/kernel", "half/dense/bias",
    ]  # fmt: skip
    data = f32(rng, 4, 3)
    k0, _, k1, _, k2, _ = model.get_weights()
    np.testing.assert_allclose(model.predict(data, verbose=0), data @ k0 @ k1 @ k2 / 2, rtol=1e-4, atol=1e-6)


def test_weights_of_one_name_in_a_layer_are_told_apart():
    class Two(layers.Layer):
        def build(self, input_shape):
            self.a, self.b = self.add_weight((1,), name="w"), self.add_weight((2,), name="w")

        def call(self, x):
            return x * self.a + gx.sum(self.b)

    model = Sequential([Input((3,)), Two()])
    assert [w.label for w in model.weights] == ["two/w", "two/w_1"]


def test_adding_and_taking_off_layers():
    model = Sequential()
    model.add(Input((3,)))
    model.add(layers.Dense(4))
    first = model.get_weights()[0]
    model.add(layers.Dense(2))
    np.testing.assert_array_equal(model.get_weights()[0], first)
    x = f32(rng, 2, 3)
    assert model.predict(x, verbose=0).shape == (2, 2)
    assert model.pop().name == "dense_1"
    assert model.predict(x, verbose=0).shape == (2, 4)
    with pytest.raises(gx.GraphError, match="Input comes first"):
        model.add(Input((3,)))


def test_a_model_by_subclassing():
    class Residual(Model):
        def __init__(self, units):
            super().__init__()
            self.inner = layers.Dense(units, activation="relu")
            self.outer = layers.Dense(3)

        def call(self, inputs):
            return self.outer(self.inner(inputs)) + inputs

    model = compiled(Residual(8))
    x = f32(rng, 16, 3)
    history = model.fit(x, x * 2, epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert [w.label for w in model.weights] == ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]
    k0, c0, k1, c1 = model.get_weights()
    np.testing.assert_allclose(
        model.predict(x, verbose=0), np.maximum(x @ k0 + c0, 0) @ k1 + c1 + x, rtol=1e-4, atol=1e-5
    )


def test_one_compile_serves_every_batch_size():
    model = compiled(Sequential([Input((3,)), layers.Dense(2)]))
    program = model.programs["train"]
    for n in (1, 7, 32):
        model.train_on_batch(f32(rng, n, 3), f32(rng, n, 2))
    assert model.programs["train"] is program


def test_freezing_a_layer_makes_another_training_program_and_no_other():
    model = compiled(Sequential([Input((3,)), layers.Dense(2), layers.Dense(2)]))
    predict, train = model.programs["predict"], model.programs["train"]
    model.layers[0].trainable = False
    assert model.programs["predict"] is predict
    assert model.programs["train"] is not train
    before = model.get_weights()
    model.train_on_batch(f32(rng, 4, 3), f32(rng, 4, 2))
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[2], after[2])


def test_nodes_carry_the_lines_on_which_their_layers_stand():
    model = Sequential([
        Input((3,)),
        layers.Dense(4),
        layers.Dense(2),
    ])  # fmt: skip
    lines = [node.loc.text for node in compiled(model).programs["predict"].graph.nodes if node.op.name == "matmul"]
    assert lines == ["layers.Dense(4),", "layers.Dense(2),"]


def test_layers_are_listed_in_keras_order():
    x = Input((4,), name="x")
    short = layers.Dense(2, name="short")(x)
    long = layers.Dense(2, name="long_1")(x)
    long = layers.Dense(2, name="long_2")(long)
    model = Model(x, layers.Add(name="sum")([short, long]))
    assert [layer.name for layer in model.layers] == ["x", "long_1", "short", "long_2", "sum"]


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: Model(Input((3,)), None), gx.GraphError, "inputs and outputs"),
        (lambda: Model(gx.placeholder("p", (3,)), Input((3,))), gx.GraphError, "is not an input"),
        (lambda: Model(Input((3,)), gx.placeholder("p", (3,))), gx.GraphError, "does not depend on any Input"),
        (lambda: Model(Input((3,)), layers.Dense(2)(Input((3,), name="other"))), gx.GraphError, "'other'.*not listed"),
        (lambda: Input(3), gx.AxisError, r"shape of Input is 3.*write shape=\[3\]"),
        (lambda: Input((-1,)), gx.ShapeError, "negative"),
        (lambda: Input((3,), name="not a name"), gx.NameClashError, "identifier"),
        (lambda: Input((3,), dtype="complex64"), gx.DTypeError, "complex64"),
        (lambda: Sequential([layers.Dense(2, name="a"), layers.Dense(2, name="a")]), gx.NameClashError, "'a'"),
        (lambda: Sequential([lambda x: x]), gx.GraphError, "Lambda"),
        (lambda: Sequential([Input((3,))]).get_layer("d"), gx.NameClashError, "no layer 'd'"),
        (lambda: layers.Dense(0), gx.AxisError, "positive"),
        (lambda: layers.Dense(2, activation="rleu"), gx.GraphError, "no activation is called 'rleu'.*\n.*relu"),
        (lambda: layers.Dense(2, kernel_initializer="he"), gx.GraphError, "no initializer"),
        (lambda: layers.Dense(2, kernel_regularizer="l3"), gx.GraphError, "no regularizer"),
        (lambda: layers.Dense(2)(np.ones((2, 3), np.float32)), gx.DTypeError, "predict"),
        (lambda: layers.Dense(2)(Input(())), gx.ShapeError, "at least two axes"),
        (lambda: layers.Dense(2)(Input((None,))), gx.ShapeError, "sizes known in advance"),
        (lambda: layers.Dropout(1.1), gx.AxisError, "from 0 to 1"),
        (lambda: layers.Permute((1, 3)), gx.AxisError, "dims"),
        (lambda: layers.Reshape((4, -1))(Input((6,))), gx.ShapeError, "divide"),
        (lambda: layers.Add()([Input((3,))]), gx.AxisError, "at least two"),
        (lambda: layers.Add()([Input((3,)), Input((4,))]), gx.ShapeError, "broadcast"),
        (lambda: layers.Concatenate()([Input((3,)), Input((3, 3))]), gx.ShapeError, "equal rank"),
        (lambda: layers.Lambda(lambda x: 3)(Input((3,))), gx.DTypeError, "returned int"),
        (lambda: layers.Dense(2, dtype="int128"), gx.DTypeError, "int128"),
        (lambda: layers.Dense(2, name="a/b"), gx.NameClashError, "'a/b'"),
    ],
)
def test_what_is_wrong_is_said_with_the_line_and_what_to_do(build, error, words):
    with pytest.raises(error, match="(?s)" + words) as caught:
        build()
    text = str(caught.value)
    assert "test_models.py:" in text, text
    assert "to do: " in text, text


def test_a_layer_in_a_chain_that_does_not_fit_is_named_by_its_line():
    dense = layers.Dense(2)
    with pytest.raises(gx.ShapeError) as caught:
        Sequential([
            Input((4,)),
            dense,
            layers.Dense(3),
            dense,
        ])  # fmt: skip
    text = str(caught.value)
    assert "'dense' was built for 4 features, its input has 3" in text
    assert "dense = layers.Dense(2)" in text
