"""Convolutions by Winograd's products: where they are chosen, what they read and write, and how exact they are."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.ir.node import apply
from graphc.lower.plan import Plan, WinogradItem
from graphc.ops.winograd import WinogradProduct, winograd_kernel
from tests.lower.judge import judge


def f32(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def products(plan: Plan, kind: type = WinogradItem) -> list:
    return [item for launch in plan.launches for item in launch.items if isinstance(item, kind)]


@pytest.mark.parametrize("shape", [(2, 7, 9), (1, 1, 1), (3, 1, 4), (0, 5, 5), (1, 60, 31)])
@pytest.mark.parametrize(("low", "high"), [((1, 1), (1, 1)), ((0, 3), (2, 0))])
def test_items_are_what_the_reference_says(shape, low, high):
    x, u = gx.placeholder("x", ("batch", "height", "width", 5)), gx.placeholder("u", (2, 16, 5, 32))
    y = apply(WinogradProduct(low, high, 33), x, u)
    plan = judge({"y": y}, {x: f32(*shape, 5), u: f32(2, 16, 5, 32)}, rtol=1e-4, atol=1e-4)
    assert len(products(plan)) == 1


def test_the_transformed_kernel_is_its_formula():
    kernel = gx.parameter("k", f32(3, 3, 2, 33))
    u = gx.compile({"u": winograd_kernel(kernel)}, inputs=[])()["u"]
    g = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    wanted = np.einsum("ai,bj,ijcf->abcf", g, g, kernel.value.astype(float)).reshape(16, 2, 33)
    assert u.shape == (2, 16, 2, 32)
    np.testing.assert_allclose(u[0], wanted[:, :, :32], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(u[1, :, :, :1], wanted[:, :, 32:], rtol=1e-5, atol=1e-6)
    assert not u[1, :, :, 1:].any()
