"""Optimizers, step by step, against their published rules in NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Sequential, layers, optimizers
from graphc.lower.plan import KernelItem
from graphc.optimizers import SGD, Adam, AdamW, Optimizer
from tests.frontend import published

SHAPES = ((3, 2), (5,), ())
EVERY = tuple(published.RULES)


def step_program(make, shapes=SHAPES, dtype="float64", backend="reference", seed=1, constraints=None):
    """An optimizer, its parameters, and a step that takes gradients."""
    rng = np.random.default_rng(seed)
    parameters = [gx.parameter(f"p{i}", rng.standard_normal(shape).astype(dtype)) for i, shape in enumerate(shapes)]
    gradients = [gx.placeholder(f"g{i}", shape, dtype) for i, shape in enumerate(shapes)]
    optimizer = make()
    bounds = {p: constraints for p in parameters} if constraints else None
    updates = optimizer.updates(parameters, gradients, bounds)
    return optimizer, parameters, gx.compile({}, inputs=gradients, updates=updates, backend=backend)


def draw(rng, shapes=SHAPES, dtype="float64", scale=1.0):
    return [np.asarray(scale * rng.standard_normal(shape), dtype) for shape in shapes]


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize("name", EVERY)
def test_every_step_follows_the_published_rule(name, backend):
    make, rule = published.RULES[name]
    _, parameters, step = step_program(make, backend=backend)
    rng = np.random.default_rng(2)
    wanted, states = [p.value for p in parameters], [{} for _ in SHAPES]
    for t in range(1, 13):
        given = draw(rng)
        step.call(given)
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


# kernels

SIZES = 6, 5, 7, 4, 3, 2
TEN = tuple(shape for rows, columns in itertools.pairwise(SIZES) for shape in ((rows, columns), (columns,)))
KERNELS = {
    "sgd": (lambda: SGD(), 1, 2),
    "momentum": (lambda: SGD(momentum=0.9), 1, 2),
    "adam": (Adam, 1, 2),
    "amsgrad": (lambda: Adam(amsgrad=True), 1, 2),
    "nadam": (optimizers.Nadam, 1, 2),
    "adamax": (optimizers.Adamax, 1, 2),
    "adamw": (AdamW, 1, 2),
    "rmsprop": (lambda: optimizers.RMSprop(centered=True, momentum=0.9), 1, 2),
    "adagrad": (optimizers.Adagrad, 1, 2),
    "adadelta": (optimizers.Adadelta, 1, 2),
    "ftrl": (optimizers.Ftrl, 1, 2),
    "lion": (optimizers.Lion, 2, 3),
    "lamb": (optimizers.Lamb, 5, 6),
    "clipped by value": (lambda: Adam(clipvalue=1.0), 1, 2),
    "clipped by norm": (lambda: Adam(clipnorm=1.0), 2, 3),
    "clipped by global norm": (lambda: Adam(global_clipnorm=1.0), 2, 3),
    "accumulating": (lambda: Adam(gradient_accumulation_steps=4), 1, 2),
    "averaged": (lambda: Adam(use_ema=True, ema_overwrite_frequency=5), 1, 2),
    "scheduled": (lambda: Adam(optimizers.schedules.OneCycle(0.1, 10)), 1, 2),
    "adafactor": (optimizers.Adafactor, 31, 32),
}


@pytest.mark.parametrize("name", KERNELS)
def test_ten_parameters_share_kernels(name):
    """One kernel runs over all parameters, and one computes what they share: rate, step, norms.

    Only Adafactor's means over rows and columns have a kernel for each shape of a matrix.
    """
    make, most_arrays, most = KERNELS[name]
    optimizer, _, step = step_program(make, TEN, "float32", "numba")
    items = [item for launch in step.plan.launches for item in launch.items]
    assert all(isinstance(item, KernelItem) for item in items)
    over_arrays = {item.kernel for item in items if len(item.kernel.buffers) < 20 and item.extent != 1}
    assert len({item.kernel for item in items}) <= most
    assert len(over_arrays) <= most_arrays
    updated = {p.label for launch in step.plan.launches[step.plan.commit :] for p in step.plan.parameters}
    assert f"{optimizer.name}/iterations" in updated


# state


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
    optimizer, (p,), step = step_program(lambda: SGD(lambda step: 1.0 / (step + 1.0)), ((1,),))
    first = p.value
    for t in range(3):
        assert optimizer.learning_rate == 1 / (t + 1)
        step.call([np.ones(1)])
    np.testing.assert_allclose(p.value, first - (1 + 1 / 2 + 1 / 3))
    with pytest.raises(gx.GraphError, match="schedule"):
        optimizer.learning_rate = 0.1


def test_an_optimizer_of_the_user():
    class Sign(Optimizer):
        state = (("length", 2.0),)

        def scalars(self, rate, step):
            return {"rate": rate * self.shared_state("length"), "length": self.shared_state("length") * 0.5}

        def rule(self, p, g, slots, s):
            return p - s["rate"] * gx.sign(g), {}

    p, g = gx.parameter("p", np.zeros(3, np.float32)), gx.placeholder("g", (3,))
    step = gx.compile({}, [g], Sign(0.5).updates([p], [g]), backend="reference")
    step.call([np.float32([2, -3, 0])])
    np.testing.assert_array_equal(p.value, np.float32([-1, 1, 0]))
    step.call([np.float32([2, -3, 0])])
    np.testing.assert_array_equal(p.value, np.float32([-1.5, 1.5, 0]))


# weight decay


def decaying(make):
    """The parameters after one step without gradients."""
    optimizer = make()
    parameters = [gx.parameter(name, np.ones(2)) for name in ("dense/kernel", "dense/bias", "norm/gamma")]
    if isinstance(optimizer, tuple):
        optimizer, exclude = optimizer
        exclude(optimizer, parameters)
    gradients = [gx.constant(np.zeros(2)) for _ in parameters]
    gx.compile({}, [], optimizer.updates(parameters, gradients), backend="reference").call([])
    return [p.value[0] for p in parameters]


@pytest.mark.parametrize(
    ("exclude", "spared"),
    [
        (lambda o, p: None, ()),
        (lambda o, p: o.exclude_from_weight_decay(var_list=[p[2]]), (2,)),
        (lambda o, p: o.exclude_from_weight_decay(var_names=["bias", "^norm/"]), (1, 2)),
        (lambda o, p: o.exclude_from_weight_decay([p[0]], ["bias"]), (0, 1)),
        (lambda o, p: (o.exclude_from_weight_decay([p[0]]), o.exclude_from_weight_decay(var_names=["bias"])), (1,)),
    ],
)
@pytest.mark.parametrize("make", [lambda: SGD(0.5, weight_decay=0.1), lambda: AdamW(0.5, weight_decay=0.1)])
def test_weights_decay_unless_they_are_excluded(make, exclude, spared):
    after = decaying(lambda: (make(), exclude))
    assert after == [1.0 if i in spared else 0.95 for i in range(3)]


def test_weights_are_excluded_before_the_first_use():
    optimizer, parameters, _ = step_program(lambda: SGD(weight_decay=0.1))
    with pytest.raises(gx.GraphError, match="before"):
        optimizer.exclude_from_weight_decay(parameters)


# clipping


def clipped(given, **options):
    """The gradients that reach plain descent."""
    shapes = tuple(g.shape for g in given)
    _, parameters, step = step_program(lambda: SGD(1.0, **options), shapes)
    before = [p.value for p in parameters]
    step.call(given)
    return [b - p.value for b, p in zip(before, parameters, strict=True)]


def test_gradients_are_clipped():
    given = [np.array([3.0, 4.0]), np.array([[0.3], [0.4]]), np.array(12.0)]
    for found, wanted in zip(clipped(given, clipvalue=0.35), given, strict=True):
        np.testing.assert_allclose(found, np.clip(wanted, -0.35, 0.35), rtol=1e-12)
    for found, wanted in zip(clipped(given, clipnorm=2.0), given, strict=True):
        np.testing.assert_allclose(found, wanted * min(1, 2 / np.linalg.norm(wanted)), rtol=1e-12)
    norm = np.sqrt(25 + 0.25 + 144)
    for found, wanted in zip(clipped(given, global_clipnorm=2.0), given, strict=True):
        np.testing.assert_allclose(found, wanted * 2 / norm, rtol=1e-12)


@pytest.mark.parametrize("option", ["clipnorm", "global_clipnorm"])
def test_gradients_within_the_bound_stay_to_the_last_bit(option):
    results = []
    for options in ({}, {option: 1e3}):
        _, parameters, step = step_program(lambda options=options: Adam(0.01, **options), dtype="float32")
        for _ in range(3):
            step.call(draw(np.random.default_rng(0), dtype="float32"))
        results.append([p.value for p in parameters])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(clipped([np.zeros(3)], **{option: 1.0})[0], np.zeros(3))


def test_an_infinite_gradient_is_not_hidden_by_the_global_norm():
    found = clipped([np.array([1.0, np.inf]), np.ones(2)], global_clipnorm=1.0)
    assert all(np.isnan(array).all() for array in found)


# accumulation


@pytest.mark.parametrize("make", [lambda **o: Adam(0.1, **o), lambda **o: optimizers.Nadam(0.1, use_ema=True, **o)])
def test_accumulated_batches_change_weights_as_their_mean_does_and_nothing_in_between(make):
    every = 3
    optimizer, parameters, step = step_program(lambda: make(gradient_accumulation_steps=every), dtype="float32")
    _, plain, plain_step = step_program(make, dtype="float32")
    names = {p.label: p for p in parameters}
    rng = np.random.default_rng(5)

    def state():
        found = {**names, **optimizer.variables(names)}
        return {k: v.array.tobytes() for k, v in found.items() if "accumulator" not in k and k != "iterations"}

    for _ in range(4):
        batches = [draw(rng, dtype="float32") for _ in range(every)]
        before = state()
        for batch in batches[:-1]:
            step.call(batch)
            assert state() == before
        step.call(batches[-1])
        assert all(value != before[key] for key, value in state().items() if key != "learning_rate")
        plain_step.call([sum(gs[1:], gs[0]) / np.float32(every) for gs in zip(*batches, strict=True)])
        for a, b in zip(parameters, plain, strict=True):
            np.testing.assert_allclose(a.value, b.value, rtol=2e-6, atol=1e-7)
    assert optimizer.iterations.value == 12


# moving averages


def test_the_moving_average_of_weights():
    optimizer, (p,), step = step_program(lambda: SGD(0.1, use_ema=True, ema_momentum=0.9), ((4,),))
    rng, average = np.random.default_rng(3), None
    for _ in range(5):
        step.call(draw(rng, ((4,),)))
        average = p.value if average is None else 0.9 * average + 0.1 * p.value
    trained = p.value
    with optimizer.averaged():
        np.testing.assert_allclose(p.value, average, rtol=1e-13)
    np.testing.assert_array_equal(p.value, trained)
    optimizer.finalize_variable_values([p])
    np.testing.assert_allclose(p.value, average, rtol=1e-13)


def test_weights_are_overwritten_by_their_average_every_so_often():
    _, (p,), step = step_program(lambda: SGD(0.5, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3), ((2,),))
    rng, value, average = np.random.default_rng(3), p.value, None
    for t in range(1, 8):
        (given,) = draw(rng, ((2,),))
        step.call([given])
        value = value - 0.5 * given
        average = value if average is None else 0.5 * average + 0.5 * value
        value = average if t % 3 == 0 else value
        np.testing.assert_allclose(p.value, value, rtol=1e-12)


def test_averages_before_the_first_step_are_the_weights():
    optimizer, (p,), _ = step_program(lambda: SGD(use_ema=True), ((2,),))
    before = p.value
    with optimizer.averaged():
        np.testing.assert_array_equal(p.value, before)
    optimizer.finalize_variable_values([p])
    np.testing.assert_array_equal(p.value, before)
    with pytest.raises(gx.GraphError, match="use_ema=True"), SGD().averaged():
        pass


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((32, 3)).astype(np.float32)
    return x, (x @ np.float32([[1], [-2], [0.5]])).astype(np.float32)


def small_model(optimizer, **dense):
    gx.set_seed(3)
    model = Sequential([Input((3,)), layers.Dense(4, activation="tanh", **dense), layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


def test_fit_ends_with_the_averaged_weights():
    x, y = data()
    model = small_model(SGD(0.1, use_ema=True, ema_momentum=0.8))
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    averages = [v.value for k, v in model.optimizer.variables(model.named_weights()).items() if k.endswith("average")]
    for weight, average in zip(model.get_weights(), averages, strict=True):
        np.testing.assert_array_equal(weight, average)


# loss scale


def test_a_power_of_two_as_the_scale_of_the_loss_changes_no_bit():
    x, y = data()
    found = []
    for factor in (None, 1024.0):
        model = small_model(Adam(0.05, loss_scale_factor=factor))
        model.fit(x, y, epochs=2, verbose=0)
        found.append(model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


# files and ONNX

WHOLE = {
    "sgd": lambda: SGD(0.1, momentum=0.9, nesterov=True, clipvalue=0.5),
    "adamw": lambda: AdamW(optimizers.schedules.LinearWarmup(0.05, 5), use_ema=True, gradient_accumulation_steps=2),
    "nadam": lambda: optimizers.Nadam(0.05, global_clipnorm=1.0, ema_overwrite_frequency=3, use_ema=True),
    "lamb": lambda: optimizers.Lamb(0.05),
    "adafactor": lambda: optimizers.Adafactor(0.05),
    "muon": lambda: optimizers.Muon(0.01),
    "rmsprop": lambda: optimizers.RMSprop(0.01, centered=True, momentum=0.5, clipnorm=0.1),
    "ftrl": lambda: optimizers.Ftrl(0.1, l1_regularization_strength=0.01),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_saved_model_goes_on_bit_for_bit(name, tmp_path):
    x, y = data()
    optimizer = WHOLE[name]()
    if name == "adamw":
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = small_model(optimizer)
    for start in (0, 8, 16):
        model.train_on_batch(x[start : start + 8], y[start : start + 8])
    model.save(tmp_path / "model")
    loaded = gx.load_model(tmp_path / "model")
    assert repr(loaded.optimizer) == repr(optimizer)
    for start in (24, 0, 8):
        for one in (model, loaded):
            one.train_on_batch(x[start : start + 8], y[start : start + 8])
    states = [one.optimizer.variables(one.named_weights()) for one in (model, loaded)]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        np.testing.assert_array_equal(value.value, states[1][key].value, err_msg=key)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_excluded_weights_stay_excluded_in_a_loaded_model(tmp_path):
    gx.set_seed(0)
    model = Sequential([Input((3,)), layers.Dense(2, name="first"), layers.Dense(1, name="second")])
    optimizer = SGD(0.5, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[0].kernel], var_names=["second/"])
    model.compile(optimizer, "mse", backend="reference")
    model.save(tmp_path / "model")
    loaded = gx.load_model(tmp_path / "model")
    parameters = loaded.trainable_weights
    for parameter in parameters:
        parameter.value = np.ones(parameter.shape, np.float32)
    zeros = [gx.zeros_like(p) for p in parameters]
    gx.compile({}, [], loaded.optimizer.updates(parameters, zeros), backend="reference").call([])
    assert [p.value.flat[0] for p in parameters] == [1.0, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("name", WHOLE)
def test_the_training_step_exports(name, tmp_path):
    model = small_model(WHOLE[name]())
    x, y = data()
    model.train_on_batch(x, y)
    model.export(tmp_path / "step.onnx", training=True)
    report = gx.onnx.verify(tmp_path / "step.onnx", model.programs["train"])
    assert report.ok, report


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: SGD(-1), gx.AxisError, "learning rate"),
        (lambda: SGD("fast"), gx.AxisError, "learning rate"),
        (lambda: SGD(0.1, momentum=2), gx.AxisError, "momentum"),
        (lambda: Adam(0.1, beta_1=1.0), gx.AxisError, "beta_1"),
        (lambda: Adam(lr=0.1), gx.AxisError, "(?s)'lr'.*learning_rate="),
        (lambda: Adam(decay=0.1), gx.AxisError, "(?s)'decay'.*InverseTimeDecay"),
        (lambda: Adam(clip_norm=0.1), gx.AxisError, "(?s)'clip_norm'.*did you mean 'clipnorm'"),
        (lambda: Adam(clipnorm=1, clipvalue=1), gx.AxisError, "clipnorm and clipvalue"),
        (lambda: Adam(global_clipnorm=0), gx.AxisError, "global_clipnorm"),
        (lambda: Adam(gradient_accumulation_steps=1), gx.AxisError, "at least 2"),
        (lambda: Adam(use_ema=True, ema_momentum=1.5), gx.AxisError, "ema_momentum"),
        (lambda: Adam(ema_overwrite_frequency=0), gx.AxisError, "ema_overwrite_frequency"),
        (lambda: AdamW(weight_decay=None), gx.AxisError, "AdamW"),
        (lambda: optimizers.Lion(beta_1=0), gx.AxisError, "beta_1"),
        (lambda: optimizers.Adagrad(initial_accumulator_value=-1), gx.AxisError, "initial_accumulator_value"),
        (lambda: optimizers.Ftrl(learning_rate_power=0.5), gx.AxisError, "learning_rate_power"),
        (lambda: optimizers.get("adma"), gx.GraphError, "no optimizer is called 'adma'"),
        (lambda: optimizers.get(3), gx.GraphError, "not an optimizer"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words) as caught:
        make()
    assert "test_optimizers.py:" in str(caught.value)
    assert "to do: " in str(caught.value)
