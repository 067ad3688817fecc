"""What training in float32 differs by from training in float64: where a gradient is nothing but rounding."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import layers
from tests.frontend import published
from tests.frontend.test_optimizers import step_program


def attention(x):
    return layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 3, name="heads")(x, x))


def normalized(x):
    return layers.Flatten()(layers.Activation("tanh")(layers.BatchNormalization()(layers.Dense(5, name="before")(x))))


def trained(build, dtype, backend):
    """Weights by name, at first and after three steps."""
    gx.set_seed(4)
    start = gx.Input((4, 6), dtype=dtype)
    model = gx.Model(start, layers.Dense(3)(build(start)))
    model.compile(gx.optimizers.Adam(0.01), "mse", backend=backend)
    draws = np.random.default_rng(2)
    for weight in model.weights:
        weight.value = draws.uniform(0.2, 1.0, weight.shape).astype(np.float32).astype(dtype)
    before = {name: weight.value for name, weight in model.named_weights().items()}
    for _ in range(3):
        x, y = (draws.standard_normal(shape).astype(np.float32).astype(dtype) for shape in ((8, 4, 6), (8, 3)))
        model.train_on_batch(x, y)
    return before, {name: weight.value for name, weight in model.named_weights().items()}


@pytest.mark.parametrize(
    ("build", "idle", "followers"),
    [(attention, "heads/key/bias", ()), (normalized, "before/bias", ("batch_normalization/moving_mean",))],
    ids=["attention", "normalized"],
)
def test_only_weights_without_influence_differ_from_float64(build, idle, followers):
    """All scores of a query change alike by the bias of keys, and a mean takes off what a bias added to all rows."""
    _, found = trained(build, "float32", "numba")
    before, wanted = trained(build, "float64", "reference")
    for name, value in wanted.items():
        if (
            name == idle
        ):  # its gradient is 0: what float64 leaves of that is far below epsilon, what float32 does is not
            np.testing.assert_allclose(value, before[name], rtol=1e-7)
            assert np.abs(found[name] - value).max() <= 3 * 0.011  # the steps that Adam's division makes of it
        elif name not in followers:
            moved = np.abs(value - before[name]).max()
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=2e-3 * moved, err_msg=name)


@pytest.mark.parametrize("smallest", [1.0, 1e-3, 1e-5, 0.0])
def test_muon_turns_nearly_dependent_gradients_as_their_singular_values_say(smallest):
    """In float32, of the very gradients: what the iteration makes of singular values near 0 is theirs, not rounding."""
    shape = (7, 5)
    _, (p,), step = step_program(lambda: gx.optimizers.Muon(0.01), (shape,), "float32", "numba")
    draws = np.random.default_rng(6)
    left, _ = np.linalg.qr(draws.standard_normal(shape))
    right, _ = np.linalg.qr(draws.standard_normal((5, 5)))
    state = {}
    for t in range(1, 4):
        before = p.value.astype(np.float64)
        sizes = np.array([1.0, 0.7, 0.4, smallest, smallest / 2]) * draws.uniform(0.5, 2.0)
        gradient = ((left * sizes) @ right).astype(np.float32)
        step.call([gradient])
        wanted = published.muon(state, before, gradient.astype(np.float64), t)
        # 5 rounds multiply what is rounded at first by up to 3.4445**5 = 485
        np.testing.assert_allclose(p.value, wanted, rtol=2e-7, atol=1e-3 * np.abs(wanted - before).max())
