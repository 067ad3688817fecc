"""Places of extremes in long rows, which are searched for in two passes."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.lower.split import LONG_ROW
from tests.lower.judge import judge

SPECIAL = {
    "equal ones": np.tile(np.float32([1, 3, 3, -2, -2]), LONG_ROW // 5 + 1),
    "zeros of both signs": np.tile(np.float32([-0.0, 0.0]), LONG_ROW),
    "infinities": np.r_[np.zeros(LONG_ROW), -np.inf, np.inf, np.inf, -np.inf].astype(np.float32),
    "nothing else": np.full(LONG_ROW, np.inf, np.float32),
    "a NaN": np.r_[np.inf, np.zeros(LONG_ROW), np.nan, 5, np.nan].astype(np.float32),
    "only NaN": np.full(LONG_ROW, np.nan, np.float32),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_the_first_place_counts(name):
    row = SPECIAL[name]
    x = gx.placeholder("x", (2, row.size))
    outputs = {"most": gx.argmax(x), "least": gx.argmin(x, keepdims=True), "of_sums": gx.argmax(x + x)}
    plan = judge(outputs, {x: np.stack([row, row[::-1]])})
    assert not any("argm" in launch.label for launch in plan.launches)


def test_integers_and_a_row_alone():
    x, y = gx.placeholder("x", ("n", 200), "int32"), gx.placeholder("y", (300,), "uint32")
    random = np.random.default_rng(0)
    judge({"x": gx.argmin(x), "y": gx.argmax(y)}, {x: random.integers(-9, 9, (5, 200)).astype(np.int32),
          y: random.integers(0, 9, 300).astype(np.uint32)})  # fmt: skip
