"""Schedules against their definitions, step by step in plain Python, and in programs, files and ONNX."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Sequential, layers, optimizers
from graphc.optimizers import SGD, schedules


def piecewise(t):
    return 1.0 if t <= 5 else 0.5 if t <= 8 else 0.1


def polynomial(t, start=0.5, steps=10, end=0.01, power=2.0, cycle=False):
    if cycle:
        steps = steps * (math.ceil(t / steps) if t else 1)
    else:
        t = min(t, steps)
    return (start - end) * (1 - t / steps) ** power + end


def cosine(t, start=0.5, steps=10, alpha=0.1):
    wave = 0.5 * (1 + math.cos(math.pi * min(t, steps) / steps))
    return start * ((1 - alpha) * wave + alpha)


def warm_cosine(t, start=0.1, target=0.5, warm=4, steps=10):
    return start + (target - start) * t / warm if t < warm else cosine(t - warm, target, steps, 0.0)


def restarts(t, start=0.5, first=4, t_mul=2.0, m_mul=0.5, alpha=0.1):
    """By counting: what is left of the step after the waves that are over."""
    length, height = float(first), 1.0
    while t >= length:
        t, length, height = t - length, length * t_mul, height * m_mul
    return start * ((1 - alpha) * height * 0.5 * (1 + math.cos(math.pi * t / length)) + alpha)


def one_cycle(t, top=1.0, total=20, part=0.3, strategy="cos", three=False, div=25.0, final=1e4):
    """The phases of torch.optim.lr_scheduler.OneCycleLR."""

    def anneal(start, end, x):
        return end + (start - end) / 2 * (1 + math.cos(math.pi * x)) if strategy == "cos" else start + (end - start) * x

    first = top / div
    last = first / final
    if three:
        phases = [(part * total - 1, first, top), (2 * part * total - 2, top, first), (total - 1, first, last)]
    else:
        phases = [(part * total - 1, first, top), (total - 1, top, last)]
    t, begin = min(t, total - 1), 0.0
    for end, a, b in phases:
        if t <= end:
            return anneal(a, b, (t - begin) / (end - begin))
        begin = end
    raise AssertionError


def noam(t, d=64, warm=7):
    return d**-0.5 * min((t + 1) ** -0.5, (t + 1) * warm**-1.5)


S = schedules
SCHEDULES = {
    "constant": (lambda: S.Constant(0.3), lambda t: 0.3),
    "step": (lambda: S.StepDecay(0.5, 7, 0.3), lambda t: 0.5 * 0.3 ** (t // 7)),
    "piecewise": (lambda: S.PiecewiseConstantDecay([5, 8], [1.0, 0.5, 0.1]), piecewise),
    "exponential": (lambda: S.ExponentialDecay(0.5, 7, 0.3), lambda t: 0.5 * 0.3 ** (t / 7)),
    "staircase": (lambda: S.ExponentialDecay(0.5, 7, 0.3, staircase=True), lambda t: 0.5 * 0.3 ** (t // 7)),
    "inverse time": (lambda: S.InverseTimeDecay(0.5, 7, 0.3), lambda t: 0.5 / (1 + 0.3 * t / 7)),
    "inverse stairs": (lambda: S.InverseTimeDecay(0.5, 7, 0.3, True), lambda t: 0.5 / (1 + 0.3 * (t // 7))),
    "polynomial": (lambda: S.PolynomialDecay(0.5, 10, 0.01, 2.0), polynomial),
    "cyclic": (lambda: S.PolynomialDecay(0.5, 10, 0.01, 2.0, cycle=True), lambda t: polynomial(t, cycle=True)),
    "cosine": (lambda: S.CosineDecay(0.5, 10, alpha=0.1), cosine),
    "warm cosine": (lambda: S.CosineDecay(0.1, 10, warmup_target=0.5, warmup_steps=4), warm_cosine),
    "restarts": (lambda: S.CosineDecayRestarts(0.5, 4, m_mul=0.5, alpha=0.1), restarts),
    "restarts of one length": (
        lambda: S.CosineDecayRestarts(0.5, 4, 1.0),
        lambda t: restarts(t, 0.5, 4, 1.0, 1.0, 0.0),
    ),
    "restarts by threes": (lambda: S.CosineDecayRestarts(0.5, 1, 3.0), lambda t: restarts(t, 0.5, 1, 3.0, 1.0, 0.0)),
    "one cycle": (lambda: S.OneCycle(1.0, 20), one_cycle),
    "one cycle of three": (
        lambda: S.OneCycle(1.0, 20, anneal_strategy="linear", three_phase=True, div_factor=10, final_div_factor=100),
        lambda t: one_cycle(t, strategy="linear", three=True, div=10, final=100),
    ),
    "inverse root": (lambda: S.InverseSquareRoot(0.5, 7), lambda t: 0.5 * min((t + 1) / 7, math.sqrt(7 / (t + 1)))),
    "noam": (lambda: S.Noam(64, 7), noam),
    "warm-up": (
        lambda: S.LinearWarmup(S.CosineDecay(0.5, 10, alpha=0.1), 4, start=0.1),
        lambda t: 0.1 + 0.4 * t / 4 if t < 4 else cosine(t - 4),
    ),
    "sequence": (
        lambda: S.Sequential([0.3, S.StepDecay(0.5, 7, 0.3), S.CosineDecay(0.5, 10, alpha=0.1)], [5, 13]),
        lambda t: 0.3 if t < 5 else 0.5 * 0.3 ** ((t - 5) // 7) if t < 13 else cosine(t - 13),
    ),
    "chain": (
        lambda: S.Chained([S.CosineDecay(0.5, 10, alpha=0.1), S.StepDecay(1.0, 7, 0.3)]),
        lambda t: cosine(t) * 0.3 ** (t // 7),
    ),
}
STEPS = range(300)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_step_has_the_defined_rate(name):
    make, rule = SCHEDULES[name]
    np.testing.assert_allclose(make()(list(STEPS)), [rule(t) for t in STEPS], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize(("first", "t_mul"), [(1, 3.0), (1, 5.0), (3, 7.0), (7, 10.0), (1, 1.5)])
def test_a_restart_is_not_missed_by_a_rounding(first, t_mul):
    """log(243) / log(3) is less than 5; the step of a restart has the full rate all the same."""
    starts, length, start = [], float(first), 0.0
    for _ in range(8):
        start, length = start + length, length * t_mul
        starts.append(start)
    rates = schedules.CosineDecayRestarts(1.0, first, t_mul)(starts)
    np.testing.assert_allclose(rates, np.ones(8), rtol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_come_back_from_their_configuration_and_run_in_a_step(name):
    make, rule = SCHEDULES[name]
    made = make()
    assert repr(type(made).from_config(made.get_config())) == repr(made)
    p, g = gx.parameter("p", np.zeros(1)), gx.placeholder("g", (1,), "float64")
    optimizer = SGD(made)
    step = gx.compile({}, [g], optimizer.updates([p], [g]), backend="reference")
    for t in range(9):
        assert optimizer.learning_rate == pytest.approx(rule(t), rel=1e-12)
        step.call([np.ones(1)])
    assert p.value[0] == pytest.approx(-sum(map(rule, range(9))), rel=1e-12)


def test_rates_run_compiled_and_export(tmp_path):
    """All schedules in one kernel or two: a sum in which each has a weight of its own."""
    p = gx.parameter("count", np.array(3, np.int64))
    step = gx.cast(p, "float64")
    total = sum((i + 1.0) * make()(step) for i, (make, _) in enumerate(SCHEDULES.values()))
    program = gx.compile({"total": total}, [], {p: p + 1}, backend="numba")
    gx.onnx.export(program, tmp_path / "rates.onnx")
    report = gx.onnx.verify(tmp_path / "rates.onnx", program)
    assert report.ok, report
    p.value = 3
    for t in range(3, 30):
        wanted = sum((i + 1.0) * rule(t) for i, (_, rule) in enumerate(SCHEDULES.values()))
        assert program.call([])[0] == pytest.approx(wanted, rel=1e-12), t


def test_a_model_with_a_schedule_goes_on_from_a_file(tmp_path):
    gx.set_seed(0)
    made = schedules.Sequential([schedules.LinearWarmup(schedules.Noam(16, 3), 2), 0.01], [5])
    model = Sequential([Input((2,)), layers.Dense(1)])
    model.compile(optimizers.Adam(made), "mse", backend="reference")
    x, y = np.eye(2, dtype=np.float32), np.ones((2, 1), np.float32)
    for _ in range(3):
        model.train_on_batch(x, y)
    model.save(tmp_path / "model")
    loaded = gx.load_model(tmp_path / "model")
    assert loaded.optimizer.learning_rate == model.optimizer.learning_rate == made(3)
    for _ in range(3):
        model.train_on_batch(x, y)
        loaded.train_on_batch(x, y)
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: S.StepDecay(0.1, 0), "step_size"),
        (lambda: S.StepDecay(-0.1, 3), "initial_learning_rate"),
        (lambda: S.PiecewiseConstantDecay([1, 2], [1.0]), "one value more"),
        (lambda: S.PiecewiseConstantDecay([2, 1], [1.0, 2.0, 3.0]), "rise"),
        (lambda: S.CosineDecay("0.1", 3), "initial_learning_rate"),
        (lambda: S.CosineDecayRestarts(0.1, 3, t_mul=0.5), "t_mul"),
        (lambda: S.OneCycle(0.1, 10, pct_start=2), "pct_start"),
        (lambda: S.OneCycle(0.1, 10, anneal_strategy="up"), "anneal_strategy"),
        (lambda: S.Sequential([0.1], [2]), "one schedule more"),
        (lambda: S.Chained([]), "no schedule"),
        (lambda: S.LinearWarmup(True, 3), "learning_rate"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(gx.AxisError, match="(?s)" + words) as caught:
        make()
    assert "test_schedules.py:" in str(caught.value)
