"""Training in mixed precision: close to float32, with float32 state, and with a scale that adapts itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, layers
from graphc.errors import AxisError, GraphError
from graphc.optimizers import SGD, Adam, LossScaleOptimizer

CLASSES = 3


def digits(count: int, *shape: int):
    """Classes that differ in where the input is large."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, count)
    x = rng.standard_normal((count, *shape)).astype(np.float32) * 0.5
    for i, label in enumerate(y):
        x[i, label::CLASSES] += 1.0
    return x, y


def mlp() -> Model:
    parts = [Input((6, 6)), layers.Flatten(), layers.Dense(16, activation="gelu"), layers.BatchNormalization()]
    return Sequential([*parts, layers.Dropout(0.1), layers.Dense(CLASSES)])


def cnn() -> Model:
    first = layers.Conv2D(4, 3, activation="relu", padding="same")
    second = layers.Conv2D(4, 3, strides=2, activation="relu")
    parts = [Input((6, 6)), layers.Reshape((6, 6, 1)), first, layers.MaxPooling2D(2, strides=1), second]
    return Sequential([*parts, layers.Flatten(), layers.Dense(CLASSES)])


def lstm() -> Model:
    return Sequential([Input((6, 6)), layers.LSTM(8), layers.Dense(CLASSES)])


def transformer() -> Model:
    x = Input((6, 6))
    h = layers.Dense(8)(x)
    h = layers.LayerNormalization()(layers.Add()([h, layers.MultiHeadAttention(2, 4)(h, h)]))
    h = layers.LayerNormalization()(layers.Add()([h, layers.Dense(8)(layers.Dense(16, activation="relu")(h))]))
    return Model(x, layers.Dense(CLASSES)(layers.GlobalAveragePooling1D()(h)))


MODELS = {"mlp": mlp, "cnn": cnn, "lstm": lstm, "transformer": transformer}


def compiled(make, precision, optimizer=None, **kwargs) -> Model:
    gx.set_seed(0)
    model = make()
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or Adam(1e-2), loss, metrics=["accuracy"], precision=precision, **kwargs)
    return model


def losses(model: Model, epochs: int = 8) -> list[float]:
    x, y = digits(48, 6, 6)
    return model.fit(x, y, batch_size=16, epochs=epochs, verbose=0).history["loss"]


@pytest.mark.parametrize("name", MODELS)
def test_training_follows_float32(name):
    """24 steps: the losses of all epochs, and what is learned."""
    exact = losses(compiled(MODELS[name], None, backend="reference"))
    assert exact[-1] < 0.9 * exact[0]
    for precision, distance in (("mixed_bfloat16", 0.05), ("mixed_float16", 0.01), ("tf32", 1e-6)):
        model = compiled(MODELS[name], precision, backend="reference")
        np.testing.assert_allclose(losses(model), exact, rtol=0, atol=distance)
        if precision != "tf32":
            assert {str(weight.dtype) for weight in model.weights} == {"float32"}
            state = model.optimizer.variables(model.named_weights())
            assert not any(parameter.dtype.is_half for parameter in state.values())
            assert any(map(is_half, model.programs["train"].simplified.nodes))
            assert model.programs["predict"].precision.name == precision


def is_half(node) -> bool:
    return getattr(node.type, "dtype", None) in (gx.placeholder("h", (), t).dtype for t in ("float16", "bfloat16"))


def test_equal_runs_are_equal_to_the_last_bit_and_close_on_another_backend():
    runs = []
    for backend in ("numba", "numba", "reference"):
        model = compiled(mlp, "mixed_float16", backend=backend)
        runs.append((losses(model, 2), model.get_weights()))
    for one, other in zip(runs[0][1], runs[1][1], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(runs[0][0], runs[2][0], rtol=1e-3)


# the scale


def tiny(precision="mixed_float16", optimizer=None, **kwargs) -> Model:
    gx.set_seed(0)
    model = Sequential([Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(1)])
    model.compile(optimizer or Adam(1e-2), "mse", precision=precision, backend="reference", **kwargs)
    return model


def state_of(model: Model) -> dict[str, np.ndarray]:
    found = dict(model.named_weights()) | model.optimizer.variables(model.named_weights())
    return {name: parameter.value for name, parameter in found.items()}


X = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
Y = X[:, :1] * 0.5


def test_float16_gets_a_scale_unless_there_is_one():
    assert isinstance(tiny().optimizer, LossScaleOptimizer)
    assert tiny().optimizer.inner_optimizer.learning_rate == 1e-2
    given = LossScaleOptimizer(SGD(0.1), initial_scale=8.0)
    assert tiny(optimizer=given).optimizer is given
    fixed = SGD(0.1, loss_scale_factor=4.0)
    assert tiny(optimizer=fixed).optimizer is fixed
    assert type(tiny("mixed_bfloat16").optimizer) is Adam


def test_a_step_that_overflows_changes_nothing_but_the_scale():
    model = tiny(optimizer=LossScaleOptimizer(Adam(1e-2), initial_scale=1024.0))
    model.train_on_batch(X, Y)
    before = state_of(model)
    loss = model.train_on_batch(X * 1e4, Y * 3e4)  # its gradients are beyond what float16 holds
    assert math.isfinite(loss)
    after = state_of(model)
    changed = {name for name, value in before.items() if not np.array_equal(value, after[name])}
    assert changed == {"dynamic_scale", "step_counter"}
    assert (float(after["dynamic_scale"]), int(after["step_counter"])) == (512.0, 0)
    model.train_on_batch(X, Y)
    assert int(state_of(model)["iterations"]) == int(before["iterations"]) + 1


def test_the_scale_grows_after_good_steps_and_stays_in_its_bounds():
    optimizer = LossScaleOptimizer(SGD(1e-3), initial_scale=4.0, dynamic_growth_steps=3)
    model = tiny(optimizer=optimizer)
    seen = []
    for _ in range(7):
        model.train_on_batch(X, Y)
        seen.append((float(optimizer.dynamic_scale.value), int(optimizer.step_counter.value)))
    assert seen == [(4, 1), (4, 2), (8, 0), (8, 1), (8, 2), (16, 0), (16, 1)]
    for _ in range(6):
        model.train_on_batch(X * np.float32(np.nan), Y)
    assert float(optimizer.dynamic_scale.value) == 1.0
    optimizer.dynamic_scale.value = np.float32(2.0**126)
    optimizer.step_counter.value = np.int64(2)
    parameter = gx.parameter("p", np.zeros(3, np.float32))
    new = optimizer.updates([parameter], [gx.zeros((3,))])
    scale = gx.compile({"scale": new[optimizer.dynamic_scale]}, [], backend="reference")()["scale"]
    assert float(scale) == 2.0**126


def test_scaling_is_exact_where_nothing_is_rounded():
    """In float32 the scale, a power of two, leaves no trace: clipping and accumulation come after it."""
    weights = []
    for scaled in (False, True):
        inner = Adam(1e-2, global_clipnorm=0.1, gradient_accumulation_steps=2)
        model = tiny("float32", LossScaleOptimizer(inner) if scaled else inner)
        for _ in range(5):
            model.train_on_batch(X, Y)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_skipped_batch_is_not_accumulated():
    optimizer = LossScaleOptimizer(SGD(0.1, gradient_accumulation_steps=2), initial_scale=64.0)
    model = tiny(optimizer=optimizer)
    first = model.get_weights()
    model.train_on_batch(X, Y)
    model.train_on_batch(X * np.float32(np.inf), Y)
    moved = [not np.array_equal(a, b) for a, b in zip(first, model.get_weights(), strict=True)]
    assert sum(moved) == 2  # the statistics of normalization, by the first batch
    model.train_on_batch(X, Y)
    assert not np.array_equal(first[0], model.get_weights()[0])


def test_callbacks_and_checks_see_the_inner_rate_and_whole_gradients():
    model = tiny(check_finite=True)
    seen = []

    class Watch(gx.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((logs["loss"], self.model.optimizer.learning_rate))

    schedule = gx.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
    model.fit(X, Y, epochs=2, batch_size=4, verbose=0, callbacks=[schedule, Watch()])
    assert [rate for _, rate in seen] == [5e-3, 2.5e-3]
    assert all(math.isfinite(loss) for loss, _ in seen)


def test_it_comes_back_from_a_file_and_goes_on_bit_for_bit(tmp_path):
    model = tiny(optimizer=LossScaleOptimizer(Adam(1e-2), initial_scale=256.0, dynamic_growth_steps=2))
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
    model.save(tmp_path / "model")
    again = gx.load_model(tmp_path / "model")
    assert again.compiled.precision == "mixed_float16"
    assert type(again.optimizer) is LossScaleOptimizer
    assert float(again.optimizer.dynamic_scale.value) == 1024.0
    for one in (model, again):
        one.fit(X, Y, batch_size=4, epochs=3, verbose=0)
    for name, value in state_of(model).items():
        np.testing.assert_array_equal(value, state_of(again)[name])


def test_moving_averages_are_those_of_the_inner_optimizer():
    model = tiny(optimizer=LossScaleOptimizer(SGD(0.1, use_ema=True, ema_momentum=0.5)))
    for _ in range(3):
        model.train_on_batch(X, Y)
    weights = model.get_weights()
    with model.optimizer.averaged():
        assert not np.array_equal(weights[0], model.get_weights()[0])
    np.testing.assert_array_equal(weights[0], model.get_weights()[0])
    model.optimizer.exclude_from_weight_decay  # noqa: B018 (it is there)
    model.optimizer.finalize_variable_values(model.trainable_weights)
    assert not np.array_equal(weights[0], model.get_weights()[0])


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: LossScaleOptimizer(LossScaleOptimizer(SGD())), GraphError, "scales the loss itself"),
        (lambda: LossScaleOptimizer(SGD(loss_scale_factor=2.0)), GraphError, "scales the loss itself"),
        (lambda: LossScaleOptimizer(SGD(), initial_scale=0.5), AxisError, "common is 2.0"),
        (lambda: LossScaleOptimizer(SGD(), dynamic_growth_steps=0), AxisError, "common is 2000"),
        (lambda: tiny("half"), AxisError, "mixed_float16"),
    ],
)
def test_mistakes_are_said(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_tables_of_which_few_rows_change_are_trained_in_bfloat16():
    def model(precision):
        made = Sequential([Input((3,), dtype="int64"), layers.Embedding(9, 4, sparse=True), layers.Flatten()])
        made.add(layers.Dense(1))
        made.compile(SGD(0.1), "mse", precision=precision, backend="reference")
        return made.train_on_batch(np.arange(6).reshape(2, 3), np.ones((2, 1), np.float32))

    assert math.isfinite(model("mixed_bfloat16"))
    with pytest.raises(GraphError, match="keeps every row"):
        model("mixed_float16")


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_a_mixed_program_is_exported_as_such(name, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = compiled(MODELS[name], "mixed_bfloat16", backend="reference")
    model.export(tmp_path / "model.onnx")
    written = onnx.load(tmp_path / "model.onnx").graph
    halves = [node for node in written.node if node.op_type == "Cast" and node.attribute[0].i == 16]
    assert len(halves) >= 2 * sum(node.op_type == "MatMul" for node in written.node) - 2
    assert gx.onnx.verify(tmp_path / "model.onnx", model.programs["predict"]).ok
