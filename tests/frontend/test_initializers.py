"""First values: their distributions, and what they depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as gx
from graphc import initializers

SHAPE = (300, 200)


@pytest.mark.parametrize(
    ("name", "stddev", "limit"),
    [
        ("glorot_uniform", math.sqrt(2 / 500), math.sqrt(6 / 500)),
        ("glorot_normal", math.sqrt(2 / 500), 2 * math.sqrt(2 / 500) / 0.8796256610342398),
        ("he_uniform", math.sqrt(2 / 300), math.sqrt(6 / 300)),
        ("he_normal", math.sqrt(2 / 300), 2 * math.sqrt(2 / 300) / 0.8796256610342398),
        ("lecun_uniform", math.sqrt(1 / 300), math.sqrt(3 / 300)),
        ("lecun_normal", math.sqrt(1 / 300), 2 * math.sqrt(1 / 300) / 0.8796256610342398),
        ("random_uniform", 0.1 / math.sqrt(12), 0.05),
        ("random_normal", 0.05, math.inf),
        ("truncated_normal", 0.05 * 0.8796256610342398, 0.1),
    ],
)
def test_random_values_have_the_published_spread(name, stddev, limit):
    made = initializers.get(name)
    made.seed = 3
    values = made(SHAPE)
    assert values.shape == SHAPE
    assert values.dtype == np.float32
    assert values.std() == pytest.approx(stddev, rel=0.02)
    assert abs(values.mean()) < 4 * stddev / math.sqrt(values.size)
    assert np.abs(values).max() <= limit * (1 + 1e-6)


def test_fans_of_kernels():
    assert initializers.compute_fans((3, 3, 16, 32)) == (144, 288)
    assert initializers.compute_fans((7,)) == (7, 7)
    assert initializers.compute_fans(()) == (1, 1)
    scaled = initializers.VarianceScaling(3.0, "fan_out", "untruncated_normal", seed=1)(SHAPE)
    assert scaled.std() == pytest.approx(math.sqrt(3 / 200), rel=0.02)


@pytest.mark.parametrize(
    ("shape", "fans"),
    [
        ((10, 20), (10, 20)),  # dense
        ((5, 16, 32), (80, 160)),  # convolution along one axis
        ((3, 3, 16, 32), (144, 288)),
        ((2, 3, 4, 8, 16), (192, 384)),
        ((3, 3, 16, 1), (144, 9)),  # depthwise
        ((10, 4 * 20), (10, 80)),  # the kernel of an LSTM: outputs of all gates
        ((20, 3 * 20), (20, 60)),  # the recurrent kernel of a GRU
    ],
)
def test_kernels_of_all_layers_are_scaled_by_their_fans(shape, fans):
    assert initializers.compute_fans(shape) == fans
    for mode, fan in (("fan_in", fans[0]), ("fan_out", fans[1]), ("fan_avg", sum(fans) / 2)):
        # One draw of a standard uniform, scaled: the bound of the interval tells the variance exactly.
        values = initializers.VarianceScaling(1.5, mode, "uniform", seed=1)(shape, "float64")
        unit = initializers.RandomUniform(-1.0, 1.0, seed=1)(shape, "float64")
        np.testing.assert_allclose(values, unit * math.sqrt(3 * 1.5 / fan), rtol=1e-12)


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("distribution", ["truncated_normal", "untruncated_normal", "uniform", "normal"])
def test_variance_scaling_has_its_variance_in_all_modes_and_distributions(mode, distribution):
    fan = {"fan_in": 300, "fan_out": 200, "fan_avg": 250}[mode]
    values = initializers.VarianceScaling(2.0, mode, distribution, seed=3)(SHAPE, "float64")
    assert values.var() == pytest.approx(2.0 / fan, rel=0.03)
    kurtosis = np.mean(values**4) / values.var() ** 2
    expected = {"uniform": 1.8, "untruncated_normal": 3.0}.get(distribution, 2.3656)
    assert kurtosis == pytest.approx(expected, rel=0.05)


def test_axes_can_be_said_to_be_inputs_and_outputs():
    made = initializers.GlorotUniform(seed=1, input_axes=[0, 1], output_axes=2)
    limit = math.sqrt(6 / (4 * 5 + 60))
    values = made((4, 5, 60))
    assert 0.98 * limit < np.abs(values).max() <= limit
    assert repr(type(made).from_config(made.get_config())) == repr(made)


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12), (3, 3, 4, 7), (2, 2, 3, 20)])
def test_orthogonal_matrices(shape):
    w = initializers.Orthogonal(gain=2.0, seed=5)(shape, "float64").reshape(-1, shape[-1])
    square = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(square, 4.0 * np.eye(len(square)), atol=1e-12)


def test_orthogonal_matrices_are_drawn_alike():
    """Of a uniform one every element has mean 0 and variance 1/n, the diagonal too, and the trace variance 1."""
    drawn = np.array([initializers.Orthogonal(seed=i)((4, 4), "float64") for i in range(3000)])
    assert np.abs(drawn.mean(axis=0)).max() < 4 / math.sqrt(4 * 3000)
    np.testing.assert_allclose(drawn.var(axis=0), np.full((4, 4), 0.25), rtol=0.15)
    assert np.trace(drawn, axis1=1, axis2=2).var() == pytest.approx(1.0, rel=0.15)


def test_constants():
    assert initializers.get("identity")((2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert initializers.get("zeros")((2, 2)).tolist() == [[0, 0], [0, 0]]
    assert initializers.get("ones")((2,), "int64").dtype == np.int64
    assert initializers.Constant(2.5)((2,)).tolist() == [2.5, 2.5]
    assert initializers.Constant([1, 2])((2,)).tolist() == [1, 2]
    with pytest.raises(gx.GraphError, match=r"\(2,\), the weight is \(3,\)"):
        initializers.Constant([1, 2])((3,))


def test_values_depend_on_the_seed_and_the_place_alone():
    made = initializers.get("glorot_uniform")

    def draw(seed, *where):
        gx.set_seed(seed)
        return made.draw((4, 4), np.dtype("float32"), where)

    first = draw(1, "dense", "kernel")
    np.testing.assert_array_equal(first, draw(1, "dense", "kernel"))
    assert not np.array_equal(first, draw(2, "dense", "kernel"))
    assert not np.array_equal(first, draw(1, "dense_1", "kernel"))


def test_a_seed_of_its_own_overrides_the_place():
    made = initializers.HeNormal(seed=4)
    gx.set_seed(1)
    first = made.draw((4,), np.dtype("float32"), ("a",))
    gx.set_seed(2)
    np.testing.assert_array_equal(first, made.draw((4,), np.dtype("float32"), ("b",)))


def test_functions_are_initializers():
    layer = gx.layers.Dense(2, kernel_initializer=lambda shape, dtype: np.full(shape, 7))
    layer(gx.placeholder("x", ("batch", 3)))
    assert layer.get_weights()[0].tolist() == [[7, 7]] * 3
    wrong = gx.layers.Dense(2, kernel_initializer=lambda shape, dtype: np.zeros(5))
    with pytest.raises(gx.ShapeError, match=r"made \(5,\), the weight is \(3, 2\)"):
        wrong(gx.placeholder("x", ("batch", 3)))
    assert wrong.weights == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: initializers.VarianceScaling(0), "scale"),
        (lambda: initializers.VarianceScaling(mode="fan"), "fan_avg"),
        (lambda: initializers.VarianceScaling(distribution="cauchy"), "uniform"),
        (lambda: initializers.get("glorot"), "no initializer is called 'glorot'"),
        (lambda: initializers.Identity()((2, 3, 4)), "matrices"),
        (lambda: initializers.Orthogonal()((2,)), "two axes"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(gx.GraphcError, match="(?s)" + words):
        make()
