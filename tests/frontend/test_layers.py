"""Every layer against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import layers
from tests.frontend.running import evaluate, f32, placeholder_for, run_layer

rng = np.random.default_rng(0)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softmax": softmax,
    "log_softmax": lambda x: np.log(softmax(x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "exponential": np.exp,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dense_with_each_activation(name):
    x = f32(rng, 5, 3)
    layer = layers.Dense(4, activation=name)
    got = run_layer(layer, x)
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(got, ACTIVATIONS[name](x @ kernel + bias), rtol=1e-5, atol=1e-6)


def test_gelu_is_exact():
    from math import erf

    x = f32(rng, 7, 2)
    expected = [[0.5 * v * (1 + erf(v / 2**0.5)) for v in row] for row in x.astype(float)]
    np.testing.assert_allclose(run_layer(layers.Activation("gelu"), x), expected, rtol=1e-5, atol=1e-6)


def test_dense_without_bias_and_with_more_axes():
    x = f32(rng, 2, 3, 4)
    layer = layers.Dense(5, use_bias=False)
    got = run_layer(layer, x)
    (kernel,) = layer.get_weights()
    assert layer.bias is None
    np.testing.assert_allclose(got, x @ kernel, rtol=1e-5, atol=1e-6)


def test_dense_takes_whole_numbers():
    x = np.arange(6, dtype=np.int64).reshape(2, 3)
    layer = layers.Dense(2)
    got = run_layer(layer, x)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, x @ layer.get_weights()[0], rtol=1e-5, atol=1e-6)


def test_a_layer_takes_the_precision_of_its_first_input_or_its_own():
    x64 = rng.standard_normal((2, 3))
    follows, fixed = layers.Dense(2), layers.Dense(2, dtype="float32")
    assert run_layer(follows, x64).dtype == np.float64
    assert follows.get_weights()[0].dtype == np.float64
    assert run_layer(fixed, x64).dtype == np.float32
    assert run_layer(follows, f32(rng, 2, 3)).dtype == np.float64


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.ReLU(), lambda x: np.maximum(x, 0)),
        (layers.ReLU(max_value=0.5), lambda x: np.clip(x, 0, 0.5)),
        (layers.ReLU(negative_slope=0.1), lambda x: np.where(x >= 0, x, 0.1 * x)),
        (layers.ReLU(threshold=0.3), lambda x: np.where(x >= 0.3, x, 0)),
        (
            layers.ReLU(max_value=1.0, negative_slope=0.2, threshold=0.3),
            lambda x: np.minimum(np.where(x >= 0.3, x, 0.2 * (x - 0.3)), 1),
        ),
        (layers.Softmax(), softmax),
        (layers.Softmax(axis=1), lambda x: softmax(x, 1)),
        (layers.Tanh(), np.tanh),
        (layers.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        (layers.Activation(gx.tanh), np.tanh),
        (layers.Identity(), lambda x: x),
        (layers.Lambda(lambda x, k: x * k, {"k": 3.0}), lambda x: x * 3),
        (layers.Flatten(), lambda x: x.reshape(4, 6)),
        (layers.Flatten("channels_first"), lambda x: x.transpose(0, 2, 1).reshape(4, 6)),
        (layers.Reshape((6,)), lambda x: x.reshape(4, 6)),
        (layers.Reshape((3, -1, 2)), lambda x: x.reshape(4, 3, 1, 2)),
        (layers.Permute((2, 1)), lambda x: x.transpose(0, 2, 1)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else "",
)
def test_layers_of_one_input(layer, expected):
    x = f32(rng, 4, 2, 3)
    got = run_layer(layer, x)
    want = expected(x)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_flatten_of_single_numbers_adds_an_axis():
    x = f32(rng, 4)
    assert run_layer(layers.Flatten(), x).shape == (4, 1)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Add(), lambda a, b, c: a + b + c),
        (layers.Multiply(), lambda a, b, c: a * b * c),
        (layers.Average(), lambda a, b, c: (a + b + c) / 3),
        (layers.Maximum(), lambda a, b, c: np.maximum(np.maximum(a, b), c)),
        (layers.Minimum(), lambda a, b, c: np.minimum(np.minimum(a, b), c)),
        (layers.Concatenate(), lambda a, b, c: np.concatenate([a, b, c], -1)),
        (layers.Concatenate(axis=1), lambda a, b, c: np.concatenate([a, b, c], 1)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else "",
)
def test_layers_of_three_inputs(layer, expected):
    arrays = [f32(rng, 4, 2, 3) for _ in range(3)]
    np.testing.assert_allclose(run_layer(layer, *arrays), expected(*arrays), rtol=1e-6, atol=1e-6)


def test_subtract_takes_two():
    a, b = f32(rng, 4, 3), f32(rng, 4, 3)
    np.testing.assert_array_equal(run_layer(layers.Subtract(), a, b), a - b)


def test_merging_repeats_sizes_of_one_and_widens_ranks():
    a, b = f32(rng, 4, 2, 3), f32(rng, 4, 3)
    np.testing.assert_allclose(run_layer(layers.Add(), a, b), a + b[:, None, :], rtol=1e-6)


def test_dropout_keeps_the_mean_in_training_and_everything_in_inference():
    x = np.ones((400, 50), np.float32)
    layer = layers.Dropout(0.25)
    np.testing.assert_array_equal(run_layer(layer, x), x)
    kept = run_layer(layer, x, training=True)
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((kept == 0).mean() - 0.25) < 0.02


def test_dropout_draws_another_mask_at_each_step_and_place_but_the_same_again_from_the_same_state():
    x = np.ones((8, 64), np.float32)
    node = placeholder_for("x", x)
    gx.set_seed(3)
    layer = layers.Dropout(0.5)
    first, second = layer(node), layer(node)
    assert first is not second
    program = gx.compile(
        {"a": first, "b": second}, inputs=[node], updates=layer.updates, backend="reference", training=True
    )
    one, two = program(x=x), program(x=x)
    assert not np.array_equal(one["a"], one["b"])
    assert not np.array_equal(one["a"], two["a"])
    for state in layer.updates:
        state.value = np.uint32(0)
    again = program(x=x)
    np.testing.assert_array_equal(again["a"], one["a"])
    np.testing.assert_array_equal(again["b"], one["b"])


def test_dropout_with_a_seed_does_not_depend_on_set_seed():
    x = np.ones((8, 64), np.float32)

    def mask(outer, seed):
        gx.set_seed(outer)
        return run_layer(layers.Dropout(0.5, seed=seed), x, training=True)

    np.testing.assert_array_equal(mask(1, 7), mask(2, 7))
    assert not np.array_equal(mask(1, 7), mask(1, 8))
    assert not np.array_equal(mask(1, None), mask(2, None))


def test_training_argument_decides_the_phase_for_all_layers_within():
    x = np.ones((4, 32), np.float32)
    node = placeholder_for("x", x)

    class Twice(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dropout(0.5)

        def call(self, x):
            return self.inner(x)

    layer = Twice()
    off, on = layer(node, training=False), layer(node, training=True)
    (a,) = evaluate([off], [(node, x)], training=True)
    (b,) = evaluate([on], [(node, x)], training=False)
    np.testing.assert_array_equal(a, x)
    assert (b == 0).any()


def test_a_layer_of_the_user_with_weights_layers_and_state():
    class Block(layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.parts = [layers.Dense(units), layers.Dense(units)]

        def build(self, input_shape):
            assert input_shape == (None, 3)
            self.scale = self.add_weight(name="scale", shape=(3,), initializer="ones")
            self.seen = self.add_weight(name="seen", shape=(), dtype="int64", trainable=False)

        def call(self, x):
            self.add_update(self.seen, lambda seen: seen + gx.size_of(x.shape[0]))
            return self.parts[1](gx.tanh(self.parts[0](x * self.scale)))

    x = f32(rng, 5, 3)
    layer = Block(4, name="block")
    got = run_layer(layer, x, training=True)
    assert list(layer.named_weights()) == [
        "scale", "seen", "dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias",
    ]  # fmt: skip
    assert [w.label for w in layer.weights][2] == "block/dense/kernel"
    scale, seen, k0, b0, k1, b1 = layer.get_weights()
    np.testing.assert_allclose(got, np.tanh(x * scale @ k0 + b0) @ k1 + b1, rtol=1e-5, atol=1e-6)
    assert seen == 5
    assert len(layer.trainable_weights) == 5
    assert [w.label for w in layer.non_trainable_weights] == ["block/seen"]


def test_state_that_is_updated_twice_chains_in_the_order_of_calls():
    class Count(layers.Layer):
        def build(self, input_shape):
            self.n = self.add_weight(name="n", initializer="ones", trainable=False)

        def call(self, x):
            self.add_update(self.n, lambda n: n * 3 + 1)
            return x + 1

    layer = Count()
    node = gx.placeholder("x", ("batch", 1))
    y = layer(layer(node))
    evaluate([y], [(node, np.zeros((1, 1), np.float32))], True, layer.updates)
    assert layer.get_weights()[0] == 13


def test_parameters_that_a_layer_holds_itself_are_its_weights():
    class Shift(layers.Layer):
        def __init__(self):
            super().__init__(name="shift")
            self.by = gx.parameter("anything", np.full(3, 2, np.float32))

        def call(self, x):
            return x + self.by

    layer, x = Shift(), f32(rng, 2, 3)
    np.testing.assert_allclose(run_layer(layer, x), x + 2)
    assert list(layer.named_weights()) == ["by"]
    assert layer.weights[0].label == "shift/by"


def test_weights_are_drawn_anew_for_each_layer_and_alike_for_the_same_seed():
    def kernels():
        gx.set_seed(5)
        x = gx.placeholder("x", ("batch", 3))
        made = [layers.Dense(3), layers.Dense(3)]
        for layer in made:
            layer(x)
        return [layer.get_weights()[0] for layer in made]

    first, second = kernels(), kernels()
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_children_built_by_hand_get_weights_of_their_own():
    class Pair(layers.Layer):
        def build(self, input_shape):
            self.a, self.b = layers.Dense(3), layers.Dense(3)
            self.a.build(input_shape)
            self.b.build(input_shape)
            self.a.built = self.b.built = True

        def call(self, x):
            return self.a(x) + self.b(x)

    layer = Pair(name="pair")
    run_layer(layer, f32(rng, 2, 3))
    assert [w.label for w in layer.weights] == [
        "pair/dense/kernel", "pair/dense/bias", "pair/dense_1/kernel", "pair/dense_1/bias",
    ]  # fmt: skip
    assert not np.array_equal(layer.a.get_weights()[0], layer.b.get_weights()[0])


def test_set_weights_changes_all_or_nothing():
    layer = layers.Dense(2)
    layer(gx.placeholder("x", ("batch", 3)))
    before = layer.get_weights()
    with pytest.raises(gx.ShapeError, match="has 2 weights, 1 were given"):
        layer.set_weights(before[:1])
    with pytest.raises(gx.ShapeError, match=r"'bias' .*\(2,\), the array \(3,\)"):
        layer.set_weights([before[0] * 0, np.zeros(3, np.float32)])
    np.testing.assert_array_equal(layer.get_weights()[0], before[0])


def test_penalties_are_those_of_keras():
    layer = layers.Dense(2, kernel_regularizer="l2", bias_regularizer=gx.regularizers.L1L2(0.1, 0.2))
    layer(gx.placeholder("x", ("batch", 3)))
    layer.set_weights([f32(rng, 3, 2), f32(rng, 2)])
    kernel, bias = layer.get_weights()
    got = evaluate(layer.penalties(), [])
    np.testing.assert_allclose(got[0], 0.01 * (kernel**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(got[1], 0.1 * np.abs(bias).sum() + 0.2 * (bias**2).sum(), rtol=1e-6)
