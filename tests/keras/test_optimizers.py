"""Optimizers, schedules, constraints, regularizers and initializers against Keras 3: signatures, steps, statistics."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

import graphc as gx
from graphc import constraints, initializers, optimizers, regularizers
from graphc.optimizers import schedules
from tests.frontend.running import evaluate

pytestmark = [
    pytest.mark.keras,
    # Keras's variables do not know NumPy 2's copy argument.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

SHAPES = ((4, 3), (5,), (2, 3, 2), ())
NAMES = (
    "SGD", "Adam", "AdamW", "Nadam", "Adamax", "Lamb", "RMSprop", "Adagrad", "Adadelta", "Ftrl", "Adafactor", "Lion", "Muon",
)  # fmt: skip
CASES = [
    *((name, {}) for name in NAMES),
    *((name, {"learning_rate": 0.05}) for name in NAMES),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    ("Adam", {"learning_rate": 0.05, "beta_2": 0.8, "amsgrad": True}),
    ("AdamW", {"learning_rate": 0.05, "amsgrad": True, "weight_decay": 0.3}),
    ("RMSprop", {"learning_rate": 0.05, "momentum": 0.5}),
    ("RMSprop", {"learning_rate": 0.05, "momentum": 0.5, "centered": True}),
    ("Adafactor", {"learning_rate": 0.2, "relative_step": False, "clip_threshold": 0.5}),
    ("Ftrl", {
        "learning_rate": 0.05, "learning_rate_power": -0.4, "l1_regularization_strength": 0.02,
        "l2_regularization_strength": 0.03, "l2_shrinkage_regularization_strength": 0.04, "beta": 0.2,
    }),
    ("Muon", {"learning_rate": 0.05, "exclude_layers": ["p0"], "adam_lr_ratio": 0.5, "adam_weight_decay": 0.1}),
    ("Muon", {"learning_rate": 0.05, "nesterov": False, "rms_rate": None, "ns_steps": 3, "momentum": 0.8}),
    *((name, {"learning_rate": 0.05, "weight_decay": 0.2}) for name in NAMES),
    ("SGD", {"learning_rate": 0.05, "clipvalue": 0.3}),
    ("Adam", {"learning_rate": 0.05, "clipnorm": 0.7}),
    ("SGD", {"learning_rate": 0.05, "clipnorm": 0.7}),
    ("SGD", {"learning_rate": 0.05, "global_clipnorm": 0.7}),
    ("Adam", {"learning_rate": 0.05, "global_clipnorm": 100.0}),
    *((name, {"learning_rate": 0.05, "gradient_accumulation_steps": 3}) for name in NAMES),
    ("Adam", {
        "learning_rate": 0.05, "gradient_accumulation_steps": 2, "clipnorm": 0.5, "weight_decay": 0.1,
    }),
    *((name, {"learning_rate": 0.05, "use_ema": True, "ema_momentum": 0.8}) for name in NAMES),
    ("SGD", {"learning_rate": 0.05, "use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 4}),
    ("Adam", {"learning_rate": 0.05, "use_ema": True, "ema_overwrite_frequency": 1}),
]  # fmt: skip
STEPS = 20


def distance(found, wanted):
    """The largest difference, of elements below 1 in absolute terms, else of their relation."""
    return max(float(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1))) for a, b in zip(found, wanted, strict=True))


def run(name, options, bounds=(None, None), steps=STEPS):
    """Both optimizers on the same gradients; how far weights, and averages of them, come apart at most."""
    rng = np.random.default_rng(7)
    first = [np.asarray(rng.standard_normal(shape), np.float32) for shape in SHAPES]
    theirs = [keras.Variable(value, name=f"p{i}") for i, value in enumerate(first)]
    for variable in theirs if bounds[1] else ():
        variable.constraint = bounds[1]
    judge = getattr(keras.optimizers, name)(**options)
    ours = [gx.parameter(f"p{i}", value) for i, value in enumerate(first)]
    gradients = [gx.placeholder(f"g{i}", shape) for i, shape in enumerate(SHAPES)]
    optimizer = getattr(optimizers, name)(**options)
    updates = optimizer.updates(ours, gradients, {p: bounds[0] for p in ours} if bounds[0] else None)
    step = gx.compile({}, gradients, updates, backend="reference")
    worst = 0.0
    for _ in range(steps):
        given = [np.asarray(rng.standard_normal(shape), np.float32) for shape in SHAPES]
        step.call(given)
        judge.apply(given, theirs)
        worst = max(worst, distance([p.value for p in ours], [np.asarray(v) for v in theirs]))
    if options.get("use_ema"):
        optimizer.finalize_variable_values(ours)
        judge.finalize_variable_values(theirs)
        worst = max(worst, distance([p.value for p in ours], [np.asarray(v) for v in theirs]))
    return worst


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda i: f"{CASES[i][0]} {CASES[i][1]}")
def test_weights_after_twenty_steps(case, record_property):
    name, options = CASES[case]
    worst = run(name, options)
    record_property("worst", worst)
    assert worst < 2e-5


@pytest.mark.parametrize("name", ["NonNeg", "MaxNorm", "UnitNorm", "MinMaxNorm"])
def test_constraints_within_the_step(name):
    """Of vectors norms are taken along their one axis; a scalar has none to take."""
    global SHAPES
    kept, SHAPES = SHAPES, ((4, 3), (5,), (2, 3, 2))
    try:
        worst = run("Adam", {"learning_rate": 0.05}, (getattr(constraints, name)(), getattr(keras.constraints, name)()))
    finally:
        SHAPES = kept
    assert worst < 2e-5


def arguments(cls):
    """Names and defaults of a constructor's arguments, those that it hands on included."""
    found = {}
    for base in reversed(cls.__mro__[:-1]):
        if "__init__" in vars(base):
            found.update(inspect.signature(base.__init__).parameters)
    return {
        key: value.default
        for key, value in found.items()
        if key != "self" and value.kind not in (value.VAR_KEYWORD, value.VAR_POSITIONAL)
    }


@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_defaults_of_optimizers(name):
    ours, theirs = arguments(getattr(optimizers, name)), arguments(getattr(keras.optimizers, name))
    assert theirs == {key: ours.get(key, "missing") for key in theirs}
    assert (
        list(inspect.signature(getattr(optimizers, name).__init__).parameters)[:4]
        == list(inspect.signature(getattr(keras.optimizers, name).__init__).parameters)[:4]
    )


GROUPS = [
    (schedules, keras.optimizers.schedules, (
        "ExponentialDecay", "PiecewiseConstantDecay", "PolynomialDecay", "InverseTimeDecay", "CosineDecay",
        "CosineDecayRestarts",
    )),
    (constraints, keras.constraints, ("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm")),
    (regularizers, keras.regularizers, ("L1", "L2", "L1L2", "OrthogonalRegularizer")),
    (initializers, keras.initializers, (
        "GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "LecunUniform", "LecunNormal", "Orthogonal",
        "TruncatedNormal", "RandomNormal", "RandomUniform", "VarianceScaling", "Identity", "Zeros", "Ones", "Constant",
    )),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [pytest.param(getattr(a, name), getattr(b, name), id=name) for a, b, names in GROUPS for name in names],
)
def test_arguments_and_defaults_of_the_rest(ours, theirs):
    found, wanted = (inspect.signature(cls).parameters for cls in (ours, theirs))
    kept = {key: value.default for key, value in wanted.items() if value.kind not in (2, 4) and key != "kwargs"}
    assert kept == {key: found[key].default for key in kept}
    assert list(found)[: len(kept)] == list(kept)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.3}),
        ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.3, "staircase": True}),
        ("PiecewiseConstantDecay", {"boundaries": [5, 9], "values": [0.1, 0.05, 0.01]}),
        ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 20, "power": 2.0}),
        ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "cycle": True}),
        ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.3}),
        ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.3, "staircase": True}),
        ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 20, "alpha": 0.1}),
        ("CosineDecay", {
            "initial_learning_rate": 0.01, "decay_steps": 20, "warmup_target": 0.1, "warmup_steps": 6,
        }),
        ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 6, "m_mul": 0.7}),
        ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 6, "t_mul": 1.0, "alpha": 0.1}),
    ],
)  # fmt: skip
def test_rates_of_schedules(name, arguments):
    steps = list(range(60))
    wanted = [float(getattr(keras.optimizers.schedules, name)(**arguments)(t)) for t in steps]
    np.testing.assert_allclose(getattr(schedules, name)(**arguments)(steps), wanted, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("L1", {}), ("L2", {}), ("L1L2", {"l1": 0.1, "l2": 0.2}), ("L1L2", {}), ("OrthogonalRegularizer", {}),
     ("OrthogonalRegularizer", {"factor": 0.3, "mode": "columns"})],
)  # fmt: skip
def test_penalties(name, arguments):
    w = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    node = gx.placeholder("w", w.shape)
    (found,) = evaluate([getattr(regularizers, name)(**arguments)(node)], [(node, w)])
    wanted = np.asarray(getattr(keras.regularizers, name)(**arguments)(keras.ops.convert_to_tensor(w)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "shape"),
    [(n, s) for n in GROUPS[3][2] for s in ((60, 80), (3, 3, 20, 30)) if n != "Identity" or len(s) == 2],
)
def test_statistics_of_initializers(name, shape):
    seeded = {"seed": 1} if "seed" in arguments(getattr(initializers, name)) else {}
    ours = getattr(initializers, name)(**seeded)(shape)
    theirs = np.asarray(getattr(keras.initializers, name)(**seeded)(shape))
    assert ours.dtype == theirs.dtype
    spread = max(float(theirs.std()), 1e-9)
    assert abs(ours.mean() - theirs.mean()) < 0.1 * spread
    np.testing.assert_allclose(
        np.quantile(ours, [0.0, 0.1, 0.3, 0.7, 0.9, 1.0]) / spread,
        np.quantile(theirs, [0.0, 0.1, 0.3, 0.7, 0.9, 1.0]) / spread,
        atol=1.2,
    )
    assert ours.std() == pytest.approx(theirs.std(), rel=0.06, abs=1e-9)


@pytest.mark.parametrize("batch", [4, 6])
def test_a_trained_model_with_penalties_constraints_and_averages(batch):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 5)).astype(np.float32), rng.standard_normal((12, 1)).astype(np.float32)

    def build(api, extra):
        dense = api.layers.Dense(
            8, activation="tanh", kernel_regularizer=api.regularizers.L1L2(0.01, 0.02),
            activity_regularizer=api.regularizers.L2(0.1), kernel_constraint=api.constraints.MaxNorm(1.2),
        )  # fmt: skip
        last = api.layers.Dense(1, kernel_regularizer=api.regularizers.OrthogonalRegularizer(0.1))
        model = api.Sequential([api.Input((5,)), dense, last])
        rate = api.optimizers.schedules.CosineDecay(0.01, 30, warmup_target=0.05, warmup_steps=4)
        model.compile(api.optimizers.AdamW(rate, weight_decay=0.1, global_clipnorm=0.5), "mse", **extra)
        return model

    ours, theirs = build(gx, {"backend": "reference"}), build(keras, {"jit_compile": False})
    ours.set_weights(theirs.get_weights())
    for one in (ours, theirs):
        one.fit(x, y, batch_size=batch, epochs=7, shuffle=False, verbose=0)
    assert distance(ours.get_weights(), theirs.get_weights()) < 2e-5
    assert ours.evaluate(x, y, verbose=0) == pytest.approx(theirs.evaluate(x, y, verbose=0), rel=1e-4)


def test_weights_excluded_from_decay():
    first = [np.ones((3, 2), np.float32), np.ones(2, np.float32)]
    theirs = [keras.Variable(value, name=name) for name, value in zip(("kernel", "bias"), first, strict=True)]
    ours = [gx.parameter(f"dense/{name}", value) for name, value in zip(("kernel", "bias"), first, strict=True)]
    found = []
    for make, variables in ((optimizers.AdamW, ours), (keras.optimizers.AdamW, theirs)):
        optimizer = make(0.1, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        if make is optimizers.AdamW:
            given = [gx.constant(0.1 * value) for value in first]
            gx.compile({}, [], optimizer.updates(variables, given), backend="reference").call([])
        else:
            optimizer.apply([0.1 * value for value in first], variables)
        found.append([np.asarray(v.value) for v in variables])
    assert distance(*found) < 1e-6
