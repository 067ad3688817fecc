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


def test_constants():
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
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(gx.GraphcError, match="(?s)" + words):
        make()
