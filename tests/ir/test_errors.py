"""Errors: what they are, and how they read."""

from __future__ import annotations

import pytest

import graphc as gx
from graphc import errors
from graphc.errors import GraphcError

KINDS = [
    (errors.ShapeError, ValueError), (errors.DTypeError, TypeError), (errors.AxisError, ValueError),
    (errors.NameClashError, ValueError), (errors.GraphError, ValueError), (errors.IndexRangeError, IndexError),
    (errors.NonFiniteError, FloatingPointError), (errors.BackendError, RuntimeError), (errors.FileError, OSError),
    (errors.ParseError, ValueError), (errors.ExportError, ValueError), (errors.VerifyError, AssertionError),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "builtin"), KINDS)
def test_every_error_is_graphcs_and_pythons(kind, builtin):
    error = kind("what is wrong", details=("x: f32[3]",), at="model.py:4   y = f(x)", remedy="do this")
    assert isinstance(error, GraphcError)
    assert isinstance(error, builtin)
    assert str(error) == "what is wrong\n  x: f32[3]\nat model.py:4   y = f(x)\nto do: do this"
    assert str(kind("what is wrong")) == "what is wrong"
    assert getattr(gx, kind.__name__) is kind


def test_all_errors_are_listed_here():
    assert {kind for kind, _ in KINDS} == set(GraphcError.__subclasses__())


def test_an_error_is_located_once():
    error = errors.ShapeError("sizes differ", details=("inner",), remedy="make them equal")
    assert error.located("matmul", ("x: f32[3]",), "model.py:4") is error
    error.located("grad", ("y: f32[3]",), "other.py:9")
    assert str(error) == "matmul: sizes differ\n  x: f32[3]\n  inner\nat model.py:4\nto do: make them equal"


def test_the_operands_stand_in_columns():
    x, weights = gx.placeholder("x", (2, 3)), gx.parameter("weights", [[1.0, 2.0]])
    with pytest.raises(gx.ShapeError) as caught:
        x @ weights
    rows = [row for row in str(caught.value).splitlines() if row.startswith("  ")]
    assert rows[0].startswith("  x: f32[2, 3]")
    assert rows[1].startswith("  weights: f32[1, 2]")
    assert "test_errors.py" in rows[0]
