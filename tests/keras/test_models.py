"""Whole models, functional and sequential, against Keras: outputs, training, evaluation, and what summaries count."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
import pytest

import graphc as gx
from tests.keras.oracle import BATCH, ROWS, STEPS, distance, flat, parameter_counts, pour, same_logs

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def sequential(m: Any) -> Any:
    layers = m.layers
    return m.Sequential(
        [
            m.Input((6,)),
            layers.Dense(8, activation="relu", kernel_regularizer="l2"),
            layers.Reshape((2, 4)),
            layers.PReLU(shared_axes=[1]),
            layers.Permute((2, 1)),
            layers.Dense(3, use_bias=False, kernel_constraint="max_norm"),
            layers.Flatten(),
            layers.Dropout(0.0),
            layers.Dense(2),
        ]
    )


def added_one_by_one(m: Any) -> Any:
    model = m.Sequential()
    model.add(m.Input((3, 5)))
    model.add(m.layers.Dense(4, activation="tanh"))
    model.add(m.layers.Activation("gelu"))
    model.add(m.layers.Dense(2))
    model.pop()
    model.add(m.layers.Dense(1))
    return model


def sequential_within_sequential(m: Any) -> Any:
    layers = m.layers
    inner = m.Sequential([m.Input((4,)), layers.Dense(5, activation="tanh"), layers.Dense(3)], name="inner")
    innermost = m.Sequential([layers.Dense(4, activation="elu"), inner], name="outer")
    return m.Sequential([m.Input((6,)), innermost, layers.Dense(2)])


def several_inputs_and_outputs(m: Any) -> Any:
    """Also created in another order than they are used."""
    layers = m.layers
    last = layers.Dense(2, name="last")
    a, b = m.Input((4,), name="a"), m.Input((3, 5), name="b")
    flat_b = layers.Flatten()(layers.Dense(2, activation="tanh")(b))
    both = layers.Concatenate()([flat_b, layers.Dense(3, activation="tanh")(a)])
    hidden = layers.Dense(4, activation="sigmoid", name="hidden")(both)
    return m.Model([a, b], [last(both), layers.Dense(1, name="middle")(hidden), hidden])


def dicts(m: Any) -> Any:
    layers = m.layers
    a, b = m.Input((4,), name="a"), m.Input((4,), name="b")
    hidden = layers.Dense(4, activation="tanh")(layers.Add()([a, b]))
    return m.Model({"a": a, "b": b}, {"p": layers.Dense(2, name="p")(hidden), "q": layers.Dense(3, name="q")(a)})


def shared_layer(m: Any) -> Any:
    """One layer at three places, twice in a row."""
    layers = m.layers
    shared, slopes = layers.Dense(5, activation="tanh"), layers.PReLU()
    a, b = m.Input((5,), name="a"), m.Input((5,), name="b")
    one, two = shared(a), slopes(shared(shared(b)))
    joined = layers.Multiply()([slopes(one), two])
    return m.Model([a, b], layers.Dense(2)(layers.Concatenate()([joined, layers.Subtract()([one, two])])))


def shared_model(m: Any) -> Any:
    """Twins: a model called on two inputs, which holds a layer that the outer model calls, too.

    Without penalties on outputs: Keras's programs on JAX keep those of a layer's last call alone, graphc those of all.
    """
    layers = m.layers
    x = m.Input((4,))
    common = layers.Dense(4, activation="tanh", name="common")
    twin = m.Model(x, layers.Dense(3, name="end")(common(x)), name="twin")
    a, b = m.Input((4,), name="a"), m.Input((4,), name="b")
    apart = layers.Subtract()([twin(a), twin(b)])
    return m.Model([a, b], [layers.Dense(1, name="apart")(apart), layers.Dense(2, name="of_a")(common(a))])


def nested_three_deep(m: Any) -> Any:
    """Models with several inputs and outputs within models."""
    layers = m.layers
    u, v = m.Input((3,)), m.Input((5,))
    deepest = m.Model([u, v], [layers.Dense(4, "tanh")(v), layers.Concatenate()([u, v])], name="deepest")
    w = m.Input((5,))
    four, eight = deepest([layers.Dense(3, "tanh")(w), w])
    middle = m.Model(w, [layers.Dense(2)(eight), layers.Add()([four, layers.Dense(4)(w)])], name="middle")
    x = m.Input((5,))
    two, four = middle(layers.Dense(5, "tanh")(x))
    return m.Model(x, [layers.Dense(1, name="first")(two), layers.Dense(2, name="second")(four)])


def residual(m: Any) -> Any:
    layers = m.layers
    x = inputs = m.Input((6, 4))
    for width in (8, 3):
        inner = layers.Dense(width, activation="gelu")(x)
        x = layers.Add()([x, layers.Dense(4)(inner)])
    return m.Model(inputs, layers.Average()([x, inputs]))


def frozen(m: Any) -> Any:
    """One layer is not trained, nor are those of a model within; one of them is again."""
    layers = m.layers
    x = m.Input((4,))
    inner = m.Model(x, layers.Dense(3, name="thawed")(layers.Dense(5, "tanh", name="cold")(x)), name="inner")
    inner.trainable = False
    inner.get_layer("thawed").trainable = True
    inputs = m.Input((4,))
    hidden = layers.Dense(4, "tanh", trainable=False)(inputs)
    return m.Model(inputs, layers.Dense(2)(inner(hidden)))


def part_of_a_model(m: Any) -> Any:
    """The graph between a hidden output of one model and its input; what is behind it does not belong."""
    layers = m.layers
    x = m.Input((4,))
    hidden = layers.Dense(3, activation="tanh", name="hidden")(x)
    whole = m.Model(x, layers.Dense(7)(hidden))
    return m.Model(whole.input, layers.Dense(2)(whole.get_layer("hidden").output))


def arithmetic(m: Any) -> Any:
    """Operators between symbols."""
    layers = m.layers
    x = m.Input((4,))
    a, b = layers.Dense(3, "tanh")(x), layers.Dense(3, "tanh")(x)
    return m.Model(x, layers.Dense(2)((a * 2.0 + b) / (a - 3.0) - 1.0 + b**2))


MODELS = {
    build.__name__: build
    for build in (
        sequential, added_one_by_one, sequential_within_sequential, several_inputs_and_outputs, dicts, shared_layer,
        shared_model, nested_three_deep, residual, frozen, part_of_a_model, arithmetic,
    )
}  # fmt: skip
WEIGHTS: dict[str, Any] = {
    "several_inputs_and_outputs": [0.5, 2.0, 0.1],
    "dicts": {"p": 0.3, "q": 1.5},
    "nested_three_deep": {"first": 1.0, "second": 0.25},
}
"""Of losses."""
LOSSES = ("mse", "mae", "huber")


def both(name):
    keras.utils.clear_session()
    theirs, ours = MODELS[name](keras), MODELS[name](gx)
    pour(theirs, ours, seed=4)
    return theirs, ours


def compile_model(module, model, name):
    adam = list(MODELS).index(name) % 2
    optimizer = module.optimizers.Adam(0.01) if adam else module.optimizers.SGD(0.05, momentum=0.9)
    count = len(model.outputs)
    losses: Any = list(LOSSES[:count]) if count > 1 else "mse"
    metrics: Any = [["mae"], ["mse"], []][:count] if count > 1 else ["mae"]
    if name == "dicts":
        losses, metrics = (dict(zip(("p", "q"), values, strict=True)) for values in (losses, metrics))
    model.compile(optimizer, losses, loss_weights=WEIGHTS.get(name), metrics=metrics)


def data(model, name):
    """Values for a model's inputs, the same for both libraries."""
    rng = np.random.default_rng(2)
    shapes = [tuple(x.shape[1:]) for x in model.inputs]
    values = [rng.standard_normal((ROWS, *shape)).astype(np.float32) for shape in shapes]
    if name == "dicts":
        return dict(zip(("a", "b"), values, strict=True))
    return values if len(values) > 1 else values[0]


def targets(outputs):
    """Something to learn, of the structure of the outputs."""
    return keras.tree.map_structure(lambda y: np.cos(np.arange(y.size)).reshape(y.shape).astype(np.float32), outputs)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_training_evaluation_and_counts(name, record_property):
    theirs, ours = both(name)
    x = data(theirs, name)
    wanted, found = (model.predict(x, verbose=0) for model in (theirs, ours))
    if isinstance(wanted, dict):
        assert list(wanted) == list(found)
    assert max(distance(b, a) for a, b in zip(flat(wanted), flat(found), strict=True)) < 2e-6
    y = targets(wanted)
    for module, model in ((keras, theirs), (gx, ours)):
        compile_model(module, model, name)
    before = ours.get_weights()
    logs = [
        model.fit(x, y, epochs=STEPS // 2, batch_size=BATCH, shuffle=False, verbose=0, validation_data=(x, y)).history
        for model in (theirs, ours)
    ]
    same_logs(logs[1], logs[0])
    off = [distance(b, a, first) for a, b, first in zip(theirs.get_weights(), ours.get_weights(), before, strict=True)]
    record_property("weights", max(off))
    assert max(off) < 1e-5
    wanted, found = (model.evaluate(x, y, batch_size=5, verbose=0, return_dict=True) for model in (theirs, ours))
    same_logs(found, wanted)
    in_order = [model.evaluate(x, y, batch_size=5, verbose=0) for model in (theirs, ours)]
    np.testing.assert_allclose(in_order[1], in_order[0], rtol=1e-5)
    assert ours.count_params() == theirs.count_params()
    assert parameter_counts(ours) == parameter_counts(theirs)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "arithmetic"])
def test_layers_and_their_weights(name):
    """The same layers in the same order, with the same weights (each operator is a layer here, as it is there)."""
    theirs, ours = both(name)
    assert [type(layer).__name__ for layer in ours.layers] == [
        type(layer).__name__.replace("Functional", "Model") for layer in theirs.layers
    ]
    assert [layer.count_params() for layer in ours.layers] == [layer.count_params() for layer in theirs.layers]
    for a, b in zip(theirs.layers, ours.layers, strict=True):
        assert [tuple(w.shape) for w in a.get_weights()] == [w.shape for w in b.get_weights()]
    assert [tuple(w.shape) for w in theirs.trainable_weights] == [w.shape for w in ours.trainable_weights]
    assert [tuple(w.shape) for w in theirs.non_trainable_weights] == [w.shape for w in ours.non_trainable_weights]


def test_one_batch_at_a_time():
    theirs, ours = both("several_inputs_and_outputs")
    x = data(theirs, "several_inputs_and_outputs")
    y = targets(theirs.predict(x, verbose=0))
    for module, model in ((keras, theirs), (gx, ours)):
        compile_model(module, model, "several_inputs_and_outputs")
    for _ in range(3):
        a, b = (model.train_on_batch(x, y, return_dict=True) for model in (theirs, ours))
        same_logs(b, a)
    a, b = (model.test_on_batch(x, y, return_dict=True) for model in (theirs, ours))
    same_logs(b, a)
    for a, b in zip(flat(theirs.predict_on_batch(x)), flat(ours.predict_on_batch(x)), strict=True):
        assert distance(b, a) < 1e-5


METHODS: dict[str, dict[str, str]] = {
    "compile": {
        "run_eagerly": "backend='reference' runs node by node",
        "steps_per_execution": "each step is one call of a compiled program",
        "jit_compile": "programs are compiled",
        "auto_scale_loss": "there is no policy of mixed precision that would need it",
    },
    "fit": {},
    "evaluate": {},
    "predict": {},
    "train_on_batch": {},
    "test_on_batch": {},
    "predict_on_batch": {},
    "summary": {"positions": "columns keep their shares of line_length"},
    "get_layer": {},
    "get_weights": {},
    "set_weights": {},
    "count_params": {},
}
"""Methods of models, and why arguments of Keras are missing."""


@pytest.mark.parametrize("name", METHODS)
def test_methods_take_the_same_arguments(name):
    theirs, ours = (
        {
            key: value.default
            for key, value in inspect.signature(getattr(module.Model, name)).parameters.items()
            if value.kind is value.POSITIONAL_OR_KEYWORD or value.kind is value.KEYWORD_ONLY
        }
        for module in (keras, gx)
    )
    for key, default in theirs.items():
        assert (ours.get(key, inspect.Parameter) == default) != (key in METHODS[name]), key
    assert METHODS[name].keys() <= theirs.keys()
    shared = [key for key in theirs if key in ours]
    assert [key for key in ours if key in theirs] == shared
