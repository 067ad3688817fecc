"""The chain rule as text: it parses back to the gradient itself, and reads."""

from __future__ import annotations

import os

import numpy as np
import pytest

import graphc as gx
from graphc.report import parse_explained_gradient
from tests.autodiff.graphs import random_graph


@pytest.mark.parametrize("seed", range(100))
def test_the_text_parses_back_to_the_gradient(seed: int) -> None:
    loss, leaves, _ = random_graph(seed)
    wrt = leaves[seed % len(leaves)]
    text = gx.explain_gradient(loss, wrt)
    assert parse_explained_gradient(text, loss, wrt) is gx.grad(loss, [wrt])[0]
    assert "does not depend" not in text


def test_each_value_between_has_a_step_with_its_line() -> None:
    x, w = gx.placeholder("x", (3,)), gx.parameter("w", np.ones(3, np.float32))
    y = gx.placeholder("y", ())
    loss = gx.binary_cross_entropy(y, gx.sigmoid(gx.sum(w * x)))
    text = gx.explain_gradient(loss, w)
    steps = [line for line in text.splitlines() if line.startswith("  d_")]
    assert steps == [
        "  d_loss = 1",
        "  d_v2 = 1 * (sigmoid(v2) - y)",
        "  d_v1 = broadcast(d_v2, [3])",
        "  d_w = d_v1 * x",
    ]
    values = [line.split("   # ")[0] for line in text.splitlines() if os.path.basename(__file__) in line]
    assert values == ["loss = binary_cross_entropy_with_logits(y, v2)", "v2 = sum(v1)", "v1 = w * x", "w"]
    assert "use_logits_of_sigmoid" in text


def test_computed_wrt_and_names_that_clash() -> None:
    x = gx.placeholder("loss", (3,))
    h = gx.tanh(x)
    loss = gx.sum(h * h * gx.parameter("v1", np.ones(3, np.float32)))
    text = gx.explain_gradient(loss, h)
    assert parse_explained_gradient(text, loss, h) is gx.grad(loss, [h])[0]
    assert "loss_2 = sum(" in text


def test_a_loss_that_does_not_depend_on_it() -> None:
    x, y = gx.placeholder("x", (3,)), gx.placeholder("y", (2,))
    text = gx.explain_gradient(gx.sum(x), y)
    assert "does not depend" in text
    assert parse_explained_gradient(text, gx.sum(x), y) is gx.grad(gx.sum(x), [y])[0]


def test_large_constants_and_odd_names() -> None:
    w = gx.parameter("a | %1 = b\ngradient: %0", np.ones(40, np.float32))
    loss = gx.sum(gx.exp(w * np.arange(40, dtype=np.float32)))
    text = gx.explain_gradient(loss, w)
    assert parse_explained_gradient(text, loss, w) is gx.grad(loss, [w])[0]


def test_text_of_another_loss_is_refused() -> None:
    x, y = gx.placeholder("x", (3,)), gx.placeholder("y", (2,))
    text = gx.explain_gradient(gx.sum(x), x)
    with pytest.raises(gx.ParseError, match="leaf 0"):
        parse_explained_gradient(text, gx.sum(y), y)
    with pytest.raises(gx.ParseError):
        parse_explained_gradient("gradient: %9", gx.sum(gx.constant(1.0)), gx.constant(1.0))
